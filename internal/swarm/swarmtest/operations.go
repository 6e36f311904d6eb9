package swarmtest

import (
	"context"
	"time"

	"bootd/boot"
	"bootd/internal/swarm"
)

// RotateTokens implements [swarm.Operations].
func (e *Engine) RotateTokens(ctx context.Context, at time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.manager(ctx); err != nil {
		return err
	}
	e.rotate()
	e.info.TokensMade = at
	return nil
}

// EvictNode implements [swarm.Operations].
func (e *Engine) EvictNode(ctx context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.manager(ctx); err != nil {
		return err
	}
	n := e.nodes[id]
	switch {
	case n == nil:
		return swarm.ErrNoNode
	case n.Role == boot.Manager:
		return errManager
	}
	delete(e.nodes, id)
	e.index++
	e.changed()
	return nil
}

// TaskList implements [swarm.Operations]. The tasks of a drained node are on
// another active one at once, as far as there is one.
func (e *Engine) TaskList(ctx context.Context) ([]swarm.Task, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.manager(ctx); err != nil {
		return nil, err
	}
	able := ""
	for id, n := range e.nodes {
		if n.State == swarm.NodeReady && n.Availability == swarm.Active {
			able = max(able, id)
		}
	}
	var out []swarm.Task
	for id, n := range e.nodes {
		for slot := range n.tasks {
			t := swarm.Task{Service: "service-" + id, Slot: slot + 1, Node: id, Running: true, Up: true, Wanted: true}
			if n.Availability == swarm.Drain {
				t.Running, t.Up, t.Wanted = false, false, false
				next := t
				next.Node, next.Running, next.Up, next.Wanted, next.Stuck = able, able != "", able != "", true, able == ""
				out = append(out, next)
			}
			out = append(out, t)
		}
	}
	return out, nil
}
