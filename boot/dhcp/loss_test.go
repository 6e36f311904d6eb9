package dhcp_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bootd/boot"
	"bootd/boot/lease"
)

// A crowd is many clients on a wire that loses packets.
type crowd struct {
	t     *testing.T
	wire  *wire
	loss  *rand.Rand
	has   []netip.Addr // what each client was given
	tries int          // packets that were sent
}

// arrives is false for one packet in a hundred.
func (c *crowd) arrives() bool { return c.loss.IntN(100) != 0 }

// packet is a client's DISCOVER, or its REQUEST for what it was offered.
func (c *crowd) packet(client int, offer netip.Addr) []byte {
	p := make([]byte, 300)
	p[0], p[1], p[2] = 1, 1, 6
	binary.BigEndian.PutUint32(p[4:], uint32(client))
	m := mac(client)
	copy(p[28:], m[:])
	if !offer.IsValid() {
		copy(p[236:], "\x63\x82\x53\x63\x35\x01\x01\xff")
		return p
	}
	a := offer.As4()
	copy(p[236:], "\x63\x82\x53\x63\x35\x01\x03\x36\x04\x0a\x00\x00\x01\x32\x04")
	copy(p[251:], a[:])
	p[255] = 255
	return p
}

// ask has some clients ask once, and calls answered with the answers that
// reach them.
func (c *crowd) ask(clients []int, packet func(client int) []byte, answered func(client int, kind byte, a netip.Addr)) {
	for _, client := range clients {
		if c.tries++; c.arrives() {
			c.wire.in <- packet(client)
		}
	}
	synctest.Wait()
	for {
		select {
		case a := <-c.wire.out:
			if c.arrives() {
				client := int(binary.BigEndian.Uint32(a.Reply[4:]))
				if mac(client) != boot.MAC(a.Reply[28:34]) {
					c.t.Fatalf("the answer to %d is for %s", client, boot.MAC(a.Reply[28:34]))
				}
				answered(client, a.Reply[242], netip.AddrFrom4([4]byte(a.Reply[16:20])))
			}
		default:
			return
		}
	}
}

// boot has some clients ask until each of them has an address.
func (c *crowd) boot(clients []int) {
	for len(clients) > 0 {
		offers := map[int]netip.Addr{}
		c.ask(clients, func(client int) []byte { return c.packet(client, netip.Addr{}) }, func(client int, kind byte, a netip.Addr) {
			if kind != 2 {
				c.t.Fatalf("%d is answered with type %d", client, kind)
			}
			offers[client] = a
		})
		var offered, rest []int
		for _, client := range clients {
			if offers[client].IsValid() {
				offered = append(offered, client)
			}
		}
		c.ask(offered, func(client int) []byte { return c.packet(client, offers[client]) }, func(client int, kind byte, a netip.Addr) {
			if kind != 5 || a != offers[client] {
				c.t.Fatalf("%d asks for %s and is answered with type %d, %s", client, offers[client], kind, a)
			}
			c.has[client] = a
		})
		for _, client := range clients {
			if !c.has[client].IsValid() {
				rest = append(rest, client)
			}
		}
		clients = rest
		time.Sleep(4 * time.Second)
	}
}

// Where one packet in a hundred gets lost, in either direction, each of 50,000
// clients gets an address, no two the same one, and so it stands in what is on
// disk afterwards.
func TestManyClientsOnALossyWire(t *testing.T) {
	const clients, atOnce = 50_000, 1000
	dir := t.TempDir()
	c := &crowd{t: t, loss: rand.New(rand.NewPCG(1, 2)), has: make([]netip.Addr, clients)}
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, roomy())
		var err error
		if p.Leases, err = lease.Open(dir, quiet); err != nil {
			t.Fatal(err)
		}
		r := start(t, p, onlyEth1, nil)
		c.t, c.wire = t, r.wire("eth1")
		for first := 0; first < clients; first += atOnce {
			some := make([]int, atOnce)
			for i := range some {
				some[i] = first + i
			}
			c.boot(some)
		}
		if n := r.Dropped() + r.Unanswered(); n > 0 {
			t.Errorf("%d requests were not answered", n)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if err := p.Leases.Close(); err != nil {
			t.Error(err)
		}
	})
	kept, err := lease.Open(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	owner := map[netip.Addr]int{}
	for client, a := range c.has {
		if other, taken := owner[a]; taken {
			t.Fatalf("%s was given to %d and to %d", a, other, client)
		}
		owner[a] = client
		if l, ok := kept.ByAddr("lab", a); !ok || l.State != lease.Bound || l.MAC != mac(client) {
			t.Fatalf("%s was given to %s, and kept is %+v", a, mac(client), l)
		}
	}
	if c.tries < 2*clients*101/100 {
		t.Errorf("%d packets were sent: none got lost", c.tries)
	}
}
