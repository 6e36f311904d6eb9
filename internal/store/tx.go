package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A Kind is a sort of record, kept as JSON under a name of its own. Names must
// not begin each other.
type Kind[T any] struct{ Name string }

func (k Kind[T]) prefix() string       { return prefix + k.Name + "/" }
func (k Kind[T]) key(id string) string { return k.prefix() + id }
func (k Kind[T]) id(key []byte) string { return strings.TrimPrefix(string(key), k.prefix()) }
func (k Kind[T]) decode(b []byte) (T, error) {
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("a record of %s cannot be read: %w", k.Name, err)
	}
	return v, nil
}

// A Tx is a transaction. It is used by one goroutine, and not after its
// function has returned.
type Tx struct {
	ctx    context.Context
	client *clientv3.Client
	read   map[string]int64 // revision of what was read; 0: it was not there
	puts   map[string]string
	drops  map[string]bool
	order  []string // of keys changed, so that equal transactions are equal

	revision int64 // of the store, that all is read as of; 0 before the first read
}

// What etcd takes in one transaction, unless it is configured otherwise:
// records that are changed, records that are compared, and 1.5 MiB in all
// (embed.DefaultMaxTxnOps, embed.DefaultMaxRequestBytes).
const (
	maxOps   = 128
	maxBytes = 1 << 20
)

// tries is how often a transaction is run before it gives up.
const tries = 30

// pause is the longest wait between two tries. Waiting a random part of it
// lets one of those who are in each other's way go first.
const pause = 40 * time.Millisecond

// Update runs f and writes what it put and deleted, all or nothing. When what
// f has read was changed meanwhile, it runs f again. At most 128 records can be
// read, and as many changed, with 1 MiB of text; more is [ErrTooLarge]. When it
// returns nil, everything is on stable storage.
func (s *Store) Update(ctx context.Context, f func(*Tx) error) error {
	for i := range tries {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(rand.N(min(pause, time.Millisecond<<i))):
			}
		}
		tx := &Tx{ctx: ctx, client: s.client, read: map[string]int64{}, puts: map[string]string{}, drops: map[string]bool{}}
		err := f(tx)
		if errors.Is(err, rpctypes.ErrCompacted) { // the moment it reads as of is forgotten
			continue
		}
		if err != nil {
			return err
		}
		ok, err := tx.commit()
		if err != nil || ok {
			return err
		}
	}
	return ErrConflict
}

// View runs f on a transaction whose changes are dropped. What f reads is all
// as of one moment.
func (s *Store) View(ctx context.Context, f func(*Tx) error) error {
	return f(&Tx{ctx: ctx, client: s.client, read: map[string]int64{}, puts: map[string]string{}, drops: map[string]bool{}})
}

func (t *Tx) commit() (bool, error) {
	var ops []clientv3.Op
	for _, key := range t.order {
		if t.drops[key] {
			ops = append(ops, clientv3.OpDelete(key))
		} else {
			ops = append(ops, clientv3.OpPut(key, t.puts[key]))
		}
	}
	if len(ops) == 0 {
		return true, nil
	}
	bytes := 0
	for key, text := range t.puts {
		bytes += len(key) + len(text)
	}
	if len(ops) > maxOps || len(t.read) > maxOps || bytes > maxBytes {
		return false, fmt.Errorf("%w: it reads %d records, changes %d and writes %d bytes; %d, %d and %d are possible",
			ErrTooLarge, len(t.read), len(ops), bytes, maxOps, maxOps, maxBytes)
	}
	var ifs []clientv3.Cmp
	for key, rev := range t.read {
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(key), "=", rev))
	}
	resp, err := t.client.Txn(t.ctx).If(ifs...).Then(ops...).Commit()
	if err != nil {
		return false, explain(err)
	}
	return resp.Succeeded, nil
}

// explain adds the remedy to errors that have one.
func explain(err error) error {
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return fmt.Errorf("the store is full: %w; unused space is given back every minute, so if this stays, look in the log for what fills it", err)
	}
	return fmt.Errorf("the store does not answer: %w", err)
}

func (t *Tx) change(key string) {
	if !slices.Contains(t.order, key) {
		t.order = append(t.order, key)
	}
}

// Get returns a record, as the transaction has it. The error for one that is
// not there is [ErrNotFound].
func Get[T any](t *Tx, k Kind[T], id string) (T, error) {
	key := k.key(id)
	var none T
	if t.drops[key] {
		return none, fmt.Errorf("%s %s: %w", k.Name, id, ErrNotFound)
	}
	if text, ok := t.puts[key]; ok {
		return k.decode([]byte(text))
	}
	resp, err := t.client.Get(t.ctx, key, clientv3.WithRev(t.revision))
	if err != nil {
		return none, explain(err)
	}
	if t.revision == 0 {
		t.revision = resp.Header.Revision
	}
	if len(resp.Kvs) == 0 {
		t.read[key] = 0
		return none, fmt.Errorf("%s %s: %w", k.Name, id, ErrNotFound)
	}
	t.read[key] = resp.Kvs[0].ModRevision
	return k.decode(resp.Kvs[0].Value)
}

// Put writes a record.
func Put[T any](t *Tx, k Kind[T], id string, v T) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("a record of %s cannot be written: %w", k.Name, err)
	}
	key := k.key(id)
	t.change(key)
	delete(t.drops, key)
	t.puts[key] = string(b)
	return nil
}

// Delete removes a record; one that is not there is no error.
func Delete[T any](t *Tx, k Kind[T], id string) {
	key := k.key(id)
	t.change(key)
	delete(t.puts, key)
	t.drops[key] = true
}

// page is how many records are read at once.
const page = 1000

// List returns the records of a kind whose ID begins with begin, by ID. It
// reads past transactions, all as of one moment. Records that cannot be read are
// left out and named in the error, beside those that can.
func List[T any](ctx context.Context, s *Store, k Kind[T], begin string) (map[string]T, error) {
	out, _, err := list(ctx, s, k, begin)
	return out, err
}

// ListFrom is [List] for the records whose ID is from or comes after it.
func ListFrom[T any](ctx context.Context, s *Store, k Kind[T], from string) (map[string]T, error) {
	out, _, err := between(ctx, s, k, k.key(from), clientv3.GetPrefixRangeEnd(k.prefix()))
	return out, err
}

func list[T any](ctx context.Context, s *Store, k Kind[T], begin string) (map[string]T, int64, error) {
	return between(ctx, s, k, k.key(begin), clientv3.GetPrefixRangeEnd(k.key(begin)))
}

func between[T any](ctx context.Context, s *Store, k Kind[T], from, end string) (map[string]T, int64, error) {
	out := map[string]T{}
	var bad error
	revision := int64(0)
	for {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
		if err != nil {
			return nil, 0, explain(err)
		}
		revision = resp.Header.Revision
		for _, kv := range resp.Kvs {
			v, err := k.decode(kv.Value)
			if err != nil {
				bad = errors.Join(bad, fmt.Errorf("%s: %w", kv.Key, err))
				continue
			}
			out[k.id(kv.Key)] = v
		}
		if !resp.More {
			return out, revision, bad
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
