package dhcp

import (
	"cmp"
	"container/list"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"bootd/boot"
)

const (
	// againAfter is the least time after which a machine that was left without
	// an answer is believed to ask again, rather than to be heard twice: over
	// two relay agents, or from a program that sends everything twice.
	againAfter = 500 * time.Millisecond
	// againWithin is how long it is at least remembered that a machine asked.
	// Firmware asks again after four seconds, then eight, at most.
	againWithin = 15 * time.Second
	// maxAsking is how many machines are remembered in that time. It is more
	// than come through a full queue within four seconds.
	maxAsking = 1 << 16
	// floodOver is how long a flood is told of after its last request.
	floodOver = 10 * time.Minute
	// maxFloods is how many floods are told apart.
	maxFloods = 32
)

// A Flood is one place from which come more new machines than take the
// addresses that they are offered: somebody makes hardware addresses up.
type Flood struct {
	Network string
	Relay   netip.Addr // the agent; invalid: it comes from the network's own wire
	Port    string     // which of the agent's ports, as that says (option 82); empty: it does not
	Held    int        // addresses that are kept for such machines now
	Dropped uint64     // requests that were not answered
	Since   time.Time
	Last    time.Time
}

// Source says where a flood comes from, for people.
func (f Flood) Source() string {
	switch {
	case !f.Relay.IsValid():
		return "its own wire"
	case f.Port == "":
		return "relay agent " + f.Relay.String()
	}
	return fmt.Sprintf("port %s of relay agent %s", f.Port, f.Relay)
}

// A source is where requests come from, as exactly as that can be told. The
// hardware address in a request is not to be believed.
type source struct {
	network string
	relay   netip.Addr
	port    string
}

// agentPort is what a relay agent says of the port that a request came to: its
// circuit and remote ID (RFC 3046).
func agentPort(info []byte) string {
	var parts []string
	for len(info) >= 2 {
		n := 2 + int(info[1])
		if n > len(info) {
			break
		}
		if info[0] == 1 || info[0] == 2 {
			parts = append(parts, identifier(info[2:n]))
		}
		info = info[n:]
	}
	return strings.Join(parts, " ")
}

// identifier shows text as it is, and all else in hexadecimal.
func identifier(b []byte) string {
	if len(b) > 0 && !slices.ContainsFunc(b, func(c byte) bool { return c <= ' ' || c > '~' }) {
		return string(b)
	}
	return hex.EncodeToString(b)
}

// A guard bounds how many addresses are kept for machines that nobody knows and
// that have not taken them: whoever makes hardware addresses up would else have
// all of a network's, two minutes long with a packet each. Machines that an
// entry names and those that have a lease never meet it.
//
// Where many are kept for one source, its new machines are answered when they
// ask a second time, which made-up ones do not. Where most of the network's are,
// not even then.
type guard struct {
	log *slog.Logger

	mu       sync.Mutex
	waiting  map[client]*waiter
	offered  list.List // of *waiter, by their time
	declined list.List // likewise, of those that were found in use
	held     map[source]int
	total    map[string]int            // by network
	asking   [2]map[boot.MAC]time.Time // who was not answered, lately and before
	turned   time.Time                 // when asking was last turned over
	floods   map[source]*Flood
	dropped  uint64
}

// A client is a machine on a network.
type client struct {
	mac     boot.MAC
	network string
}

// A waiter is a machine that has been offered an address and has not taken it.
type waiter struct {
	client
	source source
	until  time.Time
	in     *list.List
	at     *list.Element
}

func newGuard(log *slog.Logger) *guard {
	return &guard{log: log, waiting: map[client]*waiter{}, held: map[source]int{}, total: map[string]int{},
		asking: [2]map[boot.MAC]time.Time{{}, {}}, floods: map[source]*Flood{}}
}

// bounds says of a network with so many addresses how many may be kept for one
// source until its machines have to ask twice, and how many at all.
func bounds(size int) (many, most int) {
	most = max(1, size*3/4)
	return min(max(16, size/8), most), most
}

// admit reports whether a new machine may be given an address.
func (g *guard) admit(n *boot.Network, s source, mac boot.MAC, now time.Time) bool {
	size := 0
	for _, r := range n.Ranges {
		size += r.Size()
	}
	many, most := bounds(size)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expireLocked(now)
	switch have := g.held[s]; {
	case g.waiting[client{mac, n.Name}] != nil:
		return true // what it was offered is offered again
	case have < many && g.total[n.Name] < 2*many:
		return true
	case have < most && g.againLocked(mac, now):
		return true
	}
	g.dropLocked(s, now)
	return false
}

// hold notes that an address is kept for a machine until a time.
func (g *guard) hold(s source, c client, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.waiting[c]; w != nil {
		g.removeLocked(w)
	}
	g.addLocked(&waiter{client: c, source: s, until: until, in: &g.offered})
}

// settle notes that a machine has taken its address.
func (g *guard) settle(c client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.waiting[c]; w != nil {
		g.removeLocked(w)
	}
}

// decline notes that what a machine was offered was found in use, and is left
// alone until a time: that takes an address away, too.
func (g *guard) decline(s source, c client, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.waiting[c]; w != nil {
		g.removeLocked(w)
	}
	// The machine is offered another one, so this one counts by itself.
	w := &waiter{source: s, until: until, in: &g.declined}
	w.at = w.in.PushBack(w)
	g.held[s]++
	g.total[s.network]++
}

func (g *guard) addLocked(w *waiter) {
	g.waiting[w.client] = w
	w.at = w.in.PushBack(w)
	g.held[w.source]++
	g.total[w.source.network]++
}

func (g *guard) removeLocked(w *waiter) {
	w.in.Remove(w.at)
	if g.waiting[w.client] == w {
		delete(g.waiting, w.client)
	}
	if g.held[w.source]--; g.held[w.source] == 0 {
		delete(g.held, w.source)
	}
	if g.total[w.source.network]--; g.total[w.source.network] == 0 {
		delete(g.total, w.source.network)
	}
}

func (g *guard) expireLocked(now time.Time) {
	for _, l := range []*list.List{&g.offered, &g.declined} {
		for e := l.Front(); e != nil && !e.Value.(*waiter).until.After(now); e = l.Front() {
			g.removeLocked(e.Value.(*waiter))
		}
	}
}

// againLocked reports whether a machine asked some time ago, too, and notes that
// it asks.
func (g *guard) againLocked(mac boot.MAC, now time.Time) bool {
	if now.Sub(g.turned) > againWithin || len(g.asking[0]) >= maxAsking {
		g.asking[0], g.asking[1], g.turned = map[boot.MAC]time.Time{}, g.asking[0], now
	}
	for _, m := range g.asking {
		if first, ok := m[mac]; ok {
			since := now.Sub(first)
			return since >= againAfter && since < 2*againWithin
		}
	}
	g.asking[0][mac] = now
	return false
}

// dropLocked counts a request that is not answered. A flood is logged when it
// begins.
func (g *guard) dropLocked(s source, now time.Time) {
	g.dropped++
	f := g.floods[s]
	if f == nil {
		g.forgetLocked(now)
		if len(g.floods) >= maxFloods {
			return
		}
		f = &Flood{Network: s.network, Relay: s.relay, Port: s.port, Since: now}
		g.floods[s] = f
		g.log.Warn("more new machines ask than take what they are offered; they are answered when they ask twice, if at all",
			"network", s.network, "from", f.Source(), "held", g.held[s])
	}
	f.Dropped++
	f.Last = now
}

// forgetLocked drops floods that are over.
func (g *guard) forgetLocked(now time.Time) {
	for s, f := range g.floods {
		if now.Sub(f.Last) > floodOver {
			delete(g.floods, s)
			g.log.Info("the flood of new machines is over", "network", s.network, "from", f.Source(), "unanswered", f.Dropped)
		}
	}
}

// list lists the floods of the last minutes, by network and source.
func (g *guard) list(now time.Time) []Flood {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expireLocked(now)
	g.forgetLocked(now)
	var out []Flood
	for s, f := range g.floods {
		flood := *f
		flood.Held = g.held[s]
		out = append(out, flood)
	}
	slices.SortFunc(out, func(a, b Flood) int {
		return cmp.Or(strings.Compare(a.Network, b.Network), a.Relay.Compare(b.Relay), strings.Compare(a.Port, b.Port))
	})
	return out
}

// count is how many requests were not answered.
func (g *guard) count() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dropped
}
