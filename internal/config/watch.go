package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a directory must be quiet before it is read. Editors
// write a file in several steps, and people save several files at once.
const settle = 200 * time.Millisecond

// Watch calls apply whenever the configuration in the directory of c differs
// from c, and then from what apply was last called with: with the new one, or
// with the [Mistakes] that are in it. A change that leaves every byte as it was
// is none. It returns when ctx ends, or with an error when the directory cannot
// be watched.
func Watch(ctx context.Context, c *Config, apply func(*Config, error)) error {
	dir := c.Dir
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("cannot watch %s: %w", dir, err)
	}
	defer w.Close()
	if err := w.Add(dir); err != nil {
		return fmt.Errorf("cannot watch %s: %w", dir, err)
	}
	seen := c.sum
	watchFolders(w, dir)
	timer := time.NewTimer(settle) // what changed since c was read shows at the first look
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return nil
			}
			timer.Reset(settle)
		case err, ok := <-w.Errors:
			if !ok {
				return nil
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("cannot watch %s: %w", dir, err)
			}
			timer.Reset(settle) // events were lost: look
		case <-timer.C:
			watchFolders(w, dir) // they may have come, or come back
			now := digest(dir)
			if now != seen {
				seen = now
				apply(Load(dir))
			}
		}
	}
}

// watchFolders adds the folders that are there. Adding one again does no
// harm; one that is not there yet shows in its parent.
func watchFolders(w *fsnotify.Watcher, dir string) {
	for _, sub := range []string{"profiles", "machines"} {
		_ = w.Add(filepath.Join(dir, sub)) // absent ones are looked for at the next change
	}
}

// digest is of everything that Load reads.
func digest(dir string) [sha256.Size]byte {
	h := sha256.New()
	l := &loader{config: defaults(dir)}
	fsys := os.DirFS(dir)
	names := append([]string{ServerFile}, append(l.glob(fsys, "profiles"), l.glob(fsys, "machines")...)...)
	for _, name := range names {
		b, err := fs.ReadFile(fsys, name)
		fmt.Fprintf(h, "%s %d %v\n", name, len(b), err)
		h.Write(b)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
