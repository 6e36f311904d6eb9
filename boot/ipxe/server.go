package ipxe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Bounds on what clients can take.
const (
	headerTimeout = 10 * time.Second // for the head of a request, or a whole report
	idleTimeout   = 30 * time.Second // between two requests
	stallTimeout  = time.Minute      // for each stallBytes of an answer
	stallBytes    = 1 << 20
	headerBytes   = 16 << 10
	connections   = 2048 // at each address
	perClient     = 64   // of those; a machine that boots has a handful
	stopTimeout   = 5 * time.Second
)

// A Server serves a handler at some addresses, to clients that may be slow,
// stuck or hostile.
type Server struct {
	listeners []net.Listener
	http      *http.Server
}

// Listen binds every address. The handler's requests carry the local address
// ([http.LocalAddrContextKey]).
func Listen(addrs []netip.AddrPort, h http.Handler, log *slog.Logger) (*Server, error) {
	s := &Server{http: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}
	for _, a := range addrs {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
		if err != nil {
			s.close()
			return nil, fmt.Errorf("cannot serve HTTP at %s: %w", a, err)
		}
		s.listeners = append(s.listeners, &listener{TCPListener: l, places: make(chan struct{}, connections), done: make(chan struct{})})
	}
	return s, nil
}

// Addrs are the addresses that the server is bound to.
func (s *Server) Addrs() []netip.AddrPort {
	var l []netip.AddrPort
	for _, n := range s.listeners {
		l = append(l, n.Addr().(*net.TCPAddr).AddrPort())
	}
	return l
}

// String names the server in messages.
func (s *Server) String() string { return fmt.Sprint("http ", s.Addrs()) }

// Run serves until ctx ends. Requests under way then have five seconds.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		g.Go(func() error {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("cannot go on serving HTTP at %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if s.http.Shutdown(stop) != nil {
			s.http.Close()
		}
		return nil
	})
	defer s.close()
	return g.Wait()
}

func (s *Server) close() {
	for _, l := range s.listeners {
		l.Close()
	}
}

// A listener hands out so many connections and no more. When all are taken, the client
// that has most gives up its oldest for one that has fewer; where there is none, those
// who have no other wait, in the kernel's queue. The connections of a client that has
// its share already are closed.
type listener struct {
	*net.TCPListener
	places  chan struct{}
	clients census
	once    sync.Once
	done    chan struct{}
}

// Accept implements [net.Listener]. It may not be called by several goroutines at once.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		n := &conn{TCPConn: c, client: c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()}
		if !l.clients.enter(n, perClient) {
			_ = c.Close() // it asks again when it has ended another
			continue
		}
		if !l.seat(n) {
			l.clients.leave(n)
			_ = c.Close()
			continue
		}
		return n, nil
	}
}

// seat gives a connection a place. It reports false when its client is to go without.
func (l *listener) seat(n *conn) bool {
	n.free = sync.OnceFunc(func() {
		l.clients.leave(n)
		<-l.places
	})
	select {
	case l.places <- struct{}{}:
		return true
	default:
	}
	switch g, has := l.clients.greedy(n.client); {
	case g != nil:
		_ = g.SetLinger(0) // what it did not take is thrown away
		_ = g.Close()
	case has > 1:
		return false
	}
	select {
	case l.places <- struct{}{}:
		return true
	case <-l.done:
		return false // and the next Accept fails
	}
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.TCPListener.Close()
}

// A conn gives up on a client that does not take what it asked for. A timeout
// for the whole answer would break off what is large over a link that is slow.
type conn struct {
	*net.TCPConn
	client netip.Addr
	free   func()
}

// Write implements [net.Conn].
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	return c.TCPConn.Write(b)
}

// ReadFrom implements [io.ReaderFrom], through which net/http sends files; the
// kernel then reads them itself. It does so in pieces, each with its deadline.
func (c *conn) ReadFrom(r io.Reader) (n int64, err error) {
	left := int64(-1) // until the end
	limited, ok := r.(*io.LimitedReader)
	if ok {
		r, left = limited.R, limited.N
		defer func() { limited.N -= n }()
	}
	for left != 0 {
		piece := int64(stallBytes)
		if left > 0 {
			piece = min(piece, left)
		}
		if err := c.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
			return n, err
		}
		m, err := c.TCPConn.ReadFrom(&io.LimitedReader{R: r, N: piece})
		n += m
		if left > 0 {
			left -= m
		}
		if err != nil || m < piece {
			return n, err
		}
	}
	return n, nil
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.free()
	return c.TCPConn.Close()
}
