package dhcp_test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/boot/lease"
)

// A shared wire has other hosts on it, that answer for their addresses.
type shared struct {
	*wire
	hosts map[netip.Addr]boot.MAC
	asked chan netip.Addr
	shown chan netip.Addr
	mute  bool // asking fails
}

func (s *shared) Probe(a netip.Addr) error {
	if s.mute {
		return errors.New("network is down")
	}
	s.asked <- a
	if _, ok := s.hosts[a]; ok {
		s.shown <- a
	}
	return nil
}

func (s *shared) Heard() (netip.Addr, boot.MAC, error) {
	select {
	case a := <-s.shown:
		return a, s.hosts[a], nil
	case <-s.closed:
		return netip.Addr{}, boot.MAC{}, net.ErrClosed
	}
}

func (s *shared) probes() []string {
	out := []string{}
	for {
		select {
		case a := <-s.asked:
			out = append(out, a.String())
		default:
			return out
		}
	}
}

func startShared(t *testing.T, p dhcp.Policy, s *shared) *running {
	s.wire = newWire()
	s.asked, s.shown = make(chan netip.Addr, 100), make(chan netip.Addr, 100)
	r := &running{wires: map[string]*wire{"eth1": s.wire}}
	serve(t, r, dhcp.Config{Policy: p, Log: quiet, Link: onlyEth1, Open: func(_ string, port uint16) (dhcp.Conn, error) {
		if port != 67 {
			return newWire(), nil
		}
		return s, nil
	}})
	return r
}

func at(n int) string { return " at " + mac(n).String() }

// An address that nobody is known to use is offered only when nobody says that
// he does.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t)
		s := &shared{hosts: map[netip.Addr]boot.MAC{addr("10.0.0.100"): mac(900), addr("10.0.0.103"): mac(7)}}
		r := startShared(t, p, s)
		expect := func(what string, probes, answers []string, events ...boot.Stage) {
			t.Helper()
			if diff := cmp.Diff(probes, s.probes()); diff != "" {
				t.Errorf("%s: probes (-want +got):\n%s", what, diff)
			}
			if diff := cmp.Diff(answers, s.heard()); diff != "" {
				t.Errorf("%s: answers (-want +got):\n%s", what, diff)
			}
			if got := r.happened(); !slices.Equal(got, events) {
				t.Errorf("%s: events %v, want %v", what, got, events)
			}
		}
		none := []string{}

		s.in <- request(discover, mac(7))
		synctest.Wait()
		expect("a host has .100", []string{"10.0.0.100", "10.0.0.102"}, none, boot.Failed)
		if l, _ := p.Leases.ByAddr("lab", addr("10.0.0.100")); l.State != lease.Declined {
			t.Errorf("10.0.0.100 is %s", l.State)
		}
		s.in <- request(discover, mac(7)) // it asks again meanwhile
		time.Sleep(90 * time.Millisecond)
		synctest.Wait()
		expect("before the time is over", none, none)
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		expect("after it", none, []string{"OFFER 10.0.0.102 to 10.0.0.102:68" + at7}, boot.Offered)
		s.in <- request(discover, mac(7))
		synctest.Wait()
		expect("proven before", none, []string{"OFFER 10.0.0.102 to 10.0.0.102:68" + at7}, boot.Offered)
		s.in <- request(ask, mac(7), asks("10.0.0.102"), chooses("10.0.0.1"))
		synctest.Wait()
		expect("accepted", none, []string{"ACK 10.0.0.102 to 10.0.0.102:68" + at7}, boot.Leased)

		// Its own address is no conflict, though it had it from somebody else.
		s.in <- request(discover, mac(7), asks("10.0.0.103"))
		synctest.Wait()
		expect("has a lease", none, []string{"OFFER 10.0.0.102 to 10.0.0.102:68" + at7}, boot.Offered)
		s.in <- request(release, mac(7), has("10.0.0.102"))
		s.in <- request(ask, mac(8), asks("10.0.0.102"))
		synctest.Wait()
		expect("lost its address", none, []string{"ACK 10.0.0.102 to 10.0.0.102:68" + at(8)}, boot.Leased)
		s.in <- request(discover, mac(7))
		time.Sleep(time.Second)
		synctest.Wait()
		expect("uses .103 already", []string{"10.0.0.103"}, []string{"OFFER 10.0.0.103 to 10.0.0.103:68" + at7}, boot.Offered)

		s.in <- request(discover, mac(9), relay("10.9.0.254"))
		synctest.Wait()
		expect("out of reach", none, []string{"OFFER 10.9.0.100 to 10.9.0.254:67"}, boot.Offered)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// A router that answers for everybody does not take all addresses away.
func TestProxyARP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, network("lab", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.100", "10.0.0.200")))
		s := &shared{hosts: map[netip.Addr]boot.MAC{}}
		for i := range 256 {
			s.hosts[netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})] = mac(900)
		}
		startShared(t, p, s)
		s.in <- request(discover, mac(7))
		time.Sleep(time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"OFFER 10.0.0.109 to 10.0.0.109:68" + at7}, s.heard()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Where nothing can be found out, offers leave at once; and one that is held
// back keeps the server from nothing.
func TestProbeCannot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{mute: true}
		r := startShared(t, policy(t), s)
		s.in <- request(discover, mac(7))
		synctest.Wait()
		if diff := cmp.Diff([]string{offer100}, s.heard()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &shared{}
		r := startShared(t, policy(t), s)
		s.in <- request(discover, mac(7))
		synctest.Wait()
		before := time.Now()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(before); took > 0 {
			t.Errorf("stopping took %s", took)
		}
		if got := s.heard(); len(got) > 0 {
			t.Errorf("sent %q", got)
		}
	})
}
