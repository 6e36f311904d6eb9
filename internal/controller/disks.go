package controller

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"bootd/internal/fleet"
	"bootd/internal/place"
	"bootd/internal/store"
	"bootd/internal/task"
)

const createDisk fleet.Operation = "CREATE_DISK"

var (
	disks        = store.Kind[disk]{Name: "disk"}
	projectDisks = store.Kind[fleet.DiskID]{Name: "project-disk"} // by project ID/disk ID
)

// A disk is a persistent disk and what was taken for it.
type disk struct {
	fleet.Disk
	Need     place.Request `json:"need"`
	Charged  bool          `json:"charged,omitzero"`  // its cost, to its project
	Reserved bool          `json:"reserved,omitzero"` // its capacity, on its datastore
	Leaving  bool          `json:"leaving,omitzero"`  // somebody has deleted it
	// Attachment tells apart each time that it was attached; empty: it is not.
	Attachment string `json:"attachment,omitempty"`
}

// after is [fleet.Disk.After] for a disk that may be leaving.
func (d disk) after(op fleet.Operation) (fleet.DiskState, error) {
	if d.Leaving {
		return d.State, fleet.Refused(op, ref(fleet.KindPersistentDisk, d.ID), string(fleet.DiskDeleted))
	}
	return d.After(op)
}

func (c *Controller) diskFor(tx *store.Tx, by Principal, id fleet.DiskID) (disk, fleet.Project, error) {
	d, err := get(tx, disks, fleet.KindPersistentDisk, string(id))
	if err != nil {
		if by.Role == Guest {
			err = by.forbidden()
		}
		return d, fleet.Project{}, err
	}
	p, err := get(tx, projects, fleet.KindProject, string(d.Project))
	if err == nil {
		err = by.uses(p)
	}
	return d, p, err
}

// CreateDisk makes a persistent disk in a project. If its task fails, the disk is in
// ERROR, uses no quota, and can be deleted.
func (c *Controller) CreateDisk(ctx context.Context, by Principal, project fleet.ProjectID, s fleet.PersistentDiskSpec) (fleet.Task, error) {
	if err := s.Check(); err != nil {
		return fleet.Task{}, err
	}
	id := newID[fleet.DiskID]()
	return c.changeInTurn(ctx, by, func(tx *store.Tx) (change, error) {
		p, err := get(tx, projects, fleet.KindProject, string(project))
		if err != nil {
			return change{}, err
		}
		if err := by.uses(p); err != nil {
			return change{}, err
		}
		f, err := useFlavor(tx, s.Flavor, fleet.KindPersistentDisk)
		if err != nil {
			return change{}, err
		}
		d := disk{
			Disk: fleet.Disk{ID: id, Project: project, Name: s.Name, Flavor: f.ID, FlavorName: f.Name, State: fleet.DiskCreating,
				Cost: f.Charged(s.Capacity), Capacity: s.Capacity, Tags: s.Tags},
			Need:    place.Request{Storage: s.Capacity, DatastoreTags: f.DatastoreTags()},
			Charged: true,
		}
		if err := nearVMs(tx, &d, s.Affinities); err != nil {
			return change{}, err
		}
		if p.Quota, err = p.Quota.Charge(d.Cost); err != nil {
			return change{}, err
		}
		if _, err := use(tx, ref(fleet.KindProject, project), 1); err != nil {
			return change{}, err
		}
		return change{operation: createDisk, entity: ref(fleet.KindPersistentDisk, id), tenant: p.Tenant, project: project, name: d.Name, queued: true},
			errors.Join(store.Put(tx, projects, string(project), p), store.Put(tx, projectDisks, string(project)+"/"+string(id), id), store.Put(tx, disks, string(id), d))
	})
}

// nearVMs puts a disk on the datastore of VMs.
func nearVMs(tx *store.Tx, d *disk, list []fleet.Ref) error {
	for _, a := range list {
		v, err := get(tx, vms, fleet.KindVM, a.ID)
		switch {
		case err != nil:
			return err
		case v.Project != d.Project:
			return fleet.UnknownEntity(a)
		case v.Datastore == "":
			return fleet.Errorf(fleet.UnfulfillableDiskAffinities, "VM %s is in state %s and on no datastore", v.ID, v.State)
		case d.Need.Datastore != "" && d.Need.Datastore != v.Datastore:
			return fleet.Errorf(fleet.UnfulfillableDiskAffinities, "The VMs that the disk is to be near to are on different datastores")
		}
		d.Need.Datastore = v.Datastore
	}
	return nil
}

// Disk returns a persistent disk to those who may use its project.
func (c *Controller) Disk(ctx context.Context, by Principal, id fleet.DiskID) (d fleet.Disk, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) error {
		x, _, err := c.diskFor(tx, by, id)
		if err == nil {
			d = x.Disk
		}
		return err
	})
	return d, err
}

// Disks lists the persistent disks of a project by name; with a name, those.
func (c *Controller) Disks(ctx context.Context, by Principal, project fleet.ProjectID, name string) ([]fleet.Disk, error) {
	p, err := c.Project(ctx, by, project)
	if err == nil {
		err = by.uses(p)
	}
	if err != nil {
		return nil, err
	}
	all, err := store.List(ctx, c.store, projectDisks, string(project)+"/")
	if all == nil {
		return nil, err
	}
	out := []fleet.Disk{}
	for _, key := range sorted(all) {
		d, err := find(ctx, c, disks, fleet.KindPersistentDisk, string(all[key]))
		switch {
		case fleet.CodeOf(err) == fleet.DiskNotFound:
		case err != nil:
			return nil, err
		case name == "" || d.Name == name:
			out = append(out, d.Disk)
		}
	}
	slices.SortStableFunc(out, func(a, b fleet.Disk) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// DeleteDisk deletes a persistent disk that is not attached.
func (c *Controller) DeleteDisk(ctx context.Context, by Principal, id fleet.DiskID) (fleet.Task, error) {
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		d, p, err := c.diskFor(tx, by, id)
		if err != nil {
			return change{}, err
		}
		if _, err := d.after(fleet.DeleteDisk); err != nil {
			return change{}, err
		}
		d.Leaving = true
		return change{operation: fleet.DeleteDisk, entity: ref(fleet.KindPersistentDisk, id), tenant: p.Tenant, project: p.ID, name: d.Name, queued: true},
			store.Put(tx, disks, string(id), d)
	})
}

func (c *Controller) diskPlans() []task.Plan {
	return []task.Plan{
		{Operation: createDisk, Steps: []task.Step{
			{Operation: reserveResource, Do: c.doReserveDisk, Undo: c.undoReserveDisk},
			{Operation: createDisk, Do: c.doCreateDisk, Undo: c.undoCreateDisk},
		}},
		{Operation: fleet.DeleteDisk, Steps: []task.Step{{Operation: fleet.DeleteDisk, Do: c.doDeleteDisk, Undo: c.undoDeleteDisk}}},
	}
}

func (c *Controller) doReserveDisk(ctx context.Context, call *task.Call) error {
	d, err := find(ctx, c, disks, fleet.KindPersistentDisk, call.Entity.ID)
	if err != nil || d.Reserved {
		return err
	}
	return c.choosing(ctx, d.Need, false, func(at place.Choice) (bool, error) { return c.reserveDisk(ctx, d.ID, at) })
}

func (c *Controller) reserveDisk(ctx context.Context, id fleet.DiskID, at place.Choice) (good bool, err error) {
	err = c.updateInTurn(ctx, func(tx *store.Tx) error {
		good = false
		d, err := get(tx, disks, fleet.KindPersistentDisk, string(id))
		if err != nil {
			return err
		}
		if good = d.Reserved; good {
			return nil
		}
		on, s, err := spaceOf(tx, at.Datastore)
		if err != nil {
			return err
		}
		filled, full := s.Add(on, d.Need.Storage)
		if on.ID == "" || full != nil {
			return nil // somebody was faster
		}
		good = true
		d.Datastore, d.Reserved = on.ID, true
		return errors.Join(store.Put(tx, spaces, string(on.ID), filled), store.Put(tx, disks, string(id), d))
	})
	if err == nil && !good {
		err = c.mirror.read(ctx, c.store)
	}
	return good, err
}

func giveDiskBack(tx *store.Tx, d *disk) error {
	if d.Reserved {
		if err := releaseSpace(tx, d.Datastore, d.Need.Storage); err != nil {
			return err
		}
		d.Reserved = false
	}
	if d.Charged {
		if err := uncharge(tx, d.Project, d.Cost); err != nil {
			return err
		}
		d.Charged = false
	}
	return nil
}

func (c *Controller) undoReserveDisk(ctx context.Context, call *task.Call) error {
	why := c.reason(ctx, call)
	return c.updateInTurn(ctx, func(tx *store.Tx) error {
		d, err := get(tx, disks, fleet.KindPersistentDisk, call.Entity.ID)
		if err != nil {
			return err
		}
		if err := giveDiskBack(tx, &d); err != nil {
			return err
		}
		d.State, d.Fault, d.Datastore = fleet.DiskError, why, ""
		return store.Put(tx, disks, string(d.ID), d)
	})
}

func (c *Controller) doCreateDisk(ctx context.Context, call *task.Call) error {
	d, err := find(ctx, c, disks, fleet.KindPersistentDisk, call.Entity.ID)
	if err != nil || d.State == fleet.DiskDetached {
		return err
	}
	host, name, err := c.mounted(ctx, d.Datastore, "")
	if err != nil {
		return err
	}
	v, err := c.hypervisor(ctx, host)
	if err != nil {
		return err
	}
	if err := v.CreateDisk(ctx, name, d.ID, d.Capacity); err != nil {
		return err
	}
	return c.store.Update(ctx, func(tx *store.Tx) error {
		d, err := get(tx, disks, fleet.KindPersistentDisk, call.Entity.ID)
		if err != nil {
			return err
		}
		d.State = fleet.DiskDetached
		return store.Put(tx, disks, string(d.ID), d)
	})
}

func (c *Controller) undoCreateDisk(ctx context.Context, call *task.Call) error {
	d, err := find(ctx, c, disks, fleet.KindPersistentDisk, call.Entity.ID)
	if err != nil {
		return err
	}
	return c.discardDisk(ctx, d)
}

// discardDisk deletes a disk from its datastore. One whose datastore no host has any
// more cannot be reached, and is forgotten.
func (c *Controller) discardDisk(ctx context.Context, d disk) error {
	if d.Datastore == "" {
		return nil
	}
	on, err := find(ctx, c, datastores, fleet.KindDatastore, string(d.Datastore))
	if fleet.CodeOf(err) == fleet.DatastoreNotFound || err == nil && len(on.Mounts) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	host, name, err := c.mounted(ctx, d.Datastore, "")
	if err != nil {
		return err
	}
	return c.discard(ctx, host, leftover{Kind: fleet.KindPersistentDisk, ID: string(d.ID), Datastore: name})
}

func (c *Controller) doDeleteDisk(ctx context.Context, call *task.Call) error {
	d, err := find(ctx, c, disks, fleet.KindPersistentDisk, call.Entity.ID)
	if fleet.CodeOf(err) == fleet.DiskNotFound {
		return nil // a repetition
	}
	if err != nil {
		return err
	}
	if err := c.discardDisk(ctx, d); err != nil {
		return err
	}
	return c.updateInTurn(ctx, func(tx *store.Tx) error {
		d, err := get(tx, disks, fleet.KindPersistentDisk, call.Entity.ID)
		if fleet.CodeOf(err) == fleet.DiskNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if err := errors.Join(giveDiskBack(tx, &d), leaveFlavor(tx, d.Flavor)); err != nil {
			return err
		}
		if _, err := use(tx, ref(fleet.KindProject, d.Project), -1); err != nil {
			return err
		}
		store.Delete(tx, projectDisks, string(d.Project)+"/"+string(d.ID))
		store.Delete(tx, disks, string(d.ID))
		return nil
	})
}

// undoDeleteDisk lets a disk that could not be deleted be deleted again.
func (c *Controller) undoDeleteDisk(ctx context.Context, call *task.Call) error {
	why := c.reason(ctx, call)
	return c.store.Update(ctx, func(tx *store.Tx) error {
		d, err := get(tx, disks, fleet.KindPersistentDisk, call.Entity.ID)
		if err != nil {
			return err
		}
		d.State, d.Fault, d.Leaving = fleet.DiskError, why, false
		return store.Put(tx, disks, string(d.ID), d)
	})
}
