package controller

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// unanswered is nil, or the error for addresses that some machine has already.
func (c *Controller) unanswered(ctx context.Context, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	taken, err := c.options.Nodes.Answering(ctx, addrs)
	if err != nil || len(taken) == 0 {
		return err
	}
	var texts []string
	for _, a := range taken {
		texts = append(texts, a.String())
	}
	return fleet.Errorf(fleet.IPAddressInUse, "A machine answers already at %s: a node cannot have that address", strings.Join(texts, ", "))
}

// affordable is nil, or the error for so many nodes of each type more than the quota
// of the project allows now.
func (c *Controller) affordable(ctx context.Context, x cluster, counts map[fleet.NodeType]int) error {
	return c.store.View(ctx, func(tx *store.Tx) error {
		p, err := get(tx, projects, fleet.KindProject, string(x.Project))
		if err != nil {
			return err
		}
		for _, r := range x.Roles() {
			if counts[r.Node] == 0 {
				continue
			}
			v, err := nodeVM(tx, x, fleet.Vacancy{Role: r}, "")
			if err != nil {
				return err
			}
			for range counts[r.Node] {
				if p.Quota, err = p.Quota.Charge(v.Cost); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// nodeVM is the VM of a node, counted as a user of what it needs.
func nodeVM(tx *store.Tx, x cluster, at fleet.Vacancy, id fleet.VMID) (vm, error) {
	s := fleet.VMSpec{Name: at.Role.Prefix + "-" + string(id), Flavor: x.OtherFlavor, Image: x.Image, Diskless: x.Image == ""}
	if at.Role.Master {
		s.Flavor = x.MasterFlavor
	}
	if x.Image != "" {
		s.Disks = []fleet.DiskSpec{{Name: "boot", Kind: fleet.KindEphemeralDisk, Flavor: x.DiskFlavor, Boot: true}}
	}
	if x.Subnet != "" {
		s.Subnets = []fleet.SubnetID{x.Subnet}
	}
	v := vm{VM: fleet.VM{ID: id, Project: x.Project, Name: s.Name, State: fleet.VMCreating, Image: s.Image, Cluster: x.ID, Node: at.Role.Node}}
	err := plan(tx, &v, s)
	v.Need.Cluster = x.ID
	return v, err
}

// addNode writes the records of a new node, and charges for it. What is to be done
// then is seen in them.
func (c *Controller) addNode(ctx context.Context, x cluster, at fleet.Vacancy) (fleet.VMID, error) {
	id := newID[fleet.VMID]()
	err := c.updateInTurn(ctx, func(tx *store.Tx) error {
		now, err := get(tx, clusters, fleet.KindCluster, string(x.ID))
		if err != nil {
			return err
		}
		if now.State == fleet.ClusterPendingDelete {
			return fleet.Errorf(fleet.InvalidOperation, "Cluster %s is to be deleted", x.ID)
		}
		p, err := get(tx, projects, fleet.KindProject, string(x.Project))
		if err != nil {
			return err
		}
		v, err := nodeVM(tx, x, at, id)
		if err != nil {
			return err
		}
		if p.Quota, err = p.Quota.Charge(v.Cost); err != nil {
			return err
		}
		v.Charged = true
		if _, err := use(tx, ref(fleet.KindProject, p.ID), 1); err != nil {
			return err
		}
		n := fleet.Node{VM: id, Cluster: x.ID, Type: at.Role.Node, Name: v.Name, MAC: v.NICs[0].MAC, Addr: at.Addr, Made: c.now()}
		return errors.Join(store.Put(tx, projects, string(p.ID), p), store.Put(tx, projectVMs, string(p.ID)+"/"+string(id), id),
			store.Put(tx, vms, string(id), v), store.Put(tx, nodes, nodeKey(x.ID, id), n))
	})
	return id, err
}

// addSome brings up nodes that are there and makes others, a batch in all.
func (c *Controller) addSome(ctx context.Context, x cluster, todo fleet.Changes) error {
	batch := todo.Raise[:min(len(todo.Raise), x.Batch)]
	var failed []error
	for _, at := range todo.Make[:min(len(todo.Make), x.Batch-len(batch))] {
		if at.Addr.IsValid() {
			if err := c.unanswered(ctx, []netip.Addr{at.Addr}); err != nil {
				failed = append(failed, err)
				break
			}
		}
		id, err := c.addNode(ctx, x, at)
		if err != nil {
			failed = append(failed, err)
			break
		}
		batch = append(slices.Clip(batch), id)
	}
	up, more := c.raise(ctx, x, batch)
	failed = append(failed, more...)
	if err := c.await(ctx, x, up); err != nil {
		failed = append(failed, err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return worst(failed)
}

// raise makes the VMs of nodes and switches them on, side by side. It returns those
// that are on.
func (c *Controller) raise(ctx context.Context, x cluster, ids []fleet.VMID) (up []fleet.VMID, failed []error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			err := c.raiseOne(ctx, x, id)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				up = append(up, id)
			} else {
				failed = append(failed, err)
			}
		})
	}
	wg.Wait()
	return up, failed
}

// raiseOne takes one node as far as it can be taken. One that cannot be made is
// removed, so that it holds nothing.
func (c *Controller) raiseOne(ctx context.Context, x cluster, id fleet.VMID) error {
	n, err := store1(ctx, c, nodes, nodeKey(x.ID, id))
	if err != nil {
		return err
	}
	err = c.powerUp(ctx, x, n)
	if err == nil || ctx.Err() != nil || again(err) || !n.On.IsZero() {
		return err
	}
	if worse := c.removeNode(ctx, x, n, false); worse != nil {
		c.log.Warn("a node that cannot be made cannot be removed yet", "cluster", x.ID, "vm", id, "err", worse)
	}
	return err
}

// store1 reads one record past transactions.
func store1[T any](ctx context.Context, c *Controller, k store.Kind[T], id string) (v T, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		v, err = store.Get(tx, k, id)
		return err
	})
	return v, err
}

func (c *Controller) powerUp(ctx context.Context, x cluster, n fleet.Node) error {
	if err := c.placeVM(ctx, n.VM); err != nil {
		return err
	}
	told, err := c.options.Nodes.Prepare(ctx, x.Cluster, n)
	if err != nil {
		return err
	}
	v, err := find(ctx, c, vms, fleet.KindVM, string(n.VM))
	if err != nil {
		return err
	}
	if v.State == fleet.VMCreating {
		if err := c.makeVM(ctx, n.VM, told); err != nil {
			return err
		}
		if v, err = find(ctx, c, vms, fleet.KindVM, string(n.VM)); err != nil {
			return err
		}
	}
	if v.State != fleet.VMStarted {
		if err := c.switchVM(ctx, v, fleet.StartVM); err != nil {
			return err
		}
	}
	return c.setNode(ctx, n, func(n *fleet.Node) {
		if n.On.IsZero() {
			n.On = c.now()
		}
	})
}

// setNode changes the record of a node that is there still.
func (c *Controller) setNode(ctx context.Context, n fleet.Node, f func(*fleet.Node)) error {
	return c.store.Update(ctx, func(tx *store.Tx) error {
		now, err := store.Get(tx, nodes, nodeKey(n.Cluster, n.VM))
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		f(&now)
		return store.Put(tx, nodes, nodeKey(n.Cluster, n.VM), now)
	})
}

// await waits until nodes are up, as long as that may take.
func (c *Controller) await(ctx context.Context, x cluster, ids []fleet.VMID) error {
	if len(ids) == 0 {
		return nil
	}
	var last error
	for end := c.now().Add(c.options.Grace); ; {
		if _, err := c.present(ctx, string(x.ID)); err != nil {
			return err
		}
		looks, err := c.lookAt(ctx, x)
		if err != nil {
			last = err
		} else if last = missing(looks, ids); last == nil {
			return nil
		}
		if lost := (lostNode{}); errors.As(last, &lost) {
			return lost.err
		}
		if !c.now().Before(end) {
			return last
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.options.Look):
		}
	}
}

// A lostNode is one that is not to be waited for.
type lostNode struct{ err *fleet.Error }

func (l lostNode) Error() string { return l.err.Error() }

// missing is nil once nodes are up, or says which is not.
func missing(looks []fleet.NodeLook, ids []fleet.VMID) error {
	var waiting error
	for _, l := range looks {
		if !slices.Contains(ids, l.VM) || l.Works() {
			continue
		}
		at := ""
		if l.Addr.IsValid() {
			at = " (" + l.Addr.String() + ")"
		}
		if l.State != fleet.VMStarted {
			why := cmp.Or(l.Fault, "its VM is in state "+string(l.State))
			return lostNode{fleet.Errorf(fleet.InvalidVMState, "Node %s%s was lost while it came up: %s", l.Name, at, why)}
		}
		waiting = fleet.Errorf(fleet.InternalError, "Node %s%s is on and did not come up: %s", l.Name, at,
			cmp.Or(l.Why, "it was not heard of; see its screen, and whether its address, gateway and DNS server are right"))
	}
	return waiting
}

// inspect asks the hosts what the VMs of a cluster do, in case something was missed.
// Hosts that do not answer are left out.
func (c *Controller) inspect(ctx context.Context, id fleet.ClusterID) error {
	all, err := c.nodesOf(ctx, id)
	if err != nil {
		return err
	}
	for _, n := range all {
		v, err := find(ctx, c, vms, fleet.KindVM, string(n.VM))
		if fleet.CodeOf(err) == fleet.VMNotFound || err == nil && v.Host == "" {
			continue
		}
		if err != nil {
			return err
		}
		if away, err := c.away(ctx, v.Host); err != nil || !away.IsZero() {
			continue
		}
		y, err := c.hypervisor(ctx, v.Host)
		if fleet.CodeOf(err) == fleet.HostNotFound {
			continue
		}
		if err == nil {
			err = c.noteVM(ctx, v.Host, y, v.ID, "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeSome removes nodes: those with addresses one after the other, since the
// others of them have to agree about it, and the rest side by side.
func (c *Controller) removeSome(ctx context.Context, x cluster, looks []fleet.NodeLook, list []fleet.Removal) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	slots := make(chan struct{}, x.Batch)
	for _, r := range list {
		i := slices.IndexFunc(looks, func(l fleet.NodeLook) bool { return l.VM == r.VM })
		n := looks[i].Node
		c.log.Info("a node is removed", "cluster", x.ID, "vm", n.VM, "name", n.Name, "reason", r.Why)
		if err := c.setNode(ctx, n, func(n *fleet.Node) { n.Leaving = true }); err != nil {
			return err
		}
		remove := func() {
			if err := c.removeNode(ctx, x, n, r.Drain); err != nil {
				mu.Lock()
				failed = append(failed, err)
				mu.Unlock()
			}
		}
		if n.Addr.IsValid() {
			remove()
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			remove()
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return worst(failed)
}

// removeAll removes nodes of a cluster as they are, all of them if it goes well.
func (c *Controller) removeAll(ctx context.Context, id string, which func(fleet.Node) bool) error {
	x, err := find(ctx, c, clusters, fleet.KindCluster, id)
	if fleet.CodeOf(err) == fleet.ClusterNotFound {
		return nil // a repetition
	}
	if err != nil {
		return err
	}
	all, err := c.nodesOf(ctx, x.ID)
	if err != nil {
		return err
	}
	var looks []fleet.NodeLook
	var list []fleet.Removal
	for _, n := range all {
		if which(n) {
			looks = append(looks, fleet.NodeLook{Node: n})
			list = append(list, fleet.Removal{VM: n.VM, Why: "the cluster is deleted, or could not be made"})
		}
	}
	return c.removeSome(ctx, x, looks, list)
}

// removeNode takes a node out of its cluster and deletes its VM.
func (c *Controller) removeNode(ctx context.Context, x cluster, n fleet.Node, drain bool) error {
	if !n.On.IsZero() {
		switch err := c.options.Nodes.Leave(ctx, x.Cluster, n, drain); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && drain:
			return err
		case err != nil: // who is lost, or goes with the cluster, must not keep it from going
			c.log.Warn("a node could not leave its cluster", "cluster", x.ID, "vm", n.VM, "name", n.Name, "err", err)
		}
	}
	v, err := find(ctx, c, vms, fleet.KindVM, string(n.VM))
	switch {
	case err == nil:
		err = c.removeVM(ctx, v)
	case fleet.CodeOf(err) == fleet.VMNotFound:
		err = c.store.Update(ctx, func(tx *store.Tx) error { store.Delete(tx, nodes, nodeKey(x.ID, n.VM)); return nil })
	}
	if err != nil {
		return err
	}
	if err := c.options.Nodes.Forget(ctx, x.Cluster, n); err != nil {
		c.log.Warn("a node that is gone is still known elsewhere", "cluster", x.ID, "vm", n.VM, "name", n.Name, "err", err)
	}
	return nil
}

// keepClusters has maintenance done for clusters that lack something, until ctx ends.
func (c *Controller) keepClusters(ctx context.Context) {
	tried := map[string]time.Time{} // clusters in error
	tick := time.NewTicker(c.options.Rounds)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := c.maintainAll(ctx, tried); err != nil && ctx.Err() == nil {
			c.log.Warn("clusters cannot be looked after", "err", err)
		}
	}
}

// retry is how many rounds pass before maintenance that failed is tried again.
const retry = 10

func (c *Controller) maintainAll(ctx context.Context, tried map[string]time.Time) error {
	d, err := c.Deployment(ctx)
	if err != nil || d.State != fleet.DeploymentReady {
		return err
	}
	all, err := store.List(ctx, c.store, clusters, "")
	if all == nil {
		return err
	}
	for _, id := range sorted(all) {
		x := all[id]
		failed := x.State == fleet.ClusterRecoverableError
		if x.State != fleet.ClusterReady && !failed {
			delete(tried, id)
			continue
		}
		if failed && c.now().Sub(tried[id]) < retry*c.options.Rounds {
			continue
		}
		lacks, err := c.lacks(ctx, x)
		if err != nil {
			c.log.Warn("a cluster cannot be looked after", "cluster", id, "err", err)
			continue
		}
		if !lacks && !failed {
			continue
		}
		tried[id] = c.now()
		if _, err := c.MaintainCluster(ctx, itself, x.ID); err != nil && fleet.CodeOf(err) != fleet.StateError {
			c.log.Warn("maintenance of a cluster cannot be ordered", "cluster", id, "err", err)
		}
	}
	return nil
}

// itself is who does what nobody asked for.
var itself = Principal{Name: "bootd", Role: Admin}

// lacks reports whether maintenance would do more than wait, and is not under way.
func (c *Controller) lacks(ctx context.Context, x cluster) (bool, error) {
	all, err := c.tasks.List(ctx, ref(fleet.KindCluster, x.ID))
	if err != nil || slices.ContainsFunc(all, func(t fleet.Task) bool { return !t.State.Ended() }) {
		return false, err
	}
	looks, err := c.lookAt(ctx, x)
	if err != nil {
		return false, err
	}
	todo := fleet.Settle(x.Roles(), looks, c.now(), c.options.Grace)
	off := slices.ContainsFunc(looks, func(l fleet.NodeLook) bool {
		return l.State != fleet.VMStarted && slices.Contains(todo.Raise, l.VM)
	})
	return off || len(todo.Remove)+len(todo.Make) > 0, nil
}
