package lease

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bootd/boot"
)

// The journal is a directory:
//
//	journal-<n>   records in the order in which they were appended
//	snapshot-<n>  all leases as they were when journal-<n> was begun
//	lock          held by the process that writes
//
// Both kinds of file begin with magic, followed by records: length (4 bytes,
// little endian), CRC-32C of the payload (4 bytes), payload. To read it, take
// the newest snapshot and replay the journals from its number on. Compaction
// begins journal-<n+1>, writes snapshot-<n+1> beside the traffic, renames it
// into place and removes what is older, so at every moment the whole state can
// be read.
const magic = "bootd leases 1\n"

// compactAfter is how many records more than there are leases a journal holds
// before it is compacted.
const compactAfter = 20_000

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type journal struct {
	dir  string
	log  *slog.Logger
	lock *os.File

	mu      sync.Mutex // guards pending and records
	pending []byte     // appended, not yet written
	records int        // in the current journal

	flushing sync.Mutex // one flush at a time; guards file, n and failed
	file     *os.File
	n        int
	failed   error // a write that failed leaves the file in doubt: nothing more is acknowledged

	compacting sync.WaitGroup
	busy       bool // a compaction runs; guarded by flushing
}

// Open reads the leases in a directory, which it creates if need be, and keeps
// them there from now on. Only one process can have it open.
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
	snapshots, err := numbered(j.dir, "snapshot")
	if err != nil {
		return fmt.Errorf("cannot read leases: %w", err)
	}
	journals, err := numbered(j.dir, "journal")
	if err != nil {
		return fmt.Errorf("cannot read leases: %w", err)
	}
	from := 0
	if len(snapshots) > 0 {
		from = snapshots[len(snapshots)-1]
		if _, err := j.readFile(t, j.name("snapshot", from)); err != nil {
			return err
		}
	}
	end := int64(0)
	j.n = max(from, 1)
	for _, n := range journals {
		if n < from {
			continue
		}
		j.records = 0
		if end, err = j.readFile(t, j.name("journal", n)); err != nil {
			return err
		}
		j.n = n
	}
	f, err := os.OpenFile(j.name("journal", j.n), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("cannot keep leases: %w", err)
	}
	if err := begin(f, end); err != nil {
		f.Close()
		return fmt.Errorf("cannot keep leases: %w", err)
	}
	j.file = f
	return syncDir(j.dir)
}

// begin cuts a file at the end of its last good record, and writes the magic
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

// readFile applies the records of a file and returns where the last good one
// ends. A process that is killed leaves at most a torn record at the end,
// which was never acknowledged. Damage elsewhere comes from the disk; what can
// still be read behind it is used, and the file is kept aside for inspection.
func (j *journal) readFile(t *Table, name string) (int64, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || len(b) < len(magic) && strings.HasPrefix(magic, string(b)) {
		return 0, nil // killed before the magic was written
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read leases: %w", err)
	}
	if !strings.HasPrefix(string(b), magic) {
		return 0, fmt.Errorf("cannot read leases: %s is not a lease journal of this version of bootd; move it away to begin anew", name)
	}
	pos, good, damaged := len(magic), len(magic), 0
	for pos < len(b) {
		l, n, ok := decodeRecord(b[pos:])
		if !ok {
			pos++
			continue
		}
		if pos > good {
			damaged += pos - good
		}
		t.restore(l)
		j.records++
		pos += n
		good = pos
	}
	if damaged == 0 {
		if good < len(b) {
			j.log.Warn("cut a lease journal that ends in the middle of a record", "file", name, "offset", good, "bytes", len(b)-good)
		}
		return int64(good), nil
	}
	aside := name + ".damaged"
	if err := os.WriteFile(aside, b, 0o600); err != nil {
		return 0, fmt.Errorf("cannot keep a copy of the damaged lease journal %s: %w", name, err)
	}
	j.log.Error("a lease journal is damaged; leases may be missing", "file", name, "damaged_bytes", damaged, "copy", aside)
	return int64(good), nil
}

// restore applies a record of the journal.
func (t *Table) restore(l Lease) {
	t.putLocked(l)
}

const maxText = 255

// encode appends the record of l to b.
func encode(b []byte, l Lease) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, byte(l.State))
	b = append(b, l.MAC[:]...)
	a := l.Addr.As4()
	b = append(b, a[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(l.Start.UnixNano()))
	b = binary.LittleEndian.AppendUint64(b, uint64(l.Expires.UnixNano()))
	for _, s := range []string{l.Network, l.Host} {
		s = s[:min(len(s), maxText)]
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	payload := b[start+8:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(payload, castagnoli))
	return b
}

// The sizes of a payload, without and with texts of full length.
const (
	minPayload = 1 + 6 + 4 + 8 + 8 + 1 + 1
	maxPayload = minPayload + 2*maxText
)

// decodeRecord reads the record at the beginning of b and returns its length.
func decodeRecord(b []byte) (Lease, int, bool) {
	var l Lease
	if len(b) < 8 {
		return l, 0, false
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n < minPayload || n > maxPayload || len(b) < 8+n {
		return l, 0, false
	}
	p := b[8 : 8+n]
	if crc32.Checksum(p, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return l, 0, false
	}
	l.State = State(p[0])
	l.MAC = boot.MAC(p[1:7])
	l.Addr = netip.AddrFrom4([4]byte(p[7:11]))
	l.Start = time.Unix(0, int64(binary.LittleEndian.Uint64(p[11:])))
	l.Expires = time.Unix(0, int64(binary.LittleEndian.Uint64(p[19:])))
	rest := p[27:]
	for _, s := range []*string{&l.Network, &l.Host} {
		if len(rest) < 1 || len(rest) < 1+int(rest[0]) {
			return l, 0, false
		}
		*s = string(rest[1 : 1+rest[0]])
		rest = rest[1+rest[0]:]
	}
	if len(rest) != 0 || l.State < Offered || l.State > Declined {
		return l, 0, false
	}
	return l, 8 + n, true
}

// append notes l for the next flush. The table's lock is held, so records are
// in the order of what happened.
func (j *journal) append(l Lease) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending = encode(j.pending, l)
	j.records++
}

// Flush returns when everything that was bound, released or declined before it
// was called is on stable storage. After an error nothing is, ever again:
// what the file then holds is in doubt, and only a restart can tell.
func (t *Table) Flush() error {
	j := t.journal
	if j == nil {
		return nil
	}
	j.flushing.Lock()
	defer j.flushing.Unlock()
	if err := j.flushLocked(); err != nil {
		return err
	}
	j.mu.Lock()
	records := j.records
	j.mu.Unlock()
	if !j.busy && records > compactAfter {
		t.mu.Lock()
		live := len(t.byPlace)
		t.mu.Unlock()
		if records > 2*live+compactAfter {
			return t.compactLocked()
		}
	}
	return nil
}

func (j *journal) flushLocked() error {
	if j.failed != nil {
		return j.failed
	}
	j.mu.Lock()
	b := j.pending
	j.pending = nil
	j.mu.Unlock()
	if len(b) == 0 {
		return nil
	}
	if _, err := j.file.Write(b); err != nil {
		j.failed = fmt.Errorf("cannot keep leases: %w", err)
		return j.failed
	}
	if err := unix.Fdatasync(int(j.file.Fd())); err != nil {
		j.failed = fmt.Errorf("cannot keep leases: %s: %w", j.file.Name(), err)
	}
	return j.failed
}

// compactLocked begins a new journal and writes the snapshot for it in the
// background. The caller holds flushing.
func (t *Table) compactLocked() error {
	j := t.journal
	next, err := os.OpenFile(j.name("journal", j.n+1), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
	if err == nil {
		err = begin(next, 0)
	}
	if err == nil {
		err = syncDir(j.dir)
	}
	if err != nil {
		if next != nil {
			next.Close()
		}
		j.log.Error("cannot begin a new lease journal; the old one grows on", "err", err)
		return nil
	}
	// What is appended from here on goes to the new journal; what is in the
	// table now, to the snapshot. Records in both do no harm.
	t.mu.Lock()
	if err := j.flushLocked(); err != nil {
		t.mu.Unlock()
		next.Close()
		return err
	}
	leases := make([]Lease, 0, len(t.byPlace))
	for _, e := range t.byPlace {
		if e.State != Offered && !e.MAC.IsZero() {
			leases = append(leases, e.Lease)
		}
	}
	t.mu.Unlock()
	j.file.Close()
	j.file, j.n, j.busy = next, j.n+1, true
	j.mu.Lock()
	j.records = 0
	j.mu.Unlock()
	j.compacting.Add(1)
	go func(n int) {
		defer j.compacting.Done()
		if err := j.snapshot(leases, n); err != nil {
			j.log.Error("cannot compact the leases; the journals are kept", "err", err)
		}
		j.flushing.Lock()
		j.busy = false
		j.flushing.Unlock()
	}(j.n)
	return nil
}

// snapshot writes snapshot-n and removes everything older.
func (j *journal) snapshot(leases []Lease, n int) error {
	b := []byte(magic)
	for _, l := range leases {
		b = encode(b, l)
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
			if i < n {
				if err := os.Remove(j.name(kind, i)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close flushes and gives the directory up.
func (t *Table) Close() error {
	j := t.journal
	if j == nil {
		return nil
	}
	err := t.Flush()
	j.compacting.Wait()
	j.flushing.Lock()
	defer j.flushing.Unlock()
	if j.failed == nil {
		j.failed = errors.New("cannot keep leases: the table is closed")
	}
	return errors.Join(err, j.file.Close(), j.lock.Close())
}
