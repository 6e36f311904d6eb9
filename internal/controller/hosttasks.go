package controller

import (
	"context"
	"errors"
	"strings"

	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

func (c *Controller) hostPlans() []task.Plan {
	one := func(op fleet.Operation, do func(context.Context, *task.Call) error) task.Plan {
		return task.Plan{Operation: op, Steps: []task.Step{{Operation: op, Do: do}}}
	}
	register := []task.Step{
		{Operation: createHost, Do: c.doConnect, Undo: c.undoConnect},
		{Operation: fleet.ProvisionHost, Do: c.doProvision},
	}
	return []task.Plan{
		{Operation: createHost, Steps: register},
		{Operation: fleet.ProvisionHost, Steps: register},
		one(fleet.EnterMaintenance, c.doMaintain(fleet.EnterMaintenance)),
		one(fleet.ExitMaintenance, c.doMaintain(fleet.ExitMaintenance)),
		{Operation: fleet.DeleteHost, Steps: []task.Step{
			{Operation: deprovisionHost, Do: c.doDeprovision},
			{Operation: fleet.DeleteHost, Do: c.doForget},
		}},
	}
}

// doConnect connects to a host for the first time, and keeps what it says.
func (c *Controller) doConnect(ctx context.Context, call *task.Call) error {
	id := fleet.HostID(call.Entity.ID)
	if err := c.mayConnect(ctx, id); err != nil {
		return err
	}
	facts, err := c.firstFacts(ctx, call, id)
	var f *fleet.Fault
	switch {
	case fleet.IsFault(err, fleet.BadCredentials):
		return fleet.Errorf(fleet.InvalidLoginCredentials, "Invalid Username or Password: %v", err)
	case errors.As(err, &f) && f.Passing():
		// Who registers a host waits for it: a wrong address must not take
		// minutes to tell.
		return fleet.Errorf(fleet.CodeOf(err), "%v", err)
	case err != nil:
		return err
	case facts.ManagedBy != "":
		return fleet.Errorf(fleet.InvalidOperation, "the host belongs to the vCenter %s; remove it there first", facts.ManagedBy)
	}
	return c.store.Update(ctx, func(tx *store.Tx) error {
		h, err := get(tx, hosts, fleet.KindHost, string(id))
		if err != nil {
			return err
		}
		if facts.UUID != "" {
			other, err := orZero(tx, names, nameKey(fleet.KindHost, "uuid", facts.UUID))
			switch {
			case err != nil:
				return err
			case other != "" && other != string(id):
				return fleet.Errorf(fleet.DuplicateHost, "Host with IP %s already registered: it is host %s, by its hardware's UUID %s", h.Address, other, facts.UUID)
			}
			if err := store.Put(tx, names, nameKey(fleet.KindHost, "uuid", facts.UUID), string(id)); err != nil {
				return err
			}
		}
		h.Facts = facts
		return store.Put(tx, hosts, string(id), h)
	})
}

// mayConnect is the error for a host that another task has connected to meanwhile.
func (c *Controller) mayConnect(ctx context.Context, id fleet.HostID) error {
	h, err := find(ctx, c, hosts, fleet.KindHost, string(id))
	if err == nil {
		_, err = h.After(fleet.ProvisionHost)
	}
	return err
}

// firstFacts are what a host says. If no fingerprint is known of it, the one that
// it shows is.
func (c *Controller) firstFacts(ctx context.Context, call *task.Call, id fleet.HostID) (fleet.HostFacts, error) {
	v, err := c.hypervisor(ctx, id)
	if err != nil {
		return fleet.HostFacts{}, err
	}
	facts, err := v.Facts(ctx)
	var f *fleet.Fault
	if !errors.As(err, &f) || f.Kind != fleet.Untrusted || f.Fingerprint == "" {
		return facts, err
	}
	accepted := false
	if err := c.store.Update(ctx, func(tx *store.Tx) error {
		h, err := get(tx, hosts, fleet.KindHost, string(id))
		if accepted = err == nil && h.Fingerprint == ""; !accepted {
			return err
		}
		h.Fingerprint = f.Fingerprint
		return store.Put(tx, hosts, string(id), h)
	}); err != nil {
		return facts, err
	}
	if !accepted {
		return facts, f
	}
	c.log.Info("the certificate of a host is accepted", "host", id, "fingerprint", f.Fingerprint)
	if err := call.Note(ctx, "fingerprint", f.Fingerprint); err != nil {
		return facts, err
	}
	if v, err = c.hypervisor(ctx, id); err != nil {
		return facts, err
	}
	return v.Facts(ctx)
}

// undoConnect leaves alone a host that is in service: it was not this task that put
// it there.
func (c *Controller) undoConnect(ctx context.Context, call *task.Call) error {
	id := fleet.HostID(call.Entity.ID)
	err := c.mayConnect(ctx, id)
	if fleet.CodeOf(err) == fleet.StateError {
		return nil
	}
	if err != nil {
		return err
	}
	c.disconnect(id)
	return c.store.Update(ctx, func(tx *store.Tx) error {
		h, err := get(tx, hosts, fleet.KindHost, string(id))
		if err != nil {
			return err
		}
		if _, err := h.After(fleet.ProvisionHost); err != nil {
			return nil
		}
		if err := forgetUUID(tx, h); err != nil {
			return err
		}
		h.State = fleet.HostError
		return store.Put(tx, hosts, string(id), h)
	})
}

// forgetUUID lets the hardware of a host be registered again, if it is this one's.
func forgetUUID(tx *store.Tx, h fleet.Host) error {
	key := nameKey(fleet.KindHost, "uuid", h.Facts.UUID)
	owner, err := orZero(tx, names, key)
	if err == nil && owner == string(h.ID) {
		store.Delete(tx, names, key)
	}
	return err
}

// doProvision makes a host's datastores known, and the host ready.
func (c *Controller) doProvision(ctx context.Context, call *task.Call) error {
	return c.store.Update(ctx, func(tx *store.Tx) error {
		h, err := get(tx, hosts, fleet.KindHost, call.Entity.ID)
		if err != nil {
			return err
		}
		to, err := h.After(fleet.ProvisionHost)
		if h.State == fleet.HostReady {
			return nil // a repetition
		}
		if err != nil {
			return err
		}
		h.State, h.Health = to, fleet.HostHealth{Reachable: true, Since: c.now()}
		return errors.Join(mount(tx, h.ID, nil, h.Facts.Datastores), store.Put(tx, hosts, string(h.ID), h))
	})
}

func (c *Controller) doMaintain(op fleet.Operation) func(context.Context, *task.Call) error {
	return func(ctx context.Context, call *task.Call) error {
		id := fleet.HostID(call.Entity.ID)
		h, err := find(ctx, c, hosts, fleet.KindHost, string(id))
		if err != nil {
			return err
		}
		to, err := h.After(op)
		if h.State == to {
			return nil // a repetition
		}
		if err != nil {
			return err
		}
		// A host that does not answer cannot be told, and runs nothing that would have
		// to be spared.
		if h.Health.Reachable || op == fleet.ExitMaintenance {
			if err := c.maintain(ctx, id, op); err != nil {
				return err
			}
		}
		return c.store.Update(ctx, func(tx *store.Tx) error {
			h, err := get(tx, hosts, fleet.KindHost, string(id))
			if err != nil {
				return err
			}
			if to, err = h.After(op); err != nil {
				return err
			}
			h.State = to
			h.Facts.Maintenance = op == fleet.EnterMaintenance // before it says so itself
			return store.Put(tx, hosts, string(id), h)
		})
	}
}

func (c *Controller) maintain(ctx context.Context, id fleet.HostID, op fleet.Operation) error {
	v, err := c.hypervisor(ctx, id)
	switch {
	case err != nil:
		return err
	case op == fleet.ExitMaintenance:
		return v.ExitMaintenance(ctx)
	}
	return v.EnterMaintenance(ctx)
}

// giveUp puts a suspended host that is gone into ERROR, so that nothing begins to
// use it while it is deleted. It must not answer after all.
func (c *Controller) giveUp(ctx context.Context, id fleet.HostID) error {
	h, err := find(ctx, c, hosts, fleet.KindHost, string(id))
	if err != nil || h.State != fleet.HostSuspended {
		return err
	}
	if c.answers(ctx, id) {
		h.Health.Reachable = true
		return h.Removable(c.now())
	}
	return c.store.Update(ctx, func(tx *store.Tx) error {
		h, err := get(tx, hosts, fleet.KindHost, string(id))
		if err != nil {
			return err
		}
		if err := h.Removable(c.now()); err != nil || h.State != fleet.HostSuspended {
			return err
		}
		h.State = fleet.HostError
		return store.Put(tx, hosts, string(id), h)
	})
}

// answers asks a host whether it is there.
func (c *Controller) answers(ctx context.Context, id fleet.HostID) bool {
	ctx, cancel := context.WithTimeout(ctx, short)
	defer cancel()
	v, err := c.hypervisor(ctx, id)
	if err == nil {
		_, err = v.Facts(ctx)
	}
	return err == nil
}

// doDeprovision removes the images from datastores that only this host has, as far
// as it can be reached.
func (c *Controller) doDeprovision(ctx context.Context, call *task.Call) error {
	id := fleet.HostID(call.Entity.ID)
	if err := c.giveUp(ctx, id); err != nil {
		return err
	}
	h, err := find(ctx, c, hosts, fleet.KindHost, string(id))
	if err != nil {
		return err
	}
	all, err := store.List(ctx, c.store, copies, "")
	if all == nil {
		return err
	}
	for _, key := range sorted(all) {
		image, at, _ := strings.Cut(key, "/")
		d, err := find(ctx, c, datastores, fleet.KindDatastore, at)
		if fleet.CodeOf(err) == fleet.DatastoreNotFound {
			continue
		}
		if err != nil {
			return err
		}
		if name, mounts := d.Mounts[id]; !mounts || len(d.Mounts) > 1 {
			continue
		} else if h.State == fleet.HostMaintenance && h.Health.Reachable {
			c.removeFrom(ctx, id, fleet.ImageID(image), name)
		}
		if err := c.store.Update(ctx, func(tx *store.Tx) error { store.Delete(tx, copies, key); return nil }); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) removeFrom(ctx context.Context, id fleet.HostID, image fleet.ImageID, datastore string) {
	ctx, cancel := context.WithTimeout(ctx, short)
	defer cancel()
	v, err := c.hypervisor(ctx, id)
	if err == nil {
		err = v.DeleteImage(ctx, datastore, image)
	}
	if err != nil {
		c.log.Warn("an image stays on a host that is removed", "host", id, "image", image, "err", err)
	}
}

// doForget removes the records of a host.
func (c *Controller) doForget(ctx context.Context, call *task.Call) error {
	id := fleet.HostID(call.Entity.ID)
	if err := c.strand(ctx, id); err != nil {
		return err
	}
	if err := c.dropLeftovers(ctx, id); err != nil {
		return err
	}
	defer c.disconnect(id)
	return c.updateInTurn(ctx, func(tx *store.Tx) error {
		h, err := get(tx, hosts, fleet.KindHost, string(id))
		if fleet.CodeOf(err) == fleet.HostNotFound {
			return nil // a repetition
		}
		if err != nil {
			return err
		}
		if h.Zone != "" {
			if err := leaveZone(tx, h.Zone); err != nil {
				return err
			}
		}
		if err := errors.Join(mount(tx, id, h.Facts.Datastores, nil), forgetUUID(tx, h)); err != nil {
			return err
		}
		drop(tx, fleet.KindHost, "", h.Address)
		store.Delete(tx, secrets, string(id))
		store.Delete(tx, loads, string(id))
		store.Delete(tx, hosts, string(id))
		return nil
	})
}
