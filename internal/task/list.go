package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// tasksOf says which tasks an entity or a project has, so that nobody reads all
// tasks to find a few. An ID is the entity, the moment, the task: in the order
// in which tasks were asked for. It says nothing more.
var tasksOf = store.Kind[struct{}]{Name: "task-of"}

// entries are the IDs that lead to a task.
func entries(t fleet.Task) []string {
	out := []string{entry(t.Entity, t)}
	if p := projectOf(t); p != t.Entity {
		out = append(out, entry(p, t))
	}
	return out
}

func projectOf(t fleet.Task) fleet.Ref {
	if t.Project == "" {
		return t.Entity
	}
	return fleet.Ref{Kind: fleet.KindProject, ID: string(t.Project)}
}

func entry(r fleet.Ref, t fleet.Task) string {
	return fmt.Sprintf("%s/%020d/%s", r, max(0, t.Queued.UnixNano()), t.ID)
}

// add writes a new task.
func (r *Runner) add(tx *store.Tx, rec record) error {
	for _, e := range entries(rec.Task) {
		if err := store.Put(tx, tasksOf, e, struct{}{}); err != nil {
			return err
		}
	}
	return store.Put(tx, tasks, string(rec.Task.ID), rec)
}

// List returns the tasks that are kept, those asked for first at the head. With
// of it returns those of one entity, which may be gone; of a project: those of
// everything in it too. Tasks that cannot be read are left out and named in the
// error.
func (r *Runner) List(ctx context.Context, of fleet.Ref) ([]fleet.Task, error) {
	if of == (fleet.Ref{}) {
		return r.all(ctx)
	}
	index, bad := store.List(ctx, r.store, tasksOf, of.String()+"/")
	if index == nil {
		return nil, bad
	}
	out := []fleet.Task{}
	err := r.store.View(ctx, func(tx *store.Tx) error {
		for id := range index {
			rec, err := get(tx, fleet.TaskID(id[strings.LastIndex(id, "/")+1:]))
			switch {
			case fleet.CodeOf(err) == fleet.NotFound: // swept away meanwhile
				continue
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				bad = errors.Join(bad, err)
				continue
			}
			out = append(out, rec.Task)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, asked)
	return out, bad
}

func (r *Runner) all(ctx context.Context) ([]fleet.Task, error) {
	all, bad := store.List(ctx, r.store, tasks, "")
	if all == nil {
		return nil, bad
	}
	out := []fleet.Task{}
	for _, rec := range all {
		out = append(out, rec.Task)
	}
	slices.SortFunc(out, asked)
	return out, bad
}

func asked(a, b fleet.Task) int {
	if c := a.Queued.Compare(b.Queued); c != 0 {
		return c
	}
	return strings.Compare(string(a.ID), string(b.ID))
}

// briefly is how long a brief task is kept.
const briefly = time.Hour

// Sweep removes tasks that ended before a moment, and brief ones that ended an hour
// ago.
func (r *Runner) Sweep(ctx context.Context, before time.Time) error {
	all, bad := store.List(ctx, r.store, tasks, "")
	if all == nil {
		return bad
	}
	brief := r.now().Add(-briefly)
	if brief.Before(before) {
		brief = before
	}
	for id, rec := range all {
		limit := before
		if rec.Brief {
			limit = brief
		}
		if !rec.Task.State.Ended() || !rec.Task.Ended.Before(limit) {
			continue
		}
		if err := r.store.Update(ctx, func(tx *store.Tx) error {
			for _, e := range entries(rec.Task) {
				store.Delete(tx, tasksOf, e)
			}
			store.Delete(tx, tasks, id)
			return nil
		}); err != nil {
			return err
		}
	}
	return bad
}
