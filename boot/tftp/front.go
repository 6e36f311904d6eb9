package tftp

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A session is a transfer from the request until its end.
type session struct {
	id     string
	name   string // as the client spelled it
	client netip.AddrPort
	server netip.Addr // this machine, as the client sees it
	begun  time.Time
}

// A front is the server's socket as the TFTP library sees it. Only read
// requests that are to be served come through, each with its file name replaced
// by the ID of a session. Those that want what the library does not do are taken
// out.
type front struct {
	net.PacketConn // not a *net.UDPConn to the library, which would read past us
	conn           *net.UDPConn
	bound          netip.Addr // unspecified: all of this machine's
	most, mostEach int        // sessions, in all and for each client
	log            *slog.Logger
	take           func(q request, s session, mtu int) // serves what the library cannot

	mu       sync.Mutex
	next     uint64
	last     string // ID of the session handed to the library and not begun there, as far as is known
	sessions map[string]session
	clients  map[netip.Addr]int // sessions of each
	full     bool               // said so already
	strange  bool               // said so already: answers leave from another address
}

// ReadFrom waits for the next read request that is to be served. The library
// calls it when it has begun the one before, or has told the hook that it could
// not.
func (f *front) ReadFrom(b []byte) (int, net.Addr, error) {
	var buf [2 * maxRequest]byte
	f.mu.Lock()
	f.last = ""
	f.mu.Unlock()
	for {
		n, from, err := f.conn.ReadFromUDPAddrPort(buf[:])
		if err != nil {
			// Closed, as a rule; the library asks again until it notices that
			// it has been shut down. Whatever it is, do not spin on it.
			time.Sleep(time.Millisecond)
			return 0, nil, err
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		p, ok := f.admit(buf[:n], from)
		if ok {
			return copy(b, p), net.UDPAddrFromAddrPort(from), nil
		}
	}
}

// admit decides what becomes of a packet. It returns the request for the
// library.
func (f *front) admit(p []byte, from netip.AddrPort) ([]byte, bool) {
	q, err := parseRequest(p)
	if errors.Is(err, errWrite) {
		// An answer is due: a client that writes would try for a minute.
		f.conn.WriteToUDPAddrPort(errorPacket(2, "this server is read-only"), from)
	}
	if err != nil {
		f.log.Debug("TFTP packet ignored", "addr", from.String(), "err", err)
		return nil, false
	}
	s := session{name: q.name, client: from, begun: time.Now()}
	server, mtu, err := route(from)
	if err != nil {
		f.log.Debug("TFTP request ignored", "addr", from.String(), "err", err)
		return nil, false
	}
	s.server = server
	if !f.bound.IsUnspecified() {
		s.server = f.bound // where it asked, whatever leads back to it
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.bound.IsUnspecified() && server != f.bound && !f.strange {
		f.strange = true
		f.log.Warn("TFTP answers leave from another address than requests arrive at, so clients may ignore them; make the address the first of its interface",
			"addr", f.bound.String(), "leaves", server.String())
	}
	if !f.startLocked(&s) {
		return nil, false
	}
	if q.wants() {
		f.take(q, s, mtu)
		return nil, false
	}
	f.last = s.id
	return q.packet(s.id, mtu), true
}

// startLocked opens a session if there is room for one.
func (f *front) startLocked(s *session) bool {
	if len(f.sessions) >= f.most {
		if !f.full {
			f.full = true
			f.log.Warn("TFTP sessions are all taken; clients have to ask again", "sessions", f.most, "addr", s.client.String())
		}
		return false
	}
	if f.clients[s.client.Addr()] >= f.mostEach {
		f.log.Debug("TFTP request ignored: too many at once from this client", "addr", s.client.String())
		return false
	}
	f.next++
	s.id = strconv.FormatUint(f.next, 10)
	f.sessions[s.id] = *s
	f.clients[s.client.Addr()]++
	return true
}

// session returns the session with this ID.
func (f *front) session(id string) (session, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.sessions[id]
	return s, ok
}

// end closes the session with this ID.
func (f *front) end(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.sessions[id]
	if !ok {
		return
	}
	delete(f.sessions, id)
	f.full = false
	if f.clients[s.client.Addr()]--; f.clients[s.client.Addr()] == 0 {
		delete(f.clients, s.client.Addr())
	}
}

// abandon closes the session that was handed to the library last, which could
// not begin it. It reports false when there is none.
func (f *front) abandon() bool {
	f.mu.Lock()
	id := f.last
	f.last = ""
	f.mu.Unlock()
	if id == "" {
		return false
	}
	f.end(id)
	return true
}

// route tells from which of this machine's addresses a packet to client leaves,
// and how large it can be (0: unknown). The kernel knows, once a socket is
// connected; nothing is sent.
func route(client netip.AddrPort) (netip.Addr, int, error) {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(client))
	if err != nil {
		return netip.Addr{}, 0, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.Addr{}, 0, err
	}
	mtu := 0
	err = raw.Control(func(fd uintptr) {
		if n, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MTU); err == nil {
			mtu = n
		}
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), mtu, err
}
