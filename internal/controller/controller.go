package controller

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/place"
	"bootd/internal/store"
	"bootd/internal/task"
)

// Options are what a controller works with. Zero values have the defaults named.
type Options struct {
	Now     func() time.Time                     // the clock that the audit log is dated by; the system's
	Connect func(fleet.Host) (Hypervisor, error) // makes the adapter of a host, and connects to nothing yet; none: there can be no hosts
	Spool   Spool                                // none: images and CD images cannot be uploaded
	Policy  place.Policy                         // [place.DefaultPolicy]
	Random  func(n int) int                      // chance of placement, from 0 to n-1; math/rand
	Copies  int                                  // of one image that are made at once; 8
	Lines   int                                  // of the audit log that are kept, at most; 100,000
	Sweep   time.Duration                        // how often what could not be deleted on a host is tried again; 1 min
	Nodes   Nodes                                // none: there can be no clusters
	Look    time.Duration                        // between two looks at nodes that come up; 2 s
	Rounds  time.Duration                        // between two looks whether clusters lack something; 1 min
	Grace   time.Duration                        // how long a node may take to come up, and may be down; 10 min
	Log     *slog.Logger                         // none
}

// A Controller carries out what people ask for.
type Controller struct {
	store     *store.Store
	tasks     *task.Runner
	now       func() time.Time
	options   Options
	log       *slog.Logger
	connected hypervisors
	mirror    *mirror
	turn      chan struct{} // holds one while a verb changes what many change
	copying   flights
	uploading uploads
}

// New returns a controller. It makes its plans known to the runner, which must not
// run yet.
func New(s *store.Store, tasks *task.Runner, o Options) *Controller {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Policy == (place.Policy{}) {
		o.Policy = place.DefaultPolicy()
	}
	if o.Random == nil {
		o.Random = rand.IntN
	}
	if o.Copies <= 0 {
		o.Copies = 8
	}
	if o.Lines <= 0 {
		o.Lines = 100_000
	}
	if o.Sweep <= 0 {
		o.Sweep = time.Minute
	}
	o.Look, o.Rounds, o.Grace = cmp.Or(o.Look, 2*time.Second), cmp.Or(o.Rounds, time.Minute), cmp.Or(o.Grace, 10*time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{
		store: s, tasks: tasks, now: o.Now, options: o, log: o.Log, turn: make(chan struct{}, 1),
		connected: hypervisors{all: map[fleet.HostID]connection{}}, mirror: newMirror(o.Policy),
		copying: flights{all: map[flight]*turns{}}, uploading: uploads{all: map[string]bool{}},
	}
	tasks.Know(c.plans()...)
	return c
}

// plans are how the verbs that take long are carried out.
func (c *Controller) plans() []task.Plan {
	return slices.Concat(c.hostPlans(), c.imagePlans(), c.diskPlans(), c.vmPlans(), c.drivePlans(), c.clusterPlans())
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
	queued    bool          // the rest is done by the plan of the operation
	variant   string        // of that plan
	argument  any           // for the plan
	reads     bool          // it changes nothing: not for the audit log
}

// change runs a verb in its transaction: f does it, and may be run again. The task
// that is returned has ended, unless the change is queued.
func (c *Controller) change(ctx context.Context, by Principal, f func(*store.Tx) (change, error)) (done fleet.Task, err error) {
	var random [16]byte
	_, _ = cryptorand.Read(random[:]) // never fails
	err = c.store.Update(ctx, func(tx *store.Tx) error {
		made, err := f(tx)
		if err != nil {
			return err
		}
		if err := changes(tx, made.operation); err != nil {
			return err
		}
		if err := c.note(tx, by, made, random[:4]); err != nil {
			return err
		}
		o := task.Order{Operation: made.operation, Variant: made.variant, Entity: made.entity, Tenant: made.tenant, Project: made.project, Argument: made.argument, Warnings: made.warnings, Brief: made.reads}
		if made.queued {
			done, err = c.tasks.Add(tx, o)
		} else {
			done, err = c.tasks.Done(tx, o)
		}
		return err
	})
	return done, err
}

// note writes a line of the audit log, unless nothing is changed.
func (c *Controller) note(tx *store.Tx, by Principal, made change, random []byte) error {
	if made.reads {
		return nil
	}
	now := c.now()
	line := Audited{Time: now, By: by.Name, Role: by.Role, Operation: made.operation, Entity: made.entity, Tenant: made.tenant, Name: made.name}
	return store.Put(tx, audit, fmt.Sprintf("%s-%x", auditKey(now), random), line)
}

// inTurn calls f while nobody else is in it. Everything that changes a project's
// quota or what hosts have promised goes through here: many do that at once, and
// would make each other's transactions run again and again.
func (c *Controller) inTurn(ctx context.Context, f func() error) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.turn }()
	return f()
}

// changeInTurn is change, in turn.
func (c *Controller) changeInTurn(ctx context.Context, by Principal, f func(*store.Tx) (change, error)) (done fleet.Task, err error) {
	err = c.inTurn(ctx, func() (err error) {
		done, err = c.change(ctx, by, f)
		return err
	})
	return done, err
}

// updateInTurn is a transaction, in turn.
func (c *Controller) updateInTurn(ctx context.Context, f func(*store.Tx) error) error {
	return c.inTurn(ctx, func() error { return c.store.Update(ctx, f) })
}

// uses is nil, or the error for who may not use what is in a project.
func (p Principal) uses(f fleet.Project) error {
	if p.Role != Guest && p.seesProject(f) {
		return nil
	}
	return p.forbidden()
}

// find reads one record past transactions.
func find[T any](ctx context.Context, c *Controller, k store.Kind[T], kind fleet.Kind, id string) (v T, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		v, err = get(tx, k, kind, id)
		return err
	})
	return v, err
}

// orZero reads a record that counts; one that is not there is nothing.
func orZero[T any](tx *store.Tx, k store.Kind[T], id string) (T, error) {
	v, err := store.Get(tx, k, id)
	if errors.Is(err, store.ErrNotFound) {
		var none T
		return none, nil
	}
	return v, err
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
	_, _ = cryptorand.Read(random[:]) // never fails
	return fleet.NewID[T](random)
}
