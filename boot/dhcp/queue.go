package dhcp

import (
	"net/netip"
	"sync"
)

// maxPacket is more than any client sends: Ethernet's largest frame.
const maxPacket = 1500

// A queue holds the packets of a port that wait to be decided about. When it is
// full the oldest are dropped: their clients have waited longest, and are the
// next to ask again.
type queue struct {
	mu     sync.Mutex
	more   sync.Cond // packets have come, or the end
	ring   []slot
	first  int // the oldest
	n      int
	closed bool
}

type slot struct {
	from netip.AddrPort
	size int
	data [maxPacket]byte
}

func newQueue(length int) *queue {
	q := &queue{ring: make([]slot, length)}
	q.more.L = &q.mu
	return q
}

// put copies packets into the queue, and returns how many were dropped for
// them.
func (q *queue) put(packets []Packet) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range packets {
		if q.n == len(q.ring) {
			q.first, q.n, dropped = (q.first+1)%len(q.ring), q.n-1, dropped+1
		}
		to := &q.ring[(q.first+q.n)%len(q.ring)]
		to.from, to.size = p.From, copy(to.data[:], p.Data)
		q.n++
	}
	q.more.Signal()
	return dropped
}

// take waits for packets and copies as many as there are, and fit, into
// packets. It returns how many these were, and 0 when the queue is closed and
// empty.
func (q *queue) take(packets []Packet) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == 0 && !q.closed {
		q.more.Wait()
	}
	n := min(q.n, len(packets))
	for i := range n {
		p := &q.ring[q.first]
		packets[i].From = p.from
		packets[i].fill(p.data[:p.size])
		q.first, q.n = (q.first+1)%len(q.ring), q.n-1
	}
	return n
}

// close ends the queue; what is in it can still be taken.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.more.Signal()
}
