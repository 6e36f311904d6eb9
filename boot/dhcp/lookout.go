package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"bootd/boot"
)

const (
	// askEvery is how often a lookout asks who gives addresses. Answers to
	// others are heard in between, if they are broadcast.
	askEvery = 5 * time.Minute
	// lostAfter is how long a server may be silent until it counts as gone:
	// two questions were not answered.
	lostAfter = 2*askEvery + time.Minute
	// maxOthers is how many servers of an interface are told apart.
	maxOthers = 16
)

// Another is a DHCP server that is not bootd, on a network whose addresses
// bootd gives.
type Another struct {
	Interface string
	Addr      netip.Addr // by which clients know it
	MAC       boot.MAC   // its card
	Offers    netip.Addr // an address that it gave; invalid: none, it is about booting
	Since     time.Time
	Last      time.Time // when it was last heard
}

// String says who it is, for people.
func (o Another) String() string {
	s := fmt.Sprintf("%s (%s)", o.Addr, o.MAC)
	if o.Offers.IsValid() {
		return s + " gives addresses, such as " + o.Offers.String()
	}
	return s + " answers machines that boot"
}

// A Tap sends and receives Ethernet frames on an interface.
type Tap interface {
	// Receive waits for the next frame from a DHCP server to its clients. It
	// fails with net.ErrClosed once the Tap is closed.
	Receive(frame []byte) (int, error)
	Send(frame []byte) error
	Card() boot.MAC // of the interface
	Close() error
}

// A Lookout watches for other DHCP servers where bootd gives the addresses: two
// servers that know nothing of each other give one address to two machines.
// It asks as a client would, and takes nothing.
type Lookout struct {
	catalog func() *boot.Catalog
	log     *slog.Logger
	open    func(iface string) (Tap, error)
	link    func(iface string) (Link, error)

	mu     sync.Mutex
	others []Another
}

// LookoutConfig is what a Lookout needs.
type LookoutConfig struct {
	Catalog func() *boot.Catalog
	Log     *slog.Logger

	// Open and Link may be set by tests; nil means real interfaces.
	Open func(iface string) (Tap, error)
	Link func(iface string) (Link, error)
}

// NewLookout returns a lookout that does not look yet.
func NewLookout(c LookoutConfig) *Lookout {
	l := &Lookout{catalog: c.Catalog, log: c.Log, open: c.Open, link: c.Link}
	if l.open == nil {
		l.open = openTap
	}
	if l.link == nil {
		l.link = LinkOf
	}
	return l
}

// String names the lookout in messages.
func (l *Lookout) String() string { return "lookout for other DHCP servers" }

// Others lists the servers that are there now, by interface and address.
func (l *Lookout) Others() []Another {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.others)
}

// A post is a lookout on one interface.
type post struct {
	tap   Tap
	index int
	ended chan struct{}
	next  time.Time // when to ask again
	asked int
}

// Run looks until ctx ends. An interface that cannot be looked at is said once,
// and tried again.
func (l *Lookout) Run(ctx context.Context) error {
	const look = 2 * time.Second
	posts := map[string]*post{}
	defer func() {
		for _, p := range posts {
			p.close()
		}
	}()
	said := map[string]string{}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		l.reconcile(posts, said)
		now := time.Now()
		for name, p := range posts {
			l.ask(name, p, now)
		}
		l.forget(now, posts)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *post) close() {
	_ = p.tap.Close() // nothing is lost by it
	<-p.ended
}

// reconcile opens posts where they are missing, and closes those that are not
// wanted any more.
func (l *Lookout) reconcile(posts map[string]*post, said map[string]string) {
	wanted := map[string]int{}
	c := l.catalog()
	for i := range c.Networks {
		n := &c.Networks[i]
		if n.Mode != boot.Authoritative || n.Relayed {
			continue
		}
		if link, err := l.link(n.Interface); err == nil && attached(n, link) {
			wanted[n.Interface] = link.Index
		}
	}
	for name, p := range posts {
		if index, ok := wanted[name]; !ok || index != p.index {
			p.close()
			delete(posts, name)
		}
	}
	for name, index := range wanted {
		if posts[name] != nil {
			continue
		}
		tap, err := l.open(name)
		if err != nil {
			if said[name] != err.Error() {
				said[name] = err.Error()
				l.log.Warn("other DHCP servers are not looked for", "interface", name, "err", err)
			}
			continue
		}
		delete(said, name)
		p := &post{tap: tap, index: index, ended: make(chan struct{})}
		posts[name] = p
		go func() {
			defer close(p.ended)
			l.listen(name, tap)
		}()
	}
}

// ask asks who gives addresses: twice at first, since a switch may not forward
// yet, then now and then.
func (l *Lookout) ask(name string, p *post, now time.Time) {
	if now.Before(p.next) {
		return
	}
	p.next = now.Add(askEvery)
	if p.asked++; p.asked == 1 {
		p.next = now.Add(30 * time.Second)
	}
	if err := p.tap.Send(question(p.tap.Card(), rand.Uint32())); err != nil {
		l.log.Debug("cannot ask for other DHCP servers", "interface", name, "err", err)
	}
}

// listen hears what servers say until the tap is closed.
func (l *Lookout) listen(name string, tap Tap) {
	frame := make([]byte, 2048)
	for {
		n, err := tap.Receive(frame)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(time.Second) // a link that goes down comes back
			continue
		}
		if o, ok := overheard(frame[:n], tap.Card()); ok {
			o.Interface = name
			l.heard(o)
		}
	}
}

// heard notes a server, unless it is bootd itself.
func (l *Lookout) heard(o Another) {
	if link, err := l.link(o.Interface); err != nil || slices.ContainsFunc(link.Addrs, func(p netip.Prefix) bool { return p.Addr() == o.Addr }) {
		return
	}
	now := time.Now()
	o.Since, o.Last = now, now
	l.mu.Lock()
	defer l.mu.Unlock()
	on := 0
	for i := range l.others {
		known := &l.others[i]
		if known.Interface != o.Interface {
			continue
		}
		on++
		if known.Addr == o.Addr {
			known.Last, known.MAC = now, o.MAC
			if o.Offers.IsValid() {
				known.Offers = o.Offers
			}
			return
		}
	}
	if on >= maxOthers {
		return
	}
	l.others = append(l.others, o)
	slices.SortFunc(l.others, func(a, b Another) int {
		if c := strings.Compare(a.Interface, b.Interface); c != 0 {
			return c
		}
		return a.Addr.Compare(b.Addr)
	})
	l.log.Warn("another DHCP server answers here; stop it, or leave the addresses to it (mode: proxy)",
		"interface", o.Interface, "addr", o.Addr, "mac", o.MAC, "offers", o.Offers)
}

// forget drops servers that have gone silent, and those of interfaces that are
// not looked at any more.
func (l *Lookout) forget(now time.Time, posts map[string]*post) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.others = slices.DeleteFunc(l.others, func(o Another) bool {
		gone := now.Sub(o.Last) > lostAfter
		if gone {
			l.log.Info("the other DHCP server is silent now", "interface", o.Interface, "addr", o.Addr)
		}
		return gone || posts[o.Interface] == nil
	})
}

const (
	ipHeader  = 20 // without options
	udpHeader = 8
)

// question is a DISCOVER as a frame. It asks for nothing to boot, and for the
// answer to be broadcast. As a frame it does not come back to bootd's own port.
func question(card boot.MAC, xid uint32) []byte {
	d := make([]byte, atOptions, minSize)
	d[0], d[atHType], d[atHLen], d[atFlags] = bootRequest, ethernet, 6, broadcasts
	binary.BigEndian.PutUint32(d[atXID:], xid)
	copy(d[atCHAddr:], card[:])
	binary.BigEndian.PutUint32(d[atCookie:], cookie)
	d = append(d, optType, 1, byte(TypeDiscover), optWanted, 3, optMask, optRouter, optDNS, optEnd)
	d = d[:minSize]

	f := make([]byte, 0, etherHeader+ipHeader+udpHeader+minSize)
	f = append(f, 255, 255, 255, 255, 255, 255)
	f = append(f, card[:]...)
	f = append(f, 8, 0)
	size := ipHeader + udpHeader + len(d)
	ip := []byte{0x45, 0, byte(size >> 8), byte(size), 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255}
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	f = append(f, ip...)
	f = append(f, 0, clientPort, 0, serverPort, byte((size-ipHeader)>>8), byte(size-ipHeader), 0, 0) // without a checksum (RFC 768)
	return append(f, d...)
}

// checksum is that of an IP header (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// overheard reads from a frame which server says something to a client. Frames
// of the own card are bootd's.
func overheard(f []byte, own boot.MAC) (Another, bool) {
	if len(f) < etherHeader+ipHeader || boot.MAC(f[6:12]) == own || f[12] != 8 || f[13] != 0 {
		return Another{}, false
	}
	ip := f[etherHeader:]
	header := int(ip[0]&15) * 4
	fragment := binary.BigEndian.Uint16(ip[6:]) & 0x1fff
	if ip[0]>>4 != 4 || header < ipHeader || len(ip) < header+udpHeader || ip[9] != 17 || fragment != 0 {
		return Another{}, false
	}
	udp := ip[header:]
	if binary.BigEndian.Uint16(udp) != serverPort || binary.BigEndian.Uint16(udp[2:]) != clientPort {
		return Another{}, false
	}
	p, err := parse(udp[udpHeader:])
	if err != nil || p[0] != bootReply {
		return Another{}, false
	}
	t := p.get(optType)
	if len(t) != 1 || MessageType(t[0]) != TypeOffer && MessageType(t[0]) != TypeAck && MessageType(t[0]) != TypeNak {
		return Another{}, false
	}
	o := Another{Addr: p.addr(optServer), MAC: boot.MAC(f[6:12]), Offers: p.addrAt(atYIAddr)}
	if !o.Addr.IsValid() {
		o.Addr = addr4(ip[12:16])
	}
	return o, o.Addr.IsValid()
}
