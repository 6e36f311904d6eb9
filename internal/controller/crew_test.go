package controller_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"bootd/internal/controller"
	"bootd/internal/controller/controllertest"
	"bootd/internal/fleet"
)

// clusterSite is a site with clusters, whose nodes boot an image, and hosts.
type clusterSite struct {
	*site
	crew  controllertest.Crew
	image fleet.ImageID
}

func newClusterSite(t *testing.T) *clusterSite {
	t.Helper()
	s := &clusterSite{site: newSite(t)}
	s.configure(nil)
	return s
}

// configure starts the controller anew, with other options unless f is nil.
func (s *clusterSite) configure(f func(*controller.Options)) {
	s.Helper()
	s.stop()
	s.tune = func(o *controller.Options) {
		o.Nodes, o.Look, o.Rounds, o.Grace = &s.crew, 10*time.Millisecond, 24*time.Hour, patience/2
		if f != nil {
			f(o)
		}
	}
	s.start()
}

// enable uploads an image and allows clusters of some types.
func (s *clusterSite) enable(kinds ...fleet.ClusterType) {
	s.Helper()
	s.image = s.site.image(fleet.OnDemand)
	for _, k := range kinds {
		must(s.T)(s.control.EnableClusters(s.ctx(), root, fleet.DefaultDeployment, k, s.image))
	}
}

// spec is a swarm of a manager and so many workers.
func spec(workers int, more ...string) fleet.ClusterSpec {
	p := map[string]string{"dns": "10.0.0.1", "gateway": "10.0.0.1", "netmask": "255.255.255.0", "etcd_ip1": "10.0.0.11"}
	for i := 0; i < len(more); i += 2 {
		p[more[i]] = more[i+1]
	}
	return fleet.ClusterSpec{Name: "swarm2", Type: fleet.Swarm, VMFlavor: "small", DiskFlavor: "plain", Workers: workers, Properties: p}
}

func (s *clusterSite) create(x fleet.ClusterSpec) (fleet.Task, error) {
	return s.control.CreateCluster(s.ctx(), root, s.project, x)
}

// made makes a cluster, and waits until it is ready.
func (s *clusterSite) made(x fleet.ClusterSpec) fleet.ClusterID {
	s.Helper()
	id := fleet.ClusterID(s.done(s.create(x)))
	s.becomes(id, fleet.ClusterReady)
	return id
}

func (s *clusterSite) get(id fleet.ClusterID) fleet.Cluster {
	s.Helper()
	x, err := s.control.Cluster(s.ctx(), root, id)
	if err != nil {
		s.Fatal(err)
	}
	return x
}

func (s *clusterSite) becomes(id fleet.ClusterID, want fleet.ClusterState) {
	s.Helper()
	s.until("the cluster is "+string(want), func() bool {
		x := s.get(id)
		if x.State == fleet.ClusterFatalError && want != fleet.ClusterFatalError || x.State == fleet.ClusterRecoverableError && want != fleet.ClusterRecoverableError {
			s.Fatalf("the cluster is %s: %s", x.State, x.ErrorReason)
		}
		return x.State == want
	})
}

// members are the VMs of a cluster of one type.
func (s *clusterSite) members(id fleet.ClusterID, t fleet.NodeType) []fleet.VM {
	s.Helper()
	all, err := s.control.ClusterVMs(s.ctx(), root, id)
	if err != nil {
		s.Fatal(err)
	}
	return slices.DeleteFunc(all, func(v fleet.VM) bool { return v.Node != t })
}

// counts says how many nodes of each type a cluster has that are on.
func (s *clusterSite) counts(id fleet.ClusterID) map[fleet.NodeType]int {
	s.Helper()
	all, err := s.control.ClusterVMs(s.ctx(), root, id)
	if err != nil {
		s.Fatal(err)
	}
	out := map[fleet.NodeType]int{}
	for _, v := range all {
		if v.State == fleet.VMStarted {
			out[v.Node]++
		}
	}
	return out
}

// gone deletes a cluster.
func (s *clusterSite) gone(id fleet.ClusterID) {
	s.Helper()
	s.done(s.control.DeleteCluster(s.ctx(), root, id))
	_, err := s.control.Cluster(s.ctx(), root, id)
	fails(s.T, err, fleet.ClusterNotFound, "Cluster with id "+string(id)+" not found")
}

var errWanted = errors.New("a test wants this to fail")
