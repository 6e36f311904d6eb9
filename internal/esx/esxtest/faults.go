package esxtest

import (
	"slices"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// A plan is a fault that calls of a method will get.
type plan struct {
	method string
	skip   int
	times  int
	fault  types.BaseMethodFault
}

// Fail makes calls of a method fail: after skip that pass, so many times.
func (h *Host) Fail(method string, skip, times int, fault types.BaseMethodFault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.planned = append(h.planned, &plan{method, skip, times, fault})
}

// Fill makes the datastores full, or not any more.
func (h *Host) Fill(full bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.full = full
}

func (h *Host) isFull() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.full
}

// CopyFor makes copies of disks take a time.
func (h *Host) CopyFor(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.copying = d
}

func (h *Host) copyTime() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.copying
}

func (h *Host) due(method string) types.BaseMethodFault {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.planned {
		if p.method != method || p.times == 0 {
			continue
		}
		if p.skip > 0 {
			p.skip--
			continue
		}
		p.times--
		return p.fault
	}
	return nil
}

// vcenterOnly are calls that only vCenter carries out, and the simulator too.
var vcenterOnly = map[string]bool{
	"CloneVM_Task": true, "RelocateVM_Task": true, "MigrateVM_Task": true, "MarkAsTemplate": true, "MarkAsVirtualMachine": true,
	"PowerOnMultiVM_Task": true, "DisconnectHost_Task": true, "ReconnectHost_Task": true, "AddStandaloneHost_Task": true, "CreateFolder": true,
	"CreateDatacenter": true, "CreateClusterEx": true, "CreateDVS_Task": true, "MoveIntoFolder_Task": true, "InstantClone_Task": true,
	"CustomizeVM_Task": true, "SessionIsActive": true,
}

// changing are calls that a host with the free license refuses.
var changing = map[string]bool{
	"CreateVM_Task": true, "ReconfigVM_Task": true, "PowerOnVM_Task": true, "PowerOffVM_Task": true, "Destroy_Task": true, "MakeDirectory": true,
	"CopyVirtualDisk_Task": true, "CreateVirtualDisk_Task": true, "AddPortGroup": true, "EnterMaintenanceMode_Task": true,
}

// wrapped are calls for which an object gets a wrapper.
var wrapped = map[string]bool{
	"PowerOnVM_Task": true, "PowerOffVM_Task": true, "ResetVM_Task": true, "SuspendVM_Task": true, "ShutdownGuest": true, "ReconfigVM_Task": true,
	"AcquireTicket": true, "EnterMaintenanceMode_Task": true, "ExitMaintenanceMode_Task": true,
}

// handle sees every call before the simulator does. It may answer with a fault.
// An object it returned would be ignored for who is logged in, and the
// simulator wants its own types in the registry; but it looks for objects in the
// session's own registry first. So a wrapper is put there when it is needed.
func (h *Host) handle(ctx *simulator.Context, m *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	if ctx.Session == nil {
		return nil, nil
	}
	if f := h.due(m.Name); f != nil {
		return nil, f
	}
	switch {
	case vcenterOnly[m.Name]:
		return nil, &types.NotSupported{}
	case h.options.FreeLicense && changing[m.Name]:
		return nil, &types.RestrictedVersion{}
	case m.Name == "DeleteDatastoreFile_Task":
		if f := h.locked(ctx, m.Body.(*types.DeleteDatastoreFile_Task).Name); f != nil {
			return nil, f
		}
	case m.Name == "CreateVM_Task":
		if f := h.unconnected(ctx, m.Body.(*types.CreateVM_Task).Config.DeviceChange); f != nil {
			return nil, f
		}
	case wrapped[m.Name]:
		h.wrap(ctx, ctx.Map.Get(m.This))
	}
	return nil, nil
}

// unconnected is the fault for network cards of which a port group is not there, or
// is one of the host's own; the simulator would crash.
func (h *Host) unconnected(ctx *simulator.Context, changes []types.BaseVirtualDeviceConfigSpec) types.BaseMethodFault {
	for i, c := range changes {
		card, ok := c.GetVirtualDeviceConfigSpec().Device.(types.BaseVirtualEthernetCard)
		if !ok {
			continue
		}
		b, ok := card.GetVirtualEthernetCard().Backing.(*types.VirtualEthernetCardNetworkBackingInfo)
		if !ok {
			continue
		}
		if !slices.ContainsFunc(ctx.Map.All("Network"), func(e mo.Entity) bool { return e.Entity().Name == b.DeviceName }) {
			f := &types.InvalidDeviceBacking{}
			f.Property, f.DeviceIndex = "deviceChange.device.backing", int32(i)
			return f
		}
	}
	return nil
}

func (h *Host) wrap(ctx *simulator.Context, object mo.Reference) {
	var w mo.Reference
	switch o := object.(type) {
	case *simulator.VirtualMachine:
		w = &machine{VirtualMachine: o, h: h}
	case *simulator.HostSystem:
		w = &system{HostSystem: o, h: h}
	default:
		return
	}
	ref, session := object.Reference(), ctx.Session.Registry
	ctx.WithLock(object, func() { // Put writes into the object
		if session.Get(ref) != nil {
			return
		}
		session.Put(w)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.wrappers[ref] = append(h.wrappers[ref], session)
	})
}

// A watcher sees objects go, by whatever way.
type watcher struct{ h *Host }

func (*watcher) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "Watcher", Value: "watcher"}
}

// PutObject counts the tasks that begin.
func (w *watcher) PutObject(_ *simulator.Context, o mo.Reference) {
	if _, ok := o.(*simulator.Task); ok {
		w.h.mu.Lock()
		defer w.h.mu.Unlock()
		w.h.tasks++
	}
}

// UpdateObject counts those that end.
func (w *watcher) UpdateObject(_ *simulator.Context, o mo.Reference, changes []types.PropertyChange) {
	if o.Reference().Type != "Task" {
		return
	}
	for _, c := range changes {
		if c.Name == "info.state" && (c.Val == types.TaskInfoStateSuccess || c.Val == types.TaskInfoStateError) {
			w.h.mu.Lock()
			w.h.tasks--
			w.h.mu.Unlock()
		}
	}
}

// settle waits until no task runs any more.
func (h *Host) settle() {
	running := func() int {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.tasks
	}
	for end := time.Now().Add(time.Minute); running() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// RemoveObject takes the wrappers of an object out of the sessions.
func (w *watcher) RemoveObject(ctx *simulator.Context, ref types.ManagedObjectReference) {
	w.h.mu.Lock()
	sessions := w.h.wrappers[ref]
	delete(w.h.wrappers, ref)
	w.h.mu.Unlock()
	for _, r := range sessions {
		r.Remove(ctx, ref)
	}
	if ref.Type == "VirtualMachine" && w.h.options.Backend != nil {
		w.h.options.Backend.Destroyed(w.h, ref)
	}
}

// replace puts what is better than the simulator's into its registry: objects
// that it never asks for their types.
func (h *Host) replace() {
	reg := h.model.Map()
	reg.Handler = h.handle
	reg.AddHandler(&watcher{h})
	network := reg.Any("HostSystem").(*simulator.HostSystem).ConfigManager.NetworkSystem
	reg.Put(&networks{HostNetworkSystem: reg.Get(*network).(*simulator.HostNetworkSystem)})
	dm := reg.VirtualDiskManager().(*simulator.VirtualDiskManager)
	reg.Put(&disks{VirtualDiskManager: dm, h: h})
}
