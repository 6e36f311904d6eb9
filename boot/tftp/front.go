package tftp

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A session is a transfer from the request until its end.
type session struct {
	request request
	client  netip.AddrPort
	server  netip.Addr // this machine, as the client sees it
	begun   time.Time
	cancel  context.CancelFunc // ends it
	// silent is its place in front.silent, until its client has answered.
	silent *list.Element
	seated bool // it has one of front.places
}

// A front is the server's socket. It decides which requests become sessions.
type front struct {
	conn           *net.UDPConn
	most, mostEach int           // sessions, in all and for each client
	places         chan struct{} // of those, that are being sent a file
	log            *slog.Logger

	mu       sync.Mutex
	sessions map[netip.AddrPort]*session // by the client's address and port, as RFC 1350 tells them apart
	silent   list.List                   // of sessions, the oldest first
	clients  map[netip.Addr]int          // sessions of each
	placed   map[netip.Addr][]*session   // of those, the ones with a place, the oldest first
	full     time.Time                   // when it was last said that there is no room
}

func newFront(conn *net.UDPConn, sessions int, log *slog.Logger) *front {
	return &front{
		conn: conn, most: sessions, mostEach: clientSessions, places: make(chan struct{}, min(sessions, transfers)), log: log,
		sessions: make(map[netip.AddrPort]*session), clients: make(map[netip.Addr]int), placed: make(map[netip.Addr][]*session),
	}
}

// run begins a session for each request that is to be served, with a goroutine of
// its own, until the socket is closed. It returns when all have ended.
func (f *front) run(ctx context.Context, serve func(context.Context, *session)) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	var buf [2 * maxRequest]byte
	for {
		n, from, err := f.conn.ReadFromUDPAddrPort(buf[:])
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			time.Sleep(time.Millisecond) // it is the host that is short of something
			continue
		}
		s := f.admit(buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), time.Now())
		if s == nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		s.cancel = cancel
		sessions.Go(func() {
			defer f.end(s)
			serve(ctx, s)
		})
	}
}

// admit decides what becomes of a packet. It returns the session that is to begin,
// or nil.
func (f *front) admit(p []byte, from netip.AddrPort, now time.Time) *session {
	q, err := parseRequest(p)
	if errors.Is(err, errWrite) {
		// An answer is due: a client that writes would try for a minute. If it is
		// lost the client asks again.
		_, _ = f.conn.WriteToUDPAddrPort(errorPacket(2, "this server is read-only"), from)
	}
	if err != nil {
		f.log.Debug("TFTP packet ignored", "addr", from.String(), "err", err)
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.sessions[from]; old != nil {
		if old.silent != nil && old.request == q {
			return nil // what is sent for that session is sent again anyway
		}
		f.endLocked(old) // its client has begun anew
	}
	if f.clients[from.Addr()] >= f.mostEach {
		f.log.Debug("TFTP request ignored: too many at once from this client", "addr", from.String())
		return nil
	}
	if len(f.sessions) >= f.most && !f.makeRoomLocked(now) {
		if now.Sub(f.full) >= time.Minute {
			f.full = now
			f.log.Warn("TFTP sessions are all taken; clients have to ask again", "sessions", f.most, "addr", from.String())
		}
		return nil
	}
	s := &session{request: q, client: from, begun: now}
	s.silent = f.silent.PushBack(s)
	f.sessions[from] = s
	f.clients[from.Addr()]++
	return s
}

// makeRoomLocked ends the oldest session whose client has not said anything in all
// the time that it has had. Many of these are of nobody: their requests had made-up
// senders.
func (f *front) makeRoomLocked(now time.Time) bool {
	e := f.silent.Front()
	if e == nil || now.Sub(e.Value.(*session).begun) < hearing {
		return false
	}
	f.endLocked(e.Value.(*session))
	return true
}

// answered notes that a session's client is there, and waits until it may be sent
// the file.
func (f *front) answered(ctx context.Context, s *session) error {
	f.mu.Lock()
	if s.silent != nil {
		f.silent.Remove(s.silent)
		s.silent = nil
	}
	f.mu.Unlock()
	select {
	case f.places <- struct{}{}:
	default:
		f.makeWay(s.client.Addr())
		select {
		case f.places <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.seated = true
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sessions[s.client] == s { // else it has just been ended
		f.placed[s.client.Addr()] = append(f.placed[s.client.Addr()], s)
	}
	return nil
}

// makeWay ends the oldest transfer of the client that has most places, if it has more
// than the given one will have: clients that stand still leave room for others.
func (f *front) makeWay(client netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var oldest *session
	most := len(f.placed[client]) + 1
	for _, l := range f.placed {
		if len(l) > most {
			oldest, most = l[0], len(l)
		}
	}
	if oldest != nil {
		f.endLocked(oldest)
	}
}

// end closes a session, once its transfer has ended.
func (f *front) end(s *session) {
	if s.seated {
		<-f.places
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocked(s)
}

func (f *front) endLocked(s *session) {
	if s.cancel != nil { // it has begun
		s.cancel()
	}
	if s.silent != nil {
		f.silent.Remove(s.silent)
		s.silent = nil
	}
	if f.sessions[s.client] != s {
		return // it has been closed already
	}
	delete(f.sessions, s.client)
	l := f.placed[s.client.Addr()]
	if i := slices.Index(l, s); i >= 0 {
		l = slices.Delete(l, i, i+1)
	}
	if f.placed[s.client.Addr()] = l; len(l) == 0 {
		delete(f.placed, s.client.Addr())
	}
	if f.clients[s.client.Addr()]--; f.clients[s.client.Addr()] == 0 {
		delete(f.clients, s.client.Addr())
	}
}
