package controller

import (
	"context"
	"errors"
	"strings"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// A leftover is what a host has that is to be deleted, but could not be yet. It is
// noted before the record of what it belongs to goes, so that nothing stays on a
// host that comes back.
type leftover struct {
	Kind      fleet.Kind `json:"kind"` // vm, persistent-disk, image
	ID        string     `json:"id"`
	Datastore string     `json:"datastore,omitempty"` // by its name on the host
}

var leftovers = store.Kind[leftover]{Name: "leftover"} // by host ID/kind/ID/datastore

func leftoverKey(h fleet.HostID, l leftover) string {
	return string(h) + "/" + string(l.Kind) + "/" + l.ID + "/" + l.Datastore
}

// discard notes what is to be deleted, and deletes it, if its host is known to
// answer. What cannot be reached now is deleted when its host is back.
func (c *Controller) discard(ctx context.Context, id fleet.HostID, l leftover) error {
	h, err := find(ctx, c, hosts, fleet.KindHost, string(id))
	if fleet.CodeOf(err) == fleet.HostNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.store.Update(ctx, func(tx *store.Tx) error { return store.Put(tx, leftovers, leftoverKey(id, l), l) }); err != nil {
		return err
	}
	if !h.Health.Reachable {
		c.log.Warn("something is deleted when its host is back", "host", id, "kind", l.Kind, "id", l.ID, "why", h.Health.Why)
		return nil
	}
	v, err := c.hypervisor(ctx, id)
	if err != nil {
		return err
	}
	return c.removeLeftover(ctx, id, v, l)
}

func (c *Controller) removeLeftover(ctx context.Context, id fleet.HostID, v Hypervisor, l leftover) error {
	var err error
	switch l.Kind {
	case fleet.KindVM:
		err = v.DeleteVM(ctx, fleet.VMID(l.ID))
	case fleet.KindPersistentDisk:
		err = v.DeleteDisk(ctx, l.Datastore, fleet.DiskID(l.ID))
	case fleet.KindImage:
		err = v.DeleteImage(ctx, l.Datastore, fleet.ImageID(l.ID))
	}
	if err != nil && !fleet.IsFault(err, fleet.Missing) {
		return err
	}
	return c.store.Update(ctx, func(tx *store.Tx) error { store.Delete(tx, leftovers, leftoverKey(id, l)); return nil })
}

// sweepHosts tries again to delete what could not be, until ctx ends.
func (c *Controller) sweepHosts(ctx context.Context) {
	tick := time.NewTicker(c.options.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		all, err := store.List(ctx, c.store, leftovers, "")
		if err != nil && ctx.Err() == nil {
			c.log.Error("what is left on hosts is not known", "err", err)
		}
		seen := map[fleet.HostID]bool{}
		for key := range all {
			host, _, _ := strings.Cut(key, "/")
			if id := fleet.HostID(host); !seen[id] && ctx.Err() == nil {
				seen[id] = true
				c.sweepHost(ctx, id)
			}
		}
	}
}

func (c *Controller) sweepHost(ctx context.Context, id fleet.HostID) {
	h, err := find(ctx, c, hosts, fleet.KindHost, string(id))
	if err != nil || !h.Health.Reachable {
		return // its watch says when it is back
	}
	ctx, cancel := context.WithTimeout(ctx, short)
	defer cancel()
	v, err := c.hypervisor(ctx, id)
	if err == nil {
		err = c.removeLeftovers(ctx, id, v)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		c.log.Warn("a host cannot be tidied up", "host", id, "err", err)
	}
}

// isLeft reports whether what is to be deleted belongs to nothing any more. What
// belongs to a VM or a disk that is still there is its task's alone to delete: that
// may fail, and then somebody may go on to use it.
func (c *Controller) isLeft(ctx context.Context, id fleet.HostID, l leftover) (bool, error) {
	switch l.Kind {
	case fleet.KindVM:
		v, err := find(ctx, c, vms, l.Kind, l.ID)
		if fleet.CodeOf(err) == fleet.VMNotFound {
			return true, nil
		}
		return err == nil && !(v.Reserved && v.Host == id), err
	case fleet.KindPersistentDisk:
		d, err := find(ctx, c, disks, l.Kind, l.ID)
		if fleet.CodeOf(err) == fleet.DiskNotFound {
			return true, nil
		}
		return err == nil && !d.Reserved, err
	}
	return true, nil
}

// removeLeftovers deletes what is left on a host, unless what bootd does by itself is
// paused. What cannot be deleted is tried again at the next occasion.
func (c *Controller) removeLeftovers(ctx context.Context, id fleet.HostID, v Hypervisor) error {
	if d, err := c.Deployment(ctx); err != nil || d.State != fleet.DeploymentReady {
		return err
	}
	all, err := store.List(ctx, c.store, leftovers, string(id)+"/")
	if all == nil {
		return err
	}
	for _, key := range sorted(all) {
		left, err := c.isLeft(ctx, id, all[key])
		if err == nil && left {
			err = c.removeLeftover(ctx, id, v, all[key])
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c.log.Warn("something is left on a host", "host", id, "kind", all[key].Kind, "id", all[key].ID, "err", err)
		}
	}
	return nil
}

// dropLeftovers forgets what is left on a host that is forgotten itself.
func (c *Controller) dropLeftovers(ctx context.Context, id fleet.HostID) error {
	all, err := store.List(ctx, c.store, leftovers, string(id)+"/")
	if all == nil {
		return err
	}
	for _, key := range sorted(all) {
		if err := c.store.Update(ctx, func(tx *store.Tx) error { store.Delete(tx, leftovers, key); return nil }); err != nil {
			return err
		}
	}
	return nil
}
