package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// Run keeps what placement chooses from as the store is, and watches the hosts, until
// ctx ends, which is no error. The only error is [store.ErrClosed]. Verbs can be
// called before.
func (c *Controller) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	c.sweepSpool(ctx)
	ended := make(chan error, 2)
	wg.Go(func() { ended <- c.mirror.follow(ctx, c.store) })
	wg.Go(func() { c.sweepHosts(ctx) })
	wg.Go(func() { c.keepAudit(ctx) })
	if c.options.Nodes != nil {
		wg.Go(func() { c.keepClusters(ctx) })
	}
	w := &watchers{c: c, ctx: ctx, all: map[fleet.HostID]watcher{}}
	wg.Go(func() {
		defer w.wg.Wait()
		ended <- store.Follow(ctx, c.store, hosts, w.reset, w.change)
	})
	return <-ended
}

// Close ends the connections to all hosts. The controller can be used no longer.
func (c *Controller) Close() {
	c.connected.mu.Lock()
	all := c.connected.all
	c.connected.all = map[fleet.HostID]connection{}
	c.connected.mu.Unlock()
	var wg sync.WaitGroup
	for _, v := range all {
		wg.Go(v.Close)
	}
	wg.Wait()
}

// watchers watch hosts, one goroutine each.
type watchers struct {
	c   *Controller
	ctx context.Context
	wg  sync.WaitGroup
	all map[fleet.HostID]watcher
}

type watcher struct {
	address, username, fingerprint string
	stop                           context.CancelFunc
}

func (w *watchers) reset(all map[string]fleet.Host) {
	for id, x := range w.all {
		if _, there := all[string(id)]; !there {
			x.stop()
			delete(w.all, id)
		}
	}
	for id, h := range all {
		w.change(store.Change[fleet.Host]{ID: id, Value: h})
	}
}

// change begins to watch a host, or ends that, or begins anew when it is to be
// reached in another way.
func (w *watchers) change(c store.Change[fleet.Host]) {
	id, h := fleet.HostID(c.ID), c.Value
	was, watched := w.all[id]
	wanted := !c.Deleted && (h.State == fleet.HostReady || h.State == fleet.HostSuspended || h.State == fleet.HostMaintenance)
	now := watcher{address: h.Address, username: h.Username, fingerprint: h.Fingerprint}
	same := watched && was.address == now.address && was.username == now.username && was.fingerprint == now.fingerprint
	if wanted == watched && (same || !wanted) {
		return
	}
	if watched {
		was.stop()
		delete(w.all, id)
	}
	if !wanted {
		return
	}
	ctx, stop := context.WithCancel(w.ctx)
	now.stop = stop
	w.all[id] = now
	w.wg.Go(func() {
		defer stop()
		w.c.watch(ctx, id)
	})
}

// watch notes what a host tells until ctx ends.
func (c *Controller) watch(ctx context.Context, id fleet.HostID) {
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		v, err := c.hypervisor(ctx, id)
		if err == nil {
			err = v.Watch(ctx, func(u fleet.Update) error {
				pause = time.Second
				return c.seen(ctx, id, v, u)
			})
		}
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("what a host tells cannot be noted", "host", id, "wait", pause, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// seen notes an update.
func (c *Controller) seen(ctx context.Context, id fleet.HostID, v Hypervisor, u fleet.Update) error {
	if err := c.noteHealth(ctx, id, u); err != nil || u.Lost != nil {
		return err
	}
	there := map[fleet.VMID]bool{}
	for _, s := range u.VMs {
		there[s.VM] = true
		if err := c.noteVM(ctx, id, v, s.VM, s.State); err != nil {
			return err
		}
	}
	gone := u.Gone
	if u.Snapshot {
		all, err := store.List(ctx, c.store, hostVMs, string(id)+"/")
		if all == nil {
			return err
		}
		for _, vm := range all {
			if !there[vm] {
				gone = append(gone, vm)
			}
		}
	}
	for _, vm := range gone {
		if err := c.noteVM(ctx, id, v, vm, ""); err != nil {
			return err
		}
	}
	if u.Snapshot || u.Facts != nil {
		return c.removeLeftovers(ctx, id, v)
	}
	return nil
}

func (c *Controller) noteHealth(ctx context.Context, id fleet.HostID, u fleet.Update) error {
	return c.store.Update(ctx, func(tx *store.Tx) error {
		h, err := store.Get(tx, hosts, string(id))
		if errors.Is(err, store.ErrNotFound) {
			return nil // it was removed meanwhile
		}
		if err != nil {
			return err
		}
		reachable, why := u.Lost == nil, ""
		if !reachable {
			why = u.Lost.Error()
		}
		changed := h.Health.Reachable != reachable
		if changed {
			h.Health = fleet.HostHealth{Reachable: reachable, Since: c.now(), Why: why}
		}
		if u.Facts != nil {
			if err := mount(tx, id, h.Facts.Datastores, u.Facts.Datastores); err != nil {
				return err
			}
			h.Facts, changed = *u.Facts, true
		}
		if !changed {
			return nil
		}
		return store.Put(tx, hosts, string(id), h)
	})
}

// noteVM notes that a VM is in another state than its record says, or that its host
// has it no longer, when told is empty. What was told may be old, so that the host
// is asked once more; the answer counts if the record has not changed meanwhile.
func (c *Controller) noteVM(ctx context.Context, host fleet.HostID, v Hypervisor, id fleet.VMID, told fleet.VMState) error {
	was, err := find(ctx, c, vms, fleet.KindVM, string(id))
	if fleet.CodeOf(err) == fleet.VMNotFound {
		return nil
	}
	if err != nil || was.Host != host || was.State == told || !was.lives() {
		return err
	}
	state, fault := told, ""
	status, err := v.Status(ctx, id)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case fleet.IsFault(err, fleet.Missing):
		state, fault = fleet.VMError, "its host does not have it any more"
	case err != nil:
		c.log.Warn("the state of a VM is not known", "vm", id, "host", host, "err", err)
		var f *fleet.Fault
		if errors.As(err, &f) && f.Passing() {
			return err // what was told must not get lost: the host is watched anew
		}
		return nil
	default:
		if state = status.State; state == fleet.VMError {
			fault = "its host cannot read its files"
		}
	}
	return c.store.Update(ctx, func(tx *store.Tx) error {
		now, err := store.Get(tx, vms, string(id))
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil || now.State != was.State || now.Host != host || state == now.State || !now.State.CanBecome(state) {
			return err
		}
		c.log.Info("a VM is in another state than it was left in", "vm", id, "host", host, "was", now.State, "is", state)
		now.State, now.Fault, now.Lost = state, fault, state == fleet.VMError
		return store.Put(tx, vms, string(id), now)
	})
}
