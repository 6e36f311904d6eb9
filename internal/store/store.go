package store

import (
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
	"go.uber.org/zap"
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
	Log       *slog.Logger
}

// A Store keeps records.
type Store struct {
	client *clientv3.Client
	member *embed.Etcd // nil with an existing cluster
	lock   *os.File

	closing sync.Once
}

// prefix is before all of bootd's keys, since a cluster may have other users.
const prefix = "/bootd/"

// Quota is how large the embedded member's data may become, in bytes. The
// records of 10,000 machines take a hundredth of it.
const Quota = 2 << 30

// dialTimeout bounds how long Open waits for an existing cluster.
const dialTimeout = 5 * time.Second

// Open opens the store, and starts the embedded member if that is where it is.
// Only one process at a time can use a directory.
func Open(ctx context.Context, o Options) (*Store, error) {
	if len(o.Endpoints) > 0 {
		return dial(ctx, o.Endpoints)
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
	s := &Store{lock: lock}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open the store in %s: %w", o.Dir, err), s.Close())
	}
	return s, nil
}

func dial(ctx context.Context, endpoints []string) (*Store, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: dialTimeout, Context: ctx, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("cannot reach the store at %v: %w", endpoints, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := c.Get(ctx, prefix, clientv3.WithCountOnly(), clientv3.WithPrefix()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot reach the store at %v: %w", endpoints, err), c.Close())
	}
	return &Store{client: c}, nil
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
	cfg.QuotaBackendBytes = Quota
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
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
	return s.shrink(ctx, o.Log)
}

// shrink gives unused space back to the file system when there is much of it.
// It stops the member for as long as it takes, so it is done at the start.
func (s *Store) shrink(ctx context.Context, log *slog.Logger) error {
	b := s.member.Server.Backend()
	if size, used := b.Size(), b.SizeInUse(); size > 64<<20 && used < size/2 {
		log.Info("giving unused space back", "bytes", size-used)
		return b.Defrag()
	}
	// A member that was full refuses writes until the alarm is taken back.
	if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return fmt.Errorf("cannot take back its alarms: %w", err)
	}
	return nil
}

// Size is how large the embedded member's data is, in bytes, of [Quota]; 0
// with an existing cluster.
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
