package store_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"bootd/internal/store"
)

// freePort is a loopback address that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// cluster is an etcd that belongs to somebody else, of one member.
func cluster(t *testing.T, dir, addr string) (stop func()) {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.LogLevel = "fatal"
	clients, peers := url.URL{Scheme: "http", Host: addr}, url.URL{Scheme: "http", Host: "localhost:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clients}, []url.URL{clients}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = nil, []url.URL{peers}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = 10, 100
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(e.Close)
	t.Cleanup(stop)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		t.Fatal("etcd does not become ready")
	}
	return stop
}

// TestCluster: with an existing cluster all is as with the embedded member, and
// who follows goes on when it was away.
func TestCluster(t *testing.T) {
	t.Parallel()
	dir, endpoint := t.TempDir(), freePort(t)
	stop := cluster(t, dir, endpoint)
	openCtx, opened := context.WithCancel(t.Context())
	s, err := store.Open(openCtx, store.Options{Endpoints: []string{endpoint}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	opened() // the store does not live on the context it was opened with
	put(t, s, "a", 1)
	if _, err := store.Open(t.Context(), store.Options{Endpoints: []string{endpoint}, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Errorf("a second process: %v", err)
	}
	began := make(chan map[string]record, 10)
	changes := make(chan store.Change[record], 10)
	ended := make(chan error, 1)
	go func() {
		ended <- store.Follow(t.Context(), s, numbers, func(m map[string]record) { began <- m }, func(c store.Change[record]) { changes <- c })
	}()
	if m := <-began; m["a"].N != 1 {
		t.Errorf("began with %v", m)
	}
	stop()
	cluster(t, dir, endpoint)
	put(t, s, "a", 2)
	// It comes as a change, or with a new beginning.
	for got := 0; got != 2; {
		select {
		case m := <-began:
			got = m["a"].N
		case c := <-changes:
			got = c.Value.N
		case <-time.After(30 * time.Second):
			t.Fatal("the change never came")
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, store.ErrClosed) {
		t.Errorf("following ended with %v", err)
	}
	if s.Size() != 0 {
		t.Errorf("a cluster of somebody else's has size %d", s.Size())
	}
}

func TestNoCluster(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := store.Open(ctx, store.Options{Endpoints: []string{freePort(t)}, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "cannot reach the store at") {
		t.Errorf("err = %v", err)
	}
}

// TestUnreadable: one record that is damaged does not hide the others.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	endpoint := freePort(t)
	cluster(t, t.TempDir(), endpoint)
	var log strings.Builder
	s, err := store.Open(t.Context(), store.Options{Endpoints: []string{endpoint}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	damage := func(id string) {
		if _, err := raw.Put(t.Context(), "/bootd/numbers/"+id, "{"); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "good", 1)
	damage("bad")
	all, err := store.List(t.Context(), s, numbers, "")
	if len(all) != 1 || all["good"].N != 1 || err == nil || !strings.Contains(err.Error(), "/bootd/numbers/bad") {
		t.Errorf("%v, %v", all, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan store.Change[record])
	ended := make(chan error, 1)
	go func() {
		ended <- store.Follow(ctx, s, numbers, func(map[string]record) { damage("good"); put(t, s, "other", 2) }, func(c store.Change[record]) { changes <- c })
	}()
	if c := <-changes; c.ID != "good" || !c.Deleted {
		t.Errorf("the damaged record came as %+v", c)
	}
	if c := <-changes; c.ID != "other" || c.Value.N != 2 {
		t.Errorf("after it came %+v", c)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "cannot be read"); n < 2 {
		t.Errorf("log: %s", log.String())
	}
}
