package photon_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/photon/wire"
)

const namePattern = `must match "^[a-zA-Z][a-zA-Z0-9-]*"`

// T1: create, get, list by name, delete.
func TestTenantsT1(t *testing.T) {
	s := start(t)
	id := s.tenant("acme")
	s.tenant("other")
	want := wire.Tenant{ID: id, Kind: "tenant", SelfLink: s.base + "/tenants/" + id, Name: "acme",
		Tags: []string{}, ResourceTickets: []wire.Named{}, Projects: []wire.Named{}, SecurityGroups: []wire.SecurityGroup{}}
	if d := cmp.Diff(want, into[wire.Tenant](s.get("/tenants/"+id), 200)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]wire.Tenant{want}, into[wire.List[wire.Tenant]](s.get("/tenants?name=acme"), 200).Items); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"acme", "other"}, s.names("/tenants")); d != "" {
		t.Error(d)
	}
	s.delete("/tenants/"+id).made("DELETE_TENANT", "tenant")
	s.get("/tenants/"+id).fails(404, "NotFound", "Tenant "+id+" not found")
	s.delete("/tenants/"+id).fails(404, "NotFound", "Tenant "+id+" not found")
	if d := cmp.Diff([]string{}, s.names("/tenants?name=acme")); d != "" {
		t.Error(d)
	}
}

// T2: with security groups.
func TestTenantsT2(t *testing.T) {
	s := start(t)
	id := s.tenant("acme", `corp\admins`, `corp\users`)
	want := []wire.SecurityGroup{{Name: `corp\admins`}, {Name: `corp\users`}}
	if d := cmp.Diff(want, into[wire.Tenant](s.get("/tenants/"+id), 200).SecurityGroups); d != "" {
		t.Error(d)
	}
	s.post("/tenants", wire.TenantSpec{Name: "b", SecurityGroups: []string{"admins"}}).
		fails(400, "InvalidSecurityGroupFormat", `"admins" is not written as DOMAIN\GROUP`)
}

// T3, T4, T5: tickets do not keep a tenant from being deleted, projects do.
func TestTenantsT3T4T5(t *testing.T) {
	s := start(t)
	id := s.tenant("acme")
	ticket := s.ticket(id, "gold", line("vm", "10", "COUNT"))
	project := s.project(id, "web", "gold", line("vm", "1", "COUNT"))
	s.delete("/tenants/"+id).fails(400, "ContainerNotEmpty", "Container not empty: tenant: "+id)
	tenant := into[wire.Tenant](s.get("/tenants/"+id), 200)
	if d := cmp.Diff([]wire.Named{{ID: ticket, Kind: "resource-ticket", Name: "gold"}}, tenant.ResourceTickets); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]wire.Named{{ID: project, Kind: "project", Name: "web"}}, tenant.Projects); d != "" {
		t.Error(d)
	}
	s.delete("/projects/"+project).made("DELETE_PROJECT", "project")
	s.delete("/tenants/"+id).made("DELETE_TENANT", "tenant")
	s.get("/resource-tickets/"+ticket).fails(404, "ResourceTicketNotFound", ticket)
}

// T6: a name that is none.
func TestTenantsT6(t *testing.T) {
	s := start(t)
	for body, text := range map[string]string{
		`{"name": "1 tenant"}`: `name ` + namePattern + ` (was 1 tenant)`,
		`{}`:                   "name may not be null (was null)",
		`{"name": "` + strings.Repeat("x", 64) + `"}`: "name size must be between 1 and 63",
	} {
		s.post("/tenants", body).fails(400, "InvalidEntity", text)
	}
}

// T7: the name of another one.
func TestTenantsT7(t *testing.T) {
	s := start(t)
	s.tenant("acme")
	s.post("/tenants", wire.TenantSpec{Name: "acme"}).fails(400, "NameTaken", "Tenant name 'acme' already taken")
}

// T8: other security groups, and the tasks of a tenant.
func TestTenantsT8(t *testing.T) {
	s := start(t)
	id := s.tenant("acme", `corp\a`)
	if d := cmp.Diff([]string{"CREATE_TENANT"}, s.operations("/tenants/"+id+"/tasks")); d != "" {
		t.Error(d)
	}
	set := into[wire.Task](s.post("/tenants/"+id+"/set_security_groups", wire.Items{Items: []string{`corp\b`, `corp\c`}}), 200)
	if set.Operation != "SET_TENANT_SECURITY_GROUPS" || set.State != "COMPLETED" || set.Entity.ID != id {
		t.Errorf("%+v", set)
	}
	if d := cmp.Diff([]wire.SecurityGroup{{Name: `corp\b`}, {Name: `corp\c`}}, into[wire.Tenant](s.get("/tenants/"+id), 200).SecurityGroups); d != "" {
		t.Error(d)
	}
	s.post("/tenants/"+id+"/set_security_groups", `{}`).fails(400, "InvalidEntity", "items may not be null (was null)")
	s.post("/tenants/nobody/set_security_groups", `{"items": []}`).fails(404, "NotFound", "Tenant nobody not found")
	if d := cmp.Diff([]string{"CREATE_TENANT"}, s.operations("/tenants/" + id + "/tasks?state=COMPLETED&")[:1]); d != "" {
		t.Error(d)
	}
}

// R1: a ticket; and the SDK's way of asking for one, with two slashes.
func TestTicketsR1(t *testing.T) {
	s := start(t)
	tenant := s.tenant("acme")
	id := s.ticket(tenant, "gold", line("vm.memory", "1.5", "GB"), line("vm", "100", "COUNT"))
	want := wire.ResourceTicket{ID: id, Kind: "resource-ticket", SelfLink: s.base + "/resource-tickets/" + id, Name: "gold", Tags: []string{}, TenantID: tenant,
		Limits: []wire.QuotaLine{line("vm", "100", "COUNT"), line("vm.memory", "1.5", "GB")},
		Usage:  []wire.QuotaLine{line("vm", "0", "COUNT"), line("vm.memory", "0", "GB")}}
	for _, path := range []string{"/resource-tickets/" + id, "/resource-tickets//" + id} {
		if d := cmp.Diff(want, into[wire.ResourceTicket](s.get(path), 200)); d != "" {
			t.Errorf("%s: %s", path, d)
		}
	}
	if d := cmp.Diff([]string{"gold"}, s.names("/tenants/"+tenant+"/resource-tickets?name=gold")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"CREATE_RESOURCE_TICKET"}, s.operations("/resource-tickets/"+id+"/tasks")); d != "" {
		t.Error(d)
	}
	s.get("/tenants/nobody/resource-tickets").fails(404, "NotFound", "Tenant nobody not found")
	s.delete("/resource-tickets/"+id).fails(405, "InvalidOperation", "only GET")
}

// R2: names and limits that are none; all mistakes at once.
func TestTicketsR2(t *testing.T) {
	s := start(t)
	path := "/tenants/" + s.tenant("acme") + "/resource-tickets"
	vm := `{"key":"vm","value":1,"unit":"COUNT"}`
	for _, c := range []struct{ body, code, text string }{
		{`{"name":"1x","limits":[` + vm + `]}`, "InvalidEntity", "name " + namePattern},
		{`{"name":"x"}`, "InvalidEntity", "limits size must be between 1"},
		{`{"name":"","limits":[{"value":1,"unit":"COUNT"}]}`, "InvalidEntity", "name may not be null (was null), limits[0].key may not be null (was null)"},
		{`{"name":"x","limits":[{"key":"vm","value":-1,"unit":"COUNT"}]}`, "InvalidEntity", "limits[0].value must be greater than or equal to 0 (was -1)"},
		{`{"name":"x","limits":[{"key":"vm","unit":"COUNT"}]}`, "InvalidEntity", "limits[0].value may not be null"},
		{`{"name":"x","limits":[{"key":"vm","value":1}]}`, "InvalidEntity", "limits[0].unit may not be null"},
		{`{"name":"x","limits":[{"key":"vm","value":1e400,"unit":"GB"}]}`, "InvalidEntity", "limits[0].value cannot be counted with"},
		{`{"name":"x","limits":[` + vm + `,` + vm + `]}`, "InvalidEntity", "limits[1].key is given twice (was vm)"},
		{`{"name":"x","limits":[{"key":"vm","value":1,"unit":"TB"}]}`, "InvalidJson", `"TB" was not one of [GB, MB, KB, B, COUNT]`},
		{`{"name":"x","limits":{}}`, "InvalidJson", "limits cannot be a object"},
		{`{"name":"x",`, "InvalidJson", "could not be parsed"},
		{``, "InvalidJson", "there is none"},
	} {
		var e wire.Error
		a := s.post(path, c.body)
		if err := json.Unmarshal(a.body, &e); err != nil || a.status != 400 || e.Code != c.code || !strings.Contains(e.Message, c.text) {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
}

// R3: the name of another one; another tenant may have it.
func TestTicketsR3(t *testing.T) {
	s := start(t)
	a, b := s.tenant("a"), s.tenant("b")
	s.ticket(a, "gold", line("vm", "1", "COUNT"))
	s.ticket(b, "gold", line("vm", "1", "COUNT"))
	s.post("/tenants/"+a+"/resource-tickets", wire.ResourceTicketSpec{Name: "gold", Limits: small}).fails(400, "NameTaken", "gold")
}

// R9: what a project has is used of its ticket, in the ticket's unit or another.
func TestTicketsR9(t *testing.T) {
	s := start(t)
	tenant := s.tenant("acme")
	ticket := s.ticket(tenant, "gold", line("vm.memory", "10", "GB"), line("vm", "10", "COUNT"))
	project := s.project(tenant, "web", "gold", line("vm.memory", "2560", "MB"), line("vm", "4", "COUNT"))
	usage := func() []wire.QuotaLine {
		return into[wire.ResourceTicket](s.get("/resource-tickets/"+ticket), 200).Usage
	}
	if d := cmp.Diff([]wire.QuotaLine{line("vm", "4", "COUNT"), line("vm.memory", "2.5", "GB")}, usage()); d != "" {
		t.Error(d)
	}
	p := into[wire.Project](s.get("/projects/"+project), 200)
	want := wire.ProjectTicket{TenantTicketID: ticket, TenantTicketName: "gold",
		Limits: []wire.QuotaLine{line("vm", "4", "COUNT"), line("vm.memory", "2560", "MB")},
		Usage:  []wire.QuotaLine{line("vm", "0", "COUNT"), line("vm.memory", "0", "MB")}}
	if d := cmp.Diff(want, p.ResourceTicket); d != "" {
		t.Error(d)
	}
	e := s.post("/tenants/"+tenant+"/projects", projectSpec("db", "gold", line("vm.memory", "8", "GB"), line("vm", "1", "COUNT"))).
		fails(400, "QuotaError", "Not enough quota")
	if e.Data["limit.key"] != "vm.memory" || e.Data["limit.value"] != "10" || e.Data["newUsage.value"] != "10.5" {
		t.Errorf("%v", e.Data)
	}
	s.delete("/projects/"+project).made("DELETE_PROJECT", "project")
	if d := cmp.Diff([]wire.QuotaLine{line("vm", "0", "COUNT"), line("vm.memory", "0", "GB")}, usage()); d != "" {
		t.Error(d)
	}
}

// P1: create, get, delete, and the tasks of a project.
func TestProjectsP1(t *testing.T) {
	s := start(t)
	tenant := s.tenant("acme")
	s.ticket(tenant, "gold", line("vm", "10", "COUNT"))
	id := s.project(tenant, "web", "gold", line("vm", "1", "COUNT"))
	if p := into[wire.Project](s.get("/projects/"+id), 200); p.Name != "web" || p.Kind != "project" || p.SelfLink != s.base+"/projects/"+id {
		t.Errorf("%+v", p)
	}
	if d := cmp.Diff([]string{"web"}, s.names("/tenants/"+tenant+"/projects?name=web")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"CREATE_PROJECT"}, s.operations("/projects/"+id+"/tasks")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{}, s.operations("/projects/"+id+"/tasks?kind=vm")); d != "" {
		t.Error(d)
	}
	s.delete("/projects/"+id).made("DELETE_PROJECT", "project")
	s.get("/projects/"+id).fails(404, "NotFound", "Project "+id+" not found")
	s.get("/projects/"+id+"/tasks").fails(404, "NotFound", "Project "+id+" not found")
	s.delete("/projects/"+id).fails(404, "NotFound", "not found")
	s.get("/tenants/nobody/projects").fails(404, "NotFound", "Tenant nobody not found")
	s.post("/tenants/"+tenant+"/projects", projectSpec("web", "silver", line("vm", "1", "COUNT"))).
		fails(404, "ResourceTicketNotFound", "Resource ticket silver from tenant acme not found")
	s.post("/tenants/"+tenant+"/projects", projectSpec("web", "gold", line("disk", "1", "COUNT"))).
		fails(400, "InvalidResourceTicketSubdivide", "Missing keys not permitted [vm]")
	s.post("/tenants/"+tenant+"/projects", `{"name": "web"}`).fails(400, "InvalidEntity", "resourceTicket may not be null (was null)")
	half := s.project(tenant, "half", "gold", line("subdivide.percent", "50", "COUNT"))
	if d := cmp.Diff([]wire.QuotaLine{line("vm", "5", "COUNT")}, into[wire.Project](s.get("/projects/"+half), 200).ResourceTicket.Limits); d != "" {
		t.Error(d)
	}
}

// P2, P3, P9, P10: groups of a project, those that it inherits, and what becomes
// of both when they are set anew.
func TestProjectsP2P3P9P10(t *testing.T) {
	s := start(t)
	tenant := s.tenant("acme", `corp\all`)
	s.ticket(tenant, "gold", line("vm", "10", "COUNT"))
	spec := projectSpec("web", "gold", line("vm", "1", "COUNT"))
	spec.SecurityGroups = []string{`corp\web`}
	id := s.post("/tenants/"+tenant+"/projects", spec).made("CREATE_PROJECT", "project")
	check := func(want ...wire.SecurityGroup) {
		t.Helper()
		for _, got := range [][]wire.SecurityGroup{
			into[wire.Project](s.get("/projects/"+id), 200).SecurityGroups,
			into[wire.List[wire.Project]](s.get("/tenants/"+tenant+"/projects"), 200).Items[0].SecurityGroups,
		} {
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		}
	}
	check(wire.SecurityGroup{Name: `corp\all`, Inherited: true}, wire.SecurityGroup{Name: `corp\web`})
	into[wire.Task](s.post("/tenants/"+tenant+"/set_security_groups", wire.Items{Items: []string{`corp\some`, `corp\few`}}), 200)
	check(wire.SecurityGroup{Name: `corp\some`, Inherited: true}, wire.SecurityGroup{Name: `corp\few`, Inherited: true}, wire.SecurityGroup{Name: `corp\web`})
	set := into[wire.Task](s.post("/projects/"+id+"/set_security_groups", wire.Items{Items: []string{`corp\few`, `corp\db`}}), 200)
	check(wire.SecurityGroup{Name: `corp\some`, Inherited: true}, wire.SecurityGroup{Name: `corp\few`, Inherited: true}, wire.SecurityGroup{Name: `corp\db`})
	if len(set.Steps) != 1 || len(set.Steps[0].Warnings) != 1 || set.Steps[0].Warnings[0].Code != "SecurityGroupsAlreadyInherited" {
		t.Errorf("no warning of what is inherited anyway: %+v", set)
	}
	into[wire.Task](s.post("/tenants/"+tenant+"/set_security_groups", wire.Items{Items: []string{}}), 200)
	check(wire.SecurityGroup{Name: `corp\db`})
}

// P4, P5: names that are none, and of another project.
func TestProjectsP4P5(t *testing.T) {
	s := start(t)
	tenant := s.tenant("acme")
	s.ticket(tenant, "gold", line("vm", "10", "COUNT"))
	path := "/tenants/" + tenant + "/projects"
	s.post(path, projectSpec("1project", "gold", line("vm", "1", "COUNT"))).fails(400, "InvalidEntity", "name "+namePattern)
	s.project(tenant, "web", "gold", line("vm", "1", "COUNT"))
	s.post(path, projectSpec("web", "gold", line("vm", "1", "COUNT"))).fails(400, "NameTaken", "Project name 'web' already taken")
}
