package controller

import (
	"context"
	"errors"
	"maps"
	"slices"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// The verbs of this file, as tasks name them.
const (
	createTenant  fleet.Operation = "CREATE_TENANT"
	deleteTenant  fleet.Operation = "DELETE_TENANT"
	createTicket  fleet.Operation = "CREATE_RESOURCE_TICKET"
	createProject fleet.Operation = "CREATE_PROJECT"
	deleteProject fleet.Operation = "DELETE_PROJECT"
)

var (
	tenants  = store.Kind[fleet.Tenant]{Name: "tenant"}
	contents = store.Kind[contained]{Name: "tenant-contents"} // by tenant ID
	tickets  = store.Kind[fleet.ResourceTicket]{Name: "resource-ticket"}
	projects = store.Kind[fleet.Project]{Name: "project"}
)

// contained is what a tenant has. It is read and written with everything that
// comes to a tenant or leaves it, so that a tenant is never deleted while
// something comes.
type contained struct {
	Tickets  []fleet.TicketID `json:"tickets,omitempty"`
	Projects int              `json:"projects,omitzero"`
}

// maxTickets is how many a tenant has at most: they go with it in one
// transaction.
const maxTickets = 40

func inside(tx *store.Tx, t fleet.TenantID) (contained, error) {
	c, err := store.Get(tx, contents, string(t))
	if errors.Is(err, store.ErrNotFound) {
		return contained{}, nil
	}
	return c, err
}

// CreateTenant makes a tenant, which only an admin may. Groups are the names of
// its own security groups.
func (c *Controller) CreateTenant(ctx context.Context, by Principal, name string, groups []string) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	t := fleet.Tenant{ID: newID[fleet.TenantID](), Name: name}
	t.SecurityGroups, _ = fleet.Groups(nil, groups)
	if err := errors.Join(t.Check(), fleet.CheckGroups(groups)); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		if err := take(tx, fleet.KindTenant, "", t.Name, string(t.ID)); err != nil {
			return change{}, err
		}
		return change{operation: createTenant, entity: ref(fleet.KindTenant, t.ID), tenant: t.ID, name: t.Name},
			store.Put(tx, tenants, string(t.ID), t)
	})
}

// Tenant returns a tenant. Everyone who may ask at all may see one.
func (c *Controller) Tenant(ctx context.Context, id fleet.TenantID) (t fleet.Tenant, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		t, err = tenant(tx, id)
		return err
	})
	return t, err
}

// Tenants lists those that somebody sees, by name; with a name, that one.
func (c *Controller) Tenants(ctx context.Context, by Principal, name string) ([]fleet.Tenant, error) {
	d, err := c.Deployment(ctx)
	if err != nil {
		return nil, err
	}
	out, err := list(ctx, c, tenants, func(t fleet.Tenant) bool { return by.sees(t.ID) && (name == "" || t.Name == name) },
		func(t fleet.Tenant) string { return t.Name })
	for i := range out {
		out[i] = withGroups(out[i], d)
	}
	return out, err
}

// DeleteTenant removes a tenant without projects, with its resource tickets.
func (c *Controller) DeleteTenant(ctx context.Context, by Principal, id fleet.TenantID) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		t, err := get(tx, tenants, fleet.KindTenant, string(id))
		if err != nil {
			return change{}, err
		}
		has, err := inside(tx, id)
		if err != nil {
			return change{}, err
		}
		if has.Projects > 0 {
			return change{}, fleet.NotEmpty(ref(fleet.KindTenant, id), "it has projects")
		}
		for _, ticket := range has.Tickets {
			r, err := get(tx, tickets, fleet.KindResourceTicket, string(ticket))
			if err != nil {
				return change{}, err
			}
			drop(tx, fleet.KindResourceTicket, string(id), r.Name)
			store.Delete(tx, tickets, string(ticket))
		}
		drop(tx, fleet.KindTenant, "", t.Name)
		store.Delete(tx, contents, string(id))
		store.Delete(tx, tenants, string(id))
		return change{operation: deleteTenant, entity: ref(fleet.KindTenant, id), tenant: id, name: t.Name}, nil
	})
}

// CreateTicket gives a tenant something that it may use, which only an admin
// may.
func (c *Controller) CreateTicket(ctx context.Context, by Principal, tenant fleet.TenantID, name string, limits fleet.Amounts) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	r := fleet.ResourceTicket{ID: newID[fleet.TicketID](), Tenant: tenant, Name: name, Quota: fleet.NewQuota(limits)}
	if err := r.Check(); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		if _, err := get(tx, tenants, fleet.KindTenant, string(tenant)); err != nil {
			return change{}, err
		}
		has, err := inside(tx, tenant)
		switch {
		case err != nil:
			return change{}, err
		case len(has.Tickets) >= maxTickets:
			return change{}, fleet.Errorf(fleet.InvalidEntity, "Tenant %s has %d resource tickets, and the most is %d", tenant, len(has.Tickets), maxTickets)
		}
		if err := take(tx, fleet.KindResourceTicket, string(tenant), name, string(r.ID)); err != nil {
			return change{}, err
		}
		has.Tickets = append(has.Tickets, r.ID)
		return change{operation: createTicket, entity: ref(fleet.KindResourceTicket, r.ID), tenant: tenant, name: name},
			errors.Join(store.Put(tx, contents, string(tenant), has), store.Put(tx, tickets, string(r.ID), r))
	})
}

// Ticket returns a resource ticket, to whoever administers its tenant.
func (c *Controller) Ticket(ctx context.Context, by Principal, id fleet.TicketID) (r fleet.ResourceTicket, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		r, err = get(tx, tickets, fleet.KindResourceTicket, string(id))
		return err
	})
	if err == nil {
		err = by.administers(r.Tenant)
	}
	return r, err
}

// Tickets lists a tenant's resource tickets by name; with a name, that one.
func (c *Controller) Tickets(ctx context.Context, by Principal, tenant fleet.TenantID, name string) ([]fleet.ResourceTicket, error) {
	if _, err := c.Tenant(ctx, tenant); err != nil {
		return nil, err
	}
	return list(ctx, c, tickets, func(r fleet.ResourceTicket) bool {
		return r.Tenant == tenant && by.sees(tenant) && (name == "" || r.Name == name)
	}, func(r fleet.ResourceTicket) string { return r.Name })
}

// A ProjectSpec is a project that somebody asks for.
type ProjectSpec struct {
	Name   string
	Ticket string        // name of one of the tenant's
	Limits fleet.Amounts // carved out of it
	Groups []string      // its own security groups
}

// CreateProject carves a project out of a tenant's resource ticket.
func (c *Controller) CreateProject(ctx context.Context, by Principal, tenant fleet.TenantID, s ProjectSpec) (fleet.Task, error) {
	if err := by.administers(tenant); err != nil {
		return fleet.Task{}, err
	}
	p := fleet.Project{ID: newID[fleet.ProjectID](), Tenant: tenant, Name: s.Name}
	if err := errors.Join(p.Check(s.Limits), fleet.CheckGroups(s.Groups)); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		t, err := get(tx, tenants, fleet.KindTenant, string(tenant))
		if err != nil {
			return change{}, err
		}
		id, err := store.Get(tx, names, nameKey(fleet.KindResourceTicket, string(tenant), s.Ticket))
		if errors.Is(err, store.ErrNotFound) {
			return change{}, fleet.Errorf(fleet.ResourceTicketNotFound, "Resource ticket %s from tenant %s not found", s.Ticket, t.Name)
		}
		if err != nil {
			return change{}, err
		}
		r, err := get(tx, tickets, fleet.KindResourceTicket, id)
		if err != nil {
			return change{}, err
		}
		if err := take(tx, fleet.KindProject, string(tenant), s.Name, string(p.ID)); err != nil {
			return change{}, err
		}
		limits, rest, err := r.Quota.Carve(s.Limits)
		if err != nil {
			return change{}, err
		}
		has, err := inside(tx, tenant)
		if err != nil {
			return change{}, err
		}
		has.Projects++
		r.Quota = rest
		p.Ticket, p.Quota = r.ID, fleet.NewQuota(limits)
		p.SecurityGroups, _ = fleet.Groups(nil, s.Groups)
		return change{operation: createProject, entity: ref(fleet.KindProject, p.ID), tenant: tenant, project: p.ID, name: p.Name},
			errors.Join(store.Put(tx, contents, string(tenant), has), store.Put(tx, tickets, string(r.ID), r), store.Put(tx, projects, string(p.ID), p))
	})
}

// Project returns a project to those who see it.
func (c *Controller) Project(ctx context.Context, by Principal, id fleet.ProjectID) (p fleet.Project, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		if p, err = get(tx, projects, fleet.KindProject, string(id)); err != nil {
			return err
		}
		t, err := tenant(tx, p.Tenant)
		p = projectWithGroups(p, t)
		return err
	})
	if err == nil && !by.seesProject(p) {
		return fleet.Project{}, by.forbidden()
	}
	return p, err
}

// Projects lists a tenant's projects that somebody sees, by name; with a name,
// that one.
func (c *Controller) Projects(ctx context.Context, by Principal, tenant fleet.TenantID, name string) ([]fleet.Project, error) {
	t, err := c.Tenant(ctx, tenant)
	if err != nil {
		return nil, err
	}
	out, err := list(ctx, c, projects, func(p fleet.Project) bool {
		return p.Tenant == tenant && by.seesProject(p) && (name == "" || p.Name == name)
	}, func(p fleet.Project) string { return p.Name })
	for i := range out {
		out[i] = projectWithGroups(out[i], t)
	}
	return out, err
}

// DeleteProject removes an empty project and gives its ticket back what was
// carved out of it.
func (c *Controller) DeleteProject(ctx context.Context, by Principal, id fleet.ProjectID) (fleet.Task, error) {
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		p, err := get(tx, projects, fleet.KindProject, string(id))
		if err != nil {
			return change{}, err
		}
		if err := by.administers(p.Tenant); err != nil {
			return change{}, err
		}
		if used := p.Quota.Usage; slices.ContainsFunc(used.Keys(), func(k string) bool { return !used[k].IsZero() }) {
			return change{}, fleet.NotEmpty(ref(fleet.KindProject, id), "something in it uses its quota")
		}
		n, err := use(tx, ref(fleet.KindProject, id), 0) // what failed uses no quota
		if err != nil {
			return change{}, err
		}
		if n > 0 {
			return change{}, fleet.NotEmpty(ref(fleet.KindProject, id), "it has VMs or disks")
		}
		r, err := get(tx, tickets, fleet.KindResourceTicket, string(p.Ticket))
		if err != nil {
			return change{}, err
		}
		if r.Quota, err = r.Quota.Release(p.Quota.Limits); err != nil {
			return change{}, err
		}
		has, err := inside(tx, p.Tenant)
		if err != nil {
			return change{}, err
		}
		has.Projects--
		drop(tx, fleet.KindProject, string(p.Tenant), p.Name)
		store.Delete(tx, projects, string(id))
		return change{operation: deleteProject, entity: ref(fleet.KindProject, id), tenant: p.Tenant, project: id, name: p.Name},
			errors.Join(store.Put(tx, contents, string(p.Tenant), has), store.Put(tx, tickets, string(r.ID), r))
	})
}

func ref[T ~string](k fleet.Kind, id T) fleet.Ref { return fleet.Ref{Kind: k, ID: string(id)} }

// list reads the records that are wanted, in an order.
func list[T any](ctx context.Context, c *Controller, k store.Kind[T], wanted func(T) bool, by func(T) string) ([]T, error) {
	all, bad := store.List(ctx, c.store, k, "")
	if all == nil {
		return nil, bad
	}
	out := []T{}
	for _, id := range sorted(all) {
		if v := all[id]; wanted(v) {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(a, b T) int {
		switch x, y := by(a), by(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return out, bad
}

func sorted[T any](all map[string]T) []string { return slices.Sorted(maps.Keys(all)) }

// Contents is what a tenant has.
type Contents struct {
	Tickets  []fleet.ResourceTicket // by name
	Projects []fleet.Project        // by name; only those that somebody sees
}

// Inside returns what some tenants have, for whoever sees the tenants.
func (c *Controller) Inside(ctx context.Context, by Principal, ids ...fleet.TenantID) (map[fleet.TenantID]Contents, error) {
	out := map[fleet.TenantID]Contents{}
	for _, id := range ids {
		if by.sees(id) {
			out[id] = Contents{}
		}
	}
	if len(out) == 0 {
		return out, nil
	}
	in := func(t fleet.TenantID) bool { _, ok := out[t]; return ok }
	some, bad := list(ctx, c, tickets, func(r fleet.ResourceTicket) bool { return in(r.Tenant) }, func(r fleet.ResourceTicket) string { return r.Name })
	if some == nil {
		return nil, bad
	}
	for _, r := range some {
		has := out[r.Tenant]
		has.Tickets = append(has.Tickets, r)
		out[r.Tenant] = has
	}
	others, worse := list(ctx, c, projects, func(p fleet.Project) bool { return in(p.Tenant) && by.seesProject(p) }, func(p fleet.Project) string { return p.Name })
	if others == nil {
		return nil, worse
	}
	for _, p := range others {
		has := out[p.Tenant]
		has.Projects = append(has.Projects, p)
		out[p.Tenant] = has
	}
	return out, errors.Join(bad, worse)
}
