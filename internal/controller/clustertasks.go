package controller

import (
	"context"
	"errors"
	"slices"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

const (
	resizeInitialize  fleet.Operation = "RESIZE_CLUSTER_INITIALIZE_CLUSTER"
	resizeResize      fleet.Operation = "RESIZE_CLUSTER_RESIZE"
	deleteClusterVMs  fleet.Operation = "DELETE_CLUSTER_DELETE_VMS"
	deleteClusterDocs fleet.Operation = "DELETE_CLUSTER_DOCUMENT"
)

// setups are the steps that make the nodes of a type, as Photon calls them.
var setups = map[fleet.NodeType]string{
	fleet.SwarmEtcd: "SETUP_ETCD", fleet.SwarmWorker: "SETUP_WORKERS",
	fleet.KubernetesEtcd: "SETUP_ETCD", fleet.KubernetesMaster: "SETUP_MASTER", fleet.KubernetesWorker: "SETUP_WORKERS",
	fleet.MesosZookeeper: "SETUP_ZOOKEEPERS", fleet.MesosMaster: "SETUP_MASTERS", fleet.MesosMarathon: "SETUP_MARATHON", fleet.MesosWorker: "SETUP_WORKERS",
}

// clusterPlans are how clusters are made, changed and deleted. While a cluster is made
// every failure undoes all of it; later the nodes that are there stay, and what is
// lacking is tried again.
func (c *Controller) clusterPlans() []task.Plan {
	plans := []task.Plan{
		{Operation: fleet.ResizeCluster, Steps: []task.Step{
			{Operation: resizeInitialize, Do: c.doCheckResize, Undo: c.undoResize},
			{Operation: resizeResize, Do: c.orderMaintenance},
		}},
		{Operation: fleet.MaintainCluster, Steps: []task.Step{{Operation: fleet.MaintainCluster, Do: c.doMaintainCluster, Undo: c.undoMaintain}}},
		{Operation: fleet.DeleteCluster, Steps: []task.Step{
			{Operation: deleteClusterVMs, Do: c.doDeleteNodes, Undo: c.undoDeleteNodes},
			{Operation: deleteClusterDocs, Do: c.doForgetCluster},
		}},
	}
	for _, t := range fleet.ClusterTypes() {
		name := func(step string) fleet.Operation {
			return fleet.Operation("CREATE_" + string(t) + "_CLUSTER_" + step)
		}
		p := task.Plan{Operation: createCluster, Variant: string(t), Steps: []task.Step{{Operation: name("INITIATE"), Do: c.doInitiate, Undo: c.undoInitiate}}}
		roles := fleet.Cluster{Type: t}.Roles()
		for i, r := range roles {
			p.Steps = append(p.Steps, task.Step{
				Operation: name(setups[r.Node]), Do: c.doSetUp(r.Node, i == len(roles)-1), Undo: c.undoSetUp(r.Node),
			})
		}
		plans = append(plans, p)
	}
	return plans
}

// setCluster changes the record of a cluster.
func (c *Controller) setCluster(ctx context.Context, id string, f func(*cluster)) error {
	return c.store.Update(ctx, func(tx *store.Tx) error {
		x, err := get(tx, clusters, fleet.KindCluster, id)
		if err != nil {
			return err
		}
		was := x.State
		f(&x)
		if !was.CanBecome(x.State) {
			return nil // it is to be deleted, or never came to be
		}
		return store.Put(tx, clusters, id, x)
	})
}

// present returns a cluster that is not to be deleted.
func (c *Controller) present(ctx context.Context, id string) (cluster, error) {
	x, err := find(ctx, c, clusters, fleet.KindCluster, id)
	if err == nil && x.State == fleet.ClusterPendingDelete {
		err = fleet.Errorf(fleet.InvalidOperation, "Cluster %s is to be deleted", id)
	}
	return x, err
}

// doInitiate finds out, before anything is made, what would be in vain later.
func (c *Controller) doInitiate(ctx context.Context, call *task.Call) error {
	x, err := c.present(ctx, call.Entity.ID)
	if err != nil {
		return err
	}
	there, err := c.nodesOf(ctx, x.ID)
	if err != nil || len(there) > 0 {
		return err
	}
	if err := c.unanswered(ctx, x.Addrs()); err != nil {
		return err
	}
	counts := map[fleet.NodeType]int{}
	for _, r := range x.Roles() {
		counts[r.Node] = r.Count
	}
	return c.affordable(ctx, x, counts)
}

func (c *Controller) doCheckResize(ctx context.Context, call *task.Call) error {
	x, err := c.present(ctx, call.Entity.ID)
	if err != nil {
		return err
	}
	there, err := c.nodesOf(ctx, x.ID)
	if err != nil {
		return err
	}
	counts := map[fleet.NodeType]int{}
	for _, r := range x.Roles() {
		has := 0
		for _, n := range there {
			if n.Type == r.Node {
				has++
			}
		}
		counts[r.Node] = max(0, r.Count-has)
	}
	return c.affordable(ctx, x, counts)
}

// undoResize leaves a cluster as large as it was.
func (c *Controller) undoResize(ctx context.Context, call *task.Call) error {
	var was resizing
	if err := call.Argument(&was); err != nil {
		return err
	}
	return c.setCluster(ctx, call.Entity.ID, func(x *cluster) {
		if x.State == fleet.ClusterResizing {
			x.Workers, x.State = was.Workers, was.State
		}
	})
}

// orderMaintenance has the rest of the work done by a task of its own, for which
// nobody has to wait.
func (c *Controller) orderMaintenance(ctx context.Context, call *task.Call) error {
	return c.store.Update(ctx, func(tx *store.Tx) error {
		x, err := get(tx, clusters, fleet.KindCluster, call.Entity.ID)
		if err != nil || x.Settled == call.Task || x.State == fleet.ClusterPendingDelete {
			return err
		}
		p, err := get(tx, projects, fleet.KindProject, string(x.Project))
		if err != nil {
			return err
		}
		x.Settled = call.Task
		o := task.Order{Operation: fleet.MaintainCluster, Entity: call.Entity, Tenant: p.Tenant, Project: p.ID}
		if _, err := c.tasks.Add(tx, o); err != nil {
			return err
		}
		return store.Put(tx, clusters, call.Entity.ID, x)
	})
}

// doSetUp makes the nodes of one type; of workers the first. After the last step the
// cluster is ready, or its other workers are made.
func (c *Controller) doSetUp(t fleet.NodeType, last bool) func(context.Context, *task.Call) error {
	only := func(x fleet.Cluster) []fleet.Role {
		r, _ := x.Role(t)
		if r.Worker {
			r.Count = min(r.Count, 1)
		}
		return []fleet.Role{r}
	}
	return func(ctx context.Context, call *task.Call) error {
		if err := c.settle(ctx, call.Entity.ID, only); err != nil || !last {
			return err
		}
		x, err := c.present(ctx, call.Entity.ID)
		if err != nil {
			return err
		}
		if x.Workers > 1 {
			return c.orderMaintenance(ctx, call)
		}
		return c.setReady(ctx, call.Entity.ID)
	}
}

func (c *Controller) undoSetUp(t fleet.NodeType) func(context.Context, *task.Call) error {
	return func(ctx context.Context, call *task.Call) error {
		return c.removeAll(ctx, call.Entity.ID, func(n fleet.Node) bool { return n.Type == t })
	}
}

// undoInitiate leaves a cluster that never came to be, with the reason.
func (c *Controller) undoInitiate(ctx context.Context, call *task.Call) error {
	return c.blame(ctx, call, fleet.ClusterFatalError)
}

// blame keeps why a task on a cluster failed. When the cluster is to be deleted only
// the deletion's own failure counts.
func (c *Controller) blame(ctx context.Context, call *task.Call, state fleet.ClusterState) error {
	t, err := c.tasks.Get(ctx, call.Task)
	if err != nil {
		return err
	}
	why := c.reason(ctx, call)
	return c.setCluster(ctx, call.Entity.ID, func(x *cluster) {
		if x.State != fleet.ClusterPendingDelete || t.Operation == fleet.DeleteCluster {
			x.State, x.ErrorReason = state, why
		}
	})
}

func (c *Controller) doMaintainCluster(ctx context.Context, call *task.Call) error {
	if err := c.inspect(ctx, fleet.ClusterID(call.Entity.ID)); err != nil {
		return err
	}
	if err := c.settle(ctx, call.Entity.ID, fleet.Cluster.Roles); err != nil {
		return err
	}
	return c.setReady(ctx, call.Entity.ID)
}

func (c *Controller) setReady(ctx context.Context, id string) error {
	return c.setCluster(ctx, id, func(x *cluster) {
		if x.State != fleet.ClusterPendingDelete {
			x.State, x.ErrorReason = fleet.ClusterReady, ""
		}
	})
}

func (c *Controller) undoMaintain(ctx context.Context, call *task.Call) error {
	return c.blame(ctx, call, fleet.ClusterRecoverableError)
}

func (c *Controller) doDeleteNodes(ctx context.Context, call *task.Call) error {
	return c.removeAll(ctx, call.Entity.ID, func(fleet.Node) bool { return true })
}

// undoDeleteNodes leaves a cluster that can be deleted again, with the reason.
func (c *Controller) undoDeleteNodes(ctx context.Context, call *task.Call) error {
	return c.blame(ctx, call, fleet.ClusterFatalError)
}

func (c *Controller) doForgetCluster(ctx context.Context, call *task.Call) error {
	return c.updateInTurn(ctx, func(tx *store.Tx) error { return c.forgetCluster(tx, fleet.ClusterID(call.Entity.ID)) })
}

// settle makes, replaces and removes nodes until there are those of some roles.
func (c *Controller) settle(ctx context.Context, id string, roles func(fleet.Cluster) []fleet.Role) error {
	for {
		x, err := c.present(ctx, id)
		if err != nil {
			return err
		}
		looks, err := c.lookAt(ctx, x)
		if err != nil {
			return err
		}
		todo := fleet.Settle(roles(x.Cluster), looks, c.now(), c.options.Grace)
		switch {
		case todo.None():
			return nil
		case len(todo.Remove) > 0:
			err = c.removeSome(ctx, x, looks, todo.Remove)
		default:
			err = c.addSome(ctx, x, todo)
		}
		if err != nil {
			return err
		}
	}
}

// lookAt is what is known of the nodes of a cluster.
func (c *Controller) lookAt(ctx context.Context, x cluster) ([]fleet.NodeLook, error) {
	all, err := c.nodesOf(ctx, x.ID)
	if err != nil {
		return nil, err
	}
	var on []fleet.Node
	for _, n := range all {
		if !n.On.IsZero() {
			on = append(on, n)
		}
	}
	standings := map[fleet.VMID]fleet.Standing{}
	if len(on) > 0 {
		if standings, err = c.options.Nodes.Standings(ctx, x.Cluster, on); err != nil {
			return nil, err
		}
	}
	out := []fleet.NodeLook{}
	for _, n := range all {
		l := fleet.NodeLook{Node: n, Standing: standings[n.VM], State: fleet.VMDeleted}
		v, err := find(ctx, c, vms, fleet.KindVM, string(n.VM))
		if err == nil {
			l.State, l.Fault, l.Host = v.State, v.Fault, v.Host
			l.Away, err = c.away(ctx, v.Host)
		}
		if err != nil && fleet.CodeOf(err) != fleet.VMNotFound {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// away is since when a host does not answer; zero: it does.
func (c *Controller) away(ctx context.Context, id fleet.HostID) (time.Time, error) {
	if id == "" {
		return time.Time{}, nil
	}
	h, err := find(ctx, c, hosts, fleet.KindHost, string(id))
	if fleet.CodeOf(err) == fleet.HostNotFound {
		return time.Time{}, nil // its VMs are in ERROR
	}
	if err != nil || h.Health.Reachable {
		return time.Time{}, err
	}
	return h.Health.Since, nil
}

// again reports whether the same may succeed later.
func again(err error) bool {
	var p interface{ Passing() bool }
	return errors.As(err, &p) && p.Passing() || errors.Is(err, store.ErrConflict)
}

// worst is the error that decides: one that will not pass by itself, if there is one.
func worst(all []error) error {
	all = slices.DeleteFunc(all, func(err error) bool { return err == nil })
	for _, err := range all {
		if !again(err) {
			return err
		}
	}
	if len(all) > 0 {
		return all[0]
	}
	return nil
}
