package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

const (
	createImage    fleet.Operation = "CREATE_IMAGE"
	uploadImage    fleet.Operation = "UPLOAD_IMAGE"
	replicateImage fleet.Operation = "REPLICATE_IMAGE"
)

var images = store.Kind[fleet.Image]{Name: "image"} // without Copies, which are records of their own

// An ImageSpec is an image that somebody wants to make.
type ImageSpec struct {
	Name        string
	Replication fleet.Replication
}

// UploadImage keeps an image that a client sends, a streamOptimized VMDK or an OVA
// of one, whose state is READY when the task is completed and all datastores have
// it that should. It returns when all is received.
func (c *Controller) UploadImage(ctx context.Context, by Principal, s ImageSpec, r io.Reader) (fleet.Task, error) {
	if by.Role == Guest {
		return fleet.Task{}, by.forbidden()
	}
	i := fleet.Image{ID: newID[fleet.ImageID](), Name: s.Name, Replication: s.Replication, State: fleet.ImageCreating}
	if err := i.Check(); err != nil {
		return fleet.Task{}, err
	}
	size, done, err := c.receive(ctx, string(i.ID), r)
	if err != nil {
		return fleet.Task{}, fleet.Errorf(fleet.ImageUploadError, "Image upload failed: %v", err)
	}
	defer done()
	i.Size = size
	t, err := c.change(ctx, by, func(tx *store.Tx) (change, error) {
		return change{operation: createImage, entity: ref(fleet.KindImage, i.ID), name: i.Name, queued: true}, store.Put(tx, images, string(i.ID), i)
	})
	if err != nil {
		err = errors.Join(err, c.options.Spool.Remove(string(i.ID)))
	}
	return t, err
}

// uploads are what is being received, whose records are not written yet.
type uploads struct {
	mu  sync.Mutex
	all map[string]bool
}

// receive puts an upload into the spool. Until done is called nothing takes it for
// something that nobody needs.
func (c *Controller) receive(ctx context.Context, id string, r io.Reader) (size int64, done func(), err error) {
	if c.options.Spool == nil {
		return 0, nil, errors.New("this bootd keeps no images")
	}
	c.uploading.mu.Lock()
	c.uploading.all[id] = true
	c.uploading.mu.Unlock()
	done = func() {
		c.uploading.mu.Lock()
		defer c.uploading.mu.Unlock()
		delete(c.uploading.all, id)
	}
	if size, err = c.options.Spool.Receive(ctx, id, r); err != nil {
		done()
	}
	return size, done, err
}

// sweepSpool removes what was received but belongs to nothing, as after a kill.
func (c *Controller) sweepSpool(ctx context.Context) {
	if c.options.Spool == nil {
		return
	}
	ids, err := c.options.Spool.IDs()
	for _, id := range ids {
		used, why := c.spoolUsed(ctx, id)
		if why == nil && !used {
			why = c.options.Spool.Remove(id)
		}
		err = errors.Join(err, why)
	}
	if err != nil && ctx.Err() == nil {
		c.log.Error("the spool of images cannot be tidied up", "err", err)
	}
}

func (c *Controller) spoolUsed(ctx context.Context, id string) (bool, error) {
	c.uploading.mu.Lock()
	uploading := c.uploading.all[id]
	c.uploading.mu.Unlock()
	if uploading {
		return true, nil
	}
	used := false
	err := c.store.View(ctx, func(tx *store.Tx) error {
		_, err := store.Get(tx, images, id)
		_, iso := store.Get(tx, isos, id)
		used = err == nil || iso == nil
		if errors.Is(err, store.ErrNotFound) && errors.Is(iso, store.ErrNotFound) {
			return nil
		}
		return errors.Join(ignore(err), ignore(iso))
	})
	return used, err
}

func ignore(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// Image returns an image with its copies.
func (c *Controller) Image(ctx context.Context, id fleet.ImageID) (fleet.Image, error) {
	i, err := find(ctx, c, images, fleet.KindImage, string(id))
	if err != nil {
		return i, err
	}
	i.Copies, err = c.copiesOf(ctx, id)
	return i, err
}

func (c *Controller) copiesOf(ctx context.Context, id fleet.ImageID) (map[fleet.DatastoreID]fleet.ImageState, error) {
	all, err := store.List(ctx, c.store, copies, string(id)+"/")
	if all == nil {
		return nil, err
	}
	out := map[fleet.DatastoreID]fleet.ImageState{}
	for key, s := range all {
		_, d, _ := strings.Cut(key, "/")
		out[fleet.DatastoreID(d)] = s
	}
	return out, nil
}

// Images lists images by name, without their copies; with a name, those.
func (c *Controller) Images(ctx context.Context, name string) ([]fleet.Image, error) {
	return list(ctx, c, images, func(i fleet.Image) bool { return name == "" || i.Name == name }, func(i fleet.Image) string { return i.Name })
}

// ImageProgress is the share, in percent, of the datastores that should have an
// image and have it.
func (c *Controller) ImageProgress(ctx context.Context, i fleet.Image) (int, error) {
	wanted, err := c.wanted(ctx, i)
	if err == nil {
		i.Copies, err = c.copiesOf(ctx, i.ID)
	}
	return i.Progress(wanted), err
}

// wanted are the datastores that should have an image: with EAGER those that VMs
// may go to; with ON_DEMAND none until a VM needs it.
func (c *Controller) wanted(ctx context.Context, i fleet.Image) ([]fleet.DatastoreID, error) {
	if i.Replication != fleet.Eager {
		return nil, nil
	}
	all, err := store.List(ctx, c.store, hosts, "")
	if all == nil {
		return nil, err
	}
	seen := map[fleet.DatastoreID]bool{}
	for _, h := range all {
		if !h.Has(fleet.Cloud) || !h.Health.Reachable || h.State != fleet.HostReady && h.State != fleet.HostSuspended || h.Facts.ReadOnly {
			continue
		}
		for _, d := range h.Facts.Datastores {
			if d.Accessible && !d.ReadOnly && h.Allows(d.Name) {
				seen[d.ID] = true
			}
		}
	}
	out := make([]fleet.DatastoreID, 0, len(seen))
	for d := range seen {
		out = append(out, d)
	}
	slices.Sort(out)
	return out, nil
}

// DeleteImage deletes an image: at once when nothing uses it, with its last VM
// otherwise.
func (c *Controller) DeleteImage(ctx context.Context, by Principal, id fleet.ImageID) (fleet.Task, error) {
	if by.Role == Guest {
		return fleet.Task{}, by.forbidden()
	}
	return c.changeInTurn(ctx, by, func(tx *store.Tx) (change, error) {
		i, err := get(tx, images, fleet.KindImage, string(id))
		if err != nil {
			return change{}, err
		}
		if i.Project != "" {
			p, err := get(tx, projects, fleet.KindProject, string(i.Project))
			if err != nil && fleet.CodeOf(err) != fleet.NotFound {
				return change{}, err
			}
			if err == nil && by.uses(p) != nil || err != nil && by.Role != Admin {
				return change{}, by.forbidden()
			}
		}
		if err := i.Deletable(); err != nil {
			return change{}, err
		}
		n, err := use(tx, ref(fleet.KindImage, id), 0)
		if err != nil {
			return change{}, err
		}
		i.State = fleet.ImagePendingDelete
		return change{operation: fleet.DeleteImage, entity: ref(fleet.KindImage, id), project: i.Project, name: i.Name, queued: n == 0}, store.Put(tx, images, string(id), i)
	})
}

// useImage counts a VM of an image.
func useImage(tx *store.Tx, id fleet.ImageID) (fleet.Image, error) {
	i, err := get(tx, images, fleet.KindImage, string(id))
	if err != nil {
		return i, err
	}
	if err := i.Usable(); err != nil {
		return i, err
	}
	_, err = use(tx, ref(fleet.KindImage, id), 1)
	return i, err
}

// leaveImage counts a VM no longer; an image that waits for that is deleted.
func (c *Controller) leaveImage(tx *store.Tx, id fleet.ImageID) error {
	n, err := use(tx, ref(fleet.KindImage, id), -1)
	if err != nil || n > 0 {
		return err
	}
	i, err := get(tx, images, fleet.KindImage, string(id))
	if err != nil || i.State != fleet.ImagePendingDelete {
		return err
	}
	_, err = c.tasks.Add(tx, task.Order{Operation: fleet.DeleteImage, Entity: ref(fleet.KindImage, id), Project: i.Project})
	return err
}

func (c *Controller) imagePlans() []task.Plan {
	return []task.Plan{
		{Operation: createImage, Steps: []task.Step{
			{Operation: uploadImage, Do: c.doImport, Undo: c.undoImage},
			{Operation: replicateImage, Do: c.doReplicate},
		}},
		{Operation: fleet.CreateVMImage, Steps: []task.Step{
			{Operation: fleet.CreateVMImage, Do: c.doCapture, Undo: c.undoImage},
			{Operation: replicateImage, Do: c.doReplicate},
		}},
		{Operation: fleet.DeleteImage, Steps: []task.Step{{Operation: fleet.DeleteImage, Do: c.doRemoveImage}}},
	}
}

// doImport makes a VMDK of what was received.
func (c *Controller) doImport(ctx context.Context, call *task.Call) error {
	id := fleet.ImageID(call.Entity.ID)
	got, err := c.options.Spool.Import(ctx, id)
	if err != nil {
		return err
	}
	return c.imported(ctx, id, got)
}

func (c *Controller) imported(ctx context.Context, id fleet.ImageID, got fleet.ImageDisk) error {
	return c.store.Update(ctx, func(tx *store.Tx) error {
		i, err := get(tx, images, fleet.KindImage, string(id))
		if err != nil {
			return err
		}
		i.Size, i.Capacity = max(i.Size, got.Size, got.Capacity), got.Capacity
		if len(got.Settings) > 0 {
			i.Settings = got.Settings
		}
		return store.Put(tx, images, string(id), i)
	})
}

// undoImage removes all copies, and leaves the image in ERROR, to be looked at and
// deleted.
func (c *Controller) undoImage(ctx context.Context, call *task.Call) error {
	id := fleet.ImageID(call.Entity.ID)
	if err := c.removeCopies(ctx, id); err != nil {
		return err
	}
	return c.store.Update(ctx, func(tx *store.Tx) error {
		i, err := get(tx, images, fleet.KindImage, string(id))
		if err != nil || !i.State.CanBecome(fleet.ImageError) || i.State == fleet.ImagePendingDelete {
			return err // it is to be deleted, which its own task does
		}
		i.State = fleet.ImageError
		return store.Put(tx, images, string(id), i)
	})
}

// doReplicate copies an image to all datastores that should have it, some at a
// time, and makes it ready. A datastore that cannot be reached gets its copy when
// a VM needs it there.
func (c *Controller) doReplicate(ctx context.Context, call *task.Call) error {
	id := fleet.ImageID(call.Entity.ID)
	i, err := find(ctx, c, images, fleet.KindImage, string(id))
	if err != nil {
		return err
	}
	wanted, err := c.wanted(ctx, i)
	if err != nil {
		return err
	}
	if err := c.replicate(ctx, call, i, wanted); err != nil {
		return err
	}
	return c.store.Update(ctx, func(tx *store.Tx) error {
		i, err := get(tx, images, fleet.KindImage, string(id))
		if err != nil || i.State != fleet.ImageCreating {
			return err
		}
		i.State = fleet.ImageReady
		return store.Put(tx, images, string(id), i)
	})
}

// replicate copies an image to datastores: to several hosts at a time, and to the
// datastores of one host one after the other, so that the host gets it once and
// copies it by itself. It fails only when no datastore takes the image.
func (c *Controller) replicate(ctx context.Context, call *task.Call, i fleet.Image, wanted []fleet.DatastoreID) error {
	byHost := map[fleet.HostID][]fleet.DatastoreID{}
	for _, d := range wanted {
		host, _, err := c.mounted(ctx, d, "")
		if err != nil {
			return err
		}
		byHost[host] = append(byHost[host], d)
	}
	r := &replication{c: c, call: call, image: i.ID, wanted: len(wanted), told: -1}
	slots := make(chan struct{}, c.options.Copies)
	var wg sync.WaitGroup
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			for _, d := range byHost[host] {
				_, _, err := c.ensureCopy(ctx, i.ID, d, host)
				r.note(ctx, err)
			}
		})
	}
	wg.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(wanted) > 0 && len(r.failed) == len(wanted):
		return errors.Join(r.failed...)
	case len(r.failed) > 0:
		c.log.Warn("an image is not everywhere; it will be copied when a VM needs it", "image", i.ID, "missing", len(r.failed), "err", r.failed[0])
	}
	return nil
}

// A replication is how far the copies of an image are.
type replication struct {
	c      *Controller
	call   *task.Call
	image  fleet.ImageID
	wanted int

	mu     sync.Mutex
	done   int
	told   int // percent
	failed []error
}

// note counts a copy, and tells of each twentieth part.
func (r *replication) note(ctx context.Context, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done++; err != nil {
		r.failed = append(r.failed, err)
	}
	percent := r.done * 100 / r.wanted
	if percent < r.told+5 && r.done < r.wanted {
		return
	}
	r.told = percent
	if err := r.call.Note(ctx, "progress", fmt.Sprintf("%d%%", percent)); err != nil && ctx.Err() == nil {
		r.c.log.Warn("the progress of an image is not noted", "image", r.image, "err", err)
	}
}

// doRemoveImage removes an image that nothing uses.
func (c *Controller) doRemoveImage(ctx context.Context, call *task.Call) error {
	id := fleet.ImageID(call.Entity.ID)
	i, err := find(ctx, c, images, fleet.KindImage, string(id))
	if fleet.CodeOf(err) == fleet.ImageNotFound {
		return nil // a repetition
	}
	if err != nil || i.State != fleet.ImagePendingDelete {
		return err
	}
	if err := c.removeCopies(ctx, id); err != nil {
		return err
	}
	if c.options.Spool != nil {
		if err := c.options.Spool.Remove(string(id)); err != nil {
			return err
		}
	}
	return c.store.Update(ctx, func(tx *store.Tx) error { store.Delete(tx, images, string(id)); return nil })
}

// removeCopies deletes an image from all datastores. From those that cannot be
// reached it is deleted when they are back.
func (c *Controller) removeCopies(ctx context.Context, id fleet.ImageID) error {
	all, err := c.copiesOf(ctx, id)
	if err != nil {
		return err
	}
	for d := range all {
		host, name, err := c.mounted(ctx, d, "")
		if err == nil {
			err = c.discard(ctx, host, leftover{Kind: fleet.KindImage, ID: string(id), Datastore: name})
		}
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // noted as left over, or the datastore is gone
			c.log.Warn("an image is not deleted yet", "image", id, "datastore", d, "err", err)
		}
		if err := c.store.Update(ctx, func(tx *store.Tx) error { store.Delete(tx, copies, copyKey(id, d)); return nil }); err != nil {
			return err
		}
	}
	return nil
}

func copyKey(id fleet.ImageID, d fleet.DatastoreID) string { return string(id) + "/" + string(d) }
