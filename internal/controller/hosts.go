package controller

import (
	"context"
	"errors"
	"strings"

	"bootd/internal/fleet"
	"bootd/internal/store"
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
