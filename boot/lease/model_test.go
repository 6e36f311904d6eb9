package lease_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bootd/boot"
	"bootd/boot/lease"
)

// A model is the rules of a table, written for being read: one list, looked
// through from end to end.
type model struct {
	pool   lease.Pool
	leases []lease.Lease // at most one for an address
	kept   []lease.Lease // what a restart finds: what was committed, in that order
}

func (m *model) at(a netip.Addr) *lease.Lease {
	i := slices.IndexFunc(m.leases, func(l lease.Lease) bool { return l.Addr == a })
	if i < 0 {
		return nil
	}
	return &m.leases[i]
}

// free reports whether a client may have an address that it is allowed.
func (m *model) free(a netip.Addr, mac boot.MAC, now time.Time) bool {
	l := m.at(a)
	return l == nil || !l.Active(now) || l.MAC == mac && l.State != lease.Declined
}

// candidates are the addresses that an offer may be of; any of the last
// resort is right.
func (m *model) candidates(p lease.Pool, mac boot.MAC, asked netip.Addr, now time.Time) []netip.Addr {
	if p.Own.IsValid() && m.free(p.Own, mac, now) {
		return []netip.Addr{p.Own}
	}
	// What it is offered now comes before what it has.
	for _, offered := range []bool{true, false} {
		for _, l := range m.leases {
			if l.MAC == mac && l.State != lease.Declined && (l.State == lease.Offered) == offered && p.Allows(l.Addr) {
				return []netip.Addr{l.Addr}
			}
		}
	}
	if asked.IsValid() && p.Allows(asked) && m.free(asked, mac, now) {
		return []netip.Addr{asked}
	}
	for _, r := range p.Ranges {
		for a := r.First; r.Contains(a); a = a.Next() {
			if p.Allows(a) && m.at(a) == nil {
				return []netip.Addr{a}
			}
		}
	}
	var oldest []netip.Addr
	var since time.Time
	for _, l := range m.leases {
		if l.Active(now) || !p.Allows(l.Addr) {
			continue
		}
		if len(oldest) == 0 || l.Expires.Before(since) {
			oldest, since = nil, l.Expires
		}
		if l.Expires.Equal(since) {
			oldest = append(oldest, l.Addr)
		}
	}
	return oldest
}

// put notes what has become of an address.
func (m *model) put(l lease.Lease) {
	for i := range m.leases {
		x := &m.leases[i]
		moved := x.MAC == l.MAC && x.Addr != l.Addr && x.State != lease.Declined
		switch {
		case !moved || l.State == lease.Declined:
		case l.State == lease.Offered && x.State == lease.Bound: // it keeps that until it accepts
		default:
			x.State, x.MAC, x.Expires = lease.Released, boot.MAC{}, l.Start
		}
	}
	if x := m.at(l.Addr); x != nil {
		*x = l
	} else {
		m.leases = append(m.leases, l)
	}
	if l.State != lease.Offered {
		m.kept = append(m.kept, l)
	}
}

func (m *model) restart() {
	kept := m.kept
	m.leases, m.kept = nil, nil
	for _, l := range kept {
		m.put(l)
	}
}

// TestModel: in whatever order things happen, the table does what the model
// says: so no address has two clients at once, none lies outside what its client
// may have, a client gets again what it had, and a restart forgets offers only.
func TestModel(t *testing.T) {
	base := pool("10.0.0.10-10.0.0.13", "10.0.0.20-10.0.0.21")
	reserved := map[netip.Addr]boot.MAC{addr("10.0.0.12"): mac(1), addr("10.0.0.99"): mac(2)}
	base.Reserved = func(a netip.Addr) bool { _, ok := reserved[a]; return ok }
	poolOf := func(m boot.MAC) lease.Pool {
		p := base
		for a, owner := range reserved {
			if owner == m {
				p.Own = a
			}
		}
		return p
	}
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "lease")
		if err != nil {
			r.Fatal(err)
		}
		defer os.RemoveAll(dir)
		log := slog.New(slog.DiscardHandler)
		table, err := lease.Open(dir, log)
		if err != nil {
			r.Fatal(err)
		}
		defer func() { _ = table.Close() }()
		m := &model{pool: base}
		now := t0
		client := func(r *rapid.T) boot.MAC { return mac(rapid.IntRange(1, 9).Draw(r, "client")) }
		address := func(r *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.SampledFrom([]int{9, 10, 11, 12, 13, 14, 20, 21, 99}).Draw(r, "address"))})
		}
		// what a client may mean: mostly its own
		theirs := func(r *rapid.T, c boot.MAC) netip.Addr {
			if l, ok := table.ByMAC("rack", c); ok && rapid.IntRange(0, 3).Draw(r, "own") > 0 {
				return l.Addr
			}
			return address(r)
		}
		r.Repeat(map[string]func(*rapid.T){
			"": func(r *rapid.T) {
				for _, l := range table.All() {
					if want := m.at(l.Addr); want == nil || want.MAC != l.MAC || want.State != l.State || !want.Expires.Equal(l.Expires) {
						r.Fatalf("at %s the table has\n%+v, the model\n%+v", now, l, want)
					}
				}
			},
			"offer": func(r *rapid.T) {
				c := client(r)
				var asked netip.Addr
				if rapid.Bool().Draw(r, "asks") {
					asked = address(r)
				}
				p := poolOf(c)
				want := m.candidates(p, c, asked, now)
				l, err := table.Offer(p, c, asked, time.Minute, now)
				switch {
				case len(want) == 0 && errors.Is(err, lease.ErrExhausted):
				case err != nil:
					r.Fatalf("offer to %s: %v, want one of %v", c, err, want)
				case !slices.Contains(want, l.Addr):
					r.Fatalf("offer to %s of %s, want one of %v", c, l.Addr, want)
				case l.State == lease.Offered:
					m.put(l)
				}
			},
			"bind": func(r *rapid.T) {
				c := client(r)
				a := theirs(r, c)
				p := poolOf(c)
				var want error
				switch {
				case !p.Allows(a):
					want = lease.ErrNotAllowed
				case !m.free(a, c, now):
					want = lease.ErrTaken
				}
				ttl := time.Duration(rapid.IntRange(1, 100).Draw(r, "ttl")) * time.Minute
				l, err := table.Bind(p, c, a, "", ttl, now)
				if !errors.Is(err, want) {
					r.Fatalf("binding %s to %s: %v, want %v", a, c, err, want)
				}
				if err == nil {
					m.put(l)
				}
			},
			"release": func(r *rapid.T) {
				c := client(r)
				a := theirs(r, c)
				l := m.at(a)
				want := l != nil && l.MAC == c && (l.State == lease.Offered || l.State == lease.Bound)
				if got := table.Release("rack", c, a, now); got != want {
					r.Fatalf("release of %s by %s: %t, want %t", a, c, got, want)
				}
				if want {
					x := *l
					x.State, x.Expires = lease.Released, now
					m.put(x)
				}
			},
			"decline": func(r *rapid.T) {
				c := client(r)
				a := theirs(r, c)
				l := m.at(a)
				want := l != nil && l.MAC == c && l.Active(now) && l.State != lease.Declined
				if got := table.Decline("rack", c, a, time.Hour, now); got != want {
					r.Fatalf("decline of %s by %s: %t, want %t", a, c, got, want)
				}
				if want {
					x := *l
					x.State, x.Expires = lease.Declined, now.Add(time.Hour)
					m.put(x)
				}
			},
			"wait": func(r *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(r, "seconds")) * time.Second)
			},
			"restart": func(r *rapid.T) {
				if err := table.Close(); err != nil {
					r.Fatal(err)
				}
				if table, err = lease.Open(dir, log); err != nil {
					r.Fatal(err)
				}
				m.restart()
			},
		})
	})
}
