package ra

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDecide(t *testing.T) {
	local := netip.MustParseAddr("fe80::5054:ff:fe77:11")
	zoned := local.WithZone("br0")
	router := func(lifetime ...byte) []byte {
		return append(append([]byte{134, 0, 0, 0, 64, 0}, lifetime...), 0, 0, 0, 0, 0, 0, 0, 0)
	}
	for name, tt := range map[string]struct {
		msg  []byte
		from netip.Addr
		want decision
	}{
		"solicitation":                   {[]byte{133, 0, 0, 0, 0, 0, 0, 0}, local, decision{answer: local}},
		"solicitation with a zone":       {[]byte{133, 0, 0, 0, 0, 0, 0, 0}, zoned, decision{answer: local}},
		"solicitation with an option":    {[]byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 0x77, 0, 0x11}, local, decision{answer: local}},
		"solicitation without address":   {[]byte{133, 0, 0, 0, 0, 0, 0, 0}, netip.IPv6Unspecified(), decision{answer: allNodes}},
		"solicitation from elsewhere":    {[]byte{133, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr("2001:db8::1"), decision{}},
		"short solicitation":             {[]byte{133, 0, 0, 0}, local, decision{}},
		"solicitation of unknown code":   {[]byte{133, 1, 0, 0, 0, 0, 0, 0}, local, decision{}},
		"nothing":                        {nil, local, decision{}},
		"router for half an hour":        {router(0x07, 0x08), local, decision{router: 30 * time.Minute}},
		"router for nobody, as we are":   {Advertisement(net.HardwareAddr{2, 0, 0, 0, 0, 1}), local, decision{}},
		"router that is not a neighbour": {router(0x07, 0x08), netip.MustParseAddr("2001:db8::1"), decision{}},
		"short advertisement":            {router(0x07, 0x08)[:15], local, decision{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(tt.msg, tt.from); got != tt.want {
				t.Errorf("decide = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func FuzzDecide(f *testing.F) {
	local := netip.MustParseAddr("fe80::1")
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0})
	f.Add(Advertisement(net.HardwareAddr{2, 0, 0, 0, 0, 1}))
	f.Fuzz(func(t *testing.T, msg []byte) {
		d := decide(msg, local)
		if d.answer.IsValid() && (d.router != 0 || msg[0] != 133) {
			t.Errorf("answers %x: %+v", msg, d)
		}
		if d.router < 0 || d.router > 65535*time.Second {
			t.Errorf("a router for %v", d.router)
		}
	})
}

// TestServer asks for a router over a veth pair: from this server, and then
// with a real router's voice beside it.
func TestServer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network namespace; TestDecide has the rules")
	}
	client, server := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	all := netip.MustParseAddr("ff02::1")
	rs := []byte{133, 0, 0, 0, 0, 0, 0, 0}
	if err := until(client, rs, allRouters); err != nil {
		t.Fatalf("no advertisement: %v", err)
	}
	// A router that stays for a minute.
	if err := client.send([]byte{134, 0, 0, 0, 64, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0}, all); err != nil {
		t.Fatal(err)
	}
	if err := until(client, rs, allRouters); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("beside a real router: %v, want silence", err)
	}
}

// until sends a message every 100 ms, for two and a half seconds, until an
// advertisement that offers nothing comes.
func until(s *Server, msg []byte, to netip.Addr) error {
	for range 25 {
		if err := s.send(msg, to); err != nil {
			return err
		}
		if err := s.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		err := receive(s)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return os.ErrDeadlineExceeded
}

// receive skips what else passes on the interface.
func receive(s *Server) error {
	buf := make([]byte, 1500)
	for {
		n, cm, _, err := s.conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		if cm.IfIndex == s.ifi.Index && cm.HopLimit == 255 && n == 24 && buf[0] == advertisement && bytes.Equal(buf[4:18], Advertisement(make(net.HardwareAddr, 6))[4:18]) {
			return nil
		}
	}
}

// pair returns two ends of a cable with a Server on each, in a network
// namespace that ends with the test.
func pair(t *testing.T) (a, b *Server) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // ends with the goroutine, and the namespace with its last socket
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			for _, args := range [][]string{
				{"link", "add", "left", "type", "veth", "peer", "name", "right"},
				{"link", "set", "left", "up"}, {"link", "set", "right", "up"},
				{"addr", "add", "fe80::a/64", "dev", "left", "nodad"}, {"addr", "add", "fe80::b/64", "dev", "right", "nodad"},
			} {
				if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
					return errors.New(string(out))
				}
			}
			var err error
			if a, err = Listen("left", slog.New(slog.DiscardHandler)); err != nil {
				return err
			}
			b, err = Listen("right", slog.New(slog.DiscardHandler))
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.conn.Close() })
	return a, b
}
