package task

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// A Plan is how an operation is carried out.
type Plan struct {
	Operation fleet.Operation
	Variant   string // of an operation that is carried out in several ways; empty: the only one
	Steps     []Step
}

// A planKey names a plan.
type planKey struct {
	operation fleet.Operation
	variant   string
}

func (r *Runner) plan(o fleet.Operation, variant string) (Plan, bool) {
	p, ok := r.plans[planKey{o, variant}]
	return p, ok
}

// A Step is a part of a plan. Do and Undo may be called again after they have
// succeeded, and with what an earlier call left half done.
//
// A [fleet.Error] or a [fleet.Fault] is kept in the task with its code. An error
// with a method Passing() bool that says true is tried again, as is
// [store.ErrConflict], with pauses that grow, for as long as [Options] say.
type Step struct {
	Operation fleet.Operation
	Do        func(context.Context, *Call) error
	// Undo removes what Do made, if it made anything; nil: there is nothing. When
	// it fails for good, that is a warning of the step, and the steps before are
	// undone all the same.
	Undo func(context.Context, *Call) error
}

// An Order is what is to be done.
type Order struct {
	Operation fleet.Operation
	Variant   string // of its plan
	Entity    fleet.Ref
	Tenant    fleet.TenantID  // who may see the task; empty: everyone
	Project   fleet.ProjectID // whose people may see it
	// Argument is handed to the steps, as JSON. It is not shown with the task.
	Argument any
	// Warnings are kept in the one step of a task that [Runner.Done] writes; without
	// any it has no step.
	Warnings []fleet.Error
	// Brief is for what changes nothing: who asked for it fetches the result at once,
	// and the task is kept for an hour only.
	Brief bool
}

// A Call is what a step knows of its task.
type Call struct {
	Task     fleet.TaskID
	Entity   fleet.Ref
	argument json.RawMessage
	index    int
	runner   *Runner
}

// Argument reads what was ordered into v.
func (c *Call) Argument(v any) error {
	if err := json.Unmarshal(c.argument, v); err != nil {
		return fmt.Errorf("cannot read the order of task %s: %w", c.Task, err)
	}
	return nil
}

// Note keeps an option of the running step where clients see it, such as its
// progress.
func (c *Call) Note(ctx context.Context, key, value string) error {
	return c.runner.change(ctx, c.Task, func(r *record) {
		s := &r.Task.Steps[c.index]
		if s.Options == nil {
			s.Options = map[string]string{}
		}
		s.Options[key] = value
	})
}

// Result keeps what clients see as the result of the task, as JSON.
func (c *Call) Result(ctx context.Context, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot keep the result of task %s: %w", c.Task, err)
	}
	return c.runner.change(ctx, c.Task, func(r *record) { r.Task.Result = b })
}

// A record is a task as it is stored.
type record struct {
	Task      fleet.Task      `json:"task"`
	Variant   string          `json:"variant,omitempty"`
	Brief     bool            `json:"brief,omitzero"`
	Argument  json.RawMessage `json:"argument,omitempty"`
	Cancelled bool            `json:"cancelled,omitzero"`
	Undoing   bool            `json:"undoing,omitzero"`
	Undo      int             `json:"undo,omitempty"` // how many of the first steps are to be undone, while Undoing
}

// A ticket is in the store as long as its task has not ended. It is what a
// Runner follows, so that ended tasks cost it nothing.
type ticket struct {
	Entity    fleet.Ref `json:"entity"`
	Queued    time.Time `json:"queued"`
	Cancelled bool      `json:"cancelled,omitzero"`
}

var (
	tasks      = store.Kind[record]{Name: "task"}            // by task ID
	unfinished = store.Kind[ticket]{Name: "unfinished-task"} // by task ID
)

// Add writes a task into a transaction. It is carried out once that is committed.
// An operation without a plan is an error.
func (r *Runner) Add(tx *store.Tx, o Order) (fleet.Task, error) {
	plan, ok := r.plan(o.Operation, o.Variant)
	if !ok {
		what := strings.TrimSpace(string(o.Operation) + " " + o.Variant)
		return fleet.Task{}, fmt.Errorf("cannot order %s of %s: there is no plan for it", what, o.Entity)
	}
	argument, err := json.Marshal(o.Argument)
	if err != nil {
		return fleet.Task{}, fmt.Errorf("cannot order %s of %s: %w", o.Operation, o.Entity, err)
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	now := r.now()
	t := fleet.Task{
		ID: fleet.NewID[fleet.TaskID](random), Operation: o.Operation, Entity: o.Entity, State: fleet.TaskQueued,
		Queued: now, Tenant: o.Tenant, Project: o.Project,
	}
	for i, s := range plan.Steps {
		t.Steps = append(t.Steps, fleet.Step{Sequence: i, Operation: s.Operation, State: fleet.TaskQueued, Queued: now})
	}
	if err := r.add(tx, record{Task: t, Variant: o.Variant, Brief: o.Brief, Argument: argument}); err != nil {
		return fleet.Task{}, err
	}
	return t, store.Put(tx, unfinished, string(t.ID), ticket{Entity: o.Entity, Queued: now})
}

// Done writes a task into a transaction that carries out all that was ordered,
// so that clients find one that is completed.
func (r *Runner) Done(tx *store.Tx, o Order) (fleet.Task, error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	now := r.now()
	t := fleet.Task{
		ID: fleet.NewID[fleet.TaskID](random), Operation: o.Operation, Entity: o.Entity, State: fleet.TaskCompleted,
		Queued: now, Started: now, Ended: now, Tenant: o.Tenant, Project: o.Project,
	}
	if len(o.Warnings) > 0 {
		t.Steps = []fleet.Step{{Operation: o.Operation, State: fleet.TaskCompleted, Warnings: o.Warnings, Queued: now, Started: now, Ended: now}}
	}
	return t, r.add(tx, record{Task: t})
}

// Get returns a task as it is now. One that is not there, or was long ago, is an
// error with code [fleet.NotFound].
func (r *Runner) Get(ctx context.Context, id fleet.TaskID) (fleet.Task, error) {
	var rec record
	err := r.store.View(ctx, func(tx *store.Tx) (err error) {
		rec, err = get(tx, id)
		return err
	})
	return rec.Task, err
}

func get(tx *store.Tx, id fleet.TaskID) (record, error) {
	rec, err := store.Get(tx, tasks, string(id))
	if errors.Is(err, store.ErrNotFound) {
		return rec, fleet.UnknownEntity(fleet.Ref{Kind: fleet.KindTask, ID: string(id)})
	}
	return rec, err
}

// Cancel asks for a task to be given up: the step that runs is interrupted, and
// what was done is undone. It is no error if the task has ended, and has no effect
// once everything is done or undoing has begun.
func (r *Runner) Cancel(ctx context.Context, id fleet.TaskID) error {
	return r.store.Update(ctx, func(tx *store.Tx) error {
		rec, err := get(tx, id)
		if err != nil || rec.Task.State.Ended() || rec.Cancelled {
			return err
		}
		rec.Cancelled = true
		if err := store.Put(tx, tasks, string(id), rec); err != nil {
			return err
		}
		return store.Put(tx, unfinished, string(id), ticket{Entity: rec.Task.Entity, Queued: rec.Task.Queued, Cancelled: true})
	})
}
