package photon

import (
	"net/http"

	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

func (s *server) clusterRoutes() routes {
	return routes{
		"/projects/{id}/clusters":            {http.MethodGet: s.listClusters, http.MethodPost: s.createCluster},
		"/clusters/{id}":                     {http.MethodGet: s.getCluster, http.MethodDelete: s.deleteCluster},
		"/clusters/{id}/tasks":               {http.MethodGet: s.entityTasks(fleet.KindCluster, s.lookCluster)},
		"/clusters/{id}/vms":                 {http.MethodGet: s.clusterVMs},
		"/clusters/{id}/resize":              {http.MethodPost: s.resizeCluster},
		"/clusters/{id}/trigger_maintenance": {http.MethodPost: s.maintainCluster},
	}
}

func (c *call) cluster() fleet.ClusterID { return fleet.ClusterID(c.PathValue("id")) }

func (s *server) lookCluster(c *call) error {
	_, err := s.Controller.Cluster(c.ctx(), c.by, c.cluster())
	return err
}

func (c *call) clusterOf(x fleet.Cluster) wire.Cluster {
	return wire.Cluster{
		ID: string(x.ID), Kind: string(fleet.KindCluster), SelfLink: c.link("clusters", string(x.ID)), Name: x.Name, Type: string(x.Type),
		State: clusterState(x.State), ProjectID: string(x.Project), ProjectIDOfSDK: string(x.Project), WorkerCount: x.Workers, SlaveCount: x.Workers,
		MasterVMFlavorName: x.MasterFlavor, OtherVMFlavorName: x.OtherFlavor, ImageID: string(x.Image), ErrorReason: x.ErrorReason,
		ExtendedProperties: x.StoredProperties(),
	}
}

// clusterState is a state as all versions of the clients know it: they wait until a
// cluster is READY or in ERROR, and forever for one in FATAL_ERROR.
func clusterState(s fleet.ClusterState) string {
	if s == fleet.ClusterFatalError || s == fleet.ClusterRecoverableError {
		return "ERROR"
	}
	return string(s)
}

func (s *server) listClusters(c *call) (reply, error) {
	list, err := s.Controller.Clusters(c.ctx(), c.by, c.project())
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	return paged(c, list, func(x fleet.Cluster) string { return byName(x.Name, x.ID) }, c.clusterOf), nil
}

func (s *server) createCluster(c *call) (reply, error) {
	in, err := body[wire.ClusterSpec](c)
	if err != nil {
		return reply{}, err
	}
	workers, err := either("workerCount", in.WorkerCount, in.SlaveCount)
	if err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.CreateCluster(c.ctx(), c.by, c.project(), fleet.ClusterSpec{
		Name: in.Name, Type: fleet.ClusterType(in.Type), VMFlavor: in.VMFlavor, DiskFlavor: in.DiskFlavor, Subnet: fleet.SubnetID(in.VMNetworkID),
		Workers: workers, Batch: max(in.WorkerBatchExpansionSize, in.SlaveBatchExpansionSize), Properties: in.ExtendedProperties,
	}))
}

// either is a number under its newer name or its older one. The newer one counts
// where a client sends both.
func either(path string, newer, older *int) (int, error) {
	switch {
	case newer != nil:
		return *newer, nil
	case older != nil:
		return *older, nil
	}
	var m fleet.Mistakes
	m.Required(path, "")
	return 0, m.Err()
}

func (s *server) getCluster(c *call) (reply, error) {
	x, err := s.Controller.Cluster(c.ctx(), c.by, c.cluster())
	if err != nil {
		return reply{}, err
	}
	return ok(c.clusterOf(x)), nil
}

func (s *server) deleteCluster(c *call) (reply, error) {
	return c.made(s.Controller.DeleteCluster(c.ctx(), c.by, c.cluster()))
}

func (s *server) resizeCluster(c *call) (reply, error) {
	in, err := body[wire.ClusterResize](c)
	if err != nil {
		return reply{}, err
	}
	workers, err := either("newWorkerCount", in.NewWorkerCount, in.NewSlaveCount)
	if err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.ResizeCluster(c.ctx(), c.by, c.cluster(), workers))
}

func (s *server) maintainCluster(c *call) (reply, error) {
	return c.done(s.Controller.MaintainCluster(c.ctx(), c.by, c.cluster()))
}

func (s *server) clusterVMs(c *call) (reply, error) {
	list, err := s.Controller.ClusterVMs(c.ctx(), c.by, c.cluster())
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	return s.pageOfVMs(c, list)
}
