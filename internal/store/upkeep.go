package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// often is how often the embedded member is looked after.
	often = time.Minute
	// history is how many of the latest changes are kept for those who follow;
	// who is further behind begins anew.
	history = 10_000
	// small is a size that is not worth shrinking, in bytes.
	small = 64 << 20
)

// keepUp looks after the embedded member until the store is closed.
func (s *Store) keepUp() {
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		select {
		case <-s.closed.Done():
			return
		case <-tick.C:
		}
		if err := s.tidy(s.closed, false); err != nil && s.closed.Err() == nil {
			s.log.Error("the store was not tidied; it will be tried again", "err", err)
		}
	}
}

// A state is how full the embedded member is.
type state struct {
	size, used, quota int64 // bytes: of the file, of that what holds something, and that are allowed
	alarm             bool  // it was full, and refuses to write
	starting          bool  // nobody waits for it yet
}

// A chore is what is to be done about a state.
type chore struct {
	keep   int64 // of the latest changes
	shrink bool  // give unused space back; nothing is read or written meanwhile
	resume bool  // write again
	warn   bool  // it may soon be full of what is needed
}

// chores decides. used is what it is after the history was dropped.
func (st state) chores() chore {
	c := chore{keep: history, resume: st.alarm}
	pressed := st.alarm || st.size > st.quota/2
	switch {
	case st.alarm:
		c.keep = 0
	case pressed:
		c.keep = 100
	}
	// The pause that shrinking makes is only worth it when it is needed, or
	// disturbs nobody.
	mostlyEmpty := st.used < st.size/2
	c.shrink = mostlyEmpty && (pressed || st.starting && st.size > small) || st.alarm && st.used < st.size
	c.warn = st.used > st.quota/2
	return c
}

// tidy drops history, gives unused space back, and lets a member that was full
// write again.
func (s *Store) tidy(ctx context.Context, starting bool) error {
	if err := s.compact(ctx, s.state(starting).chores().keep); err != nil {
		return err
	}
	st := s.state(starting)
	c := st.chores()
	if c.warn {
		s.log.Warn("the store fills up; when it is full, no machine can boot", "bytes", st.used, "quota", st.quota)
	}
	if c.shrink {
		begun := time.Now()
		if err := s.member.Server.Backend().Defrag(); err != nil {
			return fmt.Errorf("cannot give unused space back: %w", err)
		}
		s.log.Info("unused space of the store was given back", "bytes", st.size-s.Size(), "took", time.Since(begun).Round(time.Millisecond))
	}
	if c.resume && s.Size() < s.quota {
		if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
			return fmt.Errorf("cannot take back its alarms: %w", err)
		}
		s.log.Info("the store was full, and takes records again", "bytes", s.Size(), "quota", s.quota)
	}
	return nil
}

func (s *Store) state(starting bool) state {
	b := s.member.Server.Backend()
	return state{size: b.Size(), used: b.SizeInUse(), quota: s.quota, alarm: len(s.member.Server.Alarms()) > 0, starting: starting}
}

// compact drops all but the latest changes, and waits until their space is free.
func (s *Store) compact(ctx context.Context, keep int64) error {
	revision := s.member.Server.KV().Rev() - keep
	if revision <= 1 || revision <= s.member.Server.KV().FirstRev() {
		return nil
	}
	_, err := s.client.Compact(ctx, revision, clientv3.WithCompactPhysical())
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("cannot drop history: %w", err)
	}
	return nil
}
