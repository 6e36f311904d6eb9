package lease_test

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot/lease"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("LEASE_CHILD"); dir != "" {
		bindForEver(dir)
	}
	os.Exit(m.Run())
}

const magic = "bootd leases 2\n"

// committed returns the directory of a table with groups of leases, each made
// durable at once, its journal and where each group ends there.
func committed(t *testing.T, groups ...int) (dir string, b []byte, ends []int) {
	t.Helper()
	dir = t.TempDir()
	l := open(t, dir)
	p := pool("10.0.0.10-10.0.0.250")
	name := filepath.Join(dir, "journal-1")
	n := 0
	for _, size := range groups {
		for range size {
			if _, err := l.Bind(p, mac(n), addr(fmt.Sprintf("10.0.0.%d", 10+n)), "node", time.Hour, t0); err != nil {
				t.Fatal(err)
			}
			n++
		}
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(info.Size()))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return dir, b, ends
}

// TestTornTail: a crash in the middle of the last commit, wherever, costs that
// commit and nothing else, and what is committed afterwards is kept.
func TestTornTail(t *testing.T) {
	_, whole, ends := committed(t, 2, 1, 3)
	before, p := ends[1], pool("10.0.0.10-10.0.0.250")
	check := func(what string, b []byte, want int) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "journal-1"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir)
		if got := len(l.All()); got != want {
			t.Fatalf("%s: %d leases, want %d", what, got, want)
		}
		if _, err := l.Bind(p, mac(77), addr("10.0.0.77"), "", time.Hour, t0); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, dir)
		if got := len(l.All()); got != want+1 {
			t.Fatalf("%s: %d leases after a further one, want %d", what, got, want+1)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	check("whole", whole, 6)
	for n := before; n < len(whole); n++ {
		check(fmt.Sprintf("%d bytes", n), whole[:n], 3)
		if n%13 > 0 && n > before+12 {
			continue
		}
		// The file has got its length, but not all of its pages.
		b := bytes.Clone(whole)
		clear(b[n:])
		check(fmt.Sprintf("%d bytes and zeros", n), b, 3)
		b = bytes.Clone(whole)
		clear(b[before:n])
		if n > before {
			check(fmt.Sprintf("zeros up to %d", n), b, 3)
		}
	}
	for n := range len(magic) {
		check(fmt.Sprintf("%d bytes of the magic", n), whole[:n], 0)
	}
}

// TestDamage: a bad byte before the last commit loses acknowledged leases, and
// that is not for a program to decide.
func TestDamage(t *testing.T) {
	dir, whole, ends := committed(t, 2, 1, 3)
	name := filepath.Join(dir, "journal-1")
	for at := len(magic); at < ends[1]; at++ {
		b := bytes.Clone(whole)
		b[at] ^= 1
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := lease.Open(dir, slog.New(slog.DiscardHandler))
		good := len(magic)
		if at >= ends[0] {
			good = ends[0]
		}
		if want := fmt.Sprintf("%s is damaged at byte %d: ", name, good); err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("byte %d changed: err = %v, want %q", at, err, want)
		}
		if remedy := fmt.Sprintf("truncate -s %d %s ", good, name); !strings.Contains(err.Error(), remedy) {
			t.Fatalf("err = %v, want %q", err, remedy)
		}
		if left, _ := os.ReadFile(name); !bytes.Equal(left, b) {
			t.Fatal("the damaged file was changed")
		}
	}
	// The remedy works.
	if err := os.Truncate(name, int64(ends[0])); err != nil {
		t.Fatal(err)
	}
	if got := len(open(t, dir).All()); got != 2 {
		t.Errorf("%d leases after the remedy, want 2", got)
	}
}

func TestForeignFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "journal-1")
	if err := os.WriteFile(name, []byte("bootd leases 99\nnothing that this version knows"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := lease.Open(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("err = %v", err)
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := lease.Open(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another bootd") {
		t.Errorf("err = %v", err)
	}
}

var (
	sameTime = cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
	sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	p := pool("10.0.0.0-10.0.255.255")
	for i := range 60_000 {
		n := i % 100
		if _, err := l.Bind(p, mac(n), netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), "", time.Hour, t0.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := l.All()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var bytes int64
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		bytes += info.Size()
	}
	if bytes > 3_000_000 {
		t.Errorf("%d bytes in %v for 100 leases: not compacted", bytes, files)
	}
	if diff := cmp.Diff(before, open(t, dir).All(), sameTime, sameAddr); diff != "" {
		t.Error(diff)
	}
}

// TestSnapshot: whatever order the leases are written in, all are there
// afterwards; also of a client that has one and has declined others.
func TestSnapshot(t *testing.T) {
	for range 5 { // the order changes from run to run
		dir := t.TempDir()
		l := open(t, dir)
		p := pool("10.0.0.10-10.0.0.99")
		for _, a := range []string{"10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13"} {
			if _, err := l.Bind(p, mac(1), addr(a), "", time.Hour, t0); err != nil {
				t.Fatal(err)
			}
			if a != "10.0.0.13" && !l.Decline("rack", mac(1), addr(a), time.Hour, t0) {
				t.Fatal("not declined")
			}
		}
		fill(t, l, p)
		want := l.All()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if s, _ := filepath.Glob(filepath.Join(dir, "snapshot-*")); len(s) != 1 {
			t.Fatalf("snapshots: %v", s)
		}
		l = open(t, dir)
		if diff := cmp.Diff(want, l.All(), sameTime, sameAddr); diff != "" {
			t.Fatal(diff)
		}
		if got, ok := l.ByMAC("rack", mac(1)); !ok || got.Addr != addr("10.0.0.13") || got.State != lease.Bound {
			t.Fatalf("its lease is %+v", got)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// fill renews one lease until the journal is compacted.
func fill(t *testing.T, l *lease.Table, p lease.Pool) {
	t.Helper()
	for i := range 20_100 {
		if _, err := l.Bind(p, mac(2), addr("10.0.0.20"), "", time.Hour, t0.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedSnapshot: a snapshot was complete before it got its name.
func TestDamagedSnapshot(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	fill(t, l, pool("10.0.0.10-10.0.0.99"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "snapshot-2")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b[:len(b)-1], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := lease.Open(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), name+" is damaged at byte 15") {
		t.Errorf("err = %v", err)
	}
}

// TestHalfCompaction: killed at any point of a compaction, everything is
// there.
func TestHalfCompaction(t *testing.T) {
	dir, _, _ := committed(t, 3, 2)
	for _, leftover := range []string{"new-journal-0", "new-snapshot-2"} {
		if err := os.WriteFile(filepath.Join(dir, leftover), []byte(magic)[:7], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "journal-2"), []byte(magic), 0o644); err != nil { // renamed, no snapshot yet
		t.Fatal(err)
	}
	l := open(t, dir)
	if got := len(l.All()); got != 5 {
		t.Errorf("%d leases, want 5", got)
	}
	if _, err := l.Bind(pool("10.0.0.10-10.0.0.99"), mac(77), addr("10.0.0.77"), "", time.Hour, t0); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := len(open(t, dir).All()); got != 6 {
		t.Errorf("%d leases, want 6", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestClosed: nothing is acknowledged that is not kept.
func TestClosed(t *testing.T) {
	l := open(t, t.TempDir())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Bind(pool("10.0.0.10-10.0.0.99"), mac(1), addr("10.0.0.10"), "", time.Hour, t0); err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(); err == nil {
		t.Error("flushed to a closed journal")
	}
	if err := l.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// perCommit is how many leases the child of TestKill binds before it waits
// for them.
const perCommit = 50

// bindForEver is the child of TestKill: it binds addresses from several
// goroutines, says so when that is durable, and goes on until it is killed. It
// begins behind the addresses that are bound already.
func bindForEver(dir string) {
	fail := func(err error) {
		fmt.Println("error", err)
		os.Exit(1)
	}
	l, err := lease.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		fail(err)
	}
	p := pool("10.0.0.0-10.255.255.255")
	begin := len(l.All())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := begin + g*perCommit; i < 1<<22; i += 8 * perCommit {
				for k := range perCommit {
					if _, err := l.Bind(p, mac(i+k), nth(i+k), "", time.Hour, t0); err != nil {
						fail(err)
					}
				}
				if err := l.Flush(); err != nil {
					fail(err)
				}
				fmt.Println(i)
			}
		})
	}
	wg.Wait()
	os.Exit(1)
}

// TestKill kills a process with kill -9 while it binds; all that it had
// acknowledged is there afterwards. It binds enough to be compacting at times.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[int]bool{}
	compacted := false
	for round := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "LEASE_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		said := func() {
			i, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatal(lines.Text())
			}
			acknowledged[i] = true
		}
		for n := 0; n < 150+round*101 && lines.Scan(); n++ {
			said()
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // said before it died
			said()
		}
		_ = cmd.Wait() // killed, as intended
		l := open(t, dir)
		for i := range acknowledged {
			for k := i; k < i+perCommit; k++ {
				if got, ok := l.ByAddr("rack", nth(k)); !ok || got.State != lease.Bound || got.MAC != mac(k) {
					t.Fatalf("round %d: %s was acknowledged and is lost", round, nth(k))
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		snapshots, _ := filepath.Glob(filepath.Join(dir, "snapshot-*"))
		compacted = compacted || len(snapshots) > 0
	}
	if len(acknowledged) < 800 || !compacted {
		t.Fatalf("only %d commits, compacted: %t", len(acknowledged), compacted)
	}
}
