package controller

import (
	"context"
	"errors"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

const (
	createZone fleet.Operation = "CREATE_AVAILABILITYZONE"
	setZone    fleet.Operation = "SET_AVAILABILITYZONE"
)

var (
	zones = store.Kind[fleet.AvailabilityZone]{Name: "zone"}
	// uses count who needs what is to stay as long as it is used: kind/ID of a
	// zone, a subnet, a flavor, an image.
	uses = store.Kind[int]{Name: "use"}
)

// use counts users of something, and is how many it has then.
func use(tx *store.Tx, r fleet.Ref, more int) (int, error) {
	n, err := orZero(tx, uses, r.String())
	if err != nil {
		return 0, err
	}
	switch n += more; {
	case n < 0:
		return 0, errors.New("cannot count the users of " + r.String() + ": they are fewer than none")
	case n == 0 && more < 0:
		store.Delete(tx, uses, r.String())
		return 0, nil
	case more == 0:
		return n, nil
	}
	return n, store.Put(tx, uses, r.String(), n)
}

// CreateZone makes an availability zone, which only an admin may. Several may have
// the same name.
func (c *Controller) CreateZone(ctx context.Context, by Principal, name string) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	z := fleet.AvailabilityZone{ID: newID[fleet.ZoneID](), Name: name, State: fleet.ZoneReady}
	if err := z.Check(); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		return change{operation: createZone, entity: ref(fleet.KindZone, z.ID), name: name}, store.Put(tx, zones, string(z.ID), z)
	})
}

// Zone returns an availability zone.
func (c *Controller) Zone(ctx context.Context, id fleet.ZoneID) (fleet.AvailabilityZone, error) {
	return find(ctx, c, zones, fleet.KindZone, string(id))
}

// Zones lists availability zones by name; with a name, those.
func (c *Controller) Zones(ctx context.Context, name string) ([]fleet.AvailabilityZone, error) {
	return list(ctx, c, zones, func(z fleet.AvailabilityZone) bool { return name == "" || z.Name == name },
		func(z fleet.AvailabilityZone) string { return z.Name })
}

// DeleteZone removes an availability zone; one with hosts goes with the last of
// them.
func (c *Controller) DeleteZone(ctx context.Context, by Principal, id fleet.ZoneID) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		z, err := get(tx, zones, fleet.KindZone, string(id))
		if err != nil {
			return change{}, err
		}
		if err := z.Deletable(); err != nil {
			return change{}, err
		}
		n, err := use(tx, ref(fleet.KindZone, id), 0)
		if err != nil {
			return change{}, err
		}
		done := change{operation: fleet.DeleteZone, entity: ref(fleet.KindZone, id), name: z.Name}
		if z.State = fleet.ZonePendingDelete; n > 0 {
			return done, store.Put(tx, zones, string(id), z)
		}
		store.Delete(tx, zones, string(id))
		return done, nil
	})
}

// enterZone counts a host in a zone.
func enterZone(tx *store.Tx, id fleet.ZoneID) error {
	z, err := get(tx, zones, fleet.KindZone, string(id))
	if err != nil {
		return err
	}
	if err := z.Usable(); err != nil {
		return err
	}
	_, err = use(tx, ref(fleet.KindZone, id), 1)
	return err
}

// leaveZone counts a host no longer; a zone that waits for that goes.
func leaveZone(tx *store.Tx, id fleet.ZoneID) error {
	n, err := use(tx, ref(fleet.KindZone, id), -1)
	if err != nil {
		return err
	}
	z, err := get(tx, zones, fleet.KindZone, string(id))
	if err == nil && n == 0 && z.State == fleet.ZonePendingDelete {
		store.Delete(tx, zones, string(id))
	}
	return err
}
