package controller

import (
	"context"

	"bootd/internal/fleet"
)

// A TaskFilter says which tasks are asked for; empty fields do not matter.
type TaskFilter struct {
	Of    fleet.Ref       // the entity; of a project, also of what is in it
	State fleet.TaskState // as it is now
	Kind  fleet.Kind      // of the entity
}

// seesTask reports whether somebody is told of a task: those of a tenant are for
// those who belong to it.
func (p Principal) seesTask(t fleet.Task) bool {
	if p.Role == ProjectUser && t.Project != "" && t.Project != p.Project {
		return false
	}
	return t.Tenant == "" || p.sees(t.Tenant)
}

// Task returns a task.
func (c *Controller) Task(ctx context.Context, by Principal, id fleet.TaskID) (fleet.Task, error) {
	t, err := c.tasks.Get(ctx, id)
	if err == nil && !by.seesTask(t) {
		return fleet.Task{}, by.forbidden()
	}
	return t, err
}

// Tasks lists the tasks that are kept and that somebody sees, those asked for
// first at the head. Those of an entity that is gone are still there.
func (c *Controller) Tasks(ctx context.Context, by Principal, f TaskFilter) ([]fleet.Task, error) {
	all, bad := c.tasks.List(ctx, f.Of)
	if all == nil {
		return nil, bad
	}
	out := []fleet.Task{}
	for _, t := range all {
		if by.seesTask(t) && (f.State == "" || t.State == f.State) && (f.Kind == "" || t.Entity.Kind == f.Kind) {
			out = append(out, t)
		}
	}
	return out, bad
}
