package controller_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"bootd/internal/fleet"
)

// A disk whose attachment failed, and could not be undone, is the VM's until that is
// deleted, and nobody's then.
func TestAttachmentNotUndone(t *testing.T) {
	g := &gate{before: func(_ context.Context, point string) error {
		if strings.HasSuffix(point, ": AttachDisk") || strings.HasSuffix(point, ": DetachDisk") {
			return &fleet.Fault{Kind: fleet.Broken, Doing: "pass", Host: "a gate", Text: "it is shut"}
		}
		return nil
	}}
	s := newGatedSite(t, g)
	s.host("esx-1")
	vm, disk := s.vm("one", ""), s.disk("data")
	s.failed(s.control.AttachDisk(s.ctx(), root, vm, disk))(fleet.AttachDisk, fleet.InternalError, "it is shut")
	if d := s.diskIs(disk, fleet.DiskAttached); d.VM != vm || len(s.getVM(vm).Disks) != 0 {
		t.Fatalf("%+v; %+v", d, s.getVM(vm).Disks)
	}
	s.done(s.control.DeleteVM(s.ctx(), root, vm))
	if d := s.diskIs(disk, fleet.DiskDetached); d.VM != "" {
		t.Errorf("%+v", d)
	}
	s.consistent()
	s.done(s.control.DeleteDisk(s.ctx(), root, disk))
	s.consistent()
}

// stepwise is a gate that lets one task of an operation begin for each value of next,
// once it is on. Next takes two values at once.
func stepwise(op fleet.Operation) (g *gate, on *atomic.Bool, next chan struct{}) {
	on, next = &atomic.Bool{}, make(chan struct{}, 2)
	return &gate{before: func(ctx context.Context, point string) error {
		if on.Load() && point == string(op)+"/"+string(op) {
			select {
			case <-next:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}}, on, next
}

// Two detach a disk, and a third attaches it after the first of them: it is attached.
func TestDetachedTwice(t *testing.T) {
	g, on, next := stepwise(fleet.DetachDisk)
	s := newGatedSite(t, g)
	s.host("esx-1")
	vm, disk := s.vm("one", ""), s.disk("data")
	s.done(s.control.AttachDisk(s.ctx(), root, vm, disk))
	on.Store(true)
	first, err1 := s.control.DetachDisk(s.ctx(), root, vm, disk)
	second, err2 := s.control.DetachDisk(s.ctx(), root, vm, disk)
	next <- struct{}{}
	s.done(first, err1)
	attached, err3 := s.control.AttachDisk(s.ctx(), root, vm, disk)
	next <- struct{}{}
	s.done(second, err2)
	s.done(attached, err3)
	if d := s.diskIs(disk, fleet.DiskAttached); d.VM != vm || len(s.getVM(vm).Disks) != 1 {
		t.Errorf("%+v; %+v", d, s.getVM(vm).Disks)
	}
	on.Store(false)
	s.done(s.control.DetachDisk(s.ctx(), root, vm, disk))
	s.diskIs(disk, fleet.DiskDetached)
	s.done(s.control.DeleteVM(s.ctx(), root, vm))
}

// As with disks, so with CD images.
func TestEjectedTwice(t *testing.T) {
	g, on, next := stepwise(fleet.DetachISO)
	s := newGatedSite(t, g)
	h, _ := s.host("esx-1")
	vm := s.vm("one", "")
	s.done(s.control.AttachISO(s.ctx(), root, vm, "a.iso", strings.NewReader("a CD image")))
	on.Store(true)
	first, err1 := s.control.DetachISO(s.ctx(), root, vm)
	second, err2 := s.control.DetachISO(s.ctx(), root, vm)
	next <- struct{}{}
	s.done(first, err1)
	attached, err3 := s.control.AttachISO(s.ctx(), root, vm, "b.iso", strings.NewReader("another"))
	next <- struct{}{}
	s.done(second, err2)
	s.done(attached, err3)
	v := s.getVM(vm)
	if v.ISO == nil || v.ISO.Name != "b.iso" {
		t.Fatalf("%+v", v.ISO)
	}
	if status, err := adapter(t, h).Status(s.ctx(), vm); err != nil || !strings.Contains(status.ISO, string(v.ISO.ID)) {
		t.Errorf("%+v, %v", status, err)
	}
}
