package task_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

// TestList: an entity's tasks are found without the others, in the order they
// were asked for, and a project's are those of everything in it.
func TestList(t *testing.T) {
	s := open(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := options()
	o.Now = func() time.Time { return now }
	r := task.New(s, o, task.Plan{Operation: build, Steps: []task.Step{{Operation: first, Do: func(context.Context, *task.Call) error { return nil }}}})
	vm, other := fleet.Ref{Kind: fleet.KindVM, ID: "v1"}, fleet.Ref{Kind: fleet.KindVM, ID: "v11"}
	project := fleet.Ref{Kind: fleet.KindProject, ID: "p1"}
	done := func(op fleet.Operation, of fleet.Ref) fleet.TaskID {
		var out fleet.Task
		err := s.Update(t.Context(), func(tx *store.Tx) (err error) {
			out, err = r.Done(tx, task.Order{Operation: op, Entity: of, Project: "p1"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
		return out.ID
	}
	made := done("CREATE_PROJECT", project)
	a := done("CREATE_VM", vm)
	b := done("CREATE_VM", other)
	c := add(t, s, r, task.Order{Operation: build, Entity: vm, Project: "p1"})

	check := func(of fleet.Ref, want ...fleet.TaskID) {
		t.Helper()
		got, err := r.List(t.Context(), of)
		if err != nil {
			t.Fatal(err)
		}
		var ids []fleet.TaskID
		for _, g := range got {
			ids = append(ids, g.ID)
		}
		if d := cmp.Diff(want, ids); d != "" {
			t.Errorf("%v (-want +got):\n%s", of, d)
		}
	}
	check(vm, a, c)
	check(other, b)
	check(project, made, a, b, c)
	check(fleet.Ref{}, made, a, b, c)
	check(fleet.Ref{Kind: fleet.KindVM, ID: "v"})

	// What is swept away is in no list, what has not ended stays.
	if err := r.Sweep(t.Context(), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	check(vm, c)
	check(project, c)
	check(fleet.Ref{}, c)
	index, err := store.List(t.Context(), s, store.Kind[struct{}]{Name: "task-of"}, "")
	if err != nil || len(index) != 2 {
		t.Errorf("the index still has %v, %v", index, err)
	}
}
