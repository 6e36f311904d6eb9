package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// The journal is a directory:
//
//	journal-<n>   what has been committed, in that order
//	snapshot-<n>  all leases as they were when journal-<n> was begun
//	lock          held by the process that writes
//
// The format of the files is described in format.go. To read the leases, take
// the newest snapshot and replay the journals from its number on. Compaction
// begins journal-<n+1>, writes snapshot-<n+1> beside the traffic, renames it
// into place and removes what is older, so at every moment the whole state can
// be read.
type journal struct {
	dir  string
	log  *slog.Logger
	lock *os.File

	mu      sync.Mutex // guards the next three; taken after the table's
	pending []byte     // a frame that is not written yet; empty: nothing is pending
	records int        // in the current journal, with pending ones
	next    *group     // who waits for the next sync; nil: nobody does

	flushing   sync.Mutex // one flush at a time; taken before the table's; guards all below
	file       *os.File
	n          int   // its number
	limit      int   // of records, before it is compacted
	failed     error // a write that failed leaves the file in doubt: nothing more is acknowledged
	compacts   bool  // a compaction runs
	closed     bool
	compacting sync.WaitGroup
}

// A group is some callers of Flush that share a sync. Its first one does it for
// all.
type group struct {
	done chan struct{} // closed when err is set
	err  error
}

// compactAfter is how many records more than there are leases a journal holds
// before it is compacted: some megabytes, replayed in less than a second.
const compactAfter = 20_000

var errClosed = errors.New("cannot keep leases: the table is closed")

// Open reads the leases in a directory, which it creates if need be, and keeps
// them there from now on. Only one process can have it open. A journal that
// ends in the middle of a commit is normal after a crash, and cut there; one
// that is damaged elsewhere is an error that says where and what can be done.
func Open(dir string, log *slog.Logger) (*Table, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot keep leases: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot keep leases: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot keep leases in %s: another bootd uses it (%w)", dir, err)
	}
	t := newTable()
	j := &journal{dir: dir, log: log, lock: lock}
	if err := j.replay(t); err != nil {
		lock.Close()
		return nil, err
	}
	t.journal = j
	return t, nil
}

// numbered lists the files of one kind by number.
func numbered(dir, kind string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		if s, ok := strings.CutPrefix(e.Name(), kind+"-"); ok {
			if n, err := strconv.Atoi(s); err == nil {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

func (j *journal) name(kind string, n int) string {
	return filepath.Join(j.dir, kind+"-"+strconv.Itoa(n))
}

// replay reads what is there into t and opens the newest journal for
// appending.
func (j *journal) replay(t *Table) error {
	// What a compaction did not finish.
	half, err := filepath.Glob(filepath.Join(j.dir, "new-*"))
	for _, f := range half {
		err = errors.Join(err, os.Remove(f))
	}
	if err != nil {
		return fmt.Errorf("cannot read leases: %w", err)
	}
	snapshots, err := numbered(j.dir, "snapshot")
	if err != nil {
		return fmt.Errorf("cannot read leases: %w", err)
	}
	journals, err := numbered(j.dir, "journal")
	if err != nil {
		return fmt.Errorf("cannot read leases: %w", err)
	}
	first := 0
	if len(snapshots) > 0 {
		first = snapshots[len(snapshots)-1]
		if _, err := j.read(t, j.name("snapshot", first), false); err != nil {
			return err
		}
	}
	j.limit = compactAfter + 2*len(t.byPlace)
	journals = slices.DeleteFunc(journals, func(n int) bool { return n < first })
	end := 0
	j.n = max(first, 1)
	for i, n := range journals {
		// A journal is complete before the next one is begun.
		j.records, j.n = 0, n
		if end, err = j.read(t, j.name("journal", n), i == len(journals)-1); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(j.name("journal", j.n), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("cannot keep leases: %w", err)
	}
	err = begin(f, int64(end))
	if err == nil {
		err = syncDir(j.dir)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("cannot keep leases: %w", err)
	}
	j.file = f
	return nil
}

// begin cuts a file at the end of its last good frame, and writes the magic
// into an empty one.
func begin(f *os.File, end int64) error {
	if err := f.Truncate(end); err != nil {
		return err
	}
	if end == 0 {
		if _, err := f.Write([]byte(magic)); err != nil {
			return err
		}
	} else if _, err := f.Seek(end, 0); err != nil {
		return err
	}
	return f.Sync()
}

// read applies a file to t and returns where its last good frame ends. Only
// the last journal may be torn: what was being written when the process was
// killed had not been acknowledged.
func (j *journal) read(t *Table, name string, last bool) (int, error) {
	b, err := os.ReadFile(name)
	if last && (errors.Is(err, fs.ErrNotExist) || err == nil && len(b) < len(magic) && strings.HasPrefix(magic, string(b))) {
		return 0, nil // killed before the magic was written
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read leases: %w", err)
	}
	if !strings.HasPrefix(string(b), magic) {
		return 0, fmt.Errorf("cannot read leases: %s is not a lease journal of this version of bootd; move it away to begin anew", name)
	}
	end, err := parse(b, func(l Lease) {
		t.putLocked(l) // nobody else knows the table yet
		j.records++
	})
	switch {
	case err == nil:
		return end, nil
	case last && errors.Is(err, errTorn):
		j.log.Warn("cut a lease journal that ends in the middle of a commit", "file", name, "offset", end, "bytes", len(b)-end)
		return end, nil
	}
	return 0, fmt.Errorf("cannot read leases: %s is damaged at byte %d: %w; bring it back from a backup, or go on with what is before the damage: truncate -s %d %s (a machine whose lease is lost by that gets it again when it renews, if the address is still free)",
		name, end, err, end, name)
}

// append notes l for the next flush. The table's lock is held, so records are
// in the order of what happened.
func (j *journal) append(l Lease) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.pending) == 0 {
		j.pending = append(j.pending, make([]byte, frameHeader)...)
	}
	j.pending = encode(j.pending, l)
	j.records++
}

// Flush returns when everything that was bound, released or declined before it
// was called is on stable storage. Callers that come while a sync is under way
// share the next one. After an error nothing is acknowledged, ever again: what
// the file then holds is in doubt, and only opening it anew can tell.
func (t *Table) Flush() error {
	j := t.journal
	j.mu.Lock()
	if g := j.next; g != nil {
		j.mu.Unlock()
		<-g.done
		return g.err
	}
	g := &group{done: make(chan struct{})}
	j.next = g
	j.mu.Unlock()

	j.flushing.Lock()
	defer j.flushing.Unlock()
	g.err = j.flushLocked()
	close(g.done)
	j.mu.Lock()
	due := j.records > j.limit
	j.mu.Unlock()
	if due && g.err == nil && !j.compacts && !j.closed {
		j.compacts = true
		j.compacting.Go(t.compact)
	}
	return g.err
}

// flushLocked writes and syncs what is pending, and ends the gathering of a
// group.
func (j *journal) flushLocked() error {
	j.mu.Lock()
	b := j.pending
	j.pending, j.next = nil, nil
	j.mu.Unlock()
	if j.failed != nil {
		return j.failed
	}
	if len(b) == 0 {
		return nil
	}
	seal(b)
	if _, err := j.file.Write(b); err != nil {
		j.failed = fmt.Errorf("cannot keep leases: %w", err)
		return j.failed
	}
	if err := unix.Fdatasync(int(j.file.Fd())); err != nil {
		j.failed = fmt.Errorf("cannot keep leases: %s: %w", j.file.Name(), err)
	}
	return j.failed
}

// Close flushes and gives the directory up.
func (t *Table) Close() error {
	j := t.journal
	j.flushing.Lock()
	if j.closed {
		j.flushing.Unlock()
		return nil
	}
	j.closed = true // no further compaction begins
	err := j.flushLocked()
	j.flushing.Unlock()
	j.compacting.Wait()
	j.flushing.Lock()
	defer j.flushing.Unlock()
	if j.failed == nil {
		j.failed = errClosed
	}
	return errors.Join(err, j.file.Close(), j.lock.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
