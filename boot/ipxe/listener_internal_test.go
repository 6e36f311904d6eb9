package ipxe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestConnectionsAreBounded: a listener with one place gives it out again when its
// connection is closed, once, however often it is closed.
func TestConnectionsAreBounded(t *testing.T) {
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{TCPListener: tcp, places: make(chan struct{}, 1), done: make(chan struct{})}
	accepted := make(chan net.Conn)
	ended := make(chan error)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for i := range 3 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i))}}
		c, err := d.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for i := range 3 {
		c := <-accepted
		if n := len(l.places); n != 1 {
			t.Errorf("connection %d: %d places are taken", i, n)
		}
		if i == 2 {
			break // with the place taken, Close must end Accept all the same
		}
		c.Close()
		c.Close()
	}
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
}

// TestSlowReaders: clients that have taken every place, and do not take what they asked
// for, keep no other from what it asks for, even while they come back all the time.
func TestSlowReaders(t *testing.T) {
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	const places, size = 8, 8 << 20
	s := &Server{
		listeners: []net.Listener{&listener{TCPListener: tcp, places: make(chan struct{}, places), done: make(chan struct{})}},
		http: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, size)) // an error: it is one of the others
		})},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	var asked []net.Conn
	defer func() {
		for _, c := range asked {
			c.Close()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	ask := func(client string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
		c, err := d.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		asked = append(asked, c)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") // an error: it was closed again
		return c
	}
	slow := func() {
		for i := range places {
			ask([]string{"127.0.0.2", "127.0.0.3"}[i%2])
		}
	}
	slow()
	for _, client := range []string{"127.0.0.4", "127.0.0.5", "127.0.0.4"} {
		c := ask(client)
		slow()
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, c); err != nil || n < size {
			t.Errorf("%s got %d bytes: %v", client, n, err)
		}
	}
}

// TestSendInPieces: what a connection takes from a reader is what it was to take,
// no byte more, and the reader stands where it should.
func TestSendInPieces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	text := strings.Repeat("0123456789abcdef", 3*stallBytes/16) + "end"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{0, 1, stallBytes - 1, stallBytes, stallBytes + 1, 2 * stallBytes, len(text) - 1, len(text)} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		limited := &io.LimitedReader{R: f, N: int64(want)}
		n, got := send(t, limited)
		at, _ := f.Seek(0, io.SeekCurrent)
		if n != int64(want) || limited.N != 0 || at != int64(want) || got != text[:want] {
			t.Errorf("%d bytes: sent %d, received %d, left %d, at %d", want, n, len(got), limited.N, at)
		}
		f.Close()
	}
	if n, got := send(t, strings.NewReader(text)); n != int64(len(text)) || got != text {
		t.Errorf("without a limit: sent %d, received %d", n, len(got))
	}
	short := &io.LimitedReader{R: strings.NewReader(text), N: 1 << 40}
	if n, got := send(t, short); n != int64(len(text)) || got != text || short.N != 1<<40-n {
		t.Errorf("from a reader that ends early: sent %d, received %d", n, len(got))
	}
}

// send sends r over a connection, and returns what arrives.
func send(t *testing.T, r io.Reader) (int64, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	received := make(chan string)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			received <- err.Error()
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		received <- string(b)
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	n, err := (&conn{TCPConn: c.(*net.TCPConn)}).ReadFrom(r)
	c.Close()
	if err != nil {
		t.Error(err)
	}
	return n, <-received
}
