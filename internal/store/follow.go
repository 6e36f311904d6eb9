package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrClosed says that the store was closed.
var ErrClosed = errors.New("the store is closed")

// A Change is a record that was put or deleted.
type Change[T any] struct {
	ID      string
	Value   T
	Deleted bool
}

// How long to wait before a store that does not answer is asked again.
const (
	leastWait = 100 * time.Millisecond
	mostWait  = 5 * time.Second
)

// Follow calls begin with all records of a kind, and then change with every
// later change in order, one call at a time, until ctx ends, which is no error.
// It begins anew, with all records, when it has fallen so far behind that the
// store has forgotten what it missed, and when the store did not answer for a
// while. A record that cannot be read is logged, and is as if deleted. The only
// error is [ErrClosed].
func Follow[T any](ctx context.Context, s *Store, k Kind[T], begin func(map[string]T), change func(Change[T])) error {
	wait := leastWait
	for {
		all, revision, err := list(ctx, s, k, "")
		if all != nil {
			if err != nil {
				s.log.Error("some records cannot be read", "kind", k.Name, "err", err)
			}
			begin(all)
			wait = leastWait
			err = watch(ctx, s, k, revision+1, change)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case s.closed.Err() != nil:
			return ErrClosed
		case err == nil:
			continue // forgotten
		}
		s.log.Warn("records cannot be followed; it will be tried again", "kind", k.Name, "err", err, "wait", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-s.closed.Done():
			return ErrClosed
		case <-time.After(wait):
		}
		wait = min(2*wait, mostWait)
	}
}

// watch reports changes from a revision on. It returns nil when the store has
// forgotten that revision, or when ctx ended.
func watch[T any](ctx context.Context, s *Store, k Kind[T], from int64, change func(Change[T])) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range s.client.Watch(ctx, k.prefix(), clientv3.WithPrefix(), clientv3.WithRev(from)) {
		if errors.Is(resp.Err(), rpctypes.ErrCompacted) {
			return nil
		}
		if err := resp.Err(); err != nil {
			return explain(err)
		}
		for _, e := range resp.Events {
			c := Change[T]{ID: k.id(e.Kv.Key), Deleted: e.Type == clientv3.EventTypeDelete}
			if !c.Deleted {
				v, err := k.decode(e.Kv.Value)
				if err != nil {
					s.log.Error("a record cannot be read", "kind", k.Name, "id", c.ID, "err", err)
					c.Deleted = true
				} else {
					c.Value = v
				}
			}
			change(c)
		}
	}
	return errors.New("the store ended the stream of changes")
}
