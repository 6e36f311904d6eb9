package controller_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/simulator"

	"bootd/boot"
	"bootd/internal/controller"
	"bootd/internal/esx/esxtest"
	"bootd/internal/fleet"
)

// V1, V9, V10, V11, V12: a VM with two disks, whose host and datastore are told;
// the same name twice; an environment.
func TestVMsV1(t *testing.T) {
	s := newSite(t)
	h, host := s.host("esx-1")
	img := s.image(fleet.OnDemand)
	spec := vmSpec("web-1", img)
	spec.Disks = append(spec.Disks, fleet.DiskSpec{Name: "data", Kind: "ephemeral", Flavor: "plain", Capacity: 2 << 30})
	spec.Environment = map[string]string{"guestinfo.ignition.config.data": "e30=", "role": "web"}
	spec.Tags = []string{"a"}
	task := s.wait(s.control.CreateVM(s.ctx(), root, s.project, spec))
	id := fleet.VMID(task.Entity.ID)
	v := s.getVM(id)
	if task.Operation != "CREATE_VM" || len(task.Steps) != 2 || v.State != fleet.VMStopped || v.Host != host || v.Datastore == "" || len(v.Disks) != 2 ||
		!v.Disks[0].Boot || v.Disks[0].Capacity != 1<<20 || v.Disks[1].Capacity != 2<<30 || v.FlavorName != "small" || v.Memory != 1<<30 {
		t.Errorf("%+v; %+v", v, task)
	}
	if a, err := s.control.HostAddress(s.ctx(), v.Host); err != nil || a != h.Address() {
		t.Errorf("address %s, %v", a, err)
	}
	status, err := adapter(t, h).Status(s.ctx(), id)
	if err != nil || status.CPUs != 1 || status.Memory != 1<<30 || len(status.Disks) != 1 || status.Disks[0] != v.Disks[1].ID || status.NICs[0].MAC != v.NICs[0].MAC {
		t.Errorf("%+v, %v", status, err)
	}
	if got := extra(h, "guestinfo.role"); got != "web" {
		t.Errorf("guestinfo.role is %q", got)
	}
	s.vm("web-1", img)
	all, err1 := s.control.VMs(s.ctx(), root, s.project, "web-1")
	none, err2 := s.control.VMs(s.ctx(), root, s.project, "web-2")
	if err1 != nil || err2 != nil || len(all) != 2 || len(none) != 0 {
		t.Errorf("%+v, %+v, %v, %v", all, none, err1, err2)
	}
	s.consistent()
}

// extra is a key of the configuration of any VM that has it.
func extra(h *esxtest.Host, key string) string {
	for _, e := range h.Registry().All("VirtualMachine") {
		for _, o := range e.(*simulator.VirtualMachine).Config.ExtraConfig {
			if v := o.GetOptionValue(); v.Key == key {
				return fmt.Sprint(v.Value)
			}
		}
	}
	return ""
}

// V2, V31, V32, R4 to R7: what no host has, and what the quota does not allow. What
// failed is in ERROR, holds nothing, and can be deleted.
func TestVMsV2(t *testing.T) {
	s := newSite(t)
	s.host("esx-1")
	img := s.image(fleet.OnDemand)
	for name, tag := range map[string]string{"local": "LOCAL_VMFS", "shared": "SHARED_VMFS"} {
		must(t)(s.control.CreateFlavor(s.ctx(), root, name, fleet.KindEphemeralDisk, amounts(t, "storage."+tag+"=1"), true))
	}
	disk := func(name, flavor string, gb int64) fleet.DiskSpec {
		return fleet.DiskSpec{Name: name, Kind: fleet.KindEphemeralDisk, Flavor: flavor, Capacity: gb << 30}
	}
	for name, c := range map[string]struct {
		change func(*fleet.VMSpec)
		code   fleet.Code
		text   string
	}{
		"V2 two datastores":  {func(v *fleet.VMSpec) { v.Disks = append(v.Disks, disk("a", "local", 1), disk("b", "shared", 1)) }, fleet.UnfulfillableDiskAffinities, "1 host: 1 without a datastore that suits"},
		"V31 memory":         {func(v *fleet.VMSpec) { v.Flavor = "huge" }, fleet.NotEnoughMemoryResource, "1 host: 1 without 1024000 MB"},
		"V32 too large disk": {func(v *fleet.VMSpec) { v.Disks = append(v.Disks, disk("a", "plain", 2048)) }, fleet.NotEnoughDatastoreCapacity, "1 host: 1 without"},
		"V17 port group": {func(v *fleet.VMSpec) { v.Affinities = []fleet.Ref{{Kind: fleet.KindPortGroup, ID: "blue"}} },
			fleet.UnfulfillableAffinities, "1 host: 1 without port group blue"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := vmSpec("big", img)
			c.change(&spec)
			id := fleet.VMID(s.failed(s.control.CreateVM(s.ctx(), root, s.project, spec))("RESERVE_RESOURCE", c.code, c.text))
			v := s.getVM(id)
			if v.State != fleet.VMError || !strings.Contains(v.Fault, c.text) {
				t.Errorf("%+v", v)
			}
			s.consistent()
			_, err := s.control.DeleteProject(s.ctx(), root, s.project)
			fails(t, err, fleet.ContainerNotEmpty, "")
			s.done(s.control.DeleteVM(s.ctx(), root, id))
			s.consistent()
		})
	}
	must(t)(s.control.CreateFlavor(s.ctx(), root, "enormous", fleet.KindVM, amounts(t, "vm.cpu=1 vm.memory=3000GB"), true))
	spec := vmSpec("big", img)
	spec.Flavor = "enormous"
	_, err := s.control.CreateVM(s.ctx(), root, s.project, spec)
	fails(t, err, fleet.QuotaError, "Not enough quota: Current Limit: vm.memory, 2000 GB")
	s.consistent()
}

// V3, V6, V7, V8, V20 to V23: what is wrong with a request is told at once.
func TestVMsV3(t *testing.T) {
	s := newSite(t)
	img := s.image(fleet.OnDemand) // to no host: there is none
	ref := func(k fleet.Kind, id string) fleet.Ref { return fleet.Ref{Kind: k, ID: id} }
	for name, c := range map[string]struct {
		change func(*fleet.VMSpec)
		code   fleet.Code
		text   string
	}{
		"V3 persistent disk": {func(v *fleet.VMSpec) {
			v.Disks = append(v.Disks, fleet.DiskSpec{Name: "a", Kind: "persistent-disk", Flavor: "keep", Capacity: 1 << 30})
		}, fleet.InvalidEntity, `attachedDisks[1].kind must match "ephemeral-disk|ephemeral" (was persistent-disk)`},
		"V6 flavor":      {func(v *fleet.VMSpec) { v.Flavor = "f" }, fleet.InvalidFlavor, "Flavor f is not found for kind vm"},
		"V6 disk flavor": {func(v *fleet.VMSpec) { v.Disks[0].Flavor = "f" }, fleet.InvalidFlavor, "Flavor f is not found for kind ephemeral-disk"},
		"V7 image":       {func(v *fleet.VMSpec) { v.Image = "i" }, fleet.ImageNotFound, "Image id 'i' not found"},
		"V8 name":        {func(v *fleet.VMSpec) { v.Name = "1" }, fleet.InvalidEntity, "must match"},
		"V20 locality":   {func(v *fleet.VMSpec) { v.Affinities = []fleet.Ref{ref("moon", "x")} }, fleet.InvalidEntity, "affinities[0].kind must match"},
		"V21 VM":         {func(v *fleet.VMSpec) { v.Affinities = []fleet.Ref{ref(fleet.KindVM, "x")} }, fleet.InvalidEntity, "affinity to a vm"},
		"V22 two hosts": {func(v *fleet.VMSpec) { v.Affinities = []fleet.Ref{ref(fleet.KindHost, "x"), ref(fleet.KindHost, "y")} }, fleet.InvalidEntity,
			"A VM can only be affixed on one host, however 2 hosts were specified."},
		"V23 two datastores": {func(v *fleet.VMSpec) {
			v.Affinities = []fleet.Ref{ref(fleet.KindDatastore, "x"), ref(fleet.KindDatastore, "y")}
		}, fleet.InvalidEntity, "A VM can only be affixed on one datastore, however 2 datastores were specified."},
		"unknown host":      {func(v *fleet.VMSpec) { v.Affinities = []fleet.Ref{ref(fleet.KindHost, "10.9.9.9")} }, fleet.HostNotFound, "Host #10.9.9.9 not found"},
		"unknown datastore": {func(v *fleet.VMSpec) { v.Affinities = []fleet.Ref{ref(fleet.KindDatastore, "x")} }, fleet.DatastoreNotFound, "Datastore #x not found"},
		"unknown disk":      {func(v *fleet.VMSpec) { v.Affinities = []fleet.Ref{ref("disk", "x")} }, fleet.DiskNotFound, "not found"},
		"unknown subnet":    {func(v *fleet.VMSpec) { v.Subnets = []fleet.SubnetID{"x"} }, fleet.NetworkNotFound, "Network x not found"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := vmSpec("web", img)
			c.change(&spec)
			_, err := s.control.CreateVM(s.ctx(), root, s.project, spec)
			fails(t, err, c.code, c.text)
		})
	}
	_, err := s.control.CreateVM(s.ctx(), root, "x", vmSpec("web", img))
	fails(t, err, fleet.NotFound, "Project x not found")
	if all, err := s.control.VMs(s.ctx(), root, s.project, ""); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
	s.consistent()
	s.done(s.control.DeleteImage(s.ctx(), root, img)) // nothing that was refused counts as a user
	// Without any host the task says so.
	s.failed(s.control.CreateVM(s.ctx(), root, s.project, vmSpec("web", "")))("RESERVE_RESOURCE", fleet.NoSuchResource, "there are no hosts")
}

// V4, V5, V13: what cannot be deleted.
func TestVMsV4(t *testing.T) {
	s := newSite(t)
	h, _ := s.host("esx-1")
	id := s.vm("one", "")
	_, err := s.control.DeleteProject(s.ctx(), root, s.project)
	fails(t, err, fleet.ContainerNotEmpty, "Container not empty: project: "+string(s.project))
	s.power(id, fleet.StartVM)
	s.failed(s.control.DeleteVM(s.ctx(), root, id))(fleet.DeleteVM, fleet.InvalidVMState, "VM "+string(id)+" not powered off")
	s.vmIs(id, fleet.VMStarted)
	disk := s.disk("data")
	s.done(s.control.AttachDisk(s.ctx(), root, id, disk))
	s.power(id, fleet.StopVM)
	_, err = s.control.DeleteVM(s.ctx(), root, id)
	fails(t, err, fleet.PersistentDiskAttached, "Disk persistent-disk#"+string(disk)+" is attached to VM#"+string(id))
	s.done(s.control.DetachDisk(s.ctx(), root, id, disk))
	s.done(s.control.DeleteVM(s.ctx(), root, id))
	s.done(s.control.DeleteDisk(s.ctx(), root, disk))
	if left := files(t, h); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	_, err = s.control.DeleteVM(s.ctx(), root, id)
	fails(t, err, fleet.VMNotFound, "VM "+string(id)+" not found")
	s.consistent()
	must(t)(s.control.DeleteProject(s.ctx(), root, s.project))
}

// V14: several network cards, each with an address of its own.
func TestVMsV14(t *testing.T) {
	s := newSite(t)
	s.host("esx-1", portGroups("blue"))
	var nets []fleet.SubnetID
	for _, g := range []string{"VM Network", "blue"} {
		nets = append(nets, fleet.SubnetID(must(t)(s.control.CreateSubnet(s.ctx(), root, controller.SubnetSpec{Name: "net", PortGroups: []string{g}}))))
	}
	spec := vmSpec("one", "")
	spec.Subnets = nets
	known := boot.MAC{0, 0x50, 0x56, 1, 2, 3}
	spec.MACs = []boot.MAC{known}
	v := s.getVM(fleet.VMID(s.done(s.control.CreateVM(s.ctx(), root, s.project, spec))))
	if len(v.NICs) != 2 || v.NICs[0] != (fleet.NIC{Subnet: nets[0], PortGroup: "VM Network", MAC: known}) || v.NICs[1].PortGroup != "blue" || v.NICs[1].MAC.IsZero() {
		t.Errorf("%+v", v.NICs)
	}
	_, err := s.control.CreateVM(s.ctx(), root, s.project, spec)
	fails(t, err, fleet.InvalidEntity, "Another VM has the hardware address 00:50:56:01:02:03")
	s.done(s.control.DeleteVM(s.ctx(), root, v.ID))
	s.done(s.control.CreateVM(s.ctx(), root, s.project, spec)) // it is free again
}

// V15 to V19, D12: near to a disk, a host, a port group, a datastore; a disk near to a
// VM.
func TestVMsV15(t *testing.T) {
	s := newSite(t)
	s.host("esx-1", datastores(2))
	h, id := s.host("esx-2", datastores(2), portGroups("blue"))
	host, err := s.control.Host(s.ctx(), root, id)
	if err != nil {
		t.Fatal(err)
	}
	wanted := host.Facts.Datastores[1].ID
	make := func(a ...fleet.Ref) fleet.VM {
		t.Helper()
		spec := vmSpec("near", "")
		spec.Affinities = a
		return s.getVM(fleet.VMID(s.done(s.control.CreateVM(s.ctx(), root, s.project, spec))))
	}
	at := fleet.Ref{Kind: fleet.KindHost, ID: h.Address()}
	on := fleet.Ref{Kind: fleet.KindDatastore, ID: string(wanted)}
	for range 2 {
		if v := make(at); v.Host != id {
			t.Errorf("V16: %+v", v)
		}
		if v := make(on); v.Datastore != wanted || v.Host != id {
			t.Errorf("V18: %+v", v)
		}
		if v := make(at, on); v.Datastore != wanted || v.Host != id {
			t.Errorf("V19: %+v", v)
		}
		if v := make(fleet.Ref{Kind: fleet.KindPortGroup, ID: "blue"}); len(v.NICs) != 1 || v.NICs[0].PortGroup != "blue" {
			t.Errorf("V17: %+v", v.NICs)
		}
	}
	vm := make(on)
	for range 2 {
		disk, err := s.control.Disk(s.ctx(), root, fleet.DiskID(s.done(s.control.CreateDisk(s.ctx(), root, s.project, fleet.PersistentDiskSpec{Name: "data",
			Kind: "persistent", Flavor: "keep", Capacity: 1 << 30, Affinities: []fleet.Ref{{Kind: fleet.KindVM, ID: string(vm.ID)}}}))))
		if err != nil || disk.Datastore != wanted {
			t.Errorf("D12: %+v, %v", disk, err)
		}
		if v := make(fleet.Ref{Kind: "disk", ID: string(disk.ID)}); v.Datastore != wanted {
			t.Errorf("V15: %+v", v)
		}
	}
	s.consistent()
}

// V24: networks with addresses, as the guest tells them, and a ticket for the screen.
func TestVMsV24(t *testing.T) {
	s := newSite(t)
	h, _ := s.host("esx-1")
	id := s.vm("one", "")
	_, err := s.control.MKSTicket(s.ctx(), root, id)
	fails(t, err, fleet.InvalidVMState, "Get Mks Ticket is not allowed on vm that is not powered on.")
	s.power(id, fleet.StartVM)
	task := s.wait(s.control.MKSTicket(s.ctx(), root, id))
	var ticket struct {
		Port                  int
		CfgFile, Ticket, Host string
		SSLThumbprint         string `json:"sslThumbprint"`
	}
	if err := json.Unmarshal(task.Result, &ticket); err != nil || ticket.Port <= 0 || len(ticket.Ticket) < 20 || ticket.SSLThumbprint == "" || ticket.CfgFile == "" || ticket.Host == "" {
		t.Errorf("%s, %v", task.Result, err)
	}
	// Without VMware Tools a guest can tell its address by guestinfo.
	if err := adapter(t, h).SetMetadata(s.ctx(), id, nil, map[string]string{"guestinfo.ip": "192.0.2.7/24"}); err != nil {
		t.Fatal(err)
	}
	task = s.wait(s.control.VMNetworks(s.ctx(), root, id))
	var got struct {
		NetworkConnections []struct{ Network, MACAddress, IPAddress, Netmask, IsConnected string }
	}
	if err := json.Unmarshal(task.Result, &got); err != nil || len(got.NetworkConnections) != 1 {
		t.Fatalf("%s, %v", task.Result, err)
	}
	if n := got.NetworkConnections[0]; n.Network != "VM Network" || n.MACAddress != s.getVM(id).NICs[0].MAC.String() || n.IPAddress != "192.0.2.7" || n.Netmask != "255.255.255.0" || n.IsConnected != "True" {
		t.Errorf("%+v", n)
	}
}

// X12 to X14, and what the state of a VM does not allow.
func TestVMsX12(t *testing.T) {
	s := newSite(t)
	s.host("esx-1")
	id := s.vm("one", "")
	for _, c := range []struct {
		op fleet.Operation
		is fleet.VMState
		ok bool
	}{
		{fleet.SuspendVM, fleet.VMStopped, false},
		{fleet.RestartVM, fleet.VMStopped, false},
		{fleet.StopVM, fleet.VMStopped, true},
		{fleet.StartVM, fleet.VMStarted, true},
		{fleet.StartVM, fleet.VMStarted, true},
		{fleet.RestartVM, fleet.VMStarted, true},
		{fleet.SuspendVM, fleet.VMSuspended, true},
		{fleet.RestartVM, fleet.VMSuspended, false},
		{fleet.ResumeVM, fleet.VMStarted, true},
		{fleet.StopVM, fleet.VMStopped, true},
	} {
		task, err := s.control.PowerVM(s.ctx(), root, id, c.op)
		if err == nil && task.State != fleet.TaskQueued {
			t.Errorf("%s is answered with a task that is %s", c.op, task.State)
		}
		if c.ok {
			s.done(task, err)
		} else {
			s.failed(task, err)(c.op, fleet.InvalidVMState, "Invalid operation "+string(c.op))
		}
		s.vmIs(id, c.is)
	}
	_, err := s.control.PowerVM(s.ctx(), root, "x", fleet.StartVM)
	fails(t, err, fleet.VMNotFound, "VM x not found")
	_, err = s.control.PowerVM(s.ctx(), root, id, fleet.DeleteVM)
	fails(t, err, fleet.InvalidOperation, "no power operation")
	must(t)(s.control.SetVMMetadata(s.ctx(), root, id, map[string]string{"a": "1"}))
	must(t)(s.control.SetVMMetadata(s.ctx(), root, id, map[string]string{"b": "2"}))
	must(t)(s.control.AddVMTag(s.ctx(), root, id, "x"))
	must(t)(s.control.AddVMTag(s.ctx(), root, id, "x"))
	_, err = s.control.AddVMTag(s.ctx(), root, id, "")
	fails(t, err, fleet.InvalidEntity, "size must be between 1 and 64")
	if v := s.getVM(id); len(v.Metadata) != 1 || v.Metadata["b"] != "2" || !slices.Equal(v.Tags, []string{"x"}) {
		t.Errorf("%+v", v)
	}
}

// Who may do what with VMs and disks.
func TestVMsRoles(t *testing.T) {
	s := newSite(t)
	s.host("esx-1")
	id := s.vm("one", "")
	disk := s.disk("data")
	stranger := controller.Principal{Name: "stranger", Role: controller.ProjectUser, Tenant: s.tenant, Project: "other"}
	guest := controller.Principal{Name: "guest", Role: controller.Guest}
	foreign := controller.Principal{Name: "foreign", Role: controller.TenantAdmin, Tenant: "other"}
	for _, by := range []controller.Principal{stranger, guest, foreign} {
		for name, do := range map[string]func() error{
			"create a VM":   func() error { _, err := s.control.CreateVM(s.ctx(), by, s.project, vmSpec("x", "")); return err },
			"see a VM":      func() error { _, err := s.control.VM(s.ctx(), by, id); return err },
			"list VMs":      func() error { _, err := s.control.VMs(s.ctx(), by, s.project, ""); return err },
			"start a VM":    func() error { _, err := s.control.PowerVM(s.ctx(), by, id, fleet.StartVM); return err },
			"delete a VM":   func() error { _, err := s.control.DeleteVM(s.ctx(), by, id); return err },
			"attach a disk": func() error { _, err := s.control.AttachDisk(s.ctx(), by, id, disk); return err },
			"attach an ISO": func() error { _, err := s.control.AttachISO(s.ctx(), by, id, "x", strings.NewReader("x")); return err },
			"see a disk":    func() error { _, err := s.control.Disk(s.ctx(), by, disk); return err },
			"list disks":    func() error { _, err := s.control.Disks(s.ctx(), by, s.project, ""); return err },
			"delete a disk": func() error { _, err := s.control.DeleteDisk(s.ctx(), by, disk); return err },
			"tag a VM":      func() error { _, err := s.control.AddVMTag(s.ctx(), by, id, "x"); return err },
		} {
			if err := do(); fleet.CodeOf(err) != fleet.AccessForbidden {
				t.Errorf("%s as %s: %v", name, by.Name, err)
			}
		}
	}
	user := controller.Principal{Name: "user", Role: controller.ProjectUser, Tenant: s.tenant, Project: s.project}
	s.done(s.control.PowerVM(s.ctx(), user, id, fleet.StartVM))
	s.done(s.control.DeleteDisk(s.ctx(), user, disk))
}
