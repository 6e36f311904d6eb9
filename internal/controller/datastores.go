package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// mount notes what a host says of its datastores now, where it said was before. A
// datastore that no host has any more is forgotten, unless something is on it.
func mount(tx *store.Tx, h fleet.HostID, was, now []fleet.DatastoreFacts) error {
	for _, f := range was {
		if slices.ContainsFunc(now, func(n fleet.DatastoreFacts) bool { return n.ID == f.ID }) {
			continue
		}
		if err := unmount(tx, h, f.ID); err != nil {
			return err
		}
	}
	for _, f := range now {
		d, err := orZero(tx, datastores, string(f.ID))
		if err != nil {
			return err
		}
		d.ID, d.Type, d.Capacity, d.Free = f.ID, f.Type, f.Capacity, f.Free
		d.Tags = datastoreTags(f.Type)
		if d.Mounts = maps.Clone(d.Mounts); d.Mounts == nil {
			d.Mounts = map[fleet.HostID]string{}
		}
		d.Mounts[h] = f.Name
		if err := store.Put(tx, datastores, string(f.ID), d); err != nil {
			return err
		}
	}
	return nil
}

// datastoreTags are what flavors ask for with "storage.": the type, and NFS for
// both of its versions.
func datastoreTags(t fleet.DatastoreType) []string {
	if t == fleet.NFS3 || t == fleet.NFS41 {
		return []string{string(t), "NFS"}
	}
	return []string{string(t)}
}

func unmount(tx *store.Tx, h fleet.HostID, id fleet.DatastoreID) error {
	d, err := orZero(tx, datastores, string(id))
	if err != nil || d.ID == "" {
		return err
	}
	d.Mounts = maps.Clone(d.Mounts)
	delete(d.Mounts, h)
	s, err := orZero(tx, spaces, string(id))
	if err != nil {
		return err
	}
	if len(d.Mounts) == 0 && s.Promised == 0 {
		store.Delete(tx, datastores, string(id))
		store.Delete(tx, spaces, string(id))
		return nil
	}
	return store.Put(tx, datastores, string(id), d)
}

// Datastore returns a datastore, to an admin.
func (c *Controller) Datastore(ctx context.Context, by Principal, id fleet.DatastoreID) (fleet.Datastore, error) {
	if err := by.administers(""); err != nil {
		return fleet.Datastore{}, err
	}
	return find(ctx, c, datastores, fleet.KindDatastore, string(id))
}

// Datastores lists datastores by ID, to an admin; with a tag, those that have it.
func (c *Controller) Datastores(ctx context.Context, by Principal, tag string) ([]fleet.Datastore, error) {
	if err := by.administers(""); err != nil {
		return nil, err
	}
	return list(ctx, c, datastores, func(d fleet.Datastore) bool { return tag == "" || slices.Contains(d.Tags, tag) },
		func(d fleet.Datastore) string { return string(d.ID) })
}

// mounted is a host that can be asked about a datastore, and the datastore's name
// on it: prefer, if that is one.
func (c *Controller) mounted(ctx context.Context, id fleet.DatastoreID, prefer fleet.HostID) (fleet.HostID, string, error) {
	d, err := find(ctx, c, datastores, fleet.KindDatastore, string(id))
	if err != nil {
		return "", "", err
	}
	best, reachable := fleet.HostID(""), false
	for _, h := range slices.Sorted(maps.Keys(d.Mounts)) {
		x, err := find(ctx, c, hosts, fleet.KindHost, string(h))
		if err != nil {
			continue
		}
		if ok := x.Health.Reachable; best == "" || ok && (!reachable || h == prefer) {
			best, reachable = h, ok
		}
	}
	if best == "" {
		return "", "", fmt.Errorf("cannot reach datastore %s: no host has it", id)
	}
	return best, d.Mounts[best], nil
}
