package task_test

import (
	"testing"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/task"
)

// TestBrief: what changes nothing is kept for an hour, the rest as long as is said.
func TestBrief(t *testing.T) {
	s, ctx := open(t), limited(t)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := begin
	o := options()
	o.Now = func() time.Time { return now }
	r := task.New(s, o, task.Plan{Operation: build})
	brief := add(t, s, r, task.Order{Operation: build, Entity: vm("a"), Brief: true})
	kept := add(t, s, r, task.Order{Operation: build, Entity: vm("a")})
	stop := run(t, r)
	for _, id := range []fleet.TaskID{brief, kept} {
		if got, err := r.Wait(ctx, id); err != nil || got.State != fleet.TaskCompleted {
			t.Fatalf("%v, %v", states(got), err)
		}
	}
	stop()
	for _, x := range []struct {
		age  time.Duration
		gone bool
	}{{time.Hour, false}, {time.Hour + 1, true}} {
		now = begin.Add(x.age)
		if err := r.Sweep(ctx, now.Add(-24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Get(ctx, brief); (fleet.CodeOf(err) == fleet.NotFound) != x.gone {
			t.Errorf("after %v: %v", x.age, err)
		}
		if _, err := r.Get(ctx, kept); err != nil {
			t.Errorf("after %v: %v", x.age, err)
		}
	}
}
