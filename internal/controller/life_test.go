package controller_test

import (
	"strings"
	"testing"

	"bootd/internal/fleet"
)

// L1: one VM's whole life.
func TestLifeL1(t *testing.T) {
	s := newSite(t)
	h, _ := s.host("esx-1")
	img := s.image(fleet.Eager)
	id := s.vm("one", img)
	v := s.getVM(id)
	if v.State != fleet.VMStopped || v.Host == "" || v.Datastore == "" || len(v.NICs) != 1 {
		t.Errorf("%+v", v)
	}
	disk := fleet.DiskID(s.done(s.control.CreateDisk(s.ctx(), root, s.project, fleet.PersistentDiskSpec{Name: "data", Kind: "persistent-disk", Flavor: "keep", Capacity: 2 << 30})))
	s.done(s.control.AttachDisk(s.ctx(), root, id, disk))
	s.power(id, fleet.StartVM)
	s.vmIs(id, fleet.VMStarted)
	s.done(s.control.SetVMMetadata(s.ctx(), root, id, map[string]string{"a": "b"}))
	s.done(s.control.AttachISO(s.ctx(), root, id, "cd.iso", strings.NewReader("a CD image")))
	s.done(s.control.DetachISO(s.ctx(), root, id))
	s.done(s.control.DetachDisk(s.ctx(), root, id, disk))
	s.power(id, fleet.StopVM)
	s.done(s.control.AddVMTag(s.ctx(), root, id, "old"))
	s.consistent()
	s.done(s.control.DeleteVM(s.ctx(), root, id))
	s.done(s.control.DeleteDisk(s.ctx(), root, disk))
	s.done(s.control.DeleteImage(s.ctx(), root, img))
	s.consistent()
	if left := files(t, h); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	_, err := s.control.VM(s.ctx(), root, id)
	fails(t, err, fleet.VMNotFound, "not found")
}
