package controller_test

import (
	"strings"
	"testing"

	"bootd/internal/controller"
	"bootd/internal/fleet"
)

func diskSpec(name string) fleet.PersistentDiskSpec {
	return fleet.PersistentDiskSpec{Name: name, Kind: fleet.KindPersistentDisk, Flavor: "keep", Capacity: 2 << 30}
}

func (s *site) disk(name string) fleet.DiskID {
	s.Helper()
	return fleet.DiskID(s.done(s.control.CreateDisk(s.ctx(), root, s.project, diskSpec(name))))
}

func (s *site) diskIs(id fleet.DiskID, want fleet.DiskState) fleet.Disk {
	s.Helper()
	d, err := s.control.Disk(s.ctx(), root, id)
	if err != nil || d.State != want {
		s.Errorf("disk is %s, %v; want %s", d.State, err, want)
	}
	return d
}

// D1 to D5: created with both spellings of its kind; in the way of its project; names.
func TestDisksD1(t *testing.T) {
	s := newSite(t)
	h, _ := s.host("esx-1")
	for _, kind := range []fleet.Kind{"persistent-disk", "persistent"} {
		spec := diskSpec("data")
		spec.Kind, spec.Tags = kind, []string{"a", "b"}
		task := s.wait(s.control.CreateDisk(s.ctx(), root, s.project, spec))
		d := s.diskIs(fleet.DiskID(task.Entity.ID), fleet.DiskDetached)
		if d.Name != "data" || d.FlavorName != "keep" || d.Capacity != 2<<30 || d.Datastore == "" || len(d.Tags) != 2 || task.Operation != "CREATE_DISK" {
			t.Errorf("%+v; %+v", d, task)
		}
	}
	if n := count(files(t, h), "disk-"); n != 2 {
		t.Errorf("%d disks on the host", n)
	}
	_, err := s.control.DeleteProject(s.ctx(), root, s.project)
	fails(t, err, fleet.ContainerNotEmpty, "Container not empty: project: "+string(s.project))
	spec := diskSpec("1")
	_, err = s.control.CreateDisk(s.ctx(), root, s.project, spec)
	fails(t, err, fleet.InvalidEntity, "must match")
	all, err := s.control.Disks(s.ctx(), root, s.project, "data")
	if err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	s.consistent()
	for _, d := range all {
		s.done(s.control.DeleteDisk(s.ctx(), root, d.ID))
		_, err = s.control.Disk(s.ctx(), root, d.ID)
		fails(t, err, fleet.DiskNotFound, "Disk persistent-disk#"+string(d.ID)+" not found")
	}
	if left := files(t, h); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	s.consistent()
}

// D6 to D8, F12: flavors that are not there, or are to be deleted: the last disk takes
// the flavor with it.
func TestDisksD6(t *testing.T) {
	s := newSite(t)
	s.host("esx-1")
	spec := diskSpec("data")
	spec.Flavor = "f"
	_, err := s.control.CreateDisk(s.ctx(), root, s.project, spec)
	fails(t, err, fleet.InvalidFlavor, "Flavor f is not found for kind persistent-disk")
	if all, err := s.control.Disks(s.ctx(), root, s.project, ""); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
	id := s.disk("data")
	flavor := s.diskIs(id, fleet.DiskDetached).Flavor
	must(t)(s.control.DeleteFlavor(s.ctx(), root, flavor))
	if f, err := s.control.Flavor(s.ctx(), flavor); err != nil || f.State != fleet.FlavorPendingDelete {
		t.Errorf("%+v, %v", f, err)
	}
	_, err = s.control.DeleteFlavor(s.ctx(), root, flavor)
	fails(t, err, fleet.InvalidFlavorState, "is in invalid state PENDING_DELETE")
	_, err = s.control.CreateDisk(s.ctx(), root, s.project, diskSpec("late"))
	fails(t, err, fleet.InvalidFlavorState, "Flavor keep is in invalid state PENDING_DELETE")
	s.done(s.control.DeleteDisk(s.ctx(), root, id))
	_, err = s.control.Flavor(s.ctx(), flavor)
	fails(t, err, fleet.FlavorNotFound, "not found")
	must(t)(s.control.CreateFlavor(s.ctx(), root, "keep", fleet.KindPersistentDisk, amounts(t, "persistent-disk=1"), true))
	s.consistent()
}

// D9 to D11: too large, or on no datastore that suits; the disk is in ERROR, holds
// nothing, and can be deleted.
func TestDisksD9(t *testing.T) {
	s := newSite(t)
	s.host("esx-1")
	stores, err := s.control.Datastores(s.ctx(), root, "")
	if err != nil || len(stores) != 1 {
		t.Fatal(stores, err)
	}
	for name, tag := range map[string]string{"wrong": "SHARED_VMFS", "right": string(stores[0].Type)} {
		must(t)(s.control.CreateFlavor(s.ctx(), root, name, fleet.KindPersistentDisk, amounts(t, "storage."+tag+"=1"), true))
	}
	big := diskSpec("big")
	big.Capacity = 2 << 40
	wrong := diskSpec("wrong")
	wrong.Flavor = "wrong"
	for _, c := range []struct {
		spec fleet.PersistentDiskSpec
		code fleet.Code
	}{{big, fleet.NotEnoughDatastoreCapacity}, {wrong, fleet.UnfulfillableDiskAffinities}} {
		id := fleet.DiskID(s.failed(s.control.CreateDisk(s.ctx(), root, s.project, c.spec))("RESERVE_RESOURCE", c.code, "1 host"))
		if d := s.diskIs(id, fleet.DiskError); d.Fault == "" {
			t.Errorf("%+v", d)
		}
		s.done(s.control.DeleteDisk(s.ctx(), root, id))
	}
	right := diskSpec("right")
	right.Flavor = "right"
	s.done(s.control.CreateDisk(s.ctx(), root, s.project, right))
	right.Affinities = []fleet.Ref{{Kind: fleet.KindHost, ID: "x"}}
	_, err = s.control.CreateDisk(s.ctx(), root, s.project, right)
	fails(t, err, fleet.InvalidEntity, "Create disk can only take locality kind of vm")
	right.Affinities = []fleet.Ref{{Kind: fleet.KindVM, ID: "x"}}
	_, err = s.control.CreateDisk(s.ctx(), root, s.project, right)
	fails(t, err, fleet.VMNotFound, "VM x not found")
}

// X1 to X10: attached and detached, on and off; what cannot be.
func TestDisksX1(t *testing.T) {
	s := newSite(t)
	s.host("esx-1")
	vm, second := s.vm("one", ""), s.vm("two", "")
	a, b := s.disk("a"), s.disk("b")
	for range 2 { // stopped, then started
		s.done(s.control.AttachDisk(s.ctx(), root, vm, a))
		s.done(s.control.AttachDisk(s.ctx(), root, vm, b))
		if d := s.diskIs(a, fleet.DiskAttached); d.VM != vm || len(s.getVM(vm).Disks) != 2 {
			t.Errorf("%+v, %+v", d, s.getVM(vm).Disks)
		}
		for _, x := range []fleet.VMID{vm, second} { // X5, X6
			_, err := s.control.AttachDisk(s.ctx(), root, x, a)
			fails(t, err, fleet.StateError, "Invalid operation ATTACH_DISK for persistent-disk/"+string(a)+" in state ATTACHED")
		}
		_, err := s.control.DeleteDisk(s.ctx(), root, a)
		fails(t, err, fleet.StateError, "Invalid operation DELETE_DISK for persistent-disk/"+string(a)+" in state ATTACHED")
		s.done(s.control.DetachDisk(s.ctx(), root, vm, a))
		s.done(s.control.DetachDisk(s.ctx(), root, vm, b))
		if d := s.diskIs(a, fleet.DiskDetached); d.VM != "" || len(s.getVM(vm).Disks) != 0 {
			t.Errorf("%+v, %+v", d, s.getVM(vm).Disks)
		}
		s.power(vm, fleet.StartVM)
	}
	_, err := s.control.AttachDisk(s.ctx(), root, vm, "x")
	fails(t, err, fleet.DiskNotFound, "not found")
	_, err = s.control.AttachDisk(s.ctx(), root, "x", a)
	fails(t, err, fleet.VMNotFound, "VM x not found")
	s.failed(s.control.DetachDisk(s.ctx(), root, vm, a))(fleet.DetachDisk, fleet.InternalError, "DETACH_DISK failed")
	s.power(vm, fleet.SuspendVM)
	s.failed(s.control.AttachDisk(s.ctx(), root, vm, a))(fleet.AttachDisk, fleet.InvalidVMState, "Vm in suspended state")
	s.diskIs(a, fleet.DiskDetached)
	// X11: a VM in ERROR.
	spec := vmSpec("broken", "")
	spec.Flavor = "huge"
	lost := fleet.VMID(s.failed(s.control.CreateVM(s.ctx(), root, s.project, spec))("RESERVE_RESOURCE", fleet.NotEnoughMemoryResource, ""))
	s.failed(s.control.AttachDisk(s.ctx(), root, lost, a))(fleet.AttachDisk, fleet.VMNotFound, "VM "+string(lost)+" not found")
	s.diskIs(a, fleet.DiskDetached)
	// X3: another project's disk.
	other := fleet.ProjectID(must(t)(s.control.CreateProject(s.ctx(), root, s.tenant, controller.ProjectSpec{Name: "db", Ticket: "gold", Limits: amounts(t, "vm=1 vm.memory=1GB persistent-disk=1")})))
	foreign := fleet.DiskID(s.done(s.control.CreateDisk(s.ctx(), root, other, diskSpec("c"))))
	_, err = s.control.AttachDisk(s.ctx(), root, vm, foreign)
	fails(t, err, fleet.InvalidOperation, "not in the same project")
}

// V29, V30: CD images.
func TestDisksV29(t *testing.T) {
	s := newSite(t)
	h, _ := s.host("esx-1")
	vm := s.vm("one", "")
	s.failed(s.control.DetachISO(s.ctx(), root, vm))(fleet.DetachISO, fleet.NoISOAttached, "No ISO is attached")
	for range 2 {
		s.done(s.control.AttachISO(s.ctx(), root, vm, "cd.iso", strings.NewReader("a CD image")))
		v := s.getVM(vm)
		if v.ISO == nil || v.ISO.Name != "cd.iso" || v.ISO.Size != 10 {
			t.Errorf("%+v", v.ISO)
		}
		if status, err := adapter(t, h).Status(s.ctx(), vm); err != nil || !strings.Contains(status.ISO, string(v.ISO.ID)) {
			t.Errorf("%+v, %v", status, err)
		}
		_, err := s.control.AttachISO(s.ctx(), root, vm, "second.iso", strings.NewReader("another"))
		fails(t, err, fleet.ISOAlreadyAttached, "already attached")
		s.done(s.control.DetachISO(s.ctx(), root, vm))
		if v := s.getVM(vm); v.ISO != nil {
			t.Errorf("%+v", v.ISO)
		}
		s.power(vm, fleet.StartVM)
	}
	s.power(vm, fleet.SuspendVM)
	s.failed(s.control.AttachISO(s.ctx(), root, vm, "cd.iso", strings.NewReader("a CD image")))("UPLOAD_ISO", fleet.InvalidVMState, "in state SUSPENDED")
	if v := s.getVM(vm); v.ISO != nil {
		t.Errorf("%+v", v.ISO)
	}
	if left := s.spooled(); len(left) > 0 {
		t.Errorf("in the spool: %v", left)
	}
}
