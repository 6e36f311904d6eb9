package store_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"bootd/internal/store"
)

// TestFull fills the store with changes of one record: what is needed is small,
// so it must come back to life by itself, with what was acknowledged.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	var log strings.Builder
	open := func() *store.Store {
		s, err := store.Open(t.Context(), store.Options{Dir: dir, Quota: 4 << 20, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	text := make([]byte, 100_000)
	for i := range text {
		text[i] = 'a' + byte(rand.N(26))
	}
	blobs := store.Kind[string]{Name: "blob"}
	last := 0
	fill := func(s *store.Store) {
		t.Helper()
		for i := range 200 {
			err := s.Update(t.Context(), func(tx *store.Tx) error { return store.Put(tx, blobs, "x", fmt.Sprint(i, string(text))) })
			if errors.Is(err, rpctypes.ErrNoSpace) {
				if !strings.Contains(err.Error(), "the store is full") {
					t.Errorf("err = %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			last = i
		}
		t.Fatal("20 MB went into 4 MB")
	}
	there := func(s *store.Store) {
		t.Helper()
		all, err := store.List(t.Context(), s, blobs, "")
		if err != nil || !strings.HasPrefix(all["x"], fmt.Sprint(last)+string(text[:10])) {
			t.Errorf("change %d is not there: %.20s, %v", last, all["x"], err)
		}
	}
	s := open()
	fill(s)
	there(s)
	// What happens every minute.
	if err := store.Tidy(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", 1)
	there(s)
	if !strings.Contains(log.String(), "takes records again") || strings.Contains(log.String(), "fills up") {
		t.Errorf("log: %s", log.String())
	}
	// And at a start.
	fill(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	put(t, s, "a", 2)
	there(s)
	if s.Size() > 2<<20 {
		t.Errorf("it still takes %d bytes", s.Size())
	}
}
