package swarm

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Memory remembers which swarm is kept for longer than a process lives, so
// that one that is lost is not silently replaced by an empty one.
type Memory interface {
	// Recall returns the ID of the swarm that was kept last; empty: none.
	Recall(ctx context.Context) (string, error)
	// Remember returns when the ID is on stable storage; empty: none.
	Remember(ctx context.Context, id string) error
}

// denial is for how long an engine has to say that it is in no swarm, though it
// managed one, until it is believed: engines that stop or start say so too.
const denial = 15 * time.Second

// recall returns the ID of the swarm that is to be kept; empty: whichever
// there is.
func (s *Swarm) recall(ctx context.Context) (string, error) {
	if s.cfg.Memory == nil {
		return "", nil
	}
	s.mu.Lock()
	kept, known := s.kept, s.recalled
	s.mu.Unlock()
	if known {
		return kept, nil
	}
	kept, err := call(ctx, s.cfg.Memory.Recall)
	if err != nil {
		return "", fmt.Errorf("cannot tell which swarm was kept before: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.recalled { // otherwise somebody was quicker, and may have changed it
		s.kept, s.recalled = kept, true
	}
	return s.kept, nil
}

// remember notes durably which swarm is kept.
func (s *Swarm) remember(ctx context.Context, id string) error {
	if s.cfg.Memory == nil {
		return nil
	}
	_, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.cfg.Memory.Remember(ctx, id) })
	if err != nil {
		return fmt.Errorf("cannot remember which swarm is kept: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept, s.recalled = id, true
	return nil
}

// keep remembers the engine's swarm if none was kept before.
func (s *Swarm) keep(ctx context.Context, i Info) error {
	kept, err := s.recall(ctx)
	if err != nil || kept != "" || i.Swarm == "" {
		return err
	}
	return s.remember(ctx, i.Swarm)
}

// judge says what to do about the engine.
func (s *Swarm) judge(ctx context.Context, i Info) (verdict, error) {
	kept, err := s.recall(ctx)
	if err != nil {
		return verdict{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if i.State != Inactive {
		s.denied = time.Time{}
	} else if s.denied.IsZero() {
		s.denied = now
	}
	denies := time.Duration(0)
	if !s.denied.IsZero() {
		denies = now.Sub(s.denied)
	}
	return judge(i, s.cfg.Host, kept, denies), nil
}

// Replace gives a lost swarm up: the one that the engine manages now is kept
// from now on, or a new one if it manages none. It returns the ID of the one
// that is given up, and is an [ErrRefused] if that is not lost.
func (s *Swarm) Replace(ctx context.Context) (was string, err error) {
	const what = "cannot replace the swarm"
	i, err := s.ask(ctx, fresh)
	if err != nil {
		return "", fmt.Errorf("%s: %w: %w", what, ErrNotReady, err)
	}
	v, err := s.judge(ctx, i)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	switch {
	case v.phase == Ready, v.makeSwarm:
		return "", fmt.Errorf("%w: the swarm is not lost", ErrRefused)
	case v.phase != Lost:
		return "", fmt.Errorf("%s: %w: %w", what, ErrNotReady, errors.New(v.text))
	}
	was, err = s.recall(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if err := s.remember(ctx, ""); err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	s.mu.Lock()
	s.lastAt = time.Time{} // the tokens of the lost one are no good
	s.mu.Unlock()
	s.log.Warn("the lost swarm is given up, as an operator ordered", "id", was)
	s.Nudge()
	return was, nil
}
