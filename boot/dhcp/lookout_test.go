package dhcp_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
	"bootd/boot/dhcp"
)

// A line is a wire on which a DHCP server answers, or does not.
type line struct {
	card   boot.MAC
	closed chan struct{}
	once   sync.Once
	frames chan []byte

	mu    sync.Mutex
	asked []*dhcpv4.DHCPv4
	other string // address of the other server; empty: there is none
}

func newLine() *line {
	return &line{card: mac(900), closed: make(chan struct{}), frames: make(chan []byte, 100)}
}

func (l *line) Card() boot.MAC { return l.card }

func (l *line) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *line) Receive(frame []byte) (int, error) {
	select {
	case f := <-l.frames:
		return copy(frame, f), nil
	case <-l.closed:
		return 0, net.ErrClosed
	}
}

func (l *line) Send(frame []byte) error {
	m, err := dhcpv4.FromBytes(frame[14+20+8:])
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, m)
	if l.other != "" {
		reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithYourIP(ip("10.0.0.150")),
			dhcpv4.WithServerIP(ip(l.other)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip(l.other))))
		if err != nil {
			return err
		}
		l.frames <- framed(mac(901), l.other, reply.ToBytes())
	}
	return nil
}

func (l *line) serves(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.other = addr
}

// framed puts a server's packet into a frame.
func framed(from boot.MAC, addr string, payload []byte) []byte {
	f := append(bytes.Repeat([]byte{255}, 6), from[:]...)
	f = append(f, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0)
	f = append(f, netip.MustParseAddr(addr).AsSlice()...)
	f = append(f, 255, 255, 255, 255, 0, 67, 0, 68, 0, 0, 0, 0)
	return append(f, payload...)
}

// TestLookout has another server come and go.
func TestLookout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		passes := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		l := newLine()
		var log bytes.Buffer
		c := catalog(t)
		var absent atomic.Bool
		absent.Store(true)
		o := dhcp.NewLookout(dhcp.LookoutConfig{
			Catalog: func() *boot.Catalog { return c }, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Link: onlyEth1,
			Open: func(iface string) (dhcp.Tap, error) {
				if absent.Load() {
					return nil, errors.New("not permitted")
				}
				return l, nil
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- o.Run(ctx) }()
		passes(10 * time.Minute)
		if n := strings.Count(log.String(), "not permitted"); n != 1 {
			t.Errorf("said %d times:\n%s", n, log.String())
		}
		absent.Store(false)
		passes(time.Minute)
		if got := o.Others(); len(got) != 0 || len(l.asked) != 2 {
			t.Fatalf("nobody answers: %v, asked %d times", got, len(l.asked))
		}
		if m := l.asked[0]; m.MessageType() != dhcpv4.MessageTypeDiscover || !m.IsBroadcast() || m.ClientHWAddr.String() != mac(900).String() {
			t.Errorf("asked %s", m.Summary())
		}
		l.serves("10.0.0.2")
		passes(6 * time.Minute)
		got := o.Others()
		if len(got) != 1 || got[0].String() != "10.0.0.2 (02:00:00:00:03:85) gives addresses, such as 10.0.0.150" || got[0].Interface != "eth1" {
			t.Fatalf("others: %v", got)
		}
		passes(time.Hour)
		if n := strings.Count(log.String(), "another DHCP server answers here"); n != 1 {
			t.Errorf("said %d times:\n%s", n, log.String())
		}
		// What bootd says itself, and what it relays to its own address, is none.
		l.serves("")
		passes(15 * time.Minute)
		if got := o.Others(); len(got) != 0 || !strings.Contains(log.String(), "silent now") {
			t.Errorf("it is gone, and there is still %v\n%s", got, log.String())
		}
		l.serves("10.0.0.1")
		passes(6 * time.Minute)
		if got := o.Others(); len(got) != 0 {
			t.Errorf("bootd is another server to itself: %v", got)
		}
		// A crowd is told apart up to a bound.
		for i := range 100 {
			l.serves(netip.AddrFrom4([4]byte{10, 0, 0, byte(100 + i)}).String())
			passes(6 * time.Minute)
		}
		if got := o.Others(); len(got) == 0 || len(got) > 16 {
			t.Errorf("%d others", len(got))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// FuzzOverheard: whatever comes along a wire, a server that is named has an
// address, and is not bootd's own card.
func FuzzOverheard(f *testing.F) {
	m, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithYourIP(ip("10.0.0.150")))
	if err != nil {
		f.Fatal(err)
	}
	m.OpCode = dhcpv4.OpcodeBootReply
	good := framed(mac(901), "10.0.0.2", m.ToBytes())
	f.Add(good)
	f.Add(framed(mac(900), "10.0.0.2", m.ToBytes()))
	for _, cut := range []int{0, 13, 14, 33, 42, 60, len(good) - 1} {
		f.Add(good[:cut])
	}
	options := bytes.Clone(good)
	options[14] = 0x4f
	f.Add(options)
	f.Fuzz(func(t *testing.T, frame []byte) {
		o, ok := dhcp.Overheard(frame, mac(900))
		if ok && (!o.Addr.Is4() || o.Addr.IsUnspecified() || o.MAC == mac(900)) {
			t.Errorf("%+v", o)
		}
	})
}

// lookout finds a real server on a real wire.
func lookout(t *testing.T, m machine, p dhcp.Policy) {
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		t.Skip("dnsmasq is not installed (package dnsmasq-base)")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	started := filepath.Join(dir, "pid")
	c := exec.CommandContext(ctx, "dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--interface=card", "--bind-dynamic", "--user=root", "--dhcp-authoritative",
		"--dhcp-range=10.0.0.200,10.0.0.210,1h", "--dhcp-leasefile="+filepath.Join(dir, "leases"), "--pid-file="+started, "--log-dhcp", "--log-facility=-")
	c.Stdout, c.Stderr = out, out
	m.do(func() {
		run(t, "ip", "addr", "flush", "dev", "card")
		run(t, "ip", "addr", "add", "10.0.0.2/24", "dev", "card")
		err = c.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.do(func() { run(t, "ip", "addr", "del", "10.0.0.2/24", "dev", "card") })
	defer func() {
		cancel()
		_ = c.Wait() // it is killed
	}()
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(50 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				said, _ := os.ReadFile(out.Name())
				t.Fatalf("not %s:\n%s", what, said)
			}
		}
	}
	until("started", func() bool { b, err := os.ReadFile(started); return err == nil && len(b) > 0 })
	o := dhcp.NewLookout(dhcp.LookoutConfig{Catalog: p.Catalog, Log: quiet})
	ended := make(chan error, 1)
	looking, stop := context.WithCancel(t.Context())
	go func() { ended <- o.Run(looking) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	until("found", func() bool { return len(o.Others()) > 0 })
	if got := o.Others()[0]; got.Addr != addr("10.0.0.2") || got.MAC != mac(7) || !got.Offers.IsValid() {
		t.Errorf("found %+v", got)
	}
}
