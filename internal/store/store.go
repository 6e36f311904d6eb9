package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotFound says that there is no such record.
	ErrNotFound = errors.New("no such record")
	// ErrConflict says that others kept changing what a transaction read.
	ErrConflict = errors.New("somebody else kept changing the same records")
	// ErrTooLarge says that a transaction has more than the store takes at
	// once.
	ErrTooLarge = errors.New("the transaction is too large")
)

// Options say where records are kept.
type Options struct {
	Dir       string   // of the embedded member; not used with Endpoints
	Endpoints []string // of an existing cluster: http://10.0.0.1:2379
	Quota     int64    // how large the embedded member's data may become, in bytes; 0: [Quota]
	Log       *slog.Logger
}

// A Store keeps records.
type Store struct {
	client *clientv3.Client
	member *embed.Etcd // nil with an existing cluster
	lock   *os.File
	quota  int64
	log    *slog.Logger

	closing sync.Once
	closed  context.Context // ends with Close
	end     context.CancelFunc
	upkeep  sync.WaitGroup
}

// prefix is before all of bootd's keys, since a cluster may have other users.
const prefix = "/bootd/"

// Quota is how large the embedded member's data may become, in bytes, when
// nothing else is said. The records of 10,000 machines take a tenth of it.
const Quota = 2 << 30

// dialTimeout bounds how long Open waits for an existing cluster.
const dialTimeout = 5 * time.Second

// Open opens the store, and starts the embedded member if that is where it is.
// Only one process at a time can use a directory.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{log: o.Log, quota: cmp.Or(o.Quota, Quota)}
	s.closed, s.end = context.WithCancel(context.Background())
	if len(o.Endpoints) > 0 {
		return s.dial(ctx, o.Endpoints)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open the store: %w", err)
	}
	// etcd waits for ever for its own lock, without a word.
	lock, err := os.OpenFile(filepath.Join(o.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the store: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot open the store in %s: another bootd uses it (%w)", o.Dir, err)
	}
	s.lock = lock
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open the store in %s: %w", o.Dir, err), s.Close())
	}
	s.upkeep.Go(s.keepUp)
	return s, nil
}

func (s *Store) dial(ctx context.Context, endpoints []string) (*Store, error) {
	// The client lives until Close, not only as long as opening may take.
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: dialTimeout, Context: s.closed, Logger: logger(s.log)})
	if err != nil {
		return nil, fmt.Errorf("cannot reach the store at %v: %w", endpoints, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := c.Get(ctx, prefix, clientv3.WithCountOnly(), clientv3.WithPrefix()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot reach the store at %v: %w", endpoints, err), c.Close())
	}
	s.client = c
	return s, nil
}

func (s *Store) start(ctx context.Context, o Options) error {
	cfg := embed.NewConfig()
	cfg.Name = "bootd"
	cfg.Dir = filepath.Join(o.Dir, "etcd")
	// Nobody connects from outside: the addresses are only names, and nothing
	// listens.
	name := url.URL{Scheme: "http", Host: "localhost:0"}
	cfg.AdvertisePeerUrls, cfg.AdvertiseClientUrls = []url.URL{name}, []url.URL{name}
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.QuotaBackendBytes = s.quota
	cfg.SnapshotCount = 10_000
	// One member elects itself; it need not wait for others.
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger(o.Log))
	member, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	s.member = member
	select {
	case <-member.Server.ReadyNotify():
	case err := <-member.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Minute):
		return errors.New("it does not become ready; is the disk busy or full?")
	}
	s.client = v3client.New(member.Server)
	return s.tidy(ctx, true)
}

// Size is how large the embedded member's data is, in bytes; 0 with an existing
// cluster.
func (s *Store) Size() int64 {
	if s.member == nil {
		return 0
	}
	return s.member.Server.Backend().Size()
}

// Close ends the store. Everything that was acknowledged is on disk already.
// Closing it again does nothing.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() { err = s.close() })
	return err
}

func (s *Store) close() error {
	s.end()
	s.upkeep.Wait()
	var err error
	if s.client != nil {
		err = s.client.Close()
		if errors.Is(err, context.Canceled) {
			err = nil // how its client says that it has closed itself
		}
	}
	if s.member != nil {
		s.member.Close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}
