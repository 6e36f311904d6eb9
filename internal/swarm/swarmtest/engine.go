// Package swarmtest has a Docker Swarm in memory, for tests that have no
// Docker engine. It keeps the rules of a real one as far as package swarm can
// notice: versions, what can be removed when, nodes that fall silent, tokens
// that are replaced, an engine that restarts. The scenarios of package swarm run
// on both, which holds this one to the truth.
//
// Time passes by the ordinary clock, so tests use testing/synctest. An Engine
// can be used from any goroutine.
package swarmtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"bootd/boot"
	"bootd/internal/swarm"
)

// silence is how long a node may be silent until it is down: three heartbeats.
const silence = 15 * time.Second

// An Engine is a Docker engine, and, once it is a manager, the swarm that it
// manages.
type Engine struct {
	addr string // its own

	mu       sync.Mutex
	stopped  bool
	ids      int // used up so far
	info     swarm.Info
	nodes    map[string]*node
	index    uint64 // of the last change
	watchers map[chan struct{}]bool
	networks networks
}

type node struct {
	swarm.Node
	tasks   int
	silent  *time.Timer // runs out when the node is down
	updated time.Time
}

// New returns an engine that is in no swarm. Its address is that of its host.
func New(addr string) *Engine {
	return &Engine{
		addr: addr, info: swarm.Info{State: swarm.Inactive, Version: "20.10.24"},
		nodes: map[string]*node{}, watchers: map[chan struct{}]bool{},
	}
}

var (
	errStopped = errors.New("cannot connect to the Docker daemon")
	errWorker  = errors.New("this node is not a swarm manager")
	errToken   = errors.New("rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster")
	errReady   = errors.New("rpc error: code = FailedPrecondition desc = node is not down and can't be removed")
	errManager = errors.New("rpc error: code = FailedPrecondition desc = node is a cluster manager and must be demoted before removal")
	errLast    = errors.New("rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm")
)

// Info implements [swarm.Membership].
func (e *Engine) Info(ctx context.Context) (swarm.Info, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(ctx); err != nil {
		return swarm.Info{}, err
	}
	i := e.info
	i.Time = time.Now()
	i.Tokens = maps.Clone(i.Tokens)
	return i, nil
}

func (e *Engine) check(ctx context.Context) error {
	if e.stopped {
		return errStopped
	}
	return ctx.Err()
}

// Init implements [swarm.Membership].
func (e *Engine) Init(ctx context.Context, o swarm.Init) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(ctx); err != nil {
		return err
	}
	if e.info.State != swarm.Inactive {
		return swarm.ErrMember
	}
	if o.Availability == "" {
		o.Availability = swarm.Active
	}
	n := e.add("manager", o.Availability, boot.Manager)
	n.Leader = true
	e.info.State, e.info.Manager, e.info.Node = swarm.Member, true, n.ID
	e.info.Swarm, e.info.Addr = e.id(), e.addr+":2377"
	e.info.AddressPools, e.info.DataPathPort = o.AddressPools, o.DataPathPort
	e.rotate()
	e.changed()
	return nil
}

func (e *Engine) id() string {
	e.ids++
	return fmt.Sprintf("%025d", e.ids)
}

func (e *Engine) rotate() {
	e.info.Tokens = map[boot.Role]string{boot.Worker: "SWMTKN-1-w" + e.id(), boot.Manager: "SWMTKN-1-m" + e.id()}
	e.info.TokensMade = time.Now()
}

func (e *Engine) add(host string, a swarm.Availability, r boot.Role) *node {
	n := &node{Node: swarm.Node{
		ID: e.id(), Hostname: host, State: swarm.NodeReady, Created: time.Now(), Addr: e.addr, Engine: "20.10.24",
		Manager: r == boot.Manager, Reachable: r == boot.Manager,
		Spec: swarm.Spec{Labels: map[string]string{}, Availability: a, Role: r},
	}}
	e.nodes[n.ID] = n
	e.touch(n)
	return n
}

// touch counts a change of n.
func (e *Engine) touch(n *node) {
	e.index++
	n.Version, n.updated = e.index, time.Now()
	e.changed()
}

func (e *Engine) changed() {
	for c := range e.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Watch implements [swarm.Membership].
func (e *Engine) Watch(ctx context.Context, changed func()) error {
	c := make(chan struct{}, 1)
	e.mu.Lock()
	if err := e.check(ctx); err != nil {
		e.mu.Unlock()
		return err
	}
	e.watchers[c] = true
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.watchers, c)
	}()
	for {
		changed()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-c:
			if !ok {
				return errStopped
			}
		}
	}
}

// manager checks that nodes can be asked for.
func (e *Engine) manager(ctx context.Context) error {
	if err := e.check(ctx); err != nil {
		return err
	}
	if !e.info.Manager {
		return errWorker
	}
	total, reachable := e.managers("")
	if reachable <= total/2 {
		return swarm.ErrNoLeader
	}
	return nil
}

// managers counts the managers but one.
func (e *Engine) managers(but string) (total, reachable int) {
	for _, n := range e.nodes {
		if n.Manager && n.ID != but {
			total++
			if n.Reachable {
				reachable++
			}
		}
	}
	return total, reachable
}

// Nodes implements [swarm.Registry].
func (e *Engine) Nodes(ctx context.Context) ([]swarm.Node, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.manager(ctx); err != nil {
		return nil, err
	}
	var out []swarm.Node
	for _, id := range slices.Sorted(maps.Keys(e.nodes)) {
		n := e.nodes[id].Node
		n.Labels = maps.Clone(n.Labels)
		if n.State == swarm.NodeDown {
			n.DownSince = e.nodes[id].updated
		}
		out = append(out, n)
	}
	return out, nil
}

// Tasks implements [swarm.Registry].
func (e *Engine) Tasks(ctx context.Context) (map[string]int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.manager(ctx); err != nil {
		return nil, err
	}
	out := map[string]int{}
	for id, n := range e.nodes {
		if n.tasks > 0 {
			out[id] = n.tasks
		}
	}
	return out, nil
}

// SetNode implements [swarm.Registry]. A promoted node becomes a manager, and
// a demoted one a worker, at once.
func (e *Engine) SetNode(ctx context.Context, id string, version uint64, s swarm.Spec) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.manager(ctx); err != nil {
		return err
	}
	n := e.nodes[id]
	switch {
	case n == nil:
		return swarm.ErrNoNode
	case n.Version != version:
		return swarm.ErrConflict
	case n.Manager && s.Role == boot.Worker:
		total, reachable := e.managers(id)
		if total == 0 || reachable <= total/2 {
			return errLast
		}
	}
	s.Labels = maps.Clone(s.Labels)
	n.Spec = s
	n.Manager = s.Role == boot.Manager
	n.Reachable = n.Manager && n.State == swarm.NodeReady
	e.touch(n)
	return nil
}

// RemoveNode implements [swarm.Registry].
func (e *Engine) RemoveNode(ctx context.Context, id string) error {
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
	case n.State == swarm.NodeReady:
		return errReady
	}
	delete(e.nodes, id)
	e.index++
	e.changed()
	return nil
}
