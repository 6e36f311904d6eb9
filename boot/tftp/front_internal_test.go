package tftp

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func newFront(t testing.TB, most, mostEach int) (*front, *bytes.Buffer) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var log bytes.Buffer
	return &front{
		PacketConn: conn, conn: conn, bound: netip.MustParseAddr("127.0.0.1"),
		log: slog.New(slog.NewTextHandler(&log, nil)), most: most, mostEach: mostEach,
		sessions: make(map[string]session), clients: make(map[netip.Addr]int),
	}, &log
}

// TestSessionsAreBounded writes what clients do as one word each: a, b and c ask
// (in capitals: and get no answer), 1 to 9 end the session with that ID, and x is
// a failure of the library to begin the last one.
func TestSessionsAreBounded(t *testing.T) {
	rrq := []byte("\x00\x01file\x00octet\x00")
	for _, steps := range []string{
		"a b c 1 2 3",
		"a a A b B",     // two for each client, three in all
		"a a A 1 a A",   // the end of one makes room
		"a b c A 2 a B", // all taken
		"a x b c a A",   // one that could not begin takes no room
		"a 1 1 1 a a A", // ending twice changes nothing
	} {
		f, log := newFront(t, 3, 2)
		full := false
		for _, step := range strings.Fields(steps) {
			switch c := step[0]; {
			case c == 'x':
				if !f.abandon() {
					t.Errorf("%s: nothing to abandon", steps)
				}
			case c <= '9':
				f.end(step)
			default:
				client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, c | 0x20}), 1000)
				if _, ok := f.admit(rrq, client); ok != (c >= 'a') {
					t.Errorf("%s: at %s: served %t", steps, step, ok)
				}
			}
			full = full || len(f.sessions) == f.most && step < "a"
		}
		if said := strings.Contains(log.String(), "all taken"); said != full {
			t.Errorf("%s: said that sessions are taken: %t, they were: %t", steps, said, full)
		}
		total := 0
		for _, n := range f.clients {
			total += n
		}
		if total != len(f.sessions) {
			t.Errorf("%s: %d sessions, but clients have %d", steps, len(f.sessions), total)
		}
	}
}

// TestAnswersFromAnotherAddress is about a machine with two addresses in one
// network, where the kernel prefers the other one.
func TestAnswersFromAnotherAddress(t *testing.T) {
	f, log := newFront(t, 3, 2)
	f.bound = netip.MustParseAddr("127.0.0.77")
	for range 2 {
		f.admit([]byte("\x00\x01file\x00octet\x00"), netip.MustParseAddrPort("127.0.0.9:1000"))
	}
	if n := strings.Count(log.String(), "another address"); n != 1 {
		t.Errorf("said %d times that answers leave from another address: %s", n, log)
	}
}

// FuzzRequest: whatever arrives, what the library gets to see is a read request
// for a session, small enough for it, and the name leads nowhere.
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
		out := q.packet("18446744073709551615", 1500)
		again, err := parseRequest(out)
		if err != nil || again.name != "18446744073709551615" || again.mode != q.mode || again.block > 1468 {
			t.Errorf("%q becomes %q, %v", p, out, err)
		}
		if len(out) > 516 {
			t.Errorf("%q becomes %d bytes, which the library cuts off", p, len(out))
		}
		name, ok := cleanName(q.name)
		if ok && (strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../") || strings.ContainsAny(name, "\\\x00\n")) {
			t.Errorf("the name %q is understood as %q", q.name, name)
		}
	})
}
