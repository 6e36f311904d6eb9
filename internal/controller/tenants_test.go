package controller_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

var (
	quiet = slog.New(slog.DiscardHandler)
	root  = controller.Principal{Name: "root", Role: controller.Admin}
)

func open(t *testing.T) (*controller.Controller, *task.Runner) {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r := task.New(s, task.Options{Log: quiet})
	return controller.New(s, r, controller.Options{}), r
}

func amounts(t testing.TB, text string) fleet.Amounts {
	t.Helper()
	out := fleet.Amounts{}
	for f := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(f, "=")
		unit := fleet.Count
		if strings.HasSuffix(value, "GB") {
			value, unit = strings.TrimSuffix(value, "GB"), fleet.Gigabytes
		}
		a, err := fleet.ParseAmount(value, unit)
		if err != nil {
			t.Fatal(err)
		}
		out[key] = a
	}
	return out
}

// must is for what is only prepared.
func must(t testing.TB) func(fleet.Task, error) string {
	return func(task fleet.Task, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if task.State != fleet.TaskCompleted || task.Entity.ID == "" {
			t.Fatalf("task %+v", task)
		}
		return task.Entity.ID
	}
}

// fails checks an error's code and text.
func fails(t *testing.T, err error, code fleet.Code, text string) {
	t.Helper()
	var e *fleet.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, text) {
		t.Errorf("%v (%s), want %s: %s", err, fleet.CodeOf(err), code, text)
	}
}

// T1: create, get, list by name, delete; and the task of it can be asked for.
func TestTenantsT1(t *testing.T) {
	c, tasks := open(t)
	ctx := t.Context()
	done, err := c.CreateTenant(ctx, root, "acme", nil)
	id := fleet.TenantID(must(t)(done, err))
	if kept, err := tasks.Get(ctx, done.ID); err != nil || kept.Operation != "CREATE_TENANT" || kept.State != fleet.TaskCompleted {
		t.Errorf("task %+v, %v", kept, err)
	}
	must(t)(c.CreateTenant(ctx, root, "other", nil))
	if got, err := c.Tenant(ctx, id); err != nil || got.Name != "acme" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.Tenants(ctx, root, "acme"); err != nil || len(got) != 1 || got[0].ID != id {
		t.Errorf("%+v, %v", got, err)
	}
	must(t)(c.DeleteTenant(ctx, root, id))
	_, err = c.Tenant(ctx, id)
	fails(t, err, fleet.NotFound, "Tenant "+string(id)+" not found")
	_, err = c.DeleteTenant(ctx, root, id)
	fails(t, err, fleet.NotFound, "not found")
	must(t)(c.CreateTenant(ctx, root, "acme", nil)) // the name is free again
}

// T2, P2, P3: security groups, and those that a project inherits.
func TestTenantsT2(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	id := fleet.TenantID(must(t)(c.CreateTenant(ctx, root, "acme", []string{"a\\x", "a\\y", "a\\x"})))
	got, err := c.Tenant(ctx, id)
	if d := cmp.Diff([]fleet.SecurityGroup{{Name: "a\\x"}, {Name: "a\\y"}}, got.SecurityGroups); err != nil || d != "" {
		t.Error(err, d)
	}
	must(t)(c.CreateTicket(ctx, root, id, "gold", amounts(t, "vm=10")))
	p := fleet.ProjectID(must(t)(c.CreateProject(ctx, root, id, controller.ProjectSpec{Name: "web", Ticket: "gold", Limits: amounts(t, "vm=1"), Groups: []string{"a\\z"}})))
	project, err := c.Project(ctx, root, p)
	want := []fleet.SecurityGroup{{Name: "a\\x", Inherited: true}, {Name: "a\\y", Inherited: true}, {Name: "a\\z"}}
	if d := cmp.Diff(want, project.SecurityGroups); err != nil || d != "" {
		t.Error(err, d)
	}
}

// T3 to T5: tickets go with their tenant, projects hold it.
func TestTenantsT3(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	id := fleet.TenantID(must(t)(c.CreateTenant(ctx, root, "acme", nil)))
	ticket := fleet.TicketID(must(t)(c.CreateTicket(ctx, root, id, "gold", amounts(t, "vm=10"))))
	p := fleet.ProjectID(must(t)(c.CreateProject(ctx, root, id, controller.ProjectSpec{Name: "web", Ticket: "gold", Limits: amounts(t, "vm=4")})))
	_, err := c.DeleteTenant(ctx, root, id)
	fails(t, err, fleet.ContainerNotEmpty, "Container not empty: tenant: "+string(id))
	must(t)(c.DeleteProject(ctx, root, p))
	must(t)(c.DeleteTenant(ctx, root, id))
	_, err = c.Ticket(ctx, root, ticket)
	fails(t, err, fleet.ResourceTicketNotFound, "not found")
	again := fleet.TenantID(must(t)(c.CreateTenant(ctx, root, "acme", nil)))
	must(t)(c.CreateTicket(ctx, root, again, "gold", amounts(t, "vm=10")))
}

// T6, T7, R2, R3, P4, P5: names.
func TestNames(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	_, err := c.CreateTenant(ctx, root, "1st", nil)
	fails(t, err, fleet.InvalidEntity, `must match "^[a-zA-Z][a-zA-Z0-9-]*"`)
	id := fleet.TenantID(must(t)(c.CreateTenant(ctx, root, "acme", nil)))
	_, err = c.CreateTenant(ctx, root, "acme", nil)
	fails(t, err, fleet.NameTaken, "Tenant name 'acme' already taken")
	other := fleet.TenantID(must(t)(c.CreateTenant(ctx, root, "other", nil)))

	_, err = c.CreateTicket(ctx, root, id, "g g", amounts(t, "vm=1"))
	fails(t, err, fleet.InvalidEntity, "must match")
	_, err = c.CreateTicket(ctx, root, id, "gold", nil)
	fails(t, err, fleet.InvalidEntity, "limits")
	_, err = c.CreateTicket(ctx, root, "nobody", "gold", amounts(t, "vm=1"))
	fails(t, err, fleet.NotFound, "Tenant nobody not found")
	must(t)(c.CreateTicket(ctx, root, id, "gold", amounts(t, "vm=10")))
	must(t)(c.CreateTicket(ctx, root, other, "gold", amounts(t, "vm=10")))
	_, err = c.CreateTicket(ctx, root, id, "gold", amounts(t, "vm=1"))
	fails(t, err, fleet.NameTaken, "Resource Ticket name 'gold' already taken")

	spec := controller.ProjectSpec{Name: "web", Ticket: "gold", Limits: amounts(t, "vm=1")}
	must(t)(c.CreateProject(ctx, root, id, spec))
	must(t)(c.CreateProject(ctx, root, other, spec))
	_, err = c.CreateProject(ctx, root, id, spec)
	fails(t, err, fleet.NameTaken, "Project name 'web' already taken")
	spec.Name, spec.Ticket = "web2", "silver"
	_, err = c.CreateProject(ctx, root, id, spec)
	fails(t, err, fleet.ResourceTicketNotFound, "Resource ticket silver from tenant acme not found")
	spec.Name = "-"
	_, err = c.CreateProject(ctx, root, id, spec)
	fails(t, err, fleet.InvalidEntity, "must match")
}

// R9: what a project carves out of a ticket shows there, and goes back. P1: a
// project that is gone is not found.
func TestTicketsR9(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	id := fleet.TenantID(must(t)(c.CreateTenant(ctx, root, "acme", nil)))
	ticket := fleet.TicketID(must(t)(c.CreateTicket(ctx, root, id, "gold", amounts(t, "vm=10 vm.memory=64GB"))))
	used := func() string {
		t.Helper()
		r, err := c.Ticket(ctx, root, ticket)
		if err != nil {
			t.Fatal(err)
		}
		return r.Quota.Usage["vm"].String() + ", " + r.Quota.Usage["vm.memory"].String()
	}
	spec := func(name, limits string) controller.ProjectSpec {
		return controller.ProjectSpec{Name: name, Ticket: "gold", Limits: amounts(t, limits)}
	}
	p := fleet.ProjectID(must(t)(c.CreateProject(ctx, root, id, spec("a", "vm=4 vm.memory=16GB"))))
	must(t)(c.CreateProject(ctx, root, id, spec("b", "subdivide.percent=50")))
	if got := used(); got != "9 COUNT, 48 GB" {
		t.Errorf("used %s", got)
	}
	_, err := c.CreateProject(ctx, root, id, spec("c", "vm=2 vm.memory=1GB"))
	fails(t, err, fleet.QuotaError, "Not enough quota")
	_, err = c.CreateProject(ctx, root, id, spec("c", "vm=1"))
	fails(t, err, fleet.InvalidResourceTicketSubdivide, "Missing keys not permitted [vm.memory]")
	must(t)(c.DeleteProject(ctx, root, p))
	if got := used(); got != "5 COUNT, 32 GB" {
		t.Errorf("used %s after a project went", got)
	}
	_, err = c.Project(ctx, root, p)
	fails(t, err, fleet.NotFound, "Project "+string(p)+" not found")
}

// TestQuotaExact has many carve projects out of one ticket at once, and give
// them back: never more than there is, and in the end nothing is used.
func TestQuotaExact(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	id := fleet.TenantID(must(t)(c.CreateTenant(ctx, root, "acme", nil)))
	ticket := fleet.TicketID(must(t)(c.CreateTicket(ctx, root, id, "gold", amounts(t, "vm=5"))))
	limit := amounts(t, "vm=1")
	var mu sync.Mutex
	made, refused := 0, 0
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for n := range 4 {
				done, err := again(ctx, func() (fleet.Task, error) {
					return c.CreateProject(ctx, root, id, controller.ProjectSpec{Name: fmt.Sprintf("p%d-%d", i, n), Ticket: "gold", Limits: limit})
				})
				if fleet.CodeOf(err) == fleet.QuotaError {
					mu.Lock()
					refused++
					mu.Unlock()
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				made++
				mu.Unlock()
				if _, err := again(ctx, func() (fleet.Task, error) { return c.DeleteProject(ctx, root, fleet.ProjectID(done.Entity.ID)) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r, err := c.Ticket(ctx, root, ticket)
	if err != nil || !r.Quota.Usage["vm"].IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	if made+refused != 48 || made == 0 {
		t.Errorf("%d made, %d refused", made, refused)
	}
	must(t)(c.DeleteTenant(ctx, root, id)) // nothing is counted that is not there
	log, err := c.Audit(ctx, root, time.Time{})
	if want := 2 + 2*made + 1; err != nil || len(log) != want {
		t.Errorf("%d lines of %d in the audit log, %v", len(log), want, err)
	}
}

// again tries as long as others are in the way.
func again(ctx context.Context, f func() (fleet.Task, error)) (fleet.Task, error) {
	for {
		done, err := f()
		if !errors.Is(err, store.ErrConflict) || ctx.Err() != nil {
			return done, err
		}
	}
}

// TestRoles is who may do what.
func TestRoles(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	id := fleet.TenantID(must(t)(c.CreateTenant(ctx, root, "acme", nil)))
	other := fleet.TenantID(must(t)(c.CreateTenant(ctx, root, "other", nil)))
	for _, tenant := range []fleet.TenantID{id, other} {
		must(t)(c.CreateTicket(ctx, root, tenant, "gold", amounts(t, "vm=10")))
	}
	spec := controller.ProjectSpec{Name: "web", Ticket: "gold", Limits: amounts(t, "vm=1")}
	foreign := fleet.ProjectID(must(t)(c.CreateProject(ctx, root, other, spec)))
	boss := controller.Principal{Name: "boss", Role: controller.TenantAdmin, Tenant: id}
	p := fleet.ProjectID(must(t)(c.CreateProject(ctx, boss, id, spec)))
	user := controller.Principal{Name: "user", Role: controller.ProjectUser, Tenant: id, Project: p}
	spec.Name = "db"
	must(t)(c.CreateProject(ctx, boss, id, spec))
	guest := controller.Principal{Name: "guest", Role: controller.Guest}

	for _, tt := range []struct {
		name string
		do   func(controller.Principal) error
		by   []controller.Principal // those who may not
	}{
		{"create a tenant", func(by controller.Principal) error { _, err := c.CreateTenant(ctx, by, "x", nil); return err }, []controller.Principal{boss, user, guest}},
		{"delete a tenant", func(by controller.Principal) error { _, err := c.DeleteTenant(ctx, by, id); return err }, []controller.Principal{boss, user, guest}},
		{"create a ticket", func(by controller.Principal) error {
			_, err := c.CreateTicket(ctx, by, id, "x", amounts(t, "vm=1"))
			return err
		}, []controller.Principal{boss, user, guest}},
		{"create a foreign project", func(by controller.Principal) error {
			_, err := c.CreateProject(ctx, by, other, controller.ProjectSpec{Name: "x", Ticket: "gold", Limits: amounts(t, "vm=1")})
			return err
		}, []controller.Principal{boss, user, guest}},
		{"delete a project", func(by controller.Principal) error { _, err := c.DeleteProject(ctx, by, p); return err }, []controller.Principal{user, guest}},
		{"see a foreign project", func(by controller.Principal) error { _, err := c.Project(ctx, by, foreign); return err }, []controller.Principal{boss, user, guest}},
		{"create a flavor", func(by controller.Principal) error {
			_, err := c.CreateFlavor(ctx, by, "x", fleet.KindVM, amounts(t, "vm.cpu=1"), false)
			return err
		}, []controller.Principal{boss, user, guest}},
		{"read the audit log", func(by controller.Principal) error { _, err := c.Audit(ctx, by, time.Time{}); return err }, []controller.Principal{boss, user, guest}},
	} {
		for _, by := range tt.by {
			if err := tt.do(by); fleet.CodeOf(err) != fleet.AccessForbidden {
				t.Errorf("%s as %s: %v", tt.name, by.Role, err)
			}
		}
	}
	for _, tt := range []struct {
		by                controller.Principal
		tenants, projects int
	}{{root, 2, 2}, {boss, 1, 2}, {user, 1, 1}, {guest, 0, 0}} {
		ts, err1 := c.Tenants(ctx, tt.by, "")
		ps, err2 := c.Projects(ctx, tt.by, id, "")
		if err := errors.Join(err1, err2); err != nil || len(ts) != tt.tenants || len(ps) != tt.projects {
			t.Errorf("%s sees %d tenants and %d projects, %v", tt.by.Role, len(ts), len(ps), err)
		}
	}
}

// TestFlavors: create, find by name and kind, delete; one name for each kind.
func TestFlavors(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	id := fleet.FlavorID(must(t)(c.CreateFlavor(ctx, root, "small", fleet.KindVM, amounts(t, "vm.cpu=1 vm.memory=1GB"), true)))
	must(t)(c.CreateFlavor(ctx, root, "small", fleet.KindEphemeralDisk, amounts(t, "ephemeral-disk=1"), true))
	_, err := c.CreateFlavor(ctx, root, "small", fleet.KindVM, amounts(t, "vm.cpu=1 vm.memory=1GB"), true)
	fails(t, err, fleet.NameTaken, "Flavor name 'small' already taken")
	_, err = c.CreateFlavor(ctx, root, "odd", fleet.KindVM, amounts(t, "vm.cpu=1"), true)
	fails(t, err, fleet.InvalidFlavorSpecification, "vm.memory")
	_, err = c.CreateFlavor(ctx, root, "odd", "car", amounts(t, "x=1"), true)
	fails(t, err, fleet.InvalidEntity, "kind must match")
	if got, err := c.Flavors(ctx, "small", fleet.KindVM); err != nil || len(got) != 1 || got[0].ID != id || got[0].State != fleet.FlavorReady {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.Flavors(ctx, "", ""); err != nil || len(got) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	must(t)(c.DeleteFlavor(ctx, root, id))
	_, err = c.Flavor(ctx, id)
	fails(t, err, fleet.FlavorNotFound, "not found")
	must(t)(c.CreateFlavor(ctx, root, "small", fleet.KindVM, amounts(t, "vm.cpu=1 vm.memory=1GB"), true))
}

// TestManyTickets: a tenant's tickets go with it in one transaction, so that
// there is a bound.
func TestManyTickets(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	id := fleet.TenantID(must(t)(c.CreateTenant(ctx, root, "acme", nil)))
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		_, err = c.CreateTicket(ctx, root, id, fmt.Sprint("t", n), amounts(t, "vm=1"))
	}
	fails(t, err, fleet.InvalidEntity, "the most is 40")
	must(t)(c.DeleteTenant(ctx, root, id))
}
