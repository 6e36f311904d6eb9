// Package controllertest has what tests of the controller, and of what is built upon
// it, need in the place of a swarm.
package controllertest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bootd/internal/fleet"
)

// A Crew is a controller's Nodes without a swarm: a node is up once it was prepared
// and is on, unless a test says otherwise. It may outlive a controller, as a swarm
// outlives bootd. Tests set its fields with [Crew.Set].
type Crew struct {
	mu        sync.Mutex
	Prepared  map[fleet.VMID]fleet.Node // and not forgotten
	Left      []string                  // types of the nodes that left, and how: "SwarmWorker drained"
	Taken     []netip.Addr              // addresses that answer
	Asleep    func(fleet.Node) bool     // nodes that never come up; nil: none
	Tasks     map[fleet.VMID]int        // that run on nodes
	Refuses   error                     // in Check
	Silent    error                     // in Standings
	Intercept func(ctx context.Context, call string) error
}

// Set changes a crew.
func (w *Crew) Set(f func(*Crew)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
}

// Addr is the address that a node was prepared with.
func (w *Crew) Addr(vm fleet.VMID) netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Prepared[vm].Addr
}

func (w *Crew) pass(ctx context.Context, call string) error {
	w.mu.Lock()
	f := w.Intercept
	w.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(ctx, call)
}

// Check implements the controller's Nodes.
func (w *Crew) Check(fleet.Cluster) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Refuses
}

// Answering implements the controller's Nodes.
func (w *Crew) Answering(ctx context.Context, asked []netip.Addr) ([]netip.Addr, error) {
	w.mu.Lock()
	var out []netip.Addr
	for _, a := range asked {
		if slices.Contains(w.Taken, a) {
			out = append(out, a)
		}
	}
	w.mu.Unlock()
	return out, w.pass(ctx, "Answering")
}

// Prepare implements the controller's Nodes.
func (w *Crew) Prepare(ctx context.Context, c fleet.Cluster, n fleet.Node) (map[string]string, error) {
	if n.Cluster != c.ID || n.MAC.IsZero() || n.Name == "" {
		return nil, fmt.Errorf("%+v is no node of cluster %s", n, c.ID)
	}
	w.Set(func(w *Crew) {
		if w.Prepared == nil {
			w.Prepared = map[fleet.VMID]fleet.Node{}
		}
		w.Prepared[n.VM] = n
	})
	return map[string]string{"guestinfo.ignition.config.data": "config of " + n.Name}, w.pass(ctx, "Prepare")
}

// Forget implements the controller's Nodes.
func (w *Crew) Forget(ctx context.Context, _ fleet.Cluster, n fleet.Node) error {
	w.Set(func(w *Crew) { delete(w.Prepared, n.VM) })
	return w.pass(ctx, "Forget")
}

// Standings implements the controller's Nodes.
func (w *Crew) Standings(_ context.Context, _ fleet.Cluster, list []fleet.Node) (map[fleet.VMID]fleet.Standing, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Silent != nil {
		return nil, w.Silent
	}
	out := map[fleet.VMID]fleet.Standing{}
	for _, n := range list {
		if _, there := w.Prepared[n.VM]; there && (w.Asleep == nil || !w.Asleep(n)) {
			out[n.VM] = fleet.Standing{Up: true, Live: true, Since: time.Now(), Tasks: w.Tasks[n.VM]}
		}
	}
	return out, nil
}

// Leave implements the controller's Nodes.
func (w *Crew) Leave(ctx context.Context, _ fleet.Cluster, n fleet.Node, drain bool) error {
	how := "evicted"
	if drain {
		how = "drained"
	}
	w.Set(func(w *Crew) { w.Left = append(w.Left, string(n.Type)+" "+how) })
	return w.pass(ctx, "Leave")
}
