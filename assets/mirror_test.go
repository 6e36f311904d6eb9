package assets_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"bootd/assets"
)

// A mirror is a web server with the layout of Fedora's and Flatcar's.
type mirror struct {
	*httptest.Server
	t   testing.TB
	key *openpgp.Entity

	mu    sync.Mutex
	files map[string][]byte
	log   []string // "GET /path bytes=10-", in order

	// before may answer a request itself, and then returns true. It may be
	// replaced while the server runs.
	before func(w http.ResponseWriter, r *http.Request) bool
	noETag bool
}

func newMirror(t testing.TB) *mirror {
	m := &mirror{t: t, key: newKey(t, nil), files: map[string][]byte{}}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.log = append(m.log, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
	data, ok := m.files[r.URL.Path]
	before, noETag := m.before, m.noETag
	m.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	if !noETag && r.Header.Get("Range") != "" && r.Header.Get("If-Range") == "" {
		m.t.Errorf("%s: a range is asked for without a condition", r.URL.Path)
	}
	if !noETag {
		w.Header().Set("ETag", `"`+digest(data)[:16]+`"`)
	}
	if before != nil && before(w, r) {
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func (m *mirror) put(p string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[p] = data
}

func (m *mirror) remove(p string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, p)
}

// rule replaces before.
func (m *mirror) rule(before func(w http.ResponseWriter, r *http.Request) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = before
}

// takeLog returns the requests since the last time that contain all of words.
func (m *mirror) takeLog(words ...string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var l []string
next:
	for _, line := range m.log {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		l = append(l, line)
	}
	m.log = nil
	return l
}

// putSigned puts a file and its signature.
func (m *mirror) putSigned(p string, data []byte) {
	m.put(p, data)
	m.put(p+".sig", sign(m.t, m.key, data))
}

// putCoreOS publishes a release of the stream "stable", and returns the paths of
// its kernel, initramfs and rootfs.
func (m *mirror) putCoreOS(version string, size int) []string {
	type obj = map[string]any
	pxe := obj{}
	var paths []string
	for i, role := range []string{"kernel", "initramfs", "rootfs"} {
		suffix := map[string]string{"kernel": "", "initramfs": ".img", "rootfs": ".img"}[role]
		p := fmt.Sprintf("/prod/streams/stable/builds/%s/x86_64/fedora-coreos-%s-live-%s.x86_64%s", version, version, role, suffix)
		data := content(version+role, size<<i)
		m.putSigned(p, data)
		paths = append(paths, p)
		// As on a verbatim mirror, the metadata names Fedora's own server.
		pxe[role] = obj{"location": assets.CoreOSBase + p, "signature": assets.CoreOSBase + p + ".sig", "sha256": digest(data)}
	}
	m.put("/streams/stable.json", mustJSON(m.t, obj{
		"stream":   "stable",
		"metadata": obj{"last-modified": "2026-01-01T00:00:00Z"},
		"architectures": obj{"x86_64": obj{"artifacts": obj{
			"metal": obj{"release": version, "formats": obj{"pxe": pxe}},
		}}},
	}))
	return paths
}

// putFlatcar publishes a release as the current one, all at once, and returns the
// paths of its kernel and initrd.
func (m *mirror) putFlatcar(version string, size int) []string {
	dir := "/amd64-usr/current/"
	paths := []string{dir + "flatcar_production_pxe.vmlinuz", dir + "flatcar_production_pxe_image.cpio.gz"}
	release := map[string][]byte{
		dir + "version.txt": fmt.Appendf(nil, "FLATCAR_BUILD=%s\nFLATCAR_VERSION=%s\nFLATCAR_VERSION_ID=%s\n", strings.Split(version, ".")[0], version, version),
	}
	for i, p := range paths {
		data := content(version+p, size<<i)
		release[p] = data
		release[p+".sig"] = sign(m.t, m.key, data)
		release[p+".DIGESTS"] = fmt.Appendf(nil, "# MD5 HASH\n%032x  %s\n# SHA512 HASH\n%x  %s\n", 7, path.Base(p), sha512.Sum512(data), path.Base(p))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.files, release)
	return paths
}

// content makes a file that differs from all with another seed.
func content(seed string, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8(sha256.Sum256([]byte(seed)))
	_, _ = r.Read(b)
	return b
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newKey makes a signing key. change may alter how; nil: not.
func newKey(t testing.TB, change func(*packet.Config)) *openpgp.Entity {
	t.Helper()
	c := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, DefaultHash: crypto.SHA256}
	if change != nil {
		change(c)
	}
	e, err := openpgp.NewEntity("Test Images", "", "images@example.org", c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func sign(t testing.TB, key *openpgp.Entity, data []byte) []byte {
	t.Helper()
	return signAt(t, key, data, time.Now)
}

func signAt(t testing.TB, key *openpgp.Entity, data []byte, now func() time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.DetachSign(&b, key, bytes.NewReader(data), &packet.Config{Time: now}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// trust puts the public key where the store looks for it.
func trust(t testing.TB, s *assets.Store, key *openpgp.Entity) {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), "keys", keyID(key)+".asc"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func keyID(key *openpgp.Entity) string { return fmt.Sprintf("%016X", key.PrimaryKey.KeyId) }

// newStore opens an empty store that trusts m.
func newStore(t testing.TB, m *mirror) *assets.Store {
	t.Helper()
	s := reopen(t, filepath.Join(t.TempDir(), "assets"))
	if m != nil {
		trust(t, s, m.key)
	}
	return s
}

func reopen(t testing.TB, dir string) *assets.Store {
	t.Helper()
	s, err := assets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.KeyDirs = s.KeyDirs[:1] // not those of this machine
	s.Limits.Backoff = time.Millisecond
	s.Limits.Idle = 20 * time.Second
	return s
}

// consistent checks that everything a record names is there and is what its
// name says.
func consistent(t testing.TB, s *assets.Store) []assets.Record {
	t.Helper()
	recs, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		files := append([]string{r.Image.Kernel.SHA256}, r.Image.RootFS.SHA256)
		for _, f := range r.Image.Initrds {
			files = append(files, f.SHA256)
		}
		for _, d := range files {
			data, err := os.ReadFile(filepath.Join(s.Dir(), "sha256", d))
			if err != nil {
				t.Fatalf("%s %s: %v", r.Image.Name, r.Image.Version, err)
			}
			if digest(data) != d {
				t.Fatalf("%s %s: file %s has other contents", r.Image.Name, r.Image.Version, d)
			}
		}
	}
	return recs
}

// tally is a Progress that checks its own rules.
type tally struct {
	t    testing.TB
	mu   sync.Mutex
	size map[string]int64
	got  map[string]int64
	done map[string]bool
	errs []string
}

func newTally(t testing.TB) *tally {
	return &tally{t: t, size: map[string]int64{}, got: map[string]int64{}, done: map[string]bool{}}
}

func (p *tally) Start(name string, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.size[name], p.got[name] = size, 0
}

func (p *tally) Add(name string, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got[name] += n
	if p.got[name] < 0 || (p.size[name] >= 0 && p.got[name] > p.size[name]) {
		p.t.Errorf("progress of %s: %d of %d bytes", name, p.got[name], p.size[name])
	}
}

func (p *tally) Retry(_ string, err error, _ time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, err.Error())
}

func (p *tally) Done(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[name] = true
	if p.size[name] >= 0 && p.got[name] != p.size[name] {
		p.t.Errorf("%s is done with %d of %d bytes told", name, p.got[name], p.size[name])
	}
}

// cutOnce breaks the connection of the first GET of a path with suffix, after n
// bytes.
func cutOnce(m *mirror, suffix string, n int) {
	var once sync.Once
	m.rule(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		cut := false
		once.Do(func() { cut = true })
		if !cut {
			return false
		}
		m.mu.Lock()
		data := m.files[r.URL.Path]
		m.mu.Unlock()
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:n])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
}
