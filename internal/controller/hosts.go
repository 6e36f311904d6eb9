package controller

import (
	"context"
	"errors"
	"strings"

	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

const (
	createHost      fleet.Operation = "CREATE_HOST"
	deprovisionHost fleet.Operation = "DEPROVISION_HOST"
)

var (
	hosts   = store.Kind[fleet.Host]{Name: "host"}    // without passwords
	hostVMs = store.Kind[fleet.VMID]{Name: "host-vm"} // by host ID/VM ID: the VMs that are reserved for on it
)

// A HostSpec is a host that somebody registers.
type HostSpec struct {
	Address  string // IP address or name, with ":port" if that is not 443
	Username string
	Password string
	Tags     []fleet.UsageTag
	Zone     fleet.ZoneID // may be empty
	Metadata map[string]string
	// Fingerprint of its certificate, by SHA-256. Empty: the one that it shows
	// when it is connected to first is accepted, and no other from then on.
	Fingerprint string
}

func (s HostSpec) host() fleet.Host {
	return fleet.Host{
		ID: newID[fleet.HostID](), Address: strings.ToLower(s.Address), Username: s.Username, Password: s.Password, Tags: s.Tags, Zone: s.Zone,
		Metadata: s.Metadata, Fingerprint: s.Fingerprint, State: fleet.HostCreating,
	}
}

// CreateHost registers a host, which only an admin may. The task connects to it,
// and the host is READY when it is completed, in ERROR when it failed.
func (c *Controller) CreateHost(ctx context.Context, by Principal, s HostSpec) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	h := s.host()
	if err := h.Check(); err != nil {
		return fleet.Task{}, err
	}
	known := secret{h.Password}
	h.Password = ""
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		switch err := take(tx, fleet.KindHost, "", h.Address, string(h.ID)); {
		case fleet.CodeOf(err) == fleet.NameTaken:
			return change{}, fleet.Errorf(fleet.DuplicateHost, "Host with IP %s already registered.", h.Address)
		case err != nil:
			return change{}, err
		}
		if h.Zone != "" {
			if err := enterZone(tx, h.Zone); err != nil {
				return change{}, err
			}
		}
		return change{operation: createHost, entity: ref(fleet.KindHost, h.ID), name: h.Address, queued: true},
			errors.Join(store.Put(tx, hosts, string(h.ID), h), store.Put(tx, secrets, string(h.ID), known))
	})
}

// Host returns a host, without its password, to an admin.
func (c *Controller) Host(ctx context.Context, by Principal, id fleet.HostID) (fleet.Host, error) {
	if err := by.administers(""); err != nil {
		return fleet.Host{}, err
	}
	return find(ctx, c, hosts, fleet.KindHost, string(id))
}

// Hosts lists all hosts by address, without their passwords, to an admin.
func (c *Controller) Hosts(ctx context.Context, by Principal) ([]fleet.Host, error) {
	if err := by.administers(""); err != nil {
		return nil, err
	}
	return list(ctx, c, hosts, func(fleet.Host) bool { return true }, func(h fleet.Host) string { return h.Address })
}

// HostAddress is the address of a host, which the people of a project are told of
// their VMs; empty if it is gone.
func (c *Controller) HostAddress(ctx context.Context, id fleet.HostID) (string, error) {
	if id == "" {
		return "", nil
	}
	h, err := find(ctx, c, hosts, fleet.KindHost, string(id))
	if fleet.CodeOf(err) == fleet.HostNotFound {
		return "", nil
	}
	return h.Address, err
}

// HostVMs lists the VMs of a host by name, to an admin.
func (c *Controller) HostVMs(ctx context.Context, by Principal, id fleet.HostID) ([]fleet.VM, error) {
	if _, err := c.Host(ctx, by, id); err != nil {
		return nil, err
	}
	return c.listed(ctx, hostVMs, string(id)+"/", "")
}

// changeHost is a verb on a host, whose state must allow it.
func (c *Controller) changeHost(ctx context.Context, by Principal, id fleet.HostID, op fleet.Operation, f func(*store.Tx, *fleet.Host, fleet.HostState) (queued bool, err error)) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		h, err := get(tx, hosts, fleet.KindHost, string(id))
		if err != nil {
			return change{}, err
		}
		to, err := h.After(op)
		if err != nil {
			return change{}, err
		}
		queued, err := f(tx, &h, to)
		return change{operation: op, entity: ref(fleet.KindHost, id), name: h.Address, queued: queued}, err
	})
}

// SuspendHost has a host take no new VMs.
func (c *Controller) SuspendHost(ctx context.Context, by Principal, id fleet.HostID) (fleet.Task, error) {
	return c.changeHost(ctx, by, id, fleet.SuspendHost, becomeAtOnce)
}

// ResumeHost ends that.
func (c *Controller) ResumeHost(ctx context.Context, by Principal, id fleet.HostID) (fleet.Task, error) {
	return c.changeHost(ctx, by, id, fleet.ResumeHost, becomeAtOnce)
}

func becomeAtOnce(tx *store.Tx, h *fleet.Host, to fleet.HostState) (bool, error) {
	h.State = to
	return false, store.Put(tx, hosts, string(h.ID), *h)
}

// EnterMaintenance takes a suspended host without VMs out of service.
func (c *Controller) EnterMaintenance(ctx context.Context, by Principal, id fleet.HostID) (fleet.Task, error) {
	return c.changeHost(ctx, by, id, fleet.EnterMaintenance, func(tx *store.Tx, h *fleet.Host, _ fleet.HostState) (bool, error) {
		l, err := orZero(tx, loads, string(id))
		if err != nil {
			return false, err
		}
		return h.State != fleet.HostMaintenance, h.Empty(l.VMs)
	})
}

// ExitMaintenance puts a host back into service.
func (c *Controller) ExitMaintenance(ctx context.Context, by Principal, id fleet.HostID) (fleet.Task, error) {
	return c.changeHost(ctx, by, id, fleet.ExitMaintenance, queue)
}

// ProvisionHost connects once more to a host that could not be reached when it was
// registered.
func (c *Controller) ProvisionHost(ctx context.Context, by Principal, id fleet.HostID) (fleet.Task, error) {
	return c.changeHost(ctx, by, id, fleet.ProvisionHost, queue)
}

// DeleteHost forgets a host. One that has VMs must be in ERROR, or suspended and
// gone ([fleet.Host.Gone]); the VMs are in ERROR then, and use no quota.
func (c *Controller) DeleteHost(ctx context.Context, by Principal, id fleet.HostID) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		h, err := get(tx, hosts, fleet.KindHost, string(id))
		if err == nil {
			err = h.Removable(c.now())
		}
		return change{operation: fleet.DeleteHost, entity: ref(fleet.KindHost, id), name: h.Address, queued: true}, err
	})
}

func queue(*store.Tx, *fleet.Host, fleet.HostState) (bool, error) { return true, nil }

// SetHostZone puts a host into an availability zone, once.
func (c *Controller) SetHostZone(ctx context.Context, by Principal, id fleet.HostID, zone fleet.ZoneID) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		h, err := get(tx, hosts, fleet.KindHost, string(id))
		if err != nil {
			return change{}, err
		}
		if h.Zone != "" {
			return change{}, fleet.Errorf(fleet.HostAvailabilityZoneAlreadySet, "Host %s is already part of Availability Zone %s", id, h.Zone)
		}
		if err := enterZone(tx, zone); err != nil {
			return change{}, err
		}
		h.Zone = zone
		return change{operation: setZone, entity: ref(fleet.KindHost, id), name: h.Address}, store.Put(tx, hosts, string(id), h)
	})
}

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
