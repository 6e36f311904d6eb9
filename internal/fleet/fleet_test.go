package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/fleet"
)

const gb = 1 << 30

func TestIDs(t *testing.T) {
	id := fleet.NewID[fleet.VMID]([16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255})
	if id != "00010203-0405-4607-8809-0a0b0c0d0eff" {
		t.Errorf("an ID of known bytes is %s", id)
	}
	a, b := fleet.DeriveID[fleet.VMID]("task", "worker-1"), fleet.DeriveID[fleet.VMID]("taskw", "orker-1")
	if a == b || a != fleet.DeriveID[fleet.VMID]("task", "worker-1") {
		t.Errorf("derived IDs: %s and %s", a, b)
	}
	for s, want := range map[string]bool{string(id): true, string(a): true, "": false, "../../etc": false, strings.ToUpper(string(id)): false,
		"00010203-0405-4607-8809-0a0b0c0d0ef": false, "00010203x0405-4607-8809-0a0b0c0d0eff": false, "00010203-0405-4607-8809-0a0b0c0d0e/f": false} {
		if fleet.IsUUID(s) != want {
			t.Errorf("IsUUID(%q) is %v", s, !want)
		}
	}
	if fleet.DatastoreIDOf("ds:///vmfs/volumes/x/") != fleet.DatastoreIDOf("ds:///vmfs/volumes/x") {
		t.Error("a datastore's ID depends on the slash at the end of its URL")
	}
}

func TestDerivedMACsAreThoseForAdministrators(t *testing.T) {
	seen := map[boot.MAC]int{}
	for i := range 10_000 {
		m := fleet.DeriveMAC(fleet.VMID(fmt.Sprint(i)), i%3, 0)
		if m[0] != 0 || m[1] != 0x50 || m[2] != 0x56 || m[3] > 0x3f {
			t.Fatalf("%s is not from 00:50:56:00:00:00 to 00:50:56:3f:ff:ff", m)
		}
		seen[m]++
	}
	if len(seen) < 9900 {
		t.Errorf("10000 NICs have only %d addresses", len(seen))
	}
	if fleet.DeriveMAC("v", 0, 0) == fleet.DeriveMAC("v", 0, 1) || fleet.DeriveMAC("v", 0, 0) == fleet.DeriveMAC("v", 1, 0) {
		t.Error("another attempt or another NIC gets the same address")
	}
}

// errText is code and message.
func errText(err error) string {
	if err == nil {
		return ""
	}
	return string(fleet.CodeOf(err)) + ": " + err.Error()
}

func TestCheck(t *testing.T) {
	boot := fleet.DiskSpec{Name: "boot", Kind: "ephemeral", Flavor: "d", Boot: true}
	data := fleet.DiskSpec{Name: "data", Kind: "ephemeral-disk", Flavor: "d", Capacity: gb}
	vm := func(f func(*fleet.VMSpec)) fleet.VMSpec {
		s := fleet.VMSpec{Name: "vm-1", Flavor: "small", Image: "i", Disks: []fleet.DiskSpec{boot}}
		f(&s)
		return s
	}
	host := func(f func(*fleet.Host)) fleet.Host {
		h := fleet.Host{Address: "10.0.0.5", Username: "root", Password: "x", Tags: []fleet.UsageTag{fleet.Cloud}}
		f(&h)
		return h
	}
	near := func(refs ...fleet.Ref) fleet.VMSpec { return vm(func(s *fleet.VMSpec) { s.Affinities = refs }) }
	ref := func(k fleet.Kind) fleet.Ref { return fleet.Ref{Kind: k, ID: "x"} }
	for name, c := range map[string]struct {
		what interface{ Check() error }
		want string
	}{
		"tenant":              {fleet.Tenant{Name: "t"}, ""},
		"name with a space":   {fleet.Tenant{Name: "a b"}, `InvalidEntity: name must match "^[a-zA-Z][a-zA-Z0-9-]*" (was a b)`},
		"name with a newline": {fleet.Tenant{Name: "a\n"}, "InvalidEntity: name must match \"^[a-zA-Z][a-zA-Z0-9-]*\" (was a\n)"},
		"no name":             {fleet.Tenant{}, "InvalidEntity: name may not be null (was null)"},
		"name of 63":          {fleet.Tenant{Name: strings.Repeat("a", 63)}, ""},
		"name of 64":          {fleet.Tenant{Name: strings.Repeat("a", 64)}, "InvalidEntity: name size must be between 1 and 63 (was " + strings.Repeat("a", 64) + ")"},
		"long subnet name":    {fleet.Subnet{Name: strings.Repeat("a", 90), PortGroups: []string{"p"}}, ""},
		"subnet without port": {fleet.Subnet{Name: "s"}, "InvalidEntity: portGroups size must be between 1 and 2147483647 (was [])"},
		"port group twice":    {fleet.Subnet{Name: "s", PortGroups: []string{"p", "p"}}, "InvalidEntity: portGroups must be different names (was [p p])"},
		"ticket no limit":     {fleet.ResourceTicket{Name: "t"}, "InvalidEntity: limits size must be between 1 and 2147483647 (was [])"},

		"host":             {host(func(*fleet.Host) {}), ""},
		"host by name":     {host(func(h *fleet.Host) { h.Address = "esx1.example.com" }), ""},
		"host with port":   {host(func(h *fleet.Host) { h.Address = "127.0.0.1:8989" }), ""},
		"host IPv6":        {host(func(h *fleet.Host) { h.Address = "fd00::1" }), ""},
		"host IPv6 port":   {host(func(h *fleet.Host) { h.Address = "[fd00::1]:443" }), ""},
		"host bad address": {host(func(h *fleet.Host) { h.Address = "10.0.0.256" }), "InvalidEntity: address 10.0.0.256 is invalid IP or Domain Address (was 10.0.0.256)"},
		"host with path":   {host(func(h *fleet.Host) { h.Address = "a/b" }), "InvalidEntity: address a/b is invalid IP or Domain Address (was a/b)"},
		"host with user":   {host(func(h *fleet.Host) { h.Address = "root@a:443" }), "InvalidEntity: address root@a is invalid IP or Domain Address (was root@a)"},
		"host without all": {fleet.Host{}, "InvalidEntity: address may not be null (was null), username may not be null (was null), password may not be null (was null), usageTags may not be null (was null)"},
		"host bad tag":     {host(func(h *fleet.Host) { h.Tags = []fleet.UsageTag{"X"} }), `InvalidEntity: usageTags must match "MGMT|CLOUD" (was X)`},

		"vm":              {vm(func(*fleet.VMSpec) {}), ""},
		"vm two disks":    {vm(func(s *fleet.VMSpec) { s.Disks = append(s.Disks, data) }), ""},
		"vm diskless":     {fleet.VMSpec{Name: "v", Flavor: "f", Diskless: true}, ""},
		"diskless data":   {fleet.VMSpec{Name: "v", Flavor: "f", Diskless: true, Disks: []fleet.DiskSpec{data}}, ""},
		"diskless image":  {fleet.VMSpec{Name: "v", Flavor: "f", Diskless: true, Image: "i"}, "InvalidEntity: A diskless VM has no image"},
		"vm no image":     {vm(func(s *fleet.VMSpec) { s.Image = "" }), "InvalidEntity: No sourceImageId specified in VM create request"},
		"vm no boot disk": {vm(func(s *fleet.VMSpec) { s.Disks = []fleet.DiskSpec{data} }), "InvalidEntity: One and only one disk must be a boot disk (there are 0)"},
		"vm persistent": {vm(func(s *fleet.VMSpec) {
			s.Disks = append(s.Disks, fleet.DiskSpec{Name: "p", Kind: fleet.KindPersistentDisk, Flavor: "d", Capacity: gb})
		}), `InvalidEntity: attachedDisks[1].kind must match "ephemeral-disk|ephemeral" (was persistent-disk)`},
		"vm small disk": {vm(func(s *fleet.VMSpec) {
			s.Disks = append(s.Disks, fleet.DiskSpec{Name: "p", Kind: "ephemeral", Flavor: "d", Capacity: gb - 1})
		}), `InvalidEntity: attachedDisks[1].capacityGb must be greater than or equal to 1 (was 0)`},
		"near a vm":         {near(ref(fleet.KindVM)), "InvalidEntity: A VM cannot have an affinity to a vm"},
		"near two hosts":    {near(ref(fleet.KindHost), ref(fleet.KindHost)), "InvalidEntity: A VM can only be affixed on one host, however 2 hosts were specified."},
		"near a host":       {near(ref(fleet.KindHost), ref(fleet.KindDatastore), ref(fleet.KindPortGroup)), ""},
		"two datastores":    {near(ref(fleet.KindDatastore), ref(fleet.KindDatastore)), "InvalidEntity: A VM can only be affixed on one datastore, however 2 datastores were specified."},
		"disk and host":     {near(ref("disk"), ref(fleet.KindHost)), "InvalidEntity: A VM cannot have affinities to disks and to a host or a datastore at once"},
		"unknown affinity":  {near(ref("rack")), `InvalidEntity: affinities[0].kind must match "vm|persistent-disk|ephemeral-disk|disk|host|datastore|portGroup|availabilityZone" (was rack)`},
		"zone as Photon":    {near(ref(fleet.AffinityZone)), ""},
		"disk":              {fleet.PersistentDiskSpec{Name: "d", Kind: "persistent", Flavor: "f", Capacity: gb}, ""},
		"disk kind":         {fleet.PersistentDiskSpec{Name: "d", Kind: "ephemeral", Flavor: "f", Capacity: gb}, `InvalidEntity: kind must match "persistent-disk|persistent" (was ephemeral)`},
		"disk near a host":  {fleet.PersistentDiskSpec{Name: "d", Kind: "persistent", Flavor: "f", Capacity: gb, Affinities: []fleet.Ref{ref(fleet.KindHost)}}, "InvalidEntity: Create disk can only take locality kind of vm, not host"},
		"image":             {fleet.Image{Name: "coreos 1.vmdk", Replication: fleet.Eager}, ""},
		"image replication": {fleet.Image{Name: "i", Replication: "X"}, `InvalidEntity: replicationType must match "EAGER|ON_DEMAND" (was X)`},
	} {
		if got := errText(c.what.Check()); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestFlavors(t *testing.T) {
	cost := func(kv ...string) fleet.Amounts {
		a := fleet.Amounts{}
		for i := 0; i < len(kv); i += 3 {
			a[kv[i]] = amount(t, kv[i+1], fleet.Unit(kv[i+2]))
		}
		return a
	}
	for _, c := range []struct {
		kind   fleet.Kind
		cost   fleet.Amounts
		strict bool
		want   fleet.Code
	}{
		{fleet.KindVM, cost("vm.cpu", "1", "COUNT", "vm.memory", "2", "GB"), true, ""},
		{fleet.KindVM, cost("vm.memory", "2", "GB"), true, fleet.InvalidFlavorSpecification},
		{fleet.KindVM, cost("vm.memory", "2", "GB"), false, ""},
		{fleet.KindVM, cost("vm.cpu", "1", "COUNT"), true, fleet.InvalidFlavorSpecification},
		{fleet.KindVM, cost("vm.cpu", "1", "GB", "vm.memory", "2", "GB"), true, fleet.InvalidFlavorSpecification},
		{fleet.KindVM, cost("vm.cpu", "1.5", "COUNT", "vm.memory", "2", "GB"), false, fleet.InvalidFlavorSpecification},
		{fleet.KindVM, cost("vm.cpu", "0", "COUNT", "vm.memory", "2", "GB"), false, fleet.InvalidFlavorSpecification},
		{fleet.KindVM, cost("vm.cpu", "1", "COUNT", "vm.memory", "2", "COUNT"), false, fleet.InvalidFlavorSpecification},
		{fleet.KindVM, cost(), true, fleet.InvalidEntity},
		{fleet.KindEphemeralDisk, cost("ephemeral-disk", "1", "COUNT"), true, ""},
		{fleet.KindEphemeralDisk, cost("ephemeral-disk.capacity", "1", "GB"), true, fleet.InvalidFlavorSpecification},
		{fleet.KindPersistentDisk, cost("persistent-disk.capacity", "1", "GB"), false, ""},
		{"ephemeral", cost("x", "1", "COUNT"), true, fleet.InvalidEntity},
	} {
		err := fleet.Flavor{Name: "f", Kind: c.kind, Cost: c.cost}.Check(c.strict)
		if (err == nil) != (c.want == "") || err != nil && fleet.CodeOf(err) != c.want {
			t.Errorf("%s %v strict %v: %v, want %q", c.kind, c.cost, c.strict, err, c.want)
		}
	}
	vm := fleet.Flavor{Name: "core-100", Kind: fleet.KindVM, Cost: cost("vm.cpu", "2", "COUNT", "vm.memory", "1.7", "GB", "storage.SHARED_VMFS", "1", "COUNT")}
	if vm.CPUs() != 2 || vm.Memory() != 1828716544 || vm.Memory()%(4<<20) != 0 {
		t.Errorf("%d processors, %d bytes", vm.CPUs(), vm.Memory())
	}
	if diff := cmp.Diff([]string{"SHARED_VMFS"}, vm.DatastoreTags()); diff != "" {
		t.Error(diff)
	}
	text := func(a fleet.Amounts) map[string]string {
		out := map[string]string{}
		for k, v := range a {
			out[k] = v.String()
		}
		return out
	}
	want := map[string]string{"vm": "1 COUNT", "vm.cpu": "2 COUNT", "vm.memory": "1.7 GB", "vm.flavor.core-100": "1 COUNT", "storage.SHARED_VMFS": "1 COUNT"}
	if diff := cmp.Diff(want, text(vm.Charged(5))); diff != "" {
		t.Error(diff)
	}
	disk := fleet.Flavor{Name: "d", Kind: fleet.KindPersistentDisk, Cost: cost("persistent-disk", "3", "COUNT")}
	want = map[string]string{"persistent-disk": "3 COUNT", "persistent-disk.flavor.d": "1 COUNT", "persistent-disk.capacity": "2 GB"}
	if diff := cmp.Diff(want, text(disk.Charged(2*gb))); diff != "" {
		t.Error(diff)
	}
	if n := len(disk.Cost); n != 1 {
		t.Errorf("charging changed the flavor: %d keys", n)
	}
}

func TestVMVerbs(t *testing.T) {
	for _, c := range []struct {
		state fleet.VMState
		op    fleet.Operation
		to    fleet.VMState
		err   string
	}{
		{fleet.VMStopped, fleet.StartVM, fleet.VMStarted, ""},
		{fleet.VMStarted, fleet.StartVM, fleet.VMStarted, ""},
		{fleet.VMSuspended, fleet.ResumeVM, fleet.VMStarted, ""},
		{fleet.VMStarted, fleet.DeleteVM, fleet.VMStarted, "InvalidVmState: VM v not powered off; stop it first"},
		{fleet.VMError, fleet.DeleteVM, fleet.VMDeleted, ""},
		{fleet.VMSuspended, fleet.AttachDisk, fleet.VMSuspended, "InvalidVmState: Vm in suspended state"},
		{fleet.VMError, fleet.AttachDisk, fleet.VMError, "VmNotFound: VM v not found"},
		{fleet.VMStopped, fleet.GetMKSTicket, fleet.VMStopped, "InvalidVmState: Get Mks Ticket is not allowed on vm that is not powered on."},
		{fleet.VMStarted, fleet.CreateVMImage, fleet.VMStarted, "InvalidVmState: Invalid operation CREATE_VM_IMAGE for vm/v in state STARTED"},
		{fleet.VMStopped, fleet.SuspendVM, fleet.VMStopped, "InvalidVmState: Invalid operation SUSPEND_VM for vm/v in state STOPPED"},
	} {
		to, err := fleet.VM{ID: "v", State: c.state}.After(c.op)
		if to != c.to || errText(err) != c.err {
			t.Errorf("%s in %s: %s, %q; want %s, %q", c.op, c.state, to, errText(err), c.to, c.err)
		}
	}
	v := fleet.VM{ID: "v", Cluster: "c", Node: fleet.SwarmWorker, Tags: []string{"mine"}, Disks: []fleet.VMDisk{{ID: "d", Kind: fleet.KindPersistentDisk}}}
	if got := errText(v.Deletable()); got != "PersistentDiskAttached: Disk persistent-disk#d is attached to VM#v" {
		t.Error(got)
	}
	if diff := cmp.Diff([]string{"mine", "cluster:c", "cluster:c:SwarmWorker"}, v.AllTags()); diff != "" {
		t.Error(diff)
	}
	if len(v.Tags) != 1 {
		t.Error("the VM's own tags have changed")
	}
}

// A host that is there is emptied before it is deleted; one that is gone cannot be.
func TestHostRemovable(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	up := fleet.HostHealth{Reachable: true, Since: now.Add(-time.Hour)}
	down := fleet.HostHealth{Since: now.Add(-time.Minute)}
	gone := fleet.HostHealth{Since: now.Add(-fleet.GoneAfter)}
	refused := "StateError: Invalid operation DELETE_HOST for host/h in state "
	for _, c := range []struct {
		state  fleet.HostState
		health fleet.HostHealth
		want   string
	}{
		{fleet.HostMaintenance, up, ""},
		{fleet.HostMaintenance, down, ""},
		{fleet.HostError, up, ""},
		{fleet.HostSuspended, gone, ""},
		{fleet.HostSuspended, fleet.HostHealth{}, refused + "SUSPENDED; suspend it, delete its VMs, and let it enter maintenance first"},
		{fleet.HostSuspended, down, refused + "SUSPENDED; it has not answered since 2026-01-01T11:59:00Z: after 10m0s it can be deleted with what is on it, once it is suspended"},
		{fleet.HostSuspended, up, refused + "SUSPENDED; suspend it, delete its VMs, and let it enter maintenance first"},
		{fleet.HostReady, gone, refused + "READY; it does not answer: suspend it, and delete it then with what is on it"},
		{fleet.HostCreating, gone, refused + "CREATING"},
	} {
		got := ""
		if err := (fleet.Host{ID: "h", State: c.state, Health: c.health}).Removable(now); err != nil {
			got = errText(err)
		}
		if got != c.want {
			t.Errorf("%s, %+v: %q, want %q", c.state, c.health, got, c.want)
		}
	}
}

func TestHostVerbs(t *testing.T) {
	for _, c := range []struct {
		from fleet.HostState
		op   fleet.Operation
		want string
	}{
		{fleet.HostReady, fleet.SuspendHost, "SUSPENDED"},
		{fleet.HostSuspended, fleet.SuspendHost, "SUSPENDED"},
		{fleet.HostSuspended, fleet.EnterMaintenance, "MAINTENANCE"},
		{fleet.HostReady, fleet.EnterMaintenance, "StateError: Invalid operation ENTER_MAINTENANCE_MODE for host/h in state READY"},
		{fleet.HostMaintenance, fleet.SuspendHost, "StateError: Invalid operation SUSPEND_HOST for host/h in state MAINTENANCE"},
		{fleet.HostMaintenance, fleet.ExitMaintenance, "READY"},
		{fleet.HostError, fleet.DeleteHost, "DELETED"},
		{fleet.HostReady, fleet.DeleteHost, "StateError: Invalid operation DELETE_HOST for host/h in state READY"},
	} {
		to, err := fleet.Host{ID: "h", State: c.from}.After(c.op)
		got := string(to)
		if err != nil {
			got = errText(err)
		}
		if got != c.want {
			t.Errorf("%s in %s: %s, want %s", c.op, c.from, got, c.want)
		}
	}
	if got := errText(fleet.Host{ID: "h"}.Empty(2)); got != "HostHasVms: Host #h has 2 VM(s) on it; it does not answer: delete it, and they are lost with it" {
		t.Error(got)
	}
	h := fleet.Host{State: fleet.HostReady, Tags: []fleet.UsageTag{fleet.Management}, Health: fleet.HostHealth{Reachable: true}}
	if h.Takes() {
		t.Error("a host for management takes tenants' VMs")
	}
	h.Tags = append(h.Tags, fleet.Cloud)
	if !h.Takes() {
		t.Error("a ready host takes no VMs")
	}
	h.Metadata = map[string]string{fleet.AllowedDatastores: "a, b"}
	if !h.Allows("b") || h.Allows("c") {
		t.Error("allowed datastores")
	}
}

func TestClusterSpecs(t *testing.T) {
	good := map[string]string{"dns": "10.0.0.1", "gateway": "10.0.0.1", "netmask": "255.255.255.0", "etcd_ip1": "10.0.0.10", "etcd_ip2": "10.0.0.11"}
	with := func(kv ...string) map[string]string {
		p := map[string]string{}
		for k, v := range good {
			p[k] = v
		}
		for i := 0; i < len(kv); i += 2 {
			p[kv[i]] = kv[i+1]
		}
		return p
	}
	for name, c := range map[string]struct {
		kind fleet.ClusterType
		p    map[string]string
		want string
	}{
		"swarm":          {fleet.Swarm, good, ""},
		"mistyped":       {fleet.Swarm, with("etcd_ip2", "10.0.0"), `SpecInvalid: etcd_ip2: "10.0.0" is no IPv4 address of a machine`},
		"other subnet":   {fleet.Swarm, with("etcd_ip2", "10.0.1.11"), "SpecInvalid: etcd_ip2: 10.0.1.11 is not in the gateway's subnet 10.0.0.0/24"},
		"twice":          {fleet.Swarm, with("etcd_ip3", "10.0.0.10"), "SpecInvalid: etcd_ip3: 10.0.0.10 is etcd_ip1 too"},
		"gateway":        {fleet.Swarm, with("etcd_ip1", "10.0.0.1"), "SpecInvalid: etcd_ip1: 10.0.0.1 is the gateway"},
		"broadcast":      {fleet.Swarm, with("etcd_ip1", "10.0.0.255"), "SpecInvalid: etcd_ip1: 10.0.0.255 is the network's or the broadcast address of 10.0.0.0/24"},
		"netmask":        {fleet.Swarm, with("netmask", "255.0.255.0"), `SpecInvalid: netmask: "255.0.255.0" is no netmask such as 255.255.255.0`},
		"nothing":        {fleet.Swarm, nil, "SpecInvalid: dns is missing; gateway is missing; netmask is missing; etcd_ip1 is missing: at least one node needs an address that is known"},
		"mesos":          {fleet.Mesos, with("zookeeper_ip2", "10.0.0.20"), ""},
		"mesos none":     {fleet.Mesos, good, "SpecInvalid: zookeeper_ip1 is missing: at least one node needs an address that is known"},
		"kubernetes":     {fleet.Kubernetes, with("master_ip", "10.0.0.30", "container_network", "10.2.0.0/16"), ""},
		"k8s no network": {fleet.Kubernetes, with("master_ip", "10.0.0.30"), "SpecInvalid: container_network is missing"},
		"k8s same":       {fleet.Kubernetes, with("master_ip", "10.0.0.10", "container_network", "10.2.0.0/16"), "SpecInvalid: master_ip: 10.0.0.10 is etcd_ip1 too"},
		"unknown type":   {"HADOOP", good, `InvalidEntity: type must match "KUBERNETES|MESOS|SWARM" (was HADOOP)`},
	} {
		_, err := fleet.ClusterSpec{Name: "c", Type: c.kind, Workers: 1, Properties: c.p}.Cluster("id", "p")
		if got := errText(err); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
	for _, n := range []int{-1, 1001} {
		if _, err := (fleet.ClusterSpec{Name: "c", Type: fleet.Swarm, Workers: n, Properties: good}).Cluster("id", "p"); fleet.CodeOf(err) != fleet.InvalidEntity {
			t.Errorf("%d workers: %v", n, err)
		}
	}
	c, err := fleet.ClusterSpec{Name: "c", Type: fleet.Swarm, Workers: 2, Properties: good}.Cluster("id", "p")
	if err != nil {
		t.Fatal(err)
	}
	var roles []string
	for _, r := range c.Roles() {
		roles = append(roles, fmt.Sprintf("%d %s %s %v", r.Count, r.Prefix, r.Node, r.Addrs))
	}
	if diff := cmp.Diff([]string{"2 etcd SwarmEtcd [10.0.0.10 10.0.0.11]", "2 worker SwarmWorker []"}, roles); diff != "" {
		t.Error(diff)
	}
	if got := c.StoredProperties()["etcd_ips"]; got != "10.0.0.10,10.0.0.11" || c.StoredProperties()["etcd_ip1"] != "" || c.Network.Bits != 24 || c.Batch != 20 {
		t.Errorf("properties %v, network %v, batch %d", c.StoredProperties(), c.Network, c.Batch)
	}
}

func TestSecurityGroups(t *testing.T) {
	all, again := fleet.Groups([]fleet.SecurityGroup{{Name: "ops"}}, []string{"dev", "ops", "dev"})
	if diff := cmp.Diff([]fleet.SecurityGroup{{Name: "ops", Inherited: true}, {Name: "dev"}}, all); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"ops"}, again); diff != "" {
		t.Error(diff)
	}
}

func TestDeployment(t *testing.T) {
	d := fleet.Deployment{ID: fleet.DefaultDeployment, State: fleet.DeploymentReady, ImageDatastores: []string{"b"}}
	if _, err := d.WithImageDatastores([]string{"a"}); fleet.CodeOf(err) != fleet.InvalidImageDatastoreSet {
		t.Errorf("fewer image datastores: %v", err)
	}
	more, err := d.WithImageDatastores([]string{"b", "a", "b"})
	if diff := cmp.Diff([]string{"a", "b"}, more.ImageDatastores); diff != "" || err != nil {
		t.Error(diff, err)
	}
	on, err := d.Enable(fleet.Swarm, "image")
	if err != nil || len(d.Clusters) != 0 {
		t.Fatal(err, d.Clusters)
	}
	if _, err := on.Enable(fleet.Swarm, "image"); fleet.CodeOf(err) != fleet.ClusterTypeAlreadyConfigured {
		t.Errorf("twice: %v", err)
	}
	if _, err := d.ImageOf(fleet.Swarm); fleet.CodeOf(err) != fleet.SpecInvalid {
		t.Errorf("not enabled: %v", err)
	}
	if off, err := on.Disable(fleet.Swarm); err != nil || len(off.Clusters) != 0 || len(on.Clusters) != 1 {
		t.Errorf("disabled: %v, %v, %v", off, on, err)
	}
	for _, chain := range []fleet.Operation{fleet.PauseSystem, fleet.PauseBackgroundTasks, fleet.PauseSystem, fleet.ResumeSystem} {
		if d.State, err = d.After(chain); err != nil {
			t.Fatal(err)
		}
	}
	if d.State != fleet.DeploymentReady || d.Changes() != nil {
		t.Errorf("resumed to %s", d.State)
	}
}

func TestFaultsNameHostObjectAndRemedy(t *testing.T) {
	f := &fleet.Fault{Kind: fleet.NoSpace, Doing: "copy", Object: "[ds1] x.vmdk", Host: "esx1", Text: "the datastore is full", Remedy: "free some"}
	if got := f.Error(); got != "cannot copy [ds1] x.vmdk on host esx1: the datastore is full; free some" {
		t.Error(got)
	}
	err := fmt.Errorf("step: %w", f)
	if !fleet.IsFault(err, fleet.NoSpace) || fleet.IsFault(err, fleet.InUse) || fleet.CodeOf(err) != fleet.NotEnoughDatastoreCapacity {
		t.Error("the kind of a fault is lost on its way")
	}
}
