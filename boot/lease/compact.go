package lease

import (
	"errors"
	"os"
)

// compact begins a new journal and writes the snapshot that comes before it,
// beside the traffic. When that fails the journals that are there are kept; it
// is tried again when as much has been added once more.
func (t *Table) compact() {
	j := t.journal
	leases, n, err := t.turn()
	if err == nil {
		err = j.snapshot(leases, n)
	}
	if err != nil {
		j.log.Error("cannot compact the leases; the journals are kept", "err", err)
	}
	j.flushing.Lock()
	defer j.flushing.Unlock()
	j.compacts = false
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.limit = compactAfter + 2*len(leases); err != nil {
		j.limit += j.records
	}
}

// turn makes a new journal the current one. It returns the leases at that
// moment and the journal's number. Commits wait for a rename only.
func (t *Table) turn() ([]Lease, int, error) {
	j := t.journal
	next, err := os.OpenFile(j.name("new-journal", 0), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
	if err != nil {
		return nil, 0, err
	}
	if err := begin(next, 0); err != nil {
		next.Close()
		return nil, 0, err
	}
	j.flushing.Lock()
	defer j.flushing.Unlock()
	err = j.flushLocked() // so that the old journal is complete
	if err == nil {
		err = os.Rename(next.Name(), j.name("journal", j.n+1))
	}
	if err == nil {
		err = syncDir(j.dir)
	}
	if err != nil {
		// The old journal goes on, so it must stay the newest.
		return nil, 0, errors.Join(err, next.Close(), os.RemoveAll(next.Name()), os.RemoveAll(j.name("journal", j.n+1)))
	}
	// What is committed from here on goes to the new journal; what is in the
	// table now, to the snapshot. Records in both do no harm.
	t.mu.Lock()
	leases := t.listLocked(func(l Lease) bool { return l.State != Offered })
	t.mu.Unlock()
	old := j.file
	j.file, j.n = next, j.n+1
	j.mu.Lock()
	j.records = 0
	j.mu.Unlock()
	return leases, j.n, old.Close()
}

// perFrame is how many leases of a snapshot make a frame.
const perFrame = 1000

// snapshot writes snapshot-n and removes everything older.
func (j *journal) snapshot(leases []Lease, n int) error {
	b := []byte(magic)
	for len(leases) > 0 {
		some := leases[:min(len(leases), perFrame)]
		leases = leases[len(some):]
		from := len(b)
		b = append(b, make([]byte, frameHeader)...)
		for _, l := range some {
			b = encode(b, l)
		}
		seal(b[from:])
	}
	tmp := j.name("new-snapshot", n)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, j.name("snapshot", n))
	}
	if err == nil {
		err = syncDir(j.dir)
	}
	if err != nil {
		return err
	}
	for _, kind := range []string{"journal", "snapshot"} {
		old, err := numbered(j.dir, kind)
		if err != nil {
			return err
		}
		for _, i := range old {
			if i >= n {
				continue
			}
			if err := os.Remove(j.name(kind, i)); err != nil {
				return err
			}
		}
	}
	return nil
}
