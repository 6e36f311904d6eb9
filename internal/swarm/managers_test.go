package swarm_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/swarm"
	"bootd/internal/swarm/dockertest"
)

// TestPlanManagers is about how many managers there are, when that is asked for.
func TestPlanManagers(t *testing.T) {
	mac3 := boot.MAC{0x52, 0x54, 0, 0, 0, 3}
	l := func(mac boot.MAC, more string) string { return "bootd.machine=" + mac.String() + " " + more }
	self := worker("self", "", manager, active)
	lost := worker("m", l(mac3, ""), active, manager, down(time.Minute))
	m1, m2 := machine(mac1, "a", told), machine(mac2, "b", told)
	promote := func(id string, mac boot.MAC, more string) []swarm.Action {
		return []swarm.Action{set(id, mac, swarm.Active, boot.Manager, l(mac, more+" bootd.promoted=yes"))}
	}
	for _, tt := range []struct {
		name     string
		managers int
		machines []swarm.Machine
		nodes    []swarm.Node
		want     []swarm.Action
	}{
		{"as the machines say", 0, []swarm.Machine{m1, m2}, []swarm.Node{self, worker("a", "@1", active), worker("b", "@2", active)}, nil},
		{"enough", 1, []swarm.Machine{m1}, []swarm.Node{self, worker("a", "@1", active)}, nil},
		{"too few: one at a time, by name", 3, []swarm.Machine{m1, m2}, []swarm.Node{self, worker("a", "@1", active), worker("b", "@2", active)},
			promote("a", mac1, "")},
		{"one of another rack first", 3, []swarm.Machine{m1, m2},
			[]swarm.Node{worker("self", "rack=r1", manager, active), worker("a", "@1 rack=r1", active), worker("b", "@2 rack=r2", active)},
			promote("b", mac2, "rack=r2")},
		{"the promoted one is not there yet", 3, []swarm.Machine{m1, m2},
			[]swarm.Node{self, worker("a", "@1 bootd.promoted=yes", active, func(n *swarm.Node) { n.Role = boot.Manager }), worker("b", "@2", active)}, nil},
		{"the promoted one does not become one", 3, []swarm.Machine{m1},
			[]swarm.Node{self, worker("a", "@1 bootd.promoted=yes", active, stalled)},
			[]swarm.Action{set("a", mac1, swarm.Active, boot.Worker, l(mac1, ""))}},
		{"nor one that should be by its profile", 0, []swarm.Machine{machine(mac1, "a", told, toManage)},
			[]swarm.Node{self, worker("a", "@1", active, stalled)},
			[]swarm.Action{set("a", mac1, swarm.Active, boot.Worker, l(mac1, ""))}},
		{"another one instead, in the meantime", 2, []swarm.Machine{m1, m2},
			[]swarm.Node{self, worker("a", "@1 bootd.promoted=yes", active, stalled), worker("b", "@2", active)},
			append([]swarm.Action{set("a", mac1, swarm.Active, boot.Worker, l(mac1, ""))}, promote("b", mac2, "")...)},
		{"it shall notice first that it was demoted", 3, []swarm.Machine{m1, machine(mac2, "b", told, toManage)},
			[]swarm.Node{self, worker("a", "@1", active, demoted(time.Second)), worker("b", "@2", active, demoted(time.Second))}, nil},
		{"it has noticed", 2, []swarm.Machine{m1}, []swarm.Node{self, worker("a", "@1", active, demoted(time.Minute))}, promote("a", mac1, "")},
		{"in place of a lost one", 3, []swarm.Machine{m1, m2},
			[]swarm.Node{self, lost, worker("a", "@1 bootd.promoted=yes", active, manager), worker("b", "@2", active)},
			promote("b", mac2, "")},
		{"enough again", 3, []swarm.Machine{m1, m2},
			[]swarm.Node{self, worker("a", "@1 bootd.promoted=yes", active, manager), worker("b", "@2 bootd.promoted=yes", active, manager)}, nil},
		{"a lost one is back: one too many", 3, []swarm.Machine{m1, m2, machine(mac3, "m", told, toManage)},
			[]swarm.Node{self, worker("m", l(mac3, ""), active, manager), worker("a", "@1 bootd.promoted=yes", active, manager), worker("b", "@2 bootd.promoted=yes", active, manager)},
			[]swarm.Action{set("b", mac2, swarm.Active, boot.Worker, l(mac2, ""))}},
		{"not asked for any more", 0, []swarm.Machine{m1},
			[]swarm.Node{self, worker("x", "", manager, active), worker("y", "", manager, active), worker("a", "@1 bootd.promoted=yes", active, manager)},
			[]swarm.Action{set("a", mac1, swarm.Active, boot.Worker, l(mac1, ""))}},
		{"a new leader has not heard of a manager yet", 3, []swarm.Machine{m1, machine(mac3, "m", told, toManage)},
			[]swarm.Node{self, worker("m", l(mac3, ""), active, manager, unknown), worker("a", "@1", active)}, nil},
		{"a drained one is not promoted", 3, []swarm.Machine{machine(mac1, "a", told, func(m *swarm.Machine) { m.Availability = swarm.Drain })},
			[]swarm.Node{self, worker("a", "@1 bootd.availability=drain")}, nil},
		{"one that is leaving is not promoted", 3, []swarm.Machine{machine(mac1, "a", told, left)}, []swarm.Node{self, worker("a", "@1")}, nil},
		{"strangers are not promoted", 3, nil, []swarm.Node{self, worker("a", "", active)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := swarm.Plan(tt.machines, tt.nodes, swarm.Policy{Grace: grace, Self: "self", Managers: tt.managers}, now)
			if d := cmp.Diff(tt.want, sparse(got, tt.want)); d != "" {
				t.Error(d)
			}
		})
	}
}

func stalled(n *swarm.Node) { n.Role, n.RoleSince = boot.Manager, now.Add(-2*time.Minute) }

func demoted(ago time.Duration) func(*swarm.Node) {
	return func(n *swarm.Node) { n.RoleSince = now.Add(-ago) }
}

// TestManagerLost: of three managers one, a machine, is lost; a worker takes its
// place until it is back.
func TestManagerLost(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.settings = func() swarm.Settings { return swarm.Settings{Managers: 3} }
		b.start()
		b.ready()
		j := b.join(boot.Worker)
		ids := map[string]string{}
		boots := func(mac boot.MAC, host, bootID string, r boot.Role) {
			t.Helper()
			ids[host] = w.boot(host, j)
			b.set(swarm.Machine{MAC: mac, Name: host, BootID: bootID, NodeID: ids[host], Role: r})
		}
		boots(mac1, "node1", "b1", boot.Manager)
		boots(mac2, "node2", "b2", boot.Manager)
		mac3 := boot.MAC{0x52, 0x54, 0, 0, 0, 3}
		manages := func(host string) bool {
			nodes, err := b.sw.Nodes(t.Context())
			for _, n := range nodes {
				if n.ID == ids[host] {
					return n.Role == boot.Manager
				}
			}
			return err != nil
		}
		b.until("both manage", func() bool { return manages("node1") && manages("node2") })
		boots(mac3, "node3", "b3", boot.Worker)
		b.until("node3 is ready", func() bool { return b.describe(ids["node3"]) == "node3 ready active" })
		if manages("node3") {
			t.Fatal("three were enough")
		}
		w.cut("node2")
		b.until("node3 takes the place of node2", func() bool { return manages("node3") })
		boots(mac2, "node2", "b4", boot.Manager)
		b.until("node2 manages again, and node3 no longer", func() bool { return manages("node2") && !manages("node3") })
	})
}

// TestRealManagers loses a manager of three real ones, refuses to lose another,
// and has one that is shut down demoted before it leaves.
func TestRealManagers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	w := newReal(t, dockertest.New(t))
	b := &bootd{t: t, w: w, grace: time.Second}
	var managers atomic.Int32
	b.settings = func() swarm.Settings {
		return swarm.Settings{Grace: time.Second, Managers: int(managers.Load())}
	}
	b.start()
	defer b.stop()
	b.ready()
	w.hurry()
	ids := map[string]string{}
	boots := func(mac boot.MAC, host, bootID string, r boot.Role) {
		t.Helper()
		ids[host] = w.boot(host, b.join(boot.Worker))
		b.set(swarm.Machine{MAC: mac, Name: host, BootID: bootID, NodeID: ids[host], Role: r})
	}
	state := func(host string) string {
		nodes, err := w.Nodes(t.Context())
		if err != nil {
			return err.Error()
		}
		for _, n := range nodes {
			if n.ID == ids[host] {
				return fmt.Sprintf("%s reachable=%t", n.Role, n.Manager && n.Reachable)
			}
		}
		return "gone"
	}
	is := func(host, want string) {
		t.Helper()
		b.until(host+" is "+want, func() bool { return state(host) == want })
	}
	const manages, works = "manager reachable=true", "worker reachable=false"
	boots(macs[0], "node1", "b1", boot.Manager)
	is("node1", manages)
	boots(macs[1], "node2", "b2", boot.Manager)
	is("node2", manages)
	boots(macs[2], "node3", "b3", boot.Worker)
	is("node3", works)

	// Two of three are left, of whom none may go.
	w.cut("node2")
	b.until("node2 is lost", func() bool { return state("node2") != manages })
	if _, err := b.sw.Remove(t.Context(), ids["node1"], true); !errors.Is(err, swarm.ErrRefused) {
		t.Errorf("the quorum is given away: %v", err)
	}
	// The worker takes the place of the one that is lost, and that goes.
	managers.Store(3)
	b.sw.Nudge()
	is("node3", manages)
	is("node2", "gone")
	// One of three is shut down.
	b.set(swarm.Machine{MAC: macs[0], Name: "node1", BootID: "b1", NodeID: ids["node1"], Role: boot.Manager, Ready: true, Left: true})
	if err := b.sw.Leave(t.Context(), macs[0], ids["node1"]); err != nil {
		t.Error(err)
	}
	is("node1", "gone")
	is("node3", manages)
}

// TestRealManagersTakeTurns: with real engines, two workers stand in for managers,
// make room for those that are to be managers, and stand in again when these are
// lost: one without a word, the other shut down.
func TestRealManagersTakeTurns(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	w := newReal(t, dockertest.New(t))
	b := &bootd{t: t, w: w, grace: time.Second}
	b.settings = func() swarm.Settings { return swarm.Settings{Grace: time.Second, Managers: 3} }
	b.start()
	defer b.stop()
	b.ready()
	w.hurry()
	ids := map[string]string{}
	mac := func(i int) boot.MAC { return boot.MAC{0x52, 0x54, 0, 0, 0, byte(i)} }
	machine := func(i int, r boot.Role, left bool) {
		host := fmt.Sprint("node", i)
		b.set(swarm.Machine{MAC: mac(i), Name: host, BootID: "b" + fmt.Sprint(i), NodeID: ids[host], Role: r, Left: left})
	}
	// managers waits until there are two beside the engine, these among them.
	managers := func(want ...string) {
		t.Helper()
		b.until("two manage, among them "+strings.Join(want, ", "), func() bool {
			nodes, err := w.Nodes(t.Context())
			var got []string
			for host, id := range ids {
				if slices.ContainsFunc(nodes, func(n swarm.Node) bool { return n.ID == id && n.Manager && n.Reachable && n.Role == boot.Manager }) {
					got = append(got, host)
				}
			}
			return err == nil && len(got) == 2 && !slices.ContainsFunc(want, func(host string) bool { return !slices.Contains(got, host) })
		})
	}
	for i := range 4 {
		ids[fmt.Sprint("node", i)] = w.boot(fmt.Sprint("node", i), b.join(boot.Worker))
		machine(i, boot.Worker, false)
	}
	managers()
	machine(2, boot.Manager, false)
	machine(3, boot.Manager, false)
	managers("node2", "node3")
	w.cut("node3")
	b.until("node3 is gone", func() bool { return b.describe(ids["node3"]) == "gone" })
	managers("node2") // and one that it is not too soon for
	machine(2, boot.Manager, true)
	if err := b.sw.Leave(t.Context(), mac(2), ids["node2"]); err != nil {
		t.Error(err)
	}
	w.leave("node2")
	w.cut("node2")
	managers("node0", "node1")
}

func TestRotation(t *testing.T) {
	made := now.Add(-time.Hour)
	joined := func(d time.Duration) []swarm.Node { return []swarm.Node{{Created: now.Add(-d)}} }
	booting := []swarm.Machine{{MAC: mac1, BootID: "b", Started: now.Add(-time.Minute)}}
	stuck := []swarm.Machine{{MAC: mac1, BootID: "b", Started: now.Add(-time.Hour)}}
	waves, daily, hourly := swarm.Rotation{AfterJoins: true}, swarm.Rotation{Age: 24 * time.Hour}, swarm.Rotation{Age: 50 * time.Minute}
	for _, tt := range []struct {
		name     string
		r        swarm.Rotation
		nodes    []swarm.Node
		machines []swarm.Machine
		want     bool
	}{
		{"never", swarm.Rotation{}, joined(10 * time.Minute), nil, false},
		{"nobody has joined since", waves, joined(2 * time.Hour), nil, false},
		{"a wave is over", waves, joined(10 * time.Minute), nil, true},
		{"a wave is on", waves, joined(time.Minute), nil, false},
		{"another machine is on its way", waves, joined(10 * time.Minute), booting, false},
		{"one that got stuck is not waited for", waves, joined(10 * time.Minute), stuck, true},
		{"not old enough", daily, joined(10 * time.Minute), nil, false},
		{"old", hourly, nil, nil, true},
		{"old, but machines are on their way", hourly, nil, booting, false},
		{"much too old", swarm.Rotation{Age: 40 * time.Minute}, nil, booting, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if why, got := swarm.Due(tt.r, made, tt.nodes, tt.machines, now); got != tt.want || got != (why != "") {
				t.Errorf("%t %q", got, why)
			}
		})
	}
}

// TestRotationByAge: the tokens are replaced while the swarm is kept, also by a
// process that was started later.
func TestRotationByAge(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.settings = func() swarm.Settings { return swarm.Settings{Rotation: swarm.Rotation{Age: time.Hour}} }
		b.start()
		b.ready()
		j := b.join(boot.Worker)
		time.Sleep(50 * time.Minute)
		if b.join(boot.Worker) != j {
			t.Fatal("rotated too soon")
		}
		b.stop()
		b.start()
		b.ready()
		time.Sleep(11 * time.Minute)
		next := b.join(boot.Worker)
		if next == j {
			t.Fatal("not rotated")
		}
		time.Sleep(30 * time.Minute)
		if b.join(boot.Worker) != next {
			t.Error("rotated again at once")
		}
	})
}
