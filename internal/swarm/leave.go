package swarm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"bootd/boot"
)

// DefaultDrainTimeout is how long a node that is shut down waits for its tasks
// to run elsewhere.
const DefaultDrainTimeout = time.Minute

// A Task is a task of a service, as far as leaving a swarm is concerned.
type Task struct {
	Service string // ID
	Slot    int    // of a replicated service, from 1; 0: of a global one
	Node    string // ID; empty: none yet
	Running bool   // its container runs, or is being started or stopped
	Up      bool   // its container runs
	Wanted  bool   // it is to run; otherwise it is being stopped, or has been
	Stuck   bool   // no node can take it
	Created time.Time
}

// A Moving says what of a node's tasks still has to happen.
type Moving struct {
	Here     int // still on the node
	Starting int // replaced elsewhere, and not running there yet
	Stuck    int // that no other node can take
}

// moved tells how far the tasks of a node have moved away from it.
func moved(tasks []Task, node string) Moving {
	type place struct {
		service string
		slot    int
	}
	var m Moving
	left := map[place]bool{}
	for _, t := range tasks {
		if t.Node != node {
			continue
		}
		if t.Running {
			m.Here++
		}
		if t.Slot > 0 {
			left[place{t.Service, t.Slot}] = true
		}
	}
	for _, t := range tasks {
		if !t.Wanted || t.Node == node || !left[place{t.Service, t.Slot}] {
			continue
		}
		switch {
		case t.Up:
		case t.Stuck:
			m.Stuck++
		default:
			m.Starting++
		}
	}
	return m
}

// Leave prepares a machine's node for its leaving, when the machine is being
// shut down: it returns when the node's tasks run elsewhere and the node is out
// of the swarm, so that nobody ever sees it down. The node is what the machine
// says it is; another machine's is not touched. It is called when the machine's
// leaving has been recorded, by which [Plan] drains the node and removes it in
// any case. The error says what could not be moved in the time that there is;
// the node leaves all the same.
func (s *Swarm) Leave(ctx context.Context, mac boot.MAC, node string) error {
	s.Nudge()
	began := time.Now()
	limit := s.settings().DrainTimeout
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	m, err := s.drained(waiting, mac, node)
	if ctx.Err() != nil {
		return ctx.Err() // who asked is gone; what is left to do is Plan's
	}
	s.mu.Lock()
	s.drains, s.drainTime = s.drains+1, s.drainTime+time.Since(began)
	s.mu.Unlock()
	switch {
	case errors.Is(err, ErrNoNode):
		return nil // gone already
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("after %s %d task(s) still run on the node and %d are being started elsewhere; they are lost with it", limit, m.Here, m.Starting)
	case err == nil && m.Stuck > 0:
		err = fmt.Errorf("no other node can take %d task(s) of the node", m.Stuck)
	}
	return errors.Join(err, s.evict(ctx, mac, node))
}

// drained waits until a node's tasks have moved as far as they can.
func (s *Swarm) drained(ctx context.Context, mac boot.MAC, node string) (m Moving, err error) {
	const look = 200 * time.Millisecond
	for {
		nodes, err := call(ctx, s.engine.Nodes)
		if err == nil {
			i := slices.IndexFunc(nodes, func(n Node) bool { return n.ID == node })
			if i < 0 {
				return m, ErrNoNode
			}
			if owner, owned := nodes[i].owner(); owned && owner != mac {
				return m, ErrNoNode // it reports another's
			}
			// Plan drains it; until then nothing moves.
			if nodes[i].Availability == Drain {
				var tasks []Task
				if tasks, err = call(ctx, s.engine.TaskList); err == nil {
					if m = moved(tasks, node); m.Here == 0 && m.Starting == 0 {
						return m, nil
					}
				}
			}
		}
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-time.After(look):
		}
	}
}

// evict takes a node that is leaving out of the swarm before it does so itself:
// the swarm would show it down until it is removed.
func (s *Swarm) evict(ctx context.Context, mac boot.MAC, id string) error {
	nodes, err := s.Nodes(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(nodes, func(n NodeStatus) bool { return n.ID == id })
	if i < 0 {
		return nil
	}
	n := nodes[i]
	if n.MAC != mac || n.Self {
		return nil // not known to be the machine's: if it is, it goes by itself
	}
	defer s.hold(n.ID)()
	if n.Role == boot.Manager {
		if err := s.demote(ctx, n); err != nil {
			return err
		}
	}
	err = s.forget(ctx, n, n.Machine+" left the swarm", true)
	if errors.Is(err, ErrNoNode) {
		return nil
	}
	return err
}
