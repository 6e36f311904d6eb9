package controller

import (
	"context"
	"errors"
	"strings"
	"sync"

	"bootd/internal/fleet"
	"bootd/internal/place"
	"bootd/internal/store"
)

var (
	loads      = store.Kind[place.Load]{Name: "host-load"}        // by host ID
	datastores = store.Kind[fleet.Datastore]{Name: "datastore"}   // by datastore ID
	spaces     = store.Kind[place.Space]{Name: "datastore-space"} // by datastore ID
	copies     = store.Kind[fleet.ImageState]{Name: "image-copy"} // by image ID/datastore ID
)

// A mirror is what placement chooses from: hosts and datastores as they were last
// heard of. What it says is checked again in the transaction of a reservation.
type mirror struct {
	mu     sync.Mutex
	view   *place.View
	policy place.Policy
	hosts  map[fleet.HostID]fleet.Host
	loads  map[fleet.HostID]place.Load
	stores map[fleet.DatastoreID]fleet.Datastore
	spaces map[fleet.DatastoreID]place.Space
	images map[fleet.DatastoreID]map[fleet.ImageID]bool
}

func newMirror(p place.Policy) *mirror {
	return &mirror{
		view: place.NewView(p), policy: p, hosts: map[fleet.HostID]fleet.Host{}, loads: map[fleet.HostID]place.Load{},
		stores: map[fleet.DatastoreID]fleet.Datastore{}, spaces: map[fleet.DatastoreID]place.Space{},
		images: map[fleet.DatastoreID]map[fleet.ImageID]bool{},
	}
}

// follow keeps the mirror as the store is, until ctx ends.
func (m *mirror) follow(ctx context.Context, s *store.Store) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	ended := make(chan error, 5)
	wg.Go(func() { ended <- follow(ctx, s, hosts, m, m.setHosts, m.setHost) })
	wg.Go(func() { ended <- follow(ctx, s, loads, m, m.setLoads, m.setLoad) })
	wg.Go(func() { ended <- follow(ctx, s, datastores, m, m.setStores, m.setStore) })
	wg.Go(func() { ended <- follow(ctx, s, spaces, m, m.setSpaces, m.setSpace) })
	wg.Go(func() { ended <- follow(ctx, s, copies, m, m.setCopies, m.setCopy) })
	err := <-ended
	cancel()
	wg.Wait()
	return err
}

func follow[T any](ctx context.Context, s *store.Store, k store.Kind[T], m *mirror, begin func(map[string]T), change func(store.Change[T])) error {
	return store.Follow(ctx, s, k, func(all map[string]T) {
		m.mu.Lock()
		defer m.mu.Unlock()
		begin(all)
	}, func(c store.Change[T]) {
		m.mu.Lock()
		defer m.mu.Unlock()
		change(c)
	})
}

// read reads all of it from the store, so that nothing is refused for what was not
// heard of yet.
func (m *mirror) read(ctx context.Context, s *store.Store) error {
	return errors.Join(reread(ctx, s, datastores, m, m.setStores), reread(ctx, s, spaces, m, m.setSpaces), reread(ctx, s, copies, m, m.setCopies),
		reread(ctx, s, loads, m, m.setLoads), reread(ctx, s, hosts, m, m.setHosts))
}

func reread[T any](ctx context.Context, s *store.Store, k store.Kind[T], m *mirror, begin func(map[string]T)) error {
	all, err := store.List(ctx, s, k, "")
	if all == nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	begin(all) // what cannot be read is left out
	return nil
}

func (m *mirror) setHosts(all map[string]fleet.Host) {
	for id := range m.hosts {
		if _, there := all[string(id)]; !there {
			m.setHost(store.Change[fleet.Host]{ID: string(id), Deleted: true})
		}
	}
	for id, h := range all {
		m.setHost(store.Change[fleet.Host]{ID: id, Value: h})
	}
}

func (m *mirror) setHost(c store.Change[fleet.Host]) {
	id := fleet.HostID(c.ID)
	if c.Deleted {
		delete(m.hosts, id)
		m.view.RemoveHost(id)
		return
	}
	m.hosts[id] = c.Value
	m.view.SetHost(c.Value, m.loads[id])
}

func (m *mirror) setLoads(all map[string]place.Load) {
	for id := range m.loads {
		if _, there := all[string(id)]; !there {
			m.setLoad(store.Change[place.Load]{ID: string(id), Deleted: true})
		}
	}
	for id, l := range all {
		m.setLoad(store.Change[place.Load]{ID: id, Value: l})
	}
}

func (m *mirror) setLoad(c store.Change[place.Load]) {
	id := fleet.HostID(c.ID)
	if delete(m.loads, id); !c.Deleted {
		m.loads[id] = c.Value
	}
	if h, there := m.hosts[id]; there {
		m.view.SetHost(h, m.loads[id])
	}
}

func (m *mirror) setStores(all map[string]fleet.Datastore) {
	for id, d := range all {
		m.setStore(store.Change[fleet.Datastore]{ID: id, Value: d})
	}
}

// setStore leaves a datastore that is gone in the view: no host mounts it.
func (m *mirror) setStore(c store.Change[fleet.Datastore]) {
	id := fleet.DatastoreID(c.ID)
	if c.Deleted {
		delete(m.stores, id)
		return
	}
	m.stores[id] = c.Value
	m.tell(id)
}

func (m *mirror) setSpaces(all map[string]place.Space) {
	for id := range m.spaces {
		if _, there := all[string(id)]; !there {
			m.setSpace(store.Change[place.Space]{ID: string(id), Deleted: true})
		}
	}
	for id, s := range all {
		m.setSpace(store.Change[place.Space]{ID: id, Value: s})
	}
}

func (m *mirror) setSpace(c store.Change[place.Space]) {
	id := fleet.DatastoreID(c.ID)
	if delete(m.spaces, id); !c.Deleted {
		m.spaces[id] = c.Value
	}
	m.tell(id)
}

func (m *mirror) setCopies(all map[string]fleet.ImageState) {
	was := m.images
	m.images = map[fleet.DatastoreID]map[fleet.ImageID]bool{}
	for id, s := range all {
		m.noteCopy(id, s)
	}
	for id := range was {
		m.tell(id)
	}
	for id := range m.images {
		m.tell(id)
	}
}

func (m *mirror) setCopy(c store.Change[fleet.ImageState]) {
	if c.Deleted {
		c.Value = ""
	}
	m.tell(m.noteCopy(c.ID, c.Value))
}

func (m *mirror) noteCopy(id string, s fleet.ImageState) fleet.DatastoreID {
	image, at, _ := strings.Cut(id, "/")
	d := fleet.DatastoreID(at)
	if m.images[d] == nil {
		m.images[d] = map[fleet.ImageID]bool{}
	}
	if delete(m.images[d], fleet.ImageID(image)); s == fleet.ImageReady {
		m.images[d][fleet.ImageID(image)] = true
	}
	return d
}

// tell puts a datastore into the view.
func (m *mirror) tell(id fleet.DatastoreID) {
	d, there := m.stores[id]
	if !there {
		return
	}
	images := make([]fleet.ImageID, 0, len(m.images[id]))
	for i := range m.images[id] {
		images = append(images, i)
	}
	m.view.SetDatastore(d, m.spaces[id], images...)
}

// choose finds a place. With hold it is noted, so that who chooses next sees it.
func (m *mirror) choose(r place.Request, random func(int) int, hold bool) (place.Choice, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, err := m.view.Choose(r, random)
	if err == nil && hold {
		err = m.view.Reserve(at, r)
	}
	return at, err
}

// correct notes what a transaction has found of a place that was chosen; what is not
// there any more has no ID.
func (m *mirror) correct(at place.Choice, h fleet.Host, l place.Load, d fleet.Datastore, s place.Space) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads[at.Host], m.spaces[at.Datastore] = l, s
	m.setStore(store.Change[fleet.Datastore]{ID: string(at.Datastore), Value: d, Deleted: d.ID == ""})
	m.setHost(store.Change[fleet.Host]{ID: string(at.Host), Value: h, Deleted: h.ID == ""})
}
