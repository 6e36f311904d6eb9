package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a directory must be quiet before it is read. Editors
	// write a file in several steps, and people save several files at once.
	settle = 200 * time.Millisecond
	// patience is how long it may go on being unquiet.
	patience = 2 * time.Second
)

// Watch calls apply whenever the configuration in the directory of c differs
// from c, and then from what apply was last called with: with the new one, or
// with the [Mistakes] that are in it. A change that leaves every byte as it was
// is none. The directory itself, and the folders in it, may go away and come
// back, or be links that are turned over; a file elsewhere that a link in it
// points to is not watched. It returns when ctx ends, or with an error when the
// directory cannot be watched.
func Watch(ctx context.Context, c *Config, apply func(*Config, error)) error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return fmt.Errorf("cannot watch %s: %w", c.Dir, err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("cannot watch %s: %w", dir, err)
	}
	defer w.Close()
	if err := w.Add(dir); err != nil {
		return fmt.Errorf("cannot watch %s: %w", dir, err)
	}
	seen := c.sum
	calm := unrest{}
	timer := time.NewTimer(0) // what changed since c was read shows at the first look
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if beside := filepath.Dir(e.Name) == filepath.Dir(dir) && dir != filepath.Dir(dir); !beside || e.Name == dir {
				timer.Reset(calm.disturbed(time.Now()))
			}
		case err, ok := <-w.Errors:
			if !ok {
				return nil
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("cannot watch %s: %w", dir, err)
			}
			timer.Reset(calm.disturbed(time.Now())) // events were lost: look
		case <-timer.C:
			calm = unrest{}
			watchAgain(w, dir) // before looking, so that nothing happens unseen between the two
			if now := digest(c.Dir); now != seen {
				seen = now
				apply(Load(c.Dir))
			}
		}
	}
}

// unrest is the time since the first of the changes that have not been looked
// at; the zero value is calm.
type unrest struct{ since time.Time }

// disturbed tells how long to wait after a change at now.
func (u *unrest) disturbed(now time.Time) time.Duration {
	if u.since.IsZero() {
		u.since = now
	}
	return max(min(settle, patience-now.Sub(u.since)), 0)
}

// watchAgain watches what has the names now that are of interest: the
// directory, its folders, and the place where the directory would come back.
// What is not there shows in its parent when it comes.
func watchAgain(w *fsnotify.Watcher, dir string) {
	for _, name := range []string{filepath.Dir(dir), dir, filepath.Join(dir, profilesDir), filepath.Join(dir, machinesDir)} {
		// The name may belong to another directory than before, which only
		// removing makes the watcher see. Neither can fail in a way that matters.
		_ = w.Remove(name)
		_ = w.Add(name)
	}
}

// digest is of everything that Load reads.
func digest(dir string) [sha256.Size]byte {
	h := sha256.New()
	l := &loader{lost: map[string]bool{}}
	fsys := os.DirFS(dir)
	names := append([]string{ServerFile}, append(l.glob(fsys, profilesDir), l.glob(fsys, machinesDir)...)...)
	for _, name := range names {
		b, err := readFile(fsys, name)
		fmt.Fprintf(h, "%s %d %v\n", name, len(b), err)
		h.Write(b)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
