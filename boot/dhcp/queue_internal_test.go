package dhcp

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestQueue: a queue is a list of which only the newest are kept.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		const length = 5
		q := newQueue(length)
		var model []string
		next := 0
		r.Repeat(map[string]func(*rapid.T){
			"put": func(r *rapid.T) {
				var packets []Packet
				for range rapid.IntRange(1, 8).Draw(r, "packets") {
					next++
					packets = append(packets, Packet{Data: fmt.Append(nil, "packet ", next), From: from(next)})
					model = append(model, fmt.Sprint("packet ", next))
				}
				want := max(0, len(model)-length)
				model = model[want:]
				if got := q.put(packets); got != want {
					r.Fatalf("dropped %d, want %d", got, want)
				}
			},
			"take": func(r *rapid.T) {
				if len(model) == 0 {
					return // it would wait
				}
				packets := buffers()[:rapid.IntRange(1, 8).Draw(r, "at most")]
				var got []string
				for _, p := range packets[:q.take(packets)] {
					got = append(got, string(p.Data))
					if string(p.Data) != fmt.Sprint("packet ", p.From.Port()) {
						r.Fatalf("%q is from %s", p.Data, p.From)
					}
				}
				want := model[:min(len(model), len(packets))]
				model = model[len(want):]
				if !slices.Equal(got, want) {
					r.Fatalf("took %q, want %q", got, want)
				}
			},
		})
		q.close()
		packets := buffers()[:1]
		for range model {
			if q.take(packets) != 1 {
				r.Fatal("closing lost a packet")
			}
		}
		if n := q.take(packets); n != 0 {
			r.Fatalf("took %d from a queue that is closed and empty", n)
		}
	})
}

func from(n int) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)) }

func TestSender(t *testing.T) {
	const ether = "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06"
	reply := ether + "\x00\x01\x08\x00\x06\x04\x00\x02" + "\x02\x00\x00\x00\x00\x09\x0a\x00\x00\x64" + "\x02\x00\x00\x00\x00\x01\x0a\x00\x00\x01"
	if a, mac, ok := sender([]byte(reply + "padding")); !ok || a.String() != "10.0.0.100" || mac.String() != "02:00:00:00:00:09" {
		t.Errorf("%s %s %t", a, mac, ok)
	}
	for name, f := range map[string]string{
		"short":        reply[:41],
		"empty":        "",
		"not Ethernet": ether + "\x00\x06\x08\x00\x06\x04" + reply[20:],
		"a probe":      reply[:28] + "\x00\x00\x00\x00" + reply[32:],
	} {
		if a, mac, ok := sender([]byte(f)); ok {
			t.Errorf("%s: %s %s", name, a, mac)
		}
	}
}
