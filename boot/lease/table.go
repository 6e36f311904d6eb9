package lease

import (
	"cmp"
	"container/heap"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bootd/boot"
)

type owner struct {
	mac     boot.MAC
	network string
}

type place struct {
	addr    netip.Addr
	network string
}

// An entry is what is known of one address.
type entry struct {
	Lease
	index int // in the segment's queue

	// before is the lease that the client still has while it is offered this
	// address. It loses that when it accepts, not when it is asked.
	before *entry
}

// A segment is the part of the table that is one network.
type segment struct {
	queue  byExpiry
	counts [Declined + 1]int // entries by state
	ranges []boot.Range      // that cursor walks through
	cursor netip.Addr        // next address of ranges[at] never looked at; invalid: at its first
	at     int
	walked time.Time // when the ranges were last walked from the beginning again
}

// rewalk is the least time between two walks through the ranges of a full
// network.
const rewalk = 10 * time.Second

// A Table holds the leases of all networks.
type Table struct {
	mu       sync.Mutex
	byOwner  map[owner]*entry // what the client has, had last or is offered; never a declined one
	byPlace  map[place]*entry
	segments map[string]*segment
	journal  *journal
}

func newTable() *Table {
	return &Table{byOwner: map[owner]*entry{}, byPlace: map[place]*entry{}, segments: map[string]*segment{}}
}

func (t *Table) segmentLocked(name string) *segment {
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
//
// A client that has a lease keeps it until it binds what it was offered instead.
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
	if s := t.segmentLocked(p.Network); now.Sub(s.walked) > rewalk {
		s.walked, s.at, s.cursor = now, 0, netip.Addr{}
		if a, ok := t.unusedLocked(p); ok {
			return t.holdLocked(p.Network, a, mac, hold, now), nil
		}
	}
	return Lease{}, t.exhaustedLocked(p)
}

// Proven notes that nobody else was found to use an address that was offered,
// so that the offer is not Fresh when it is repeated.
func (t *Table) Proven(l Lease) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byPlace[place{l.Addr, l.Network}]; e != nil && e.MAC == l.MAC {
		e.Fresh = false
	}
}

// freeLocked reports whether mac may have a: nobody else does, and it was not
// declined.
func (t *Table) freeLocked(network string, a netip.Addr, mac boot.MAC, now time.Time) bool {
	e := t.byPlace[place{a, network}]
	return e == nil || !e.Active(now) || e.MAC == mac && e.State != Declined
}

// holdLocked gives a to mac until now+hold, unless mac has it leased already.
func (t *Table) holdLocked(network string, a netip.Addr, mac boot.MAC, hold time.Duration, now time.Time) Lease {
	e := t.byPlace[place{a, network}]
	if e != nil && e.MAC == mac && e.State == Bound && e.Active(now) {
		return e.Lease
	}
	return t.putLocked(Lease{MAC: mac, Addr: a, Network: network, State: Offered, Start: now, Expires: now.Add(hold),
		Fresh: e == nil || e.MAC != mac || e.State == Declined || e.Fresh})
}

// putLocked makes l the state of its address, and settles what else its
// client and the address's last client have. It is all that replaying a record
// of the journal does, and comes to the same end when records are replayed over
// a table that holds them already.
func (t *Table) putLocked(l Lease) Lease {
	s, o := t.segmentLocked(l.Network), owner{l.MAC, l.Network}
	e := t.byPlace[place{l.Addr, l.Network}]
	if e == nil {
		e = &entry{Lease: l}
		t.byPlace[place{l.Addr, l.Network}] = e
		s.counts[l.State]++
		heap.Push(&s.queue, e)
	} else {
		if e.MAC != l.MAC || l.State == Declined {
			t.disownLocked(e)
		}
		s.counts[e.State]--
		s.counts[l.State]++
		e.Lease = l
		heap.Fix(&s.queue, e.index)
	}
	had := t.byOwner[o]
	switch {
	case l.State == Declined:
		return e.Lease // it is nobody's
	case had != nil && had != e && l.State == Offered && had.State == Bound:
		e.before = had
	case had != nil && had != e && l.State == Offered:
		e.before, had.before = had.before, nil
		t.vacateLocked(had, o, l.Start)
	case l.State != Offered:
		for _, x := range []*entry{had, e.before} {
			if x != nil && x.before != nil && x.before != e {
				t.vacateLocked(x.before, o, l.Start)
			}
			if x != nil && x != e {
				t.vacateLocked(x, o, l.Start)
			}
		}
		e.before = nil
	}
	t.byOwner[o] = e
	return e.Lease
}

// disownLocked takes an address from its client, which is left with what it
// had before.
func (t *Table) disownLocked(e *entry) {
	o, before := owner{e.MAC, e.Network}, e.before
	e.before = nil
	switch {
	case t.byOwner[o] != e:
	case t.hasLocked(before, o):
		t.byOwner[o] = before
	default:
		delete(t.byOwner, o)
	}
}

// hasLocked reports whether e is still in the table, and o's.
func (t *Table) hasLocked(e *entry, o owner) bool {
	return e != nil && e.MAC == o.mac && e.State != Declined && t.byPlace[place{e.Addr, e.Network}] == e
}

// vacateLocked frees an address whose client has moved to another one, and
// forgets that it was there.
func (t *Table) vacateLocked(e *entry, o owner, at time.Time) {
	if !t.hasLocked(e, o) {
		return
	}
	s := t.segmentLocked(e.Network)
	s.counts[e.State]--
	s.counts[Released]++
	e.State, e.MAC, e.Host, e.Expires, e.before = Released, boot.MAC{}, "", at, nil
	heap.Fix(&s.queue, e.index)
}

// unusedLocked finds an address that nobody ever had.
func (t *Table) unusedLocked(p Pool) (netip.Addr, bool) {
	s := t.segmentLocked(p.Network)
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
	s := t.segmentLocked(p.Network)
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
		t.disownLocked(e)
		heap.Pop(&s.queue)
		s.counts[e.State]--
		delete(t.byPlace, place{e.Addr, e.Network})
	}
	return netip.Addr{}, false
}

// exhaustedLocked tells why there is no address. Whoever calls it has found
// no entry that is free, so the counts are of active ones.
func (t *Table) exhaustedLocked(p Pool) error {
	if len(p.Ranges) == 0 {
		return fmt.Errorf("%w on network %s: it has no range, only reservations", ErrExhausted, p.Network)
	}
	c := t.segmentLocked(p.Network).counts
	return fmt.Errorf("%w on network %s: %d are leased, %d offered, %d declined; make its range larger",
		ErrExhausted, p.Network, c[Bound], c[Offered], c[Declined])
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
	if e == nil || e.MAC != mac || e.State == Declined || e.State == Released {
		return false
	}
	l := e.Lease
	l.State, l.Expires, l.Fresh = Released, now, false
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
	l.State, l.Expires, l.Fresh = Declined, now.Add(quarantine), false
	t.journal.append(t.putLocked(l))
	return true
}

// ByMAC returns what is remembered of a client on a network: what it has or is
// offered, or had last.
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
	out := t.listLocked(func(Lease) bool { return true })
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b Lease) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), a.Addr.Compare(b.Addr))
	})
	return out
}

// listLocked copies the leases that somebody has or had.
func (t *Table) listLocked(want func(Lease) bool) []Lease {
	out := make([]Lease, 0, len(t.byPlace))
	for _, e := range t.byPlace {
		if !e.MAC.IsZero() && want(e.Lease) {
			out = append(out, e.Lease)
		}
	}
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
