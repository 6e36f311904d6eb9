package swarmtest

import (
	"time"

	"bootd/boot"
	"bootd/internal/swarm"
)

// Join joins a node as `docker swarm join` does on it, and returns its ID.
func (e *Engine) Join(j swarm.JoinInfo, host string, a swarm.Availability) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped || j.Addr != e.info.Addr {
		return "", errStopped
	}
	for role, token := range e.info.Tokens {
		if token == j.Token {
			return e.add(host, a, role).ID, nil
		}
	}
	return "", errToken
}

// Silence cuts a node's power or its network. After three heartbeats it is
// down.
func (e *Engine) Silence(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.nodes[id]
	if n == nil {
		return
	}
	n.Reachable = false
	n.silent = time.AfterFunc(silence, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if n.silent != nil && e.nodes[id] == n {
			n.State = swarm.NodeDown
			e.touch(n)
		}
	})
}

// Resume reverses [Engine.Silence].
func (e *Engine) Resume(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := e.nodes[id]; n != nil && n.silent != nil {
		n.silent.Stop()
		n.silent, n.State, n.Reachable = nil, swarm.NodeReady, n.Manager
		e.touch(n)
	}
}

// SetTasks sets how many tasks run on a node.
func (e *Engine) SetTasks(id string, count int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nodes[id].tasks = count
}

// Rotate replaces the join tokens.
func (e *Engine) Rotate() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rotate()
}

// Stop stops the manager's engine: nothing is answered and every watch ends.
// The swarm's nodes live on.
func (e *Engine) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = true
	for c := range e.watchers {
		close(c)
	}
	clear(e.watchers)
}

// Start reverses [Engine.Stop]. As after any change of leader, nodes that were
// ready are unknown until they are heard of, which is within a second.
func (e *Engine) Start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = false
	for _, n := range e.nodes {
		if n.State != swarm.NodeReady || n.ID == e.info.Node {
			continue
		}
		n.State = swarm.NodeUnknown
		e.touch(n)
		time.AfterFunc(time.Second, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			if n.silent == nil && n.State == swarm.NodeUnknown {
				n.State = swarm.NodeReady
				e.touch(n)
			}
		})
	}
}

// BecomeWorker makes the engine a worker of a swarm that is managed elsewhere.
func (e *Engine) BecomeWorker() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.nodes)
	e.networks = nil
	e.info = swarm.Info{State: swarm.Member, Version: e.info.Version, Node: e.id()}
}

// Leave makes the engine leave its swarm, which is lost if there is no other
// manager.
func (e *Engine) Leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.nodes)
	e.networks = nil
	e.info = swarm.Info{State: swarm.Inactive, Version: e.info.Version}
}

// Promote makes a node a manager, as `docker node promote` does.
func (e *Engine) Promote(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.nodes[id]
	n.Role, n.Manager, n.Reachable = boot.Manager, true, n.silent == nil
	e.touch(n)
}
