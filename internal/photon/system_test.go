package photon_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/photon"
	"bootd/internal/photon/wire"
)

// F1: flavors of each kind.
func TestFlavorsF1(t *testing.T) {
	s := start(t)
	for kind, cost := range map[string][]wire.QuotaLine{
		"vm":              small,
		"ephemeral-disk":  {line("ephemeral-disk", "1", "COUNT")},
		"persistent-disk": {line("persistent-disk", "1", "COUNT")},
	} {
		id := s.flavor("core-100", kind, cost...)
		want := wire.Flavor{ID: id, Kind: kind, SelfLink: s.base + "/flavors/" + id, Name: "core-100", Tags: []string{}, State: "READY", Cost: cost}
		if d := cmp.Diff(want, into[wire.Flavor](s.get("/flavors/"+id), 200)); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]wire.Flavor{want}, into[wire.List[wire.Flavor]](s.get("/flavors?name=core-100&kind="+kind), 200).Items); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"CREATE_FLAVOR"}, s.operations("/flavors/"+id+"/tasks")); d != "" {
			t.Error(d)
		}
		s.delete("/flavors/"+id).made("DELETE_FLAVOR", "flavor")
		s.get("/flavors/"+id).fails(404, "FlavorNotFound", id)
	}
}

// F2, F3: flavors that are not there.
func TestFlavorsF2F3(t *testing.T) {
	s := start(t)
	s.get("/flavors/none").fails(404, "FlavorNotFound", "Flavor none not found")
	s.delete("/flavors/none").fails(404, "FlavorNotFound", "Flavor none not found")
	s.get("/flavors/none/tasks").fails(404, "FlavorNotFound", "Flavor none not found")
}

// F4: kinds that there are not; the short words of disks are none here.
func TestFlavorsF4(t *testing.T) {
	s := start(t)
	for _, kind := range []string{"VM", "ephemeral", "persistent", "host"} {
		s.post("/flavors", wire.FlavorSpec{Name: "a", Kind: kind, Cost: small}).
			fails(400, "InvalidEntity", `kind must match "persistent-disk|ephemeral-disk|vm" (was `+kind+`)`)
	}
	s.post("/flavors", `{"name":"a"}`).fails(400, "InvalidEntity", "kind may not be null (was null), cost size must be between 1")
}

// F5: the name of another one of the kind.
func TestFlavorsF5(t *testing.T) {
	s := start(t)
	s.flavor("a", "vm", small...)
	s.flavor("a", "ephemeral-disk", line("ephemeral-disk", "1", "COUNT"))
	s.post("/flavors", wire.FlavorSpec{Name: "a", Kind: "vm", Cost: small}).fails(400, "NameTaken", "Flavor name 'a' already taken")
}

// F6 to F11: what a flavor has to say, and must not; servers before 1.1 did not
// ask.
func TestFlavorsF6ToF11(t *testing.T) {
	s, old := start(t), start(t, func(c *photon.Config) { c.LenientFlavors = true })
	for _, c := range []struct {
		code, kind string
		cost       []wire.QuotaLine
		always     bool // wrong with old servers too: it could not be carried out
	}{
		{"F6", "vm", []wire.QuotaLine{line("vm.memory", "1", "GB")}, false},
		{"F7", "vm", []wire.QuotaLine{line("vm.memory", "1", "GB"), line("vm.cpu", "1", "GB")}, true},
		{"F8", "vm", []wire.QuotaLine{line("vm.cpu", "1", "COUNT")}, false},
		{"F9", "vm", []wire.QuotaLine{line("vm.cpu", "1", "COUNT"), line("vm.memory", "1", "COUNT")}, true},
		{"F10", "ephemeral-disk", []wire.QuotaLine{line("ephemeral-disk.capacity", "1", "GB")}, false},
		{"F11", "persistent-disk", []wire.QuotaLine{line("persistent-disk.capacity", "1", "GB")}, false},
	} {
		spec := wire.FlavorSpec{Name: c.code, Kind: c.kind, Cost: c.cost}
		s.post("/flavors", spec).fails(400, "InvalidFlavorSpecification", "Flavor "+c.code)
		if c.always {
			old.post("/flavors", spec).fails(400, "InvalidFlavorSpecification", "Flavor "+c.code)
		} else {
			old.post("/flavors", spec).made("CREATE_FLAVOR", "flavor")
		}
	}
}

// K1, K2, K3: a task by its ID, by its entity and by its state is the same.
func TestTasksK1K2K3(t *testing.T) {
	s := start(t)
	tenant := s.tenant("acme")
	ticket := s.ticket(tenant, "gold", line("vm", "10", "COUNT"))
	project := s.project(tenant, "web", "gold", line("vm", "1", "COUNT"))
	flavor := s.flavor("a", "vm", small...)
	for kind, id := range map[string]string{"tenant": tenant, "resource-ticket": ticket, "project": project, "flavor": flavor} {
		for _, path := range []string{
			"/tasks?entityId=" + id + "&entityKind=" + kind,
			"/tasks?entityId=" + id + "&entityKind=" + kind + "&state=COMPLETED&",
			"/" + kind + "s/" + id + "/tasks",
		} {
			list := into[wire.List[wire.Task]](s.get(path), 200).Items
			if len(list) != 1 || list[0].Entity != (wire.Entity{ID: id, Kind: kind}) || list[0].SelfLink != s.base+"/tasks/"+list[0].ID {
				t.Fatalf("%s: %+v", path, list)
			}
			if d := cmp.Diff(list[0], into[wire.Task](s.get("/tasks/"+list[0].ID), 200)); d != "" {
				t.Errorf("%s: %s", path, d)
			}
		}
		if got := s.operations("/tasks?entityId=" + id + "&entityKind=" + kind + "&state=ERROR"); len(got) > 0 {
			t.Errorf("%s has failed: %v", kind, got)
		}
	}
	s.get("/tasks/none").fails(404, "NotFound", "Task none not found")
	s.get("/tasks?state=DONE").fails(400, "InvalidQueryParams", "DONE")

	// The tasks of what is gone can be found still.
	s.delete("/flavors/"+flavor).made("DELETE_FLAVOR", "flavor")
	if d := cmp.Diff([]string{"CREATE_FLAVOR", "DELETE_FLAVOR"}, s.operations("/tasks?entityKind=flavor&entityId="+flavor)); d != "" {
		t.Error(d)
	}
	if got := s.operations("/tasks"); len(got) != 5 {
		t.Errorf("all tasks: %v", got)
	}
}

// K4, K5: an entity's ID and kind go together.
func TestTasksK4K5(t *testing.T) {
	s := start(t)
	s.get("/tasks?entityId=x").fails(400, "InvalidQueryParams", "Both entityId and entityKind")
	s.get("/tasks?entityKind=vm").fails(400, "InvalidQueryParams", "Both entityId and entityKind")
}

// S1, S2, S3, S4, S6: what there is to see without having made anything.
func TestSystemS1S2S3S4S6(t *testing.T) {
	s := start(t)
	if a := s.get("/available"); a.status != 200 || strings.TrimSpace(string(a.body)) != "{}" {
		t.Errorf("S1: %d %s", a.status, a.body)
	}
	want := wire.Info{BaseVersion: "1.1.1", FullVersion: "1.1.1-bootd-1.2.3", GitCommitHash: "abcdef", NetworkType: "PHYSICAL"}
	if d := cmp.Diff(want, into[wire.Info](s.get("/info"), 200)); d != "" {
		t.Error("S2:", d)
	}
	status := into[wire.Status](s.get("/status"), 200)
	if status.Status != "READY" || len(status.Components) < 2 || slices.ContainsFunc(status.Components, func(c wire.Component) bool {
		return c.Component == "" || c.Status != "READY" || len(c.Instances) == 0
	}) {
		t.Errorf("S3: %+v", status)
	}
	list := into[wire.List[wire.Deployment]](s.get("/deployments"), 200).Items
	if len(list) != 1 || list[0].State != "READY" || list[0].ID != "default-deployment" || list[0].Auth.Enabled {
		t.Fatalf("S4: %+v", list)
	}
	if d := cmp.Diff(list[0], into[wire.Deployment](s.get("/deployments/"+list[0].ID), 200)); d != "" {
		t.Error("S4:", d)
	}
	if got := s.names("/deployments/" + list[0].ID + "/vms"); len(got) != 0 {
		t.Errorf("S4: management VMs %v", got)
	}
	refuse := func(c *photon.Config) {
		c.Tokens = true
		c.Authenticate = func(*http.Request) (controller.Principal, error) {
			return controller.Principal{}, fleet.Errorf(fleet.MissingAuthToken, "No token")
		}
	}
	closed := start(t, refuse)
	if a := into[wire.Auth](closed.get("/auth"), 200); !a.Enabled {
		t.Errorf("S6: %+v", a)
	}
	if a := closed.get("/available"); a.status != 200 {
		t.Errorf("S6: %d", a.status)
	}
	// What the API is, is no secret.
	if a := closed.get("/openapi-photon.json"); a.status != 200 || !strings.Contains(string(a.body), `"version":"1.2.3"`) {
		t.Errorf("%d %.200s", a.status, a.body)
	}
	for _, path := range []string{"/tenants", "/status", "/deployments", "/none", "/tasks/x", "/info"} {
		closed.get(path).fails(401, "MissingAuthToken", "No token")
	}
	if into[wire.Auth](s.get("/auth"), 200).Enabled {
		t.Error("S6: a token is wanted where none is needed")
	}
}

// S3: a store that does not answer is told of, not only an error.
func TestSystemS3(t *testing.T) {
	s := start(t)
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	status := into[wire.Status](s.get("/status"), 200)
	if status.Status != "PARTIAL_ERROR" || status.Components[1].Status != "UNREACHABLE" {
		t.Errorf("%+v", status)
	}
	e := s.get("/tenants").fails(500, "InternalError", "failed due to an internal error")
	if !strings.Contains(e.Message, "Request #") {
		t.Errorf("no number to look for: %s", e.Message)
	}
}

const deployment = "/deployments/default-deployment"

func (s *site) state() string {
	s.t.Helper()
	one := into[wire.Deployment](s.get(deployment), 200).State
	if all := into[wire.List[wire.Deployment]](s.get("/deployments"), 200).Items[0].State; all != one {
		s.t.Errorf("the list says %s, the deployment %s", all, one)
	}
	return one
}

// Y1: a paused system takes no changes, also after it was restarted.
func TestDeploymentsY1(t *testing.T) {
	dir := t.TempDir()
	t.Run("pause", func(t *testing.T) {
		s := startIn(t, dir)
		s.post(deployment+"/pause_system", nil).made("PAUSE_SYSTEM", "deployment")
		if got := s.state(); got != "PAUSED" {
			t.Error(got)
		}
	})
	s := startIn(t, dir)
	if got := s.state(); got != "PAUSED" {
		t.Error(got)
	}
	s.post("/tenants", wire.TenantSpec{Name: "acme"}).fails(403, "SystemPaused", "System is paused")
	s.delete("/tenants/x").fails(403, "SystemPaused", "System is paused")
	s.post(deployment+"/set_image_datastores", wire.Items{Items: []string{}}).fails(403, "SystemPaused", "System is paused")
	if got := s.names("/tenants"); len(got) != 0 {
		t.Errorf("made while paused: %v", got)
	}
	// Not even by a way that is no request.
	_, err := s.control.CreateTenant(t.Context(), controller.Principal{Name: "root", Role: controller.Admin}, "acme", nil)
	if fleet.CodeOf(err) != fleet.SystemPaused {
		t.Errorf("%v", err)
	}
	s.post(deployment+"/resume_system", nil).made("RESUME_SYSTEM", "deployment")
	if got := s.state(); got != "READY" {
		t.Error(got)
	}
	s.tenant("acme")
}

// Y2: with paused background tasks people may change things.
func TestDeploymentsY2(t *testing.T) {
	s := start(t)
	s.post(deployment+"/pause_background_tasks", nil).made("PAUSE_BACKGROUND_TASKS", "deployment")
	if got := s.state(); got != "BACKGROUND_PAUSED" {
		t.Error(got)
	}
	s.tenant("acme")
}

// Y3: from each of the states into each.
func TestDeploymentsY3(t *testing.T) {
	s := start(t)
	for _, c := range [][2]string{
		{"pause_system", "PAUSED"}, {"pause_background_tasks", "BACKGROUND_PAUSED"}, {"pause_system", "PAUSED"}, {"pause_system", "PAUSED"},
		{"resume_system", "READY"}, {"pause_background_tasks", "BACKGROUND_PAUSED"}, {"resume_system", "READY"}, {"resume_system", "READY"},
	} {
		if a := s.post(deployment+"/"+c[0], nil); a.status != 201 {
			t.Fatalf("%s: %d %s", c[0], a.status, a.body)
		}
		if got := s.state(); got != c[1] {
			t.Errorf("%s: %s, want %s", c[0], got, c[1])
		}
	}
}

// Y4, Y5: a deployment that there is not.
func TestDeploymentsY4Y5(t *testing.T) {
	s := start(t)
	s.get("/deployments/x").fails(404, "DeploymentNotFound", "Deployment #x not found")
	s.get("/deployments/x/vms").fails(404, "DeploymentNotFound", "Deployment #x not found")
	for _, verb := range []string{"pause_system", "pause_background_tasks", "resume_system"} {
		s.post("/deployments/x/"+verb, nil).fails(404, "DeploymentNotFound", "Deployment #x not found")
	}
	s.post("/deployments/x/set_security_groups", wire.Items{Items: []string{`a\b`}}).fails(404, "DeploymentNotFound", "Deployment #x not found")
}

// Y6: without tokens there is nobody whom groups could be of.
func TestDeploymentsY6(t *testing.T) {
	s := start(t)
	s.post(deployment+"/set_security_groups", wire.Items{Items: []string{`a\b`}}).
		fails(400, "InvalidAuthConfig", "Auth is not enabled, and security groups cannot be set.")
}

// Y7: groups of the deployment reach tenants and projects, those there are and
// those to come.
func TestDeploymentsY7(t *testing.T) {
	s := start(t, func(c *photon.Config) { c.Tokens = true })
	tenant := s.tenant("acme", `corp\acme`)
	s.ticket(tenant, "gold", line("vm", "10", "COUNT"))
	project := s.project(tenant, "web", "gold", line("vm", "1", "COUNT"))
	if set := into[wire.Task](s.post(deployment+"/set_security_groups", wire.Items{Items: []string{`corp\ops`}}), 200); set.Operation != "UPDATE_DEPLOYMENT_SECURITY_GROUPS" {
		t.Errorf("%+v", set)
	}
	ops, acme := wire.SecurityGroup{Name: `corp\ops`, Inherited: true}, wire.SecurityGroup{Name: `corp\acme`}
	if d := cmp.Diff([]wire.SecurityGroup{ops, acme}, into[wire.Tenant](s.get("/tenants/"+tenant), 200).SecurityGroups); d != "" {
		t.Error(d)
	}
	acme.Inherited = true
	if d := cmp.Diff([]wire.SecurityGroup{ops, acme}, into[wire.Project](s.get("/projects/"+project), 200).SecurityGroups); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]wire.SecurityGroup{ops}, into[wire.Tenant](s.get("/tenants/"+s.tenant("late")), 200).SecurityGroups); d != "" {
		t.Error(d)
	}
	if got := into[wire.Deployment](s.get(deployment), 200).Auth.SecurityGroups; !slices.Equal(got, []string{`corp\ops`}) {
		t.Errorf("%v", got)
	}
}

// Y8: image datastores become only more.
func TestDeploymentsY8(t *testing.T) {
	s := start(t)
	set := func(names ...string) answer {
		return s.post(deployment+"/set_image_datastores", wire.Items{Items: names})
	}
	into[wire.Task](set("ds2", "ds1"), 200)
	set("ds1", "ds3").fails(400, "InvalidImageDatastoreSet", "New image datastore list [ds1, ds3] is not a super set of existing list [ds1, ds2]")
	into[wire.Task](set("ds1", "ds2", "ds3"), 200)
	if got := into[wire.Deployment](s.get(deployment), 200).ImageDatastores; !slices.Equal(got, []string{"ds1", "ds2", "ds3"}) {
		t.Errorf("%v", got)
	}
}

// TestClusterTypes: types of clusters are enabled once.
func TestClusterTypes(t *testing.T) {
	s := start(t)
	swarm := wire.ClusterConfiguration{Type: "SWARM"}
	s.post(deployment+"/enable_cluster_type", swarm).made("CONFIGURE_CLUSTER", "deployment")
	s.post(deployment+"/enable_cluster_type", swarm).
		fails(400, "ClusterTypeAlreadyConfigured", "Only one ClusterConfiguration is allowed to be present for SWARM")
	if got := into[wire.Deployment](s.get(deployment), 200).ClusterConfigurations; len(got) != 1 || got[0].Type != "SWARM" {
		t.Errorf("%+v", got)
	}
	s.post(deployment+"/disable_cluster_type", swarm).made("DELETE_CLUSTER_CONFIGURATION", "deployment")
	s.post(deployment+"/disable_cluster_type", swarm).fails(404, "ClusterTypeNotConfigured", "SWARM")
	s.post(deployment+"/enable_cluster_type", `{"type":"NOMAD"}`).fails(400, "InvalidJson", "NOMAD")
}
