package swarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"bootd/boot"
)

const (
	tick     = 5 * time.Second        // between looks when nothing is heard
	gap      = 200 * time.Millisecond // between looks at least: a rack's events come in one burst
	minDelay = 500 * time.Millisecond // after the first failed look
	maxDelay = 10 * time.Second       // after many
	rewatch  = time.Second            // before watching again when the engine has gone away
	patience = 10 * time.Second       // for one answer of the engine
	fresh    = time.Second            // how old an Info may be that tokens are taken from
	hurry    = 3 * time.Second        // for an answer that a machine waits for
	outage   = 5 * time.Minute        // for how long tokens are given out that cannot be confirmed
)

// A Swarm keeps one Docker Swarm.
type Swarm struct {
	cfg     Config
	engine  Engine
	log     *slog.Logger
	nudged  chan struct{} // holds one wish for a look
	looking chan struct{} // holds one; taken while asking for Info

	networks networkKeeper

	mu        sync.Mutex
	status    Status
	info      Info
	infoAt    time.Time
	last      Info // as a manager
	lastAt    time.Time
	skew      time.Duration // the engine's clock less this one
	kept      string        // ID of the swarm that is to be kept; see recall
	recalled  bool          // kept is known
	denied    time.Time     // since when the engine says that it is in no swarm; zero: it does not
	told      map[string]bool
	reported  map[string]string    // boot ID to node ID: Ready events of this process
	first     map[string]time.Time // node ID to when it was first seen
	roles     map[string]roleSince // node ID to its role
	held      map[string]int       // nodes that are being removed, see hold
	removals  map[string]uint64    // see Counters
	rotations uint64
	drains    uint64
	drainTime time.Duration
}

// New returns a Swarm on the Docker engine at cfg.Host. It does not connect
// yet; the error is about cfg.
func New(cfg Config) (*Swarm, error) {
	if cfg.Host == "" {
		cfg.Host = DefaultHost
	}
	d, err := newDocker(cfg.Host, cfg.TLS, cfg.SSH)
	if err != nil {
		return nil, err
	}
	return NewOn(cfg, d), nil
}

// NewOn returns a Swarm on e. cfg.Host is only shown.
func NewOn(cfg Config, e Engine) *Swarm {
	log := cfg.Log
	if cfg.Name != "" {
		log = log.With("swarm", cfg.Name)
	}
	return &Swarm{
		cfg: cfg, engine: e, log: log,
		nudged: make(chan struct{}, 1), looking: make(chan struct{}, 1),
		status: Status{
			Name: cfg.Name, Host: cfg.Host, Phase: Waiting,
			Text: "the engine at " + cfg.Host + " has not been asked yet", Since: time.Now(),
		},
		told: map[string]bool{}, reported: map[string]string{},
		networks: networkKeeper{nudged: make(chan struct{}, 1)},
	}
}

// settings are what can change while the swarm is kept, as of now.
func (s *Swarm) settings() Settings {
	set := Settings{Grace: s.cfg.Grace, Availability: s.cfg.Init.Availability}
	if s.cfg.Settings != nil {
		set = s.cfg.Settings()
	}
	if set.Grace <= 0 {
		set.Grace = DefaultGrace
	}
	if set.DrainTimeout <= 0 {
		set.DrainTimeout = DefaultDrainTimeout
	}
	return set
}

// String names the swarm's engine.
func (s *Swarm) String() string { return "swarm " + s.cfg.Host }

// Nudge asks for a look soon, since something about the machines has changed.
func (s *Swarm) Nudge() {
	select {
	case s.nudged <- struct{}{}:
	default: // somebody has asked already
	}
	s.networks.nudge()
}

// Status tells how the swarm is.
func (s *Swarm) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Notices = append(append([]string(nil), st.Notices...), s.networks.said()...)
	return st
}

// Run keeps the swarm until ctx ends. Trouble with the engine is logged, shown
// by Status, and waited out.
func (s *Swarm) Run(ctx context.Context) error {
	if c, ok := s.engine.(io.Closer); ok {
		defer c.Close() // of what is idle; whoever still asks connects anew
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.watch(ctx) })
	if s.cfg.Networks != nil {
		wg.Go(func() { s.keepNetworks(ctx) })
	}
	delay := minDelay
	for {
		done, err := s.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		wait := tick
		switch {
		case err != nil:
			s.wait(err.Error())
			wait = delay
			delay = min(2*delay, maxDelay)
		case !done:
			wait, delay = gap, minDelay
		default:
			delay = minDelay
		}
		if !s.pause(ctx, wait) {
			return nil
		}
	}
}

// pause waits for a nudge, at least as long as gap and at most as long as d.
// It reports whether ctx goes on.
func (s *Swarm) pause(ctx context.Context, d time.Duration) bool {
	least := time.NewTimer(gap)
	defer least.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-least.C:
	}
	most := time.NewTimer(d - gap)
	defer most.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-most.C:
	case <-s.nudged:
	}
	return true
}

// watch turns the engine's events into nudges.
func (s *Swarm) watch(ctx context.Context) {
	for {
		err := s.engine.Watch(ctx, s.Nudge)
		if ctx.Err() != nil {
			return
		}
		s.log.Debug("engine's events ended", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(rewatch):
		}
		s.Nudge() // see what has become of the engine
	}
}

// wait notes that the swarm is not ready, and logs why when that is new.
func (s *Swarm) wait(text string) {
	if s.note(Waiting, text, Info{}) {
		s.log.Warn("waiting for the swarm", "reason", text)
	}
}

// lost notes that the swarm is lost, and logs it when that is new.
func (s *Swarm) lost(text string) {
	if s.note(Lost, text, Info{}) {
		s.log.Error("the swarm is lost", "reason", text)
	}
}

// note sets the status and reports whether it is new.
func (s *Swarm) note(p Phase, text string, i Info) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.status.Phase != p || s.status.Text != text
	if changed {
		s.status.Phase, s.status.Text, s.status.Since = p, text, time.Now()
	}
	if p == Ready {
		s.status.Swarm, s.status.Node, s.status.Addr, s.status.Engine = i.Swarm, i.Node, i.Addr, i.Version
	}
	return changed
}

// ask asks the engine what it is, unless that was done just now, and keeps the
// answer. When the engine cannot be asked, the error says what helps.
func (s *Swarm) ask(ctx context.Context, maxAge time.Duration) (Info, error) {
	select {
	case <-ctx.Done():
		return Info{}, ctx.Err()
	case s.looking <- struct{}{}:
		defer func() { <-s.looking }()
	}
	if i, ok := s.known(maxAge); ok {
		return i, nil
	}
	askCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	i, err := s.engine.Info(askCtx)
	if err != nil {
		return Info{}, errors.New(explain(err, s.cfg.Host))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.info, s.infoAt = i, time.Now()
	if i.manages() {
		s.last, s.lastAt = i, s.infoAt
	}
	if !i.Time.IsZero() {
		s.skew = i.Time.Sub(s.infoAt)
	}
	return i, nil
}

// known returns the last Info if it is not older than maxAge.
func (s *Swarm) known(maxAge time.Duration) (Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info, !s.infoAt.IsZero() && time.Since(s.infoAt) < maxAge
}

// Join tells what a machine needs to join in a role (worker when empty). The
// token is the swarm's present one. While the engine restarts, for minutes at
// most, it is the last one known, since the machine has a way to go until it
// joins. The error is an
// [ErrNotReady] when there is no swarm yet, and says what is missing.
func (s *Swarm) Join(ctx context.Context, role boot.Role) (JoinInfo, error) {
	switch role {
	case "":
		role = boot.Worker
	case boot.Worker, boot.Manager:
	default:
		return JoinInfo{}, fmt.Errorf("cannot join a swarm as %q: the roles are worker and manager", role)
	}
	askCtx, cancel := context.WithTimeout(ctx, hurry)
	defer cancel()
	i, err := s.ask(askCtx, fresh)
	var v verdict
	switch {
	case ctx.Err() != nil:
		return JoinInfo{}, fmt.Errorf("cannot get a token to join the swarm: %w", ctx.Err())
	case err == nil:
		if v, err = s.judge(askCtx, i); err != nil {
			break
		}
		if v.phase == Ready && i.manages() {
			return JoinInfo{i.Addr, i.Tokens[role]}, nil
		}
		if v.makeSwarm {
			v.text = "it is about to be made on the engine at " + s.cfg.Host
		}
		err = errors.New(v.text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// An engine that is stopping or starting says that it is in no swarm.
	if passing := i.State != Member && v.phase != Lost; passing && !s.lastAt.IsZero() && time.Since(s.lastAt) < outage {
		return JoinInfo{s.last.Addr, s.last.Tokens[role]}, nil
	}
	return JoinInfo{}, fmt.Errorf("cannot get a token to join the swarm: %w: %w", ErrNotReady, err)
}
