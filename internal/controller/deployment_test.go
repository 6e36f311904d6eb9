package controller_test

import (
	"testing"

	"bootd/internal/controller"
	"bootd/internal/fleet"
)

// TestDeploymentIsForAdmins: whoever is not may change nothing about it.
func TestDeploymentIsForAdmins(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	for _, role := range []controller.Role{controller.TenantAdmin, controller.ProjectUser, controller.Guest} {
		by := controller.Principal{Name: "x", Role: role, Tenant: "t"}
		_, err := c.SwitchSystem(ctx, by, fleet.DefaultDeployment, fleet.PauseSystem)
		fails(t, err, fleet.AccessForbidden, "x may not do this as "+string(role))
		_, err = c.SetDeploymentGroups(ctx, by, fleet.DefaultDeployment, nil)
		fails(t, err, fleet.AccessForbidden, "")
		_, err = c.SetTenantGroups(ctx, by, "t", nil)
		fails(t, err, fleet.AccessForbidden, "")
	}
	if err := c.Changes(ctx); err != nil {
		t.Error(err)
	}
	must(t)(c.SwitchSystem(ctx, root, fleet.DefaultDeployment, fleet.PauseSystem))
	fails(t, c.Changes(ctx), fleet.SystemPaused, "System is paused")
}

// TestTasksAreSeenByTheirTenant: those of another one are not told.
func TestTasksAreSeenByTheirTenant(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	var ids, projects []string
	for _, name := range []string{"a", "b"} {
		id := must(t)(c.CreateTenant(ctx, root, name, nil))
		must(t)(c.CreateTicket(ctx, root, fleet.TenantID(id), "gold", amounts(t, "vm=10")))
		projects = append(projects, must(t)(c.CreateProject(ctx, root, fleet.TenantID(id), controller.ProjectSpec{Name: "web", Ticket: "gold", Limits: amounts(t, "vm=1")})))
		ids = append(ids, id)
	}
	common, err := c.CreateFlavor(ctx, root, "small", fleet.KindVM, amounts(t, "vm.cpu=1 vm.memory=1GB"), true)
	if err != nil {
		t.Fatal(err)
	}
	admin := controller.Principal{Name: "x", Role: controller.TenantAdmin, Tenant: fleet.TenantID(ids[0])}
	user := controller.Principal{Name: "u", Role: controller.ProjectUser, Tenant: fleet.TenantID(ids[0]), Project: fleet.ProjectID(projects[0])}
	stranger := controller.Principal{Name: "s", Role: controller.ProjectUser, Tenant: fleet.TenantID(ids[0]), Project: "another"}
	for _, x := range []struct {
		by   controller.Principal
		want int
	}{{root, 7}, {admin, 4}, {user, 4}, {stranger, 3}, {controller.Principal{Role: controller.Guest}, 1}} {
		list, err := c.Tasks(ctx, x.by, controller.TaskFilter{})
		if err != nil || len(list) != x.want {
			t.Errorf("%s sees %d tasks, want %d (%v)", x.by.Role, len(list), x.want, err)
		}
	}
	others, err := c.Tasks(ctx, root, controller.TaskFilter{Of: fleet.Ref{Kind: fleet.KindTenant, ID: ids[1]}})
	if err != nil || len(others) != 1 {
		t.Fatal(others, err)
	}
	_, err = c.Task(ctx, admin, others[0].ID)
	fails(t, err, fleet.AccessForbidden, "")
	if _, err := c.Task(ctx, admin, common.ID); err != nil {
		t.Error(err)
	}
}
