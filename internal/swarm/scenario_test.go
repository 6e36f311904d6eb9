package swarm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bootd/boot"
	"bootd/internal/swarm"
	"bootd/internal/swarm/dockertest"
	"bootd/internal/swarm/swarmtest"

	dockerswarm "github.com/docker/docker/api/types/swarm"
)

// A world is where a scenario takes place: in memory, or on real engines.
type world interface {
	swarm.Engine // of the manager, for what people do by hand
	config() swarm.Config
	open(swarm.Config) *swarm.Swarm
	// boot starts a diskless host, new to the swarm, that joins drained; it
	// returns the node's ID.
	boot(host string, j swarm.JoinInfo) string
	cut(host string)         // cuts the power of a host
	leave(host string)       // docker swarm leave, on the host
	hurry()                  // makes nodes go down sooner, where that takes real time
	restartManager(d func()) // calls d while the manager's engine is down
}

// limit is how long something may take until it is seen.
const limit = 5 * time.Minute

func TestSwarm(t *testing.T) {
	t.Run("simulated", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			scenario(t, &simulated{t: t, Engine: swarmtest.New("10.99.0.1"), ids: map[string]string{}})
		})
	})
	t.Run("real", func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes half a minute")
		}
		lab := dockertest.New(t)
		scenario(t, newReal(t, lab))
	})
}

// scenario is the life of a small swarm.
func scenario(t *testing.T, w world) {
	b := &bootd{t: t, w: w}
	b.start()
	defer b.stop()

	// There is no swarm: one is made.
	b.until("the swarm is ready", func() bool { return b.sw.Status().Phase == swarm.Ready })
	status := b.sw.Status()
	if status.Text != "" || status.Swarm == "" || status.Addr != "10.99.0.1:2377" {
		t.Fatalf("status = %+v", status)
	}
	w.hurry()
	j := b.join(boot.Worker)
	if m := b.join(boot.Manager); m.Token == j.Token || m.Addr != j.Addr {
		t.Errorf("manager joins with %+v, worker with %+v", m, j)
	}

	// A stranger that takes the name of a machine is left alone throughout.
	stranger := w.boot("node1", j)
	conform(t, w, stranger)

	// Two machines boot. They are drained until they have their labels.
	node1, node2 := w.boot("node1", j), w.boot("node2", j)
	b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: node1, Labels: map[string]string{"tier": "frontend"}})
	b.set(swarm.Machine{MAC: mac2, Name: "node2", BootID: "b2", NodeID: node2, Availability: swarm.Pause})
	b.await("mac=..:01 ready node1: node " + node1 + " ready, labels tier=frontend")
	b.await("mac=..:02 ready node2: node " + node2 + " ready")
	b.node("node1 ready active tier=frontend", node1)
	b.node("node2 ready pause", node2)
	b.node("node1 ready drain", stranger)

	// Labels follow the configuration; what people did by hand stays.
	byHand(t, w, node1, func(s *swarm.Spec) { s.Labels["color"] = "red"; s.Availability = swarm.Drain })
	b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b1", NodeID: node1, Ready: true, Labels: map[string]string{"rack": "r1"}})
	b.until("labels have changed", func() bool { return b.describe(node1) == "node1 ready drain color=red,rack=r1" })

	// The manager's engine restarts. Machines that boot meanwhile get the
	// token that was known.
	w.restartManager(func() {
		if again := b.join(boot.Worker); again != j {
			t.Errorf("while the engine is down: %+v, want %+v", again, j)
		}
		b.until("trouble is shown", func() bool { return b.sw.Status().Phase == swarm.Waiting })
	})
	b.until("the swarm is ready again", func() bool { return b.sw.Status().Phase == swarm.Ready })
	if again := b.sw.Status().Swarm; again != status.Swarm {
		t.Fatalf("after the restart it is another swarm: %s, was %s", again, status.Swarm)
	}
	b.set(swarm.Machine{MAC: mac2, Name: "node2", BootID: "b2", NodeID: node2, Availability: swarm.Active})
	b.until("node2 is active", func() bool { return b.describe(node2) == "node2 ready active" })

	// node1's power is cut and it boots again: a new node. The old one is
	// removed as soon as the swarm sees that it is down, long before the grace
	// period is over.
	w.cut("node1")
	b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b3"})
	again := w.boot("node1", b.join(boot.Worker))
	b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b3", NodeID: again})
	b.await("mac=..:01 ready node1: node " + again + " ready")
	b.await("mac=..:01 removed node1: node " + node1 + " removed: node1 booted again and is node " + again + " now")

	// node1 is shut down, and tells so: it is removed without any grace.
	w.leave("node1")
	b.set(swarm.Machine{MAC: mac1, Name: "node1", BootID: "b3", NodeID: again, Ready: true, Left: true})
	b.await("mac=..:01 removed node1: node " + again + " removed: node1 left the swarm")

	// node2's power is cut for good. bootd is replaced by one that knows
	// nothing of it, with little patience: the node is still its own.
	w.cut("node2")
	b.until("node2 is down", func() bool { return strings.HasPrefix(b.describe(node2), "node2 down") })
	b.stop()
	b.unset(mac2)
	b.grace = 2 * time.Second
	b.start()
	b.await("mac=..:02 removed : node " + node2 + " removed: " + mac2.String() + " has been down for more than 2s")

	b.node("node1 ready drain", stranger)
	want := []string{
		"mac=..:01 ready", "mac=..:02 ready", "mac=..:01 ready", "mac=..:01 removed", "mac=..:01 removed",
		"mac=..:02 removed",
	}
	if got := b.kinds(); !sameSet(got, want) {
		t.Errorf("events: %q, want %q", got, want)
	}
	nodes, err := b.sw.Nodes(t.Context())
	if err != nil || len(nodes) != 2 {
		t.Errorf("%d nodes, want the manager and the stranger (%v)", len(nodes), err)
	}
}

// conform checks what is taken for granted of an engine. id is a node that is
// ready.
func conform(t *testing.T, e swarm.Engine, id string) {
	t.Helper()
	nodes, err := e.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := nodes[slices.IndexFunc(nodes, func(n swarm.Node) bool { return n.ID == id })]
	for _, version := range []uint64{n.Version - 1, n.Version + 1} {
		if err := e.SetNode(t.Context(), id, version, n.Spec); !errors.Is(err, swarm.ErrConflict) {
			t.Errorf("SetNode with another version than %d: %v", n.Version, err)
		}
	}
	if err := e.SetNode(t.Context(), "nosuchnode", 1, n.Spec); !errors.Is(err, swarm.ErrNoNode) {
		t.Errorf("SetNode of no node: %v", err)
	}
	if err := e.RemoveNode(t.Context(), "nosuchnode"); !errors.Is(err, swarm.ErrNoNode) {
		t.Errorf("RemoveNode of no node: %v", err)
	}
	if err := e.RemoveNode(t.Context(), id); err == nil || errors.Is(err, swarm.ErrNoNode) {
		t.Errorf("RemoveNode of a node that is ready: %v", err)
	}
	i, err := e.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveNode(t.Context(), i.Node); err == nil {
		t.Error("RemoveNode of the manager succeeded")
	}
	if err := e.Init(t.Context(), swarm.Init{}); !errors.Is(err, swarm.ErrMember) {
		t.Errorf("Init of an engine that has a swarm: %v", err)
	}
	self := nodes[slices.IndexFunc(nodes, func(n swarm.Node) bool { return n.ID == i.Node })]
	self.Role = boot.Worker
	if err := e.SetNode(t.Context(), self.ID, self.Version, self.Spec); err == nil {
		t.Error("the last manager was demoted")
	}
	if d := time.Since(i.Time); d.Abs() > time.Minute || !n.DownSince.IsZero() || time.Since(n.Created).Abs() > time.Minute {
		t.Errorf("the clock is off by %s, node %s joined at %s and is down since %s", d, n.ID, n.Created, n.DownSince)
	}
}

var mac1, mac2 = boot.MAC{0x52, 0x54, 0, 0, 0, 1}, boot.MAC{0x52, 0x54, 0, 0, 0, 2}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// bootd is the rest of the program, as far as a Swarm notices it.
type bootd struct {
	t        *testing.T
	w        world
	sw       *swarm.Swarm
	grace    time.Duration
	settings func() swarm.Settings // nil: grace and no others
	memory   swarm.Memory
	end      func()

	mu       sync.Mutex
	machines []swarm.Machine
	events   []boot.Event
	log      bytes.Buffer
}

// Write takes what is logged.
func (b *bootd) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

// shown returns what has been logged so far.
func (b *bootd) shown() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

func (b *bootd) start() {
	b.t.Helper()
	cfg := b.w.config()
	cfg.Grace, cfg.Settings, cfg.Memory = b.grace, b.settings, b.memory
	cfg.Machines = func() []swarm.Machine {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.Clone(b.machines)
	}
	cfg.Record = func(ev boot.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, ev)
		for i, m := range b.machines { // as the timeline would
			if m.MAC == ev.MAC && ev.Stage == boot.Ready {
				b.machines[i].Ready = true
			}
		}
	}
	cfg.Log = slog.New(slog.NewTextHandler(io.MultiWriter(b.t.Output(), b), nil))
	b.sw = b.w.open(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.sw.Run(ctx) }()
	b.end = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run returned %v when its context ended", err)
		}
	}
}

func (b *bootd) stop() {
	if b.end != nil {
		b.end()
		b.end = nil
	}
}

// set replaces what is known of a machine.
func (b *bootd) set(m swarm.Machine) {
	m.Started = time.Now().Add(-10 * time.Second)
	b.unset(m.MAC)
	b.mu.Lock()
	b.machines = append(b.machines, m)
	b.mu.Unlock()
	b.sw.Nudge()
}

func (b *bootd) unset(mac boot.MAC) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.machines = slices.DeleteFunc(b.machines, func(m swarm.Machine) bool { return m.MAC == mac })
}

func (b *bootd) join(r boot.Role) swarm.JoinInfo {
	b.t.Helper()
	j, err := b.sw.Join(b.t.Context(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	return j
}

func (b *bootd) until(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("not within %s: %s; status: %+v", limit, what, b.sw.Status())
		}
	}
}

// node checks what the swarm shows of a node.
func (b *bootd) node(want, id string) {
	b.t.Helper()
	if got := b.describe(id); got != want {
		b.t.Errorf("node %s: %s, want %s", id, got, want)
	}
}

func (b *bootd) describe(id string) string {
	nodes, err := b.sw.Nodes(b.t.Context())
	if err != nil {
		return err.Error()
	}
	for _, n := range nodes {
		if n.ID == id {
			s := fmt.Sprintf("%s %s %s", n.Hostname, n.State, n.Availability)
			var labels []string
			for k, v := range n.Labels {
				labels = append(labels, k+"="+v)
			}
			slices.Sort(labels)
			return strings.TrimSpace(s + " " + strings.Join(labels, ","))
		}
	}
	return "gone"
}

// await waits for an event: "mac=..:01 ready HOST: text", where HOST is the
// configured name now.
func (b *bootd) await(want string) {
	b.t.Helper()
	b.until(want, func() bool { return slices.Contains(b.texts(), want) })
}

func (b *bootd) texts() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, ev := range b.events {
		name := ""
		for _, m := range b.machines {
			if m.MAC == ev.MAC {
				name = m.Name
			}
		}
		out = append(out, fmt.Sprintf("mac=..:%02x %s %s: %s", ev.MAC[5], ev.Stage, name, ev.Text))
	}
	return out
}

func (b *bootd) kinds() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, ev := range b.events {
		out = append(out, fmt.Sprintf("mac=..:%02x %s", ev.MAC[5], ev.Stage))
	}
	return out
}

// byHand changes a node as people do with docker node update.
func byHand(t *testing.T, e swarm.Engine, id string, change func(*swarm.Spec)) {
	t.Helper()
	for {
		nodes, err := e.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(nodes, func(n swarm.Node) bool { return n.ID == id })
		if i < 0 {
			t.Fatalf("no node %s", id)
		}
		s := nodes[i].Spec
		change(&s)
		err = e.SetNode(t.Context(), id, nodes[i].Version, s)
		if err == nil {
			return
		}
		if !errors.Is(err, swarm.ErrConflict) {
			t.Fatal(err)
		}
	}
}

// simulated is a world in memory.
type simulated struct {
	t *testing.T
	*swarmtest.Engine
	ids map[string]string // latest node of each host
}

func (w *simulated) config() swarm.Config               { return swarm.Config{Host: "memory"} }
func (w *simulated) open(cfg swarm.Config) *swarm.Swarm { return swarm.NewOn(cfg, w.Engine) }
func (w *simulated) cut(host string)                    { w.Silence(w.ids[host]) }
func (w *simulated) leave(host string)                  { w.Silence(w.ids[host]) }
func (w *simulated) hurry()                             {}

func (w *simulated) boot(host string, j swarm.JoinInfo) string {
	w.t.Helper()
	id, err := w.Join(j, host, swarm.Drain)
	if err != nil {
		w.t.Fatal(err)
	}
	w.ids[host] = id
	return id
}

func (w *simulated) restartManager(during func()) {
	w.Stop()
	during()
	w.Start()
}

// real is a world of Docker engines.
type real struct {
	t   *testing.T
	lab *dockertest.Lab
	swarm.Engine
	manager *dockertest.Engine
	hosts   map[string]*dockertest.Engine // latest of each name
}

func newReal(t *testing.T, lab *dockertest.Lab) *real {
	m := lab.Engine("manager")
	return &real{t: t, lab: lab, Engine: swarm.DockerEngine(t, m.Host), manager: m, hosts: map[string]*dockertest.Engine{}}
}

func (w *real) config() swarm.Config {
	return swarm.Config{Host: w.manager.Host, Init: swarm.Init{Advertise: w.manager.Addr}}
}

func (w *real) open(cfg swarm.Config) *swarm.Swarm {
	w.t.Helper()
	s, err := swarm.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *real) boot(host string, j swarm.JoinInfo) string {
	w.t.Helper()
	e := w.lab.Engine(host)
	w.hosts[host] = e
	cli := e.Client()
	err := cli.SwarmJoin(w.t.Context(), dockerswarm.JoinRequest{
		ListenAddr: "0.0.0.0:2377", RemoteAddrs: []string{j.Addr}, JoinToken: j.Token,
		Availability: dockerswarm.NodeAvailabilityDrain,
	})
	if err != nil {
		w.t.Fatalf("%s cannot join: %v", host, err)
	}
	info, err := cli.Info(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return info.Swarm.NodeID
}

func (w *real) cut(host string) { w.hosts[host].Cut() }

func (w *real) leave(host string) {
	w.t.Helper()
	if err := w.hosts[host].Client().SwarmLeave(w.t.Context(), false); err != nil {
		w.t.Fatalf("%s cannot leave: %v", host, err)
	}
}

// hurry shortens the heartbeat from five seconds.
func (w *real) hurry() {
	w.t.Helper()
	cli := w.manager.Client()
	sw, err := cli.SwarmInspect(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	sw.Spec.Dispatcher.HeartbeatPeriod = time.Second
	if err := cli.SwarmUpdate(w.t.Context(), sw.Version, sw.Spec, dockerswarm.UpdateFlags{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *real) restartManager(during func()) {
	w.manager.Stop()
	during()
	w.manager.Start()
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
