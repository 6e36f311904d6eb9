package swarm_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/swarm"
	"bootd/internal/swarm/dockertest"
)

func nameless(n *swarm.Node) { n.Hostname = "" }

// TestPlanStrangers is about nodes that bootd did not boot: they are left alone,
// unless the configuration says otherwise.
func TestPlanStrangers(t *testing.T) {
	wish := map[string]swarm.Wish{"h-a": {Labels: map[string]string{"disk": "ssd", "bootd.machine": "x"}, Availability: swarm.Pause}}
	self := worker("self", "", manager, active)
	for _, tt := range []struct {
		name   string
		node   swarm.Node
		policy swarm.Policy
		want   []swarm.Action
	}{
		{"left alone", worker("a", "x=1", active), swarm.Policy{}, nil},
		{"down for long, left alone", worker("a", "", active, down(grace+1)), swarm.Policy{}, nil},
		{"down for long, to be removed", worker("a", "", active, down(grace+1)), swarm.Policy{RemoveStrangers: true},
			[]swarm.Action{swarm.Remove{Node: "a", Hostname: "h-a", Reason: "h-a, which bootd did not boot, has been down for more than 5m0s"}}},
		{"not down for long", worker("a", "", active, down(grace-1)), swarm.Policy{RemoveStrangers: true}, nil},
		{"a manager is not removed", worker("a", "", active, manager, down(grace+1)), swarm.Policy{RemoveStrangers: true},
			[]swarm.Action{swarm.Keep{Node: "a", Why: "demote it first"}}},
		{"joined and never heard of", worker("a", "", old, unknown, nameless), swarm.Policy{},
			[]swarm.Action{swarm.Remove{Node: "a", Reason: "it joined and was never heard of again"}}},
		{"never heard of by a new leader", worker("a", "", active, down(0), nameless), swarm.Policy{},
			[]swarm.Action{swarm.Remove{Node: "a", Reason: "it joined and was never heard of again"}}},
		{"joined just now, by a leader whose clock is behind", worker("a", "", unknown, nameless, func(n *swarm.Node) { n.Created = now.Add(-time.Hour) }), swarm.Policy{}, nil},
		{"joined just now", worker("a", "", unknown, nameless), swarm.Policy{}, nil},
		{"a new leader has not heard of it yet", worker("a", "", old, unknown), swarm.Policy{}, nil},
		{"labels and availability are declared", worker("a", "x=1", active), swarm.Policy{Wishes: wish},
			[]swarm.Action{set("a", boot.MAC{}, swarm.Pause, boot.Worker, "x=1 disk=ssd bootd.wished=disk")}},
		{"as declared", worker("a", "x=1 disk=ssd bootd.wished=disk", func(n *swarm.Node) { n.Availability = swarm.Pause }), swarm.Policy{Wishes: wish}, nil},
		{"not declared any more", worker("a", "x=1 disk=ssd bootd.wished=disk", active), swarm.Policy{},
			[]swarm.Action{set("a", boot.MAC{}, swarm.Active, boot.Worker, "x=1")}},
		{"the manager's own labels", worker("self", "", manager, active, func(n *swarm.Node) { n.Hostname = "h-a" }), swarm.Policy{Wishes: wish},
			[]swarm.Action{swarm.Set{Node: "self", Version: 7, Spec: swarm.Spec{Labels: labels("disk=ssd bootd.wished=disk"), Availability: swarm.Pause, Role: boot.Manager}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.policy.Grace, tt.policy.Self = grace, "self"
			nodes := []swarm.Node{tt.node}
			if tt.node.ID != "self" {
				nodes = append(nodes, self)
			}
			if d := cmp.Diff(tt.want, sparse(swarm.Plan(nil, nodes, tt.policy, now), tt.want)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestMoved is about what a node that is shut down waits for.
func TestMoved(t *testing.T) {
	on := func(node string, slot int, change ...func(*swarm.Task)) swarm.Task {
		k := swarm.Task{Service: "web", Slot: slot, Node: node, Running: true, Up: true, Wanted: true}
		for _, f := range change {
			f(&k)
		}
		return k
	}
	stopping := func(k *swarm.Task) { k.Wanted = false }
	gone := func(k *swarm.Task) { k.Running, k.Up, k.Wanted = false, false, false }
	starting := func(k *swarm.Task) { k.Up = false }
	stuck := func(k *swarm.Task) { k.Running, k.Up, k.Stuck = false, false, true }
	for _, c := range []struct {
		name  string
		tasks []swarm.Task
		want  swarm.Moving
	}{
		{"nothing there", []swarm.Task{on("b", 1)}, swarm.Moving{}},
		{"not begun", []swarm.Task{on("a", 1), on("b", 2)}, swarm.Moving{Here: 1}},
		{"being stopped", []swarm.Task{on("a", 1, stopping), on("", 1, starting)}, swarm.Moving{Here: 1, Starting: 1}},
		{"starting elsewhere", []swarm.Task{on("a", 1, gone), on("b", 1, starting)}, swarm.Moving{Starting: 1}},
		{"runs elsewhere", []swarm.Task{on("a", 1, gone), on("b", 1)}, swarm.Moving{}},
		{"no other node can take it", []swarm.Task{on("a", 1, gone), on("", 1, stuck)}, swarm.Moving{Stuck: 1}},
		{"scaled down meanwhile", []swarm.Task{on("a", 1, gone)}, swarm.Moving{}},
		{"a global one is not replaced", []swarm.Task{on("a", 0, gone), on("b", 0)}, swarm.Moving{}},
		{"a global one is waited for", []swarm.Task{on("a", 0, stopping), on("b", 0, starting)}, swarm.Moving{Here: 1}},
		{"it was here long ago", []swarm.Task{on("a", 1, gone), on("b", 1, gone), on("c", 1)}, swarm.Moving{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := swarm.Moved(c.tasks, "a"); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestFind(t *testing.T) {
	nodes := []swarm.NodeStatus{
		{ID: "abcd1111", Hostname: "node1", Machine: "node1"},
		{ID: "abcd2222", Hostname: "node1", State: swarm.NodeDown}, // a stranger of that name
		{ID: "efgh3333", Hostname: "other"},
		{ID: "other", Hostname: "x"},
	}
	for ref, want := range map[string]string{
		"abcd1111": "abcd1111", "efgh": "efgh3333", "OTHER": "efgh3333", "other": "other", "x": "other",
		"node1": "several nodes are meant", "abcd": "several nodes are meant", "efg": "no such node", "": "no such node", "nobody": "no such node",
	} {
		n, err := swarm.Find(nodes, ref)
		if got := n.ID; err == nil && got != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v; want %s", ref, got, err, want)
		}
	}
}

// TestLeave: a machine that is shut down is waited for and is gone at once;
// nobody sees its node down.
func TestLeave(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		j := b.join(boot.Worker)
		node1, node2 := w.boot("node1", j), w.boot("node2", j)
		b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: node1})
		b.set(swarm.Machine{MAC: mac2, Name: "node2", BootID: "b2", NodeID: node2})
		b.await("mac=..:01 ready node1: node " + node1 + " ready")
		b.await("mac=..:02 ready node2: node " + node2 + " ready")
		w.SetTasks(node1, 3)

		b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: node1, Ready: true, Left: true})
		if err := b.sw.Leave(t.Context(), mac1, node1); err != nil {
			t.Error(err)
		}
		if got := b.describe(node1); got != "gone" {
			t.Errorf("node1 is still there: %s", got)
		}
		b.await("mac=..:01 removed node1: node " + node1 + " removed: node1 left the swarm")
		if err := b.sw.Leave(t.Context(), mac1, node1); err != nil {
			t.Errorf("a second time: %v", err)
		}

		// Nobody can have another machine's node removed by calling it his own.
		began := time.Now()
		if err := b.sw.Leave(t.Context(), mac1, node2); err != nil || time.Since(began) > time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		b.node("node2 ready active", node2)

		// The last one has nowhere to move its tasks to, and does not wait long.
		w.SetTasks(node2, 2)
		byHand(t, w, managerOf(t, b), func(s *swarm.Spec) { s.Availability = swarm.Drain })
		b.set(swarm.Machine{MAC: mac2, Name: "node2", BootID: "b2", NodeID: node2, Ready: true, Left: true})
		began = time.Now()
		err := b.sw.Leave(t.Context(), mac2, node2)
		if err == nil || !strings.Contains(err.Error(), "no other node can take 2 task(s)") || time.Since(began) > 10*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if c := b.sw.Counters(); c.Removals["left"] != 2 || c.Drains < 2 {
			t.Errorf("counters %+v", c)
		}
	})
}

func managerOf(t *testing.T, b *bootd) string {
	t.Helper()
	return b.sw.Status().Node
}

// TestOperations is what an operator does, to an engine in memory.
func TestOperations(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		j := b.join(boot.Worker)
		node1, stranger := w.boot("node1", j), w.boot("stranger", j)
		b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: node1})
		b.await("mac=..:01 ready node1: node " + node1 + " ready")

		if err := b.sw.RotateTokens(t.Context()); err != nil {
			t.Fatal(err)
		}
		if again := b.join(boot.Worker); again.Token == j.Token {
			t.Error("the token is what it was")
		}
		if err := b.sw.SetAvailability(t.Context(), stranger, swarm.Pause); err != nil {
			t.Error(err)
		}
		b.node("stranger ready pause", stranger)
		if err := b.sw.SetAvailability(t.Context(), "nobody", swarm.Pause); !errors.Is(err, swarm.ErrNoNode) {
			t.Errorf("of nobody: %v", err)
		}
		for id, force := range map[string]bool{stranger: false, b.sw.Status().Node: true} {
			if _, err := b.sw.Remove(t.Context(), id, force); !errors.Is(err, swarm.ErrRefused) {
				t.Errorf("remove %s, force %t: %v", id, force, err)
			}
		}
		w.cut("node1")
		w.cut("stranger")
		b.until("both are down", func() bool {
			return strings.Contains(b.describe(node1), "down") && strings.Contains(b.describe(stranger), "down")
		})
		for _, dry := range []bool{true, false} {
			list, err := b.sw.Prune(t.Context(), dry)
			if err != nil || len(list) != 2 {
				t.Fatalf("prune, dry run %t: %+v, %v", dry, list, err)
			}
			for _, r := range list {
				if kept := r.Node.ID == stranger; r.Kept != kept || r.Why == "" {
					t.Errorf("prune, dry run %t: %+v", dry, r)
				}
			}
			if there := b.describe(node1) != "gone"; there != dry {
				t.Errorf("prune, dry run %t: node1 is there: %t", dry, there)
			}
		}
		if _, err := b.sw.Remove(t.Context(), stranger, false); err != nil {
			t.Error(err)
		}
		if b.describe(stranger) != "gone" {
			t.Error("the stranger is still there")
		}
		if c := b.sw.Counters(); c.Removals["operator"] != 2 || c.Rotations != 1 {
			t.Errorf("counters %+v", c)
		}
	})
}

// TestRealOperations is the same to real engines, as far as they matter.
func TestRealOperations(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	w := newReal(t, dockertest.New(t))
	b := &bootd{t: t, w: w}
	b.start()
	defer b.stop()
	b.ready()
	j := b.join(boot.Worker)
	node1 := w.boot("node1", j)
	b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: node1})
	b.await("mac=..:01 ready node1: node " + node1 + " ready")
	if err := b.sw.RotateTokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := b.join(boot.Worker)
	if again.Token == j.Token {
		t.Error("the token is what it was")
	}
	b.node("node1 ready active", node1)

	// Shut down: nobody ever sees it down.
	b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: node1, Ready: true, Left: true})
	if err := b.sw.Leave(t.Context(), mac1, node1); err != nil {
		t.Error(err)
	}
	nodes, err := w.Nodes(t.Context())
	if err != nil || slices.ContainsFunc(nodes, func(n swarm.Node) bool { return n.ID == node1 }) {
		t.Errorf("after its leaving: %+v, %v", nodes, err)
	}
	// The engine that was taken out can leave by itself, and join anew.
	w.leave("node1")
	next := w.boot("node1", again)
	b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b2", NodeID: next})
	b.await("mac=..:01 ready node1: node " + next + " ready")
}
