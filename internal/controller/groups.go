package controller

import (
	"context"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// Security groups are kept where they were set. What is inherited from above is
// added when somebody looks, so that a change above holds below at once.

const (
	setTenantGroups     fleet.Operation = "SET_TENANT_SECURITY_GROUPS"
	setProjectGroups    fleet.Operation = "SET_PROJECT_SECURITY_GROUPS"
	setDeploymentGroups fleet.Operation = "UPDATE_DEPLOYMENT_SECURITY_GROUPS"
)

// own are the names of the groups that are not inherited.
func own(groups []fleet.SecurityGroup) []string {
	var out []string
	for _, g := range groups {
		if !g.Inherited {
			out = append(out, g.Name)
		}
	}
	return out
}

// withGroups is a tenant with the groups of the deployment.
func withGroups(t fleet.Tenant, d fleet.Deployment) fleet.Tenant {
	t.SecurityGroups, _ = fleet.Groups(d.SecurityGroups, own(t.SecurityGroups))
	return t
}

// projectWithGroups is a project with the groups of its tenant, which has those
// of the deployment.
func projectWithGroups(p fleet.Project, t fleet.Tenant) fleet.Project {
	p.SecurityGroups, _ = fleet.Groups(t.SecurityGroups, own(p.SecurityGroups))
	return p
}

// tenant reads a tenant with all its groups.
func tenant(tx *store.Tx, id fleet.TenantID) (fleet.Tenant, error) {
	t, err := get(tx, tenants, fleet.KindTenant, string(id))
	if err != nil {
		return t, err
	}
	d, err := deployment(tx)
	return withGroups(t, d), err
}

// SetDeploymentGroups replaces the groups that all tenants inherit.
func (c *Controller) SetDeploymentGroups(ctx context.Context, by Principal, id fleet.DeploymentID, groups []string) (fleet.Task, error) {
	if err := fleet.CheckGroups(groups); err != nil {
		return fleet.Task{}, err
	}
	return c.changeDeployment(ctx, by, id, setDeploymentGroups, func(_ *store.Tx, d fleet.Deployment) (fleet.Deployment, error) {
		d.SecurityGroups, _ = fleet.Groups(nil, groups)
		return d, nil
	})
}

// SetTenantGroups replaces a tenant's own groups, which only an admin may; its
// projects inherit them. Those that it inherits anyway are a warning in the task.
func (c *Controller) SetTenantGroups(ctx context.Context, by Principal, id fleet.TenantID, groups []string) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	if err := fleet.CheckGroups(groups); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		t, err := get(tx, tenants, fleet.KindTenant, string(id))
		if err != nil {
			return change{}, err
		}
		d, err := deployment(tx)
		if err != nil {
			return change{}, err
		}
		all, again := fleet.Groups(d.SecurityGroups, groups)
		t.SecurityGroups = all
		return change{operation: setTenantGroups, entity: ref(fleet.KindTenant, id), tenant: id, name: t.Name, warnings: inherited(again)},
			store.Put(tx, tenants, string(id), t)
	})
}

// SetProjectGroups replaces a project's own groups.
func (c *Controller) SetProjectGroups(ctx context.Context, by Principal, id fleet.ProjectID, groups []string) (fleet.Task, error) {
	if err := fleet.CheckGroups(groups); err != nil {
		return fleet.Task{}, err
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		p, err := get(tx, projects, fleet.KindProject, string(id))
		if err != nil {
			return change{}, err
		}
		if err := by.administers(p.Tenant); err != nil {
			return change{}, err
		}
		t, err := tenant(tx, p.Tenant)
		if err != nil {
			return change{}, err
		}
		all, again := fleet.Groups(t.SecurityGroups, groups)
		p.SecurityGroups = all
		return change{operation: setProjectGroups, entity: ref(fleet.KindProject, id), tenant: p.Tenant, project: id, name: p.Name, warnings: inherited(again)},
			store.Put(tx, projects, string(id), p)
	})
}

// inherited warns of groups that need not be set.
func inherited(again []string) []fleet.Error {
	var out []fleet.Error
	for _, g := range again {
		out = append(out, *fleet.Errorf(fleet.SecurityGroupsAlreadyInherited, "Security group %s is inherited already", g))
	}
	return out
}
