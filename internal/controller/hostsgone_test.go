package controller_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"bootd/internal/controller"
	"bootd/internal/esx/esxtest"
	"bootd/internal/fleet"
)

// lose takes a host that is watched from the network, and waits until that is known.
func (s *site) lose(h *esxtest.Host, id fleet.HostID) {
	s.Helper()
	s.until("the host is watched", func() bool { return h.Calls("WaitForUpdatesEx") > 0 })
	h.Down()
	s.until("the host is told to be lost", s.reachable(id, false))
}

func (s *site) reachable(id fleet.HostID, want bool) func() bool {
	return func() bool {
		x, err := s.control.Host(s.ctx(), root, id)
		return err == nil && x.Health.Reachable == want
	}
}

// A VM that runs on a host that does not answer can be deleted: at once for its
// project, on the host when that is back.
func TestHostsLostVM(t *testing.T) {
	s := newSite(t)
	h, id := s.host("esx-1")
	vm := s.vm("one", "")
	s.power(vm, fleet.StartVM)
	s.lose(h, id)
	s.done(s.control.DeleteVM(s.ctx(), root, vm))
	s.consistent()
	if err := h.Up(); err != nil {
		t.Fatal(err)
	}
	s.until("the VM is gone from the host", func() bool { return count(files(t, h), "vm-") == 0 })
}

// A host that is gone can be deleted with the VMs that it ran: they use nothing then,
// and can be deleted, as can the disks that were attached to them. Until then every refusal says what to do.
func TestHostsGone(t *testing.T) {
	s := newSite(t)
	var later atomic.Int64
	s.stop()
	s.tune = func(o *controller.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	}
	s.start()
	h, id := s.host("esx-1")
	img := s.image(fleet.Eager)
	vm, disk := s.vm("one", img), s.disk("data")
	s.power(vm, fleet.StartVM)
	s.done(s.control.AttachDisk(s.ctx(), root, vm, disk))
	s.lose(h, id)
	_, err := s.control.DeleteHost(s.ctx(), root, id)
	fails(t, err, fleet.StateError, "it has not answered since")
	s.done(s.control.SuspendHost(s.ctx(), root, id))
	_, err = s.control.EnterMaintenance(s.ctx(), root, id)
	fails(t, err, fleet.HostHasVMs, "it does not answer: delete it, and they are lost with it")
	_, err = s.control.DeleteHost(s.ctx(), root, id)
	fails(t, err, fleet.StateError, "after 10m0s it can be deleted")
	s.hostIs(id, fleet.HostSuspended)

	later.Store(int64(fleet.GoneAfter))
	s.done(s.control.DeleteHost(s.ctx(), root, id))
	_, err = s.control.Host(s.ctx(), root, id)
	fails(t, err, fleet.HostNotFound, "not found")
	s.vmIs(vm, fleet.VMError)
	if d := s.diskIs(disk, fleet.DiskError); d.VM != "" || d.Fault != "its datastore was removed with its host" {
		t.Errorf("%+v", d)
	}
	s.consistent()
	s.done(s.control.DeleteDisk(s.ctx(), root, disk))
	s.done(s.control.DeleteVM(s.ctx(), root, vm))
	s.consistent()
	s.done(s.control.DeleteImage(s.ctx(), root, img))
	if stores, err := s.control.Datastores(s.ctx(), root, ""); err != nil || len(stores) > 0 {
		t.Errorf("%+v, %v", stores, err)
	}
}

// A host that answers again is not deleted with its VMs, whatever was known of it
// when that was asked for.
func TestHostsGoneAndBack(t *testing.T) {
	var later atomic.Int64
	var h *esxtest.Host
	g := &gate{before: func(_ context.Context, point string) error {
		if point == "DELETE_HOST/DEPROVISION_HOST" {
			return h.Up()
		}
		return nil
	}}
	s := newGatedSite(t, g)
	s.stop()
	s.tune = func(o *controller.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	}
	s.start()
	var id fleet.HostID
	h, id = s.host("esx-1")
	vm := s.vm("one", "")
	s.lose(h, id)
	s.done(s.control.SuspendHost(s.ctx(), root, id))
	later.Store(int64(fleet.GoneAfter))
	s.failed(s.control.DeleteHost(s.ctx(), root, id))("DEPROVISION_HOST", fleet.StateError, "in state SUSPENDED; suspend it, delete its VMs")
	s.hostIs(id, fleet.HostSuspended)
	s.vmIs(vm, fleet.VMStopped)
	s.consistent()
}

// A host that does not answer and has no VMs enters maintenance unasked.
func TestHostsLostMaintenance(t *testing.T) {
	s := newSite(t)
	h, id := s.host("esx-1")
	s.image(fleet.Eager)
	s.lose(h, id)
	s.retire(id)
}
