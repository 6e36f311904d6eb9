package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bootd/boot"
)

const (
	// waiting is how many requests of a port may wait to be decided about.
	waiting = 2048
	// backlog is how many batches of acknowledgements may wait for the disk.
	// Beyond it no more is decided, so that what cannot be answered in time is
	// dropped in one place.
	backlog = 64
	// group is how many acknowledgements go with one sync, about.
	group = 256
)

// A Server answers DHCP on the interfaces of the catalog's networks.
type Server struct {
	policy Policy
	record func(boot.Event)
	log    *slog.Logger
	open   func(iface string, port uint16) (Conn, error)
	link   func(iface string) (Link, error)
	reload chan struct{}

	mu    sync.Mutex
	ports map[place]*port

	dropped atomic.Uint64
}

// A place is where a port is.
type place struct {
	iface  string
	number uint16
}

// A port is one of the UDP ports that are served on an interface.
type port struct {
	place
	index int // of the interface that conn is bound to
	conn  Conn
	done  chan struct{} // closed when its goroutines have ended; nil: not started

	probing *probing // nil: conn cannot find out whether addresses are in use

	// The interface's addresses, asked for at most once a second. Only the
	// goroutine that decides uses them.
	link  Link
	asked time.Time
}

// Config is what a Server needs.
type Config struct {
	Policy Policy
	Record func(boot.Event) // told of what happens to machines
	Log    *slog.Logger

	// Open and Link may be set by tests; nil means real interfaces.
	Open func(iface string, port uint16) (Conn, error)
	Link func(iface string) (Link, error)
}

// Listen binds the interfaces of all networks that are not off. What cannot be
// bound is an error; so are interfaces that are not there or have no address,
// but only when all are like that. One of several may be plugged in later, and
// Run looks for it.
func Listen(c Config) (*Server, error) {
	s := &Server{policy: c.Policy, record: c.Record, log: c.Log, open: c.Open, link: c.Link,
		reload: make(chan struct{}, 1), ports: map[place]*port{}}
	s.policy.guard = newGuard(c.Log)
	if s.open == nil {
		s.open = s.openReal
	}
	if s.link == nil {
		s.link = LinkOf
	}
	absent, failed := s.reconcile()
	if failed == nil && len(s.ports) == 0 {
		failed = absent
	}
	if failed != nil {
		s.closeAll()
		return nil, failed
	}
	if absent != nil {
		s.log.Error("a network is not served", "err", absent)
	}
	return s, nil
}

// String names the server in messages.
func (s *Server) String() string { return "DHCP" }

// Dropped counts requests that were dropped unread because more came than
// could be answered.
func (s *Server) Dropped() uint64 { return s.dropped.Load() }

// Unanswered counts requests of new machines that were not answered, because
// more asked than took what they were offered.
func (s *Server) Unanswered() uint64 { return s.policy.guard.count() }

// Floods lists where more new machines asked in the last minutes than took what
// they were offered, by network.
func (s *Server) Floods() []Flood { return s.policy.guard.list(time.Now()) }

// Reload makes Run look for interfaces that have come or gone in the catalog.
func (s *Server) Reload() {
	select {
	case s.reload <- struct{}{}:
	default:
	}
}

// wanted are the interfaces with a network that is not off.
func (s *Server) wanted() map[string][]*boot.Network {
	out := map[string][]*boot.Network{}
	c := s.policy.Catalog()
	for i := range c.Networks {
		if n := &c.Networks[i]; n.Mode == boot.Authoritative || n.Mode == boot.Proxy {
			out[n.Interface] = append(out[n.Interface], n)
		}
	}
	return out
}

// reconcile opens what is missing and closes what is not wanted. One
// interface's error does not keep it from the others. The first error is of
// interfaces that are not there or have no address, the second of those that
// cannot be opened.
func (s *Server) reconcile() (absent, failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := s.wanted()
	for at, p := range s.ports {
		if wanted[at.iface] == nil {
			s.log.Info("no longer answering", "interface", at.iface, "port", at.number)
			s.closeLocked(p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		link, err := s.usable(name, wanted[name])
		if err != nil {
			absent = errors.Join(absent, err)
			continue
		}
		for _, number := range []uint16{serverPort, bootPort} {
			failed = errors.Join(failed, s.openLocked(place{name, number}, link.Index))
		}
	}
	return absent, failed
}

// openLocked opens a port, if it is not open.
func (s *Server) openLocked(at place, index int) error {
	if p := s.ports[at]; p != nil {
		if p.index == index {
			return nil
		}
		// A socket stays bound to the interface that is gone, and hears
		// nothing any more, though there is a new one of the same name.
		s.closeLocked(p)
	}
	conn, err := s.open(at.iface, at.number)
	if err != nil {
		return err
	}
	p := &port{place: at, index: index, conn: conn}
	if prober, ok := conn.(Prober); ok {
		p.probing = newProbing(prober)
	}
	s.ports[at] = p
	s.log.Info("answering", "interface", at.iface, "port", at.number)
	return nil
}

// usable describes an interface, or says why it cannot serve its networks.
// Those behind relay agents need no address of their own, but the interface
// needs one in some network, be it one whose mode is off: without this rule
// nobody would be told of an interface that was left without its address.
func (s *Server) usable(name string, networks []*boot.Network) (Link, error) {
	link, err := s.link(name)
	if err != nil {
		return Link{}, fmt.Errorf("cannot answer DHCP on network %s: %w", networks[0].Name, err)
	}
	served := func(n *boot.Network) bool { return ServerAddr(n, link).IsValid() }
	if slices.ContainsFunc(s.policy.Catalog().NetworksOn(name), served) {
		return link, nil
	}
	return Link{}, fmt.Errorf("cannot answer DHCP on network %s: interface %s has no address in %s; give it one: ip addr add ADDRESS/%d dev %s",
		networks[0].Name, name, networks[0].Subnet, networks[0].Subnet.Bits(), name)
}

func (s *Server) closeLocked(p *port) {
	delete(s.ports, p.place)
	_ = p.conn.Close() // nothing is lost by it
	if p.done != nil {
		<-p.done
	}
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.ports {
		s.closeLocked(p)
	}
}

// Run answers until ctx ends, or until leases cannot be kept any more.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer s.closeAll()
	// An interface that is not there yet is tried again, but reported once.
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	said := ""
	for {
		s.start(cancel)
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return nil
		case <-s.reload:
		case <-tick.C:
		}
		text := ""
		if err := errors.Join(s.reconcile()); err != nil {
			if text = err.Error(); text != said {
				s.log.Error("a network is not served", "err", err)
			}
		}
		said = text
	}
}

// start runs the ports that do not run yet.
func (s *Server) start(fail context.CancelCauseFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.ports {
		if p.done == nil {
			p.done = make(chan struct{})
			go func() {
				defer close(p.done)
				if err := s.serve(p); err != nil {
					fail(err)
				}
			}()
		}
	}
}

// openReal opens a port on a real interface; that where addresses are given
// away with probes, if that can be.
func (s *Server) openReal(iface string, port uint16) (Conn, error) {
	c, err := open(iface, port)
	if err != nil {
		return nil, err
	}
	if port != serverPort {
		return c, nil
	}
	arp, err := openARP(iface)
	if err != nil {
		s.log.Warn("addresses are offered without looking whether they are in use", "interface", iface, "err", err)
		return c, nil
	}
	return &probingSocket{c, arp}, nil
}

// serve answers on one port until it is closed. Its goroutines hand on to each
// other: one reads packets, one decides about them, and one acknowledges. While
// the leases of some answers are being synced, the next requests are decided,
// and all that have gathered go with the next sync. Two more see to offers
// whose addresses are yet to be proven free.
func (s *Server) serve(p *port) error {
	requests, acks, closing := newQueue(waiting), newAcknowledger(), make(chan struct{})
	var failed error
	var committer, reader, prober, holder sync.WaitGroup
	committer.Go(func() { failed = s.commit(p, acks) })
	reader.Go(func() {
		defer close(closing)
		defer requests.close()
		s.read(p, requests)
	})
	if p.probing != nil {
		prober.Go(func() { s.listen(p, acks) })
		holder.Go(func() { s.proceed(p, closing) })
	}
	d := newDecider(s, p, acks)
	packets := buffers()
	for n := requests.take(packets); n > 0; n = requests.take(packets) {
		d.decide(packets[:n])
	}
	reader.Wait()
	prober.Wait()
	if p.probing != nil {
		close(p.probing.queue)
	}
	holder.Wait()
	close(acks.batches)
	committer.Wait()
	return failed
}

func buffers() []Packet {
	packets := make([]Packet, batch)
	for i := range packets {
		packets[i].Data = make([]byte, maxPacket)
	}
	return packets
}

// read moves packets from the Conn to the queue until the Conn is closed.
func (s *Server) read(p *port, requests *queue) {
	packets := buffers()
	for {
		n, err := p.conn.Receive(packets)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// A link that goes down says so once and comes back.
			s.log.Warn("cannot receive", "interface", p.iface, "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if dropped := requests.put(packets[:n]); dropped > 0 {
			s.dropped.Add(uint64(dropped))
		}
	}
}

func (s *Server) send(p *port, answers []Answer) {
	if len(answers) == 0 {
		return
	}
	if err := p.conn.Send(answers); err != nil && !errors.Is(err, net.ErrClosed) {
		s.log.Warn("answers were not sent", "interface", p.iface, "err", err)
	}
}

// happened tells the record what has been decided and, where it had to be, is
// durable.
func (s *Server) happened(a Answer) {
	if a.Event.Stage != "" {
		s.record(a.Event)
	}
}

// tell logs a request. What happens to machines is logged by who keeps the
// record; this is for looking at packets.
func (s *Server) tell(p *port, r Request, a Answer) {
	s.log.Debug("request", "interface", p.iface, "port", p.number, "mac", r.MAC, "type", r.Type.String(), "client", r.Client,
		"class", r.Class, "asked", r.Asked, "relay", r.Relay, "to", a.To, "unanswered", a.Why)
}
