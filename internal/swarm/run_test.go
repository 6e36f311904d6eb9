package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bootd/boot"
	"bootd/internal/swarm"
	"bootd/internal/swarm/swarmtest"
)

// simulate runs f in simulated time, with a manager at 10.99.0.1.
func simulate(t *testing.T, f func(t *testing.T, w *simulated, b *bootd)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &simulated{t: t, Engine: swarmtest.New("10.99.0.1"), ids: map[string]string{}}
		b := &bootd{t: t, w: w}
		defer b.stop()
		f(t, w, b)
	})
}

// wrapped is a world in which bootd talks to the engine through something.
type wrapped struct {
	*simulated
	through swarm.Engine
}

func (w *wrapped) open(cfg swarm.Config) *swarm.Swarm { return swarm.NewOn(cfg, w.through) }

func (b *bootd) ready() {
	b.t.Helper()
	b.until("the swarm is ready", func() bool { return b.sw.Status().Phase == swarm.Ready })
}

// blocked checks what is shown and said while the swarm is not ready.
func (b *bootd) blocked(text string) {
	b.t.Helper()
	b.until(text, func() bool { return strings.Contains(b.sw.Status().Text, text) })
	if s := b.sw.Status(); s.Phase != swarm.Waiting {
		b.t.Errorf("status = %+v", s)
	}
}

func (b *bootd) noToken(text string) {
	b.t.Helper()
	j, err := b.sw.Join(b.t.Context(), boot.Worker)
	if !errors.Is(err, swarm.ErrNotReady) || !strings.Contains(err.Error(), text) {
		b.t.Errorf("Join: %v, %v; want ErrNotReady because of %s", j, err, text)
	}
	if _, err := b.sw.Nodes(b.t.Context()); !errors.Is(err, swarm.ErrNotReady) || !strings.Contains(err.Error(), text) {
		b.t.Errorf("Nodes: %v; want ErrNotReady because of %s", err, text)
	}
}

func TestNoEngineAtFirst(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		w.Stop()
		b.start()
		b.blocked("is it running")
		b.noToken("is it running")
		time.Sleep(time.Hour)
		w.Start()
		begin := time.Now()
		b.ready()
		if took := time.Since(begin); took > 12*time.Second {
			t.Errorf("noticed after %s that the engine had come", took)
		}
		b.join("")
	})
}

func TestEngineGoes(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		time.Sleep(time.Minute + time.Second)
		w.Stop()
		begin := time.Now()
		b.blocked("is it running")
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("noticed after %s that the engine had gone", took)
		}
	})
}

// stopping is an engine that says that it is in no swarm, and knows better
// when it is to make one.
type stopping struct {
	*swarmtest.Engine
	until time.Time
}

func (s stopping) Info(ctx context.Context) (swarm.Info, error) {
	if time.Now().Before(s.until) {
		return swarm.Info{State: swarm.Inactive}, nil
	}
	return s.Engine.Info(ctx)
}

func TestEngineDeniesItsSwarm(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		if err := w.Init(t.Context(), swarm.Init{}); err != nil {
			t.Fatal(err)
		}
		before, err := w.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.w = &wrapped{w, stopping{w.Engine, time.Now().Add(10 * time.Second)}}
		b.start()
		for range 5 {
			time.Sleep(time.Second)
			b.noToken("") // in particular no token of a swarm that is none
			if text := b.sw.Status().Text; strings.Contains(text, "already") {
				t.Errorf("status: %s", text)
			}
		}
		b.ready()
		if after := b.sw.Status().Swarm; after != before.Swarm {
			t.Errorf("swarm %s, was %s", after, before.Swarm)
		}
	})
}

func TestWorkerOfAnotherSwarm(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		w.BecomeWorker()
		b.start()
		b.blocked("worker of another swarm")
		b.noToken("docker swarm leave")
		time.Sleep(time.Hour)
		if i, err := w.Info(t.Context()); err != nil || i.Manager {
			t.Errorf("the engine was changed: %+v, %v", i, err)
		}
		w.Leave() // as told
		b.ready()
		b.join(boot.Worker)
	})
}

func TestSwarmTurnsIntoAnother(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		b.join(boot.Worker)
		w.BecomeWorker()
		b.blocked("worker of another swarm")
		b.noToken("worker of another swarm") // and not the tokens of before
	})
}

func TestLostQuorum(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		id := w.boot("node1", b.join(boot.Manager))
		w.cut("node1")
		b.blocked("docker swarm init --force-new-cluster")
		w.Resume(id)
		b.ready()
	})
}

func TestTokensRotate(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		before := b.join(boot.Worker)
		w.Rotate()
		time.Sleep(time.Second)
		after := b.join(boot.Worker)
		if after == before {
			t.Error("still the old token, a second after it was replaced")
		}
		if _, err := w.Join(after, "node1", swarm.Drain); err != nil {
			t.Error(err)
		}
	})
}

func TestOldTokensAreForgotten(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		before := b.join(boot.Worker)
		w.Stop()
		time.Sleep(time.Minute)
		if b.join(boot.Worker) != before {
			t.Error("a restart of the engine changes the token")
		}
		time.Sleep(10 * time.Minute)
		b.noToken("is it running")
	})
}

func TestJoinRole(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		if _, err := b.sw.Join(t.Context(), "leader"); err == nil || errors.Is(err, swarm.ErrNotReady) {
			t.Errorf("Join as leader: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.sw.Join(ctx, boot.Worker); !errors.Is(err, context.Canceled) {
			t.Errorf("Join by somebody who has gone: %v", err)
		}
	})
}

// hung is an engine that accepts questions and never answers.
type hung struct{ *swarmtest.Engine }

func (hung) Info(ctx context.Context) (swarm.Info, error) {
	<-ctx.Done()
	return swarm.Info{}, ctx.Err()
}

func TestHungEngine(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.w = &wrapped{w, hung{w.Engine}}
		b.start()
		begin := time.Now()
		if _, err := b.sw.Join(t.Context(), boot.Worker); !errors.Is(err, swarm.ErrNotReady) {
			t.Errorf("Join: %v", err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("a machine had to wait for %s", took)
		}
		b.blocked("does not answer")
	})
}

// TestReadyOncePerBoot restarts bootd when the Ready event has been recorded,
// and reboots the machine.
func TestReadyOncePerBoot(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		node := w.boot("node1", b.join(boot.Worker))
		b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: node})
		b.await("mac=..:01 ready node1: node " + node + " ready")
		w.Silence(node)
		time.Sleep(time.Minute)
		w.Resume(node)
		time.Sleep(time.Minute)
		b.stop()
		b.start()
		time.Sleep(time.Minute)
		if got := b.kinds(); len(got) != 1 {
			t.Errorf("events: %q, want one", got)
		}
	})
}

// TestFlapping cuts a node off for shorter than the grace period, many times.
func TestFlapping(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		node := w.boot("node1", b.join(boot.Worker))
		b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: node})
		for range 20 {
			w.Silence(node)
			time.Sleep(swarm.DefaultGrace)
			w.Resume(node)
			time.Sleep(time.Second)
		}
		b.node("node1 ready active", node)
		w.Silence(node)
		time.Sleep(swarm.DefaultGrace + time.Minute)
		b.node("gone", node)
		b.await("mac=..:01 removed node1: node " + node + " removed: node1 has been down for more than 5m0s")
	})
}

// TestManagers loses one of three managers, which is removed, and then one of
// the remaining two, which cannot be.
func TestManagers(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.grace = 20 * time.Second
		b.start()
		b.ready()
		var ids []string
		for i, mac := range []boot.MAC{mac1, mac2} {
			name := fmt.Sprint("node", i+1)
			ids = append(ids, w.boot(name, b.join(boot.Worker)))
			b.set(swarm.Machine{MAC: mac, Name: name, BootID: name, NodeID: ids[i], Role: boot.Manager})
		}
		b.until("both are managers", func() bool { return len(b.kinds()) == 2 })
		w.cut("node1")
		b.until("the lost one is gone", func() bool { return b.describe(ids[0]) == "gone" })
		w.cut("node2") // the other one is needed
		time.Sleep(time.Hour)
		b.blocked("no leader")
	})
}

// rival changes a node by hand just before bootd does, five times.
type rival struct {
	*swarmtest.Engine
	t     *testing.T
	times int
}

func (r *rival) SetNode(ctx context.Context, id string, version uint64, s swarm.Spec) error {
	if r.times++; r.times <= 5 {
		byHand(r.t, r.Engine, id, func(s *swarm.Spec) { s.Labels[fmt.Sprint("rival", r.times)] = "was here" })
	}
	return r.Engine.SetNode(ctx, id, version, s)
}

func TestConflicts(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		r := &rival{Engine: w.Engine, t: t}
		b.w = &wrapped{w, r}
		b.start()
		b.ready()
		node := w.boot("node1", b.join(boot.Worker))
		begin := time.Now()
		b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: node, Labels: map[string]string{"tier": "x"}})
		b.await("mac=..:01 ready node1: node " + node + " ready, labels tier=x")
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("five conflicts took %s", took)
		}
		if s := b.shown(); strings.Contains(s, "not as it should be") {
			t.Errorf("a conflict is shown to people:\n%s", s)
		}
		b.node("node1 ready active rival1=was here,rival2=was here,rival3=was here,rival4=was here,rival5=was here,tier=x", node)
	})
}

// mortal is an engine whose user is killed after each change that it makes:
// the change is done, and nothing comes of it.
type mortal struct {
	*swarmtest.Engine
	die func()
}

func (m *mortal) SetNode(ctx context.Context, id string, version uint64, s swarm.Spec) error {
	defer m.die()
	return m.Engine.SetNode(ctx, id, version, s)
}

func (m *mortal) RemoveNode(ctx context.Context, id string) error {
	defer m.die()
	return m.Engine.RemoveNode(ctx, id)
}

func (m *mortal) Init(ctx context.Context, o swarm.Init) error {
	defer m.die()
	return m.Engine.Init(ctx, o)
}

// TestKilledBetweenEffects kills bootd after every single change that it makes,
// and lets another one, which remembers nothing, go on.
func TestKilledBetweenEffects(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, _ *bootd) {
		deaths := 0
		machines := []swarm.Machine{}
		var ready []string
		live := func(limit time.Duration) {
			for end := time.Now().Add(limit); time.Now().Before(end); {
				ctx, cancel := context.WithDeadline(t.Context(), end)
				s := swarm.NewOn(swarm.Config{
					Log: discard(), Grace: 20 * time.Second,
					Machines: func() []swarm.Machine { return slices.Clone(machines) },
					Record: func(ev boot.Event) {
						if ev.Stage == boot.Ready {
							ready = append(ready, ev.Node)
							for i := range machines {
								machines[i].Ready = machines[i].Ready || machines[i].MAC == ev.MAC
							}
						}
					},
				}, &mortal{w.Engine, func() { deaths++; cancel() }})
				if err := s.Run(ctx); err != nil {
					t.Error(err)
				}
				cancel()
			}
		}
		live(time.Second)
		i, err := w.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		worker := swarm.JoinInfo{Addr: i.Addr, Token: i.Tokens[boot.Worker]}
		for k, mac := range macs {
			name := fmt.Sprint("node", k+1)
			machines = append(machines, swarm.Machine{
				MAC: mac, Name: name, BootID: name, NodeID: w.boot(name, worker), Started: time.Now(),
				Labels: map[string]string{"name": name}, Role: []boot.Role{boot.Manager, boot.Manager, boot.Worker}[k],
			})
		}
		live(5 * time.Second)
		if len(ready) != 3 {
			t.Fatalf("ready: %q", ready)
		}
		// node1, a manager, is gone for good; node3 boots again.
		w.cut("node1")
		w.cut("node3")
		machines[2].NodeID, machines[2].BootID, machines[2].Ready = w.boot("node3", worker), "again", false
		live(time.Minute)
		nodes, err := w.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range nodes {
			got = append(got, fmt.Sprint(n.Hostname, n.State, n.Availability, n.Role, n.Labels["name"]))
		}
		want := []string{"managerreadyactivemanager", "node2readyactivemanagernode2", "node3readyactiveworkernode3"}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("nodes: %q, want %q", got, want)
		}
		// Init, three marks, node3's new mark; a demotion and a removal, and
		// the removal of node3's predecessor.
		if deaths < 8 || len(ready) != 4 {
			t.Errorf("killed %d times, ready: %q", deaths, ready)
		}
	})
}

// TestRack joins fifty machines at once.
func TestRack(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		begin := time.Now()
		for i := range 50 {
			name := fmt.Sprintf("blade%02d", i)
			node := w.boot(name, b.join(boot.Worker))
			b.set(swarm.Machine{MAC: boot.MAC{2, 0, 0, 0, 1, byte(i)}, Name: name, BootID: name, NodeID: node})
		}
		b.until("all are ready", func() bool { return len(b.kinds()) == 50 })
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestNodesAndNotices(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		b.start()
		b.ready()
		w.SetTasks(w.boot("node1", b.join(boot.Worker)), 2)
		b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: w.ids["node1"]})
		b.await("mac=..:01 ready node1: node " + w.ids["node1"] + " ready")
		nodes, err := b.sw.Nodes(t.Context())
		if err != nil || len(nodes) != 2 {
			t.Fatalf("%+v, %v", nodes, err)
		}
		if n := nodes[0]; n.Hostname != "manager" || !n.Self || !n.Leader || n.Machine != "" || n.Role != boot.Manager {
			t.Errorf("first node: %+v", n)
		}
		if n := nodes[1]; n.Machine != "node1" || n.MAC != mac1 || n.Self || n.Tasks != 2 || len(n.Labels) != 0 || n.Role != boot.Worker {
			t.Errorf("second node: %+v", n)
		}
		// A machine that claims another's node is shown, until it stops.
		b.set(swarm.Machine{MAC: mac2, Name: "node2", BootID: "b2", NodeID: w.ids["node1"]})
		b.until("it is shown", func() bool { return len(b.sw.Status().Notices) == 1 })
		if n := b.sw.Status().Notices[0]; !strings.Contains(n, mac2.String()) {
			t.Errorf("notice: %s", n)
		}
		b.unset(mac2)
		b.until("it is shown no more", func() bool { return len(b.sw.Status().Notices) == 0 })
	})
}
