package web

import (
	"cmp"
	"encoding/binary"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"bootd/boot"
)

// The looks of addresses, those first that a square of several shows.
const (
	declined = "declined" // somebody else uses it
	bound    = "bound"
	offered  = "offered"
	was      = "was" // free again, and kept for who had it
	free     = "free"
)

var addressLooks = []string{declined, bound, offered, was, free}

// cells is how many squares the picture of a pool has at most.
const cells = 384

// A pool is a network and a picture of its addresses.
type pool struct {
	Network
	Size   int            // of the ranges
	Counts map[string]int // of the addresses of the ranges, by look
	Beside int            // leases of reserved addresses outside the ranges
	Per    int            // addresses in a square
	Tiles  []tile
	Width  int
	Height int
}

// Used is the share of the pool that nobody new can have.
func (p pool) Used() float64 {
	if p.Size == 0 {
		return 0
	}
	return float64(p.Size-p.Counts[free]-p.Counts[was]) / float64(p.Size)
}

// Tight reports whether the pool will be full soon.
func (p pool) Tight() bool { return p.Size > 0 && p.Used() > 0.9 }

// condition is the look of a leased address.
func (l Lease) condition(now time.Time) string {
	switch {
	case l.State == "declined" && l.Expires.After(now):
		return declined
	case l.State == "bound":
		return bound
	case l.State == "offered":
		return offered
	}
	return was
}

// pools draws the networks.
func pools(networks []Network, leases []Lease, now time.Time) []pool {
	byNetwork := map[string][]Lease{}
	for _, l := range leases {
		byNetwork[l.Network] = append(byNetwork[l.Network], l)
	}
	var out []pool
	for _, n := range networks {
		out = append(out, drawPool(n, byNetwork[n.Name], now))
	}
	return out
}

// number is an address as a number; false if it is not IPv4.
func number(a netip.Addr) (uint32, bool) {
	if !a.Is4() {
		return 0, false
	}
	b := a.As4()
	return binary.BigEndian.Uint32(b[:]), true
}

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func drawPool(n Network, leases []Lease, now time.Time) pool {
	p := pool{Network: n, Counts: map[string]int{}}
	for _, r := range n.Ranges {
		p.Size += r.Size()
	}
	p.Per = max(1, (p.Size+cells-1)/cells)
	looks := make([]map[string]int, (p.Size+p.Per-1)/p.Per)
	names := make([]string, len(looks))
	for _, l := range leases {
		i, ok := place(n.Ranges, l.Addr)
		if !ok {
			p.Beside++
			continue
		}
		c := l.condition(now)
		p.Counts[c]++
		if looks[i/p.Per] == nil {
			looks[i/p.Per] = map[string]int{}
		}
		looks[i/p.Per][c]++
		names[i/p.Per] = strings.TrimSpace(l.Addr.String() + " " + l.State + " " + l.Host)
	}
	p.Counts[free] = p.Size
	for _, c := range addressLooks[:len(addressLooks)-1] {
		p.Counts[free] -= p.Counts[c]
	}
	const columns = 64
	p.Width, p.Height = min(max(len(looks), 1), columns)*tileSize, (len(looks)+columns-1)/columns*tileSize
	for i, counts := range looks {
		t := tile{Look: free, Text: names[i], X: i % columns * tileSize, Y: i / columns * tileSize}
		for _, c := range addressLooks {
			if counts[c] > 0 {
				t.Look = c
				break
			}
		}
		if p.Per > 1 {
			t.Text = pluralAddresses(counts)
		} else if t.Text == "" {
			t.Text = nth(n.Ranges, i).String() + " free"
		}
		p.Tiles = append(p.Tiles, t)
	}
	return p
}

func pluralAddresses(counts map[string]int) string {
	var parts []string
	for _, c := range addressLooks {
		if counts[c] > 0 {
			parts = append(parts, strconv.Itoa(counts[c])+" "+c)
		}
	}
	if len(parts) == 0 {
		return "free"
	}
	return strings.Join(parts, ", ")
}

// place is which address of the ranges one is.
func place(ranges []boot.Range, a netip.Addr) (int, bool) {
	x, ok := number(a)
	before := 0
	for _, r := range ranges {
		if first, _ := number(r.First); ok && r.Contains(a) {
			return before + int(x-first), true
		}
		before += r.Size()
	}
	return 0, false
}

// nth is the opposite of place.
func nth(ranges []boot.Range, i int) netip.Addr {
	for _, r := range ranges {
		if first, ok := number(r.First); ok && i < r.Size() {
			return address(first + uint32(i))
		}
		i -= r.Size()
	}
	return netip.Addr{}
}

// networksBody is the content of the page of networks.
type networksBody struct {
	Query          string
	Pools          []pool
	Leases         []leaseLine
	Found, All     int
	From, To       int
	Earlier, Later string
}

// A leaseLine is a lease with its machine.
type leaseLine struct {
	Lease
	Condition string
	Name, URL string
}

func (d *dashboard) networks(r *http.Request) (*page, error) {
	now, leases := d.Now(), d.State.Leases()
	q := r.URL.Query()
	b := networksBody{Query: q.Get("q"), Pools: pools(d.State.Status().Networks, leases, now), All: len(leases)}
	names := map[boot.MAC]Machine{}
	for _, m := range d.State.Machines() {
		names[m.MAC] = m
	}
	words := strings.Fields(strings.ToLower(b.Query))
	var found []leaseLine
	for _, l := range leases {
		line := leaseLine{Lease: l, Condition: l.condition(now)}
		if m, ok := names[l.MAC]; ok && !l.MAC.IsZero() {
			line.Name, line.URL = m.Name, "/machines/"+idOf(m)
		}
		text := strings.ToLower(strings.Join([]string{l.Addr.String(), l.MAC.String(), l.Network, l.State, l.Host, line.Name}, "\n"))
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			found = append(found, line)
		}
	}
	slices.SortFunc(found, func(a, b leaseLine) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), a.Addr.Compare(b.Addr))
	})
	b.Found = len(found)
	n, err := strconv.Atoi(q.Get("page"))
	if err != nil {
		n = 1
	}
	n = min(max(n, 1), max(1, (len(found)+perPage-1)/perPage))
	from := (n - 1) * perPage
	b.Leases = found[from:min(from+perPage, len(found))]
	b.From, b.To = min(from+1, b.Found), from+len(b.Leases)
	turn := func(to int) string { return strings.Replace(listURL(b.Query, "", to), "/machines", "/networks", 1) }
	if n > 1 {
		b.Earlier = turn(n - 1)
	}
	if b.To < b.Found {
		b.Later = turn(n + 1)
	}
	return &page{Title: "Networks", Section: "/networks", Live: "*", Body: b, file: "networks"}, nil
}

func itoa(n int) string { return strconv.Itoa(n) }
