package ipxe

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// quiet is how long nothing is said of further refusals of a client.
	quiet = 5 * time.Second
	// refusers is how many clients are remembered for that.
	refusers = 1024
)

// refusals keeps a client that is refused again and again from filling the log
// and the record.
type refusals struct {
	mu   sync.Mutex
	said map[netip.Addr]time.Time
}

// news reports whether a refusal of a client is to be told.
func (r *refusals) news(client netip.Addr, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.said[client]; ok && now.Sub(last) < quiet {
		return false
	}
	if r.said == nil || len(r.said) >= refusers {
		r.said = map[netip.Addr]time.Time{}
	}
	r.said[client] = now
	return true
}

// A census knows each client's connections, so that no client takes the places of
// all.
type census struct {
	mu sync.Mutex
	by map[netip.Addr][]*conn // the oldest first
}

// enter reports whether a client may have one more connection, and counts it.
func (c *census) enter(n *conn, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.by[n.client]) >= most {
		return false
	}
	if c.by == nil {
		c.by = map[netip.Addr][]*conn{}
	}
	c.by[n.client] = append(c.by[n.client], n)
	return true
}

func (c *census) leave(n *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.by[n.client]
	if i := slices.Index(l, n); i >= 0 {
		l = slices.Delete(l, i, i+1)
	}
	if c.by[n.client] = l; len(l) == 0 {
		delete(c.by, n.client)
	}
}

// greedy returns the oldest connection of the client that has most, or nil when it has
// no more than the given one. It also tells how many that one has.
func (c *census) greedy(client netip.Addr) (oldest *conn, has int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	has = len(c.by[client])
	most := has
	for _, l := range c.by {
		if len(l) > most {
			oldest, most = l[0], len(l)
		}
	}
	return oldest, has
}
