package ipxe

import (
	"net/netip"
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

// A census counts connections by client, so that no client takes the places of
// all.
type census struct {
	mu sync.Mutex
	by map[netip.Addr]int
}

// enter reports whether a client may have one more connection, and counts it.
func (c *census) enter(client netip.Addr, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[client] >= most {
		return false
	}
	if c.by == nil {
		c.by = map[netip.Addr]int{}
	}
	c.by[client]++
	return true
}

func (c *census) leave(client netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[client]--; c.by[client] <= 0 {
		delete(c.by, client)
	}
}
