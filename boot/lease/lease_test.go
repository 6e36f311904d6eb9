package lease_test

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bootd/boot"
	"bootd/boot/lease"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestMain(m *testing.M) {
	if dir := os.Getenv("LEASE_CHILD"); dir != "" {
		bindForEver(dir)
	}
	os.Exit(m.Run())
}

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

// TestModel: whatever happens in whatever order, no address has two clients at
// once, none lies outside what is allowed, and a reopened table knows the same.
func TestModel(t *testing.T) {
	p := pool("10.0.0.10-10.0.0.14", "10.0.0.20-10.0.0.21")
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "lease")
		if err != nil {
			r.Fatal(err)
		}
		defer os.RemoveAll(dir)
		log := slog.New(slog.DiscardHandler)
		l, err := lease.Open(dir, log)
		if err != nil {
			r.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		now := t0
		bound := map[netip.Addr]lease.Lease{} // what clients believe to have
		r.Repeat(map[string]func(*rapid.T){
			"exchange": func(r *rapid.T) {
				m := mac(rapid.IntRange(1, 9).Draw(r, "mac"))
				o, err := l.Offer(p, m, netip.Addr{}, time.Minute, now)
				if err != nil {
					return
				}
				if !p.Allows(o.Addr) {
					r.Fatalf("offered %s", o.Addr)
				}
				ttl := time.Duration(rapid.IntRange(1, 100).Draw(r, "ttl")) * time.Minute
				b, err := l.Bind(p, m, o.Addr, "", ttl, now)
				if err != nil {
					r.Fatalf("offered and then refused: %v", err)
				}
				if other, ok := bound[b.Addr]; ok && other.MAC != m && now.Before(other.Expires) {
					r.Fatalf("%s belongs to %s until %s and was given to %s at %s", b.Addr, other.MAC, other.Expires, m, now)
				}
				for a, x := range bound {
					if x.MAC == m {
						delete(bound, a)
					}
				}
				bound[b.Addr] = b
			},
			"steal": func(r *rapid.T) {
				m := mac(rapid.IntRange(1, 9).Draw(r, "mac"))
				a := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(9, 22).Draw(r, "addr"))})
				b, err := l.Bind(p, m, a, "", time.Hour, now)
				other, taken := bound[a]
				if taken = taken && other.MAC != m && now.Before(other.Expires); taken && err == nil {
					r.Fatalf("%s was taken from %s", a, other.MAC)
				}
				if err == nil {
					for a, x := range bound {
						if x.MAC == m {
							delete(bound, a)
						}
					}
					bound[a] = b
				}
			},
			"release": func(r *rapid.T) {
				for a, x := range bound {
					if l.Release("rack", x.MAC, a, now) {
						delete(bound, a)
					}
					break
				}
			},
			"wait": func(r *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(r, "min")) * time.Minute) },
			"restart": func(r *rapid.T) {
				if err := l.Close(); err != nil {
					r.Fatal(err)
				}
				if l, err = lease.Open(dir, log); err != nil {
					r.Fatal(err)
				}
				for a, x := range bound {
					got, ok := l.ByAddr("rack", a)
					if !ok || got.MAC != x.MAC || !got.Expires.Equal(x.Expires) {
						r.Fatalf("after a restart %s is %+v, was %+v", a, got, x)
					}
				}
			},
		})
	})
}

func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	p := pool("10.0.0.10-10.0.0.99")
	for i := range 5 {
		if _, err := l.Bind(p, mac(i), addr(fmt.Sprintf("10.0.0.%d", 10+i)), "node", time.Hour, t0); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, "journal-1"))
	if err != nil {
		t.Fatal(err)
	}
	record := (len(whole) - len("bootd leases 1\n")) / 5
	for cut := range record * 2 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "journal-1"), whole[:len(whole)-cut], 0o644); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir)
		if got, want := len(l.All()), 5-(cut+record-1)/record; got != want {
			t.Fatalf("%d bytes cut: %d leases, want %d", cut, got, want)
		}
		// What is appended after the cut is read back.
		if _, err := l.Bind(p, mac(77), addr("10.0.0.77"), "", time.Hour, t0); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, ok := open(t, dir).ByAddr("rack", addr("10.0.0.77")); !ok {
			t.Fatalf("%d bytes cut: what came after is lost", cut)
		}
	}
}

func TestDamagedMiddle(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	p := pool("10.0.0.10-10.0.0.99")
	for i := range 5 {
		if _, err := l.Bind(p, mac(i), addr(fmt.Sprintf("10.0.0.%d", 10+i)), "", time.Hour, t0); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "journal-1")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len("bootd leases 1\n")+20] ^= 1
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	l, err = lease.Open(dir, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := len(l.All()); got != 4 {
		t.Errorf("%d leases are left, want the 4 good ones", got)
	}
	if !strings.Contains(said.String(), "damaged") {
		t.Errorf("nothing was said: %s", said.String())
	}
	if kept, err := os.ReadFile(name + ".damaged"); err != nil || !cmp.Equal(kept, b) {
		t.Errorf("no copy was kept: %v", err)
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := lease.Open(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another bootd") {
		t.Errorf("err = %v", err)
	}
}

func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	p := pool("10.0.0.0-10.0.255.255")
	for i := range 60_000 {
		n := i % 100
		if _, err := l.Bind(p, mac(n), netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), "", time.Hour, t0.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := l.All()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var bytes int64
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		bytes += info.Size()
	}
	if bytes > 3_000_000 {
		t.Errorf("%d bytes in %v for 100 leases: not compacted", bytes, files)
	}
	ignoreMonotonic := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
	addrs := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(before, open(t, dir).All(), ignoreMonotonic, addrs); diff != "" {
		t.Error(diff)
	}
}

// bindForEver is the child of TestKill: it binds addresses from several
// goroutines, says so when that is durable, and goes on until it is killed.
func bindForEver(dir string) {
	l, err := lease.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	p := pool("10.0.0.0-10.255.255.255")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := g; i < 1<<22; i += 8 {
				a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
				if _, err := l.Bind(p, mac(i), a, "", time.Hour, t0); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				if err := l.Flush(); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println(a)
			}
		})
	}
	wg.Wait()
	os.Exit(1)
}

// TestKill kills a process with kill -9 while it binds; all that it had
// acknowledged is there afterwards.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "LEASE_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < 100+round*37 && lines.Scan(); n++ {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Fatal(lines.Text())
			}
			acknowledged[lines.Text()] = true
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // said before it died
			if _, err := netip.ParseAddr(lines.Text()); err == nil {
				acknowledged[lines.Text()] = true
			}
		}
		_ = cmd.Wait() // killed, as intended
		l := open(t, dir)
		for a := range acknowledged {
			if got, ok := l.ByAddr("rack", addr(a)); !ok || got.State != lease.Bound {
				t.Fatalf("round %d: %s was acknowledged and is lost", round, a)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) < 200 {
		t.Fatalf("only %d leases were acknowledged", len(acknowledged))
	}
}

func BenchmarkOffer(b *testing.B) {
	for _, n := range []int{1_000, 50_000} {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			l := open(b, b.TempDir())
			p := pool("10.0.0.0-10.0.255.255")
			for i := range n {
				if _, err := l.Bind(p, mac(i), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), "", time.Hour, t0); err != nil {
					b.Fatal(err)
				}
			}
			i := 0
			for b.Loop() {
				i++
				if _, err := l.Offer(p, mac(i%n), netip.Addr{}, time.Minute, t0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBindFlush(b *testing.B) {
	for _, n := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("group=%d", n), func(b *testing.B) {
			l := open(b, b.TempDir())
			p := pool("10.0.0.0-10.0.255.255")
			i := 0
			for b.Loop() {
				for range n {
					i++
					k := i % 50_000
					if _, err := l.Bind(p, mac(k), netip.AddrFrom4([4]byte{10, 0, byte(k >> 8), byte(k)}), "", time.Hour, t0.Add(time.Duration(i)*time.Second)); err != nil {
						b.Fatal(err)
					}
				}
				if err := l.Flush(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "leases/s")
		})
	}
}
