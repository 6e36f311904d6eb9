package swarm_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bootd/boot"
	"bootd/internal/swarm"
	"bootd/internal/swarm/swarmtest"
)

// doomed is an engine whose user is killed now and then, just before or just
// after something is changed.
type doomed struct {
	*swarmtest.Engine
	fate func() int // 0: killed before, 1: after
	die  func()
}

func (d doomed) around(do func() error) error {
	switch d.fate() {
	case 0:
		d.die()
		return context.Canceled
	case 1:
		defer d.die()
	}
	return do()
}

func (d doomed) Init(ctx context.Context, o swarm.Init) error {
	return d.around(func() error { return d.Engine.Init(ctx, o) })
}

func (d doomed) SetNode(ctx context.Context, id string, version uint64, s swarm.Spec) error {
	return d.around(func() error { return d.Engine.SetNode(ctx, id, version, s) })
}

func (d doomed) RemoveNode(ctx context.Context, id string) error {
	return d.around(func() error { return d.Engine.RemoveNode(ctx, id) })
}

func (d doomed) EvictNode(ctx context.Context, id string) error {
	return d.around(func() error { return d.Engine.EvictNode(ctx, id) })
}

func (d doomed) RotateTokens(ctx context.Context, at time.Time) error {
	return d.around(func() error { return d.Engine.RotateTokens(ctx, at) })
}

func (d doomed) CreateNetwork(ctx context.Context, n swarm.Network) error {
	return d.around(func() error { return d.Engine.CreateNetwork(ctx, n) })
}

func (d doomed) RemoveNetwork(ctx context.Context, id string) error {
	return d.around(func() error { return d.Engine.RemoveNetwork(ctx, id) })
}

// haunted is a rack whose bootd is killed at its changes.
type haunted struct {
	t      *testing.T
	e      *swarmtest.Engine
	rand   *rand.Rand
	memory *disk
	immune bool // nobody is killed any more
	deaths int
	boots  int

	mu       sync.Mutex
	machines []swarm.Machine
	on       []bool
	networks []swarm.Network
}

func (h *haunted) fate() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.immune {
		return 2
	}
	return h.rand.IntN(4)
}

func (h *haunted) config() swarm.Config {
	return swarm.Config{
		Log: discard(), Memory: h.memory,
		Settings: func() swarm.Settings {
			return swarm.Settings{Grace: 20 * time.Second, DrainTimeout: 5 * time.Second, Managers: 3, Rotation: swarm.Rotation{AfterJoins: true}}
		},
		Machines: func() []swarm.Machine {
			h.mu.Lock()
			defer h.mu.Unlock()
			return slices.Clone(h.machines)
		},
		Networks: func() ([]swarm.Network, bool) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return slices.Clone(h.networks), true
		},
		Record: func(ev boot.Event) {
			h.mu.Lock()
			defer h.mu.Unlock()
			for i, m := range h.machines {
				if m.MAC == ev.MAC && m.NodeID == ev.Node && ev.Stage == boot.Ready {
					h.machines[i].Ready = true
				}
			}
		},
	}
}

// live runs one bootd after the other, for so long, and has one of them do
// something, if there is something to be done.
func (h *haunted) live(limit time.Duration, do func(context.Context, *swarm.Swarm)) {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		ctx, cancel := context.WithDeadline(h.t.Context(), end)
		s := swarm.NewOn(h.config(), doomed{h.e, h.fate, func() {
			h.mu.Lock()
			h.deaths++
			h.mu.Unlock()
			cancel()
		}})
		var wg sync.WaitGroup
		if do != nil {
			wg.Go(func() { do(ctx, s) })
		}
		if err := s.Run(ctx); err != nil {
			h.t.Error(err)
		}
		cancel()
		wg.Wait()
	}
}

func (h *haunted) nodes() []swarm.Node {
	h.t.Helper()
	nodes, err := h.e.Nodes(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return nodes
}

// dispensable reports whether the managers can decide without a machine.
func (h *haunted) dispensable(id string) bool {
	all, others := 0, 0
	for _, n := range h.nodes() {
		if !n.Manager {
			continue
		}
		all++
		if n.Reachable && n.ID != id {
			others++
		}
	}
	return others > all/2
}

// powerOn boots a machine. It joins with whatever token is good then.
func (h *haunted) powerOn(k int) {
	i, err := h.e.Info(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	id, err := h.e.Join(swarm.JoinInfo{Addr: i.Addr, Token: i.Tokens[boot.Worker]}, h.machines[k].Name, swarm.Drain)
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boots++
	m := &h.machines[k]
	m.NodeID, m.BootID, m.Started, m.Ready, m.Left = id, fmt.Sprint("boot", h.boots), time.Now().Add(-time.Second), false, false
	h.on[k] = true
}

func (h *haunted) cut(k int) {
	h.e.Silence(h.machines[k].NodeID)
	h.on[k] = false
}

// shutDown has a machine ask whoever is alive to let it go, and then go.
func (h *haunted) shutDown(k int) {
	h.mu.Lock()
	h.machines[k].Left = true
	m := h.machines[k]
	h.mu.Unlock()
	h.live(10*time.Second, func(ctx context.Context, s *swarm.Swarm) { _ = s.Leave(ctx, m.MAC, m.NodeID) })
	h.cut(k)
}

// step does something to the rack.
func (h *haunted) step() {
	k := h.rand.IntN(len(h.machines))
	switch what := h.rand.IntN(6); {
	case what <= 1 && !h.on[k]:
		h.powerOn(k)
	case what == 2 && h.on[k] && h.dispensable(h.machines[k].NodeID):
		h.cut(k)
	case what == 3 && h.on[k] && h.dispensable(h.machines[k].NodeID):
		h.shutDown(k)
	case what == 4:
		h.mu.Lock()
		h.machines[k].Role = []boot.Role{boot.Worker, boot.Manager}[h.rand.IntN(2)]
		h.machines[k].Labels = map[string]string{"tier": fmt.Sprint(h.rand.IntN(3))}
		h.mu.Unlock()
	case what == 5:
		h.mu.Lock()
		h.networks = h.networks[:0:0]
		for _, name := range []string{"a", "b"} {
			if h.rand.IntN(2) == 0 {
				h.networks = append(h.networks, swarm.Network{Name: name, Attachable: h.rand.IntN(2) == 0})
			}
		}
		h.mu.Unlock()
	}
}

// TestKilledAnywhere lets machines come and go by button and by plug, roles,
// labels and networks change, and tokens rotate, while bootd is killed before
// and after a good part of what it changes. As soon as one is left alive, all is
// as it should be, and meanwhile nothing was taken from a machine that is on.
func TestKilledAnywhere(t *testing.T) {
	deaths := 0
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &haunted{t: t, e: swarmtest.New("10.99.0.1"), rand: rand.New(rand.NewPCG(seed, 0)), memory: &disk{}}
				for k := range 5 {
					h.machines = append(h.machines, swarm.Machine{MAC: boot.MAC{0x52, 0x54, 0, 0, 0, byte(k + 1)}, Name: fmt.Sprint("node", k+1)})
					h.on = append(h.on, false)
				}
				for i, err := h.e.Info(t.Context()); err != nil || i.State != swarm.Member; i, err = h.e.Info(t.Context()) {
					h.live(time.Second, nil)
				}
				for range 20 {
					h.step()
					h.live(time.Duration(h.rand.IntN(30))*time.Second, nil)
					h.nothingTaken()
				}
				h.immune = true
				h.live(10*time.Minute, nil)
				h.settled()
				deaths += h.deaths
			})
		})
	}
	if deaths < 500 {
		t.Errorf("killed only %d times", deaths)
	}
	t.Logf("killed %d times", deaths)
}

// nothingTaken checks that the nodes of machines that are on are there.
func (h *haunted) nothingTaken() {
	h.t.Helper()
	nodes := h.nodes()
	for k, m := range h.machines {
		if h.on[k] && !slices.ContainsFunc(nodes, func(n swarm.Node) bool { return n.ID == m.NodeID && n.State == swarm.NodeReady }) {
			h.t.Errorf("%s is on, and its node %s is gone", m.Name, m.NodeID)
		}
	}
}

// settled checks that all is as it should be.
func (h *haunted) settled() {
	h.t.Helper()
	nodes := h.nodes()
	managers, up := 0, 0
	for _, n := range nodes {
		if n.Manager && n.Reachable {
			managers++
		}
	}
	for k, m := range h.machines {
		if !h.on[k] {
			continue
		}
		up++
		i := slices.IndexFunc(nodes, func(n swarm.Node) bool { return n.ID == m.NodeID })
		if i < 0 {
			h.t.Errorf("%s is on and not in the swarm", m.Name)
			continue
		}
		n := nodes[i]
		if n.State != swarm.NodeReady || n.Availability != swarm.Active || n.Labels["tier"] != m.Labels["tier"] || m.Role == boot.Manager && n.Role != boot.Manager || !m.Ready {
			h.t.Errorf("%+v is node %+v", m, n)
		}
	}
	if len(nodes) != up+1 {
		h.t.Errorf("%d machines are on, and there are %d nodes: %+v", up, len(nodes), nodes)
	}
	if managers < min(3, up+1) {
		h.t.Errorf("%d managers of %d nodes", managers, len(nodes))
	}
	var have []string
	networks, err := h.e.Networks(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, n := range networks {
		if swarm.Ours(n) {
			have = append(have, fmt.Sprint(n.Name, n.Attachable))
		}
	}
	var want []string
	for _, n := range h.networks {
		want = append(want, fmt.Sprint(n.Name, n.Attachable))
	}
	slices.Sort(have)
	if !slices.Equal(have, want) {
		h.t.Errorf("networks %q, want %q", have, want)
	}
}
