package controller

import (
	"context"
	"errors"
	"maps"
	"slices"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

const (
	createNetwork     fleet.Operation = "CREATE_NETWORK"
	setPortGroups     fleet.Operation = "SET_PORT_GROUPS"
	setDefaultNetwork fleet.Operation = "SET_DEFAULT_NETWORK"
)

var (
	subnets = store.Kind[fleet.Subnet]{Name: "subnet"}
	// defaultSubnet has the ID of the subnet for VMs that ask for none.
	defaultSubnet = store.Kind[fleet.SubnetID]{Name: "default-subnet"}
)

const theDefault = "default"

// A SubnetSpec is a subnet that somebody wants to make.
type SubnetSpec struct {
	Name        string
	Description string
	PortGroups  []string // names that hosts have; a VM is on one that its host has
}

// CreateSubnet makes a subnet of port groups, which only an admin may. Several may
// have the same name.
func (c *Controller) CreateSubnet(ctx context.Context, by Principal, spec SubnetSpec) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	s := fleet.Subnet{ID: newID[fleet.SubnetID](), Name: spec.Name, Description: spec.Description, State: fleet.SubnetReady, PortGroups: spec.PortGroups}
	if err := s.Check(); err != nil {
		return fleet.Task{}, err
	}
	known, err := c.PortGroups(ctx)
	if err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		if err := takePortGroups(tx, s, known); err != nil {
			return change{}, err
		}
		return change{operation: createNetwork, entity: ref(fleet.KindSubnet, s.ID), name: s.Name}, store.Put(tx, subnets, string(s.ID), s)
	})
}

// takePortGroups gives port groups to a subnet: a host must have each, and no other
// subnet.
func takePortGroups(tx *store.Tx, s fleet.Subnet, known []string) error {
	for _, p := range s.PortGroups {
		owner, err := orZero(tx, names, nameKey(fleet.KindPortGroup, "", p))
		if err != nil {
			return err
		}
		var others []fleet.Subnet
		if owner != "" {
			others = append(others, fleet.Subnet{ID: fleet.SubnetID(owner), PortGroups: []string{p}})
		}
		one := fleet.Subnet{ID: s.ID, PortGroups: []string{p}}
		if err := one.CheckPortGroups(known, others); err != nil {
			return err
		}
		if err := store.Put(tx, names, nameKey(fleet.KindPortGroup, "", p), string(s.ID)); err != nil {
			return err
		}
	}
	return nil
}

// PortGroups lists the port groups that any host has, by name.
func (c *Controller) PortGroups(ctx context.Context) ([]string, error) {
	all, err := store.List(ctx, c.store, hosts, "")
	if all == nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, h := range all {
		for _, p := range h.Facts.PortGroups {
			seen[p.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// Subnet returns a subnet.
func (c *Controller) Subnet(ctx context.Context, id fleet.SubnetID) (s fleet.Subnet, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		if s, err = get(tx, subnets, fleet.KindSubnet, string(id)); err != nil {
			return err
		}
		d, err := orZero(tx, defaultSubnet, theDefault)
		s.Default = d == id
		return err
	})
	return s, err
}

// Subnets lists subnets by name; with a name, those.
func (c *Controller) Subnets(ctx context.Context, name string) ([]fleet.Subnet, error) {
	out, err := list(ctx, c, subnets, func(s fleet.Subnet) bool { return name == "" || s.Name == name }, func(s fleet.Subnet) string { return s.Name })
	if err != nil {
		return out, err
	}
	var d fleet.SubnetID
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		d, err = orZero(tx, defaultSubnet, theDefault)
		return err
	})
	for i := range out {
		out[i].Default = out[i].ID == d
	}
	return out, err
}

// DeleteSubnet removes a subnet; one with VMs goes with the last of them.
func (c *Controller) DeleteSubnet(ctx context.Context, by Principal, id fleet.SubnetID) (fleet.Task, error) {
	return c.changeSubnet(ctx, by, id, fleet.DeleteNetwork, func(tx *store.Tx, s fleet.Subnet) error {
		if err := s.Deletable(); err != nil {
			return err
		}
		d, err := orZero(tx, defaultSubnet, theDefault)
		if err != nil {
			return err
		}
		if d == id {
			store.Delete(tx, defaultSubnet, theDefault)
		}
		n, err := use(tx, ref(fleet.KindSubnet, id), 0)
		if err != nil {
			return err
		}
		if s.State = fleet.SubnetPendingDelete; n > 0 {
			return store.Put(tx, subnets, string(id), s)
		}
		forgetSubnet(tx, s)
		return nil
	})
}

func forgetSubnet(tx *store.Tx, s fleet.Subnet) {
	for _, p := range s.PortGroups {
		drop(tx, fleet.KindPortGroup, "", p)
	}
	store.Delete(tx, subnets, string(s.ID))
}

// leaveSubnet counts a NIC no longer; a subnet that waits for that goes.
func leaveSubnet(tx *store.Tx, id fleet.SubnetID) error {
	n, err := use(tx, ref(fleet.KindSubnet, id), -1)
	if err != nil {
		return err
	}
	s, err := get(tx, subnets, fleet.KindSubnet, string(id))
	if err == nil && n == 0 && s.State == fleet.SubnetPendingDelete {
		forgetSubnet(tx, s)
	}
	return err
}

func (c *Controller) changeSubnet(ctx context.Context, by Principal, id fleet.SubnetID, op fleet.Operation, f func(*store.Tx, fleet.Subnet) error) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	return c.changeInTurn(ctx, by, func(tx *store.Tx) (change, error) {
		s, err := get(tx, subnets, fleet.KindSubnet, string(id))
		if err != nil {
			return change{}, err
		}
		return change{operation: op, entity: ref(fleet.KindSubnet, id), name: s.Name}, f(tx, s)
	})
}

// SetPortGroups gives a subnet other port groups. VMs stay where they are.
func (c *Controller) SetPortGroups(ctx context.Context, by Principal, id fleet.SubnetID, groups []string) (fleet.Task, error) {
	known, err := c.PortGroups(ctx)
	if err != nil {
		return fleet.Task{}, err
	}
	return c.changeSubnet(ctx, by, id, setPortGroups, func(tx *store.Tx, s fleet.Subnet) error {
		if err := s.Usable(); err != nil {
			return err
		}
		was := s.PortGroups
		s.PortGroups = groups
		if err := s.Check(); err != nil {
			return err
		}
		for _, p := range was {
			if !slices.Contains(groups, p) {
				drop(tx, fleet.KindPortGroup, "", p)
			}
		}
		return errors.Join(takePortGroups(tx, s, known), store.Put(tx, subnets, string(id), s))
	})
}

// SetDefaultSubnet makes a subnet the one for VMs that ask for none; another one is
// it no longer.
func (c *Controller) SetDefaultSubnet(ctx context.Context, by Principal, id fleet.SubnetID) (fleet.Task, error) {
	return c.changeSubnet(ctx, by, id, setDefaultNetwork, func(tx *store.Tx, s fleet.Subnet) error {
		if err := s.Usable(); err != nil {
			return err
		}
		return store.Put(tx, defaultSubnet, theDefault, id)
	})
}
