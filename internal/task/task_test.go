package task_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

const (
	build fleet.Operation = "BUILD"
	first fleet.Operation = "FIRST"
	then  fleet.Operation = "THEN"
	last  fleet.Operation = "LAST"
)

// An effect is what a step of these tests makes outside of its task. Made counts
// how often it was made while it was not there.
type effect struct {
	There bool `json:"there"`
	Made  int  `json:"made"`
}

var effects = store.Kind[effect]{Name: "effect"}

func open(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func options() task.Options {
	return task.Options{Pause: time.Millisecond, Log: slog.New(slog.DiscardHandler)}
}

// limited is long enough for any machine; tests do not wait for it to pass.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// run runs r until the returned function is called.
func run(t *testing.T, r *task.Runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func add(t *testing.T, s *store.Store, r *task.Runner, o task.Order) fleet.TaskID {
	t.Helper()
	var got fleet.Task
	err := s.Update(t.Context(), func(tx *store.Tx) (err error) {
		got, err = r.Add(tx, o)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got.ID
}

func vm(id string) fleet.Ref { return fleet.Ref{Kind: fleet.KindVM, ID: id} }

// set is a step's work: it makes its effect or removes it, and may be repeated.
func set(s *store.Store, name fleet.Operation, there bool) func(context.Context, *task.Call) error {
	return func(ctx context.Context, c *task.Call) error {
		return s.Update(ctx, func(tx *store.Tx) error {
			id := string(c.Task) + "." + string(name)
			e, err := store.Get(tx, effects, id)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			if there && !e.There {
				e.Made++
			}
			e.There = there
			return store.Put(tx, effects, id, e)
		})
	}
}

// states are those of a task and of its steps.
func states(t fleet.Task) []fleet.TaskState {
	out := []fleet.TaskState{t.State}
	for _, s := range t.Steps {
		out = append(out, s.State)
	}
	return out
}

// TestVariants: an operation may have several plans, and a task keeps its own over a
// restart.
func TestVariants(t *testing.T) {
	s, ctx := open(t), limited(t)
	var did []string
	plan := func(variant string, op fleet.Operation) task.Plan {
		return task.Plan{Operation: build, Variant: variant, Steps: []task.Step{{Operation: op, Do: func(context.Context, *task.Call) error {
			did = append(did, variant)
			return nil
		}}}}
	}
	plans := []task.Plan{plan("house", first), plan("ship", then)}
	id := add(t, s, task.New(s, options(), plans...), task.Order{Operation: build, Variant: "ship", Entity: vm("a")})
	r := task.New(s, options(), plans...)
	run(t, r)
	got, err := r.Wait(ctx, id)
	if err != nil || got.State != fleet.TaskCompleted || got.Steps[0].Operation != then {
		t.Errorf("%+v, %v", got, err)
	}
	if d := cmp.Diff([]string{"ship"}, did); d != "" {
		t.Error(d)
	}
	err = s.Update(ctx, func(tx *store.Tx) error {
		_, err := r.Add(tx, task.Order{Operation: build, Variant: "tree", Entity: vm("a")})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "cannot order BUILD tree of vm/a: there is no plan for it") {
		t.Errorf("%v", err)
	}
}

func TestStepsInOrder(t *testing.T) {
	s, ctx := open(t), limited(t)
	var did []string
	step := func(op fleet.Operation) task.Step {
		return task.Step{Operation: op, Do: func(ctx context.Context, c *task.Call) error {
			var word string
			if err := c.Argument(&word); err != nil {
				return err
			}
			did = append(did, string(op)+" "+word+" "+c.Entity.ID)
			return errors.Join(c.Note(ctx, "progress", "100%"), c.Result(ctx, map[string]string{"by": string(op)}))
		}}
	}
	r := task.New(s, options(), task.Plan{Operation: build, Steps: []task.Step{step(first), step(then)}})
	run(t, r)
	id := add(t, s, r, task.Order{Operation: build, Entity: vm("a"), Tenant: "t", Project: "p", Argument: "brick"})
	got, err := r.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"FIRST brick a", "THEN brick a"}, did); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]fleet.TaskState{fleet.TaskCompleted, fleet.TaskCompleted, fleet.TaskCompleted}, states(got)); d != "" {
		t.Error(d)
	}
	if got.Steps[1].Options["progress"] != "100%" || string(got.Result) != `{"by":"THEN"}` || got.Tenant != "t" || got.Project != "p" {
		t.Errorf("%+v", got)
	}
	if got.Queued.After(got.Started) || got.Started.After(got.Ended) || got.Steps[0].Ended.After(got.Steps[1].Started) {
		t.Errorf("times are not in order: %+v", got)
	}
}

func TestFailures(t *testing.T) {
	busy := &fleet.Fault{Kind: fleet.InUse, Doing: "copy", Host: "h", Text: "locked"}
	full := &fleet.Fault{Kind: fleet.NoSpace, Doing: "copy", Host: "h", Text: "full"}
	tests := map[string]struct {
		errs     []error // of THEN, try by try; nil after them
		undo     error   // of THEN's undo
		patience time.Duration
		state    fleet.TaskState
		code     fleet.Code
		tries    int32
		warnings int
	}{
		"passes":           {errs: []error{busy, store.ErrConflict, busy}, state: fleet.TaskCompleted, tries: 4},
		"for good":         {errs: []error{busy, full}, state: fleet.TaskError, code: fleet.NotEnoughDatastoreCapacity, tries: 2},
		"a client's":       {errs: []error{fleet.Errorf(fleet.QuotaError, "no")}, state: fleet.TaskError, code: fleet.QuotaError, tries: 1},
		"no patience":      {errs: []error{busy}, patience: -1, state: fleet.TaskError, code: fleet.InternalError, tries: 1},
		"cannot be undone": {errs: []error{full}, undo: full, state: fleet.TaskError, code: fleet.NotEnoughDatastoreCapacity, tries: 1, warnings: 1},
	}
	s := open(t)
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			var tries atomic.Int32
			o := options()
			o.Patience = c.patience
			var undone []fleet.Operation
			undo := func(op fleet.Operation, err error) func(context.Context, *task.Call) error {
				return func(context.Context, *task.Call) error { undone = append(undone, op); return err }
			}
			nothing := func(context.Context, *task.Call) error { return nil }
			r := task.New(s, o, task.Plan{Operation: build, Steps: []task.Step{
				{Operation: first, Do: nothing, Undo: undo(first, nil)},
				{Operation: then, Undo: undo(then, c.undo), Do: func(context.Context, *task.Call) error {
					if n := int(tries.Add(1)); n <= len(c.errs) {
						return c.errs[n-1]
					}
					return nil
				}},
				{Operation: last, Do: nothing, Undo: undo(last, nil)},
			}})
			stop := run(t, r)
			got, err := r.Wait(limited(t), add(t, s, r, task.Order{Operation: build, Entity: vm("a")}))
			stop()
			if err != nil || got.State != c.state || tries.Load() != c.tries {
				t.Fatalf("%v after %d tries, %v; want %s after %d", states(got), tries.Load(), err, c.state, c.tries)
			}
			var want []fleet.Operation
			if c.state == fleet.TaskError {
				want = []fleet.Operation{then, first}
				if got.Cause() == nil || got.Cause().Code != c.code {
					t.Errorf("cause = %+v, want %s", got.Cause(), c.code)
				}
			}
			if d := cmp.Diff(want, undone); d != "" {
				t.Errorf("undone: %s", d)
			}
			if n := len(got.Steps[1].Warnings); n != c.warnings {
				t.Errorf("%d warnings, want %d", n, c.warnings)
			}
		})
	}
}

var errKilled = errors.New("killed")

// A fuse kills a runner at the nth moment that it passes.
type fuse struct {
	mu   sync.Mutex
	left int
	kill context.CancelFunc
}

// burnt reports whether the runner is dead from this moment on.
func (f *fuse) burnt() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left == 0 {
		f.kill()
	}
	return f.left <= 0
}

// around is what can be killed before it is done, and after.
func (f *fuse) around(do func() error) error {
	if f.burnt() {
		return errKilled
	}
	if err := do(); err != nil {
		return err
	}
	if f.burnt() {
		return errKilled
	}
	return nil
}

// TestKilledAtEveryWrite kills runners before and after each thing they write, and
// each thing that their steps and undos do: whoever comes next ends the task as if
// nothing had happened, and nothing was made twice.
func TestKilledAtEveryWrite(t *testing.T) {
	s := open(t)
	for _, fails := range []bool{false, true} {
		for _, every := range []bool{false, true} {
			t.Run(fmt.Sprintf("fails=%t,every=%t", fails, every), func(t *testing.T) {
				kills := 0
				for n := 1; killAt(t, s, n, fails, every); n++ {
					if kills = n; n > 200 {
						t.Fatal("it never ends")
					}
				}
				if kills < 10 {
					t.Errorf("only %d moments to be killed at", kills)
				}
			})
		}
	}
}

// killAt kills the first runner at moment n, and, if every, all later ones at
// theirs, one moment later each, so that each gets a little further. It reports
// whether the first was killed.
func killAt(t *testing.T, s *store.Store, n int, fails, every bool) bool {
	var id fleet.TaskID
	bounded := limited(t)
	for life := 0; ; life++ {
		ctx, cancel := context.WithCancel(bounded)
		f := &fuse{left: 1 << 30, kill: cancel}
		if life == 0 {
			f.left = n
		} else if every {
			f.left = 2 + life
		}
		r := task.New(s, options(), plan(s, f, fails))
		r.OnWrite(f.around)
		if life == 0 {
			id = add(t, s, r, task.Order{Operation: build, Entity: vm("a")})
		}
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		got, err := r.Wait(ctx, id)
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if bounded.Err() != nil || life > 100 {
			t.Fatalf("it does not end: %v", states(got))
		}
		if err == nil && f.left > 0 {
			checkEnd(t, s, got, fails)
			return life > 0
		}
	}
}

func plan(s *store.Store, f *fuse, fails bool) task.Plan {
	p := task.Plan{Operation: build}
	for _, op := range []fleet.Operation{first, then, last} {
		guard := func(do func(context.Context, *task.Call) error) func(context.Context, *task.Call) error {
			return func(ctx context.Context, c *task.Call) error { return f.around(func() error { return do(ctx, c) }) }
		}
		do := guard(set(s, op, true))
		if fails && op == last {
			made := do
			do = func(ctx context.Context, c *task.Call) error {
				return firstOf(made(ctx, c), fleet.Errorf(fleet.InvalidVMState, "no"))
			}
		}
		p.Steps = append(p.Steps, task.Step{Operation: op, Do: do, Undo: guard(set(s, op, false))})
	}
	return p
}

// firstOf is the first of errs that is an error.
func firstOf(errs ...error) error {
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

func checkEnd(t *testing.T, s *store.Store, got fleet.Task, fails bool) {
	t.Helper()
	want := []fleet.TaskState{fleet.TaskCompleted, fleet.TaskCompleted, fleet.TaskCompleted, fleet.TaskCompleted}
	if fails {
		want[0], want[3] = fleet.TaskError, fleet.TaskError
	}
	if d := cmp.Diff(want, states(got)); d != "" {
		t.Errorf("states: %s", d)
	}
	all, err := store.List(t.Context(), s, effects, string(got.ID))
	if err != nil || len(all) != 3 {
		t.Fatalf("%v, %v", all, err)
	}
	for id, e := range all {
		if want := (effect{There: !fails, Made: 1}); e != want {
			t.Errorf("%s: %+v, want %+v", strings.TrimPrefix(id, string(got.ID)), e, want)
		}
	}
	if fails && (got.Cause() == nil || got.Cause().Code != fleet.InvalidVMState || len(got.Steps[2].Errors) != 1) {
		t.Errorf("errors: %+v", got.Steps[2].Errors)
	}
}

func TestCancel(t *testing.T) {
	s, ctx := open(t), limited(t)
	began := make(chan struct{}, 1)
	r := task.New(s, options(), task.Plan{Operation: build, Steps: []task.Step{
		{Operation: first, Do: set(s, first, true), Undo: set(s, first, false)},
		{Operation: then, Do: func(ctx context.Context, _ *task.Call) error {
			began <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}},
	}})
	queued := add(t, s, r, task.Order{Operation: build, Entity: vm("queued")})
	if err := r.Cancel(ctx, queued); err != nil {
		t.Fatal(err)
	}
	run(t, r)
	got, err := r.Wait(ctx, queued)
	if d := cmp.Diff([]fleet.TaskState{fleet.TaskError, fleet.TaskError, fleet.TaskQueued}, states(got)); err != nil || d != "" {
		t.Errorf("cancelled before it began: %v %s", err, d)
	}
	id := add(t, s, r, task.Order{Operation: build, Entity: vm("a")})
	<-began
	if err := r.Cancel(ctx, id); err != nil {
		t.Fatal(err)
	}
	got, err = r.Wait(ctx, id)
	if d := cmp.Diff([]fleet.TaskState{fleet.TaskError, fleet.TaskCompleted, fleet.TaskError}, states(got)); err != nil || d != "" {
		t.Errorf("cancelled while it ran: %v %s", err, d)
	}
	if c := got.Cause(); c == nil || c.Message != "the task was cancelled" {
		t.Errorf("cause = %+v", c)
	}
	all, err := store.List(ctx, s, effects, "")
	if want := map[string]effect{string(id) + ".FIRST": {There: false, Made: 1}}; err != nil || !cmp.Equal(want, all) {
		t.Errorf("%v, %v", all, err)
	}
	if err := r.Cancel(ctx, id); err != nil {
		t.Errorf("cancelled after it ended: %v", err)
	}
	if err := r.Cancel(ctx, "none"); fleet.CodeOf(err) != fleet.NotFound {
		t.Errorf("err = %v", err)
	}
}

// TestPatienceAfterRestart has a step that was interrupted longer ago than a step
// is tried again: it is tried again all the same.
func TestPatienceAfterRestart(t *testing.T) {
	s, ctx := open(t), limited(t)
	var clock atomic.Int64
	o := options()
	o.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	o.Patience = time.Minute
	began := make(chan struct{}, 1)
	var tries atomic.Int32
	r := task.New(s, o, task.Plan{Operation: build, Steps: []task.Step{{Operation: first, Do: func(ctx context.Context, _ *task.Call) error {
		switch tries.Add(1) {
		case 1:
			began <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		case 2:
			return &fleet.Fault{Kind: fleet.Unreachable, Doing: "reach", Host: "h", Text: "it starts"}
		}
		return nil
	}}}})
	id := add(t, s, r, task.Order{Operation: build, Entity: vm("a")})
	stop := run(t, r)
	<-began
	stop()
	clock.Add(3600)
	run(t, r)
	if got, err := r.Wait(ctx, id); err != nil || got.State != fleet.TaskCompleted || tries.Load() != 3 {
		t.Errorf("%v after %d tries, %v", states(got), tries.Load(), err)
	}
}

// TestSideBySide has more tasks than may run, two of each entity.
func TestSideBySide(t *testing.T) {
	s, ctx := open(t), limited(t)
	var mu sync.Mutex
	now, most, of := 0, 0, map[string][]string{}
	active := map[string]bool{}
	full := make(chan struct{})
	o := options()
	o.Parallel = 3
	var clock atomic.Int64 // no two tasks are asked for at the same moment
	o.Now = func() time.Time { return time.Unix(clock.Add(1), 0) }
	r := task.New(s, o, task.Plan{Operation: build, Steps: []task.Step{{Operation: first, Do: func(ctx context.Context, c *task.Call) error {
		var word string
		if err := c.Argument(&word); err != nil {
			return err
		}
		mu.Lock()
		if now++; now > most {
			if most = now; most == o.Parallel {
				close(full)
			}
		}
		if active[c.Entity.ID] {
			t.Errorf("two tasks of %s at once", c.Entity)
		}
		active[c.Entity.ID] = true
		of[c.Entity.ID] = append(of[c.Entity.ID], word)
		mu.Unlock()
		select { // until as many run as may
		case <-full:
		case <-ctx.Done():
		}
		mu.Lock()
		defer mu.Unlock()
		now--
		delete(active, c.Entity.ID)
		return ctx.Err()
	}}}})
	run(t, r)
	var ids []fleet.TaskID
	for _, word := range []string{"1", "2"} {
		for _, e := range []string{"a", "b", "c", "d", "e"} {
			ids = append(ids, add(t, s, r, task.Order{Operation: build, Entity: vm(e), Argument: word}))
		}
	}
	for _, id := range ids {
		if got, err := r.Wait(ctx, id); err != nil || got.State != fleet.TaskCompleted {
			t.Fatalf("%v, %v", states(got), err)
		}
	}
	if most != o.Parallel {
		t.Errorf("%d ran at once, want %d", most, o.Parallel)
	}
	for e, words := range of {
		if !slices.Equal(words, []string{"1", "2"}) {
			t.Errorf("%s: %v", e, words)
		}
	}
}

func TestSweepAndUnknown(t *testing.T) {
	s, ctx := open(t), limited(t)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	o := options()
	o.Now = func() time.Time { return at }
	r := task.New(s, o, task.Plan{Operation: build}, task.Plan{Operation: "OLD", Steps: []task.Step{{Operation: "GONE"}}})
	ended := add(t, s, r, task.Order{Operation: build, Entity: vm("a")})
	other := task.New(s, o, task.Plan{Operation: build}, task.Plan{Operation: "OLD", Steps: []task.Step{{Operation: "NEW"}}})
	old := add(t, s, r, task.Order{Operation: "OLD", Entity: vm("b")})
	stop := run(t, other)
	if got, err := other.Wait(ctx, ended); err != nil || got.State != fleet.TaskCompleted {
		t.Errorf("a plan without steps: %v, %v", got, err)
	}
	if got, err := other.Wait(ctx, old); err != nil || got.State != fleet.TaskError || !strings.Contains(got.Cause().Message, "OLD") {
		t.Errorf("a task of another version: %v, %v", got, err)
	}
	stop()
	waits := add(t, s, r, task.Order{Operation: build, Entity: vm("c")})
	for _, c := range []struct {
		before time.Time
		gone   bool
	}{{at, false}, {at.Add(1), true}} {
		if err := r.Sweep(ctx, c.before); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Get(ctx, ended); (fleet.CodeOf(err) == fleet.NotFound) != c.gone {
			t.Errorf("before %v: %v", c.before, err)
		}
		if _, err := r.Get(ctx, waits); err != nil {
			t.Errorf("an unfinished task: %v", err)
		}
	}
	err := s.Update(ctx, func(tx *store.Tx) error { _, err := r.Add(tx, task.Order{Operation: "NONE"}); return err })
	if err == nil || !strings.Contains(err.Error(), "NONE") {
		t.Errorf("an operation without a plan: %v", err)
	}
}
