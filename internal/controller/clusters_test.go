package controller_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/simulator"

	"bootd/internal/controller"
	"bootd/internal/controller/controllertest"
	"bootd/internal/esx/esxtest"
	"bootd/internal/fleet"
)

// C1: a cluster that is not there.
func TestClustersC1(t *testing.T) {
	s := newClusterSite(t)
	_, err := s.control.Cluster(s.ctx(), root, "none")
	fails(t, err, fleet.ClusterNotFound, "Cluster with id none not found")
	_, err = s.control.DeleteCluster(s.ctx(), root, "none")
	fails(t, err, fleet.ClusterNotFound, "none")
	_, err = s.control.ResizeCluster(s.ctx(), root, "none", 3)
	fails(t, err, fleet.ClusterNotFound, "none")
	_, err = s.control.Cluster(s.ctx(), controller.Principal{Name: "u", Role: controller.ProjectUser, Tenant: s.tenant, Project: s.project}, "none")
	fails(t, err, fleet.AccessForbidden, "u may not")
	if all, err := s.control.Clusters(s.ctx(), root, "no project"); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// C2: a swarm's whole life, with more workers and fewer.
func TestClustersC2(t *testing.T) {
	s := newClusterSite(t)
	a, _ := s.host("esx-1")
	b, _ := s.host("esx-2")
	s.enable(fleet.Swarm)
	id := s.made(spec(1, "etcd_ip2", "10.0.0.12", "etcd_ip3", "10.0.0.13"))
	x := s.get(id)
	if x.Name != "swarm2" || x.Type != fleet.Swarm || x.Workers != 1 || x.Image != s.image {
		t.Errorf("%+v", x)
	}
	if d := cmp.Diff(map[fleet.NodeType]int{fleet.SwarmEtcd: 3, fleet.SwarmWorker: 1}, s.counts(id)); d != "" {
		t.Error(d)
	}
	hosts := map[fleet.HostID]int{}
	var addrs []string
	for _, v := range s.members(id, fleet.SwarmEtcd) {
		if v.Name != "etcd-"+string(v.ID) || !slices.Contains(v.AllTags(), "cluster:"+string(id)) || !slices.Contains(v.AllTags(), "cluster:"+string(id)+":SwarmEtcd") {
			t.Errorf("%s has tags %v", v.Name, v.AllTags())
		}
		hosts[v.Host]++
		addrs = append(addrs, s.crew.Addr(v.ID).String())
	}
	slices.Sort(addrs)
	if d := cmp.Diff([]string{"10.0.0.11", "10.0.0.12", "10.0.0.13"}, addrs); d != "" {
		t.Error(d)
	}
	if len(hosts) != 2 {
		t.Errorf("all managers are on one host")
	}
	w := s.members(id, fleet.SwarmWorker)[0]
	if s.crew.Addr(w.ID).IsValid() || w.Name != "worker-"+string(w.ID) {
		t.Errorf("worker %s has an address", w.Name)
	}
	if got := configs(a, b); len(got) != 4 || !slices.Contains(got, "config of "+w.Name) {
		t.Errorf("their configs are %q", got)
	}

	s.done(s.control.ResizeCluster(s.ctx(), root, id, 3))
	s.becomes(id, fleet.ClusterReady)
	if d := cmp.Diff(map[fleet.NodeType]int{fleet.SwarmEtcd: 3, fleet.SwarmWorker: 3}, s.counts(id)); d != "" {
		t.Error(d)
	}
	s.consistent()

	busy := map[fleet.VMID]int{}
	for _, v := range s.members(id, fleet.SwarmWorker) {
		busy[v.ID] = 5
	}
	busy[w.ID] = 1 // the one with the fewest tasks goes
	s.crew.Set(func(c *controllertest.Crew) { c.Tasks = busy })
	s.done(s.control.ResizeCluster(s.ctx(), root, id, 2))
	s.becomes(id, fleet.ClusterReady)
	if d := cmp.Diff([]string{"SwarmWorker drained"}, s.crew.Left); d != "" {
		t.Error(d)
	}
	if left := s.members(id, fleet.SwarmWorker); len(left) != 2 || slices.ContainsFunc(left, func(v fleet.VM) bool { return v.ID == w.ID }) {
		t.Errorf("%+v", left)
	}
	s.consistent()
	_, err := s.control.DeleteProject(s.ctx(), root, s.project)
	fails(t, err, fleet.ContainerNotEmpty, "")
	s.gone(id)
	s.consistent()
	if left := slices.Concat(those(files(t, a), "vm"), those(files(t, b), "vm")); len(left) > 0 {
		t.Errorf("left on the hosts: %v", left)
	}
	if len(s.crew.Prepared) > 0 {
		t.Errorf("still known: %v", s.crew.Prepared)
	}
	s.done(s.control.DeleteImage(s.ctx(), root, s.image)) // nothing uses it
	if _, err := s.control.Image(s.ctx(), s.image); fleet.CodeOf(err) != fleet.ImageNotFound {
		t.Errorf("the image: %v", err)
	}
}

// configs are what the guests of all VMs find.
func configs(hosts ...*esxtest.Host) []string {
	var out []string
	for _, h := range hosts {
		for _, e := range h.Registry().All("VirtualMachine") {
			for _, o := range e.(*simulator.VirtualMachine).Config.ExtraConfig {
				if v := o.GetOptionValue(); v.Key == "guestinfo.ignition.config.data" {
					out = append(out, fmt.Sprint(v.Value))
				}
			}
		}
	}
	return out
}

func those(list []string, begin string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(f string) bool { return !strings.HasPrefix(f, begin) })
}

// C3, C4: clusters of the other types go the same way.
func TestClustersC3C4(t *testing.T) {
	s := newClusterSite(t)
	s.host("esx-1")
	s.enable(fleet.Mesos, fleet.Kubernetes)
	k := spec(2, "master_ip", "10.0.0.20", "container_network", "10.2.0.0/16")
	k.Type = fleet.Kubernetes
	id := s.made(k)
	if d := cmp.Diff(map[fleet.NodeType]int{fleet.KubernetesEtcd: 1, fleet.KubernetesMaster: 1, fleet.KubernetesWorker: 2}, s.counts(id)); d != "" {
		t.Error(d)
	}
	if v := s.members(id, fleet.KubernetesMaster)[0]; s.crew.Addr(v.ID).String() != "10.0.0.20" {
		t.Errorf("the master has %s", s.crew.Addr(v.ID))
	}
	m := spec(1, "zookeeper_ip1", "10.0.0.31", "zookeeper_ip2", "10.0.0.32")
	m.Type = fleet.Mesos
	other := s.made(m)
	if d := cmp.Diff(map[fleet.NodeType]int{fleet.MesosZookeeper: 2, fleet.MesosMaster: 3, fleet.MesosMarathon: 1, fleet.MesosWorker: 1}, s.counts(other)); d != "" {
		t.Error(d)
	}
	for id, workers := range map[fleet.ClusterID]fleet.NodeType{id: fleet.KubernetesWorker, other: fleet.MesosWorker} {
		s.done(s.control.ResizeCluster(s.ctx(), root, id, 3))
		s.becomes(id, fleet.ClusterReady)
		if n := s.counts(id)[workers]; n != 3 {
			t.Errorf("%d workers of type %s", n, workers)
		}
	}
	s.gone(id)
	s.gone(other)
	s.consistent()
}

// What is wrong with a cluster is told before anything is made.
func TestClustersRefused(t *testing.T) {
	s := newClusterSite(t)
	_, err := s.create(spec(1))
	fails(t, err, fleet.SpecInvalid, "No cluster configuration exists for SWARM cluster")
	s.host("esx-1")
	s.enable(fleet.Swarm)
	refused := func(x fleet.ClusterSpec, code fleet.Code, text string) {
		t.Helper()
		_, err := s.create(x)
		fails(t, err, code, text)
	}
	refused(spec(1, "etcd_ip1", "10.0.1.11"), fleet.SpecInvalid, "not in the gateway's subnet")
	unknown := spec(1)
	unknown.VMFlavor = "nothing"
	refused(unknown, fleet.InvalidFlavor, "Flavor nothing is not found for kind vm")
	unknown = spec(1)
	unknown.Subnet = "nowhere"
	refused(unknown, fleet.NetworkNotFound, "nowhere")
	s.crew.Set(func(c *controllertest.Crew) { c.Refuses = fleet.Errorf(fleet.SpecInvalid, "there is no swarm") })
	refused(spec(1), fleet.SpecInvalid, "there is no swarm")
	s.crew.Set(func(c *controllertest.Crew) { c.Refuses = nil })
	id := s.made(spec(0))
	refused(spec(0, "etcd_ip2", "10.0.0.12"), fleet.SpecInvalid, "10.0.0.11 is an address of cluster "+string(id))
	_, err = s.control.ResizeCluster(s.ctx(), root, id, 1001)
	fails(t, err, fleet.InvalidEntity, "newWorkerCount must be less than or equal to 1000")
	_, err = s.control.CreateCluster(s.ctx(), controller.Principal{Name: "g", Role: controller.Guest}, s.project, spec(1))
	fails(t, err, fleet.AccessForbidden, "g may not")
	if all, err := s.control.Clusters(s.ctx(), root, s.project); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	s.gone(id)
	s.consistent()
	s.gone(s.made(spec(0))) // its address is free again
}

// The addresses of nodes must be nobody's, and the quota enough, before the first VM
// is made.
func TestClustersInitiate(t *testing.T) {
	s := newClusterSite(t)
	h, _ := s.host("esx-1")
	s.enable(fleet.Swarm)
	const initiate = "CREATE_SWARM_CLUSTER_INITIATE"
	s.crew.Set(func(c *controllertest.Crew) { c.Taken = []netip.Addr{netip.MustParseAddr("10.0.0.11")} })
	id := fleet.ClusterID(s.failed(s.create(spec(1)))(initiate, fleet.IPAddressInUse, "answers already at 10.0.0.11"))
	if x := s.get(id); x.State != fleet.ClusterFatalError || !strings.Contains(x.ErrorReason, "10.0.0.11") {
		t.Errorf("%+v", x)
	}
	_, err := s.control.ResizeCluster(s.ctx(), root, id, 1)
	fails(t, err, fleet.StateError, "in state FATAL_ERROR")
	s.gone(id)
	s.crew.Set(func(c *controllertest.Crew) { c.Taken = nil })
	id = fleet.ClusterID(s.failed(s.create(spec(500)))(initiate, fleet.QuotaError, "Not enough quota"))
	s.gone(id)
	if n := h.Calls("CreateVM_Task"); n > 0 {
		t.Errorf("%d VMs were made", n)
	}
	s.consistent()

	id = s.made(spec(1))
	s.failed(s.control.ResizeCluster(s.ctx(), root, id, 600))("RESIZE_CLUSTER_INITIALIZE_CLUSTER", fleet.QuotaError, "Not enough quota")
	if x := s.get(id); x.State != fleet.ClusterReady || x.Workers != 1 {
		t.Errorf("%+v", x)
	}
	s.gone(id)
}

// When a node does not come up, all is undone.
func TestClustersUndone(t *testing.T) {
	s := newClusterSite(t)
	h, _ := s.host("esx-1")
	s.enable(fleet.Swarm)
	s.configure(func(o *controller.Options) { o.Grace = 200 * time.Millisecond })
	s.crew.Set(func(c *controllertest.Crew) {
		c.Asleep = func(n fleet.Node) bool { return n.Type == fleet.SwarmWorker }
	})
	id := fleet.ClusterID(s.failed(s.create(spec(3)))("CREATE_SWARM_CLUSTER_SETUP_WORKERS", fleet.InternalError, "is on and did not come up"))
	if x := s.get(id); x.State != fleet.ClusterFatalError || !strings.Contains(x.ErrorReason, "Node worker-") {
		t.Errorf("%+v", x)
	}
	if all, err := s.control.ClusterVMs(s.ctx(), root, id); err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
	s.consistent()
	if left := those(files(t, h), "vm"); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	s.gone(id)
}

// Whoever deletes a cluster need not wait until it is made.
func TestClustersDeletedWhileMade(t *testing.T) {
	s := newClusterSite(t)
	h, _ := s.host("esx-1")
	s.enable(fleet.Swarm)
	s.crew.Set(func(c *controllertest.Crew) { c.Asleep = func(fleet.Node) bool { return true } })
	made, err := s.create(spec(1))
	if err != nil {
		t.Fatal(err)
	}
	id := fleet.ClusterID(made.Entity.ID)
	s.until("a manager is on", func() bool { return s.counts(id)[fleet.SwarmEtcd] == 1 })
	s.gone(id)
	if got := s.wait(made, nil); got.State != fleet.TaskError {
		t.Errorf("making it ended in %s", got.State)
	}
	s.consistent()
	if left := those(files(t, h), "vm"); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
}

// Nodes that are lost are replaced, managers at their addresses, when somebody asks
// for it.
func TestClustersMaintenance(t *testing.T) {
	s := newClusterSite(t)
	h, _ := s.host("esx-1")
	s.enable(fleet.Swarm)
	id := s.made(spec(2))
	workers := s.members(id, fleet.SwarmWorker)
	s.loseOne(h, workers[0].ID)
	s.loseOne(h, s.members(id, fleet.SwarmEtcd)[0].ID)
	s.power(workers[1].ID, fleet.StopVM)
	s.done(s.control.MaintainCluster(s.ctx(), root, id))
	if d := cmp.Diff(map[fleet.NodeType]int{fleet.SwarmEtcd: 1, fleet.SwarmWorker: 2}, s.counts(id)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"SwarmEtcd evicted", "SwarmWorker evicted"}, slices.Sorted(slices.Values(s.crew.Left))); d != "" {
		t.Error(d)
	}
	if v := s.members(id, fleet.SwarmEtcd)[0]; s.crew.Addr(v.ID).String() != "10.0.0.11" {
		t.Errorf("the new manager has %s", s.crew.Addr(v.ID))
	}
	s.consistent()
	s.gone(id)
}

// loseOne deletes a VM behind bootd's back.
func (s *clusterSite) loseOne(h *esxtest.Host, id fleet.VMID) {
	s.Helper()
	if err := adapter(s, h).DeleteVM(s.ctx(), id); err != nil {
		s.Fatal(err)
	}
}

// And by themselves, too, also after a maintenance that failed; unless what bootd does
// by itself is paused.
func TestClustersKept(t *testing.T) {
	s := newClusterSite(t)
	h, _ := s.host("esx-1")
	s.enable(fleet.Swarm)
	id := s.made(spec(1))
	s.configure(func(o *controller.Options) { o.Rounds = 20 * time.Millisecond })
	must(t)(s.control.SwitchSystem(s.ctx(), root, fleet.DefaultDeployment, fleet.PauseBackgroundTasks))
	lost := s.members(id, fleet.SwarmWorker)[0].ID
	s.loseOne(h, lost)
	s.untilTold(h, lost, fleet.VMError)
	if got := s.members(id, fleet.SwarmWorker); len(got) != 1 || got[0].ID != lost {
		t.Errorf("replaced while it is paused: %+v", got)
	}
	s.crew.Set(func(c *controllertest.Crew) {
		c.Intercept = func(_ context.Context, call string) error {
			if call == "Prepare" {
				return errWanted
			}
			return nil
		}
	})
	must(t)(s.control.SwitchSystem(s.ctx(), root, fleet.DefaultDeployment, fleet.ResumeSystem))
	s.becomes(id, fleet.ClusterRecoverableError)
	if x := s.get(id); !strings.Contains(x.ErrorReason, errWanted.Error()) {
		t.Errorf("%+v", x)
	}
	s.consistent()
	s.crew.Set(func(c *controllertest.Crew) { c.Intercept = nil })
	s.until("it is ready", func() bool { return s.get(id).State == fleet.ClusterReady })
	if d := cmp.Diff(map[fleet.NodeType]int{fleet.SwarmEtcd: 1, fleet.SwarmWorker: 1}, s.counts(id)); d != "" {
		t.Error(d)
	}
	s.gone(id)
	s.consistent()
}

// Without an image nodes boot from the network, and are made known before they do.
func TestClustersDiskless(t *testing.T) {
	s := newClusterSite(t)
	s.host("esx-1")
	must(t)(s.control.EnableClusters(s.ctx(), root, fleet.DefaultDeployment, fleet.Swarm, ""))
	x := spec(1)
	x.VMFlavor, x.DiskFlavor = "", "" // those that were made with the first type
	id := s.made(x)
	for _, v := range append(s.members(id, fleet.SwarmEtcd), s.members(id, fleet.SwarmWorker)...) {
		if v.Image != "" || len(v.Disks) > 0 || s.crew.Prepared[v.ID].MAC != v.NICs[0].MAC {
			t.Errorf("%+v", v)
		}
	}
	known, list, err := s.control.ClusterNodes(s.ctx())
	if err != nil || len(known) != 1 || len(list) != 2 {
		t.Errorf("%d clusters with %d nodes, %v", len(known), len(list), err)
	}
	s.gone(id)
	s.consistent()
}

// Workers are made in batches: the next begins when the last is up.
func TestClustersBatches(t *testing.T) {
	s := newClusterSite(t)
	h, _ := s.host("esx-1")
	s.enable(fleet.Swarm)
	x := spec(1)
	x.Batch = 2
	id := s.made(x)
	first := s.members(id, fleet.SwarmWorker)[0].ID
	s.crew.Set(func(c *controllertest.Crew) {
		c.Asleep = func(n fleet.Node) bool { return n.Type == fleet.SwarmWorker && n.VM != first }
	})
	s.done(s.control.ResizeCluster(s.ctx(), root, id, 6))
	if x := s.get(id); x.State != fleet.ClusterResizing || x.Workers != 6 {
		t.Errorf("%+v", x)
	}
	s.until("two more are on", func() bool { return s.counts(id)[fleet.SwarmWorker] == 3 })
	time.Sleep(200 * time.Millisecond)
	if all := s.members(id, fleet.SwarmWorker); len(all) != 3 {
		t.Errorf("there are %d workers before those are up", len(all))
	}
	_, err := s.control.ResizeCluster(s.ctx(), root, id, 2)
	fails(t, err, fleet.StateError, "in state RESIZING")
	s.crew.Set(func(c *controllertest.Crew) { c.Asleep = nil })
	s.becomes(id, fleet.ClusterReady)
	if n := s.counts(id)[fleet.SwarmWorker]; n != 6 {
		t.Errorf("%d workers", n)
	}
	if n := h.Calls("CreateVM_Task"); n != 7 {
		t.Errorf("%d VMs were made", n)
	}
	s.gone(id)
	s.consistent()
}

// While nobody knows how nodes do they are waited for, and not replaced.
func TestClustersSilent(t *testing.T) {
	s := newClusterSite(t)
	h, _ := s.host("esx-1")
	s.enable(fleet.Swarm)
	silence := func(err error) { s.crew.Set(func(c *controllertest.Crew) { c.Silent = err }) }
	silence(notNow{})
	made, err := s.create(spec(0))
	if err != nil {
		t.Fatal(err)
	}
	id := fleet.ClusterID(made.Entity.ID)
	s.until("the manager is on", func() bool { return s.counts(id)[fleet.SwarmEtcd] == 1 })
	silence(nil)
	s.done(made, nil)
	s.becomes(id, fleet.ClusterReady)
	if n := h.Calls("CreateVM_Task"); n != 1 {
		t.Errorf("%d VMs were made", n)
	}
	silence(errWanted)
	if got := s.wait(s.control.MaintainCluster(s.ctx(), root, id)); got.State != fleet.TaskError {
		t.Errorf("maintenance ended in %s", got.State)
	}
	if x := s.get(id); x.State != fleet.ClusterRecoverableError || !strings.Contains(x.ErrorReason, errWanted.Error()) {
		t.Errorf("%+v", x)
	}
	s.gone(id) // though nobody answers
	s.consistent()
}

// notNow is an error that passes.
type notNow struct{}

func (notNow) Error() string { return "the swarm has no leader" }
func (notNow) Passing() bool { return true }

// A node whose host does not answer is not replaced while it works; when it does not,
// it is, once it was away for long.
func TestClustersHostAway(t *testing.T) {
	s := newClusterSite(t)
	a, one := s.host("esx-1")
	_, two := s.host("esx-2")
	s.enable(fleet.Swarm)
	id := s.made(spec(2))
	var stays, goes fleet.VM
	for _, v := range append(s.members(id, fleet.SwarmWorker), s.members(id, fleet.SwarmEtcd)...) {
		if v.Host == one {
			goes = v
		} else {
			stays = v
		}
	}
	if goes.ID == "" || stays.ID == "" {
		t.Fatal("all nodes are on one host")
	}
	a.Down()
	s.until("the host is known to be away", func() bool {
		h, err := s.control.Host(s.ctx(), root, one)
		return err == nil && !h.Health.Reachable
	})
	s.done(s.control.MaintainCluster(s.ctx(), root, id))
	if v := s.getVM(goes.ID); v.State != fleet.VMStarted {
		t.Errorf("it was replaced though it works: %s", v.State)
	}
	s.configure(func(o *controller.Options) { o.Grace = time.Second })
	lost := s.nodesOn(id, one)
	s.crew.Set(func(c *controllertest.Crew) { c.Asleep = func(n fleet.Node) bool { return lost[n.VM] } })
	s.until("they are replaced on the other host", func() bool {
		s.wait(s.control.MaintainCluster(s.ctx(), root, id)) // in vain until they were away for so long
		return len(s.nodesOn(id, two)) == 3
	})
	s.consistent()
	if err := a.Up(); err != nil {
		t.Fatal(err)
	}
	s.until("what was left on the first host is deleted", func() bool { return len(those(files(t, a), "vm")) == 0 })
	s.gone(id)
}

// nodesOn are the VMs of a cluster on a host.
func (s *clusterSite) nodesOn(id fleet.ClusterID, host fleet.HostID) map[fleet.VMID]bool {
	s.Helper()
	all, err := s.control.ClusterVMs(s.ctx(), root, id)
	if err != nil {
		s.Fatal(err)
	}
	out := map[fleet.VMID]bool{}
	for _, v := range all {
		if v.Host == host {
			out[v.ID] = true
		}
	}
	return out
}

// A deletion that cannot be completed says why, and is begun again.
func TestClustersDeletionFailed(t *testing.T) {
	s := newClusterSite(t)
	s.host("esx-1")
	s.enable(fleet.Swarm)
	id := s.made(spec(1))
	worker := s.members(id, fleet.SwarmWorker)[0].ID
	disk := fleet.DiskID(s.done(s.control.CreateDisk(s.ctx(), root, s.project, diskSpec("data"))))
	s.done(s.control.AttachDisk(s.ctx(), root, worker, disk))
	s.failed(s.control.DeleteCluster(s.ctx(), root, id))("DELETE_CLUSTER_DELETE_VMS", fleet.PersistentDiskAttached, string(disk))
	if x := s.get(id); x.State != fleet.ClusterFatalError || !strings.Contains(x.ErrorReason, string(disk)) {
		t.Errorf("%+v", x)
	}
	_, err := s.control.MaintainCluster(s.ctx(), root, id)
	fails(t, err, fleet.StateError, "in state FATAL_ERROR")
	s.done(s.control.DetachDisk(s.ctx(), root, worker, disk))
	s.gone(id)
	s.done(s.control.DeleteDisk(s.ctx(), root, disk))
	s.consistent()
}

// Clusters are for those who use their project.
func TestClustersForbidden(t *testing.T) {
	s := newClusterSite(t)
	s.host("esx-1")
	s.enable(fleet.Swarm)
	id := s.made(spec(0))
	for name, c := range map[string]struct {
		by   controller.Principal
		want fleet.Code
	}{
		"its user":        {controller.Principal{Name: "p", Role: controller.ProjectUser, Tenant: s.tenant, Project: s.project}, ""},
		"its admin":       {controller.Principal{Name: "t", Role: controller.TenantAdmin, Tenant: s.tenant}, ""},
		"another's user":  {controller.Principal{Name: "o", Role: controller.ProjectUser, Tenant: s.tenant, Project: "other"}, fleet.AccessForbidden},
		"another's admin": {controller.Principal{Name: "a", Role: controller.TenantAdmin, Tenant: "other"}, fleet.AccessForbidden},
		"a guest":         {controller.Principal{Name: "g", Role: controller.Guest}, fleet.AccessForbidden},
	} {
		_, err1 := s.control.Cluster(s.ctx(), c.by, id)
		_, err2 := s.control.ClusterVMs(s.ctx(), c.by, id)
		_, err3 := s.control.Clusters(s.ctx(), c.by, s.project)
		errs := []error{err1, err2, err3}
		if c.want != "" {
			_, err4 := s.control.ResizeCluster(s.ctx(), c.by, id, 1)
			_, err5 := s.control.MaintainCluster(s.ctx(), c.by, id)
			_, err6 := s.control.DeleteCluster(s.ctx(), c.by, id)
			_, err7 := s.control.CreateCluster(s.ctx(), c.by, s.project, spec(0, "etcd_ip1", "10.0.0.15"))
			errs = append(errs, err4, err5, err6, err7)
		}
		for i, err := range errs {
			if c.want == "" && err != nil || c.want != "" && fleet.CodeOf(err) != c.want {
				t.Errorf("%s, %d: %v", name, i+1, err)
			}
		}
	}
	s.gone(id)
}
