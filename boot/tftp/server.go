package tftp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pin/tftp/v3"

	"bootd/boot"
)

const (
	defaultSessions = 256
	// clientSessions is how many of them one client can have: firmware has
	// one, but those it broke off linger until they time out.
	clientSessions = 8

	// An unanswered packet is repeated every second; a client that is gone
	// frees its session after ten.
	timeout = time.Second
	retries = 9

	// readAhead is how much of a file is read at once.
	readAhead = 32 << 10
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
	// Sessions is how many transfers are possible at once; 0: 256.
	Sessions int
	Log      *slog.Logger
}

// A Server answers on one address.
type Server struct {
	front  *front
	tree   tree
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
	f := &front{
		PacketConn: conn, conn: conn, bound: addr.Addr(), log: c.Log,
		most: c.Sessions, mostEach: clientSessions,
		sessions: make(map[string]session), clients: make(map[netip.Addr]int),
	}
	if f.most == 0 {
		f.most = defaultSessions
	}
	return &Server{front: f, tree: t, record: c.Record, log: c.Log}, nil
}

// Addr is the address and port that the server is bound to.
func (s *Server) Addr() netip.AddrPort {
	return s.front.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// String names the server in messages.
func (s *Server) String() string { return "tftp " + s.Addr().String() }

// Run serves until ctx ends. Transfers under way are then broken off; those
// whose client is silent delay the return by up to ten seconds.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	srv := tftp.NewServer(func(id string, rf io.ReaderFrom) error { return s.send(ctx, id, rf) }, nil)
	srv.SetTimeout(timeout)
	srv.SetRetries(retries)
	srv.SetBackoff(func(int) time.Duration { return 0 }) // the timeout is pause enough
	srv.SetBlockSizeNegotiation(false)                   // the front has looked at the MTU
	srv.SetHook(hook{s.front})

	var windows sync.WaitGroup
	defer func() {
		cancel() // when the socket has failed
		windows.Wait()
	}()
	s.front.take = func(q request, ses session, mtu int) {
		windows.Go(func() { s.sendWindows(ctx, q, ses, mtu) })
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.front) }()
	var err error
	select {
	case <-ctx.Done():
		srv.Shutdown()
		<-served
	case err = <-served:
		err = fmt.Errorf("cannot go on serving TFTP at %s: %w", s.Addr(), err)
	}
	// Once more: what the library read before its socket was closed may have
	// become a handler only now, and before Serve it had no socket to close.
	s.front.conn.Close()
	srv.Shutdown()
	if s.tree.overlay != nil {
		s.tree.overlay.Close()
	}
	return err
}

// send is one transfer. The library sends the error it returns to the client.
func (s *Server) send(ctx context.Context, id string, rf io.ReaderFrom) error {
	defer s.front.end(id)
	q, ok := s.front.session(id)
	if !ok {
		return errors.New("this request has ended")
	}
	log := s.log.With("addr", q.client.String(), "file", q.name)
	name, f, err := s.find(ctx, log, q)
	if err != nil {
		return err
	}
	defer f.Close()
	if t, ok := rf.(tftp.OutgoingTransfer); ok {
		t.SetSize(f.Size)
	}
	n, err := rf.ReadFrom(bufio.NewReaderSize(&source{ctx, f}, readAhead))
	if err != nil {
		logFailure(log, err)
		return err
	}
	s.sent(log, q, name, f, n)
	return nil
}

// find opens the file that a session is about. The error is for the client.
func (s *Server) find(ctx context.Context, log *slog.Logger, q session) (string, file, error) {
	name, ok := cleanName(q.name)
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
func (s *Server) sent(log *slog.Logger, q session, name string, f file, n int64) {
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

// logFailure tells of a transfer that was not completed. That the client broke
// it off is no failure: EDK2 asks for a file's size by beginning to fetch it and
// answering with error 8, "User aborted the transfer"; others have error 0.
func logFailure(log *slog.Logger, err error) {
	switch {
	case strings.HasPrefix(err.Error(), "sending block "): // the library's text for a client's error
		log.Debug("TFTP transfer ended by the client", "err", err)
	case errors.Is(err, context.Canceled):
		log.Debug("TFTP transfer ended: the server stops")
	default:
		log.Info("TFTP transfer not completed", "err", err)
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

// hook hears from the library of requests that it could not begin, for want of
// file descriptors. Everything else that it tells reaches send as well, or is
// about the closed socket.
type hook struct{ front *front }

func (h hook) OnSuccess(tftp.TransferStats) {}

func (h hook) OnFailure(stats tftp.TransferStats, err error) {
	if stats.Filename == "" && h.front.abandon() {
		h.front.log.Warn("TFTP request not served", "err", err)
	}
}
