package controller

import (
	"context"
	"errors"
	"net/netip"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

const createCluster fleet.Operation = "CREATE_CLUSTER"

var (
	clusters        = store.Kind[cluster]{Name: "cluster"}
	projectClusters = store.Kind[fleet.ClusterID]{Name: "project-cluster"} // by project ID/cluster ID
	nodes           = store.Kind[fleet.Node]{Name: "cluster-node"}         // by cluster ID/VM ID
)

// A cluster is a cluster and what it uses. Its nodes are VMs, and records that say
// what each is in the cluster: they are what a task that goes on after a kill finds.
type cluster struct {
	fleet.Cluster
	Flavors []fleet.FlavorID `json:"flavors"` // that count it as a user
	// Settled is the task that ordered the latest maintenance, so that it orders one
	// only once.
	Settled fleet.TaskID `json:"settled,omitempty"`
}

func nodeKey(c fleet.ClusterID, vm fleet.VMID) string { return string(c) + "/" + string(vm) }

// A NodeMaker is what makes VMs the nodes of clusters: it knows what they boot with.
// Errors for clients are [fleet.Error]s; those with a method Passing() bool that says
// true may be gone later.
type NodeMaker interface {
	// Check is nil, or tells why a cluster like this cannot be. It decides by what is
	// configured alone, and at once.
	Check(fleet.Cluster) error
	// Answering returns those of some addresses that some machine has already.
	Answering(context.Context, []netip.Addr) ([]netip.Addr, error)
	// Prepare is called before a node is made or switched on, also again. It returns
	// what the node finds as guest info of its VM, if that has a disk.
	Prepare(context.Context, fleet.Cluster, fleet.Node) (map[string]string, error)
	// Forget is called when a node's VM is gone.
	Forget(context.Context, fleet.Cluster, fleet.Node) error
}

// A Registry is what knows how nodes do once they have come up.
type Registry interface {
	// Standings tells how nodes do, by VM. Who is left out is not up.
	Standings(context.Context, fleet.Cluster, []fleet.Node) (map[fleet.VMID]fleet.Standing, error)
	// Leave takes a node out of its cluster. With drain it returns when what runs on
	// the node was moved, or as much of it as can be in the time that there is.
	Leave(ctx context.Context, c fleet.Cluster, n fleet.Node, drain bool) error
}

// Nodes is both.
type Nodes interface {
	NodeMaker
	Registry
}

const kindAddress fleet.Kind = "address" // among the names that are not given twice

// CreateCluster makes a cluster in a project. What is wrong with its addresses is
// found out before anything is made. Its task makes the nodes with known addresses
// and a worker; the other workers are made once that is completed, some at a time.
func (c *Controller) CreateCluster(ctx context.Context, by Principal, project fleet.ProjectID, s fleet.ClusterSpec) (fleet.Task, error) {
	if c.options.Nodes == nil {
		return fleet.Task{}, fleet.Errorf(fleet.InvalidOperation, "This bootd makes no clusters")
	}
	id := newID[fleet.ClusterID]()
	made, err := s.Cluster(id, project)
	if err != nil {
		return fleet.Task{}, err
	}
	return c.changeInTurn(ctx, by, func(tx *store.Tx) (change, error) {
		p, err := get(tx, projects, fleet.KindProject, string(project))
		if err != nil {
			return change{}, err
		}
		if err := by.uses(p); err != nil {
			return change{}, err
		}
		x := cluster{Cluster: made}
		d, err := deployment(tx)
		if err != nil {
			return change{}, err
		}
		if x.Image, err = d.ImageOf(x.Type); err != nil {
			return change{}, err
		}
		if err := c.options.Nodes.Check(x.Cluster); err != nil {
			return change{}, err
		}
		if err := useForCluster(tx, &x); err != nil {
			return change{}, err
		}
		return change{operation: createCluster, variant: string(x.Type), entity: ref(fleet.KindCluster, id), tenant: p.Tenant, project: project, name: x.Name, queued: true},
			errors.Join(store.Put(tx, projectClusters, string(project)+"/"+string(id), id), store.Put(tx, clusters, string(id), x))
	})
}

// useForCluster counts a cluster as a user of all that its nodes need, so that
// nothing of it goes before the cluster, and takes its addresses.
func useForCluster(tx *store.Tx, x *cluster) error {
	for _, f := range []struct {
		name string
		kind fleet.Kind
	}{{x.MasterFlavor, fleet.KindVM}, {x.OtherFlavor, fleet.KindVM}, {x.DiskFlavor, fleet.KindEphemeralDisk}} {
		if f.kind == fleet.KindEphemeralDisk && x.Image == "" {
			continue
		}
		found, err := useFlavor(tx, f.name, f.kind)
		if err != nil {
			return err
		}
		x.Flavors = append(x.Flavors, found.ID)
	}
	if x.Image != "" {
		if _, err := useImage(tx, x.Image); err != nil {
			return err
		}
	}
	if x.Subnet != "" {
		n, err := get(tx, subnets, fleet.KindSubnet, string(x.Subnet))
		if err == nil {
			err = n.Usable()
		}
		if err == nil {
			_, err = use(tx, ref(fleet.KindSubnet, x.Subnet), 1)
		}
		if err != nil {
			return err
		}
	}
	for _, a := range x.Addrs() {
		other, err := orZero(tx, names, nameKey(kindAddress, string(x.Subnet), a.String()))
		if err != nil {
			return err
		}
		if other != "" {
			return fleet.Errorf(fleet.SpecInvalid, "%s is an address of cluster %s", a, other)
		}
		if err := take(tx, kindAddress, string(x.Subnet), a.String(), string(x.ID)); err != nil {
			return err
		}
	}
	_, err := use(tx, ref(fleet.KindProject, x.Project), 1)
	return err
}

// forgetCluster is the end of a cluster without nodes.
func (c *Controller) forgetCluster(tx *store.Tx, id fleet.ClusterID) error {
	x, err := get(tx, clusters, fleet.KindCluster, string(id))
	if fleet.CodeOf(err) == fleet.ClusterNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range x.Flavors {
		if err := leaveFlavor(tx, f); err != nil {
			return err
		}
	}
	if x.Image != "" {
		if err := c.leaveImage(tx, x.Image); err != nil {
			return err
		}
	}
	if x.Subnet != "" {
		if err := leaveSubnet(tx, x.Subnet); err != nil {
			return err
		}
	}
	for _, a := range x.Addrs() {
		drop(tx, kindAddress, string(x.Subnet), a.String())
	}
	if _, err := use(tx, ref(fleet.KindProject, x.Project), -1); err != nil {
		return err
	}
	store.Delete(tx, projectClusters, string(x.Project)+"/"+string(id))
	store.Delete(tx, clusters, string(id))
	return nil
}

// clusterFor reads a cluster for somebody who may use its project.
func clusterFor(tx *store.Tx, by Principal, id fleet.ClusterID) (cluster, fleet.Project, error) {
	x, err := get(tx, clusters, fleet.KindCluster, string(id))
	if err != nil {
		if by.Role != Admin && fleet.CodeOf(err) == fleet.ClusterNotFound {
			err = by.forbidden() // who may not see all is not told what there is
		}
		return x, fleet.Project{}, err
	}
	p, err := get(tx, projects, fleet.KindProject, string(x.Project))
	if err == nil {
		err = by.uses(p)
	}
	return x, p, err
}

// Cluster returns a cluster to those who may use its project.
func (c *Controller) Cluster(ctx context.Context, by Principal, id fleet.ClusterID) (out fleet.Cluster, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) error {
		x, _, err := clusterFor(tx, by, id)
		if err == nil {
			out = x.Cluster
		}
		return err
	})
	return out, err
}

// Clusters lists the clusters of a project by name. A project that is not there has
// none.
func (c *Controller) Clusters(ctx context.Context, by Principal, project fleet.ProjectID) ([]fleet.Cluster, error) {
	p, err := find(ctx, c, projects, fleet.KindProject, string(project))
	if err == nil {
		err = by.uses(p)
	} else if fleet.CodeOf(err) == fleet.NotFound && by.Role == Admin {
		return []fleet.Cluster{}, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := store.List(ctx, c.store, projectClusters, string(project)+"/")
	if all == nil {
		return nil, err
	}
	out := []fleet.Cluster{}
	for _, key := range sorted(all) {
		x, err := find(ctx, c, clusters, fleet.KindCluster, string(all[key]))
		switch {
		case fleet.CodeOf(err) == fleet.ClusterNotFound: // it has just gone
		case err != nil:
			return nil, err
		default:
			out = append(out, x.Cluster)
		}
	}
	return out, nil
}

// ClusterVMs lists the VMs of a cluster by name.
func (c *Controller) ClusterVMs(ctx context.Context, by Principal, id fleet.ClusterID) ([]fleet.VM, error) {
	if _, err := c.Cluster(ctx, by, id); err != nil {
		return nil, err
	}
	all, err := c.nodesOf(ctx, id)
	if err != nil {
		return nil, err
	}
	ids := []fleet.VMID{}
	for _, n := range all {
		ids = append(ids, n.VM)
	}
	return c.vmsNamed(ctx, ids, "")
}

// ClusterNodes are the nodes of all clusters, with their clusters.
func (c *Controller) ClusterNodes(ctx context.Context) ([]fleet.Cluster, []fleet.Node, error) {
	all, err := store.List(ctx, c.store, clusters, "")
	if all == nil {
		return nil, nil, err
	}
	there, worse := store.List(ctx, c.store, nodes, "")
	if there == nil {
		return nil, nil, worse
	}
	var known []fleet.Cluster
	for _, id := range sorted(all) {
		known = append(known, all[id].Cluster)
	}
	var out []fleet.Node
	for _, key := range sorted(there) {
		out = append(out, there[key])
	}
	return known, out, errors.Join(err, worse)
}

// nodesOf are the nodes of a cluster.
func (c *Controller) nodesOf(ctx context.Context, id fleet.ClusterID) ([]fleet.Node, error) {
	all, err := store.List(ctx, c.store, nodes, string(id)+"/")
	if err != nil {
		return nil, err
	}
	out := []fleet.Node{}
	for _, key := range sorted(all) {
		out = append(out, all[key])
	}
	return out, nil
}

// A resizing is what the task of a resize has to know: what was before.
type resizing struct {
	Workers int                `json:"workers"`
	State   fleet.ClusterState `json:"state"`
}

// ResizeCluster gives a cluster more workers or fewer. What runs on those that go is
// moved first. The cluster is RESIZING when the task is completed, until it is READY.
func (c *Controller) ResizeCluster(ctx context.Context, by Principal, id fleet.ClusterID, workers int) (fleet.Task, error) {
	return c.changeCluster(ctx, by, id, fleet.ResizeCluster, func(x *cluster, to fleet.ClusterState) (any, error) {
		was := resizing{x.Workers, x.State}
		x.Workers, x.State = workers, to
		return was, x.CheckResize(workers)
	})
}

// MaintainCluster looks at once whether all nodes of a cluster are there and up,
// which is done by itself now and then, and replaces those that are not.
func (c *Controller) MaintainCluster(ctx context.Context, by Principal, id fleet.ClusterID) (fleet.Task, error) {
	return c.changeCluster(ctx, by, id, fleet.MaintainCluster, func(*cluster, fleet.ClusterState) (any, error) { return nil, nil })
}

// DeleteCluster deletes a cluster with its VMs, in any state. What is being done to
// it is given up.
func (c *Controller) DeleteCluster(ctx context.Context, by Principal, id fleet.ClusterID) (fleet.Task, error) {
	t, err := c.changeCluster(ctx, by, id, fleet.DeleteCluster, func(x *cluster, to fleet.ClusterState) (any, error) {
		x.State = to
		return nil, nil
	})
	if err != nil {
		return t, err
	}
	// Tasks of one entity are carried out one after the other. If this process ends
	// here, they find that the cluster is to be deleted, only later.
	before, err := c.tasks.List(ctx, t.Entity)
	for _, b := range before {
		if b.ID != t.ID && !b.State.Ended() && b.Operation != fleet.DeleteCluster {
			err = errors.Join(err, c.tasks.Cancel(ctx, b.ID))
		}
	}
	if err != nil && ctx.Err() == nil {
		c.log.Warn("a cluster is deleted only when what is being done to it has ended", "cluster", id, "err", err)
	}
	return t, nil
}

// changeCluster is a verb on a cluster, whose state must allow it.
func (c *Controller) changeCluster(ctx context.Context, by Principal, id fleet.ClusterID, op fleet.Operation,
	f func(x *cluster, to fleet.ClusterState) (argument any, err error)) (fleet.Task, error) {
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		x, p, err := clusterFor(tx, by, id)
		if err != nil {
			return change{}, err
		}
		to, err := x.After(op)
		if err != nil {
			return change{}, err
		}
		argument, err := f(&x, to)
		if err != nil {
			return change{}, err
		}
		return change{operation: op, entity: ref(fleet.KindCluster, id), tenant: p.Tenant, project: p.ID, name: x.Name, queued: true, argument: argument},
			store.Put(tx, clusters, string(id), x)
	})
}
