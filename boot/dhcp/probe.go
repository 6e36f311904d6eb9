package dhcp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bootd/boot"
)

const (
	// probeTime is how long an offer of an address that its client did not
	// have before is held back, for somebody to say that he has it. A host on
	// the same wire answers in a millisecond; firmware asks again after a
	// second at the earliest.
	probeTime = 100 * time.Millisecond
	// maxProbes is how many offers can be held back at a time. More are sent
	// at once: a late offer is worse than an unchecked one.
	maxProbes = 1024
	// maxClaims is how many addresses one card may say that it has. A router
	// that answers for everybody (proxy ARP) would leave no address.
	maxClaims = 8
)

// A Prober is a Conn that can find out whether an address is in use.
type Prober interface {
	// Probe asks who has an address, and does not wait for an answer.
	Probe(netip.Addr) error
	// Heard waits until a card shows that it has an address. It fails with
	// net.ErrClosed once the Conn is closed.
	Heard() (netip.Addr, boot.MAC, error)
}

// A held offer is one that waits for its address to be proven free.
type held struct {
	request Request
	answer  Answer
	link    Link
	until   time.Time
}

// A probing is the offers of a port that are held back.
type probing struct {
	Prober
	queue chan netip.Addr // in the order of their time

	mu      sync.Mutex
	waiting map[netip.Addr]*held
	claims  map[boot.MAC][]netip.Addr // which addresses a card was found to have
	mute    bool                      // that asking failed has been said
}

func newProbing(p Prober) *probing {
	return &probing{Prober: p, queue: make(chan netip.Addr, maxProbes), waiting: map[netip.Addr]*held{}, claims: map[boot.MAC][]netip.Addr{}}
}

// hold keeps an offer back and asks who has its address. It reports false when
// that cannot be: then the offer may leave.
func (s *Server) hold(p *port, r Request, a Answer, link Link, now time.Time) bool {
	b := p.probing
	if b == nil || !a.Probe.Addr.IsValid() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.waiting[a.Probe.Addr]; w != nil {
		w.request, w.answer = r.clone(), a.clone() // the client has asked again
		return true
	}
	if err := b.Probe(a.Probe.Addr); err != nil {
		if !b.mute && !errors.Is(err, net.ErrClosed) {
			s.log.Warn("cannot find out whether addresses are in use; they are offered unchecked", "interface", p.iface, "err", err)
			b.mute = true
		}
		return false
	}
	select {
	case b.queue <- a.Probe.Addr:
		b.waiting[a.Probe.Addr] = &held{r.clone(), a.clone(), link, now.Add(probeTime)}
		return true
	default:
		return false
	}
}

// clone returns a request that outlives its packet's buffer.
func (r Request) clone() Request {
	r.packet, r.work = bytes.Clone(r.packet), nil
	return r
}

// clone returns an answer that outlives the workspace that it was made in.
func (a Answer) clone() Answer {
	a.Reply = bytes.Clone(a.Reply)
	return a
}

// take ends the waiting for an address.
func (b *probing) take(a netip.Addr) *held {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.waiting[a]
	delete(b.waiting, a)
	return w
}

// proceed sends offers whose time has come. It returns when the queue is
// closed; what waits then is dropped.
func (s *Server) proceed(p *port, closing <-chan struct{}) {
	b := p.probing
	timer := time.NewTimer(0)
	defer timer.Stop()
	for a := range b.queue {
		b.mu.Lock()
		w := b.waiting[a]
		b.mu.Unlock()
		if w == nil {
			continue // somebody has it
		}
		timer.Reset(time.Until(w.until))
		select {
		case <-timer.C:
		case <-closing:
			continue
		}
		if w = b.take(a); w != nil {
			s.policy.Leases.Proven(w.answer.Probe)
			s.happened(w.answer)
			s.send(p, []Answer{w.answer})
		}
	}
}

// listen hears who has an address that is about to be offered, and offers
// another one instead.
func (s *Server) listen(p *port, acks acknowledger) {
	b := p.probing
	for {
		a, mac, err := b.Heard()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// As in read: a link that goes down says so once.
			s.log.Warn("cannot hear who has which address", "interface", p.iface, "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		w := b.claimed(a, mac)
		if w == nil {
			continue
		}
		now := time.Now()
		s.log.Warn("address in use", "interface", p.iface, "addr", a, "mac", mac)
		acks.add([]Answer{s.policy.Conflict(w.answer, mac, now)})
		next := s.policy.Answer(w.request, w.link, now)
		switch {
		case s.hold(p, w.request, next, w.link, now):
		case next.Reply != nil:
			s.happened(next)
			s.send(p, []Answer{next})
		default:
			s.happened(next)
		}
	}
}

// claimed returns the offer of an address that mac says it has, if there is
// one, it is for somebody else, and mac is to be believed.
func (b *probing) claimed(a netip.Addr, mac boot.MAC) *held {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.waiting[a]
	if w == nil || w.request.MAC == mac {
		return nil
	}
	if !slices.Contains(b.claims[mac], a) {
		if len(b.claims[mac]) >= maxClaims || len(b.claims) >= maxProbes {
			return nil
		}
		b.claims[mac] = append(b.claims[mac], a)
	}
	delete(b.waiting, a)
	return w
}
