package photon

import (
	"net/http"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

func (s *server) tenantRoutes() routes {
	return routes{
		"/tenants":                          {http.MethodGet: s.listTenants, http.MethodPost: s.createTenant},
		"/tenants/{id}":                     {http.MethodGet: s.getTenant, http.MethodDelete: s.deleteTenant},
		"/tenants/{id}/tasks":               {http.MethodGet: s.entityTasks(fleet.KindTenant, s.lookTenant)},
		"/tenants/{id}/set_security_groups": {http.MethodPost: s.setTenantGroups},
		"/tenants/{id}/resource-tickets":    {http.MethodGet: s.listTickets, http.MethodPost: s.createTicket},
		"/tenants/{id}/projects":            {http.MethodGet: s.listProjects, http.MethodPost: s.createProject},

		"/resource-tickets/{id}":       {http.MethodGet: s.getTicket},
		"/resource-tickets/{id}/tasks": {http.MethodGet: s.entityTasks(fleet.KindResourceTicket, s.lookTicket)},

		"/projects/{id}":                     {http.MethodGet: s.getProject, http.MethodDelete: s.deleteProject},
		"/projects/{id}/tasks":               {http.MethodGet: s.entityTasks(fleet.KindProject, s.lookProject)},
		"/projects/{id}/set_security_groups": {http.MethodPost: s.setProjectGroups},
	}
}

func (c *call) tenant() fleet.TenantID   { return fleet.TenantID(c.PathValue("id")) }
func (c *call) ticket() fleet.TicketID   { return fleet.TicketID(c.PathValue("id")) }
func (c *call) project() fleet.ProjectID { return fleet.ProjectID(c.PathValue("id")) }

func (s *server) lookTenant(c *call) error {
	_, err := s.Controller.Tenant(c.ctx(), c.tenant())
	return err
}

func (s *server) lookTicket(c *call) error {
	_, err := s.Controller.Ticket(c.ctx(), c.by, c.ticket())
	return err
}

func (s *server) lookProject(c *call) error {
	_, err := s.Controller.Project(c.ctx(), c.by, c.project())
	return err
}

func groupsOf(list []fleet.SecurityGroup) []wire.SecurityGroup {
	out := []wire.SecurityGroup{}
	for _, g := range list {
		out = append(out, wire.SecurityGroup{Name: g.Name, Inherited: g.Inherited})
	}
	return out
}

func (c *call) tenantOf(t fleet.Tenant, has controller.Contents) wire.Tenant {
	out := wire.Tenant{
		ID: string(t.ID), Kind: string(fleet.KindTenant), SelfLink: c.link("tenants", string(t.ID)), Name: t.Name, Tags: listed(t.Tags),
		ResourceTickets: []wire.Named{}, Projects: []wire.Named{}, SecurityGroups: groupsOf(t.SecurityGroups),
	}
	for _, r := range has.Tickets {
		out.ResourceTickets = append(out.ResourceTickets, wire.Named{ID: string(r.ID), Kind: string(fleet.KindResourceTicket), Name: r.Name})
	}
	for _, p := range has.Projects {
		out.Projects = append(out.Projects, wire.Named{ID: string(p.ID), Kind: string(fleet.KindProject), Name: p.Name})
	}
	return out
}

func (s *server) listTenants(c *call) (reply, error) {
	list, err := s.Controller.Tenants(c.ctx(), c.by, c.query.Get("name"))
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	page, next, previous := cut(c, list, func(t fleet.Tenant) string { return byName(t.Name, t.ID) })
	var ids []fleet.TenantID
	for _, t := range page {
		ids = append(ids, t.ID)
	}
	has, err := s.Controller.Inside(c.ctx(), c.by, ids...)
	if err != nil {
		return reply{}, err
	}
	out := wire.List[wire.Tenant]{Items: []wire.Tenant{}, NextPageLink: next, PreviousPageLink: previous}
	for _, t := range page {
		out.Items = append(out.Items, c.tenantOf(t, has[t.ID]))
	}
	return ok(out), nil
}

func (s *server) createTenant(c *call) (reply, error) {
	in, err := body[wire.TenantSpec](c)
	if err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.CreateTenant(c.ctx(), c.by, in.Name, in.SecurityGroups))
}

func (s *server) getTenant(c *call) (reply, error) {
	t, err := s.Controller.Tenant(c.ctx(), c.tenant())
	if err != nil {
		return reply{}, err
	}
	has, err := s.Controller.Inside(c.ctx(), c.by, t.ID)
	if err != nil {
		return reply{}, err
	}
	return ok(c.tenantOf(t, has[t.ID])), nil
}

func (s *server) deleteTenant(c *call) (reply, error) {
	return c.made(s.Controller.DeleteTenant(c.ctx(), c.by, c.tenant()))
}

// items reads the body of verbs that set a list.
func items(c *call) ([]string, error) {
	in, err := body[wire.Items](c)
	if err == nil && in.Items == nil {
		var m fleet.Mistakes
		m.Required("items", "")
		err = m.Err()
	}
	return in.Items, err
}

func (s *server) setTenantGroups(c *call) (reply, error) {
	groups, err := items(c)
	if err != nil {
		return reply{}, err
	}
	return c.done(s.Controller.SetTenantGroups(c.ctx(), c.by, c.tenant(), groups))
}

func (c *call) ticketOf(r fleet.ResourceTicket) wire.ResourceTicket {
	return wire.ResourceTicket{
		ID: string(r.ID), Kind: string(fleet.KindResourceTicket), SelfLink: c.link("resource-tickets", string(r.ID)), Name: r.Name,
		Tags: listed(r.Tags), TenantID: string(r.Tenant), Limits: lines(r.Quota.Limits), Usage: lines(r.Quota.Usage),
	}
}

func (s *server) listTickets(c *call) (reply, error) {
	list, err := s.Controller.Tickets(c.ctx(), c.by, c.tenant(), c.query.Get("name"))
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	return paged(c, list, func(r fleet.ResourceTicket) string { return byName(r.Name, r.ID) }, c.ticketOf), nil
}

func (s *server) createTicket(c *call) (reply, error) {
	in, err := body[wire.ResourceTicketSpec](c)
	if err != nil {
		return reply{}, err
	}
	var m fleet.Mistakes
	m.Name("name", in.Name)
	limits, err := amounts(&m, "limits", in.Limits)
	if err := both(m, err); err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.CreateTicket(c.ctx(), c.by, c.tenant(), in.Name, limits))
}

func (s *server) getTicket(c *call) (reply, error) {
	r, err := s.Controller.Ticket(c.ctx(), c.by, c.ticket())
	if err != nil {
		return reply{}, err
	}
	return ok(c.ticketOf(r)), nil
}

func (c *call) projectOf(p fleet.Project, has controller.Contents) wire.Project {
	out := wire.Project{
		ID: string(p.ID), Kind: string(fleet.KindProject), SelfLink: c.link("projects", string(p.ID)), Name: p.Name, Tags: listed(p.Tags),
		ResourceTicket: wire.ProjectTicket{TenantTicketID: string(p.Ticket), Limits: lines(p.Quota.Limits), Usage: lines(p.Quota.Usage)},
		SecurityGroups: groupsOf(p.SecurityGroups),
	}
	for _, r := range has.Tickets {
		if r.ID == p.Ticket {
			out.ResourceTicket.TenantTicketName = r.Name
		}
	}
	return out
}

func (s *server) listProjects(c *call) (reply, error) {
	list, err := s.Controller.Projects(c.ctx(), c.by, c.tenant(), c.query.Get("name"))
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	has, err := s.Controller.Inside(c.ctx(), c.by, c.tenant())
	if err != nil {
		return reply{}, err
	}
	return paged(c, list, func(p fleet.Project) string { return byName(p.Name, p.ID) },
		func(p fleet.Project) wire.Project { return c.projectOf(p, has[p.Tenant]) }), nil
}

func (s *server) createProject(c *call) (reply, error) {
	in, err := body[wire.ProjectSpec](c)
	if err != nil {
		return reply{}, err
	}
	var m fleet.Mistakes
	m.Name("name", in.Name)
	if in.ResourceTicket == nil {
		m.Required("resourceTicket", "")
		return reply{}, m.Err()
	}
	m.Required("resourceTicket.name", in.ResourceTicket.Name)
	limits, err := amounts(&m, "resourceTicket.limits", in.ResourceTicket.Limits)
	if err := both(m, err); err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.CreateProject(c.ctx(), c.by, c.tenant(), controller.ProjectSpec{
		Name: in.Name, Ticket: in.ResourceTicket.Name, Limits: limits, Groups: in.SecurityGroups,
	}))
}

func (s *server) getProject(c *call) (reply, error) {
	p, err := s.Controller.Project(c.ctx(), c.by, c.project())
	if err != nil {
		return reply{}, err
	}
	has, err := s.Controller.Inside(c.ctx(), c.by, p.Tenant)
	if err != nil {
		return reply{}, err
	}
	return ok(c.projectOf(p, has[p.Tenant])), nil
}

func (s *server) deleteProject(c *call) (reply, error) {
	return c.made(s.Controller.DeleteProject(c.ctx(), c.by, c.project()))
}

func (s *server) setProjectGroups(c *call) (reply, error) {
	groups, err := items(c)
	if err != nil {
		return reply{}, err
	}
	return c.done(s.Controller.SetProjectGroups(c.ctx(), c.by, c.project(), groups))
}
