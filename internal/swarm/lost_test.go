package swarm_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"bootd/boot"
	"bootd/internal/swarm"
	"bootd/internal/swarm/dockertest"
)

// disk is a memory that outlives bootd.
type disk struct {
	id     string
	broken error
	writes int
}

func (d *disk) Recall(context.Context) (string, error) { return d.id, d.broken }

func (d *disk) Remember(_ context.Context, id string) error {
	if d.broken == nil {
		d.id = id
		d.writes++
	}
	return d.broken
}

// isLost waits until the swarm is seen to be lost.
func (b *bootd) isLost(text string) {
	b.t.Helper()
	b.until("the swarm is lost", func() bool { return b.sw.Status().Phase == swarm.Lost })
	if s := b.sw.Status(); !strings.Contains(s.Text, text) {
		b.t.Errorf("status = %+v; want %q", s, text)
	}
	b.noToken(text)
}

// TestSwarmLost takes an engine its swarm, or gives it another, while bootd runs
// and while it does not. No new one is made before somebody says so.
func TestSwarmLost(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		for _, other := range []bool{false, true} {
			simulate(t, func(t *testing.T, w *simulated, b *bootd) {
				d := &disk{}
				b.memory = d
				b.start()
				b.ready()
				first := b.sw.Status().Swarm
				if d.id != first || first == "" {
					t.Fatalf("swarm %q is kept, %q is remembered", first, d.id)
				}
				if _, err := b.sw.Replace(t.Context()); !errors.Is(err, swarm.ErrRefused) {
					t.Errorf("a swarm that is well is replaced: %v", err)
				}
				if restarted {
					b.stop()
				}
				w.Leave()
				want := "is in no swarm any more"
				if other {
					want = "and not " + first
					if err := w.Init(t.Context(), swarm.Init{}); err != nil {
						t.Fatal(err)
					}
				}
				if restarted {
					b.start()
				}
				b.isLost(want)
				time.Sleep(time.Hour)
				i, err := w.Info(t.Context())
				if err != nil || (i.State == swarm.Inactive) == other {
					t.Errorf("after an hour: %+v, %v", i, err)
				}
				if n := strings.Count(b.shown(), "the swarm is lost"); n != 1 {
					t.Errorf("it was said %d times:\n%s", n, b.shown())
				}
				was, err := b.sw.Replace(t.Context())
				if err != nil || was != first {
					t.Fatalf("Replace: %q, %v", was, err)
				}
				b.ready()
				if s := b.sw.Status().Swarm; s == first || s != d.id || other && s != i.Swarm {
					t.Errorf("swarm %q is kept, %q is remembered; it was %q, and the engine's %q", s, d.id, first, i.Swarm)
				}
				b.join(boot.Worker)
			})
		}
	}
}

// TestSwarmNotLost: an engine that is only restarted has not lost its swarm.
func TestSwarmNotLost(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		d := &disk{}
		b.memory = d
		b.start()
		b.ready()
		b.stop()
		b.w = &wrapped{w, stopping{w.Engine, time.Now().Add(10 * time.Second)}}
		b.start()
		b.blocked("stopping or starting")
		if _, err := b.sw.Replace(t.Context()); !errors.Is(err, swarm.ErrNotReady) {
			t.Errorf("Replace: %v", err)
		}
		b.ready()
		if strings.Contains(b.shown(), "is lost: ") || d.writes != 1 {
			t.Errorf("%d writes\n%s", d.writes, b.shown())
		}
	})
}

// TestForgetfulMemory: while it cannot be told which swarm was kept, none is
// made and none is changed.
func TestForgetfulMemory(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		d := &disk{broken: errors.New("the disk is on fire")}
		b.memory = d
		b.start()
		b.blocked("on fire")
		b.noToken("on fire")
		if i, err := w.Info(t.Context()); err != nil || i.State != swarm.Inactive {
			t.Errorf("a swarm was made: %+v, %v", i, err)
		}
		d.broken = nil
		b.ready()
	})
}

// TestKilledWhileReplacing: whatever was done when bootd is killed, the next one
// goes on from there.
func TestKilledWhileReplacing(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulated, b *bootd) {
		d := &disk{}
		b.memory = d
		b.start()
		b.ready()
		first := d.id
		w.Leave()
		b.isLost("bootd swarm replace")
		b.stop()
		d.id = "" // replaced, and killed before a new one was made
		if err := w.Init(t.Context(), swarm.Init{}); err != nil {
			t.Fatal(err) // made, and killed before it was remembered
		}
		b.start()
		b.ready()
		if s := b.sw.Status().Swarm; s == first || s != d.id {
			t.Errorf("swarm %q is kept, %q is remembered", s, d.id)
		}
	})
}

// TestRealSwarmLost has a real engine leave its swarm.
func TestRealSwarmLost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	w := newReal(t, dockertest.New(t))
	d := &disk{}
	b := &bootd{t: t, w: w, memory: d}
	b.start()
	defer b.stop()
	b.ready()
	first := d.id
	w.restartManager(func() {})
	b.ready() // it was only restarted
	if err := w.manager.Client().SwarmLeave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	b.isLost("is in no swarm any more")
	if was, err := b.sw.Replace(t.Context()); err != nil || was != first {
		t.Fatalf("Replace: %q, %v", was, err)
	}
	b.ready()
	if s := b.sw.Status().Swarm; s == first || s != d.id {
		t.Errorf("swarm %q is kept, %q is remembered; it was %q", s, d.id, first)
	}
}
