package lease

import (
	"container/heap"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bootd/boot"
)

// A State is what is true of an address.
type State uint8

// The states of an address. A bound or offered one that is past its time is
// free, but remembers who had it.
const (
	Offered  State = 1 + iota // held for a client that was offered it
	Bound                     // leased
	Released                  // given back; kept for the same client as long as others are free
	Declined                  // found in use by somebody else; left alone for a while
)

// String names the state.
func (s State) String() string {
	switch s {
	case Offered:
		return "offered"
	case Bound:
		return "bound"
	case Released:
		return "released"
	case Declined:
		return "declined"
	}
	return fmt.Sprintf("state %d", s)
}

// A Lease is an address and who has it.
type Lease struct {
	MAC     boot.MAC   `json:"mac"`
	Addr    netip.Addr `json:"addr"`
	Network string     `json:"network"`
	State   State      `json:"-"`
	Start   time.Time  `json:"start"`          // when this client first got it
	Expires time.Time  `json:"expires"`        // of the hold, the lease or the quarantine
	Host    string     `json:"host,omitempty"` // host name that the client sent
}

// Active reports whether nobody else may have the address at now.
func (l Lease) Active(now time.Time) bool { return l.State != Released && now.Before(l.Expires) }

// A Pool says which addresses of a network a client may have. It is a value
// made for one call.
type Pool struct {
	Network  string
	Ranges   []boot.Range
	Reserved func(netip.Addr) bool // is it kept for somebody, or not to be leased at all
	Own      netip.Addr            // the address reserved for this client; invalid: none
}

// Allows reports whether the client that p was made for may have a.
func (p Pool) Allows(a netip.Addr) bool {
	if a == p.Own && a.IsValid() {
		return true
	}
	return !p.Reserved(a) && slices.ContainsFunc(p.Ranges, func(r boot.Range) bool { return r.Contains(a) })
}

var (
	// ErrTaken says that an address belongs to another client.
	ErrTaken = errors.New("the address belongs to another client")
	// ErrNotAllowed says that an address is outside what the client may have.
	ErrNotAllowed = errors.New("the address is not one of this client's network")
	// ErrExhausted says that no address is free. The error that wraps it
	// tells the network and how many addresses there are.
	ErrExhausted = errors.New("no address is free")
)

type owner struct {
	mac     boot.MAC
	network string
}

type place struct {
	addr    netip.Addr
	network string
}

// An entry is a lease in the table's indexes.
type entry struct {
	Lease
	index int // in the network's heap
}

// A segment is the part of the table that is one network.
type segment struct {
	queue  byExpiry
	ranges []boot.Range // that cursor walks through
	cursor netip.Addr   // next address of ranges[at] never looked at; invalid: at its first
	at     int
	walked time.Time // when the ranges were last walked from the beginning again
}

// rewalk is the least time between two walks through the ranges of a full
// network.
const rewalk = 10 * time.Second

// A Table holds the leases of all networks.
type Table struct {
	mu       sync.Mutex
	byOwner  map[owner]*entry
	byPlace  map[place]*entry
	segments map[string]*segment
	journal  *journal // nil: nothing is kept
}

func newTable() *Table {
	return &Table{byOwner: map[owner]*entry{}, byPlace: map[place]*entry{}, segments: map[string]*segment{}}
}

func (t *Table) segment(name string) *segment {
	s := t.segments[name]
	if s == nil {
		s = &segment{}
		t.segments[name] = s
	}
	return s
}

// Offer finds an address for a client and holds it for the time hold. In this
// order it prefers: the one reserved for the client, the one that it has or had
// last, the one that it asks for, one that nobody ever had, and the one that
// has been free for longest. It takes constant time, or logarithmic in the
// number of leases when all addresses have been used.
func (t *Table) Offer(p Pool, mac boot.MAC, asked netip.Addr, hold time.Duration, now time.Time) (Lease, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var had netip.Addr
	if e := t.byOwner[owner{mac, p.Network}]; e != nil {
		had = e.Addr
	}
	for _, a := range [...]netip.Addr{p.Own, had, asked} {
		if a.IsValid() && p.Allows(a) && t.freeLocked(p.Network, a, mac, now) {
			return t.holdLocked(p.Network, a, mac, hold, now), nil
		}
	}
	if a, ok := t.unusedLocked(p); ok {
		return t.holdLocked(p.Network, a, mac, hold, now), nil
	}
	if a, ok := t.oldestLocked(p, now); ok {
		return t.holdLocked(p.Network, a, mac, hold, now), nil
	}
	// The walk through the ranges may have passed addresses that were reserved
	// then and are not now. Looking again costs a whole walk, so it is not done
	// for each of the requests that a full network gets.
	if s := t.segment(p.Network); now.Sub(s.walked) > rewalk {
		s.walked, s.at, s.cursor = now, 0, netip.Addr{}
		if a, ok := t.unusedLocked(p); ok {
			return t.holdLocked(p.Network, a, mac, hold, now), nil
		}
	}
	return Lease{}, t.exhaustedLocked(p, now)
}

// freeLocked reports whether mac may have a: nobody else does, and it was not
// declined.
func (t *Table) freeLocked(network string, a netip.Addr, mac boot.MAC, now time.Time) bool {
	e := t.byPlace[place{a, network}]
	return e == nil || !e.Active(now) || e.MAC == mac && e.State != Declined
}

// holdLocked gives a to mac until now+hold, unless mac has it leased already.
func (t *Table) holdLocked(network string, a netip.Addr, mac boot.MAC, hold time.Duration, now time.Time) Lease {
	if e := t.byPlace[place{a, network}]; e != nil && e.MAC == mac && e.State == Bound && e.Active(now) {
		return e.Lease
	}
	return t.putLocked(Lease{MAC: mac, Addr: a, Network: network, State: Offered, Start: now, Expires: now.Add(hold)})
}

// putLocked makes l the entry of its address and of its client.
func (t *Table) putLocked(l Lease) Lease {
	s := t.segment(l.Network)
	p, o := place{l.Addr, l.Network}, owner{l.MAC, l.Network}
	e := t.byPlace[p]
	if e == nil {
		e = &entry{Lease: l}
		t.byPlace[p] = e
		heap.Push(&s.queue, e)
	} else {
		if before := (owner{e.MAC, e.Network}); before != o && t.byOwner[before] == e {
			delete(t.byOwner, before)
		}
		e.Lease = l
		heap.Fix(&s.queue, e.index)
	}
	if last := t.byOwner[o]; last != nil && last != e && last.State != Declined {
		// The client moved to another address; the old one is free at once.
		last.State, last.MAC = Released, boot.MAC{}
		last.Expires = l.Start
		heap.Fix(&s.queue, last.index)
	}
	t.byOwner[o] = e
	return e.Lease
}

// unusedLocked finds an address that nobody ever had.
func (t *Table) unusedLocked(p Pool) (netip.Addr, bool) {
	s := t.segment(p.Network)
	if !slices.Equal(s.ranges, p.Ranges) {
		s.ranges, s.at, s.cursor = slices.Clone(p.Ranges), 0, netip.Addr{}
	}
	for s.at < len(s.ranges) {
		r := s.ranges[s.at]
		if !s.cursor.IsValid() {
			s.cursor = r.First
		}
		for a := s.cursor; r.Contains(a); a = a.Next() {
			s.cursor = a
			if t.byPlace[place{a, p.Network}] == nil && p.Allows(a) {
				return a, true
			}
		}
		s.at, s.cursor = s.at+1, netip.Addr{}
	}
	return netip.Addr{}, false
}

// oldestLocked finds the address that has been free for longest.
func (t *Table) oldestLocked(p Pool, now time.Time) (netip.Addr, bool) {
	s := t.segment(p.Network)
	for len(s.queue) > 0 {
		e := s.queue[0]
		if e.Active(now) {
			return netip.Addr{}, false
		}
		if p.Allows(e.Addr) {
			return e.Addr, true
		}
		// Free, but not for leasing any more (reserved since, or out of the
		// ranges): forget it.
		heap.Pop(&s.queue)
		delete(t.byPlace, place{e.Addr, e.Network})
		if o := (owner{e.MAC, e.Network}); t.byOwner[o] == e {
			delete(t.byOwner, o)
		}
	}
	return netip.Addr{}, false
}

func (t *Table) exhaustedLocked(p Pool, now time.Time) error {
	counts := map[State]int{}
	for _, e := range t.segment(p.Network).queue {
		if e.Active(now) {
			counts[e.State]++
		}
	}
	if len(p.Ranges) == 0 {
		return fmt.Errorf("%w on network %s: it has no range, only reservations", ErrExhausted, p.Network)
	}
	return fmt.Errorf("%w on network %s: %d are leased, %d offered, %d declined; make its range larger",
		ErrExhausted, p.Network, counts[Bound], counts[Offered], counts[Declined])
}

// Bind leases an address to a client for the time ttl, or prolongs its lease.
// It is durable after the next Flush. A client may also bind an address that
// was not offered to it, if it is free and allowed: offers do not survive a
// restart of the server, and machines outlive servers.
func (t *Table) Bind(p Pool, mac boot.MAC, a netip.Addr, host string, ttl time.Duration, now time.Time) (Lease, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !p.Allows(a) {
		return Lease{}, ErrNotAllowed
	}
	if !t.freeLocked(p.Network, a, mac, now) {
		return Lease{}, ErrTaken
	}
	l := Lease{MAC: mac, Addr: a, Network: p.Network, State: Bound, Start: now, Expires: now.Add(ttl), Host: host}
	if e := t.byPlace[place{a, p.Network}]; e != nil && e.MAC == mac && e.State == Bound {
		l.Start = e.Start
	}
	l = t.putLocked(l)
	t.journal.append(l)
	return l, nil
}

// Release gives an address back. It is kept for the same client as long as
// others are free. It reports false when the client does not have it.
func (t *Table) Release(network string, mac boot.MAC, a netip.Addr, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byPlace[place{a, network}]
	if e == nil || e.MAC != mac || e.State == Declined {
		return false
	}
	l := e.Lease
	l.State, l.Expires = Released, now
	t.journal.append(t.putLocked(l))
	return true
}

// Decline leaves an address alone for the time quarantine, because its client
// found that somebody else uses it. It reports false when the client does not
// have it: who never had an address cannot take it away from others.
func (t *Table) Decline(network string, mac boot.MAC, a netip.Addr, quarantine time.Duration, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byPlace[place{a, network}]
	if e == nil || e.MAC != mac || !e.Active(now) || e.State == Declined {
		return false
	}
	l := e.Lease
	l.State, l.Expires = Declined, now.Add(quarantine)
	t.journal.append(t.putLocked(l))
	return true
}

// ByMAC returns what is remembered of a client on a network.
func (t *Table) ByMAC(network string, mac boot.MAC) (Lease, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byOwner[owner{mac, network}]; e != nil {
		return e.Lease, true
	}
	return Lease{}, false
}

// ByAddr returns what is remembered of an address on a network.
func (t *Table) ByAddr(network string, a netip.Addr) (Lease, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byPlace[place{a, network}]; e != nil {
		return e.Lease, true
	}
	return Lease{}, false
}

// All returns every remembered lease, active or not, by network and address.
func (t *Table) All() []Lease {
	t.mu.Lock()
	out := make([]Lease, 0, len(t.byPlace))
	for _, e := range t.byPlace {
		if !e.MAC.IsZero() {
			out = append(out, e.Lease)
		}
	}
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b Lease) int {
		if a.Network != b.Network {
			if a.Network < b.Network {
				return -1
			}
			return 1
		}
		return a.Addr.Compare(b.Addr)
	})
	return out
}

// byExpiry is a heap of a network's entries, with those first that have been
// free for longest.
type byExpiry []*entry

func (q byExpiry) Len() int           { return len(q) }
func (q byExpiry) Less(i, j int) bool { return q[i].Expires.Before(q[j].Expires) }
func (q byExpiry) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *byExpiry) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}
func (q *byExpiry) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}
