package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"bootd/boot"
	"bootd/internal/api"
	"bootd/internal/config"
	"bootd/internal/override"
	"bootd/internal/store"
	"bootd/internal/swarm"
	"bootd/internal/timeline"
)

// swarms are the Docker Swarms that the configuration declares. They come and
// go with it.
type swarms struct {
	live      *live
	record    *timeline.Recorder
	overrides *override.Overrides
	store     *store.Store
	log       *slog.Logger
	again     chan struct{}

	mu   sync.Mutex
	kept []*keptSwarm // in the order of the configuration
}

// A keptSwarm is one swarm and what it was made of.
type keptSwarm struct {
	*swarm.Swarm
	made   config.Swarm       // as it was declared then
	cancel context.CancelFunc // nil: not started
	ended  chan struct{}
}

func newSwarms(l *live, record *timeline.Recorder, overrides *override.Overrides, db *store.Store, log *slog.Logger) (*swarms, error) {
	s := &swarms{live: l, record: record, overrides: overrides, store: db, log: log, again: make(chan struct{}, 1)}
	return s, s.reconcile()
}

// String names the service in messages.
func (s *swarms) String() string { return "swarms" }

// reload makes Run look at the configuration again.
func (s *swarms) reload() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// Run keeps the swarms until ctx ends.
func (s *swarms) Run(ctx context.Context) error {
	defer s.stopAll()
	for {
		s.start(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-s.again:
		}
		if err := s.reconcile(); err != nil {
			s.log.Error("a swarm is not managed", "err", err)
		}
	}
}

// reconcile makes the swarms that are declared anew, and ends those that are
// not declared any more. One whose engine is elsewhere now is another one.
func (s *swarms) reconcile() error {
	cfg := s.live.config()
	s.mu.Lock()
	defer s.mu.Unlock()
	var next []*keptSwarm
	var failed error
	for _, d := range cfg.Swarms {
		i := slices.IndexFunc(s.kept, func(k *keptSwarm) bool { return sameEngine(k.made, d) })
		if i >= 0 {
			next = append(next, s.kept[i])
			continue
		}
		made, err := s.newSwarm(cfg, d)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		next = append(next, &keptSwarm{Swarm: made, made: d})
	}
	for _, k := range s.kept {
		if !slices.Contains(next, k) {
			k.stop()
		}
	}
	s.kept = next
	return failed
}

// sameEngine reports whether two declarations are of one swarm, reached in one
// way. All else can be changed while it is kept.
func sameEngine(a, b config.Swarm) bool {
	return a.Name == b.Name && a.Host == b.Host && reflect.DeepEqual(a.TLS, b.TLS) && reflect.DeepEqual(a.SSH, b.SSH)
}

// declared is what the configuration says of a swarm now.
func (s *swarms) declared(name string) config.Swarm {
	for _, d := range s.live.config().Swarms {
		if d.Name == name {
			return d
		}
	}
	return config.Swarm{}
}

func (k *keptSwarm) stop() {
	if k.cancel != nil {
		k.cancel()
		<-k.ended
	}
}

// start runs the swarms that do not run yet.
func (s *swarms) start(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kept {
		if k.cancel != nil {
			continue
		}
		var own context.Context
		own, k.cancel = context.WithCancel(ctx)
		k.ended = make(chan struct{})
		go func() {
			defer close(k.ended)
			if err := k.Run(own); err != nil {
				s.log.Error("a swarm is not managed any more", "swarm", k.made.Name, "err", err)
			}
		}()
	}
}

func (s *swarms) stopAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kept {
		k.stop()
	}
	s.kept = nil
}

// all are the swarms, or the named one.
func (s *swarms) all(name string) ([]*keptSwarm, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" {
		if len(s.kept) == 0 {
			return nil, notFound("bootd manages no swarm; add swarm: {} to bootd.yaml")
		}
		return slices.Clone(s.kept), nil
	}
	var names []string
	for _, k := range s.kept {
		if k.made.Name == name {
			return []*keptSwarm{k}, nil
		}
		names = append(names, k.made.Name)
	}
	return nil, notFound("there is no swarm %q; there are %s", name, strings.Join(names, ", "))
}

func notFound(format string, args ...any) error {
	return &api.Problem{Title: "Not Found", Status: http.StatusNotFound, Detail: fmt.Sprintf(format, args...)}
}

// of finds the swarm that a machine is to join.
func (s *swarms) of(m *boot.Member) (*keptSwarm, bool) {
	d, ok := s.live.config().SwarmOf(m)
	if !ok {
		return nil, false
	}
	list, err := s.all(d.Name)
	return first(list), err == nil
}

func first[T any](list []T) (v T) {
	if len(list) > 0 {
		v = list[0]
	}
	return v
}

// join tells a machine how to join its swarm.
func (s *swarms) join(ctx context.Context, m *boot.Member) (swarm.JoinInfo, error) {
	k, ok := s.of(m)
	if !ok {
		return swarm.JoinInfo{}, fmt.Errorf("%w: swarm %q is not managed", swarm.ErrNotReady, m.Swarm)
	}
	return k.Join(ctx, m.Role)
}

// drainTimeout is how long a node of a swarm waits for its tasks to move.
func (s *swarms) drainTimeout(m *boot.Member) time.Duration {
	d, _ := s.live.config().SwarmOf(m) // a swarm that is not there any more has no wish
	return d.DrainTimeout
}

// leave is told that a machine's node leaves its swarm, and returns when its
// tasks run elsewhere.
func (s *swarms) leave(ctx context.Context, t boot.Timeline) error {
	a, err := s.live.assign(s.record.Inventory(t.MAC), s.record.Current)
	if err != nil || a.Profile == nil || a.Profile.Swarm == nil || t.Node == "" {
		return err
	}
	k, ok := s.of(a.Profile.Swarm)
	if !ok {
		return nil
	}
	return k.Leave(ctx, t.MAC, t.Node)
}

// nudge makes all swarms look soon.
func (s *swarms) nudge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kept {
		k.Nudge()
	}
}

// members are the machines that are to be in a swarm, with what is known of
// their latest boot and what was ordered for them.
func (s *swarms) members(name string) []swarm.Machine {
	c, cfg := s.live.catalog(), s.live.config()
	var out []swarm.Machine
	for _, seen := range s.record.Machines() {
		if seen.Current == nil {
			continue
		}
		a, err := c.Assign(seen.Inventory)
		if err != nil || a.Profile == nil {
			continue
		}
		a = s.live.ordered(a, s.overrides.Get(seen.MAC).Profile(seen.Current.ID))
		if d, ok := cfg.SwarmOf(a.Profile.Swarm); ok && d.Name == name {
			out = append(out, member(a, seen, s.overrides.Get(seen.MAC).Held))
		}
	}
	return out
}

// member is a machine as its swarm sees it.
func member(a boot.Assignment, seen timeline.Seen, held *override.Hold) swarm.Machine {
	m := swarm.Machine{
		MAC: seen.MAC, Name: a.Name, BootID: seen.Current.ID, Started: seen.Current.Started, NodeID: seen.Current.Node,
		Role: a.Profile.Swarm.Role, Labels: a.Profile.Swarm.Labels, Availability: swarm.Availability(a.Profile.Swarm.Availability),
	}
	if held != nil {
		m.Availability = swarm.Availability(held.Availability)
	}
	// When Docker is restarted on a node, the node leaves and joins again
	// within one boot: what came before the last joining is over.
	joined := last(seen.Current, boot.Joined)
	m.Left = last(seen.Current, boot.Left).After(joined)
	m.Ready = last(seen.Current, boot.Ready).After(joined)
	return m
}

// last is when a stage was last reached in a boot; zero if never.
func last(t *boot.Timeline, s boot.Stage) time.Time {
	var at time.Time
	for _, step := range t.Steps {
		if step.Stage == s && step.Last.After(at) {
			at = step.Last
		}
	}
	return at
}
