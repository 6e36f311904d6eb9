package task

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// Options say how tasks are carried out. Zero values have the defaults named.
type Options struct {
	Parallel int              // tasks at the same time, not counting those that pause, and as many that were tried before; 16
	Pause    time.Duration    // before a step is tried again first; it doubles up to 64 times; 1 s
	Patience time.Duration    // how long a step is tried again, anew after a restart; 10 min
	Keep     time.Duration    // how long ended tasks are kept; 7 days
	Now      func() time.Time // the clock that tasks are dated by; time.Now
	Log      *slog.Logger
}

// A Runner carries tasks out.
type Runner struct {
	store   *store.Store
	plans   map[planKey]Plan
	options Options
	now     func() time.Time
	log     *slog.Logger
	write   func(context.Context, func(*store.Tx) error) error

	mu      sync.Mutex
	queue   map[fleet.TaskID]ticket
	running map[fleet.TaskID]running
	waiters map[fleet.TaskID]map[chan struct{}]bool
	wake    chan struct{} // holds one when there may be something to start

	first, again chan struct{} // hold one for each place that is taken
}

type running struct {
	entity fleet.Ref
	cancel context.CancelCauseFunc
	place  *place
}

// A place is what a task must have to do something. It is given back while a step
// pauses, so that those that wait for a host that is silent hold up nobody else;
// for the same reason what is tried again has places apart.
type place struct {
	of chan struct{} // nil: it has none now
}

func (p *place) leave() {
	if p.of != nil {
		<-p.of
		p.of = nil
	}
}

// enter waits for one of the places, if the task has none.
func (p *place) enter(ctx context.Context, of chan struct{}) error {
	if p.of != nil {
		return nil
	}
	select {
	case of <- struct{}{}:
		p.of = of
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// New makes a Runner that knows plans, each of another operation or variant.
func New(s *store.Store, o Options, plans ...Plan) *Runner {
	o.Parallel = cmp.Or(o.Parallel, 16)
	o.Pause = cmp.Or(o.Pause, time.Second)
	o.Patience = cmp.Or(o.Patience, 10*time.Minute)
	o.Keep = cmp.Or(o.Keep, 7*24*time.Hour)
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Runner{
		store: s, plans: map[planKey]Plan{}, options: o, now: o.Now, log: o.Log, write: s.Update,
		queue: map[fleet.TaskID]ticket{}, running: map[fleet.TaskID]running{},
		waiters: map[fleet.TaskID]map[chan struct{}]bool{}, wake: make(chan struct{}, 1),
		first: make(chan struct{}, o.Parallel), again: make(chan struct{}, o.Parallel),
	}
	r.Know(plans...)
	return r
}

// Know adds plans, each of another operation or variant. It is for who needs the Runner to
// make them, and must not be called once tasks are added or Run is called.
func (r *Runner) Know(plans ...Plan) {
	for _, p := range plans {
		r.plans[planKey{p.Operation, p.Variant}] = p
	}
}

// sweeping is how often ended tasks are looked through.
const sweeping = time.Hour

// Run carries tasks out until ctx ends, which is no error: the steps that run are
// interrupted, and taken up by the next Run. The only error is [store.ErrClosed].
func (r *Runner) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	followed := make(chan error, 1)
	wg.Go(func() { followed <- store.Follow(ctx, r.store, unfinished, r.reset, r.changed) })
	sweep := time.NewTicker(sweeping)
	defer sweep.Stop()
	for {
		select {
		case err := <-followed:
			return err
		case <-sweep.C:
			if err := r.Sweep(ctx, r.now().Add(-r.options.Keep)); err != nil && ctx.Err() == nil {
				r.log.Error("old tasks cannot be removed", "err", err)
			}
		case <-r.wake:
			r.start(ctx, &wg)
		}
	}
}

// reset takes over all unfinished tasks.
func (r *Runner) reset(all map[string]ticket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.queue)
	for id, t := range all {
		r.put(fleet.TaskID(id), t)
	}
	for _, set := range r.waiters { // theirs may have ended unseen
		for c := range set {
			poke(c)
		}
	}
	poke(r.wake)
}

func (r *Runner) changed(c store.Change[ticket]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := fleet.TaskID(c.ID)
	if !c.Deleted {
		r.put(id, c.Value)
		poke(r.wake)
		return
	}
	delete(r.queue, id)
	for c := range r.waiters[id] {
		poke(c)
	}
}

// put queues a task, or tells the one that runs that it is cancelled.
func (r *Runner) put(id fleet.TaskID, t ticket) {
	run, ok := r.running[id]
	if !ok {
		r.queue[id] = t
	} else if t.Cancelled {
		run.cancel(errCancelled)
	}
}

// poke fills a channel that holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// start begins the tasks that may run now, those that have waited longest first.
func (r *Runner) start(ctx context.Context, wg *sync.WaitGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	busy := map[fleet.Ref]bool{}
	for _, run := range r.running {
		busy[run.entity] = true
	}
	if ctx.Err() != nil {
		return
	}
	for _, id := range ordered(r.queue) {
		t := r.queue[id]
		if busy[t.Entity] {
			continue
		}
		p := &place{}
		select {
		case r.first <- struct{}{}:
			p.of = r.first
		default:
			return
		}
		busy[t.Entity] = true
		doing, cancel := context.WithCancelCause(ctx)
		delete(r.queue, id)
		r.running[id] = running{t.Entity, cancel, p}
		wg.Go(func() {
			defer cancel(nil)
			r.carry(ctx, doing, id)
			p.leave()
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.running, id)
			poke(r.wake)
		})
	}
}

func ordered(queue map[fleet.TaskID]ticket) []fleet.TaskID {
	ids := make([]fleet.TaskID, 0, len(queue))
	for id := range queue {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b fleet.TaskID) int {
		return cmp.Or(queue[a].Queued.Compare(queue[b].Queued), cmp.Compare(a, b))
	})
	return ids
}

// carry executes a task, again as long as the store does not answer.
func (r *Runner) carry(ctx, doing context.Context, id fleet.TaskID) {
	for pause := r.options.Pause; ; pause = min(2*pause, 64*r.options.Pause) {
		err := r.execute(ctx, doing, id)
		if err == nil || ctx.Err() != nil {
			return
		}
		r.log.Error("a task waits for the store", "task", id, "wait", pause, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// Wait returns a task once it has ended, or the error of ctx. It needs a Runner
// that runs: this one.
func (r *Runner) Wait(ctx context.Context, id fleet.TaskID) (fleet.Task, error) {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	if r.waiters[id] == nil {
		r.waiters[id] = map[chan struct{}]bool{}
	}
	r.waiters[id][c] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if delete(r.waiters[id], c); len(r.waiters[id]) == 0 {
			delete(r.waiters, id)
		}
	}()
	for {
		t, err := r.Get(ctx, id)
		if err != nil || t.State.Ended() {
			return t, err
		}
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-c:
		}
	}
}
