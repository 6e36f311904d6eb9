package lease_test

import (
	"encoding/binary"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot/lease"
)

// FuzzJournal: whatever a journal holds, it is read or refused by name; what
// was read is the same when it is read again, and what is bound then is kept.
func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	l := open(f, dir)
	p := pool("10.0.0.10-10.0.0.99")
	for i, a := range []string{"10.0.0.10", "10.0.0.11", "10.0.0.10"} {
		if _, err := l.Bind(p, mac(i), addr(a), "node", time.Minute, t0.Add(time.Duration(i)*time.Hour)); err != nil {
			f.Fatal(err)
		}
		if err := l.Flush(); err != nil {
			f.Fatal(err)
		}
	}
	l.Decline("rack", mac(2), addr("10.0.0.10"), time.Hour, t0.Add(2*time.Hour))
	l.Release("rack", mac(1), addr("10.0.0.11"), t0)
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, "journal-1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, false)
	f.Add(whole[:len(whole)-20], false)
	f.Add([]byte(magic), false)
	f.Add([]byte("bootd lea"), false)
	f.Add(whole[len(magic)+12:], true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed { // records in a frame whose checksum is right
			head := []byte(magic + "\xb0\x07\x1e\xa5")
			head = binary.LittleEndian.AppendUint32(head, uint32(len(b)))
			head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
			b = append(head, b...)
		}
		dir := t.TempDir()
		name := filepath.Join(dir, "journal-1")
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		quiet := slog.New(slog.DiscardHandler)
		l, err := lease.Open(dir, quiet)
		if err != nil {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("the error names no file: %v", err)
			}
			return
		}
		before := l.All()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = lease.Open(dir, quiet); err != nil {
			t.Fatalf("opened once, and not again: %v", err)
		}
		if diff := cmp.Diff(before, l.All(), sameTime, sameAddr); diff != "" {
			t.Errorf("read again (-before +now):\n%s", diff)
		}
		now := t0.AddDate(200, 0, 0)
		bound, bindErr := l.Bind(p, mac(5), addr("10.0.0.50"), "", time.Hour, now)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		got, ok := open(t, dir).ByAddr("rack", addr("10.0.0.50"))
		if bindErr == nil && (!ok || got.MAC != bound.MAC || !got.Expires.Equal(bound.Expires)) {
			t.Errorf("bound %+v, kept %+v", bound, got)
		}
	})
}
