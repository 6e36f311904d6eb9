package dhcp_test

import (
	"fmt"
	"testing"
	"time"

	"bootd/boot"
	"bootd/boot/dhcp"
)

func roomy() boot.Network {
	return network("lab", "eth1", "10.0.0.0/16", boot.Authoritative, span("10.0.1.0", "10.0.255.250"))
}

func BenchmarkDecodeAnswer(b *testing.B) {
	firmware := class("PXEClient:Arch:00007:UNDI:003000")
	for _, c := range []struct {
		name   string
		packet []byte
	}{
		{"discover", request(discover, mac(7), firmware)},
		{"renew", request(ask, mac(7), has("10.0.1.0"))},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := policy(b, roomy())
			var desk dhcp.Desk
			b.ReportAllocs()
			for b.Loop() {
				r, err := dhcp.Decode(c.packet)
				if err != nil {
					b.Fatal(err)
				}
				if a := desk.Answer(p, r, eth1, t0); a.Reply == nil {
					b.Fatal(a.Why)
				}
			}
		})
	}
}

// BenchmarkServer renews leases through a whole server that keeps them on disk;
// so many clients wait for their answers at a time.
func BenchmarkServer(b *testing.B) {
	for _, flight := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("clients=%d", flight), func(b *testing.B) {
			r := start(b, policy(b, roomy()), onlyEth1, nil)
			w := r.wire("eth1")
			packets := make([][]byte, flight)
			for i := range packets {
				packets[i] = request(ask, mac(i+100), asks(fmt.Sprintf("10.0.%d.%d", 1+i/200, i%200)))
			}
			begun := time.Now()
			answered := 0
			for b.Loop() {
				// One operation is one answer; the wire is kept filled.
				if answered == 0 {
					for _, p := range packets {
						w.in <- p
					}
				}
				<-w.out
				w.in <- packets[answered%flight]
				answered++
			}
			b.ReportMetric(float64(answered)/time.Since(begun).Seconds(), "answers/s")
			for range flight {
				<-w.out
			}
			if n := r.Dropped(); n > 0 {
				b.Errorf("%d answers were dropped", n)
			}
		})
	}
}
