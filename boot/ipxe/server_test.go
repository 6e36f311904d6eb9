package ipxe_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bootd/boot"
	"bootd/boot/ipxe"
)

// serve runs a handler on loopback until the test ends.
func serve(t testing.TB, h http.Handler, addrs ...string) (s *ipxe.Server, stop func()) {
	t.Helper()
	var l []netip.AddrPort
	for _, a := range addrs {
		l = append(l, netip.MustParseAddrPort(a))
	}
	s, err := ipxe.Listen(l, h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

func body(t testing.TB, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLinksFollowTheConnection is about one process at several addresses: each
// client gets links to the one it reached, whatever it calls it.
func TestLinksFollowTheConnection(t *testing.T) {
	w := newWorld(t)
	s, _ := serve(t, w.handler, "127.0.0.1:0", "127.0.0.2:0")
	for _, a := range s.Addrs() {
		req, err := http.NewRequest("GET", "http://"+a.String()+"/boot.ipxe", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "attacker.example"
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != string(ipxe.First("http://"+a.String(), runOf(string(b)))) {
			t.Errorf("at %s: %v\n%s", a, err, b)
		}
	}
}

// TestWholeBootOverTCP is the walk of [TestBoot] over real connections: the
// ticket is bound to the address of the connection.
func TestWholeBootOverTCP(t *testing.T) {
	w := newWorld(t)
	w.network = &boot.Network{Name: "lo", Mode: boot.Authoritative, Subnet: netip.MustParsePrefix("127.0.0.0/8")}
	s, _ := serve(t, w.handler, "127.0.0.1:0")
	local := netip.MustParseAddr("127.0.0.1")
	w.leases[local] = node1
	w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: boot.Offered})
	w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: boot.Leased, Client: boot.IPXE, Addr: local})
	m := newSim(func(_, url string) (string, bool) {
		resp, err := http.Get(url)
		if err != nil {
			return "", false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err == nil && resp.StatusCode == 200
	}, &card{mac: node1.String(), link: true})
	root := "http://" + s.Addrs()[0].String()
	if end := m.run(body(t, root+"/boot.ipxe")); end != booted {
		t.Fatalf("the machine %s: %q", end, m.log)
	}
	_, url, _ := strings.Cut(m.kernel, "ignition.config.url=")
	url, _, _ = strings.Cut(url, " ")
	if got := body(t, url); !strings.Contains(got, secret) {
		t.Errorf("%s: %s", url, got)
	}
}

// TestLargeFile has a file go through the server's connections in pieces, as a
// whole and in part.
func TestLargeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rootfs")
	want := strings.Repeat("0123456789abcdef", 5<<20/16) + "end"
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
	s, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }), "127.0.0.1:0")
	url := "http://" + s.Addrs()[0].String() + "/rootfs"
	if got := body(t, url); got != want {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=1048577-3145730")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != want[1048577:3145731] {
		t.Errorf("a range: got %d bytes, %v", len(b), err)
	}
}

// TestStop is about a request that does not end: Run does, and the port is free.
func TestStop(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s, stop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		fmt.Fprint(w, "done")
	}), "127.0.0.1:0")
	addr := s.Addrs()[0].String()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	// It is still answered, because it was there first.
	close(release)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "done" {
		t.Errorf("%q, %v", b, err)
	}
	resp.Body.Close()
	<-stopped
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the port is still bound: %v", err)
	}
	l.Close()
}

func TestListenTellsWhatIsWrong(t *testing.T) {
	s, _ := serve(t, http.NotFoundHandler(), "127.0.0.1:0")
	used := s.Addrs()[0]
	free := netip.MustParseAddrPort("127.0.0.1:0")
	_, err := ipxe.Listen([]netip.AddrPort{free, used}, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), used.String()) {
		t.Errorf("err = %v", err)
	}
}

// TestHeadersAreBounded is about a client that sends a header without end.
func TestHeadersAreBounded(t *testing.T) {
	s, _ := serve(t, http.NotFoundHandler(), "127.0.0.1:0")
	conn, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		fmt.Fprint(conn, "GET / HTTP/1.1\r\n")
		for range 10000 {
			if _, err := fmt.Fprint(conn, "X: 0123456789\r\n"); err != nil {
				return
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// TestUnwantedBody is about a client that announces a body where there is none to
// be, and does not send it: it is answered, and the connection ends.
func TestUnwantedBody(t *testing.T) {
	w := newWorld(t)
	s, _ := serve(t, w.handler, "127.0.0.1:0")
	conn, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /boot.ipxe HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx")
	b, err := io.ReadAll(conn) // ends when the server closes
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 ") || !strings.Contains(string(b), "Connection: close") {
		t.Errorf("%v: %.300s", err, b)
	}
}

func BenchmarkScriptOverTCP(b *testing.B) {
	w := newWorld(b)
	w.network = nil
	s, _ := serve(b, w.handler, "127.0.0.1:0")
	url := "http://" + s.Addrs()[0].String() + ask
	for b.Loop() {
		body(b, url)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// One client cannot take all places.
func TestConnectionsPerClient(t *testing.T) {
	w := newWorld(t)
	s, _ := serve(t, w.handler, "127.0.0.1:0")
	addr := s.Addrs()[0].String()
	from := func(client string) error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
		c, err := d.Dial("tcp", addr)
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, "GET /boot.ipxe HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 1))
		return err
	}
	for i := range 64 {
		if err := from("127.0.0.2"); err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
	}
	if err := from("127.0.0.2"); err == nil {
		t.Error("a client has more connections than its share")
	}
	if err := from("127.0.0.3"); err != nil {
		t.Errorf("another client: %v", err)
	}
}
