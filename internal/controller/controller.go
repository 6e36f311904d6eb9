package controller

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

// A Controller carries out what people ask for.
type Controller struct {
	store *store.Store
	tasks *task.Runner
	now   func() time.Time
}

// New returns a controller. now is the clock that the audit log is dated by; nil:
// the system's.
func New(s *store.Store, tasks *task.Runner, now func() time.Time) *Controller {
	if now == nil {
		now = time.Now
	}
	return &Controller{store: s, tasks: tasks, now: now}
}

// A Role is what somebody may do (the reference is Photon's authorization
// matrix).
type Role string

// The roles, from the one that may do most.
const (
	Admin       Role = "admin"        // everything
	TenantAdmin Role = "tenant-admin" // the projects of one tenant
	ProjectUser Role = "project-user" // what is in one project
	Guest       Role = "guest"        // look at what is common
)

// A Principal is who asks.
type Principal struct {
	Name    string // for the audit log
	Role    Role
	Tenant  fleet.TenantID  // of a tenant admin or a project user
	Project fleet.ProjectID // of a project user
}

// administers is nil, or the error for who may not change a tenant's projects.
// An empty tenant is for what belongs to all.
func (p Principal) administers(t fleet.TenantID) error {
	if p.Role == Admin || p.Role == TenantAdmin && t != "" && p.Tenant == t {
		return nil
	}
	return p.forbidden()
}

// sees reports whether somebody is told of a tenant at all.
func (p Principal) sees(t fleet.TenantID) bool { return p.Role == Admin || t != "" && p.Tenant == t }

// seesProject reports whether somebody is told of a project.
func (p Principal) seesProject(f fleet.Project) bool {
	return p.sees(f.Tenant) && (p.Role != ProjectUser || p.Project == f.ID)
}

func (p Principal) forbidden() error {
	return fleet.Errorf(fleet.AccessForbidden, "Access forbidden: %s may not do this as %s", p.Name, p.Role)
}

// An Audited is a line of the audit log.
type Audited struct {
	Time      time.Time       `json:"time"`
	By        string          `json:"by"`
	Role      Role            `json:"role"`
	Operation fleet.Operation `json:"operation"`
	Entity    fleet.Ref       `json:"entity"`
	Tenant    fleet.TenantID  `json:"tenant,omitempty"`
	Name      string          `json:"name,omitempty"` // of the entity, which may be gone
}

var audit = store.Kind[Audited]{Name: "audit"} // by time

// names are those that must not be given twice. The value is the ID.
var names = store.Kind[string]{Name: "name"}

// A change is what a verb did in its transaction.
type change struct {
	operation fleet.Operation
	entity    fleet.Ref
	tenant    fleet.TenantID
	project   fleet.ProjectID
	name      string
	warnings  []fleet.Error // to be seen in the task
}

// change runs a verb whose work is done with its transaction: f does it, and may
// be run again. The task that is returned has ended.
func (c *Controller) change(ctx context.Context, by Principal, f func(*store.Tx) (change, error)) (done fleet.Task, err error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	err = c.store.Update(ctx, func(tx *store.Tx) error {
		made, err := f(tx)
		if err != nil {
			return err
		}
		if err := changes(tx, made.operation); err != nil {
			return err
		}
		now := c.now()
		line := Audited{Time: now, By: by.Name, Role: by.Role, Operation: made.operation, Entity: made.entity, Tenant: made.tenant, Name: made.name}
		if err := store.Put(tx, audit, fmt.Sprintf("%020d-%x", now.UnixNano(), random[:4]), line); err != nil {
			return err
		}
		done, err = c.tasks.Done(tx, task.Order{Operation: made.operation, Entity: made.entity, Tenant: made.tenant, Project: made.project, Warnings: made.warnings})
		return err
	})
	return done, err
}

// Audit lists the log from a moment on, the oldest line first. Only an admin may
// see it.
func (c *Controller) Audit(ctx context.Context, by Principal, from time.Time) ([]Audited, error) {
	if by.Role != Admin {
		return nil, by.forbidden()
	}
	all, bad := store.List(ctx, c.store, audit, "")
	if all == nil {
		return nil, bad
	}
	out := []Audited{}
	for _, id := range sorted(all) {
		if l := all[id]; !l.Time.Before(from) {
			out = append(out, l)
		}
	}
	return out, bad
}

// take gives a name to an entity, or says that another one has it.
func take(tx *store.Tx, k fleet.Kind, scope, name, id string) error {
	_, err := store.Get(tx, names, nameKey(k, scope, name))
	switch {
	case err == nil:
		return fleet.Taken(k, name)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	return store.Put(tx, names, nameKey(k, scope, name), id)
}

func drop(tx *store.Tx, k fleet.Kind, scope, name string) {
	store.Delete(tx, names, nameKey(k, scope, name))
}

func nameKey(k fleet.Kind, scope, name string) string {
	return string(k) + "/" + scope + "/" + name
}

// get reads an entity; one that is not there is an error of its kind.
func get[T any](tx *store.Tx, k store.Kind[T], kind fleet.Kind, id string) (T, error) {
	v, err := store.Get(tx, k, id)
	if errors.Is(err, store.ErrNotFound) {
		return v, fleet.UnknownEntity(fleet.Ref{Kind: kind, ID: id})
	}
	return v, err
}

// newID makes an ID.
func newID[T ~string]() T {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return fleet.NewID[T](random)
}
