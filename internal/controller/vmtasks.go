package controller

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"bootd/internal/fleet"
	"bootd/internal/place"
	"bootd/internal/store"
	"bootd/internal/task"
)

func (c *Controller) vmPlans() []task.Plan {
	plans := []task.Plan{
		{Operation: createVM, Steps: []task.Step{
			{Operation: reserveResource, Do: c.doReserveVM, Undo: c.undoReserveVM},
			{Operation: createVM, Do: c.doCreateVM, Undo: c.undoCreateVM},
		}},
		{Operation: fleet.DeleteVM, Steps: []task.Step{{Operation: fleet.DeleteVM, Do: c.doDeleteVM}}},
		{Operation: getNetworks, Steps: []task.Step{{Operation: getNetworks, Do: c.doNetworks}}},
		{Operation: fleet.GetMKSTicket, Steps: []task.Step{{Operation: fleet.GetMKSTicket, Do: c.doTicket}}},
	}
	for _, op := range powerOperations {
		plans = append(plans, task.Plan{Operation: op, Steps: []task.Step{{Operation: op, Do: c.doPower(op)}}})
	}
	return plans
}

// maxChoices is how often a place is chosen for one VM. Each time the view is
// corrected by what the transaction has found, so that more are hardly ever needed.
const maxChoices = 50

// doReserveVM chooses a host and a datastore, and commits what is promised there
// with the choice.
func (c *Controller) doReserveVM(ctx context.Context, call *task.Call) error {
	return c.placeVM(ctx, fleet.VMID(call.Entity.ID))
}

func (c *Controller) placeVM(ctx context.Context, id fleet.VMID) error {
	v, err := find(ctx, c, vms, fleet.KindVM, string(id))
	if err != nil || v.Reserved {
		return err
	}
	return c.choosing(ctx, v.Need, true, func(at place.Choice) (bool, error) { return c.reserveVM(ctx, v.ID, at) })
}

// choosing chooses until commit says that the choice is good. Before it refuses it
// has looked at all there is now.
func (c *Controller) choosing(ctx context.Context, need place.Request, hold bool, commit func(place.Choice) (good bool, err error)) error {
	fresh := false
	for range maxChoices {
		at, err := c.mirror.choose(need, c.options.Random, hold)
		if err != nil && !fresh {
			if err := c.mirror.read(ctx, c.store); err != nil {
				return err
			}
			fresh = true
			continue
		}
		if err != nil {
			return err
		}
		good, err := commit(at)
		if err != nil || good {
			return err
		}
	}
	return passing{errors.New("cannot find a place: others take each one first")}
}

// reserveVM commits a choice. It is not good if the host or the datastore is not, any
// more, as it was when it was chosen.
func (c *Controller) reserveVM(ctx context.Context, id fleet.VMID, at place.Choice) (good bool, err error) {
	var h fleet.Host
	var l place.Load
	var d fleet.Datastore
	var s place.Space
	err = c.updateInTurn(ctx, func(tx *store.Tx) error {
		good = false
		v, err := get(tx, vms, fleet.KindVM, string(id))
		if err != nil {
			return err
		}
		if good = v.Reserved; good {
			return nil
		}
		h, err = orZero(tx, hosts, string(at.Host))
		if err != nil {
			return err
		}
		l, err = orZero(tx, loads, string(at.Host))
		if err != nil {
			return err
		}
		if d, s, err = spaceOf(tx, at.Datastore); err != nil {
			return err
		}
		name, mounts := d.Mounts[h.ID]
		if !h.Takes() || !mounts || !h.Allows(name) {
			return nil
		}
		more, err := l.Add(h.Facts, c.options.Policy, v.Need)
		if err != nil {
			return nil // somebody was faster
		}
		filled, err := s.Add(d, v.Need.Storage)
		if err != nil {
			return nil
		}
		good = true
		v.Host, v.Datastore, v.Reserved = h.ID, d.ID, true
		if err := connectNICs(tx, &v, h.Facts); err != nil {
			return err
		}
		return errors.Join(store.Put(tx, loads, string(h.ID), more), store.Put(tx, spaces, string(d.ID), filled),
			store.Put(tx, hostVMs, string(h.ID)+"/"+string(id), id), store.Put(tx, vms, string(id), v))
	})
	if err == nil && !good {
		c.mirror.correct(at, h, l, d, s)
	}
	return good, err
}

func spaceOf(tx *store.Tx, id fleet.DatastoreID) (fleet.Datastore, place.Space, error) {
	d, err := orZero(tx, datastores, string(id))
	if err != nil {
		return d, place.Space{}, err
	}
	s, err := orZero(tx, spaces, string(id))
	return d, s, err
}

// connectNICs chooses the port group of each NIC: the first of its subnet that the
// host has.
func connectNICs(tx *store.Tx, v *vm, f fleet.HostFacts) error {
	for i, n := range v.NICs {
		if n.Subnet == "" {
			continue
		}
		s, err := get(tx, subnets, fleet.KindSubnet, string(n.Subnet))
		if err != nil {
			return err
		}
		for _, name := range s.PortGroups {
			if slices.ContainsFunc(f.PortGroups, func(p fleet.PortGroup) bool { return p.Name == name }) {
				v.NICs[i].PortGroup = name
				break
			}
		}
		if v.NICs[i].PortGroup == "" {
			return fleet.Errorf(fleet.UnfulfillableAffinities, "Host %s has no port group of subnet %s any more", f.Name, n.Subnet)
		}
	}
	return nil
}

// giveBack gives back what a VM holds of its host, its datastore and its project's
// quota.
func giveBack(tx *store.Tx, v *vm) error {
	if v.Reserved {
		if err := releaseHost(tx, v.Host, v.Need); err != nil {
			return err
		}
		if err := releaseSpace(tx, v.Datastore, v.Need.Storage); err != nil {
			return err
		}
		store.Delete(tx, hostVMs, string(v.Host)+"/"+string(v.ID))
		v.Reserved = false
	}
	if v.Charged {
		if err := uncharge(tx, v.Project, v.Cost); err != nil {
			return err
		}
		v.Charged = false
	}
	return nil
}

// releaseHost is for a host that is known; what was promised of one that is gone is
// gone with it.
func releaseHost(tx *store.Tx, id fleet.HostID, need place.Request) error {
	l, err := store.Get(tx, loads, string(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if l, err = l.Remove(need); err != nil {
		return err
	}
	return store.Put(tx, loads, string(id), l)
}

// releaseSpace forgets a datastore that was only waiting for this.
func releaseSpace(tx *store.Tx, id fleet.DatastoreID, bytes int64) error {
	d, s, err := spaceOf(tx, id)
	if err != nil || d.ID == "" {
		return err
	}
	if s, err = s.Remove(bytes); err != nil {
		return err
	}
	if s.Promised == 0 && len(d.Mounts) == 0 {
		store.Delete(tx, datastores, string(id))
		store.Delete(tx, spaces, string(id))
		return nil
	}
	return store.Put(tx, spaces, string(id), s)
}

func uncharge(tx *store.Tx, id fleet.ProjectID, cost fleet.Amounts) error {
	p, err := get(tx, projects, fleet.KindProject, string(id))
	if err != nil {
		return err
	}
	if p.Quota, err = p.Quota.Release(cost); err != nil {
		return err
	}
	return store.Put(tx, projects, string(id), p)
}

// undoReserveVM gives everything back, and leaves the VM in ERROR with the reason.
func (c *Controller) undoReserveVM(ctx context.Context, call *task.Call) error {
	why := c.reason(ctx, call)
	return c.updateInTurn(ctx, func(tx *store.Tx) error {
		v, err := get(tx, vms, fleet.KindVM, call.Entity.ID)
		if err != nil {
			return err
		}
		if err := giveBack(tx, &v); err != nil {
			return err
		}
		v.State, v.Fault, v.Host, v.Datastore = fleet.VMError, why, "", ""
		return store.Put(tx, vms, string(v.ID), v)
	})
}

// reason is why a task is undone.
func (c *Controller) reason(ctx context.Context, call *task.Call) string {
	if t, err := c.tasks.Get(ctx, call.Task); err == nil && t.Cause() != nil {
		return t.Cause().Message
	}
	return "its task failed"
}

// doCreateVM makes the VM where it was reserved for, with its image.
func (c *Controller) doCreateVM(ctx context.Context, call *task.Call) error {
	return c.makeVM(ctx, fleet.VMID(call.Entity.ID), nil)
}

// makeVM makes a VM that has a place; more is for its guest, beside its environment.
func (c *Controller) makeVM(ctx context.Context, id fleet.VMID, more map[string]string) error {
	v, err := find(ctx, c, vms, fleet.KindVM, string(id))
	if err != nil || v.State == fleet.VMStopped {
		return err
	}
	d, err := find(ctx, c, datastores, fleet.KindDatastore, string(v.Datastore))
	if err != nil {
		return err
	}
	y, err := c.hypervisor(ctx, v.Host)
	if err != nil {
		return err
	}
	for try := 0; ; try++ {
		b, err := c.build(ctx, v, d.Mounts[v.Host])
		if err == nil {
			maps.Copy(b.GuestInfo, guestInfo(more))
			err = y.CreateVM(ctx, b)
		}
		if v.Image != "" && fleet.IsFault(err, fleet.Missing) && try == 0 {
			// Somebody may have deleted the image on the host.
			c.log.Warn("something is missing to make a VM; its image is copied again", "vm", v.ID, "host", v.Host, "err", err)
			if err := c.store.Update(ctx, func(tx *store.Tx) error { store.Delete(tx, copies, copyKey(v.Image, v.Datastore)); return nil }); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	return c.setVM(ctx, v.ID, func(v *vm) {
		if v.State == fleet.VMCreating {
			v.State = fleet.VMStopped
		}
	})
}

// setVM changes the record of a VM.
func (c *Controller) setVM(ctx context.Context, id fleet.VMID, f func(*vm)) error {
	return c.store.Update(ctx, func(tx *store.Tx) error {
		v, err := get(tx, vms, fleet.KindVM, string(id))
		if err != nil {
			return err
		}
		f(&v)
		return store.Put(tx, vms, string(id), v)
	})
}

// build is the VM as its host makes it, once the image is there.
func (c *Controller) build(ctx context.Context, v vm, datastore string) (fleet.Build, error) {
	b := fleet.Build{
		VM: v.ID, Name: v.Name, Notes: "made by bootd for project " + string(v.Project), CPUs: v.CPUs, Memory: v.Memory, Datastore: datastore,
		NICs: v.NICs, GuestInfo: guestInfo(v.Environment), NetworkFirst: v.Image == "",
	}
	for _, d := range v.Disks {
		if d.Kind == fleet.KindEphemeralDisk && !d.Boot {
			b.Disks = append(b.Disks, fleet.BuildDisk{ID: d.ID, Capacity: d.Capacity})
		}
	}
	if v.Image == "" {
		return b, nil
	}
	i, err := find(ctx, c, images, fleet.KindImage, string(v.Image))
	if err != nil {
		return b, err
	}
	for _, s := range i.Settings {
		if s.Name == "scsi0.virtualDev" {
			b.Controller = s.Value
		}
	}
	if _, _, err := c.ensureCopy(ctx, v.Image, v.Datastore, v.Host); err != nil {
		return b, err
	}
	b.Image = &fleet.ImageCopy{ID: v.Image, Datastore: datastore}
	return b, nil
}

// guestInfo is the environment as a VM's guest reads it: keys that are not under
// "guestinfo." are put there, so that no one sets another part of its configuration.
func guestInfo(environment map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range environment {
		if !strings.HasPrefix(k, "guestinfo.") {
			k = "guestinfo." + k
		}
		out[k] = v
	}
	return out
}

func (c *Controller) undoCreateVM(ctx context.Context, call *task.Call) error {
	v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
	if err != nil || v.Host == "" {
		return err
	}
	return c.discard(ctx, v.Host, leftover{Kind: fleet.KindVM, ID: string(v.ID)})
}

// doDeleteVM deletes a VM and everything that was counted for it. One whose host
// does not answer cannot be stopped first: it is deleted when the host is back.
func (c *Controller) doDeleteVM(ctx context.Context, call *task.Call) error {
	v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
	if fleet.CodeOf(err) == fleet.VMNotFound {
		return nil // a repetition
	}
	if err != nil {
		return err
	}
	if _, err := v.After(fleet.DeleteVM); err != nil {
		h, bad := find(ctx, c, hosts, fleet.KindHost, string(v.Host))
		if bad != nil || h.Health.Reachable {
			return err
		}
	}
	return c.removeVM(ctx, v)
}

// removeVM deletes a VM in any state.
func (c *Controller) removeVM(ctx context.Context, v vm) error {
	if err := v.Deletable(); err != nil { // a disk was attached since
		return err
	}
	if v.Host != "" {
		if err := c.discard(ctx, v.Host, leftover{Kind: fleet.KindVM, ID: string(v.ID)}); err != nil {
			return err
		}
	}
	if v.ISO != nil && c.options.Spool != nil {
		if err := c.options.Spool.Remove(string(v.ISO.ID)); err != nil {
			return err
		}
	}
	return c.updateInTurn(ctx, func(tx *store.Tx) error { return c.forgetVM(tx, v.ID) })
}

func (c *Controller) forgetVM(tx *store.Tx, id fleet.VMID) error {
	v, err := get(tx, vms, fleet.KindVM, string(id))
	if fleet.CodeOf(err) == fleet.VMNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if err := errors.Join(giveBack(tx, &v), letGo(tx, &v, "")); err != nil {
		return err
	}
	if v.Image != "" {
		if err := c.leaveImage(tx, v.Image); err != nil {
			return err
		}
	}
	for _, f := range v.Flavors {
		if err := leaveFlavor(tx, f); err != nil {
			return err
		}
	}
	for _, n := range v.NICs {
		drop(tx, kindMAC, "", n.MAC.String())
		if n.Subnet != "" {
			if err := leaveSubnet(tx, n.Subnet); err != nil {
				return err
			}
		}
	}
	if v.ISO != nil {
		store.Delete(tx, isos, string(v.ISO.ID))
	}
	if _, err := use(tx, ref(fleet.KindProject, v.Project), -1); err != nil {
		return err
	}
	if v.Cluster != "" {
		store.Delete(tx, nodes, nodeKey(v.Cluster, id))
	}
	store.Delete(tx, projectVMs, string(v.Project)+"/"+string(id))
	store.Delete(tx, vms, string(id))
	return nil
}

// strand notes that the VMs of a host are lost with it. The persistent disks that
// they had are nobody's then.
func (c *Controller) strand(ctx context.Context, id fleet.HostID) error {
	all, err := store.List(ctx, c.store, hostVMs, string(id)+"/")
	if all == nil {
		return err
	}
	for _, key := range sorted(all) {
		if err := c.updateInTurn(ctx, func(tx *store.Tx) error {
			v, err := get(tx, vms, fleet.KindVM, string(all[key]))
			if err != nil {
				return err
			}
			if err := errors.Join(giveBack(tx, &v), letGo(tx, &v, id)); err != nil {
				return err
			}
			v.State, v.Fault, v.Lost, v.Host = fleet.VMError, "its host was removed", false, ""
			return store.Put(tx, vms, string(v.ID), v)
		}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) doPower(op fleet.Operation) func(context.Context, *task.Call) error {
	return func(ctx context.Context, call *task.Call) error {
		v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
		if err != nil {
			return err
		}
		return c.switchVM(ctx, v, op)
	}
}

// switchVM carries out a power operation, if the VM's state allows it.
func (c *Controller) switchVM(ctx context.Context, v vm, op fleet.Operation) error {
	to, err := v.After(op)
	if err != nil {
		return err
	}
	y, err := c.hypervisor(ctx, v.Host)
	if err != nil {
		return err
	}
	if err := y.Power(ctx, v.ID, op); err != nil {
		if fleet.IsFault(err, fleet.Conflict) {
			return fleet.Errorf(fleet.InvalidVMState, "%v", err)
		}
		return err
	}
	return c.setVM(ctx, v.ID, func(v *vm) {
		if v.lives() { // its host's watch may have been faster
			v.State, v.Fault, v.Lost = to, "", false
		}
	})
}
