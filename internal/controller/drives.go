package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

const uploadISO fleet.Operation = "UPLOAD_ISO"

// isos are the CD images that are in the spool, and whose VMs they are for.
var isos = store.Kind[fleet.VMID]{Name: "iso"}

// A diskOrder is what is done with a disk.
type diskOrder struct {
	Disk fleet.DiskID `json:"disk"`
	// Attachment that is made or ended; empty: the disk was not attached to the VM
	// when this was ordered. It may have ended, and another begun, before the task.
	Attachment string `json:"attachment,omitempty"`
}

// AttachDisk attaches a persistent disk of the same project to a VM. The disk is the
// VM's as soon as this returns, so that nobody else can have it.
func (c *Controller) AttachDisk(ctx context.Context, by Principal, id fleet.VMID, diskID fleet.DiskID) (fleet.Task, error) {
	attachment := newID[string]()
	return c.withDisk(ctx, by, id, diskID, fleet.AttachDisk, func(tx *store.Tx, v vm, d *disk) error {
		to, err := d.after(fleet.AttachDisk)
		if err != nil {
			return err
		}
		d.State, d.VM, d.Attachment = to, v.ID, attachment
		v.Holds = append(slices.Clone(v.Holds), diskID)
		return errors.Join(store.Put(tx, disks, string(diskID), *d), store.Put(tx, vms, string(id), v))
	})
}

// DetachDisk detaches a persistent disk.
func (c *Controller) DetachDisk(ctx context.Context, by Principal, id fleet.VMID, diskID fleet.DiskID) (fleet.Task, error) {
	return c.withDisk(ctx, by, id, diskID, fleet.DetachDisk, func(*store.Tx, vm, *disk) error { return nil })
}

func (c *Controller) withDisk(ctx context.Context, by Principal, id fleet.VMID, diskID fleet.DiskID, op fleet.Operation, f func(*store.Tx, vm, *disk) error) (fleet.Task, error) {
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		v, p, err := c.vmFor(tx, by, id)
		if err != nil {
			return change{}, err
		}
		d, err := get(tx, disks, fleet.KindPersistentDisk, string(diskID))
		if err != nil {
			return change{}, err
		}
		if d.Project != v.Project {
			return change{}, fleet.Errorf(fleet.InvalidOperation, "Disk %s and VM %s are not in the same project", diskID, id)
		}
		if err := f(tx, v, &d); err != nil {
			return change{}, err
		}
		o := diskOrder{Disk: diskID}
		if d.VM == id {
			o.Attachment = d.Attachment
		}
		return change{operation: op, entity: ref(fleet.KindVM, id), tenant: p.Tenant, project: p.ID, name: v.Name, queued: true, argument: o}, nil
	})
}

func (c *Controller) drivePlans() []task.Plan {
	return []task.Plan{
		{Operation: fleet.AttachDisk, Steps: []task.Step{{Operation: fleet.AttachDisk, Do: c.doAttachDisk, Undo: c.undoAttachDisk}}},
		{Operation: fleet.DetachDisk, Steps: []task.Step{{Operation: fleet.DetachDisk, Do: c.doDetachDisk}}},
		{Operation: fleet.AttachISO, Steps: []task.Step{
			{Operation: uploadISO, Do: c.doUploadISO, Undo: c.undoISO},
			{Operation: fleet.AttachISO, Do: c.doAttachISO},
		}},
		{Operation: fleet.DetachISO, Steps: []task.Step{{Operation: fleet.DetachISO, Do: c.doDetachISO}}},
	}
}

func (c *Controller) doAttachDisk(ctx context.Context, call *task.Call) error {
	var o diskOrder
	if err := call.Argument(&o); err != nil {
		return err
	}
	v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
	if err != nil {
		return err
	}
	if _, err := v.After(fleet.AttachDisk); err != nil {
		return err
	}
	d, err := find(ctx, c, disks, fleet.KindPersistentDisk, string(o.Disk))
	if err != nil {
		return err
	}
	if d.Attachment != o.Attachment {
		return fleet.Errorf(fleet.InvalidOperation, "Disk %s was detached from VM %s before it was attached", d.ID, v.ID)
	}
	on, err := find(ctx, c, datastores, fleet.KindDatastore, string(d.Datastore))
	if err != nil {
		return err
	}
	name, ok := on.Mounts[v.Host]
	if !ok {
		return fleet.Errorf(fleet.InvalidOperation, "Disk %s is on datastore %s, which the host of VM %s does not have", d.ID, d.Datastore, v.ID)
	}
	y, err := c.hypervisor(ctx, v.Host)
	if err != nil {
		return err
	}
	if err := y.AttachDisk(ctx, v.ID, name, d.ID); err != nil {
		return err
	}
	return c.setVM(ctx, v.ID, func(v *vm) {
		if !slices.ContainsFunc(v.Disks, func(x fleet.VMDisk) bool { return x.ID == d.ID }) {
			v.Disks = append(v.Disks, fleet.VMDisk{ID: d.ID, Name: d.Name, Kind: fleet.KindPersistentDisk, Flavor: d.FlavorName, Capacity: d.Capacity})
		}
	})
}

func (c *Controller) undoAttachDisk(ctx context.Context, call *task.Call) error {
	var o diskOrder
	if err := call.Argument(&o); err != nil {
		return err
	}
	return c.detach(ctx, fleet.VMID(call.Entity.ID), o)
}

// detach ends an attachment to a VM, which may be gone, unless it has ended.
func (c *Controller) detach(ctx context.Context, id fleet.VMID, o diskOrder) error {
	diskID := o.Disk
	d, err := find(ctx, c, disks, fleet.KindPersistentDisk, string(diskID))
	if err != nil || d.Attachment != o.Attachment {
		return err
	}
	v, err := find(ctx, c, vms, fleet.KindVM, string(id))
	if err != nil && fleet.CodeOf(err) != fleet.VMNotFound {
		return err
	}
	if err == nil && v.Host != "" {
		y, err := c.hypervisor(ctx, v.Host)
		if err != nil {
			return err
		}
		if err := y.DetachDisk(ctx, id, diskID); err != nil && !fleet.IsFault(err, fleet.Missing) {
			return err
		}
	}
	return c.store.Update(ctx, func(tx *store.Tx) error {
		v, err := get(tx, vms, fleet.KindVM, string(id))
		if err != nil && fleet.CodeOf(err) != fleet.VMNotFound {
			return err
		}
		there := err == nil
		d, err := get(tx, disks, fleet.KindPersistentDisk, string(diskID))
		if err != nil || d.Attachment != o.Attachment {
			return err
		}
		if there {
			v.Disks = slices.DeleteFunc(slices.Clone(v.Disks), func(x fleet.VMDisk) bool { return x.ID == diskID })
			v.Holds = slices.DeleteFunc(slices.Clone(v.Holds), func(x fleet.DiskID) bool { return x == diskID })
			if err := store.Put(tx, vms, string(id), v); err != nil {
				return err
			}
		}
		d.State, d.VM, d.Attachment = fleet.DiskDetached, "", ""
		return store.Put(tx, disks, string(diskID), d)
	})
}

// letGo ends the attachments of all disks of a VM, in the records. A disk that was
// only on the host that is removed is lost, and can but be deleted.
func letGo(tx *store.Tx, v *vm, removed fleet.HostID) error {
	for _, id := range v.Holds {
		d, err := orZero(tx, disks, string(id))
		if err != nil {
			return err
		}
		if d.VM != v.ID {
			continue
		}
		d.State, d.VM, d.Attachment = fleet.DiskDetached, "", ""
		on, err := orZero(tx, datastores, string(d.Datastore))
		if err != nil {
			return err
		}
		if _, mounts := on.Mounts[removed]; mounts && len(on.Mounts) == 1 {
			d.State, d.Fault = fleet.DiskError, "its datastore was removed with its host"
		}
		if err := store.Put(tx, disks, string(id), d); err != nil {
			return err
		}
	}
	v.Holds = nil
	v.Disks = slices.DeleteFunc(slices.Clone(v.Disks), func(x fleet.VMDisk) bool { return x.Kind == fleet.KindPersistentDisk })
	return nil
}

func (c *Controller) doDetachDisk(ctx context.Context, call *task.Call) error {
	var o diskOrder
	if err := call.Argument(&o); err != nil {
		return err
	}
	v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
	if err != nil {
		return err
	}
	// A VM that its host has no longer gives its disks back.
	if _, err := v.After(fleet.DetachDisk); err != nil && !v.Lost {
		return err
	}
	if o.Attachment == "" {
		return fleet.Errorf(fleet.InternalError, "DETACH_DISK failed: disk %s is not attached to VM %s", o.Disk, v.ID)
	}
	return c.detach(ctx, v.ID, o)
}

// AttachISO puts a CD image that a client sends into the drive of a VM. It returns
// when all is received.
func (c *Controller) AttachISO(ctx context.Context, by Principal, id fleet.VMID, name string, r io.Reader) (fleet.Task, error) {
	v, err := c.VM(ctx, by, id)
	if err != nil {
		return fleet.Task{}, err
	}
	if v.ISO != nil {
		return fleet.Task{}, attachedAlready(v)
	}
	iso := fleet.ISO{ID: newID[fleet.ISOID](), Name: name}
	size, done, err := c.receive(ctx, string(iso.ID), r)
	if err != nil {
		return fleet.Task{}, fleet.Errorf(fleet.ISOUploadError, "ISO upload failed: %v", err)
	}
	defer done()
	iso.Size = size
	t, err := c.change(ctx, by, func(tx *store.Tx) (change, error) {
		v, p, err := c.vmFor(tx, by, id)
		if err != nil {
			return change{}, err
		}
		if v.ISO != nil {
			return change{}, attachedAlready(v.VM)
		}
		v.ISO = &iso
		return change{operation: fleet.AttachISO, entity: ref(fleet.KindVM, id), tenant: p.Tenant, project: p.ID, name: v.Name, queued: true, argument: iso.ID},
			errors.Join(store.Put(tx, isos, string(iso.ID), id), store.Put(tx, vms, string(id), v))
	})
	if err != nil {
		err = errors.Join(err, c.options.Spool.Remove(string(iso.ID)))
	}
	return t, err
}

func attachedAlready(v fleet.VM) error {
	return fleet.Errorf(fleet.ISOAlreadyAttached, "ISO %s is already attached to VM %s", v.ISO.Name, v.ID)
}

func (c *Controller) doUploadISO(ctx context.Context, call *task.Call) error {
	v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
	if err != nil {
		return err
	}
	if _, err := v.After(fleet.AttachISO); err != nil {
		return err
	}
	if v.ISO == nil {
		return fleet.Errorf(fleet.NoISOAttached, "No ISO is attached to VM %s", v.ID)
	}
	f, err := c.options.Spool.Open(string(v.ISO.ID))
	if err != nil {
		return fmt.Errorf("cannot attach an ISO: %w", err)
	}
	return f.Close()
}

func (c *Controller) doAttachISO(ctx context.Context, call *task.Call) error {
	v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
	if err != nil || v.ISO == nil {
		return err
	}
	y, err := c.hypervisor(ctx, v.Host)
	if err != nil {
		return err
	}
	id := string(v.ISO.ID)
	if err := y.AttachISO(ctx, v.ID, v.ISO.ID, v.ISO.Size, func() (io.ReadCloser, error) { return c.options.Spool.Open(id) }); err != nil {
		return err
	}
	return c.dropISO(ctx, id)
}

// dropISO removes a CD image from the spool.
func (c *Controller) dropISO(ctx context.Context, id string) error {
	if err := c.options.Spool.Remove(id); err != nil {
		return err
	}
	return c.store.Update(ctx, func(tx *store.Tx) error { store.Delete(tx, isos, id); return nil })
}

func (c *Controller) undoISO(ctx context.Context, call *task.Call) error { return c.eject(ctx, call) }

// eject empties the drive of a VM, if what is in it is what the task was ordered for:
// another CD image may have been put there since.
func (c *Controller) eject(ctx context.Context, call *task.Call) error {
	var id fleet.ISOID
	if err := call.Argument(&id); err != nil {
		return err
	}
	v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
	if err != nil || v.ISO == nil || v.ISO.ID != id {
		return err
	}
	if v.Host != "" {
		y, err := c.hypervisor(ctx, v.Host)
		if err != nil {
			return err
		}
		if err := y.DetachISO(ctx, v.ID); err != nil && !fleet.IsFault(err, fleet.Missing) {
			return err
		}
	}
	if c.options.Spool != nil {
		if err := c.dropISO(ctx, string(v.ISO.ID)); err != nil {
			return err
		}
	}
	return c.setVM(ctx, v.ID, func(v *vm) {
		if v.ISO != nil && v.ISO.ID == id {
			v.ISO = nil
		}
	})
}

// DetachISO empties the drive of a VM.
func (c *Controller) DetachISO(ctx context.Context, by Principal, id fleet.VMID) (fleet.Task, error) {
	return c.order(ctx, by, id, fleet.DetachISO, func(v vm) (any, error) {
		if v.ISO == nil {
			return fleet.ISOID(""), nil
		}
		return v.ISO.ID, nil
	})
}

func (c *Controller) doDetachISO(ctx context.Context, call *task.Call) error {
	var attached fleet.ISOID // when it was ordered: this may be a repetition
	if err := call.Argument(&attached); err != nil {
		return err
	}
	v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
	if err != nil {
		return err
	}
	if _, err := v.After(fleet.DetachISO); err != nil {
		return err
	}
	if attached == "" {
		return fleet.Errorf(fleet.NoISOAttached, "No ISO is attached to VM %s", v.ID)
	}
	return c.eject(ctx, call)
}
