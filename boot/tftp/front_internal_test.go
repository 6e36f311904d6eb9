package tftp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func testFront(most, mostEach int) (*front, *bytes.Buffer) {
	var log bytes.Buffer
	f := newFront(nil, most, slog.New(slog.NewTextHandler(&log, nil)))
	f.mostEach = mostEach
	return f, &log
}

// TestSessionsAreBounded writes what clients do as one word each: a, b and c ask
// from another port each time (in capitals: and get no answer), 1 to 9 end the
// session with that number, ! after it lets that one's client answer instead, and +
// lets time pass.
func TestSessionsAreBounded(t *testing.T) {
	for _, steps := range []string{
		"a b c 1 2 3",
		"a a A b B",     // two for each client, three in all
		"a a A 1 a A",   // the end of one makes room
		"a b c A 2 a B", // all taken
		"a 1 1 1 a a A", // ending twice changes nothing

		"a b c + a b c A",        // the oldest has said nothing, and makes room
		"a b c + a + b + c + a",  // and so on
		"a a b + A c c b A",      // not for a client that has its share
		"a b c 1! 2! 3! + A B C", // all have answered
		"a b c 1! + a + b 1 c",   // those that have stay
	} {
		f, log := testFront(3, 2)
		now := time.Unix(1000, 0)
		var list []*session
		full := false
		for i, step := range strings.Fields(steps) {
			switch c := step[0]; {
			case c == '+':
				now = now.Add(hearing)
			case strings.HasSuffix(step, "!"):
				if err := f.answered(t.Context(), list[c-'1']); err != nil {
					t.Fatal(err)
				}
			case c <= '9':
				f.end(list[c-'1'])
				list[c-'1'].seated = false
			default:
				client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, c | 0x20}), uint16(1000+i))
				was := len(f.sessions)
				s := f.admit([]byte("\x00\x01file\x00octet\x00"), client, now)
				if (s != nil) != (c >= 'a') {
					t.Errorf("%s: at %s: served %t", steps, step, s != nil)
				}
				if full = full || s == nil && was == f.most && f.clients[client.Addr()] < f.mostEach; s != nil {
					list = append(list, s)
				}
			}
			total := 0
			for _, n := range f.clients {
				total += n
			}
			if total != len(f.sessions) || total > f.most {
				t.Errorf("%s: at %s: %d sessions, clients have %d", steps, step, len(f.sessions), total)
			}
		}
		if said := strings.Count(log.String(), "all taken"); said > 1 || (said == 1) != full {
			t.Errorf("%s: said %d times that sessions are taken, they were: %t", steps, said, full)
		}
	}
}

// TestAgain is about a client that asks again from the same port.
func TestAgain(t *testing.T) {
	f, _ := testFront(10, 8)
	client, now := netip.MustParseAddrPort("10.0.0.9:2070"), time.Unix(1000, 0)
	ask := func(file string) (s *session, ended *bool) {
		ended = new(bool)
		if s = f.admit([]byte("\x00\x01"+file+"\x00octet\x00"), client, now); s != nil {
			s.cancel = func() { *ended = true }
		}
		return s, ended
	}
	first, firstEnded := ask("a")
	if again, _ := ask("a"); first == nil || again != nil || *firstEnded {
		t.Error("a request that came twice began two transfers")
	}
	second, secondEnded := ask("b")
	if second == nil || !*firstEnded {
		t.Error("a request for another file does not end the transfer before")
	}
	f.end(first) // it notices that it has ended
	if err := f.answered(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	third, _ := ask("b")
	if third == nil || !*secondEnded || len(f.sessions) != 1 || f.clients[client.Addr()] != 1 {
		t.Error("a machine that was restarted does not get its file")
	}
}

// TestPlaces: a client that has to wait is told the options at once, and gets its
// file as soon as another one has its own or is given up.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := testFront(10, 8)
		f.places = make(chan struct{}, 1)
		open := func(port uint16) (*session, context.Context) {
			s := f.admit([]byte("\x00\x01a\x00octet\x00"), netip.AddrPortFrom(netip.MustParseAddr("10.0.0.9"), port), time.Now())
			ctx, cancel := context.WithCancel(t.Context())
			s.cancel = cancel
			return s, ctx
		}
		var mu sync.Mutex
		var order []uint16
		for port := range uint16(4) {
			s, ctx := open(port)
			go func() {
				defer f.end(s)
				if f.answered(ctx, s) == nil {
					mu.Lock()
					order = append(order, port)
					mu.Unlock()
					time.Sleep(time.Second)
				}
			}()
			synctest.Wait()
		}
		mu.Lock()
		if len(order) != 1 {
			t.Errorf("%d are sent a file at the same time", len(order))
		}
		mu.Unlock()
		f.mu.Lock()
		f.endLocked(f.sessions[netip.MustParseAddrPort("10.0.0.9:2")]) // while it waits
		f.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(order) != 3 || order[0] != 0 || order[1] != 1 || order[2] != 3 || len(f.places) != 0 || len(f.sessions) != 0 {
			t.Errorf("served %v; %d places are taken, %d sessions", order, len(f.places), len(f.sessions))
		}
	})
}

// TestMakeWay: who has several places gives one up for who has none, and nobody his
// only one.
func TestMakeWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := testFront(10, 8)
		f.places = make(chan struct{}, 3)
		var mu sync.Mutex
		var said []string
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, what)
		}
		for i, client := range []string{"10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"} {
			s := f.admit([]byte("\x00\x01a\x00octet\x00"), netip.AddrPortFrom(netip.MustParseAddr(client), uint16(i)), time.Now())
			ctx, cancel := context.WithCancel(t.Context())
			s.cancel = cancel
			go func() {
				defer f.end(s)
				if f.answered(ctx, s) == nil {
					note(fmt.Sprint(i, " begins"))
					select {
					case <-ctx.Done():
						note(fmt.Sprint(i, " is ended"))
					case <-time.After(time.Hour):
						note(fmt.Sprint(i, " has it"))
					}
				}
			}()
			synctest.Wait()
			time.Sleep(time.Second)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := []string{
			"0 begins", "1 begins", "2 begins", "0 is ended", "3 begins", "1 is ended", "4 begins",
			"2 has it", "5 begins", "3 has it", "4 has it", "5 has it",
		}
		if !slices.Equal(said, want) || len(f.places) != 0 || len(f.placed) != 0 {
			t.Errorf("%q, want %q; %d places are taken", said, want, len(f.places))
		}
	})
}

// FuzzRequest: whatever arrives, what is agreed upon is within bounds, and the name
// leads nowhere.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"\x00\x01a\x00octet\x00", "\x00\x01snponly.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00",
		"\x00\x01\\..\\..\\x\xff\x00netascii\x00BLKSIZE\x0065464\x00", "\x00\x02a\x00octet\x00", "\x00\x05\x00\x08\x00", "\x00\x01\x00\x00\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		q, err := parseRequest(p)
		if err != nil {
			return
		}
		tr := newTransfer(nil, q, 1500, strings.NewReader("x"), 1)
		if tr.blocks.size < minBlock || tr.blocks.size > 1468 || tr.window < 1 || tr.window > maxWindow || tr.timeout < time.Second || tr.timeout > 255*time.Second || len(tr.oack) > 100 {
			t.Errorf("%q: blocks of %d bytes, %d in a window, %s, %q", p, tr.blocks.size, tr.window, tr.timeout, tr.oack)
		}
		name, ok := cleanName(q.name)
		if ok && (strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../") || strings.ContainsAny(name, "\\\x00\n")) {
			t.Errorf("the name %q is understood as %q", q.name, name)
		}
	})
}
