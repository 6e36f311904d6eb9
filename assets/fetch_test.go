package assets_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bootd/assets"
	"bootd/boot"
)

func coreOS(m *mirror) assets.CoreOS { return assets.CoreOS{Stream: "stable", Base: m.URL} }

func flatcar(m *mirror) assets.Flatcar { return assets.Flatcar{Channel: "stable", Base: m.URL} }

func TestFetchCoreOS(t *testing.T) {
	m := newMirror(t)
	paths := m.putCoreOS("41.20250101.3.0", 100_000)
	s := newStore(t, m)
	p := newTally(t)

	got, err := s.Fetch(t.Context(), coreOS(m), p)
	if err != nil {
		t.Fatal(err)
	}
	file := func(i int) boot.ImageFile {
		data := m.files[paths[i]]
		return boot.ImageFile{Name: filepath.Base(paths[i]), SHA256: digest(data), Size: int64(len(data))}
	}
	root := file(2)
	want := boot.Image{
		Name: "fedora-coreos/stable", Version: "41.20250101.3.0", Family: boot.FedoraCoreOS, CPU: "x86_64",
		Kernel: file(0), Initrds: []boot.ImageFile{file(1)}, RootFS: &root,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("image (-want +got):\n%s", d)
	}
	wantRec := []assets.Record{{
		Image: want, Source: m.URL + "/streams/stable.json",
		KeyID: keyID(m.key), Signer: "Test Images <images@example.org>", Current: true,
	}}
	recs := consistent(t, s)
	if d := cmp.Diff(wantRec, recs, cmpopts.IgnoreFields(assets.Record{}, "Fetched")); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
	if time.Since(recs[0].Fetched) > time.Minute {
		t.Errorf("fetched at %v", recs[0].Fetched)
	}
	for _, name := range []string{want.Kernel.Name, want.Initrds[0].Name, root.Name} {
		if !p.done[name] {
			t.Errorf("the progress of %s was not ended", name)
		}
	}
	if left := listFiles(t, filepath.Join(s.Dir(), "partial")); !slices.Equal(left, []string{"lock"}) {
		t.Errorf("left in partial: %v", left)
	}

	// A second time there is nothing to do but to read the metadata.
	m.takeLog()
	if _, err := s.Fetch(t.Context(), coreOS(m), nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"GET /streams/stable.json"}, m.takeLog()); d != "" {
		t.Errorf("requests of the second fetch (-want +got):\n%s", d)
	}
}

func TestFetchFlatcar(t *testing.T) {
	m := newMirror(t)
	paths := m.putFlatcar("4081.2.0", 50_000)
	s := newStore(t, m)
	got, err := s.Fetch(t.Context(), flatcar(m), newTally(t))
	if err != nil {
		t.Fatal(err)
	}
	file := func(i int) boot.ImageFile {
		data := m.files[paths[i]]
		return boot.ImageFile{Name: filepath.Base(paths[i]), SHA256: digest(data), Size: int64(len(data))}
	}
	want := boot.Image{
		Name: "flatcar/stable", Version: "4081.2.0", Family: boot.Flatcar, CPU: "x86_64",
		Kernel: file(0), Initrds: []boot.ImageFile{file(1)},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("image (-want +got):\n%s", d)
	}
	if recs, _ := s.List(); len(recs) != 1 || recs[0].KeyID != keyID(m.key) {
		t.Errorf("records: %+v", recs)
	}

	// A new release becomes the current one; the old one stays.
	m.putFlatcar("4082.0.0", 50_000)
	if _, err := s.Fetch(t.Context(), flatcar(m), nil); err != nil {
		t.Fatal(err)
	}
	if img, err := s.Image("flatcar/stable", "x86_64"); err != nil || img.Version != "4082.0.0" {
		t.Errorf("current: %v, %v", img.Version, err)
	}
	if recs, _ := s.List(); len(recs) != 2 {
		t.Errorf("%d records", len(recs))
	}
}

func TestFetchURLs(t *testing.T) {
	m := newMirror(t)
	k, i := content("k", 3000), content("i", 5000)
	m.put("/a/vmlinuz", k)
	m.putSigned("/a/initrd.img", i)
	src := assets.URLs{
		Name: "rescue", Family: boot.Linux,
		Kernel:  assets.Remote{URL: m.URL + "/a/vmlinuz", SHA256: strings.ToUpper(digest(k))},
		Initrds: []assets.Remote{{URL: m.URL + "/a/initrd.img", SHA256: digest(i), Signature: m.URL + "/a/initrd.img.sig"}},
	}
	s := newStore(t, m)
	got, err := s.Fetch(t.Context(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.Version, "sha256-") || got.Kernel.SHA256 != digest(k) || got.Initrds[0].SHA256 != digest(i) {
		t.Errorf("image: %+v", got)
	}

	m.put("/a/initrd.img.sig", sign(t, m.key, k))
	if _, err := newStore(t, m).Fetch(t.Context(), src, nil); err == nil || !strings.Contains(err.Error(), "signature is not good") {
		t.Errorf("with a signature of another file: %v", err)
	}
}

// TestFetchRefuses lists what must not get into the store, and what the person
// is told.
func TestFetchRefuses(t *testing.T) {
	const version = "41.20250101.3.0"
	tests := []struct {
		name   string
		change func(m *mirror, s *assets.Store, paths []string) assets.Source
		says   []string
		noData bool // it must be found before a file is fetched
	}{
		{"other contents", func(m *mirror, _ *assets.Store, p []string) assets.Source {
			m.put(p[1], content("evil", 200_000))
			return coreOS(m)
		}, []string{"live-initramfs", "SHA-256 digest is", "should be"}, false},
		{"other contents, same digest in the metadata", func(m *mirror, _ *assets.Store, p []string) assets.Source {
			sig := m.files[p[0]+".sig"]
			m.key = newKey(t, nil)
			m.putCoreOS(version, 1000)
			m.put(p[0], content("evil", 1000))
			m.put("/streams/stable.json", []byte(strings.ReplaceAll(string(m.files["/streams/stable.json"]),
				digest(content(version+"kernel", 1000)), digest(content("evil", 1000)))))
			for _, f := range p {
				m.put(f+".sig", sig)
			}
			return coreOS(m)
		}, []string{"signature is not good"}, false},
		{"unknown key", func(m *mirror, s *assets.Store, p []string) assets.Source {
			other := newKey(t, nil)
			for _, f := range p {
				m.put(f+".sig", sign(t, other, m.files[f]))
			}
			s.KeyDirs = append(s.KeyDirs, t.TempDir())
			return coreOS(m)
		}, []string{"signed by key ", "no key file has that key", "*.asc, into ", "/keys", "fedoraproject.org"}, true},
		{"expired key", func(m *mirror, s *assets.Store, p []string) assets.Source {
			past := func() time.Time { return time.Now().Add(-48 * time.Hour) }
			old := newKey(t, func(c *packet.Config) { c.KeyLifetimeSecs = 3600; c.Time = past })
			m.key = old
			for _, f := range p {
				m.put(f+".sig", signAt(t, old, m.files[f], past))
			}
			trust(t, s, old)
			return coreOS(m)
		}, []string{"has expired", ".asc", "newer copy"}, true},
		{"no signature", func(m *mirror, _ *assets.Store, p []string) assets.Source {
			m.remove(p[0] + ".sig")
			return coreOS(m)
		}, []string{"live-kernel.x86_64.sig", "404", "insecure"}, true},
		{"signature is a web page", func(m *mirror, _ *assets.Store, p []string) assets.Source {
			m.put(p[0]+".sig", []byte("<html>please log in</html>"))
			return coreOS(m)
		}, []string{".sig", "not an OpenPGP signature"}, true},
		{"unknown stream", func(m *mirror, _ *assets.Store, _ []string) assets.Source {
			return assets.CoreOS{Stream: "stabel", Base: m.URL}
		}, []string{"fedora-coreos/stabel", m404("/streams/stabel.json"), "stable, testing and next"}, true},
		{"missing file", func(m *mirror, _ *assets.Store, p []string) assets.Source {
			m.remove(p[2])
			return coreOS(m)
		}, []string{"live-rootfs", "404", "mirror complete"}, true},
		{"unknown processor", func(m *mirror, _ *assets.Store, _ []string) assets.Source {
			return assets.CoreOS{Stream: "stable", Base: m.URL, CPU: "aarch64"}
		}, []string{"no release for aarch64"}, true},
		{"not metadata", func(m *mirror, _ *assets.Store, _ []string) assets.Source {
			m.put("/streams/stable.json", []byte("<html>"))
			return coreOS(m)
		}, []string{"/streams/stable.json", "not stream metadata"}, true},
		{"a path as version", func(m *mirror, _ *assets.Store, _ []string) assets.Source {
			m.put("/amd64-usr/current/version.txt", []byte("FLATCAR_VERSION=../../etc\n"))
			return flatcar(m)
		}, []string{"version.txt", `"../../etc" cannot be a version`}, true},
		{"a path as name", func(m *mirror, _ *assets.Store, _ []string) assets.Source {
			return assets.CoreOS{Stream: "stable", Base: m.URL, Name: "../x"}
		}, []string{`"../x" cannot be the name of an image`}, true},
		{"unknown channel", func(m *mirror, _ *assets.Store, _ []string) assets.Source {
			return assets.Flatcar{Channel: "gamma", Base: m.URL + "/gamma"}
		}, []string{"flatcar/gamma", "stable, beta, alpha and lts"}, true},
		{"no server", func(m *mirror, s *assets.Store, _ []string) assets.Source {
			s.Limits.Tries = 2
			m.Close()
			return coreOS(m)
		}, []string{"connection refused", "2 attempts", "import"}, true},
		{"disk too small", func(m *mirror, _ *assets.Store, _ []string) assets.Source {
			m.rule(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodHead {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<60))
				return true
			})
			return coreOS(m)
		}, []string{"MB free", "MB more are needed", "asset rm"}, true},
		{"digest left out", func(m *mirror, _ *assets.Store, p []string) assets.Source {
			return assets.URLs{Name: "x", Family: boot.Linux, Kernel: assets.Remote{URL: m.URL + p[0]}}
		}, []string{"is not a SHA-256 digest", "sha256sum"}, true},
		{"address of a page", func(m *mirror, _ *assets.Store, _ []string) assets.Source {
			return assets.URLs{Name: "x", Family: boot.Linux, Kernel: assets.Remote{URL: "ftp://x/vmlinuz", SHA256: digest(nil)}}
		}, []string{"ftp://x/vmlinuz", "http or https"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMirror(t)
			paths := m.putCoreOS(version, 100_000)
			s := newStore(t, m)
			src := tt.change(m, s, paths)
			_, err := s.Fetch(t.Context(), src, nil)
			if err == nil {
				t.Fatal("it was fetched")
			}
			t.Log(err)
			for _, want := range tt.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			if recs, err := s.List(); len(recs) != 0 || err != nil {
				t.Errorf("the store has %v, %v", recs, err)
			}
			if blobs := listFiles(t, filepath.Join(s.Dir(), "sha256")); len(blobs) != 0 {
				t.Errorf("the store has files %v", blobs)
			}
			if tt.noData {
				for _, line := range m.takeLog("GET", "live-") {
					if !strings.HasSuffix(line, ".sig") {
						t.Errorf("fetched in vain: %s", line)
					}
				}
			}
		})
	}
}

func m404(path string) string { return path + ": the server answered 404 Not Found" }

func TestFetchInsecure(t *testing.T) {
	m := newMirror(t)
	for _, f := range append(m.putCoreOS("41.1", 1000), m.putFlatcar("1.2.3", 1000)...) {
		m.remove(f + ".sig")
	}
	s := newStore(t, nil)
	if _, err := s.Fetch(t.Context(), assets.CoreOS{Stream: "stable", Base: m.URL, Insecure: true}, nil); err != nil {
		t.Error(err)
	}
	src := assets.Flatcar{Channel: "stable", Base: m.URL, Insecure: true}
	if _, err := s.Fetch(t.Context(), src, nil); err != nil {
		t.Error(err)
	}
	recs, err := s.List()
	if err != nil || len(recs) != 2 || recs[0].KeyID != "" || recs[1].KeyID != "" {
		t.Errorf("records: %+v, %v", recs, err)
	}

	// What was taken without a signature is not taken for signed later.
	if _, err := s.Fetch(t.Context(), coreOS(m), nil); err == nil || !strings.Contains(err.Error(), "insecure") {
		t.Errorf("a secure fetch after an insecure one: %v", err)
	}

	// Damage on the way is noticed by the server's list of sums.
	m.put("/amd64-usr/current/flatcar_production_pxe.vmlinuz", content("damaged", 1000))
	if _, err := newStore(t, nil).Fetch(t.Context(), src, nil); err == nil || !strings.Contains(err.Error(), "SHA-512") {
		t.Errorf("damaged file: %v", err)
	}
}

// TestFetchKeyComesLater gives the key after a first attempt.
func TestFetchKeyComesLater(t *testing.T) {
	m := newMirror(t)
	m.putCoreOS("41.1", 1000)
	s := newStore(t, nil)
	if _, err := s.Fetch(t.Context(), coreOS(m), nil); err == nil || !strings.Contains(err.Error(), keyID(m.key)) {
		t.Fatalf("without the key: %v", err)
	}
	trust(t, s, m.key)
	if _, err := s.Fetch(t.Context(), coreOS(m), nil); err != nil {
		t.Fatal(err)
	}
}

// TestFetchOfMovingSource releases a new version while the old one is being
// fetched.
func TestFetchOfMovingSource(t *testing.T) {
	t.Run("between the files", func(t *testing.T) {
		m := newMirror(t)
		m.putFlatcar("1.0.0", 100_000)
		s := newStore(t, m)
		s.Limits.Parallel = 1
		var once sync.Once
		m.rule(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "image.cpio.gz") {
				once.Do(func() { m.putFlatcar("2.0.0", 100_000) })
			}
			return false
		})
		img, err := s.Fetch(t.Context(), flatcar(m), newTally(t))
		if err != nil || img.Version != "2.0.0" {
			t.Fatalf("got %q, %v", img.Version, err)
		}
		if recs, _ := s.List(); len(recs) != 1 {
			t.Errorf("records: %v", recs)
		}
	})
	t.Run("within a file", func(t *testing.T) {
		m := newMirror(t)
		m.putFlatcar("1.0.0", 100_000)
		s := newStore(t, m)
		cutOnce(m, "image.cpio.gz", 150_000)
		cut := m.before
		m.rule(func(w http.ResponseWriter, r *http.Request) bool {
			defer func() {
				if e := recover(); e != nil {
					m.putFlatcar("2.0.0", 100_000)
					panic(e)
				}
			}()
			return cut(w, r)
		})
		img, err := s.Fetch(t.Context(), flatcar(m), newTally(t))
		if err != nil || img.Version != "2.0.0" {
			t.Fatalf("got %q, %v", img.Version, err)
		}
	})
	t.Run("files of the old one are gone", func(t *testing.T) {
		m := newMirror(t)
		paths := m.putCoreOS("41.1", 1000)
		s := newStore(t, m)
		var once sync.Once
		m.rule(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "rootfs.x86_64.img") || !strings.Contains(r.URL.Path, "41.1") {
				return false
			}
			once.Do(func() { m.putCoreOS("41.2", 1000); m.remove(paths[2]) })
			http.NotFound(w, r)
			return true
		})
		img, err := s.Fetch(t.Context(), coreOS(m), newTally(t))
		if err != nil || img.Version != "41.2" {
			t.Fatalf("got %q, %v", img.Version, err)
		}
	})
}

// TestFetchTwiceAtOnce has two stores on one directory, as a daemon and a
// command, fetch the same.
func TestFetchTwiceAtOnce(t *testing.T) {
	m := newMirror(t)
	paths := m.putFlatcar("1.0.0", 100_000)
	s := newStore(t, m)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := reopen(t, s.Dir()).Fetch(t.Context(), flatcar(m), newTally(t)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	log := slices.DeleteFunc(m.takeLog("GET", paths[1]), func(l string) bool { return l != "GET "+paths[1] })
	if len(log) != 1 {
		t.Errorf("fetched %d times", len(log))
	}
}

func listFiles(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, filepath.Base(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
