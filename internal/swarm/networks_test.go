package swarm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/network"
	dockerswarm "github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"bootd/boot"
	"bootd/internal/swarm"
	"bootd/internal/swarm/dockertest"
	"bootd/internal/swarm/swarmtest"
)

func prefix(s string) []swarm.Subnet { return []swarm.Subnet{{Prefix: netip.MustParsePrefix(s)}} }

// declared are networks that can be declared anew while they are kept.
type declared struct {
	mu   sync.Mutex
	list []swarm.Network
	gone bool
}

func (d *declared) get() ([]swarm.Network, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.list, !d.gone
}

// forget takes the whole swarm out of the configuration.
func (d *declared) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list, d.gone = nil, true
}

func (d *declared) set(list ...swarm.Network) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = list
}

func overlay(list []swarm.NetworkState, name string) (swarm.NetworkState, bool) {
	i := slices.IndexFunc(list, func(n swarm.NetworkState) bool { return n.Name == name && !n.Local })
	if i < 0 {
		return swarm.NetworkState{}, false
	}
	return list[i], true
}

// TestNetworksLive: what is declared anew is there soon, what fails is tried
// again without hurry, and the log does not repeat itself.
func TestNetworksLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := swarmtest.New("10.0.0.1")
		var log bytes.Buffer
		var want declared
		want.set(swarm.Network{Name: "mynet", Subnets: prefix("10.20.0.0/24")})
		counted := &counting{Engine: e}
		s := swarm.NewOn(swarm.Config{
			Machines: func() []swarm.Machine { return nil }, Record: func(boot.Event) {}, Networks: want.get,
			Log: slog.New(slog.NewTextHandler(&log, nil)),
		}, counted)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		expect := func(after time.Duration, what string, f func([]swarm.NetworkState) bool) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			list, err := e.Networks(ctx)
			if err != nil || !f(list) {
				t.Fatalf("%s: not after %s: %+v, %v", what, after, list, err)
			}
		}
		has := func(name string) func([]swarm.NetworkState) bool {
			return func(l []swarm.NetworkState) bool { n, ok := overlay(l, name); return ok && n.Driver == "overlay" }
		}
		expect(time.Second, "made", has("mynet"))

		// Declared anew, and bootd told so.
		want.set(swarm.Network{Name: "mynet", Subnets: prefix("10.20.0.0/24")}, swarm.Network{Name: "back"})
		s.Nudge()
		expect(time.Second, "the second one", has("back"))

		// Somebody removes one.
		list, _ := e.Networks(ctx)
		n, _ := overlay(list, "back")
		if err := e.RemoveNetwork(ctx, n.ID); err != nil {
			t.Fatal(err)
		}
		expect(11*time.Second, "made again", has("back"))

		// Not declared any more, but in use for a while.
		e.UseNetwork("back", "service web")
		want.set(swarm.Network{Name: "mynet", Subnets: prefix("10.20.0.0/24")})
		s.Nudge()
		expect(time.Second, "still there", has("back"))
		if st := s.Status(); len(st.Notices) != 1 || !strings.Contains(st.Notices[0], "in use by service web") {
			t.Errorf("notices: %q", st.Notices)
		}
		before := counted.removals
		for range 500 { // node events
			s.Nudge()
			time.Sleep(100 * time.Millisecond)
		}
		if tried := counted.removals - before; tried < 4 || tried > 6 {
			t.Errorf("tried %d times to remove a network within 50 s", tried)
		}
		e.UseNetwork("back")
		expect(11*time.Second, "gone", func(l []swarm.NetworkState) bool { return !has("back")(l) })
		if st := s.Status(); len(st.Notices) != 0 {
			t.Errorf("notices: %q", st.Notices)
		}

		// What cannot be changed while the network is used is changed afterwards.
		e.UseNetwork("mynet", "service db", "container x")
		want.set(swarm.Network{Name: "mynet", Subnets: prefix("10.20.0.0/24"), Attachable: true})
		s.Nudge()
		expect(time.Second, "as it was", func(l []swarm.NetworkState) bool { n, _ := overlay(l, "mynet"); return !n.Attachable })
		if st := s.Status(); len(st.Notices) != 1 || !strings.Contains(st.Notices[0], "attachable is false and should be true") {
			t.Errorf("notices: %q", st.Notices)
		}
		e.UseNetwork("mynet")
		expect(11*time.Second, "changed", func(l []swarm.NetworkState) bool { n, _ := overlay(l, "mynet"); return n.Attachable })

		// The engine is away for a while.
		e.Stop()
		want.set(swarm.Network{Name: "later"})
		time.Sleep(time.Minute)
		e.Start()
		expect(30*time.Second, "after the engine's restart", has("later"))

		// A swarm that is not bootd's business any more keeps its networks.
		want.forget()
		s.Nudge()
		expect(time.Minute, "left alone", has("later"))

		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "in use by service web"); n != 1 {
			t.Errorf("told %d times:\n%s", n, log.String())
		}
	})
}

// counting counts what is tried.
type counting struct {
	*swarmtest.Engine
	removals int
}

func (c *counting) RemoveNetwork(ctx context.Context, id string) error {
	c.removals++
	return c.Engine.RemoveNetwork(ctx, id)
}

// TestNetworksLeftAlone: where nobody says which networks there should be, none
// is touched.
func TestNetworksLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := swarmtest.New("10.0.0.1")
		if err := e.Init(t.Context(), swarm.Init{}); err != nil {
			t.Fatal(err)
		}
		n := swarm.Network{Name: "mynet", Labels: map[string]string{"bootd.network": "mynet"}}
		if err := e.CreateNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		s := swarm.NewOn(swarm.Config{Machines: func() []swarm.Machine { return nil }, Record: func(boot.Event) {}, Log: discard()}, e)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		list, err := e.Networks(t.Context())
		if _, ok := overlay(list, "mynet"); err != nil || !ok {
			t.Errorf("gone: %v", err)
		}
	})
}

// failing fails now and then, before or after something was done, as when the
// process is killed or the engine goes away.
type failing struct {
	*swarmtest.Engine
	draw func() int
}

var errFailed = errors.New("it failed")

func (f failing) CreateNetwork(ctx context.Context, n swarm.Network) error {
	return f.around(func() error { return f.Engine.CreateNetwork(ctx, n) })
}

func (f failing) RemoveNetwork(ctx context.Context, id string) error {
	return f.around(func() error { return f.Engine.RemoveNetwork(ctx, id) })
}

func (f failing) around(do func() error) error {
	switch f.draw() {
	case 0:
		return errFailed
	case 1:
		if err := do(); err != nil {
			return err
		}
		return errFailed
	}
	return do()
}

// TestNetworksProperties: whatever is declared, whoever makes and uses networks,
// and whatever fails: networks of others and those in use stay, and once nothing
// is used and nothing fails, all is as declared, and stays so.
func TestNetworksProperties(t *testing.T) {
	names := []string{"a", "b", "c"}
	subnets := []string{"", "10.0.0.0/24", "10.0.1.0/24", "10.20.0.0/24", "10.20.0.0/25", "10.21.0.0/24"}
	rapid.Check(t, func(r *rapid.T) {
		anyNetwork := func(name string) swarm.Network {
			n := swarm.Network{Name: name, Attachable: rapid.Bool().Draw(r, "attachable")}
			if s := rapid.SampledFrom(subnets).Draw(r, "subnet"); s != "" {
				n.Subnets = prefix(s)
			}
			if v := rapid.SampledFrom([]string{"", "x", "y"}).Draw(r, "label"); v != "" {
				n.Labels = map[string]string{"l": v}
			}
			return n
		}
		ctx := context.Background()
		e := swarmtest.New("10.0.0.1")
		if err := e.Init(ctx, swarm.Init{}); err != nil {
			r.Fatal(err)
		}
		broken := true
		var want []swarm.Network
		s := swarm.NewOn(swarm.Config{Networks: func() ([]swarm.Network, bool) { return want, true }, Log: discard()}, failing{e, func() int {
			if !broken {
				return 9
			}
			return rapid.IntRange(0, 5).Draw(r, "failure")
		}})
		list := func() []swarm.NetworkState {
			l, err := e.Networks(ctx)
			if err != nil {
				r.Fatal(err)
			}
			return l
		}
		used := map[string]bool{}
		look := func() {
			before := list()
			swarm.LookAtNetworks(ctx, s)
			after := map[string]bool{}
			for _, n := range list() {
				after[n.ID] = true
			}
			for _, n := range before {
				if !after[n.ID] && (!swarm.Ours(n) || used[n.ID]) {
					r.Fatalf("network %+v is gone", n)
				}
			}
		}
		for range rapid.IntRange(1, 20).Draw(r, "steps") {
			name := rapid.SampledFrom(names).Draw(r, "name")
			switch rapid.IntRange(0, 4).Draw(r, "step") {
			case 0:
				want = slices.DeleteFunc(slices.Clone(want), func(n swarm.Network) bool { return n.Name == name })
			case 1:
				want = append(slices.DeleteFunc(slices.Clone(want), func(n swarm.Network) bool { return n.Name == name }), anyNetwork(name))
			case 2:
				_ = e.AddNetwork(ctx, swarm.NetworkState{Network: anyNetwork(name), Local: rapid.Bool().Draw(r, "local")})
			case 3:
				if n, ok := overlay(list(), name); ok {
					used[n.ID] = !used[n.ID]
					if e.UseNetwork(name); used[n.ID] {
						e.UseNetwork(name, "service s")
					}
				}
			case 4:
				look()
			}
		}
		broken = false
		clear(used)
		for _, n := range list() {
			e.UseNetwork(n.Name)
		}
		for range 3 * len(names) {
			look()
		}
		settled(r, want, list(), s.Status().Notices)
		ids := fmt.Sprint(list())
		if look(); fmt.Sprint(list()) != ids {
			r.Fatalf("it goes on changing:\n%s\n%s", ids, fmt.Sprint(list()))
		}
	})
}

// settled checks that all is as declared, or that people are told why not.
func settled(r *rapid.T, want []swarm.Network, have []swarm.NetworkState, notices []string) {
	for _, h := range have {
		if swarm.Ours(h) && !slices.ContainsFunc(want, func(w swarm.Network) bool { return w.Name == h.Name }) {
			r.Errorf("network %s is still there", h.Name)
		}
	}
	for _, w := range want {
		told := slices.ContainsFunc(notices, func(n string) bool { return strings.Contains(n, "network "+w.Name+": ") })
		h, ok := overlay(have, w.Name)
		switch {
		case !ok, !swarm.Ours(h), len(swarm.Differs(w, h)) > 0:
			if !told {
				r.Errorf("network %+v is %+v, and nobody is told why", w, h)
			}
		}
	}
}

// TestRealNetworks does with a real engine what people do with networks.
func TestRealNetworks(t *testing.T) {
	lab := dockertest.New(t)
	real := lab.Engine("m1")
	cli := real.Client()
	e := swarm.DockerEngine(t, real.Host)
	if err := e.Init(t.Context(), swarm.Init{Advertise: real.Addr}); err != nil {
		t.Fatal(err)
	}
	var want []swarm.Network
	s := swarm.NewOn(swarm.Config{Networks: func() ([]swarm.Network, bool) { return want, true }, Log: discard()}, e)
	state := func(name string) (swarm.NetworkState, bool) {
		t.Helper()
		list, err := e.Networks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return overlay(list, name)
	}
	// look looks until what is declared is in force, and expects a notice, or
	// none if it is empty.
	look := func(notice string) {
		t.Helper()
		swarm.LookAtNetworks(t.Context(), s)
		until(t, "networks have addresses", func() bool {
			list, err := e.Networks(t.Context())
			return err == nil && !slices.ContainsFunc(list, func(n swarm.NetworkState) bool { return swarm.Ours(n) && n.Driver == "" })
		})
		swarm.LookAtNetworks(t.Context(), s)
		notices := s.Status().Notices
		if notice == "" && len(notices) > 0 || notice != "" && (len(notices) != 1 || !strings.Contains(notices[0], notice)) {
			t.Errorf("notices are %q, want %q", notices, notice)
		}
		for _, w := range want {
			if h, ok := state(w.Name); notice == "" && (!ok || !swarm.Ours(h) || len(swarm.Differs(w, h)) > 0) {
				t.Errorf("%+v is %+v: %v", w, h, swarm.Differs(w, h))
			}
		}
	}
	whole := swarm.Network{
		Name: "mynet", Encrypted: true, Attachable: true, MTU: 1400, Options: map[string]string{"foo": "bar"}, Labels: map[string]string{"tier": "front"},
		Subnets: []swarm.Subnet{
			{Prefix: netip.MustParsePrefix("10.20.0.0/24"), Gateway: netip.MustParseAddr("10.20.0.9"), Range: netip.MustParsePrefix("10.20.0.128/25")},
			{Prefix: netip.MustParsePrefix("10.21.0.0/24")},
		},
	}
	want = []swarm.Network{whole, {Name: "any"}, {Name: "inside", Internal: true}}
	look("")
	first, _ := state("mynet")
	look("")
	if again, _ := state("mynet"); again.ID != first.ID {
		t.Error("made anew without reason")
	}

	// Another subnet: nothing uses it, so it is made anew.
	whole.Subnets = prefix("10.22.0.0/24")
	want[0] = whole
	look("")
	if again, _ := state("mynet"); again.ID == first.ID {
		t.Error("still the old one")
	}

	// A service and a container use it.
	replicas := uint64(1)
	service, err := cli.ServiceCreate(t.Context(), dockerswarm.ServiceSpec{
		Annotations:  dockerswarm.Annotations{Name: "web"},
		Mode:         dockerswarm.ServiceMode{Replicated: &dockerswarm.ReplicatedService{Replicas: &replicas}},
		TaskTemplate: dockerswarm.TaskSpec{ContainerSpec: &dockerswarm.ContainerSpec{Image: "nothing"}, Networks: []dockerswarm.NetworkAttachmentConfig{{Target: "mynet"}}},
	}, dockerswarm.ServiceCreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	whole.Internal = true
	want[0] = whole
	look("internal is false and should be true); it has to be made anew, but cannot be removed: it is in use by service web; take it out")
	want = want[1:]
	look("network mynet is not declared any more, but cannot be removed: it is in use by service web")
	if err := cli.ServiceRemove(t.Context(), service.ID); err != nil {
		t.Fatal(err)
	}
	until(t, "the service is gone", func() bool {
		swarm.LookAtNetworks(t.Context(), s)
		_, ok := state("mynet")
		return !ok
	})
	look("")

	// Somebody else has the name, or the addresses.
	for _, o := range []struct{ name, driver, subnet, notice string }{
		{"theirs", "overlay", "10.30.0.0/24", "network theirs: a network of that name, which bootd did not make, is used as it is, although it differs: subnet is 10.30.0.0/24 and should be 10.40.0.0/24"},
		{"theirs", "bridge", "10.30.0.0/24", "is on the manager's engine alone"},
		{"other", "overlay", "10.40.0.0/25", "subnet 10.40.0.0/24 overlaps 10.40.0.0/25 of network other"},
	} {
		made, err := cli.NetworkCreate(t.Context(), o.name, network.CreateOptions{Driver: o.driver, IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: o.subnet}}}})
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the other network has addresses", func() bool {
			n, err := cli.NetworkInspect(t.Context(), made.ID, network.InspectOptions{})
			return err == nil && n.Driver != ""
		})
		want = []swarm.Network{{Name: "theirs", Subnets: prefix("10.40.0.0/24")}}
		look(o.notice)
		want = nil
		look("")
		if err := cli.NetworkRemove(t.Context(), made.ID); err != nil {
			t.Error("not left alone:", err)
		}
	}

	// A subnet that the ingress network has, made behind bootd's back.
	want = []swarm.Network{{Name: "late", Subnets: prefix("10.0.0.0/16")}}
	look("subnet 10.0.0.0/16 overlaps 10.0.0.0/24 of network ingress")
	want = []swarm.Network{{Name: "late", Subnets: prefix("10.50.0.0/16")}}
	look("")
	want = nil
	look("")
	list, err := e.Networks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(list, func(n swarm.NetworkState) bool { return !n.Local && !n.Ingress }); i >= 0 {
		t.Errorf("left over: %+v", list[i])
	}
}
