package ipxe

import (
	"errors"
	"net"
	"testing"
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
	for range 3 {
		c, err := net.Dial("tcp", tcp.Addr().String())
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
