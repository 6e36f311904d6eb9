package main

import (
	"context"
	"errors"
	"time"

	"bootd/internal/store"
)

// A keptID is which Docker Swarm was kept under a name of the configuration.
type keptID struct {
	ID    string    `json:"id"`
	Since time.Time `json:"since"`
}

var keptIDs = store.Kind[keptID]{Name: "swarm"} // by name

// swarmMemory is a [swarm.Memory] in the store.
type swarmMemory struct {
	store *store.Store
	name  string
}

func (m swarmMemory) Recall(ctx context.Context) (id string, err error) {
	err = m.store.View(ctx, func(tx *store.Tx) error {
		k, err := store.Get(tx, keptIDs, m.name)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		id = k.ID
		return err
	})
	return id, err
}

func (m swarmMemory) Remember(ctx context.Context, id string) error {
	return m.store.Update(ctx, func(tx *store.Tx) error {
		if id == "" {
			store.Delete(tx, keptIDs, m.name)
			return nil
		}
		return store.Put(tx, keptIDs, m.name, keptID{ID: id, Since: time.Now()})
	})
}
