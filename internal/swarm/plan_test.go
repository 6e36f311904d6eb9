package swarm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/swarm"
)

var now = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

const grace = 5 * time.Minute

// labels reads "a=1 b=2"; @1 stands for bootd's label of the machine with MAC
// mac1, @2 for mac2.
func labels(s string) map[string]string {
	out := map[string]string{}
	for f := range strings.FieldsSeq(s) {
		k, v, _ := strings.Cut(f, "=")
		switch k {
		case "@1":
			k, v = "bootd.machine", mac1.String()
		case "@2":
			k, v = "bootd.machine", mac2.String()
		}
		out[k] = v
	}
	return out
}

// A node as tests begin with: ready, joined ten seconds ago, drained.
func worker(id, l string, change ...func(*swarm.Node)) swarm.Node {
	n := swarm.Node{
		ID: id, Version: 7, Hostname: "h-" + id, State: swarm.NodeReady, Created: now.Add(-10 * time.Second), Seen: now.Add(-9 * time.Second),
		Spec: swarm.Spec{Labels: labels(l), Availability: swarm.Drain, Role: boot.Worker},
	}
	for _, f := range change {
		f(&n)
	}
	return n
}

func down(d time.Duration) func(*swarm.Node) {
	return func(n *swarm.Node) {
		n.State, n.DownSince, n.Created, n.Seen, n.Reachable = swarm.NodeDown, now.Add(-d), now.Add(-time.Hour), now.Add(-time.Hour), false
	}
}

func active(n *swarm.Node)  { n.Availability = swarm.Active }
func old(n *swarm.Node)     { n.Created, n.Seen = now.Add(-time.Hour), now.Add(-time.Hour) }
func unknown(n *swarm.Node) { n.State = swarm.NodeUnknown }
func manager(n *swarm.Node) {
	n.Role, n.Manager, n.Reachable = boot.Manager, true, n.State == swarm.NodeReady
}

// A machine as tests begin with: booting for half a minute.
func machine(mac boot.MAC, node string, change ...func(*swarm.Machine)) swarm.Machine {
	m := swarm.Machine{
		MAC: mac, Name: "node" + mac.String()[16:], BootID: "boot-" + node, Started: now.Add(-30 * time.Second), NodeID: node,
	}
	for _, f := range change {
		f(&m)
	}
	return m
}

func tier(v string) func(*swarm.Machine) {
	return func(m *swarm.Machine) { m.Labels = map[string]string{"tier": v} }
}
func left(m *swarm.Machine)     { m.Left = true }
func told(m *swarm.Machine)     { m.Ready = true }
func toManage(m *swarm.Machine) { m.Role = boot.Manager }
func pausing(m *swarm.Machine)  { m.Availability = swarm.Pause }

func set(node string, mac boot.MAC, a swarm.Availability, r boot.Role, l string) swarm.Set {
	return swarm.Set{Node: node, Version: 7, MAC: mac, Spec: swarm.Spec{Labels: labels(l), Availability: a, Role: r}}
}

func remove(node string, mac boot.MAC, reason string) swarm.Remove {
	return swarm.Remove{Node: node, Hostname: "h-" + node, MAC: mac, Reason: reason}
}

func TestPlan(t *testing.T) {
	type (
		ms = []swarm.Machine
		ns = []swarm.Node
		as = []swarm.Action
	)
	const w, m = boot.Worker, boot.Manager
	others := func(list ...swarm.Node) ns {
		return append(list, worker("x", "", manager, active), worker("y", "", manager, active))
	}
	for _, tt := range []struct {
		name     string
		machines ms
		nodes    ns
		want     as // Keep: the text is a part of what is said
	}{
		{"nothing", nil, nil, nil},
		{"a machine that has not joined", ms{machine(mac1, "")}, nil, nil},
		{"a machine whose node is not there", ms{machine(mac1, "a")}, nil, nil},
		{"joined: labels and active in one update",
			ms{machine(mac1, "a", tier("front"))}, ns{worker("a", "")},
			as{set("a", mac1, swarm.Active, w, "@1 bootd.labels=tier tier=front")}},
		{"joined: no labels",
			ms{machine(mac1, "a")}, ns{worker("a", "")},
			as{set("a", mac1, swarm.Active, w, "@1")}},
		{"joined: to be paused",
			ms{machine(mac1, "a", pausing)}, ns{worker("a", "")},
			as{set("a", mac1, swarm.Pause, w, "@1 bootd.availability=pause")}},
		{"joined as a worker, is to manage",
			ms{machine(mac1, "a", toManage)}, ns{worker("a", "")},
			as{set("a", mac1, swarm.Active, m, "@1")}},
		{"labels with bootd's prefix are not for the configuration",
			ms{machine(mac1, "a", func(m *swarm.Machine) { m.Labels = labels("bootd.machine=x bootd.y=z a=1") })}, ns{worker("a", "")},
			as{set("a", mac1, swarm.Active, w, "@1 bootd.labels=a a=1")}},

		{"ready is told", ms{machine(mac1, "a", tier("front"))}, ns{worker("a", "@1 bootd.labels=tier tier=front", active)},
			as{swarm.Report{Node: "a", MAC: mac1, BootID: "boot-a", Text: "node a ready, labels tier=front"}}},
		{"ready is told once", ms{machine(mac1, "a", told)}, ns{worker("a", "@1", active)}, nil},
		{"not ready yet", ms{machine(mac1, "a")}, ns{worker("a", "@1", active, unknown)}, nil},
		{"a manager is ready when it is reachable",
			ms{machine(mac1, "a", toManage)}, ns{worker("a", "@1", active, manager, func(n *swarm.Node) { n.Reachable = false })}, nil},
		{"a manager that is reachable",
			ms{machine(mac1, "a", toManage)}, ns{worker("a", "@1", active, manager)},
			as{swarm.Report{Node: "a", MAC: mac1, BootID: "boot-a", Text: "node a ready"}}},
		{"drained by hand stays so", ms{machine(mac1, "a", told)}, ns{worker("a", "@1")}, nil},
		{"an availability that is configured is kept",
			ms{machine(mac1, "a", told, pausing)}, ns{worker("a", "@1 bootd.availability=pause", active)},
			as{set("a", mac1, swarm.Pause, w, "@1 bootd.availability=pause")}},
		{"an availability that is configured no more",
			ms{machine(mac1, "a", told)}, ns{worker("a", "@1 bootd.availability=drain")},
			as{set("a", mac1, swarm.Active, w, "@1")}},

		{"a label changes", ms{machine(mac1, "a", told, tier("back"))}, ns{worker("a", "@1 bootd.labels=tier tier=front", active)},
			as{set("a", mac1, swarm.Active, w, "@1 bootd.labels=tier tier=back")}},
		{"a label goes, one set by hand stays",
			ms{machine(mac1, "a", told)}, ns{worker("a", "@1 bootd.labels=rack,tier tier=front rack=r1 color=red", active)},
			as{set("a", mac1, swarm.Active, w, "@1 color=red")}},
		{"a label removed by hand comes back",
			ms{machine(mac1, "a", told, tier("front"))}, ns{worker("a", "@1 bootd.labels=tier", active)},
			as{set("a", mac1, swarm.Active, w, "@1 bootd.labels=tier tier=front")}},
		{"the list of labels cannot name bootd's own",
			ms{machine(mac1, "a", told)}, ns{worker("a", "@1 bootd.labels=bootd.other,tier tier=1 bootd.other=2", active)},
			as{set("a", mac1, swarm.Active, w, "@1 bootd.other=2")}},
		{"a label with a comma in its name goes",
			ms{machine(mac1, "a", told)}, ns{worker("a", "@1 bootd.labels=x%2Cy x,y=1 x=2 y=3", active)},
			as{set("a", mac1, swarm.Active, w, "@1 x=2 y=3")}},
		{"a label with a comma in its name comes, one without a name does not",
			ms{machine(mac1, "a", told, func(m *swarm.Machine) { m.Labels = map[string]string{"x,y": "1", "": "2"} })},
			ns{worker("a", "@1", active)},
			as{set("a", mac1, swarm.Active, w, "@1 bootd.labels=x%2Cy x,y=1")}},
		{"a label while the state is unknown",
			ms{machine(mac1, "a", told, tier("back"))}, ns{worker("a", "@1", active, unknown)},
			as{set("a", mac1, swarm.Active, w, "@1 bootd.labels=tier tier=back")}},
		{"bootd has lost its state: the label tells",
			ms{machine(mac1, "", tier("back"))}, ns{worker("a", "@1", active, old)},
			as{set("a", mac1, swarm.Active, w, "@1 bootd.labels=tier tier=back")}},
		{"a node by label alone is not told as ready", ms{machine(mac1, "")}, ns{worker("a", "@1", active, old)}, nil},
		{"a machine that is configured no more", nil, ns{worker("a", "@1 bootd.labels=tier tier=front", active)}, nil},

		{"strangers", ms{machine(mac1, "")}, ns{worker("a", ""), worker("b", "tier=x", down(time.Hour)), worker("c", "bootd.machine=junk", down(time.Hour))}, nil},
		{"the same host name proves nothing",
			ms{machine(mac1, "", func(m *swarm.Machine) { m.Name = "h-a" })}, ns{worker("a", "", down(time.Hour))}, nil},
		{"a node that is older than the boot",
			ms{machine(mac1, "a")}, ns{worker("a", "", old)},
			as{swarm.Keep{Node: "a", Why: "joined before that machine booted"}}},
		{"two machines report one node",
			ms{machine(mac1, "a"), machine(mac2, "a")}, ns{worker("a", "")},
			as{swarm.Keep{Node: "a", Why: "both report"}}},
		{"a machine reports another's node",
			ms{machine(mac1, "a", told), machine(mac2, "a")}, ns{worker("a", "@1", active)},
			as{swarm.Keep{Node: "a", Why: "52:54:00:00:00:02) reports the ID of a node that is machine 52:54:00:00:00:01"}}},
		{"a machine reports the manager's own node",
			ms{machine(mac1, "self")}, ns{worker("self", "", manager, active)},
			as{swarm.Keep{Node: "self", Why: "manager's own node"}}},
		{"the latest boot of a machine counts",
			ms{machine(mac1, "b"), machine(mac1, "a", func(m *swarm.Machine) { m.Started = m.Started.Add(-time.Hour) })},
			ns{worker("a", ""), worker("b", "@1", active)},
			as{swarm.Report{Node: "b", MAC: mac1, BootID: "boot-b", Text: "node b ready"}}},

		{"down for a short time", ms{machine(mac1, "a", told)}, ns{worker("a", "@1", down(grace))}, nil},
		{"down for longer than the grace period", ms{machine(mac1, "a", told)}, ns{worker("a", "@1", down(grace+1))},
			as{remove("a", mac1, "node1 has been down for more than 5m0s")}},
		{"down, of a machine that nobody knows", nil, ns{worker("a", "@1", down(grace+1))},
			as{remove("a", mac1, "52:54:00:00:00:01 has been down for more than 5m0s")}},
		{"down since nobody knows when", nil, ns{worker("a", "@1", down(0), func(n *swarm.Node) { n.DownSince = time.Time{} })}, nil},
		{"down, its labels wait", ms{machine(mac1, "a", told, tier("back"))}, ns{worker("a", "@1", down(0))}, nil},
		{"down before it was labelled: marked first",
			ms{machine(mac1, "a", tier("front"))}, ns{worker("a", "", down(0), func(n *swarm.Node) { n.Created = now })},
			as{set("a", mac1, swarm.Drain, w, "@1 bootd.labels=tier tier=front")}},
		{"unknown for long is not down", nil, ns{worker("a", "@1", down(time.Hour), unknown)}, nil},
		{"booting again: the predecessor has its grace", ms{machine(mac1, "")}, ns{worker("a", "@1", down(0))}, nil},
		{"joined again: the predecessor goes once the new node is marked",
			ms{machine(mac1, "b")}, ns{worker("a", "@1", down(0)), worker("b", "")},
			as{set("b", mac1, swarm.Active, w, "@1")}},
		{"joined again: the predecessor goes at once",
			ms{machine(mac1, "b", told)}, ns{worker("a", "@1", down(0)), worker("b", "@1", active)},
			as{remove("a", mac1, "node1 booted again and is node b now")}},
		{"joined again: all predecessors go", ms{machine(mac1, "z", told)},
			ns{worker("a", "@1", down(0)), worker("b", "@1", down(0)), worker("z", "@1", active), worker("c", "@2", down(0))},
			as{remove("a", mac1, "node1 booted again and is node z now"), remove("b", mac1, "node1 booted again and is node z now")}},
		{"joined again: the swarm has not noticed yet",
			ms{machine(mac1, "b", told)}, ns{worker("a", "@1", active), worker("b", "@1", active)}, nil},
		{"says that it joined again with another's node",
			ms{machine(mac1, "b"), machine(mac2, "b", told)}, ns{worker("a", "@1", down(0)), worker("b", "@2", active)},
			as{swarm.Keep{Node: "b", Why: "reports the ID of a node that is machine"}}},
		{"left and down", ms{machine(mac1, "a", told, left)}, ns{worker("a", "@1", down(0))},
			as{remove("a", mac1, "node1 left the swarm")}},
		{"about to leave: drained", ms{machine(mac1, "a", left, tier("front"))}, ns{worker("a", "@1 color=red", active)},
			as{set("a", mac1, swarm.Drain, w, "@1 color=red")}},
		{"left and not down yet, drained: not touched", ms{machine(mac1, "a", left, tier("front"))}, ns{worker("a", "@1")}, nil},

		{"a manager is demoted before it is removed", nil, others(worker("a", "@1", active, down(grace+1), manager)),
			as{set("a", mac1, swarm.Active, w, "@1 bootd.remove=52:54:00:00:00:01_has_been_down_for_more_than_5m0s")}},
		{"the others let a demoted manager go", nil,
			others(worker("a", "@1 bootd.remove=why", down(0), func(n *swarm.Node) { n.Manager = true })), nil},
		{"a demoted manager is removed", nil, others(worker("a", "@1 bootd.remove=why", down(0))), as{remove("a", mac1, "why")}},
		{"a demoted manager that is back is not removed", nil, others(worker("a", "@1 bootd.remove=why", active)),
			as{set("a", mac1, swarm.Active, w, "@1")}},
		{"a demoted manager that is back manages again",
			ms{machine(mac1, "a", told, toManage)}, others(worker("a", "@1 bootd.remove=why", active)),
			as{set("a", mac1, swarm.Active, m, "@1")}},
		{"a quorum is not given up",
			nil, ns{worker("a", "@1", down(grace+1), manager), worker("b", "@2", down(grace+1), manager), worker("self", "", manager, active)},
			as{swarm.Keep{Node: "a", Why: "of the other 2 managers 1 are reachable and 2 must be"},
				swarm.Keep{Node: "b", Why: "of the other 2 managers 1 are reachable and 2 must be"}}},
		{"the last manager", ms{machine(mac1, "a", told)}, ns{worker("a", "@1", active, manager)},
			as{swarm.Keep{Node: "a", Why: "of the other 0 managers 0 are reachable and 1 must be"}}},
		{"one demotion at a time",
			ms{machine(mac1, "a", told), machine(mac2, "b", told)}, others(worker("a", "@1", active, manager), worker("b", "@2", active, manager)),
			as{set("a", mac1, swarm.Active, w, "@1")}},
		{"a manager that is promoted while it is not ready waits",
			ms{machine(mac1, "a", told, toManage)}, ns{worker("a", "@1", active, unknown)}, nil},

		{"the manager's own availability", nil, ns{worker("self", "", manager, active, func(n *swarm.Node) { n.Availability = swarm.Pause })},
			as{swarm.Set{Node: "self", Version: 7, Spec: swarm.Spec{Labels: labels(""), Availability: swarm.Active, Role: m}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := swarm.Plan(tt.machines, tt.nodes, swarm.Policy{Grace: grace, Self: "self", SelfAvailability: swarm.Active}, now)
			if diff := cmp.Diff(tt.want, sparse(got, tt.want)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// sparse leaves out the texts of actions that the tests do not spell out.
func sparse(got, want []swarm.Action) []swarm.Action {
	var out []swarm.Action
	for i, a := range got {
		switch v := a.(type) {
		case swarm.Set:
			v.Why = ""
			if r, ok := v.Spec.Labels["bootd.remove"]; ok {
				v.Spec.Labels["bootd.remove"] = strings.ReplaceAll(r, " ", "_")
			}
			a = v
		case swarm.Keep:
			if i < len(want) {
				if k, ok := want[i].(swarm.Keep); ok && strings.Contains(v.Why, k.Why) {
					v.Why = k.Why
				}
			}
			a = v
		}
		out = append(out, a)
	}
	return out
}

// BenchmarkPlan is a look at a large swarm in which all is well.
func BenchmarkPlan(b *testing.B) {
	var nodes []swarm.Node
	var machines []swarm.Machine
	for i := range 10_000 {
		mac := boot.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)}
		id := mac.Hyphens()
		machines = append(machines, machine(mac, id, told, tier("front")))
		nodes = append(nodes, worker(id, "bootd.machine="+mac.String()+" bootd.labels=tier tier=front", active))
	}
	policy := swarm.Policy{Grace: grace, Self: "self"}
	for b.Loop() {
		if len(swarm.Plan(machines, nodes, policy, now)) != 0 {
			b.Fatal("there is something to do")
		}
	}
}
