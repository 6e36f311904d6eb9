package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// TestUnrest is about a directory in which something keeps writing: it is
// looked at all the same.
func TestUnrest(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Time{}.Add(time.Hour + d) }
	var u unrest
	for _, tt := range []struct{ after, want time.Duration }{
		{0, settle},
		{100 * time.Millisecond, settle},
		{patience - settle, settle},
		{patience - time.Millisecond, time.Millisecond},
		{patience, 0},
		{patience + time.Hour, 0},
	} {
		if got := u.disturbed(at(tt.after)); got != tt.want {
			t.Errorf("a change after %s is looked at in %s, want %s", tt.after, got, tt.want)
		}
	}
	u = unrest{}
	if got := u.disturbed(at(time.Hour)); got != settle {
		t.Errorf("after a look, a change is looked at in %s", got)
	}
}

// TestWatchingIsQuiet: to watch again what is watched makes no event, else each
// look would lead to the next one.
func TestWatchingIsQuiet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bootd")
	for _, sub := range []string{profilesDir, machinesDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 3 {
		watchAgain(w, dir)
	}
	for _, name := range []string{filepath.Join(profilesDir, "a"), filepath.Join(machinesDir, "a"), "a", filepath.Join("..", "a")} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for seen := false; !seen; {
			select {
			case e := <-w.Events:
				if e.Name != path {
					t.Fatalf("event %s before any change of %s", e, path)
				}
				seen = e.Has(fsnotify.Create)
			case err := <-w.Errors:
				t.Fatal(err)
			case <-time.After(10 * time.Second):
				t.Fatalf("%s was not seen", path)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for removed := false; !removed; {
			e := <-w.Events
			removed = e.Has(fsnotify.Remove)
		}
	}
}
