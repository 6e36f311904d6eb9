package esx

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/fleet"
)

// wait is how long the host holds back an answer when nothing changes. It also
// keeps the session alive, and tells a connection that is dead.
const wait = 20 * time.Second

// Watch tells see of all VMs that bootd has made, and then of every change, until
// ctx ends or see returns an error, which it returns. When the host is out of
// reach it says so once ([fleet.Update.Lost]), keeps trying, and begins again
// with a snapshot. It returns nil when ctx has ended.
//
// See is called by one goroutine, and holds back what follows while it runs.
func (h *Host) Watch(ctx context.Context, see func(fleet.Update) error) error {
	lost := false
	for pause := time.Second; ; {
		told, err := h.watchOnce(ctx, see)
		var stop *stopped
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &stop):
			return stop.error
		}
		if told {
			// The connection broke, or the session ended: that alone says nothing
			// of the host.
			lost, pause, err = false, 400*time.Millisecond, nil
		}
		fault, _ := h.fault(ctx, "watch", "the VMs", err).(*fleet.Fault)
		if fault != nil && !lost {
			lost = true
			h.log.Warn("the host does not answer", "err", fault)
			if err := see(fleet.Update{Lost: fault}); err != nil {
				return err
			}
		}
		if fault != nil && fault.Kind == fleet.BadCredentials {
			pause = max(pause, lockout)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause/2)):
			pause = min(2*pause, 30*time.Second)
		}
	}
}

// stopped carries the error of the one who watches.
type stopped struct{ error }

func (s *stopped) Unwrap() error { return s.error }

// watchOnce watches within one session. It reports whether a snapshot was told.
func (h *Host) watchOnce(ctx context.Context, see func(fleet.Update) error) (told bool, err error) {
	inv, err := h.connected(ctx)
	if err != nil {
		return false, err
	}
	collector, view, err := collect(ctx, inv)
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		// They go with the session if they cannot be destroyed.
		_, _ = methods.DestroyPropertyCollector(ctx, inv.vim, &types.DestroyPropertyCollector{This: collector})
		_, _ = methods.DestroyView(ctx, inv.vim, &types.DestroyView{This: view})
	}()
	w := &watched{vms: map[types.ManagedObjectReference]*mo.VirtualMachine{}, ids: map[types.ManagedObjectReference]fleet.VMID{}, sent: map[fleet.VMID]fleet.VMStatus{},
		changed: map[types.ManagedObjectReference]bool{}}
	seconds := int32(wait / time.Second)
	req := types.WaitForUpdatesEx{This: collector, Options: &types.WaitOptions{MaxWaitSeconds: &seconds}}
	for {
		set, err := h.waitForUpdates(ctx, inv, &req)
		if err != nil {
			return told, err
		}
		if set != nil { // nil: nothing in all that time
			req.Version = set.Version
			w.apply(set)
			if yes(set.Truncated) {
				continue
			}
		}
		if err := w.refresh(ctx, inv); err != nil {
			return told, err
		}
		u := fleet.Update{Snapshot: !told}
		if !told || w.host || time.Since(w.read) > h.config.Refresh {
			f, err := h.facts(ctx, inv)
			if err != nil {
				return told, err
			}
			u.Facts, w.host, w.read = &f, false, time.Now()
		}
		if w.difference(&u); told && len(u.VMs)+len(u.Gone) == 0 && u.Facts == nil {
			continue
		}
		if err := see(u); err != nil {
			return told, &stopped{err}
		}
		told = true
	}
}

// waitForUpdates bounds a wait: a host that is dead closes no connection.
func (h *Host) waitForUpdates(ctx context.Context, inv *inventory, req *types.WaitForUpdatesEx) (*types.UpdateSet, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+h.config.Timeout)
	defer cancel()
	r, err := methods.WaitForUpdatesEx(ctx, inv.vim, req)
	if err != nil {
		return nil, timedOut(ctx, err)
	}
	return r.Returnval, nil
}

// What is watched. A VM's extraConfig is not: it holds whole Ignition configs,
// and would be sent at each change.
var (
	vmWatched   = machineProperties
	hostWatched = []string{"runtime.inMaintenanceMode", "runtime.connectionState", "datastore", "config.product.version"}
)

// collect makes a property collector for all VMs, those that come too, and for
// the host.
func collect(ctx context.Context, inv *inventory) (collector, view types.ManagedObjectReference, err error) {
	pc, err := methods.CreatePropertyCollector(ctx, inv.vim, &types.CreatePropertyCollector{This: inv.vim.ServiceContent.PropertyCollector})
	if err != nil {
		return collector, view, err
	}
	v, err := methods.CreateContainerView(ctx, inv.vim, &types.CreateContainerView{This: *inv.vim.ServiceContent.ViewManager,
		Container: inv.vim.ServiceContent.RootFolder, Type: []string{"VirtualMachine"}, Recursive: true})
	if err != nil {
		return pc.Returnval, view, err
	}
	skip := true
	_, err = methods.CreateFilter(ctx, inv.vim, &types.CreateFilter{This: pc.Returnval, Spec: types.PropertyFilterSpec{
		PropSet: []types.PropertySpec{{Type: "VirtualMachine", PathSet: vmWatched}, {Type: "HostSystem", PathSet: hostWatched}},
		ObjectSet: []types.ObjectSpec{
			{Obj: v.Returnval, Skip: &skip, SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: "ContainerView", Path: "view"}}},
			{Obj: inv.host},
		}}})
	return pc.Returnval, v.Returnval, err
}

// watched is what is known of the VMs of a host.
type watched struct {
	vms  map[types.ManagedObjectReference]*mo.VirtualMachine
	ids  map[types.ManagedObjectReference]fleet.VMID
	sent map[fleet.VMID]fleet.VMStatus
	host bool      // something of the host has changed since
	read time.Time // its facts were read

	changed map[types.ManagedObjectReference]bool // since the last update
	stale   []types.ManagedObjectReference        // to be read again
}

// apply puts changes into what is known.
func (w *watched) apply(set *types.UpdateSet) {
	for _, f := range set.FilterSet {
		for _, o := range f.ObjectSet {
			if o.Obj.Type == "HostSystem" {
				w.host = true
				continue
			}
			w.changed[o.Obj] = true
			switch o.Kind {
			case types.ObjectUpdateKindLeave:
				delete(w.vms, o.Obj)
				continue
			case types.ObjectUpdateKindEnter:
				w.vms[o.Obj] = &mo.VirtualMachine{}
				w.vms[o.Obj].Self = o.Obj
			}
			if v := w.vms[o.Obj]; v != nil && plainChanges(o.ChangeSet) {
				mo.ApplyPropertyChange(v, o.ChangeSet)
			} else {
				w.stale = append(w.stale, o.Obj)
			}
		}
	}
}

// plainChanges reports whether changes are those of whole properties that were
// asked for. A host may also tell of a part of one, such as a device.
func plainChanges(list []types.PropertyChange) bool {
	for _, c := range list {
		if !slices.Contains(vmWatched, c.Name) || c.Op != "" && c.Op != types.PropertyChangeOpAssign {
			return false
		}
	}
	return true
}

// refresh reads again what changed in another way.
func (w *watched) refresh(ctx context.Context, inv *inventory) error {
	for _, ref := range w.stale {
		v := &mo.VirtualMachine{}
		err := inv.get(ctx, ref, vmWatched, v)
		if is[types.ManagedObjectNotFound](err) {
			delete(w.vms, ref)
			continue
		}
		if err != nil {
			return err
		}
		w.vms[ref] = v
	}
	w.stale = nil
	return nil
}

// difference adds to u what of the VMs is not as it was told last. A host may
// tell of one again that has not changed.
func (w *watched) difference(u *fleet.Update) {
	for _, ref := range slices.SortedFunc(maps.Keys(w.changed), func(a, b types.ManagedObjectReference) int { return strings.Compare(a.Value, b.Value) }) {
		v := w.vms[ref]
		was := w.ids[ref]
		id := fleet.VMID("")
		if v != nil && v.Config != nil {
			id, _, _ = vmOf(v.Config.Files.VmPathName)
		}
		if was != "" && was != id {
			delete(w.ids, ref)
			delete(w.sent, was)
			u.Gone = append(u.Gone, was)
		}
		if id == "" {
			continue
		}
		w.ids[ref] = id
		now := vmStatus(id, *v)
		if last, told := w.sent[id]; told && equal(last, now) {
			continue
		}
		w.sent[id] = now
		u.VMs = append(u.VMs, now)
	}
	clear(w.changed)
}

func equal(a, b fleet.VMStatus) bool {
	return a.VM == b.VM && a.State == b.State && a.Tools == b.Tools && a.ISO == b.ISO && a.CPUs == b.CPUs && a.Memory == b.Memory &&
		slices.Equal(a.Disks, b.Disks) && slices.EqualFunc(a.NICs, b.NICs, func(x, y fleet.NICStatus) bool {
		return x.PortGroup == y.PortGroup && x.MAC == y.MAC && x.Connected == y.Connected && slices.Equal(x.Addrs, y.Addrs)
	})
}
