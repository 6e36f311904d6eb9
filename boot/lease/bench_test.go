package lease_test

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bootd/boot"
	"bootd/boot/lease"
)

// nth is the nth address of 10.0.0.0/8.
func nth(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// BenchmarkTable: what is done with a table of any size takes the same time.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{1_000, 50_000} {
		p := pool()
		p.Ranges = []boot.Range{{First: nth(0), Last: nth(n - 1)}}
		filled := func(b *testing.B) *lease.Table {
			l := open(b, b.TempDir())
			for i := range n {
				if _, err := l.Bind(p, mac(i), nth(i), "", time.Hour, t0.Add(time.Duration(i)*time.Microsecond)); err != nil {
					b.Fatal(err)
				}
			}
			if err := l.Flush(); err != nil {
				b.Fatal(err)
			}
			return l
		}
		run := func(name string, step func(l *lease.Table, i int) error) {
			b.Run(fmt.Sprintf("%s/leases=%d", name, n), func(b *testing.B) {
				l := filled(b)
				i := 0
				for b.Loop() {
					i++
					if err := step(l, i); err != nil {
						b.Fatal(err)
					}
					if i%10_000 == 0 { // so that what is pending does not grow
						b.StopTimer()
						if err := l.Flush(); err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
					}
				}
			})
		}
		run("offer-known", func(l *lease.Table, i int) error {
			_, err := l.Offer(p, mac(i%n), netip.Addr{}, time.Minute, t0)
			return err
		})
		run("renew", func(l *lease.Table, i int) error {
			_, err := l.Bind(p, mac(i%n), nth(i%n), "", time.Hour, t0.Add(time.Minute))
			return err
		})
		run("offer-oldest", func(l *lease.Table, i int) error {
			_, err := l.Offer(p, mac(n+i), netip.Addr{}, time.Minute, t0.Add(2*time.Hour+time.Duration(i)*time.Second))
			return err
		})
		run("exhausted", func(l *lease.Table, i int) error {
			if _, err := l.Offer(p, mac(n+i), netip.Addr{}, time.Minute, t0.Add(time.Minute)); !errors.Is(err, lease.ErrExhausted) {
				return fmt.Errorf("err = %v", err)
			}
			return nil
		})
	}
}

// BenchmarkCommit: each of so many clients binds and waits until that is
// durable.
func BenchmarkCommit(b *testing.B) {
	for _, inFlight := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("in-flight=%d", inFlight), func(b *testing.B) {
			l := open(b, b.TempDir())
			p := pool("10.0.0.0-10.255.255.255")
			var next atomic.Int64
			var clients sync.WaitGroup
			b.ResetTimer()
			for range inFlight {
				clients.Go(func() {
					for {
						i := int(next.Add(1))
						if i > b.N {
							return
						}
						k := i % 50_000
						if _, err := l.Bind(p, mac(k), nth(k), "", time.Hour, t0.Add(time.Duration(i)*time.Second)); err != nil {
							b.Error(err)
							return
						}
						if err := l.Flush(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			clients.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "leases/s")
		})
	}
}
