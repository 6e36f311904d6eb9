package swarm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"bootd/boot"
)

// Operations are what only an operator asks of an engine.
type Operations interface {
	// RotateTokens replaces the tokens that nodes join with.
	// at is noted as the time of it, by the swarm's clock.
	RotateTokens(ctx context.Context, at time.Time) error
	// EvictNode forgets a worker even if it is ready. It is an [ErrNoNode] when
	// there is none.
	EvictNode(ctx context.Context, id string) error
	// TaskList lists all tasks, also those that have ended.
	TaskList(ctx context.Context) ([]Task, error)
}

// What the errors of an operator's orders can be asked for, beside [ErrNotReady]
// and [ErrNoNode].
var (
	ErrAmbiguous = errors.New("several nodes are meant")
	ErrRefused   = errors.New("refused")
)

// A Removal is a node that has been removed, or is kept though it is down.
type Removal struct {
	Node NodeStatus
	Kept bool
	Why  string
}

// minPrefix is how many characters of a node's ID name it at least.
const minPrefix = 4

// Find returns the node that an operator means: by its machine's name, its host
// name, its ID or the beginning of that.
func Find(nodes []NodeStatus, ref string) (NodeStatus, error) {
	for _, same := range []func(NodeStatus) bool{
		func(n NodeStatus) bool { return n.ID == ref },
		func(n NodeStatus) bool {
			return strings.EqualFold(n.Machine, ref) || strings.EqualFold(n.Hostname, ref)
		},
		func(n NodeStatus) bool { return len(ref) >= minPrefix && strings.HasPrefix(n.ID, ref) },
	} {
		var meant []NodeStatus
		var ids []string
		for _, n := range nodes {
			if ref != "" && same(n) {
				meant, ids = append(meant, n), append(ids, fmt.Sprintf("%s (%s)", n.ID, n.State))
			}
		}
		switch len(meant) {
		case 0:
		case 1:
			return meant[0], nil
		default:
			return NodeStatus{}, fmt.Errorf("%w by %q: %s; name one by its ID", ErrAmbiguous, ref, strings.Join(ids, ", "))
		}
	}
	return NodeStatus{}, fmt.Errorf("%w as %q", ErrNoNode, ref)
}

// SetAvailability sets the availability of a node, at once. For a machine's node
// it lasts until [Plan] has another opinion: see [Machine.Availability].
func (s *Swarm) SetAvailability(ctx context.Context, id string, a Availability) error {
	return s.change(ctx, id, func(n *Spec) error {
		n.Availability = a
		return nil
	})
}

// change changes what is wanted of a node, again when others change it
// meanwhile.
func (s *Swarm) change(ctx context.Context, id string, f func(*Spec) error) error {
	const tries = 5
	for try := 1; ; try++ {
		nodes, err := call(ctx, s.engine.Nodes)
		if err != nil {
			return fmt.Errorf("%w: %s", ErrNotReady, explain(err, s.cfg.Host))
		}
		i := slices.IndexFunc(nodes, func(n Node) bool { return n.ID == id })
		if i < 0 {
			return fmt.Errorf("%w as %q", ErrNoNode, id)
		}
		next := nodes[i].Spec
		if err := f(&next); err != nil {
			return err
		}
		if next.equal(nodes[i].Spec) {
			return nil
		}
		err = s.engine.SetNode(ctx, id, nodes[i].Version, next)
		if !errors.Is(err, ErrConflict) || try == tries {
			return err
		}
	}
}

// RotateTokens makes the tokens invalid that nodes join with. Machines that boot
// just now get the new ones.
func (s *Swarm) RotateTokens(ctx context.Context) error {
	return s.rotate(ctx, "an operator ordered it")
}

func (s *Swarm) rotate(ctx context.Context, why string) error {
	s.mu.Lock()
	at := time.Now().Add(s.skew)
	s.mu.Unlock()
	if err := s.engine.RotateTokens(ctx, at); err != nil {
		return fmt.Errorf("cannot rotate the tokens of the swarm: %w: %s", ErrNotReady, explain(err, s.cfg.Host))
	}
	s.mu.Lock()
	s.infoAt, s.rotations = time.Time{}, s.rotations+1 // the tokens that are known are not good any more
	s.mu.Unlock()
	s.log.Info("tokens rotated", "reason", why)
	s.Nudge()
	return nil
}

// Remove makes the swarm forget a node, as an operator orders it. A node that is
// ready is refused unless force is set; a manager is demoted first, and refused
// when the others could not decide without it.
func (s *Swarm) Remove(ctx context.Context, id string, force bool) (Removal, error) {
	nodes, err := s.Nodes(ctx)
	if err != nil {
		return Removal{}, err
	}
	i := slices.IndexFunc(nodes, func(n NodeStatus) bool { return n.ID == id })
	if i < 0 {
		return Removal{}, fmt.Errorf("%w as %q", ErrNoNode, id)
	}
	n := nodes[i]
	r := Removal{Node: n, Why: "an operator ordered it"}
	switch {
	case n.Self:
		return r, fmt.Errorf("%w: %s is the engine that bootd keeps the swarm through", ErrRefused, n.Hostname)
	case n.State != NodeDown && !force:
		return r, fmt.Errorf("%w: %s is %s: shut it down, and it leaves by itself; or use force", ErrRefused, n.Hostname, n.State)
	}
	defer s.hold(n.ID)()
	if n.Role == boot.Manager {
		if err := s.demote(ctx, n); err != nil {
			return r, err
		}
	}
	return r, s.forget(ctx, n, r.Why, force)
}

// hold keeps what is planned for a node from being carried out while it is being
// removed, until the returned function is called.
func (s *Swarm) hold(id string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[string]int{}
	}
	s.held[id]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held[id]--; s.held[id] <= 0 {
			delete(s.held, id)
		}
	}
}

func (s *Swarm) isHeld(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[id] > 0
}

// demote makes a worker of a manager and waits until it is one.
func (s *Swarm) demote(ctx context.Context, n NodeStatus) error {
	nodes, err := call(ctx, s.engine.Nodes)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrNotReady, explain(err, s.cfg.Host))
	}
	if others, reachable := managersBeside(nodes, n.ID); reachable < quorum(others) {
		return fmt.Errorf("%w: cannot demote manager %s: of the other %d managers %d are reachable and %d must be; make another node a manager first",
			ErrRefused, n.Hostname, others, reachable, quorum(others))
	}
	if err := s.change(ctx, n.ID, func(spec *Spec) error {
		spec.Role, spec.Labels = boot.Worker, maps.Clone(spec.Labels)
		delete(spec.Labels, labelPromoted)
		return nil
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	for {
		nodes, err := call(ctx, s.engine.Nodes)
		if err == nil && !slices.ContainsFunc(nodes, func(o Node) bool { return o.ID == n.ID && o.Manager }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still a manager, though it was demoted; remove it later: %w", n.Hostname, ctx.Err())
		case <-time.After(gap):
		}
	}
}

// forget removes a worker and tells so.
func (s *Swarm) forget(ctx context.Context, n NodeStatus, why string, force bool) error {
	remove := s.engine.RemoveNode
	if force {
		remove = s.engine.EvictNode
	}
	if err := remove(ctx, n.ID); err != nil {
		return fmt.Errorf("cannot remove node %s (%s): %w", n.ID, n.Hostname, err)
	}
	s.removed(n.ID, n.Hostname, n.MAC, why)
	return nil
}

// Prune removes the nodes of bootd's machines that are down, without waiting for
// the grace, and tells which those are and which it keeps and why. With dryRun
// it only tells.
func (s *Swarm) Prune(ctx context.Context, dryRun bool) ([]Removal, error) {
	nodes, err := s.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	var out []Removal
	for _, n := range nodes {
		if n.State != NodeDown {
			continue
		}
		r := prunable(n, time.Now())
		if !r.Kept && !dryRun {
			if err := s.forget(ctx, n, r.Why+", pruned by an operator", false); err != nil {
				r.Kept, r.Why = true, err.Error()
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// prunable decides about a node that is down.
func prunable(n NodeStatus, now time.Time) Removal {
	r := Removal{Node: n, Why: "down for " + now.Sub(n.Since).Round(time.Second).String()}
	switch {
	case n.Self:
		r.Kept, r.Why = true, "it is the engine that bootd keeps the swarm through"
	case n.MAC.IsZero():
		r.Kept, r.Why = true, "bootd did not boot it; remove it by its name"
	case n.Role == boot.Manager:
		r.Kept, r.Why = true, "it is a manager, which has to be demoted first; remove it by its name"
	}
	return r
}

// managersBeside counts the managers other than a node, and those of them that
// are reachable.
func managersBeside(nodes []Node, id string) (others, reachable int) {
	for i := range nodes {
		if o := &nodes[i]; o.ID != id && o.Manager {
			others++
			if o.Reachable {
				reachable++
			}
		}
	}
	return others, reachable
}

// quorum is how many of so many managers must be reachable, so that they can
// decide.
func quorum(managers int) int { return managers/2 + 1 }

// Counters count what was done to a swarm since the process was started.
type Counters struct {
	Removals  map[string]uint64 // nodes removed, by the sort of reason: left, down, booted again, operator
	Rotations uint64            // of the join tokens
	Drains    uint64            // nodes that were shut down
	DrainTime time.Duration     // that those were waited for, added up
}

// Counters tells what was done to the swarm.
func (s *Swarm) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Counters{Removals: map[string]uint64{}, Rotations: s.rotations, Drains: s.drains, DrainTime: s.drainTime}
	for k, n := range s.removals {
		c.Removals[k] = n
	}
	return c
}

// sortOf gives the reason of a removal a short name of few.
func sortOf(why string) string {
	for _, s := range []struct{ text, name string }{
		{"operator", "operator"}, {"left the swarm", "left"}, {"booted again", "booted again"}, {"has been down", "down"},
	} {
		if strings.Contains(why, s.text) {
			return s.name
		}
	}
	return "other"
}

// removed tells that a node has been removed.
func (s *Swarm) removed(id, hostname string, mac boot.MAC, why string) {
	s.mu.Lock()
	if s.removals == nil {
		s.removals = map[string]uint64{}
	}
	s.removals[sortOf(why)]++
	s.mu.Unlock()
	s.log.Info("node removed", "node", id, "mac", mac, "hostname", hostname, "reason", why)
	s.cfg.Record(boot.Event{Time: time.Now(), MAC: mac, Stage: boot.Removed, Node: id,
		Text: "node " + id + " removed: " + why})
}
