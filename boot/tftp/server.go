package tftp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/pin/tftp/v3/netascii"
	"golang.org/x/net/ipv4"

	"bootd/boot"
)

const (
	// defaultSessions bounds what is begun at the same time, and transfers how much of
	// that is being sent: the others' clients have been told the options and wait.
	// What they take of the memory is little until then.
	defaultSessions = 2048
	transfers       = 256
	// clientSessions is how many of them one client can have: firmware has
	// one, but those it broke off linger until they time out.
	clientSessions = 8
	// hearing is how long a client is waited for whatever comes: longer than any
	// packet is on its way on a network that machines boot from.
	hearing = 200 * time.Millisecond

	// An unanswered packet is repeated every second; a client that is gone
	// frees its session after ten.
	timeout = time.Second
	retries = 9

	// readAhead is how much of a file is read at once.
	readAhead = 16 << 10
)

// Config is what a [Server] needs.
type Config struct {
	Loaders Files
	// Overlay is the path of a directory whose files win over everything
	// else; empty: none.
	Overlay string
	// Others finds what is in neither; nil: there is nothing else.
	Others Asker
	// BaseURL gives the root of bootd's URLs, http://10.0.0.1:8080, for a
	// client that knows this machine by the address server.
	BaseURL func(server netip.Addr) string
	// Record is told of each file that a client has completely.
	Record func(boot.Event)
	// Sessions is how many clients can have begun at once; 0: 2,048.
	Sessions int
	Log      *slog.Logger
}

// A Server answers on one address.
type Server struct {
	front  *front
	tree   tree
	bound  netip.Addr // unspecified: all of this machine's
	record func(boot.Event)
	log    *slog.Logger
}

// Listen binds addr, an IPv4 address of this machine or 0.0.0.0, and opens the
// overlay. TFTP's port is 69.
func Listen(addr netip.AddrPort, c Config) (*Server, error) {
	t := tree{loaders: c.Loaders, others: c.Others, baseURL: c.BaseURL}
	if c.Overlay != "" {
		root, err := os.OpenRoot(c.Overlay)
		if err != nil {
			return nil, fmt.Errorf("cannot serve TFTP overlay %s: %w; create the directory or take it out of the configuration", c.Overlay, err)
		}
		t.overlay = root
	}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		if t.overlay != nil {
			t.overlay.Close()
		}
		return nil, fmt.Errorf("cannot serve TFTP at %s: %w", addr, err)
	}
	// Room for as many requests as there are sessions, while the processors are busy.
	// It is no error if the system allows less.
	_ = conn.SetReadBuffer(2 << 20)
	return &Server{front: newFront(conn, cmp.Or(c.Sessions, defaultSessions), c.Log), tree: t, bound: addr.Addr(), record: c.Record, log: c.Log}, nil
}

// Addr is the address and port that the server is bound to.
func (s *Server) Addr() netip.AddrPort {
	return s.front.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// String names the server in messages.
func (s *Server) String() string { return "tftp " + s.Addr().String() }

// Run serves until ctx ends. Transfers under way are then broken off.
func (s *Server) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.front.conn.Close() })()
	err := s.front.run(ctx, s.send)
	if s.tree.overlay != nil {
		s.tree.overlay.Close()
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("cannot go on serving TFTP at %s: %w", s.Addr(), err)
}

// send is one transfer.
func (s *Server) send(ctx context.Context, ses *session) {
	log := s.log.With("addr", ses.client.String(), "file", ses.request.name)
	conn, mtu, err := dial(s.bound, ses.client)
	if err != nil {
		log.Warn("TFTP request not served", "err", err)
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	ses.server = conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	name, f, refusal := s.find(ctx, log, ses)
	if refusal != nil {
		_, _ = conn.Write(errorPacket(1, refusal.Error())) // it asks again if this is lost
		return
	}
	defer f.Close()
	var r io.Reader = &source{ctx, f}
	if ses.request.mode == netASCII {
		r, f.Size = netascii.ToReader(r), -1
	}
	t := newTransfer(&socket{ipv4.NewPacketConn(conn), conn, time.Time{}}, ses.request, mtu, r, f.Size)
	n, err := t.run(func() error { return s.front.answered(ctx, ses) })
	var ended *clientError
	switch {
	case ctx.Err() != nil:
		log.Debug("TFTP transfer given up") // for another one, or the server stops
	case errors.As(err, &ended):
		log.Debug("TFTP transfer ended by the client", "err", err)
	case err != nil:
		log.Info("TFTP transfer not completed", "err", err)
		_, _ = conn.Write(errorPacket(0, "the file cannot be sent"))
	default:
		s.sent(log, ses, name, f, n)
	}
}

// find opens the file that a session is about. The error is for the client.
func (s *Server) find(ctx context.Context, log *slog.Logger, q *session) (string, file, error) {
	name, ok := cleanName(q.request.name)
	if !ok {
		log.Debug("TFTP file refused")
		return "", file{}, errors.New("file not found")
	}
	f, err := s.tree.open(ctx, name, q.client.Addr(), q.server)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		log.Debug("TFTP file not found")
		return "", file{}, errors.New("file not found: " + name)
	case err != nil:
		log.Warn("TFTP file cannot be read", "err", err)
		return "", file{}, errors.New("file cannot be read: " + name)
	}
	return name, f, nil
}

// sent tells that a client has a file.
func (s *Server) sent(log *slog.Logger, q *session, name string, f file, n int64) {
	log.Debug("TFTP file sent", "bytes", n)
	now := time.Now()
	switch {
	case f.Sent != nil:
		f.Sent(n, now.Sub(q.begun))
	case f.loader:
		s.record(boot.Event{
			Time: now, Stage: boot.Loader, Client: boot.Firmware, Addr: q.client.Addr(),
			Text: name + " by TFTP", Bytes: n, Took: now.Sub(q.begun),
		})
	}
}

// A source ends a transfer when the server stops.
type source struct {
	ctx context.Context
	r   io.Reader
}

func (s *source) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(b)
}
