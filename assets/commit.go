package assets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"bootd/boot"
)

// keepPartial is how long an unfinished download waits for its resumption.
const keepPartial = 7 * 24 * time.Hour

// errVanished says that a file was removed from the store while an image that
// was to share it was being fetched.
var errVanished = errors.New("a file was removed meanwhile")

// A verified file is complete, checked and synced, and waits to become part of
// the store.
type verified struct {
	file boot.ImageFile
	path string // where it is now; empty: in the store already
}

// commit makes the files and the record part of the store and the image the
// current one. It is the only way into sha256 and images.
func (s *Store) commit(r Record, got []verified) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()

	for _, v := range got {
		blob := s.blobPath(v.file.SHA256)
		if v.path == "" {
			if st, err := os.Stat(blob); err != nil || st.Size() != v.file.Size {
				return errVanished
			}
			continue
		}
		if err := os.Chmod(v.path, 0o444); err != nil {
			return fmt.Errorf("cannot store %s: %w", v.file.Name, err)
		}
		if err := os.Rename(v.path, blob); err != nil {
			return fmt.Errorf("cannot store %s: %w", v.file.Name, err)
		}
	}
	if err := syncDir(filepath.Join(s.dir, "sha256")); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write the record of %s: %w", r.Image.Name, err)
	}
	if err := s.replace(s.recordPath(r.Image), append(text, '\n')); err != nil {
		return fmt.Errorf("cannot write the record of %s: %w", r.Image.Name, err)
	}
	return s.setCurrent(r.Image.Name, r.Image.CPU, r.Image.Version)
}

// setCurrent needs the lock.
func (s *Store) setCurrent(name, cpu, version string) error {
	if err := s.replace(filepath.Join(s.imageDir(name, cpu), "current"), []byte(version+"\n")); err != nil {
		return fmt.Errorf("cannot make %s the current version of %s: %w", version, name, err)
	}
	return nil
}

// Remove removes a version of an image for all processors, or all its versions
// when version is empty, and the files that no other image uses. A transfer
// under way is finished from the open file. Of the versions that are left, the
// newest takes the place of a removed current one. It returns the number of
// bytes freed.
func (s *Store) Remove(name, version string) (freed int64, err error) {
	unlock, err := s.lock()
	if err != nil {
		return 0, err
	}
	defer unlock()

	recs, listErr := s.List()
	var gone, left []Record
	var have []string
	for _, r := range recs {
		switch {
		case r.Image.Name == name && (version == "" || r.Image.Version == version):
			gone = append(gone, r)
		case r.Image.Name == name:
			left = append(left, r)
			fallthrough
		default:
			have = append(have, r.Image.Name+" "+r.Image.Version)
		}
	}
	if len(gone) == 0 {
		err := fmt.Errorf("image %s is %w, which holds %s", strings.TrimSpace(name+" "+version), ErrNotFound, orNone(have))
		return 0, errors.Join(err, listErr)
	}
	for _, r := range gone {
		if err := s.forget(r, left); err != nil {
			return 0, err
		}
	}
	return s.collectLocked()
}

// forget removes the record r. Those of left are the remaining versions of the
// image, oldest first.
func (s *Store) forget(r Record, left []Record) error {
	dir := s.imageDir(r.Image.Name, r.Image.CPU)
	next := ""
	for _, l := range left {
		if l.Image.CPU == r.Image.CPU {
			next = l.Image.Version
		}
	}
	var err error
	switch {
	case next == "":
		err = os.Remove(filepath.Join(dir, "current"))
	case r.Current:
		err = s.setCurrent(r.Image.Name, r.Image.CPU, next)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove image %s: %w", r.Image.Name, err)
	}
	if err := os.Remove(s.recordPath(r.Image)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove image %s: %w", r.Image.Name, err)
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	// Folders that became empty go too; the first one with something in it ends it.
	for d := dir; d != filepath.Join(s.dir, "images"); d = filepath.Dir(d) {
		if os.Remove(d) != nil {
			break
		}
	}
	return nil
}

// Collect removes files that no image uses, which a killed process may have
// left, and downloads that nobody has resumed for a week. It returns the number
// of bytes freed.
func (s *Store) Collect() (freed int64, err error) {
	unlock, err := s.lock()
	if err != nil {
		return 0, err
	}
	defer unlock()
	return s.collectLocked()
}

func (s *Store) collectLocked() (int64, error) {
	recs, err := s.List()
	if err != nil {
		// What an unreadable record needs is not known, so nothing may go.
		return 0, fmt.Errorf("cannot tell which files are unused: %w", err)
	}
	used := make(map[string]bool)
	for _, r := range recs {
		for _, f := range files(r.Image) {
			used[f.SHA256] = true
		}
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "sha256"))
	if err != nil {
		return 0, fmt.Errorf("cannot collect unused files: %w", err)
	}
	var freed int64
	for _, e := range entries {
		if used[e.Name()] || !digestPattern.MatchString(e.Name()) {
			continue
		}
		if st, err := e.Info(); err == nil {
			freed += st.Size()
		}
		if err := os.Remove(s.blobPath(e.Name())); err != nil {
			return freed, fmt.Errorf("cannot collect unused files: %w", err)
		}
	}
	n, err := s.collectPartial(time.Now().Add(-keepPartial))
	return freed + n, err
}

// collectPartial removes downloads last written before old, except those that a
// Fetch is busy with. The folders and their locks stay: whoever waits for one
// must find the same file.
func (s *Store) collectPartial(old time.Time) (freed int64, err error) {
	dirs, err := os.ReadDir(filepath.Join(s.dir, "partial"))
	if err != nil {
		return 0, fmt.Errorf("cannot collect unfinished downloads: %w", err)
	}
	for _, d := range dirs {
		dir := filepath.Join(s.dir, "partial", d.Name())
		unlock, err := flock(filepath.Join(dir, "lock"), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != nil {
			continue
		}
		freed += emptyPartial(dir, old)
		unlock()
	}
	return freed, nil
}

// emptyPartial removes the files in dir that were last written before old.
func emptyPartial(dir string, old time.Time) (freed int64) {
	entries, _ := os.ReadDir(dir) // none: nothing to remove
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || e.Name() == "lock" || st.ModTime().After(old) {
			continue
		}
		if os.Remove(filepath.Join(dir, e.Name())) == nil {
			freed += st.Size()
		}
	}
	return freed
}

// lock waits for the store's lock. It is held for moments only.
func (s *Store) lock() (unlock func(), err error) {
	path := filepath.Join(s.dir, "lock")
	unlock, err = flock(path, syscall.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the asset store %s: %w", s.dir, err)
	}
	s.own(path)
	return unlock, nil
}

// lockPartial waits until no one else fetches the image, and returns the folder
// for its downloads.
func (s *Store) lockPartial(ctx context.Context, name, cpu string) (dir string, unlock func(), err error) {
	dir = filepath.Join(s.dir, "partial", strings.ReplaceAll(name, "/", "+")+"@"+cpu)
	if err := s.mkdir(dir); err != nil {
		return "", nil, err
	}
	path := filepath.Join(dir, "lock")
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		unlock, err = flock(path, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			s.own(path)
			return dir, unlock, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return "", nil, fmt.Errorf("cannot lock %s: %w", dir, err)
		}
		if err := sleep(ctx, wait); err != nil {
			return "", nil, fmt.Errorf("another process is fetching the same image: %w", err)
		}
	}
}

// flock locks a file, which the kernel unlocks when its process ends. An
// exclusive lock needs no write permission, so the commands of root and a daemon
// that is not root can share one.
func flock(path string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, err
		}
	}
}

// replace writes a file in such a way that path always has either the old or
// the new text.
func (s *Store) replace(path string, text []byte) error {
	dir := filepath.Dir(path)
	if err := s.mkdir(dir); err != nil {
		return err
	}
	// One name for all: only the holder of a lock gets here, and what a killed
	// one left is overwritten.
	temp := filepath.Join(dir, ".new")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	s.own(temp)
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(dir)
}

// mkdir makes a directory below the store's and those above it, durably.
func (s *Store) mkdir(dir string) error {
	if dir == s.dir {
		return nil
	}
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := s.mkdir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s.own(dir)
	return syncDir(parent)
}

// own gives path to the owner of the store, so that what a command of root
// makes can be used by a daemon that is not root. Nobody else may, and for them
// it is theirs already.
func (s *Store) own(path string) {
	if os.Geteuid() == 0 && s.uid != 0 {
		_ = os.Lchown(path, s.uid, s.gid) // a file system without owners has nothing to give
	}
}

// syncDir makes what was renamed into dir survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("cannot sync %s: %w", dir, err)
	}
	return nil
}

// sleep waits, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
