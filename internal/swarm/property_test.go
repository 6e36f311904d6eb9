package swarm_test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bootd/boot"
	"bootd/internal/swarm"
)

// TestPlanProperties plans and carries out, again and again, from states that
// nobody thought of. Whatever they are, it comes to rest, and on the way never
// touches what is not bootd's, never removes a node that is not down, and
// never gives up a quorum.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t)
		machines := drawMachines(t)
		policy := swarm.Policy{Grace: grace, Self: "n0", SelfAvailability: drawAvailability(t)}
		for round := 0; ; round++ {
			beforeN, beforeM := clone(nodes), slices.Clone(machines)
			actions := swarm.Plan(machines, nodes, policy, now)
			if diff := cmp.Diff(beforeN, nodes) + cmp.Diff(beforeM, machines); diff != "" {
				t.Fatalf("planning changed what it was given: %s", diff)
			}
			mixed := rapid.Permutation(nodes).Draw(t, "order")
			if diff := cmp.Diff(actions, swarm.Plan(machines, mixed, policy, now)); diff != "" {
				t.Fatalf("the order of nodes matters: %s", diff)
			}
			actions = slices.DeleteFunc(actions, func(a swarm.Action) bool { _, keep := a.(swarm.Keep); return keep })
			if len(actions) == 0 {
				return
			}
			// Each node needs at most a mark, a demotion and a removal, and
			// there is one demotion at a time.
			if round > 3*len(beforeN)+3 {
				t.Fatalf("no rest after %d rounds: %+v", round, actions)
			}
			for _, a := range actions {
				check(t, a, machines, nodes, policy)
			}
			nodes, machines = apply(actions, nodes, machines)
		}
	})
}

func drawAvailability(t *rapid.T) swarm.Availability {
	return rapid.SampledFrom([]swarm.Availability{"", swarm.Active, swarm.Pause, swarm.Drain}).Draw(t, "availability")
}

func drawLabels(t *rapid.T) map[string]string {
	keys := rapid.SampledFrom([]string{"tier", "rack", "a,b", "a%2Cb", "", "bootd.labels", "bootd.x"})
	return rapid.MapOfN(keys, rapid.SampledFrom([]string{"", "1", "2", "tier,rack"}), 0, 3).Draw(t, "labels")
}

var macs = []boot.MAC{mac1, mac2, {0x52, 0x54, 0, 0, 0, 3}}

func drawNodes(t *rapid.T) []swarm.Node {
	var nodes []swarm.Node
	for i := range rapid.IntRange(0, 7).Draw(t, "nodes") {
		n := worker(fmt.Sprintf("n%d", i), "")
		n.Labels = drawLabels(t)
		if rapid.Bool().Draw(t, "owned") {
			n.Labels["bootd.machine"] = rapid.SampledFrom(macs).Draw(t, "owner").String()
		}
		if rapid.IntRange(0, 5).Draw(t, "remove") == 0 {
			n.Labels["bootd.remove"] = "a reason"
		}
		n.Availability = rapid.SampledFrom([]swarm.Availability{swarm.Active, swarm.Pause, swarm.Drain}).Draw(t, "is")
		n.State = rapid.SampledFrom([]swarm.NodeState{
			swarm.NodeReady, swarm.NodeDown, swarm.NodeUnknown, swarm.NodeDisconnected,
		}).Draw(t, "state")
		if rapid.Bool().Draw(t, "old") {
			n.Created = now.Add(-time.Hour)
		}
		if n.State == swarm.NodeDown {
			n.DownSince = now.Add(-time.Duration(rapid.IntRange(0, 10).Draw(t, "down")) * time.Minute)
		}
		if rapid.Bool().Draw(t, "manager") {
			manager(&n)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func drawMachines(t *rapid.T) []swarm.Machine {
	var machines []swarm.Machine
	for i := range rapid.IntRange(0, 4).Draw(t, "machines") {
		m := machine(rapid.SampledFrom(macs).Draw(t, "mac"), "")
		m.Started = m.Started.Add(-time.Duration(i) * time.Second)
		m.BootID = fmt.Sprint("boot", i)
		m.NodeID = rapid.SampledFrom([]string{"", "n0", "n1", "n2", "n3", "n4", "gone"}).Draw(t, "reports")
		m.Labels = drawLabels(t)
		m.Availability = drawAvailability(t)
		m.Role = rapid.SampledFrom([]boot.Role{"", boot.Worker, boot.Manager}).Draw(t, "role")
		m.Left = rapid.IntRange(0, 5).Draw(t, "left") == 0
		m.Ready = rapid.Bool().Draw(t, "told")
		machines = append(machines, m)
	}
	return machines
}

func clone(nodes []swarm.Node) []swarm.Node {
	out := slices.Clone(nodes)
	for i := range out {
		out[i].Labels = maps.Clone(out[i].Labels)
	}
	return out
}

func find(nodes []swarm.Node, id string) *swarm.Node {
	if i := slices.IndexFunc(nodes, func(n swarm.Node) bool { return n.ID == id }); i >= 0 {
		return &nodes[i]
	}
	return nil
}

// check holds one action against the state that it was planned for.
func check(t *rapid.T, a swarm.Action, machines []swarm.Machine, nodes []swarm.Node, policy swarm.Policy) {
	switch a := a.(type) {
	case swarm.Remove:
		n := find(nodes, a.Node)
		if n.State != swarm.NodeDown || n.Role == boot.Manager || n.Manager || n.Labels["bootd.machine"] != a.MAC.String() {
			t.Fatalf("%+v removes %+v", a, n)
		}
	case swarm.Report:
		if n := find(nodes, a.Node); n.State != swarm.NodeReady || n.Labels["bootd.machine"] != a.MAC.String() {
			t.Fatalf("%+v tells of %+v", a, n)
		}
	case swarm.Set:
		n := find(nodes, a.Node)
		if a.Version != n.Version {
			t.Fatalf("%+v is for another version of %+v", a, n)
		}
		if a.Node == policy.Self {
			n.Availability = a.Spec.Availability // nothing else may change
			if diff := cmp.Diff(n.Spec, a.Spec); diff != "" {
				t.Fatalf("the manager's own node is changed: %s", diff)
			}
			return
		}
		checkSet(t, a, n, machines, nodes)
	}
}

func checkSet(t *rapid.T, a swarm.Set, n *swarm.Node, machines []swarm.Machine, nodes []swarm.Node) {
	mac := a.MAC.String()
	owner, owned := n.Labels["bootd.machine"]
	reported := slices.ContainsFunc(machines, func(m swarm.Machine) bool { return m.NodeID == n.ID && m.MAC == a.MAC })
	if owned && owner != mac || !owned && !reported || a.Spec.Labels["bootd.machine"] != mac {
		t.Fatalf("%+v changes the stranger %+v", a, n)
	}
	ours := strings.Split(n.Labels["bootd.labels"], ",")
	for k, v := range n.Labels {
		configured := slices.ContainsFunc(machines, func(m swarm.Machine) bool { _, ok := m.Labels[k]; return ok && m.MAC == a.MAC })
		byHand := !configured && !strings.HasPrefix(k, "bootd.") && !slices.Contains(ours, url.QueryEscape(k))
		if byHand && a.Spec.Labels[k] != v {
			t.Fatalf("label %q of %+v, set by hand, is lost: %+v", k, n, a)
		}
	}
	if n.Role == boot.Manager && a.Spec.Role == boot.Worker {
		others, reachable := 0, 0
		for _, o := range nodes {
			if o.Manager && o.ID != n.ID {
				others++
				if o.Reachable {
					reachable++
				}
			}
		}
		if 2*reachable <= others {
			t.Fatalf("%+v leaves %d of %d managers", a, reachable, others)
		}
	}
}

// apply does to the state what the swarm would do.
func apply(actions []swarm.Action, nodes []swarm.Node, machines []swarm.Machine) ([]swarm.Node, []swarm.Machine) {
	nodes, machines = clone(nodes), slices.Clone(machines)
	for _, a := range actions {
		switch a := a.(type) {
		case swarm.Remove:
			nodes = slices.DeleteFunc(nodes, func(n swarm.Node) bool { return n.ID == a.Node })
		case swarm.Report:
			for i := range machines {
				machines[i].Ready = machines[i].Ready || machines[i].BootID == a.BootID
			}
		case swarm.Set:
			n := find(nodes, a.Node)
			n.Spec = a.Spec
			n.Version++
			n.Manager = n.Role == boot.Manager
			n.Reachable = n.Manager && n.State == swarm.NodeReady
		}
	}
	return nodes, machines
}
