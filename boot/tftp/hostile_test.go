package tftp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	client "github.com/pin/tftp/v3"

	"bootd/boot"
	"bootd/boot/tftp"
)

// serve runs a server at an address, with so many sessions.
func serve(t *testing.T, addr, loaders string, sessions int) *bench {
	t.Helper()
	b := &bench{events: make(chan boot.Event, 100), log: &lines{}}
	s, err := tftp.Listen(netip.MustParseAddrPort(addr), tftp.Config{
		Loaders: dirFiles(loaders), Sessions: sessions, Record: func(boot.Event) {}, Log: slog.New(slog.NewTextHandler(b.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.addr = s.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return b
}

// card opens a socket at an address of the loopback network.
func card(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestHalfOpen: requests of which nobody ever takes the answer keep no machine from
// its loader, however many addresses they come from.
func TestHalfOpen(t *testing.T) {
	dir := t.TempDir()
	want := strings.Repeat("loader ", 20_000)
	write(t, filepath.Join(dir, "ipxe.efi"), want)
	b := serve(t, "127.0.0.1:0", dir, 16)
	var flood []*net.UDPConn
	for i := range 16 {
		for j := range 4 {
			flood = append(flood, card(t, fmt.Sprintf("127.1.%d.%d:0", i, j+1)))
		}
	}
	quit, quiet := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(quiet)
		for {
			for _, c := range flood { // an error is as good as a lost packet
				_, _ = c.WriteToUDPAddrPort([]byte("\x00\x01ipxe.efi\x00octet\x00blksize\x0065464\x00windowsize\x0064\x00"), b.addr)
			}
			select {
			case <-quit:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	defer func() { close(quit); <-quiet }()
	for end := time.Now().Add(time.Minute); !strings.Contains(b.log.String(), "all taken"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("there is still room")
		}
	}
	c, err := client.NewClient(b.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetTimeout(100 * time.Millisecond) // until it asks again
	c.SetBackoff(func(int) time.Duration { return 0 })
	c.SetRetries(250)
	r, err := c.Receive("ipxe.efi", "octet")
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := r.WriteTo(&got); err != nil || got.String() != want {
		t.Fatalf("in the flood: %d bytes, %v", got.Len(), err)
	}
}

// TestStandingStill: clients that stop in the middle of a file do not keep others
// from theirs.
func TestStandingStill(t *testing.T) {
	dir := t.TempDir()
	want := strings.Repeat("loader ", 20_000)
	write(t, filepath.Join(dir, "ipxe.efi"), want)
	b := serve(t, "127.0.0.1:0", dir, 64)
	for i := range 32 {
		c := card(t, fmt.Sprintf("127.2.0.%d:0", i+1))
		send(t, c, b.addr, "\x00\x01ipxe.efi\x00octet\x00blksize\x001468\x00")
		_, from := receive(t, c)
		send(t, c, from, "\x00\x04\x00\x00")
		if got, _ := receive(t, c); !strings.HasPrefix(got, "\x00\x03\x00\x01") {
			t.Fatalf("the first block is %.20q", got)
		}
	}
	if got, err := b.get(t, "ipxe.efi"); err != nil || got != want {
		t.Fatalf("beside them: %d bytes, %v", len(got), err)
	}
}

// TestAnswersLeaveFromWhereTheyWereAsked is about a machine with several addresses
// in one network: the kernel would take another one.
func TestAnswersLeaveFromWhereTheyWereAsked(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "text")
	b := serve(t, "127.0.0.77:0", dir, 16)
	c := card(t, "127.0.0.9:0")
	for _, options := range []string{"", "tsize\x000\x00"} {
		send(t, c, b.addr, "\x00\x01a\x00octet\x00"+options)
		if _, from := receive(t, c); from.Addr() != b.addr.Addr() || from.Port() == b.addr.Port() {
			t.Errorf("asked at %s, it answers from %s", b.addr, from)
		}
		c = card(t, "127.0.0.9:0")
	}
}

// TestNetASCII: ends of lines are converted for clients that ask for text, which is
// what tftp-hpa does unless it is told otherwise. A size cannot be told then.
func TestNetASCII(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat("line\nand\rmore\r\n", 1000)
	write(t, filepath.Join(dir, "a"), text)
	b := start(t, dir, "")
	c, err := client.NewClient(b.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Receive("a", "netascii")
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := r.WriteTo(&got); err != nil || got.String() != text {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	conn := dial(t)
	send(t, conn, b.addr, "\x00\x01a\x00NetASCII\x00tsize\x000\x00")
	first, _ := receive(t, conn)
	if want := "\x00\x03\x00\x01line\r\nand\r\x00more\r\x00\r\nline"; !strings.HasPrefix(first, want) {
		t.Errorf("on the wire it is %.40q", first)
	}
	if binary.BigEndian.Uint16([]byte(first)) != 3 || len(first) != 516 {
		t.Errorf("the first packet has %d bytes", len(first))
	}
}
