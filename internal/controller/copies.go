package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

// A flight is a copy of an image that is being made.
type flight struct {
	image     fleet.ImageID
	datastore fleet.DatastoreID
}

// flights are what has one copy made at a time, however many wait for it.
type flights struct {
	mu  sync.Mutex
	all map[flight]*turns
}

// turns is held by who makes a copy.
type turns struct {
	hold    chan struct{}
	waiting int
}

func (f *flights) take(ctx context.Context, x flight) (done func(), err error) {
	f.mu.Lock()
	t := f.all[x]
	if t == nil {
		t = &turns{hold: make(chan struct{}, 1)}
		f.all[x] = t
	}
	t.waiting++
	f.mu.Unlock()
	leave := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(f.all, x)
		}
	}
	select {
	case t.hold <- struct{}{}:
		return func() { <-t.hold; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// ensureCopy makes sure that a datastore has an image, whole. It returns a host that
// has the datastore, prefer if that is one, and its name there.
func (c *Controller) ensureCopy(ctx context.Context, id fleet.ImageID, d fleet.DatastoreID, prefer fleet.HostID) (fleet.HostID, string, error) {
	host, name, err := c.mounted(ctx, d, prefer)
	if err != nil {
		return "", "", err
	}
	done, err := c.copying.take(ctx, flight{id, d})
	if err != nil {
		return "", "", err
	}
	defer done()
	ready := false
	if err := c.store.Update(ctx, func(tx *store.Tx) error {
		s, err := orZero(tx, copies, copyKey(id, d))
		if ready = s == fleet.ImageReady; err != nil || ready || s == fleet.ImageCreating {
			return err
		}
		return store.Put(tx, copies, copyKey(id, d), fleet.ImageCreating)
	}); err != nil || ready {
		return host, name, err
	}
	if err := c.makeCopy(ctx, id, host, name); err != nil {
		return "", "", err
	}
	return host, name, c.store.Update(ctx, func(tx *store.Tx) error { return store.Put(tx, copies, copyKey(id, d), fleet.ImageReady) })
}

// makeCopy brings an image to a datastore: from another one of the same host, or
// from the spool.
func (c *Controller) makeCopy(ctx context.Context, id fleet.ImageID, host fleet.HostID, name string) error {
	v, err := c.hypervisor(ctx, host)
	if err != nil {
		return err
	}
	all, err := c.copiesOf(ctx, id)
	if err != nil {
		return err
	}
	h, err := find(ctx, c, hosts, fleet.KindHost, string(host))
	if err != nil {
		return err
	}
	for _, d := range h.Facts.Datastores {
		if all[d.ID] != fleet.ImageReady || !d.Accessible || d.Name == name {
			continue
		}
		err := v.CopyImage(ctx, id, d.Name, name)
		if err == nil || ctx.Err() != nil || !fleet.IsFault(err, fleet.Missing) {
			return err
		}
		c.log.Warn("an image is not where it was; it is uploaded again", "image", id, "host", host, "datastore", d.Name)
	}
	if c.options.Spool == nil {
		return fmt.Errorf("cannot copy image %s: this bootd keeps no images", id)
	}
	f, err := c.options.Spool.Open(string(id))
	if err != nil {
		return fmt.Errorf("cannot copy image %s: %w", id, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cannot copy image %s: %w", id, err)
	}
	return v.UploadVMDK(ctx, name, id, f, info.Size(), nil)
}

// CreateVMImage makes an image of the boot disk of a VM that is off. The task's
// entity is the image.
func (c *Controller) CreateVMImage(ctx context.Context, by Principal, id fleet.VMID, s ImageSpec) (fleet.Task, error) {
	i := fleet.Image{ID: newID[fleet.ImageID](), Name: s.Name, Replication: s.Replication, State: fleet.ImageCreating}
	var m fleet.Mistakes
	m.Name("name", i.Name)
	fleet.OneOf(&m, "replicationType", i.Replication, fleet.Eager, fleet.OnDemand)
	if err := m.Err(); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		v, p, err := c.vmFor(tx, by, id)
		if err != nil {
			return change{}, err
		}
		i.Project = v.Project
		if source, err := orZero(tx, images, string(v.Image)); err != nil {
			return change{}, err
		} else if source.ID != "" {
			i.Size, i.Settings = source.Size, source.Settings
		}
		return change{operation: fleet.CreateVMImage, entity: ref(fleet.KindImage, i.ID), tenant: p.Tenant, project: p.ID, name: i.Name, queued: true, argument: id},
			store.Put(tx, images, string(i.ID), i)
	})
}

// doCapture makes the image beside the VM, and brings it into the spool.
func (c *Controller) doCapture(ctx context.Context, call *task.Call) error {
	id := fleet.ImageID(call.Entity.ID)
	var vm fleet.VMID
	if err := call.Argument(&vm); err != nil {
		return err
	}
	v, err := find(ctx, c, vms, fleet.KindVM, string(vm))
	if err != nil {
		return err
	}
	if _, err := v.After(fleet.CreateVMImage); err != nil {
		return err
	}
	if _, has := v.BootDisk(); !has {
		return fleet.Errorf(fleet.InvalidOperation, "VM %s has no boot disk to make an image of", vm)
	}
	if c.options.Spool == nil {
		return errors.New("cannot make an image: this bootd keeps no images")
	}
	d, err := find(ctx, c, datastores, fleet.KindDatastore, string(v.Datastore))
	if err != nil {
		return err
	}
	name := d.Mounts[v.Host]
	y, err := c.hypervisor(ctx, v.Host)
	if err != nil {
		return err
	}
	key := copyKey(id, v.Datastore)
	if err := c.store.Update(ctx, func(tx *store.Tx) error { return store.Put(tx, copies, key, fleet.ImageCreating) }); err != nil {
		return err
	}
	if err := y.ImageFromVM(ctx, vm, name, id); err != nil {
		return err
	}
	var got fleet.ImageDisk
	if err := y.ReadImage(ctx, name, id, func(r io.Reader, size int64) (err error) {
		got, err = c.options.Spool.ImportRaw(ctx, id, r, size)
		return err
	}); err != nil {
		return err
	}
	if err := c.store.Update(ctx, func(tx *store.Tx) error { return store.Put(tx, copies, key, fleet.ImageReady) }); err != nil {
		return err
	}
	return c.imported(ctx, id, got)
}
