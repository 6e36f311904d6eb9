package lease_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bootd/boot"
	"bootd/boot/lease"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func open(t testing.TB, dir string) *lease.Table {
	t.Helper()
	l, err := lease.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func mac(n int) boot.MAC { return boot.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

func pool(ranges ...string) lease.Pool {
	p := lease.Pool{Network: "rack", Reserved: func(netip.Addr) bool { return false }}
	for _, r := range ranges {
		first, last, _ := strings.Cut(r, "-")
		p.Ranges = append(p.Ranges, boot.Range{First: addr(first), Last: addr(last)})
	}
	return p
}

// TestAllocation tells stories of one small network.
func TestAllocation(t *testing.T) {
	p := pool("10.0.0.10-10.0.0.12")
	hour := time.Hour
	offer := func(t *testing.T, l *lease.Table, p lease.Pool, m int, asked string, now time.Time) string {
		t.Helper()
		var a netip.Addr
		if asked != "" {
			a = addr(asked)
		}
		got, err := l.Offer(p, mac(m), a, time.Minute, now)
		if err != nil {
			return err.Error()
		}
		return got.Addr.String()
	}
	want := func(t *testing.T, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	t.Run("an offer is held, for this client only and not for ever", func(t *testing.T) {
		l := open(t, t.TempDir())
		want(t, offer(t, l, p, 1, "", t0), "10.0.0.10")
		want(t, offer(t, l, p, 2, "10.0.0.10", t0), "10.0.0.11")
		want(t, offer(t, l, p, 1, "", t0.Add(time.Second)), "10.0.0.10")
		want(t, offer(t, l, p, 3, "", t0), "10.0.0.12")
		want(t, offer(t, l, p, 4, "", t0), "no address is free on network rack: 0 are leased, 3 offered, 0 declined; make its range larger")
		want(t, offer(t, l, p, 4, "", t0.Add(2*time.Minute)), "10.0.0.11") // held shortest since, freed first
	})
	t.Run("who had it gets it again, even after it ran out", func(t *testing.T) {
		l := open(t, t.TempDir())
		for i, a := range []string{"10.0.0.10", "10.0.0.11"} {
			if _, err := l.Bind(p, mac(i), addr(a), "", hour, t0); err != nil {
				t.Fatal(err)
			}
		}
		later := t0.Add(2 * hour)
		want(t, offer(t, l, p, 9, "", later), "10.0.0.12")
		want(t, offer(t, l, p, 1, "", later), "10.0.0.11")
		want(t, offer(t, l, p, 8, "", later), "10.0.0.10") // the last one that is free
		want(t, offer(t, l, p, 0, "", later.Add(time.Second)), "no address is free on network rack: 0 are leased, 3 offered, 0 declined; make its range larger")
	})
	t.Run("released and declined", func(t *testing.T) {
		l := open(t, t.TempDir())
		if _, err := l.Bind(p, mac(1), addr("10.0.0.10"), "", hour, t0); err != nil {
			t.Fatal(err)
		}
		if l.Release("rack", mac(2), addr("10.0.0.10"), t0) || l.Decline("rack", mac(2), addr("10.0.0.10"), hour, t0) {
			t.Error("a stranger took the address away")
		}
		if !l.Release("rack", mac(1), addr("10.0.0.10"), t0) {
			t.Error("not released")
		}
		want(t, offer(t, l, p, 1, "", t0.Add(time.Second)), "10.0.0.10")
		if !l.Decline("rack", mac(1), addr("10.0.0.10"), hour, t0.Add(time.Second)) {
			t.Error("not declined")
		}
		want(t, offer(t, l, p, 1, "10.0.0.10", t0.Add(2*time.Second)), "10.0.0.11")
		want(t, offer(t, l, p, 2, "", t0.Add(2*time.Second)), "10.0.0.12")
		want(t, offer(t, l, p, 3, "", t0.Add(2*hour)), "10.0.0.11")
	})
	t.Run("reservations, inside and outside the range", func(t *testing.T) {
		l := open(t, t.TempDir())
		q := p
		q.Reserved = func(a netip.Addr) bool { return a == addr("10.0.0.10") }
		want(t, offer(t, l, q, 1, "10.0.0.10", t0), "10.0.0.11")
		q.Own = addr("10.0.0.10")
		want(t, offer(t, l, q, 2, "", t0), "10.0.0.10")
		q.Own = addr("10.0.0.200")
		want(t, offer(t, l, q, 3, "", t0), "10.0.0.200")
	})
	t.Run("what is no longer reserved is found again", func(t *testing.T) {
		l := open(t, t.TempDir())
		q := pool("10.0.0.10-10.0.0.10")
		q.Reserved = func(netip.Addr) bool { return true }
		if got := offer(t, l, q, 1, "", t0); !strings.HasPrefix(got, "no address") {
			t.Errorf("got %s", got)
		}
		want(t, offer(t, l, pool("10.0.0.10-10.0.0.10"), 1, "", t0.Add(time.Minute)), "10.0.0.10")
	})
	t.Run("binding without an offer", func(t *testing.T) {
		l := open(t, t.TempDir())
		if _, err := l.Bind(p, mac(1), addr("10.0.0.12"), "", hour, t0); err != nil {
			t.Error(err)
		}
		if _, err := l.Bind(p, mac(2), addr("10.0.0.12"), "", hour, t0); !errors.Is(err, lease.ErrTaken) {
			t.Error(err)
		}
		if _, err := l.Bind(p, mac(2), addr("10.0.0.13"), "", hour, t0); !errors.Is(err, lease.ErrNotAllowed) {
			t.Error(err)
		}
		if _, err := l.Bind(p, mac(1), addr("10.0.0.11"), "", hour, t0); err != nil {
			t.Error(err)
		}
		want(t, offer(t, l, p, 2, "10.0.0.12", t0), "10.0.0.12") // mac 1 moved away from it
	})
}

// TestMoving tells what becomes of the address that a client leaves.
func TestMoving(t *testing.T) {
	p := pool("10.0.0.10-10.0.0.11")
	own := p
	own.Own = addr("10.0.0.200")
	hour := time.Hour
	l := open(t, t.TempDir())
	bind := func(p lease.Pool, m int, a string, now time.Time) {
		t.Helper()
		if _, err := l.Bind(p, mac(m), addr(a), "", hour, now); err != nil {
			t.Fatalf("binding %s: %v", a, err)
		}
	}
	holder := func(a string) boot.MAC {
		got, _ := l.ByAddr("rack", addr(a))
		return got.MAC
	}
	bind(p, 1, "10.0.0.10", t0)
	bind(p, 2, "10.0.0.11", t0)
	// Since then an address has been reserved for it, which it is offered.
	if o, err := l.Offer(own, mac(1), netip.Addr{}, time.Minute, t0); err != nil || o.Addr != own.Own || !o.Fresh {
		t.Fatalf("offered %+v, %v", o, err)
	}
	if holder("10.0.0.10") != mac(1) {
		t.Error("an offer took away the lease")
	}
	if _, err := l.Offer(p, mac(3), netip.Addr{}, time.Minute, t0); !errors.Is(err, lease.ErrExhausted) {
		t.Errorf("both addresses are leased: %v", err)
	}
	// It does not take it, and renews what it has.
	bind(own, 1, "10.0.0.10", t0.Add(time.Second))
	if holder("10.0.0.10") != mac(1) || holder("10.0.0.200") == mac(1) {
		t.Errorf("after the renewal: %v", l.All())
	}
	// Offered once more, it does.
	if _, err := l.Offer(own, mac(1), netip.Addr{}, time.Minute, t0.Add(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	bind(own, 1, "10.0.0.200", t0.Add(3*time.Second))
	if o, err := l.Offer(p, mac(3), netip.Addr{}, time.Minute, t0.Add(4*time.Second)); err != nil || o.Addr != addr("10.0.0.10") {
		t.Errorf("the address that it left: %+v, %v", o, err)
	}
	// An offer that ran out and went to another leaves the client its lease.
	later := t0.Add(time.Minute)
	other := p
	other.Own = addr("10.0.0.201")
	if _, err := l.Offer(other, mac(2), netip.Addr{}, time.Second, later); err != nil {
		t.Fatal(err)
	}
	if o, err := l.Offer(other, mac(4), netip.Addr{}, time.Minute, later.Add(2*time.Second)); err != nil || o.Addr != other.Own {
		t.Fatalf("%+v, %v", o, err)
	}
	if got, ok := l.ByMAC("rack", mac(2)); !ok || got.Addr != addr("10.0.0.11") || got.State != lease.Bound {
		t.Errorf("client 2 has %+v", got)
	}
}

func TestFresh(t *testing.T) {
	p := pool("10.0.0.10-10.0.0.11")
	l := open(t, t.TempDir())
	for _, step := range []struct {
		mac   int
		after time.Duration
		bind  bool
		fresh bool
	}{
		{1, 0, false, true},
		{1, time.Second, true, true}, // the DISCOVER is repeated, nothing has been found out yet
		{1, time.Minute, false, false},
		{1, 3 * time.Hour, false, false}, // it had it
		{2, 3 * time.Hour, true, true},
		{3, 6 * time.Hour, false, true}, // others had it
	} {
		now := t0.Add(step.after)
		o, err := l.Offer(p, mac(step.mac), netip.Addr{}, time.Minute, now)
		if err != nil || o.Fresh != step.fresh {
			t.Errorf("client %d after %s: %+v, %v", step.mac, step.after, o, err)
		}
		if step.bind {
			if _, err := l.Bind(p, mac(step.mac), o.Addr, "", time.Hour, now); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestProven(t *testing.T) {
	p := pool("10.0.0.10-10.0.0.11")
	l := open(t, t.TempDir())
	fresh := func(m int, now time.Time) bool {
		o, err := l.Offer(p, mac(m), netip.Addr{}, time.Minute, now)
		if err != nil {
			t.Fatal(err)
		}
		return o.Fresh
	}
	o, err := l.Offer(p, mac(1), netip.Addr{}, time.Minute, t0)
	if err != nil {
		t.Fatal(err)
	}
	l.Proven(lease.Lease{MAC: mac(2), Addr: o.Addr, Network: "rack"}) // not its
	if !fresh(1, t0) {
		t.Error("proven for another client")
	}
	l.Proven(o)
	if fresh(1, t0) {
		t.Error("still fresh after it was proven")
	}
	if got, ok := l.ByAddr("rack", o.Addr); !ok || got.State != lease.Offered || got.MAC != mac(1) {
		t.Errorf("%+v", got)
	}
	// Of another client later on it is to be proven again.
	if !fresh(2, t0) || !fresh(3, t0.Add(time.Hour)) {
		t.Error("not fresh for others")
	}
}

func TestNetworksAreApart(t *testing.T) {
	l := open(t, t.TempDir())
	a, b := pool("10.0.0.10-10.0.0.20"), pool("10.0.0.10-10.0.0.20")
	b.Network = "other"
	for _, p := range []lease.Pool{a, b} {
		if _, err := l.Bind(p, mac(1), addr("10.0.0.10"), "", time.Hour, t0); err != nil {
			t.Error(err)
		}
	}
	if !l.Release("other", mac(1), addr("10.0.0.10"), t0) {
		t.Error("not released")
	}
	if got, _ := l.ByAddr("rack", addr("10.0.0.10")); got.State != lease.Bound {
		t.Errorf("%+v", got)
	}
}
