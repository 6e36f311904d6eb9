package dhcp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/boot/lease"
)

// A wire is a Conn in memory.
type wire struct {
	in     chan []byte
	out    chan dhcp.Answer
	closed chan struct{}
	once   sync.Once
	before func([]dhcp.Answer) // called with what is about to be sent
	from   netip.AddrPort      // who sends what comes in
}

func newWire() *wire {
	return &wire{in: make(chan []byte, 4096), out: make(chan dhcp.Answer, 4096), closed: make(chan struct{})}
}

func (w *wire) Receive(packets []dhcp.Packet) (int, error) {
	n := 0
	take := func(b []byte) {
		packets[n] = dhcp.Packet{Data: append(packets[n].Data[:0], b...), From: w.from}
		n++
	}
	select {
	case <-w.closed:
		return 0, net.ErrClosed
	case b := <-w.in:
		take(b)
	}
	for n < len(packets) {
		select {
		case b := <-w.in:
			take(b)
		default:
			return n, nil
		}
	}
	return n, nil
}

func (w *wire) Send(answers []dhcp.Answer) error {
	if w.before != nil {
		w.before(answers)
	}
	for _, a := range answers {
		a.Reply = bytes.Clone(a.Reply)
		w.out <- a
	}
	return nil
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// heard returns what was sent so far.
func (w *wire) heard() []string {
	out := []string{}
	for {
		select {
		case a := <-w.out:
			out = append(out, short(a))
		default:
			return out
		}
	}
}

// A running is a server over wires.
type running struct {
	*dhcp.Server
	stop   func() error // ends Run and returns its error
	mu     sync.Mutex
	wires  map[string]*wire // the last that was opened on each interface, and eth1:4011
	events []boot.Event
}

func (r *running) wire(iface string) *wire {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wires[iface]
}

func (r *running) happened() []boot.Stage {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []boot.Stage{}
	for _, e := range r.events {
		out = append(out, e.Stage)
	}
	r.events = nil
	return out
}

// start runs a server. prepare, if not nil, is called with each new wire.
func start(t testing.TB, p dhcp.Policy, link func(string) (dhcp.Link, error), prepare func(*wire)) *running {
	t.Helper()
	r := &running{wires: map[string]*wire{}}
	serve(t, r, dhcp.Config{Policy: p, Log: quiet, Link: link, Open: func(iface string, port uint16) (dhcp.Conn, error) {
		w := newWire()
		if port != 67 {
			iface += fmt.Sprint(":", port)
		}
		if prepare != nil {
			prepare(w)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.wires[iface] = w
		return w, nil
	}})
	return r
}

// serve runs a server until the end of the test, noting its events in r.
func serve(t testing.TB, r *running, c dhcp.Config) {
	t.Helper()
	c.Record = func(e boot.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}
	s, err := dhcp.Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	r.Server = s
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = r.stop() })
}

func onlyEth1(iface string) (dhcp.Link, error) {
	if iface != "eth1" {
		return dhcp.Link{}, errors.New("there is no interface " + iface)
	}
	return eth1, nil
}

func TestServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, policy(t), onlyEth1, nil)
		w := r.wire("eth1")
		for _, s := range []step{
			{packet: []byte("noise")},
			{packet: request(discover, mac(7)), want: offer100},
			{packet: request(ask, mac(7), asks("10.0.0.100"), chooses("10.0.0.1")), want: ack100},
			{packet: request(release, mac(7), has("10.0.0.100"))},
		} {
			w.in <- s.packet
			synctest.Wait()
			want := []string{}
			if s.want != "" {
				want = append(want, s.want)
			}
			if diff := cmp.Diff(want, w.heard()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
		if diff := cmp.Diff([]boot.Stage{boot.Offered, boot.Leased}, r.happened()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if _, err := w.Receive(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the wire is still open: %v", err)
		}
	})
}

// At the moment an acknowledgement leaves, somebody who reads the disk finds
// the lease there.
func TestLeaseIsOnDiskBeforeAck(t *testing.T) {
	p := policy(t)
	dir := t.TempDir()
	table, err := lease.Open(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	p.Leases = table
	checked := 0
	look := func(answers []dhcp.Answer) {
		crashed := t.TempDir()
		if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
			t.Error(err)
			return
		}
		there, err := lease.Open(crashed, quiet)
		if err != nil {
			t.Error(err)
			return
		}
		defer there.Close()
		for _, a := range answers {
			m, err := dhcpv4.FromBytes(a.Reply)
			if err != nil {
				t.Error(err)
				continue
			}
			given, _ := netip.AddrFromSlice(m.YourIPAddr.To4())
			l, ok := there.ByAddr("lab", given)
			if m.MessageType() == dhcpv4.MessageTypeAck && (!ok || l.State != lease.Bound || l.MAC.String() != m.ClientHWAddr.String()) {
				t.Errorf("%s left, and on disk is %+v", short(a), l)
			}
			checked++
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, p, onlyEth1, func(w *wire) { w.before = look })
		for n, a := range []string{"10.0.0.100", "10.0.0.102", "10.0.0.103"} {
			r.wire("eth1").in <- request(ask, mac(7+n), asks(a))
		}
		synctest.Wait()
		if got := r.wire("eth1").heard(); len(got) != 3 || checked != 3 {
			t.Errorf("sent %q, checked %d", got, checked)
		}
	})
}

// While acknowledgements are being sent, offers go out.
func TestOffersDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := start(t, policy(t), onlyEth1, func(w *wire) {
			w.before = func(answers []dhcp.Answer) {
				if answers[0].Durable {
					<-release
				}
			}
		})
		w := r.wire("eth1")
		w.in <- request(ask, mac(7), asks("10.0.0.100"))
		synctest.Wait()
		w.in <- request(discover, mac(8))
		synctest.Wait()
		if diff := cmp.Diff([]string{"OFFER 10.0.0.102 to 10.0.0.102:68" + at8}, w.heard()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		close(release)
		synctest.Wait()
		if diff := cmp.Diff([]string{ack100}, w.heard()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Under too many requests the newest are answered, whose clients still wait.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := start(t, policy(t, roomy()), onlyEth1, func(w *wire) {
			w.before = func([]dhcp.Answer) { <-release }
		})
		w := r.wire("eth1")
		const clients = 3000
		for n := range clients {
			w.in <- request(discover, mac(n+100))
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		dropped, answers := int(r.Dropped()), len(w.out)
		if dropped == 0 || dropped+answers != clients {
			t.Errorf("%d answered and %d dropped of %d", answers, dropped, clients)
		}
		var last dhcp.Answer
		for range answers {
			last = <-w.out
		}
		if last.Event.MAC != mac(clients+99) {
			t.Errorf("the last answer is for %s", last.Event.MAC)
		}
	})
}

// A server that cannot keep leases any more gives none, and ends.
func TestDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t)
		r := start(t, p, onlyEth1, nil)
		w := r.wire("eth1")
		w.in <- request(discover, mac(7))
		synctest.Wait()
		if err := p.Leases.Close(); err != nil {
			t.Fatal(err)
		}
		w.in <- request(ask, mac(7), asks("10.0.0.100"))
		w.in <- request(ask, mac(8), asks("10.0.0.102"))
		synctest.Wait()
		if diff := cmp.Diff([]string{offer100}, w.heard()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]boot.Stage{boot.Offered}, r.happened()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		// Run has ended by itself: its error is not overwritten by the stop.
		if err := r.stop(); err == nil || !strings.Contains(err.Error(), "cannot keep leases") {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// Interfaces come and go with the catalog, and those that are not there yet
// are served once they are.
func TestReload(t *testing.T) {
	lab := network("lab", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.100", "10.0.0.103"))
	rack := network("rack", "eth2", "10.2.0.0/24", boot.Authoritative, span("10.2.0.100", "10.2.0.103"))
	later := network("later", "eth3", "10.3.0.0/24", boot.Authoritative, span("10.3.0.100", "10.3.0.103"))
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, lab)
		var current atomic.Pointer[boot.Catalog]
		current.Store(p.Catalog())
		p.Catalog = current.Load
		var there, anew atomic.Bool // eth3 has its address; eth1 was made anew
		links := func(iface string) (dhcp.Link, error) {
			l := dhcp.Link{Interface: iface}
			if iface == "eth1" && anew.Load() {
				l.Index = 7
			}
			if iface != "eth3" || there.Load() {
				l.Addrs = []netip.Prefix{netip.MustParsePrefix(map[string]string{"eth1": "10.0.0.1/24", "eth2": "10.2.0.1/24", "eth3": "10.3.0.1/24"}[iface])}
			}
			return l, nil
		}
		r := start(t, p, links, nil)
		eth1 := r.wire("eth1")

		current.Store(catalog(t, lab, rack, later))
		r.Reload()
		synctest.Wait()
		served(t, r, "eth1", "eth2")
		if r.wire("eth1") != eth1 {
			t.Error("an interface that stayed was opened again")
		}
		there.Store(true)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		served(t, r, "eth1", "eth2", "eth3")

		anew.Store(true)
		r.Reload()
		synctest.Wait()
		served(t, r, "eth1", "eth2", "eth3")
		if r.wire("eth1") == eth1 {
			t.Error("an interface that was made anew was not opened again")
		}

		current.Store(catalog(t, rack))
		r.Reload()
		synctest.Wait()
		served(t, r, "eth2")
	})
}

// served checks which interfaces answer.
func served(t *testing.T, r *running, want ...string) {
	t.Helper()
	got := []string{}
	for _, iface := range []string{"eth1", "eth2", "eth3"} {
		w := r.wire(iface)
		if w == nil {
			continue
		}
		w.in <- request(discover, mac(7))
		synctest.Wait()
		if len(w.heard()) == 1 {
			got = append(got, iface)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q answer, want %q", got, want)
	}
}

func TestListenRefuses(t *testing.T) {
	lab := network("lab", "eth1", "10.0.0.0/24", boot.Authoritative)
	far := network("far", "eth1", "10.9.0.0/24", boot.Authoritative)
	own := network("own", "eth1", "10.0.0.0/24", boot.Off)
	bare := func(iface string) (dhcp.Link, error) { return dhcp.Link{Interface: iface}, nil }
	for _, c := range []struct {
		name     string
		networks []boot.Network
		link     func(string) (dhcp.Link, error)
		want     string // part of the error; empty: none
	}{
		{"no address", []boot.Network{lab}, bare, "cannot answer DHCP on network lab: interface eth1 has no address in 10.0.0.0/24; give it one: ip addr add ADDRESS/24 dev eth1"},
		{"wrong address", []boot.Network{far}, onlyEth1, "no address in 10.9.0.0/24"},
		{"behind a relay", []boot.Network{far, own}, onlyEth1, ""},
		{"no interface", []boot.Network{network("x", "eth8", "10.8.0.0/24", boot.Authoritative)}, onlyEth1, "network x: there is no interface eth8"},
		{"one of two interfaces", []boot.Network{lab, network("x", "eth8", "10.8.0.0/24", boot.Authoritative)}, onlyEth1, ""},
		{"nothing to serve", []boot.Network{network("x", "eth8", "10.8.0.0/24", boot.Off)}, onlyEth1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			opened := []*wire{}
			_, err := dhcp.Listen(dhcp.Config{Policy: policy(t, c.networks...), Log: quiet, Link: c.link, Record: func(boot.Event) {},
				Open: func(string, uint16) (dhcp.Conn, error) { w := newWire(); opened = append(opened, w); return w, nil }})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
