package assets_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestFetchResumes cuts and disturbs the largest download in many ways; each
// time the same image must arrive.
func TestFetchResumes(t *testing.T) {
	const size = 400_000 // of the kernel; the initrd has twice that
	const initrd = "image.cpio.gz"
	tests := []struct {
		name    string
		disturb func(m *mirror)
		ranges  []string // of the requests for the initrd, the first without
	}{
		{"cut connection", func(m *mirror) { cutOnce(m, initrd, 300_000) }, []string{"", "bytes=300000-"}},
		{"cut at the end", func(m *mirror) { cutOnce(m, initrd, 2*size-1) }, []string{"", "bytes=799999-"}},
		{"cut before the first byte", func(m *mirror) { cutOnce(m, initrd, 0) }, []string{"", ""}},
		{"no validator", func(m *mirror) { m.noETag = true; cutOnce(m, initrd, 300_000) }, []string{"", ""}},
		{"no ranges", func(m *mirror) {
			cutOnce(m, initrd, 300_000)
			cut := m.before
			m.before = func(w http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return cut(w, r) }
		}, []string{"", "bytes=300000-"}},
		{"another range", func(m *mirror) {
			cutOnce(m, initrd, 300_000)
			cut := m.before
			m.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") != "" {
					r.Header.Set("Range", "bytes=299999-")
				}
				return cut(w, r)
			}
		}, []string{"", "bytes=300000-", ""}},
		{"server has trouble", func(m *mirror) {
			var n atomic.Int32
			m.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, initrd) && n.Add(1) <= 3 {
					http.Error(w, "try later", http.StatusServiceUnavailable)
					return true
				}
				return false
			}
		}, []string{"", "", "", ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMirror(t)
			m.putFlatcar("4081.2.0", size)
			tt.disturb(m)
			s := newStore(t, m)
			p := newTally(t)
			img, err := s.Fetch(t.Context(), flatcar(m), p)
			if err != nil {
				t.Fatal(err)
			}
			if img.Initrds[0].Size != 2*size {
				t.Errorf("initrd has %d bytes", img.Initrds[0].Size)
			}
			var got []string
			for _, line := range m.takeLog("GET", initrd) {
				if f := strings.Fields(line); strings.HasSuffix(f[1], initrd) {
					got = append(got, strings.TrimPrefix(line, f[0]+" "+f[1]))
				}
			}
			for i := range got {
				got[i] = strings.TrimSpace(got[i])
			}
			if d := cmp.Diff(tt.ranges, got); d != "" {
				t.Errorf("ranges asked for (-want +got):\n%s", d)
			}
			if len(p.errs) != len(tt.ranges)-1 {
				t.Errorf("retries told: %q", p.errs)
			}
		})
	}
}

// TestFetchGivesUpAndGoesOn lets a fetch fail for good in the middle, and the
// next one, of another Store, finish it.
func TestFetchGivesUpAndGoesOn(t *testing.T) {
	m := newMirror(t)
	m.putCoreOS("41.1", 100_000)
	s := newStore(t, m)
	s.Limits.Tries = 2
	m.rule(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "rootfs") && !strings.HasSuffix(r.URL.Path, ".sig") {
			w.Header().Set("Content-Length", "400000")
			if r.Header.Get("Range") == "" {
				_, _ = w.Write(m.files[r.URL.Path][:250_000])
				_ = http.NewResponseController(w).Flush()
			}
			panic(http.ErrAbortHandler)
		}
		return false
	})
	_, err := s.Fetch(t.Context(), coreOS(m), nil)
	if err == nil || !strings.Contains(err.Error(), "rootfs") || !strings.Contains(err.Error(), "2 attempts") {
		t.Fatalf("got %v", err)
	}
	if recs, err := s.List(); len(recs) != 0 || err != nil {
		t.Fatalf("after a failed fetch: %v, %v", recs, err)
	}
	m.rule(nil)
	m.takeLog()
	s = reopen(t, s.Dir())
	if _, err := s.Fetch(t.Context(), coreOS(m), newTally(t)); err != nil {
		t.Fatal(err)
	}
	consistent(t, s)
	log := m.takeLog("GET", "live-")
	log = slices.DeleteFunc(log, func(l string) bool { return strings.HasSuffix(l, ".sig") })
	for _, line := range log {
		if strings.Contains(line, "rootfs") && !strings.HasSuffix(line, "bytes=250000-") {
			t.Errorf("not resumed: %s", line)
		}
	}
	if len(log) == 0 || len(log) > 3 {
		t.Errorf("requests: %q", log)
	}
}

// TestFetchDamagedPart resumes on a part that a power failure has damaged.
func TestFetchDamagedPart(t *testing.T) {
	m := newMirror(t)
	paths := m.putCoreOS("41.1", 100_000)
	s := newStore(t, m)
	s.Limits.Tries = 1
	cutOnce(m, paths[2], 250_000)
	if _, err := s.Fetch(t.Context(), coreOS(m), nil); err == nil {
		t.Fatal("the connection was not cut")
	}
	part := filepath.Join(s.Dir(), "partial", "fedora-coreos+stable@x86_64", filepath.Base(paths[2]))
	data, err := os.ReadFile(part)
	if err != nil {
		t.Fatal(err)
	}
	clear(data[100_000:200_000])
	if err := os.WriteFile(part, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), coreOS(m), newTally(t)); err != nil {
		t.Fatal(err)
	}
	consistent(t, s)
}

// TestFetchFromSilentServer has a server that stops in the middle of a file
// without closing the connection.
func TestFetchFromSilentServer(t *testing.T) {
	m := newMirror(t)
	m.putFlatcar("1.0.0", 100_000)
	s := newStore(t, m)
	s.Limits.Idle = 50 * time.Millisecond
	var once sync.Once
	m.rule(func(w http.ResponseWriter, r *http.Request) bool {
		silent := false
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "image.cpio.gz") {
			once.Do(func() { silent = true })
		}
		if silent {
			w.Header().Set("Content-Length", "200000")
			_, _ = w.Write(m.files[r.URL.Path][:70_000])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
		return silent
	})
	p := newTally(t)
	if _, err := s.Fetch(t.Context(), flatcar(m), p); err != nil {
		t.Fatal(err)
	}
	if len(p.errs) == 0 || !strings.Contains(strings.Join(p.errs, "\n"), "silent for 50ms") {
		t.Errorf("retries: %q", p.errs)
	}
	if log := m.takeLog("GET", "image.cpio.gz bytes=70000-"); len(log) == 0 {
		t.Error("it was not resumed")
	}
}
