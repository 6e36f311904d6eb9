package fleet

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Cluster is a set of VMs that do something together.
type Cluster struct {
	ID           ClusterID         `json:"id"`
	Project      ProjectID         `json:"project"`
	Name         string            `json:"name"` // others may have it too
	Type         ClusterType       `json:"type"`
	State        ClusterState      `json:"state"`
	Workers      int               `json:"workers"` // that are wanted
	Batch        int               `json:"batch"`   // workers that are made at once
	MasterFlavor string            `json:"masterFlavor"`
	OtherFlavor  string            `json:"otherFlavor"`
	DiskFlavor   string            `json:"diskFlavor"`
	Image        ImageID           `json:"image,omitempty"` // empty: nodes boot from the network
	Subnet       SubnetID          `json:"subnet,omitempty"`
	Network      ClusterNetwork    `json:"network"`
	Static       []netip.Addr      `json:"static"`               // of the nodes that have known addresses
	Properties   map[string]string `json:"properties,omitempty"` // as the client gave them
	ErrorReason  string            `json:"errorReason,omitempty"`
}

// A ClusterNetwork is what nodes with a known address must know.
type ClusterNetwork struct {
	DNS     netip.Addr `json:"dns"`
	Gateway netip.Addr `json:"gateway"`
	Bits    int        `json:"bits"` // of the netmask
}

// A ClusterType is what a cluster's VMs do.
type ClusterType string

// The types of clusters.
const (
	Swarm      ClusterType = "SWARM"
	Kubernetes ClusterType = "KUBERNETES"
	Mesos      ClusterType = "MESOS"
)

// ClusterTypes lists the types.
func ClusterTypes() []ClusterType { return []ClusterType{Kubernetes, Mesos, Swarm} }

// A ClusterState is the life of a cluster.
type ClusterState string

// The states of clusters. To clients before 1.1 both errors are "ERROR".
const (
	ClusterCreating         ClusterState = "CREATING"
	ClusterResizing         ClusterState = "RESIZING"
	ClusterReady            ClusterState = "READY"
	ClusterPendingDelete    ClusterState = "PENDING_DELETE"
	ClusterRecoverableError ClusterState = "RECOVERABLE_ERROR" // maintenance tries again
	ClusterFatalError       ClusterState = "FATAL_ERROR"       // it never came to be
	ClusterDeleted          ClusterState = "DELETED"
)

var clusterEdges = edges[ClusterState]{
	ClusterCreating:         {ClusterReady, ClusterResizing, ClusterRecoverableError, ClusterFatalError, ClusterPendingDelete},
	ClusterResizing:         {ClusterReady, ClusterRecoverableError, ClusterFatalError, ClusterPendingDelete},
	ClusterReady:            {ClusterResizing, ClusterRecoverableError, ClusterPendingDelete},
	ClusterRecoverableError: {ClusterReady, ClusterResizing, ClusterFatalError, ClusterPendingDelete},
	ClusterFatalError:       {ClusterPendingDelete, ClusterDeleted},
	ClusterPendingDelete:    {ClusterDeleted, ClusterFatalError, ClusterRecoverableError},
	ClusterDeleted:          {},
}

var clusterRules = []rule[ClusterState]{
	// Photon's would not be resized out of an error, which may be that it is too large.
	{ResizeCluster, []ClusterState{ClusterReady, ClusterRecoverableError}, ClusterResizing},
	{MaintainCluster, []ClusterState{ClusterReady, ClusterRecoverableError, ClusterResizing}, ""},
	{DeleteCluster, []ClusterState{ClusterCreating, ClusterResizing, ClusterReady, ClusterRecoverableError, ClusterFatalError, ClusterPendingDelete}, ClusterPendingDelete},
}

// CanBecome reports whether a cluster may go from one state to another.
func (s ClusterState) CanBecome(to ClusterState) bool { return clusterEdges.has(s, to) }

// After is the state that a verb leads to, while it is carried out, or an error
// with code [StateError].
func (c Cluster) After(op Operation) (ClusterState, error) {
	return after(clusterRules, Ref{KindCluster, string(c.ID)}, c.State, op)
}

// MaxWorkers is how many workers a cluster may have.
const MaxWorkers = 1000

// DefaultBatch is how many workers are made at once where nothing is said.
const DefaultBatch = 20

// CheckResize is nil, or tells what is wrong with a number of workers. Fewer
// are as good as more; Photon refused those.
func (c Cluster) CheckResize(workers int) error {
	var m Mistakes
	checkWorkers(&m, "newWorkerCount", workers)
	return m.Err()
}

func checkWorkers(m *Mistakes, path string, n int) {
	if n < 0 {
		m.Add(path, "must be greater than or equal to 0", n)
	}
	if n > MaxWorkers {
		m.Add(path, fmt.Sprintf("must be less than or equal to %d", MaxWorkers), n)
	}
}

// A NodeType is what a VM is in its cluster, as the tags of VMs have it.
type NodeType string

// The types of nodes.
const (
	SwarmEtcd        NodeType = "SwarmEtcd" // a manager, with an address the client chose
	SwarmMaster      NodeType = "SwarmMaster"
	SwarmWorker      NodeType = "SwarmWorker"
	KubernetesEtcd   NodeType = "KubernetesEtcd"
	KubernetesMaster NodeType = "KubernetesMaster"
	KubernetesWorker NodeType = "KubernetesWorker"
	MesosZookeeper   NodeType = "MesosZookeeper"
	MesosMaster      NodeType = "MesosMaster"
	MesosMarathon    NodeType = "MesosMarathon"
	MesosWorker      NodeType = "MesosWorker"
)

// A Role is a part of a cluster: so many nodes of a type.
type Role struct {
	Node   NodeType
	Prefix string // of its VMs' names, before "-" and an ID
	Count  int
	Addrs  []netip.Addr // that its nodes have, in order; none: by DHCP
	Master bool         // it has the flavor of masters
	Worker bool         // resizing changes its count
}

// Roles are what the cluster consists of, in the order in which it is made. The
// managers of a swarm are the nodes with known addresses; Photon's swarms had a
// master beside them, which SwarmKit does not need, so there are none.
func (c Cluster) Roles() []Role {
	worker := func(n NodeType) Role { return Role{Node: n, Prefix: "worker", Count: c.Workers, Worker: true} }
	static := func(n NodeType, prefix string, master bool) Role {
		return Role{Node: n, Prefix: prefix, Count: len(c.Static), Addrs: c.Static, Master: master}
	}
	switch c.Type {
	case Swarm:
		return []Role{static(SwarmEtcd, "etcd", true), worker(SwarmWorker)}
	case Kubernetes:
		master := Role{Node: KubernetesMaster, Prefix: "master", Count: 1, Master: true}
		if ip, err := netip.ParseAddr(c.Properties["master_ip"]); err == nil {
			master.Addrs = []netip.Addr{ip}
		}
		return []Role{static(KubernetesEtcd, "etcd", false), master, worker(KubernetesWorker)}
	case Mesos:
		return []Role{static(MesosZookeeper, "zookeeper", false),
			{Node: MesosMaster, Prefix: "master", Count: 3, Master: true},
			{Node: MesosMarathon, Prefix: "marathon", Count: 1},
			worker(MesosWorker)}
	}
	return nil
}

// Addrs are the addresses that the cluster's nodes give themselves.
func (c Cluster) Addrs() []netip.Addr {
	var out []netip.Addr
	for _, r := range c.Roles() {
		out = append(out, r.Addrs...)
	}
	return out
}

// Role is the role of a type of nodes.
func (c Cluster) Role(t NodeType) (Role, bool) {
	roles := c.Roles()
	i := slices.IndexFunc(roles, func(r Role) bool { return r.Node == t })
	if i < 0 {
		return Role{}, false
	}
	return roles[i], true
}

// A ClusterSpec is a cluster that a client asks for.
type ClusterSpec struct {
	Name       string
	Type       ClusterType
	VMFlavor   string
	DiskFlavor string
	Subnet     SubnetID
	Workers    int
	Batch      int // 0: DefaultBatch
	Properties map[string]string
}

// Cluster is the cluster of a spec, or tells what is wrong with it: mistakes in
// form have code [InvalidEntity]; in properties, [SpecInvalid], every one at
// once, since nothing is made of a cluster whose addresses cannot work.
func (s ClusterSpec) Cluster(id ClusterID, p ProjectID) (Cluster, error) {
	var m Mistakes
	m.Name("name", s.Name)
	OneOf(&m, "type", s.Type, ClusterTypes()...)
	checkWorkers(&m, "workerCount", s.Workers)
	if s.Batch < 0 || s.Batch > MaxWorkers {
		m.Add("workerBatchExpansionSize", fmt.Sprintf("must be between 1 and %d", MaxWorkers), s.Batch)
	}
	if err := m.Err(); err != nil {
		return Cluster{}, err
	}
	c := Cluster{ID: id, Project: p, Name: s.Name, Type: s.Type, State: ClusterCreating, Workers: s.Workers, Batch: s.Batch,
		MasterFlavor: s.VMFlavor, OtherFlavor: s.VMFlavor, DiskFlavor: s.DiskFlavor, Subnet: s.Subnet, Properties: s.Properties}
	if c.Batch == 0 {
		c.Batch = DefaultBatch
	}
	if s.VMFlavor == "" {
		c.MasterFlavor, c.OtherFlavor = ClusterMasterVM, ClusterOtherVM
	}
	if s.DiskFlavor == "" {
		c.DiskFlavor = ClusterVMDisk
	}
	a := addresses{properties: s.Properties}
	a.read(&c)
	if len(a.wrong) > 0 {
		return Cluster{}, Errorf(SpecInvalid, "%s", strings.Join(a.wrong, "; "))
	}
	return c, nil
}

// addresses reads those among a cluster's properties.
type addresses struct {
	properties map[string]string
	wrong      []string
	taken      map[netip.Addr]string // by the property that has it
}

func (a *addresses) complain(format string, args ...any) {
	a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
}

func (a *addresses) ip(key string) (netip.Addr, bool) {
	s := strings.TrimSpace(a.properties[key])
	if s == "" {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(s)
	if err != nil || !ip.Is4() || ip.IsUnspecified() || ip.IsMulticast() {
		a.complain("%s: %q is no IPv4 address of a machine", key, s)
		return netip.Addr{}, false
	}
	return ip, true
}

func (a *addresses) required(key string) netip.Addr {
	if strings.TrimSpace(a.properties[key]) == "" {
		a.complain("%s is missing", key)
	}
	ip, _ := a.ip(key)
	return ip
}

func (a *addresses) read(c *Cluster) {
	a.taken = map[netip.Addr]string{}
	c.Network = ClusterNetwork{DNS: a.required("dns"), Gateway: a.required("gateway"), Bits: a.netmask()}
	var keys []string
	switch c.Type {
	case Mesos:
		keys = a.listed("zookeeper_ip")
	case Swarm, Kubernetes:
		keys = a.listed("etcd_ip")
	}
	for _, k := range keys {
		if ip, ok := a.node(k, c.Network); ok {
			c.Static = append(c.Static, ip)
		}
	}
	if c.Type != Kubernetes {
		return
	}
	if strings.TrimSpace(a.properties["master_ip"]) == "" {
		a.complain("master_ip is missing")
	}
	a.node("master_ip", c.Network)
	switch s := strings.TrimSpace(a.properties["container_network"]); {
	case s == "":
		a.complain("container_network is missing")
	default:
		if p, err := netip.ParsePrefix(s); err != nil || !p.Addr().Is4() {
			a.complain("container_network: %q is no network such as 10.2.0.0/16", s)
		}
	}
}

// listed are the keys prefix1 to prefix3 that are there; one must be.
func (a *addresses) listed(prefix string) []string {
	var keys []string
	for i := range 3 {
		if k := prefix + strconv.Itoa(i+1); strings.TrimSpace(a.properties[k]) != "" {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		a.complain("%s1 is missing: at least one node needs an address that is known", prefix)
	}
	return keys
}

// netmask is the length of the mask in dotted form; 0 after a complaint.
func (a *addresses) netmask() int {
	s := strings.TrimSpace(a.properties["netmask"])
	if s == "" {
		a.complain("netmask is missing")
		return 0
	}
	if ip, err := netip.ParseAddr(s); err == nil && ip.Is4() {
		b := ip.As4()
		x := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		for bits := 1; bits <= 30; bits++ {
			if x == ^uint32(0)<<(32-bits) {
				return bits
			}
		}
	}
	a.complain("netmask: %q is no netmask such as 255.255.255.0", s)
	return 0
}

// node reads the address of a node: in the gateway's subnet, and nobody else's.
func (a *addresses) node(key string, n ClusterNetwork) (netip.Addr, bool) {
	ip, ok := a.ip(key)
	if !ok {
		return ip, false
	}
	if other, again := a.taken[ip]; again {
		a.complain("%s: %s is %s too", key, ip, other)
		return ip, false
	}
	a.taken[ip] = key
	if ip == n.Gateway {
		a.complain("%s: %s is the gateway", key, ip)
		return ip, false
	}
	if n.Bits == 0 || !n.Gateway.IsValid() {
		return ip, true // that was complained of already
	}
	subnet := netip.PrefixFrom(n.Gateway, n.Bits).Masked()
	switch {
	case !subnet.Contains(ip):
		a.complain("%s: %s is not in the gateway's subnet %s", key, ip, subnet)
		return ip, false
	case ip == subnet.Addr(), ip == last(subnet):
		a.complain("%s: %s is the network's or the broadcast address of %s", key, ip, subnet)
		return ip, false
	}
	return ip, true
}

// last is the broadcast address of an IPv4 network.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// StoredProperties are the properties as Photon shows them: etcd_ip1 to 3
// together as etcd_ips, with commas, and zookeeper_ip1 to 3 as zookeeper_ips.
func (c Cluster) StoredProperties() map[string]string {
	out := map[string]string{}
	for k, v := range c.Properties {
		if !slices.Contains([]string{"etcd_ip1", "etcd_ip2", "etcd_ip3", "zookeeper_ip1", "zookeeper_ip2", "zookeeper_ip3"}, k) {
			out[k] = v
		}
	}
	var ips []string
	for _, ip := range c.Static {
		ips = append(ips, ip.String())
	}
	key := "etcd_ips"
	if c.Type == Mesos {
		key = "zookeeper_ips"
	}
	if len(ips) > 0 {
		out[key] = strings.Join(ips, ",")
	}
	return out
}
