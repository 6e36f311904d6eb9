package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bootd/internal/store"
)

type record struct{ N int }

var numbers = store.Kind[record]{Name: "numbers"}

func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_CHILD"); dir != "" {
		countForEver(dir)
	}
	os.Exit(m.Run())
}

func open(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t *testing.T, s *store.Store, id string, n int) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return store.Put(tx, numbers, id, record{n}) }); err != nil {
		t.Fatal(err)
	}
}

func TestTransactions(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := t.Context()
	t.Run("own writes are seen, others' not before they are done", func(t *testing.T) {
		failed := errors.New("no")
		err := s.Update(ctx, func(tx *store.Tx) error {
			if _, err := store.Get(tx, numbers, "a"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("err = %v", err)
			}
			if err := store.Put(tx, numbers, "a", record{1}); err != nil {
				return err
			}
			if v, err := store.Get(tx, numbers, "a"); err != nil || v.N != 1 {
				t.Errorf("%v, %v", v, err)
			}
			store.Delete(tx, numbers, "a")
			if _, err := store.Get(tx, numbers, "a"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("err = %v", err)
			}
			return failed
		})
		if err != failed {
			t.Errorf("err = %v", err)
		}
		if all, err := store.List(ctx, s, numbers, ""); err != nil || len(all) != 0 {
			t.Errorf("a failed transaction left %v, %v", all, err)
		}
	})
	t.Run("nobody's increment is lost", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 10 {
					err := s.Update(ctx, func(tx *store.Tx) error {
						v, err := store.Get(tx, numbers, "sum")
						if err != nil && !errors.Is(err, store.ErrNotFound) {
							return err
						}
						return store.Put(tx, numbers, "sum", record{v.N + 1})
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		all, err := store.List(ctx, s, numbers, "sum")
		if err != nil || all["sum"].N != 80 {
			t.Errorf("80 increments made %v, %v", all, err)
		}
	})
	t.Run("lists are read in pages", func(t *testing.T) {
		for from := 0; from < 2500; from += 100 {
			err := s.Update(ctx, func(tx *store.Tx) error {
				for i := from; i < from+100; i++ {
					if err := store.Put(tx, numbers, fmt.Sprintf("page/%05d", i), record{i}); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		all, err := store.List(ctx, s, numbers, "page/")
		if err != nil || len(all) != 2500 || all["page/02499"].N != 2499 {
			t.Errorf("%d records, %v", len(all), err)
		}
	})
}

// TestOneMoment: whatever others do meanwhile, a transaction sees the records
// of one moment, and is not written if they have changed since.
func TestOneMoment(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "a", 1)
	put(t, s, "b", 1)
	runs := 0
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		runs++
		a, err := store.Get(tx, numbers, "a")
		if err != nil {
			return err
		}
		if runs == 1 {
			put(t, s, "a", 2)
			put(t, s, "b", 2)
		}
		again, err := store.Get(tx, numbers, "a")
		if err != nil {
			return err
		}
		b, err := store.Get(tx, numbers, "b")
		if err != nil {
			return err
		}
		if a != again || a != b {
			t.Errorf("run %d reads a = %d, then %d, and b = %d", runs, a.N, again.N, b.N)
		}
		return store.Put(tx, numbers, "sum", record{again.N + b.N})
	})
	if err != nil || runs != 2 {
		t.Errorf("%d runs, %v", runs, err)
	}
	all, err := store.List(t.Context(), s, numbers, "sum")
	if err != nil || all["sum"].N != 4 {
		t.Errorf("2 + 2 = %v, %v", all, err)
	}
}

func TestConflict(t *testing.T) {
	s := open(t, t.TempDir())
	n := 0
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		if _, err := store.Get(tx, numbers, "a"); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		n++
		put(t, s, "a", n)
		return store.Put(tx, numbers, "a", record{-1})
	})
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("err = %v", err)
	}
	if all, err := store.List(t.Context(), s, numbers, ""); err != nil || all["a"].N != n {
		t.Errorf("%v, %v; want %d", all, err, n)
	}
}

func TestTooLarge(t *testing.T) {
	s := open(t, t.TempDir())
	texts := store.Kind[string]{Name: "texts"}
	for _, tt := range []struct {
		records, bytes int
		tooLarge       bool
	}{
		{128, 1, false}, {129, 1, true}, {10, 100_000, false}, {11, 100_000, true},
	} {
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			for i := range tt.records {
				id := fmt.Sprint(tt.records, "/", i)
				if _, err := store.Get(tx, texts, id); err != nil && !errors.Is(err, store.ErrNotFound) {
					return err
				}
				if err := store.Put(tx, texts, id, strings.Repeat("x", tt.bytes)); err != nil {
					return err
				}
			}
			return nil
		})
		if errors.Is(err, store.ErrTooLarge) != tt.tooLarge || err != nil && !tt.tooLarge {
			t.Errorf("%d records of %d bytes: %v", tt.records, tt.bytes, err)
		}
		all, err := store.List(t.Context(), s, texts, fmt.Sprint(tt.records, "/"))
		if err != nil || (len(all) == 0) != tt.tooLarge {
			t.Errorf("%d records of %d are there, %v", len(all), tt.records, err)
		}
	}
}

// TestFollowCompaction: what the store has forgotten before it could be told
// is made up for by a new beginning.
func TestFollowCompaction(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "x", 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen []int
	begins := 0
	err := store.Follow(ctx, s, numbers, func(m map[string]record) {
		begins++
		seen = append(seen, m["x"].N)
		if begins == 1 {
			put(t, s, "x", 2)
			put(t, s, "x", 3)
			put(t, s, "x", 4)
			if err := store.Compact(ctx, s); err != nil {
				t.Error(err)
			}
			return
		}
		put(t, s, "x", 5)
	}, func(c store.Change[record]) {
		if seen = append(seen, c.Value.N); c.Value.N == 5 {
			cancel()
		}
	})
	if err != nil || begins != 2 || fmt.Sprint(seen) != "[1 4 5]" {
		t.Errorf("began %d times, saw %v, %v", begins, seen, err)
	}
}

func TestFollow(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "before", 1)
	ctx, cancel := context.WithCancel(t.Context())
	began := make(chan map[string]record, 1)
	changes := make(chan store.Change[record], 100)
	ended := make(chan error, 1)
	go func() {
		ended <- store.Follow(ctx, s, numbers, func(m map[string]record) { began <- m }, func(c store.Change[record]) { changes <- c })
	}()
	if m := <-began; len(m) != 1 || m["before"].N != 1 {
		t.Errorf("began with %v", m)
	}
	for i := range 50 {
		put(t, s, "x", i)
	}
	if err := s.Update(ctx, func(tx *store.Tx) error { store.Delete(tx, numbers, "x"); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range 51 {
		select {
		case c := <-changes:
			if c.ID != "x" || c.Deleted != (i == 50) || !c.Deleted && c.Value.N != i {
				t.Fatalf("change %d is %+v", i, c)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("change %d never came", i)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	begun := time.Now()
	_, err := store.Open(t.Context(), store.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "another bootd") {
		t.Errorf("err = %v", err)
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("it took %s to say so", d)
	}
}

// TestNoSockets: the embedded member can be reached by nobody else.
func TestNoSockets(t *testing.T) {
	open(t, t.TempDir())
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here to look at")
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			t.Errorf("%s is open", to)
		}
	}
}

// countForEver is the child of TestKill.
func countForEver(dir string) {
	s, err := store.Open(context.Background(), store.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		err := s.Update(context.Background(), func(tx *store.Tx) error { return store.Put(tx, numbers, "count", record{i}) })
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

func TestKill(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STORE_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := -1
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatal(lines.Text())
			}
			if last = n; n == 100 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed, as intended
		s := open(t, dir)
		all, err := store.List(t.Context(), s, numbers, "")
		if err != nil || all["count"].N < last {
			t.Fatalf("%d was acknowledged, %v is there (%v)", last, all, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
