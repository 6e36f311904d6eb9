package swarmtest

import (
	"context"

	"bootd/boot"
	"bootd/internal/swarm"
)

// RotateTokens implements [swarm.Operations].
func (e *Engine) RotateTokens(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.manager(ctx); err != nil {
		return err
	}
	e.rotate()
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
