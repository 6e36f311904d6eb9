package task_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/task"
)

// TestSilent has more tasks that wait for something silent than may run at once: they
// hold up no other, but those of the same entity, and nobody who stops bootd.
func TestSilent(t *testing.T) {
	s, ctx := open(t), limited(t)
	var silent atomic.Bool
	silent.Store(true)
	o := options()
	o.Parallel = 2
	var clock atomic.Int64 // no two tasks are asked for at the same moment
	o.Now = func() time.Time { return time.Unix(clock.Add(1), 0) }
	var mu sync.Mutex
	var did []string
	tried := make(chan struct{}, 100)
	work := task.Plan{Operation: build, Steps: []task.Step{{Operation: first, Do: func(_ context.Context, c *task.Call) error {
		var word string
		if err := c.Argument(&word); err != nil {
			return err
		}
		if c.Entity.ID != "answers" && silent.Load() {
			tried <- struct{}{}
			return &fleet.Fault{Kind: fleet.Unreachable, Doing: "reach", Host: "h", Text: "it is silent"}
		}
		mu.Lock()
		defer mu.Unlock()
		did = append(did, c.Entity.ID+word)
		return nil
	}}}}
	slow := o
	slow.Pause, slow.Patience = time.Hour, 1000*time.Hour
	r := task.New(s, slow, work)
	stop := run(t, r)
	var waiting []fleet.TaskID
	entities := []string{"a", "b", "c", "d", "e"}
	for _, word := range []string{"1", "2"} {
		for _, e := range entities {
			waiting = append(waiting, add(t, s, r, task.Order{Operation: build, Entity: vm(e), Argument: word}))
		}
	}
	for range entities {
		select {
		case <-tried:
		case <-ctx.Done():
			t.Fatal("tasks wait for others that pause")
		}
	}
	got, err := r.Wait(ctx, add(t, s, r, task.Order{Operation: build, Entity: vm("answers"), Argument: "1"}))
	if err != nil || got.State != fleet.TaskCompleted {
		t.Fatalf("%v, %v", states(got), err)
	}
	stop()
	if len(tried) > 0 || len(did) != 1 {
		t.Errorf("%d more were tried; %v were done", len(tried), did)
	}
	silent.Store(false)
	r = task.New(s, o, work)
	run(t, r)
	for _, id := range waiting {
		if got, err := r.Wait(ctx, id); err != nil || got.State != fleet.TaskCompleted {
			t.Fatalf("%v, %v", states(got), err)
		}
	}
	for _, e := range entities {
		if i := slices.Index(did, e+"1"); i < 0 || !slices.Contains(did[i:], e+"2") {
			t.Errorf("%s: %v", e, did)
		}
	}
}

// TestTriedAgain has many tasks whose step and whose undoing fail twice: no more of
// them work at once than there are places, and all places are free again at the end.
func TestTriedAgain(t *testing.T) {
	s, ctx := open(t), limited(t)
	o := options()
	o.Parallel = 2
	var mu sync.Mutex
	now, most, tries := 0, 0, map[string]int{}
	flaky := func(name string) func(context.Context, *task.Call) error {
		return func(_ context.Context, c *task.Call) error {
			mu.Lock()
			now++
			most = max(most, now)
			tries[name+c.Entity.ID]++
			n := tries[name+c.Entity.ID]
			mu.Unlock()
			runtime.Gosched()
			mu.Lock()
			defer mu.Unlock()
			if now--; n < 3 {
				return &fleet.Fault{Kind: fleet.InUse, Doing: "use", Host: "h", Text: "it is in use"}
			}
			return nil
		}
	}
	r := task.New(s, o, task.Plan{Operation: build, Steps: []task.Step{
		{Operation: first, Do: flaky("do"), Undo: flaky("undo")},
		{Operation: then, Do: func(context.Context, *task.Call) error { return errors.New("it is broken") }},
	}})
	stop := run(t, r)
	var ids []fleet.TaskID
	for i := range 12 {
		ids = append(ids, add(t, s, r, task.Order{Operation: build, Entity: vm(fmt.Sprint(i))}))
	}
	for _, id := range ids {
		if got, err := r.Wait(ctx, id); err != nil || got.State != fleet.TaskError || len(got.Steps[0].Warnings) > 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	stop()
	for name, n := range tries {
		if n != 3 {
			t.Errorf("%s: %d tries", name, n)
		}
	}
	if most > 2*o.Parallel {
		t.Errorf("%d worked at once", most)
	}
	if n := r.Places(); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}
