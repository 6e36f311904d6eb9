package controller

import (
	"context"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

const (
	createFlavor fleet.Operation = "CREATE_FLAVOR"
	deleteFlavor fleet.Operation = "DELETE_FLAVOR"
)

var flavors = store.Kind[fleet.Flavor]{Name: "flavor"}

// CreateFlavor makes a flavor, which only an admin may. Strict is Photon's mode
// since 1.1: see [fleet.Flavor.Check].
func (c *Controller) CreateFlavor(ctx context.Context, by Principal, name string, kind fleet.Kind, cost fleet.Amounts, strict bool) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	f := fleet.Flavor{ID: newID[fleet.FlavorID](), Name: name, Kind: kind, Cost: cost, State: fleet.FlavorReady}
	if err := f.Check(strict); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		if err := take(tx, fleet.KindFlavor, string(kind), name, string(f.ID)); err != nil {
			return change{}, err
		}
		return change{operation: createFlavor, entity: ref(fleet.KindFlavor, f.ID), name: name}, store.Put(tx, flavors, string(f.ID), f)
	})
}

// Flavor returns a flavor.
func (c *Controller) Flavor(ctx context.Context, id fleet.FlavorID) (f fleet.Flavor, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		f, err = get(tx, flavors, fleet.KindFlavor, string(id))
		return err
	})
	return f, err
}

// Flavors lists flavors by name; with a name or a kind, those.
func (c *Controller) Flavors(ctx context.Context, name string, kind fleet.Kind) ([]fleet.Flavor, error) {
	return list(ctx, c, flavors, func(f fleet.Flavor) bool { return (name == "" || f.Name == name) && (kind == "" || f.Kind == kind) },
		func(f fleet.Flavor) string { return f.Name })
}

// DeleteFlavor removes a flavor, which only an admin may. One that is used goes with
// the last VM or disk of it.
func (c *Controller) DeleteFlavor(ctx context.Context, by Principal, id fleet.FlavorID) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	return c.changeInTurn(ctx, by, func(tx *store.Tx) (change, error) {
		f, err := get(tx, flavors, fleet.KindFlavor, string(id))
		if err != nil {
			return change{}, err
		}
		if err := f.Deletable(); err != nil {
			return change{}, err
		}
		n, err := use(tx, ref(fleet.KindFlavor, id), 0)
		if err != nil {
			return change{}, err
		}
		done := change{operation: deleteFlavor, entity: ref(fleet.KindFlavor, id), name: f.Name}
		if f.State = fleet.FlavorPendingDelete; n > 0 {
			return done, store.Put(tx, flavors, string(id), f)
		}
		forgetFlavor(tx, f)
		return done, nil
	})
}

func forgetFlavor(tx *store.Tx, f fleet.Flavor) {
	drop(tx, fleet.KindFlavor, string(f.Kind), f.Name)
	store.Delete(tx, flavors, string(f.ID))
}

// useFlavor counts a VM or disk of a flavor.
func useFlavor(tx *store.Tx, name string, k fleet.Kind) (fleet.Flavor, error) {
	id, err := orZero(tx, names, nameKey(fleet.KindFlavor, string(k), name))
	if err != nil {
		return fleet.Flavor{}, err
	}
	if id == "" {
		return fleet.Flavor{}, fleet.NoSuchFlavor(name, k)
	}
	f, err := get(tx, flavors, fleet.KindFlavor, id)
	if err != nil {
		return f, err
	}
	if err := f.Usable(); err != nil {
		return f, err
	}
	_, err = use(tx, ref(fleet.KindFlavor, f.ID), 1)
	return f, err
}

// leaveFlavor counts a VM or disk no longer; a flavor that waits for that goes.
func leaveFlavor(tx *store.Tx, id fleet.FlavorID) error {
	n, err := use(tx, ref(fleet.KindFlavor, id), -1)
	if err != nil {
		return err
	}
	f, err := get(tx, flavors, fleet.KindFlavor, string(id))
	if err == nil && n == 0 && f.State == fleet.FlavorPendingDelete {
		forgetFlavor(tx, f)
	}
	return err
}
