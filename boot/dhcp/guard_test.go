package dhcp_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/boot/lease"
)

// port is what a relay agent says of the port that a request came to.
func port(name string) option { return generic(82, append([]byte{1, byte(len(name))}, name...)) }

// A flooded server is one that is being flooded.
type flooded struct {
	*running
	t   *testing.T
	p   dhcp.Policy
	log bytes.Buffer
}

// flood runs f against a server of two networks of 200 addresses each: lab, on
// the server's own wire, and far, behind a relay agent.
func flood(t *testing.T, f func(*flooded)) {
	synctest.Test(t, func(t *testing.T) {
		lab := network("lab", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.51", "10.0.0.250"))
		far := network("far", "eth1", "10.9.0.0/24", boot.Authoritative, span("10.9.0.51", "10.9.0.250"))
		x := &flooded{running: &running{wires: map[string]*wire{}}, t: t, p: policy(t, lab, far)}
		serve(t, x.running, dhcp.Config{Policy: x.p, Link: onlyEth1, Log: slog.New(slog.NewTextHandler(&x.log, nil)),
			Open: func(iface string, port uint16) (dhcp.Conn, error) {
				w := newWire()
				x.wires[iface+fmt.Sprint(":", port)] = w
				return w, nil
			}})
		f(x)
		if err := x.stop(); err != nil { // before the log is read
			t.Error(err)
		}
	})
}

// ask sends a request and returns the answers.
func (f *flooded) ask(packet []byte) []string {
	w := f.wires["eth1:67"]
	w.in <- packet
	synctest.Wait()
	return w.heard()
}

// active counts the addresses of a network that somebody holds.
func (f *flooded) active(network string) (n int) {
	for _, l := range f.p.Leases.All() {
		if l.Network == network && l.Active(time.Now()) {
			n++
		}
	}
	return n
}

// boots has a machine come up as real ones do: it asks, asks again when it gets
// no answer, and takes what it is offered. It reports whether it has an address,
// and how often it had to ask.
func (f *flooded) boots(n int, options ...option) (asked int, ok bool) {
	for asked = 1; asked <= 3; asked++ {
		offer := f.ask(request(discover, mac(n), options...))
		if len(offer) == 1 && strings.HasPrefix(offer[0], "OFFER ") {
			addr := strings.Fields(offer[0])[1]
			ack := f.ask(request(ask, mac(n), append(options, asks(addr), chooses("10.0.0.1"))...))
			return asked, len(ack) == 1 && strings.HasPrefix(ack[0], "ACK "+addr+" ")
		}
		time.Sleep(4 * time.Second)
	}
	return asked, false
}

const made = 100_000 // the first of the machines that are made up

// A machine on the wire that makes up hardware addresses does not get all
// addresses, and real machines still get theirs.
func TestFloodOnTheWire(t *testing.T) {
	flood(t, func(f *flooded) {
		if asked, ok := f.boots(10); asked != 1 || !ok {
			t.Fatal("a machine gets no address")
		}
		next := made
		more := func(n int) {
			for range n {
				f.ask(request(discover, mac(next)))
				next++
			}
		}
		more(1000)
		for n := range 50 {
			more(30) // while it waits for an answer, too
			if asked, ok := f.boots(20 + n); asked != 2 || !ok {
				t.Fatalf("real machine %d asked %d times, has an address: %v", n, asked, ok)
			}
		}
		more(100)
		if n := f.active("lab"); n != 1+50+25 {
			t.Errorf("%d addresses are held", n)
		}
		// Who has a lease, and who is named, is not concerned.
		for _, n := range []int{10, 2} {
			if asked, ok := f.boots(n); asked != 1 || !ok {
				t.Errorf("machine %d asked %d times, has an address: %v", n, asked, ok)
			}
		}
		floods := f.Floods()
		if len(floods) != 1 || floods[0].Network != "lab" || floods[0].Source() != "its own wire" || floods[0].Held != 25 || floods[0].Dropped != f.Unanswered() {
			t.Errorf("floods %+v", floods)
		}
		if n := f.Unanswered(); n < 2400 || n > 2600 {
			t.Errorf("%d requests of %d were not answered", n, next-made)
		}
		if n := strings.Count(f.log.String(), "more new machines ask"); n != 1 {
			t.Errorf("it is said %d times:\n%s", n, &f.log)
		}

		// When it is over, a machine asks once, and it is said that it is over.
		time.Sleep(11 * time.Minute)
		if asked, ok := f.boots(90); asked != 1 || !ok {
			t.Errorf("afterwards a machine asked %d times, has an address: %v", asked, ok)
		}
		if floods := f.Floods(); len(floods) != 0 || !strings.Contains(f.log.String(), "is over") {
			t.Errorf("floods %+v, log:\n%s", floods, &f.log)
		}
	})
}

// One port of a relay agent does not take the addresses of the others.
func TestFloodOfOnePort(t *testing.T) {
	flood(t, func(f *flooded) {
		bad := []option{relay("10.9.0.1"), port("slot1/7")}
		for i := range 1000 {
			f.ask(request(discover, mac(made+i), bad...))
		}
		if n := f.active("far"); n != 25 {
			t.Errorf("%d addresses are held", n)
		}
		for n := range 50 {
			if asked, ok := f.boots(20+n, relay("10.9.0.1"), port(fmt.Sprintf("slot2/%d", n))); asked != 1 || !ok {
				t.Fatalf("machine %d on another port asked %d times, has an address: %v", n, asked, ok)
			}
		}
		want := []dhcp.Flood{{Network: "far", Relay: addr("10.9.0.1"), Port: "slot1/7", Held: 25, Dropped: 975, Since: time.Now().Add(-time.Hour), Last: time.Now()}}
		got := f.Floods()
		for i := range got {
			got[i].Since, got[i].Last = want[0].Since, want[0].Last
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("floods (-want +got):\n%s", diff)
		}
		if text := got[0].Source(); text != "port slot1/7 of relay agent 10.9.0.1" {
			t.Errorf("source %q", text)
		}
	})
}

// Who makes up hardware addresses and ports, and asks twice with each, takes no
// more of a network than its bound from one place.
func TestFloodThatAsksTwice(t *testing.T) {
	flood(t, func(f *flooded) {
		for range 3 {
			for i := range 400 {
				f.ask(request(discover, mac(made+i)))
			}
			time.Sleep(5 * time.Second)
		}
		if n := f.active("lab"); n != 150 {
			t.Errorf("%d of 200 addresses are held", n)
		}
		if asked, ok := f.boots(20); ok {
			t.Errorf("a machine got an address when it asked %d times; the test expects the bound to hold", asked)
		}
		time.Sleep(3 * time.Minute)
		if asked, ok := f.boots(20); asked != 1 || !ok {
			t.Errorf("afterwards a machine asked %d times, has an address: %v", asked, ok)
		}
	})
}

// Addresses are not taken either by asking for them without an offer, or by
// saying that they are in use.
func TestFloodOfRequests(t *testing.T) {
	flood(t, func(f *flooded) {
		for i := range 200 {
			f.ask(request(ask, mac(made+i), asks(fmt.Sprintf("10.0.0.%d", 51+i))))
		}
		if n := f.active("lab"); n != 25 {
			t.Errorf("%d addresses are held", n)
		}
		if asked, ok := f.boots(20); asked != 2 || !ok {
			t.Errorf("a machine asked %d times, has an address: %v", asked, ok)
		}
	})
	flood(t, func(f *flooded) {
		declined := 0
		for i := range 400 {
			offer := f.ask(request(discover, mac(made+i)))
			if len(offer) == 1 {
				f.ask(request(decline, mac(made+i), asks(strings.Fields(offer[0])[1]), chooses("10.0.0.1")))
				declined++
			}
		}
		if declined != 25 {
			t.Errorf("%d addresses were declined", declined)
		}
		time.Sleep(10 * time.Minute)
		if asked, ok := f.boots(20); asked != 2 || !ok {
			t.Errorf("a machine asked %d times, has an address: %v", asked, ok)
		}
		time.Sleep(time.Hour)
		if asked, ok := f.boots(21); asked != 1 || !ok {
			t.Errorf("afterwards a machine asked %d times, has an address: %v", asked, ok)
		}
	})
}

// A rack that is switched on at once is no flood: its machines take what they
// are offered, and ask again if they are not answered.
func TestRackIsNoFlood(t *testing.T) {
	flood(t, func(f *flooded) {
		const machines = 190
		for n := range machines { // all of them before any has taken it
			f.ask(request(discover, mac(1000+n), class("PXEClient:Arch:00007:UNDI:003000")))
		}
		time.Sleep(4 * time.Second)
		for n := range machines {
			if asked, ok := f.boots(1000+n, class("PXEClient:Arch:00007:UNDI:003000")); asked != 1 || !ok {
				t.Fatalf("machine %d asked %d times more, has an address: %v", n, asked, ok)
			}
		}
		bound := 0
		for _, l := range f.p.Leases.All() {
			if l.State == lease.Bound {
				bound++
			}
		}
		if bound != machines {
			t.Errorf("%d of %d machines have an address", bound, machines)
		}
	})
}
