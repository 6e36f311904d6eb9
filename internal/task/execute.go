package task

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// errCancelled is why a step was interrupted when somebody asked for it.
var errCancelled = errors.New("the task was cancelled")

// change changes a task's record in a transaction of its own, and takes it out of
// the unfinished ones in the same transaction when it has ended.
func (r *Runner) change(ctx context.Context, id fleet.TaskID, f func(*record)) error {
	return r.write(ctx, func(tx *store.Tx) error {
		rec, err := get(tx, id)
		if err != nil {
			return err
		}
		from := rec.Task.State
		if f(&rec); !from.CanBecome(rec.Task.State) {
			return fmt.Errorf("task %s cannot go from %s to %s", id, from, rec.Task.State)
		}
		if rec.Task.State.Ended() {
			store.Delete(tx, unfinished, string(id))
		}
		return store.Put(tx, tasks, string(id), rec)
	})
}

// execute takes a task to its end. An error means that the store did not answer or
// ctx ended; the task is then as far as was noted.
func (r *Runner) execute(ctx, doing context.Context, id fleet.TaskID) error {
	for {
		var rec record
		err := r.store.View(ctx, func(tx *store.Tx) (err error) {
			rec, err = get(tx, id)
			return err
		})
		switch {
		case fleet.CodeOf(err) == fleet.NotFound: // somebody swept it away
			return nil
		case err != nil:
			return err
		case rec.Task.State.Ended():
			return nil
		}
		if err := r.advance(ctx, doing, rec); err != nil {
			return err
		}
	}
}

// advance does the one thing that is next, and notes that it is done.
func (r *Runner) advance(ctx, doing context.Context, rec record) error {
	id, next := rec.Task.ID, following(rec.Task.Steps)
	plan, known := r.plan(rec.Task.Operation, rec.Variant)
	known = known && fits(plan, rec.Task)
	switch {
	case rec.Undoing && (rec.Undo == 0 || !known):
		return r.change(ctx, id, func(rec *record) { r.end(rec, fleet.TaskError) })
	case rec.Undoing:
		return r.undo(ctx, rec, plan.Steps[rec.Undo-1])
	case next == len(rec.Task.Steps):
		return r.change(ctx, id, func(rec *record) { r.end(rec, fleet.TaskCompleted) })
	case !known:
		return r.fail(ctx, id, next, fmt.Errorf("cannot carry out %s: this version of bootd has other steps for it", rec.Task.Operation))
	case rec.Cancelled:
		return r.fail(ctx, id, next, errCancelled)
	case rec.Task.Steps[next].State == fleet.TaskQueued:
		return r.change(ctx, id, func(rec *record) { r.begin(rec, next) })
	}
	call := &Call{Task: id, Entity: rec.Task.Entity, argument: rec.Argument, index: next, runner: r}
	err := r.try(doing, call, plan.Steps[next].Do)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && context.Cause(doing) == errCancelled:
		err = errCancelled
	}
	if err != nil {
		return r.fail(ctx, id, next, err)
	}
	return r.change(ctx, id, func(rec *record) {
		s := &rec.Task.Steps[next]
		s.State, s.Ended = fleet.TaskCompleted, r.now()
	})
}

// fits reports whether a task was made of the plan there is now.
func fits(p Plan, t fleet.Task) bool {
	if len(p.Steps) != len(t.Steps) {
		return false
	}
	for i, s := range p.Steps {
		if s.Operation != t.Steps[i].Operation {
			return false
		}
	}
	return true
}

// following is the index of the first step that is not completed.
func following(steps []fleet.Step) int {
	for i, s := range steps {
		if s.State != fleet.TaskCompleted {
			return i
		}
	}
	return len(steps)
}

func (r *Runner) begin(rec *record, step int) {
	now := r.now()
	if rec.Task.State == fleet.TaskQueued {
		rec.Task.State, rec.Task.Started = fleet.TaskStarted, now
	}
	s := &rec.Task.Steps[step]
	s.State, s.Started = fleet.TaskStarted, now
}

func (r *Runner) end(rec *record, state fleet.TaskState) {
	rec.Task.State, rec.Task.Ended = state, r.now()
	rec.Argument = nil // it may hold a password
}

// fail notes why a step failed, and that undoing begins with it: it may have done
// a part. A step that never began has nothing to undo.
func (r *Runner) fail(ctx context.Context, id fleet.TaskID, step int, cause error) error {
	r.log.Warn("a task failed; what it did is undone", "task", id, "step", step, "err", cause)
	return r.change(ctx, id, func(rec *record) {
		rec.Undoing, rec.Undo = true, step
		s := &rec.Task.Steps[step]
		if s.State == fleet.TaskStarted {
			rec.Undo = step + 1
		}
		s.State, s.Ended = fleet.TaskError, r.now()
		s.Errors = append(s.Errors, told(cause))
	})
}

func (r *Runner) undo(ctx context.Context, rec record, s Step) error {
	var failed error
	if s.Undo != nil {
		call := &Call{Task: rec.Task.ID, Entity: rec.Task.Entity, argument: rec.Argument, index: rec.Undo - 1, runner: r}
		failed = r.try(ctx, call, s.Undo)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if failed != nil {
		r.log.Error("a step cannot be undone; what it made may be left", "task", rec.Task.ID, "step", rec.Undo-1, "err", failed)
	}
	return r.change(ctx, rec.Task.ID, func(now *record) {
		if failed != nil {
			s := &now.Task.Steps[rec.Undo-1]
			s.Warnings = append(s.Warnings, told(failed))
		}
		now.Undo = rec.Undo - 1
	})
}

// try calls f until it succeeds, fails for good, or has failed for longer than
// Patience. The time that bootd was down does not count: what a step needs may
// have been down with it.
func (r *Runner) try(ctx context.Context, c *Call, f func(context.Context, *Call) error) error {
	since := r.now()
	r.mu.Lock()
	p := r.running[c.Task].place
	r.mu.Unlock()
	for pause := r.options.Pause; ; pause = min(2*pause, 64*r.options.Pause) {
		if err := p.enter(ctx, r.again); err != nil {
			return err
		}
		err := f(ctx, c)
		if err == nil || ctx.Err() != nil || !passing(err) || r.now().Sub(since) >= r.options.Patience {
			return err
		}
		r.log.Info("a step of a task is tried again", "task", c.Task, "step", c.index, "wait", pause, "err", err)
		p.leave()
		poke(r.wake)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// passing reports whether the same may succeed later.
func passing(err error) bool {
	var p interface{ Passing() bool }
	return errors.As(err, &p) && p.Passing() || errors.Is(err, store.ErrConflict)
}

// told is an error as clients are told.
func told(err error) fleet.Error {
	var e *fleet.Error
	if errors.As(err, &e) {
		return *e
	}
	if errors.Is(err, errCancelled) {
		return *fleet.Errorf(fleet.InvalidOperation, "%v", err)
	}
	return *fleet.Errorf(fleet.CodeOf(err), "%v", err)
}
