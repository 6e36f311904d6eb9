package fleet_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bootd/internal/fleet"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const grace = 10 * time.Minute

// at is a node that works; changes make another of it.
func at(id string, kind fleet.NodeType, change ...func(*fleet.NodeLook)) fleet.NodeLook {
	n := fleet.NodeLook{
		Node:     fleet.Node{VM: fleet.VMID(id), Type: kind, Made: noon.Add(-time.Hour), On: noon.Add(-time.Hour)},
		Standing: fleet.Standing{Up: true, Live: true}, State: fleet.VMStarted, Host: "h1",
	}
	for _, f := range change {
		f(&n)
	}
	return n
}

func addr(ip string) func(*fleet.NodeLook) {
	return func(n *fleet.NodeLook) { n.Addr = netip.MustParseAddr(ip) }
}

func state(s fleet.VMState) func(*fleet.NodeLook) {
	return func(n *fleet.NodeLook) { n.State, n.Up = s, false }
}

func down(for_ time.Duration) func(*fleet.NodeLook) {
	return func(n *fleet.NodeLook) {
		n.Up, n.Since, n.Why = false, noon.Add(-for_), "the swarm has not heard of it"
	}
}

func tasks(n int) func(*fleet.NodeLook) { return func(l *fleet.NodeLook) { l.Tasks = n } }
func host(h string) func(*fleet.NodeLook) {
	return func(l *fleet.NodeLook) { l.Host = fleet.HostID(h) }
}
func leaving(n *fleet.NodeLook) { n.Leaving = true }
func young(n *fleet.NodeLook)   { n.Made = noon.Add(-time.Minute) }
func switchedOn(ago time.Duration) func(*fleet.NodeLook) {
	return func(n *fleet.NodeLook) { n.On, n.Up, n.Since = noon.Add(-ago), false, time.Time{} }
}

func away(for_ time.Duration, live bool) func(*fleet.NodeLook) {
	return func(n *fleet.NodeLook) { n.Away, n.Live = noon.Add(-for_), live }
}

func TestSettle(t *testing.T) {
	const manager, worker = fleet.SwarmEtcd, fleet.SwarmWorker
	roles := func(workers int, managers ...string) []fleet.Role {
		r := fleet.Role{Node: manager, Prefix: "etcd", Count: len(managers)}
		for _, m := range managers {
			r.Addrs = append(r.Addrs, netip.MustParseAddr(m))
		}
		return []fleet.Role{r, {Node: worker, Prefix: "worker", Count: workers}}
	}
	m1 := at("m1", manager, addr("10.0.0.11"))
	for name, c := range map[string]struct {
		roles []fleet.Role
		nodes []fleet.NodeLook
		want  []string
	}{
		"new":            {roles(2, "10.0.0.11", "10.0.0.12"), nil, []string{"make etcd 10.0.0.11", "make etcd 10.0.0.12", "make worker", "make worker"}},
		"all is well":    {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker)}, nil},
		"one more":       {roles(2, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker)}, []string{"make worker"}},
		"one less":       {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, tasks(3)), at("w2", worker, tasks(1))}, []string{"drain w2: the cluster is to have fewer"}},
		"none":           {roles(0, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker)}, []string{"drain w1: the cluster is to have fewer"}},
		"going on":       {roles(2, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, state(fleet.VMCreating))}, []string{"raise w1", "make worker"}},
		"switched off":   {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, state(fleet.VMStopped))}, []string{"raise w1"}},
		"coming up":      {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, switchedOn(9*time.Minute))}, []string{"raise w1"}},
		"did not":        {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, switchedOn(11*time.Minute))}, []string{"remove w1: it is not up", "make worker"}},
		"short break":    {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, down(9*time.Minute))}, []string{"raise w1"}},
		"dead":           {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, down(11*time.Minute))}, []string{"remove w1: the swarm has not heard of it", "make worker"}},
		"lost":           {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, state(fleet.VMError), func(n *fleet.NodeLook) { n.Fault = "its host was removed" })}, []string{"remove w1: its host was removed", "make worker"}},
		"gone":           {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, state(fleet.VMDeleted))}, []string{"remove w1: its VM is gone", "make worker"}},
		"leaving":        {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, leaving)}, []string{"drain w1: it is leaving", "make worker"}},
		"lost, leaving":  {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, leaving, state(fleet.VMError))}, []string{"remove w1: its VM is in state ERROR", "make worker"}},
		"host away":      {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, away(11*time.Minute, false))}, []string{"remove w1: it is not up", "make worker"}},
		"only the host":  {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, away(time.Hour, true))}, nil},
		"off and away":   {roles(1, "10.0.0.11"), []fleet.NodeLook{m1, at("w1", worker, state(fleet.VMStopped), away(11*time.Minute, false))}, []string{"remove w1: its host does not answer", "make worker"}},
		"manager lost":   {roles(0, "10.0.0.11"), []fleet.NodeLook{at("m1", manager, addr("10.0.0.11"), state(fleet.VMError))}, []string{"remove m1: its VM is in state ERROR"}},
		"and removed":    {roles(0, "10.0.0.11"), nil, []string{"make etcd 10.0.0.11"}},
		"one of three":   {roles(0, "10.0.0.11", "10.0.0.12", "10.0.0.13"), []fleet.NodeLook{m1, at("m3", manager, addr("10.0.0.13"))}, []string{"make etcd 10.0.0.12"}},
		"twice":          {roles(0, "10.0.0.11"), []fleet.NodeLook{at("m2", manager, addr("10.0.0.11"), young), m1}, []string{"drain m2: no node is to have address 10.0.0.11, or another one has it"}},
		"another's role": {roles(0, "10.0.0.11")[:1], []fleet.NodeLook{m1, at("w1", worker, state(fleet.VMError))}, nil},
	} {
		got := fleet.Settle(c.roles, c.nodes, noon, grace)
		var lines []string
		for _, r := range got.Remove {
			verb := "remove"
			if r.Drain {
				verb = "drain"
			}
			lines = append(lines, fmt.Sprintf("%s %s: %s", verb, r.VM, r.Why))
		}
		for _, id := range got.Raise {
			lines = append(lines, "raise "+string(id))
		}
		for _, v := range got.Make {
			text := "make " + v.Role.Prefix
			if v.Addr.IsValid() {
				text += " " + v.Addr.String()
			}
			lines = append(lines, text)
		}
		if d := cmp.Diff(c.want, lines); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if got.None() != (len(lines) == 0) {
			t.Errorf("%s: None is %v", name, got.None())
		}
	}
}

func TestSpare(t *testing.T) {
	const worker = fleet.SwarmWorker
	for name, c := range map[string]struct {
		nodes []fleet.NodeLook
		count int
		want  []fleet.VMID
	}{
		"none":                   {[]fleet.NodeLook{at("a", worker)}, 0, nil},
		"less than none":         {[]fleet.NodeLook{at("a", worker)}, -3, nil},
		"all":                    {[]fleet.NodeLook{at("a", worker)}, 5, []fleet.VMID{"a"}},
		"the one that is off":    {[]fleet.NodeLook{at("a", worker), at("b", worker, state(fleet.VMStopped), tasks(9)), at("c", worker, down(time.Minute))}, 1, []fleet.VMID{"b"}},
		"then who is not up":     {[]fleet.NodeLook{at("a", worker), at("b", worker, state(fleet.VMStopped)), at("c", worker, down(time.Minute))}, 2, []fleet.VMID{"b", "c"}},
		"then with fewest tasks": {[]fleet.NodeLook{at("a", worker, tasks(2)), at("b", worker, tasks(1)), at("c", worker, tasks(3))}, 2, []fleet.VMID{"b", "a"}},
		"of the fullest host":    {[]fleet.NodeLook{at("a", worker, host("x"), young), at("b", worker, host("y")), at("c", worker, host("y"))}, 1, []fleet.VMID{"c"}},
		"and so on":              {[]fleet.NodeLook{at("a", worker, host("x")), at("b", worker, host("x")), at("c", worker, host("x")), at("d", worker, host("y")), at("e", worker, host("y"))}, 3, []fleet.VMID{"c", "e", "b"}},
		"the youngest":           {[]fleet.NodeLook{at("a", worker), at("b", worker, young), at("c", worker)}, 1, []fleet.VMID{"b"}},
	} {
		if d := cmp.Diff(c.want, fleet.Spare(c.nodes, c.count)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestClusterFlavors(t *testing.T) {
	all, err := fleet.ClusterFlavors()
	if err != nil || len(all) != 3 {
		t.Fatal(len(all), err)
	}
	for _, f := range all {
		if err := f.Check(true); err != nil || f.Usable() != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}

// TestSettleComesToAnEnd: whatever there is, doing what Settle says leads to exactly
// the nodes that are wanted, in few rounds, and no address is ever given twice. What
// works and is wanted stays.
func TestSettleComesToAnEnd(t *testing.T) {
	states := []fleet.VMState{fleet.VMCreating, fleet.VMStarted, fleet.VMStopped, fleet.VMSuspended, fleet.VMError, fleet.VMDeleted}
	managers := []netip.Addr{netip.MustParseAddr("10.0.0.11"), netip.MustParseAddr("10.0.0.12"), netip.MustParseAddr("10.0.0.13")}
	rapid.Check(t, func(t *rapid.T) {
		addrs := managers[:rapid.IntRange(1, 3).Draw(t, "managers")]
		roles := []fleet.Role{{Node: fleet.SwarmEtcd, Prefix: "etcd", Count: len(addrs), Addrs: addrs},
			{Node: fleet.SwarmWorker, Prefix: "worker", Count: rapid.IntRange(0, 5).Draw(t, "workers")}}
		var nodes []fleet.NodeLook
		free := append([]netip.Addr{netip.MustParseAddr("10.0.0.99")}, managers...)
		for i := range rapid.IntRange(0, 8).Draw(t, "nodes") {
			n := at(fmt.Sprint("n", i), fleet.SwarmWorker, state(rapid.SampledFrom(states).Draw(t, "state")), host(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "host")))
			n.Up, n.Leaving = rapid.Bool().Draw(t, "up"), rapid.Bool().Draw(t, "leaving")
			n.Tasks = rapid.IntRange(0, 3).Draw(t, "tasks")
			n.On = noon.Add(-time.Duration(rapid.IntRange(0, 20).Draw(t, "on")) * time.Minute)
			if len(free) > 0 && rapid.Bool().Draw(t, "manager") {
				n.Type, n.Addr, free = fleet.SwarmEtcd, free[0], free[1:]
			}
			nodes = append(nodes, n)
		}
		before := slices.Clone(nodes)
		made := 0
		for round := 0; ; round++ {
			if round > 4 {
				t.Fatalf("there is always more to do: %+v", nodes)
			}
			todo := fleet.Settle(roles, nodes, noon, grace)
			if todo.None() {
				break
			}
			for _, r := range todo.Remove {
				i := slices.IndexFunc(before, func(n fleet.NodeLook) bool { return n.VM == r.VM })
				if n := before[i]; n.Works() && !n.Leaving && n.Type == fleet.SwarmEtcd && slices.Contains(addrs, n.Addr) {
					t.Fatalf("a manager that works is removed: %s", r.Why)
				}
				nodes = slices.DeleteFunc(nodes, func(n fleet.NodeLook) bool { return n.VM == r.VM })
			}
			for i := range nodes {
				if slices.Contains(todo.Raise, nodes[i].VM) {
					nodes[i].State, nodes[i].Up = fleet.VMStarted, true
				}
			}
			for _, v := range todo.Make {
				if slices.ContainsFunc(nodes, func(n fleet.NodeLook) bool { return v.Addr.IsValid() && n.Addr == v.Addr }) {
					t.Fatalf("%s is given twice", v.Addr)
				}
				made++
				n := at(fmt.Sprint("made", made), v.Role.Node)
				n.Addr = v.Addr
				nodes, before = append(nodes, n), append(before, n)
			}
		}
		count := map[fleet.NodeType]int{}
		for _, n := range nodes {
			if count[n.Type]++; !n.Works() {
				t.Fatalf("%+v does not work", n)
			}
		}
		if count[fleet.SwarmEtcd] != len(addrs) || count[fleet.SwarmWorker] != roles[1].Count {
			t.Fatalf("there are %v", count)
		}
	})
}
