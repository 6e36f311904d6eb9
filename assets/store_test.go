package assets_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/assets"
	"bootd/boot"
)

// TestMain lets the test binary be the process that is killed, and the client of
// the benchmark.
func TestMain(m *testing.M) {
	if url := os.Getenv("BOOTD_TEST_GET"); url != "" {
		if err := client(url); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv("BOOTD_TEST_CHILD"); dir != "" {
		child(dir, os.Getenv("BOOTD_TEST_URL"))
	}
	os.Exit(m.Run())
}

// child fetches and removes for ever, and says each thing it has done on a line
// of its own. A line "current V" is an acknowledgement: V must not be lost.
func child(dir, url string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	s, err := assets.Open(dir)
	fail(err)
	s.Limits.Backoff = time.Millisecond
	for i := 0; ; i++ {
		src := assets.CoreOS{Stream: "stable", Base: url + []string{"/a", "/b"}[i%2]}
		img, err := s.Fetch(context.Background(), src, lines{})
		fail(err)
		fmt.Println("current", img.Version)
		recs, err := s.List()
		fail(err)
		for _, r := range recs {
			if !r.Current {
				_, err := s.Remove(r.Image.Name, r.Image.Version)
				fail(err)
				fmt.Println("removed", r.Image.Version)
			}
		}
	}
}

// lines is a Progress for the parent.
type lines struct{}

func (lines) Start(name string, _ int64)         { fmt.Println("start", name) }
func (lines) Add(name string, n int64)           { fmt.Println("add", name, n) }
func (lines) Retry(string, error, time.Duration) {}
func (lines) Done(name string)                   { fmt.Println("done", name) }

// startChild runs child until it has written a line for which stop returns true,
// kills it with SIGKILL, and returns the lines.
func startChild(t *testing.T, dir, url string, stop func(n int, line string) bool) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "BOOTD_TEST_CHILD="+dir, "BOOTD_TEST_URL="+url)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for sc := bufio.NewScanner(out); sc.Scan(); {
		seen = append(seen, sc.Text())
		if strings.HasPrefix(sc.Text(), "error") {
			t.Error(sc.Text())
		}
		if stop(len(seen), sc.Text()) {
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the child ended by itself: %v", err)
	}
	return seen
}

// TestKillDuringDownload kills a process in the middle of a file. The next one
// must go on from there.
func TestKillDuringDownload(t *testing.T) {
	const size = 1 << 20 // of the kernel; the rootfs has four times that
	m := newMirror(t)
	m.putCoreOS("41.1", size)
	m.put("/a/streams/stable.json", redirected(m, "/a"))
	s := newStore(t, m)
	m.rule(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "rootfs.x86_64.img") {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(4*size))
		_, _ = w.Write(m.files[r.URL.Path][:3*size])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // the child's death closes the connection
		return true
	})
	var got, want int64 = 0, 3 * size
	startChild(t, s.Dir(), m.URL, func(_ int, line string) bool {
		var name string
		var n int64
		if k, _ := fmt.Sscanf(line, "add %s %d", &name, &n); k == 2 && strings.Contains(name, "rootfs") {
			got += n
		}
		return got == want
	})
	s = reopen(t, s.Dir())
	if recs := consistent(t, s); len(recs) != 0 {
		t.Errorf("after the kill: %v", recs)
	}
	m.rule(nil)
	m.takeLog()
	src := assets.CoreOS{Stream: "stable", Base: m.URL + "/a"}
	if _, err := s.Fetch(t.Context(), src, newTally(t)); err != nil {
		t.Fatal(err)
	}
	if recs := consistent(t, s); len(recs) != 1 {
		t.Errorf("after the second fetch: %v", recs)
	}
	log := m.takeLog("GET", "rootfs", "bytes=")
	if len(log) != 1 || !strings.HasSuffix(log[0], fmt.Sprintf("bytes=%d-", want)) {
		t.Errorf("not resumed at %d: %q", want, log)
	}
}

// redirected returns the stream metadata for a base with a path, and makes the
// files available there.
func redirected(m *mirror, prefix string) []byte {
	for p, data := range maps.Clone(m.files) {
		if strings.HasPrefix(p, "/prod/") {
			m.put(prefix+p, data)
		}
	}
	return m.files["/streams/stable.json"]
}

// TestKillAnywhere kills a process that replaces and removes images, at many
// moments. What it had acknowledged must be there, and whole.
func TestKillAnywhere(t *testing.T) {
	m := newMirror(t)
	for _, v := range []string{"a", "b"} {
		m.putCoreOS("41."+v, 20_000)
		m.put("/"+v+"/streams/stable.json", redirected(m, "/"+v))
	}
	s := newStore(t, m)
	kills := 40
	if testing.Short() {
		kills = 10
	}
	last := "" // acknowledged version
	for i := range kills {
		seen := startChild(t, s.Dir(), m.URL, func(n int, _ string) bool { return n > 8+i*3 })
		acked := last
		for _, line := range seen {
			if v, ok := strings.CutPrefix(line, "current "); ok {
				acked = v
			}
		}
		s := reopen(t, s.Dir())
		recs := consistent(t, s)
		img, err := s.Image("fedora-coreos/stable", "x86_64")
		// Until the next acknowledgement the next version may be there already.
		if acked != "" && (err != nil || len(recs) == 0) {
			t.Fatalf("kill %d: %s was acknowledged, and now: %v", i, acked, err)
		}
		last = img.Version
	}
	if last == "" {
		t.Error("no child ever got to the end of a fetch: the test shows nothing")
	}
	// The next one tidies up.
	img, err := s.Fetch(t.Context(), assets.CoreOS{Stream: "stable", Base: m.URL + "/a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range consistent(t, s) {
		if r.Image.Version != img.Version {
			if _, err := s.Remove(r.Image.Name, r.Image.Version); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := s.Collect(); err != nil {
		t.Error(err)
	}
	if blobs := listFiles(t, filepath.Join(s.Dir(), "sha256")); len(blobs) != 3 {
		t.Errorf("files left: %v", blobs)
	}
}

// importLinux imports a small image made of kernel and initrd.
func importLinux(t *testing.T, s *assets.Store, name, version, kernel, initrd string) boot.Image {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "vmlinuz", bzImage(kernel))
	write(t, dir, "initrd.img", []byte(initrd))
	img, err := s.Fetch(t.Context(), assets.Dir{Path: dir, Name: name, Version: version}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func write(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// bzImage makes something with the header of an x86 kernel.
func bzImage(text string) []byte {
	b := make([]byte, 0x400)
	copy(b[0x202:], "HdrS")
	return append(b, text...)
}

func TestRemove(t *testing.T) {
	s := newStore(t, nil)
	a1 := importLinux(t, s, "a", "1", "k1", "shared")
	importLinux(t, s, "a", "2", "k2", "i2")
	importLinux(t, s, "b", "1", "kb", "shared")
	has := func(f boot.ImageFile) bool {
		_, err := os.Stat(filepath.Join(s.Dir(), "sha256", f.SHA256))
		return err == nil
	}

	if _, err := s.Remove("a", "3"); !errors.Is(err, assets.ErrNotFound) || !strings.Contains(err.Error(), "a 1, a 2, b 1") {
		t.Errorf("an unknown version: %v", err)
	}
	// The current one goes; the older one takes its place.
	freed, err := s.Remove("a", "2")
	if want := int64(0x400 + 2 + 2); err != nil || freed != want {
		t.Errorf("freed %d, want %d: %v", freed, want, err)
	}
	if img, err := s.Image("a", "x86_64"); err != nil || img.Version != "1" {
		t.Errorf("current is %q, %v", img.Version, err)
	}
	// A file that another image uses stays.
	if _, err := s.Remove("a", ""); err != nil {
		t.Error(err)
	}
	if has(a1.Kernel) || !has(a1.Initrds[0]) {
		t.Errorf("kernel there: %v, shared initrd there: %v", has(a1.Kernel), has(a1.Initrds[0]))
	}
	if _, err := s.Image("a", "x86_64"); !errors.Is(err, assets.ErrNotFound) || !strings.Contains(err.Error(), "b (x86_64)") {
		t.Errorf("a removed image: %v", err)
	}
	if _, err := s.Remove("b", "1"); err != nil {
		t.Error(err)
	}
	for _, sub := range []string{"sha256", "images"} {
		if entries, err := os.ReadDir(filepath.Join(s.Dir(), sub)); err != nil || len(entries) != 0 {
			t.Errorf("left in %s: %v, %v", sub, entries, err)
		}
	}
}

func TestImages(t *testing.T) {
	s := newStore(t, nil)
	importLinux(t, s, "a/b", "1", "k1", "i1")
	importLinux(t, s, "a/b", "2", "k2", "i1")
	dir := t.TempDir()
	arm := make([]byte, 100)
	copy(arm[0x38:], "ARM\x64")
	write(t, dir, "vmlinuz", arm)
	write(t, dir, "initrd", nil)
	for _, name := range []string{"a/b", "c"} {
		if _, err := s.Fetch(t.Context(), assets.Dir{Path: dir, Name: name, Version: "7"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	m, err := s.Images()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for k, img := range m {
		got[k] = img.CPU + " " + img.Version
	}
	want := map[string]string{
		"a/b": "x86_64 2", "a/b/x86_64": "x86_64 2", "a/b/aarch64": "aarch64 7",
		"c": "aarch64 7", "c/aarch64": "aarch64 7",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("images (-want +got):\n%s", d)
	}
}

// TestStamp has a daemon see what commands do.
func TestStamp(t *testing.T) {
	daemon := newStore(t, nil)
	command := reopen(t, daemon.Dir())
	var stamps []string
	step := func(what string) {
		t.Helper()
		st, err := daemon.Stamp()
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(stamps, st) {
			t.Errorf("%s: the stamp is one of before", what)
		}
		stamps = append(stamps, st)
		if again, _ := daemon.Stamp(); again != st {
			t.Errorf("%s: the stamp changes by itself", what)
		}
	}
	step("empty")
	importLinux(t, command, "a", "1", "k", "i")
	step("imported")
	if _, err := daemon.Image("a", "x86_64"); err != nil {
		t.Error(err)
	}
	importLinux(t, command, "a", "2", "k2", "i")
	step("imported another version")
	importLinux(t, command, "a", "1", "k", "i")
	step("went back to the first")
	if img, err := daemon.Image("a", "x86_64"); err != nil || img.Version != "1" {
		t.Errorf("current: %q, %v", img.Version, err)
	}
	if _, err := command.Remove("a", "2"); err != nil {
		t.Error(err)
	}
	step("removed")
}

// TestBrokenRecord damages one of two records.
func TestBrokenRecord(t *testing.T) {
	s := newStore(t, nil)
	importLinux(t, s, "a", "1", "ka", "ia")
	b := importLinux(t, s, "b", "1", "kb", "ib")
	path := filepath.Join(s.Dir(), "images", "b", "x86_64", "1.json")
	for name, text := range map[string]string{
		"not JSON":      "{",
		"another place": `{"image": {"name": "a", "version": "9", "family": "linux", "cpu": "x86_64", "kernel": {"name": "k", "sha256": "` + digest(nil) + `"}}}`,
		"path in name":  `{"image": {"name": "../b", "version": "1", "family": "linux", "cpu": "x86_64"}}`,
		"bad digest":    `{"image": {"name": "b", "version": "1", "family": "linux", "cpu": "x86_64", "kernel": {"name": "k", "sha256": "../../x"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			recs, err := s.List()
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("the error does not name the file: %v", err)
			}
			if len(recs) != 1 || recs[0].Image.Name != "a" {
				t.Errorf("records: %+v", recs)
			}
			if _, err := s.Image("a", "x86_64"); err != nil {
				t.Errorf("the other image: %v", err)
			}
			if _, err := s.Collect(); err == nil {
				t.Error("files were collected without knowing which are in use")
			}
			if _, err := os.Stat(filepath.Join(s.Dir(), "sha256", b.Kernel.SHA256)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCollect removes what a process killed between two renames leaves.
func TestCollect(t *testing.T) {
	s := newStore(t, nil)
	img := importLinux(t, s, "a", "1", "k", "i")
	orphan := content("orphan", 1000)
	write(t, s.Dir(), "sha256/"+digest(orphan), orphan)
	write(t, s.Dir(), "partial/x@x86_64/old", orphan)
	write(t, s.Dir(), "partial/x@x86_64/new", orphan)
	past := time.Now().Add(-30 * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(s.Dir(), "partial/x@x86_64/old"), past, past); err != nil {
		t.Fatal(err)
	}
	freed, err := s.Collect()
	if err != nil || freed != 2000 {
		t.Errorf("freed %d: %v", freed, err)
	}
	want := []string{img.Kernel.SHA256, img.Initrds[0].SHA256}
	slices.Sort(want)
	if d := cmp.Diff(want, listFiles(t, filepath.Join(s.Dir(), "sha256"))); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	if left := listFiles(t, filepath.Join(s.Dir(), "partial", "x@x86_64")); !slices.Equal(left, []string{"lock", "new"}) {
		t.Errorf("unfinished downloads: %v", left)
	}
}

// TestDamagedFileIsMended fetches again what the disk has spoiled.
func TestDamagedFileIsMended(t *testing.T) {
	s := newStore(t, nil)
	img := importLinux(t, s, "a", "1", "kernel", "i")
	path := filepath.Join(s.Dir(), "sha256", img.Kernel.SHA256)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("spoiled"), 0o644); err != nil {
		t.Fatal(err)
	}
	importLinux(t, s, "a", "1", "kernel", "i")
	data, err := os.ReadFile(path)
	if err != nil || digest(data) != img.Kernel.SHA256 {
		t.Errorf("the file is still spoiled (%v)", err)
	}
}

// TestDiskFull fills a real, small file system.
func TestDiskFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small file system needs root: %v (the check before the download is tested by TestFetchRefuses)", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	m := newMirror(t)
	m.putFlatcar("1.0.0", 800_000) // the initrd is twice that
	m.rule(func(w http.ResponseWriter, r *http.Request) bool {
		// Without a size nothing can be checked before.
		if strings.HasSuffix(r.URL.Path, "cpio.gz") {
			if r.Method == http.MethodGet {
				_ = http.NewResponseController(w).Flush()
				_, _ = w.Write(m.files[r.URL.Path])
			}
			return true
		}
		return false
	})
	s := reopen(t, dir)
	trust(t, s, m.key)
	_, err := s.Fetch(t.Context(), flatcar(m), nil)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("got %v", err)
	}
	if recs, err := s.List(); len(recs) != 0 || err != nil {
		t.Errorf("the store has %v, %v", recs, err)
	}
}

// TestOwner has root fetch into the store of a daemon that is not root.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away; for others all files are theirs anyway")
	}
	const uid = 54321
	dir := filepath.Join(t.TempDir(), "assets")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, uid, uid)); err != nil {
		t.Fatal(err)
	}
	importLinux(t, reopen(t, dir), "a/b", "1", "k", "i")
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err == nil && st.Sys().(*syscall.Stat_t).Uid != uid {
			t.Errorf("%s does not belong to the daemon", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
