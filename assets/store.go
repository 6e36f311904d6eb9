package assets

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"bootd/boot"
)

// ErrNotFound is wrapped by errors about images that are not in the store.
var ErrNotFound = errors.New("not in the store")

// A Store keeps images in a directory. Its fields may be changed after [Open]
// and before its first use.
type Store struct {
	// KeyDirs are the directories that are searched for public keys: files
	// named *.asc, *.gpg or *.pub, armored or binary. Each key in them may sign
	// any image.
	KeyDirs []string

	// Client fetches. Open sets one that follows the proxy settings of the
	// environment, and that has no overall timeout: Limits bound a download.
	Client *http.Client

	Limits Limits

	dir string
	uid int // owner of dir, to whom everything in it shall belong
	gid int
}

// Limits bound the downloads of one Fetch.
type Limits struct {
	Parallel int           // files at once
	Tries    int           // attempts in a row that bring less than a megabyte
	Backoff  time.Duration // wait after the first failed attempt; doubles, up to a minute
	Idle     time.Duration // longest silence of a server
}

// A Record is an image in the store, and where it came from.
type Record struct {
	Image   boot.Image `json:"image"`
	Fetched time.Time  `json:"fetched"`
	Source  string     `json:"source"`            // URL or directory
	KeyID   string     `json:"key_id,omitempty"`  // OpenPGP key that signed it, 16 hex digits; empty: no signature was checked
	Signer  string     `json:"signer,omitempty"`  // user ID of that key
	Current bool       `json:"current,omitempty"` // machines get this version; not part of the file
}

// Size is the sum of the image's files, in bytes.
func (r Record) Size() int64 {
	var n int64
	for _, f := range files(r.Image) {
		n += f.Size
	}
	return n
}

// Open opens the store in dir, which is created if need be.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the asset store: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot open the asset store: %w", err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return nil, fmt.Errorf("cannot open the asset store %s: %w", dir, err)
	}
	s := &Store{
		KeyDirs: []string{filepath.Join(dir, "keys"), "/etc/bootd/keys"},
		Client:  newClient(),
		Limits:  Limits{Parallel: 3, Tries: 6, Backoff: time.Second, Idle: time.Minute},
		dir:     dir, uid: int(st.Uid), gid: int(st.Gid),
	}
	for _, sub := range []string{"sha256", "images", "partial", "keys"} {
		if err := s.mkdir(filepath.Join(dir, sub)); err != nil {
			return nil, fmt.Errorf("cannot open the asset store: %w", err)
		}
	}
	return s, nil
}

// Dir returns the directory of the store.
func (s *Store) Dir() string { return s.dir }

// List returns the images in the store, by name, processor and time. A record
// that cannot be read is left out and named in the error; the others are
// returned beside it.
func (s *Store) List() ([]Record, error) {
	root := filepath.Join(s.dir, "images")
	var recs []Record
	var errs []error
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed by somebody else since its folder was read
		case err != nil:
			return err
		case d.IsDir() || strings.HasPrefix(d.Name(), ".") || filepath.Ext(path) != ".json":
			return nil
		}
		r, err := s.readRecord(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			errs = append(errs, err)
		default:
			recs = append(recs, r)
		}
		return nil
	})
	if err != nil {
		errs = append(errs, fmt.Errorf("cannot list images: %w", err))
	}
	slices.SortFunc(recs, func(a, b Record) int {
		return cmp.Or(
			cmp.Compare(a.Image.Name, b.Image.Name),
			cmp.Compare(a.Image.CPU, b.Image.CPU),
			a.Fetched.Compare(b.Fetched),
			cmp.Compare(a.Image.Version, b.Image.Version),
		)
	})
	s.markCurrent(recs)
	return recs, errors.Join(errs...)
}

// markCurrent marks one of the versions of each image. recs is in the order
// of List.
func (s *Store) markCurrent(recs []Record) {
	for len(recs) > 0 {
		first := recs[0].Image
		n := 1
		for n < len(recs) && recs[n].Image.Name == first.Name && recs[n].Image.CPU == first.CPU {
			n++
		}
		// A missing or stale file means that somebody was killed between two
		// steps; the newest is then what would have become current.
		current := n - 1
		text, err := os.ReadFile(filepath.Join(s.imageDir(first.Name, first.CPU), "current"))
		if err == nil {
			version := strings.TrimSpace(string(text))
			for i, r := range recs[:n] {
				if r.Image.Version == version {
					current = i
				}
			}
		}
		recs[current].Current = true
		recs = recs[n:]
	}
}

// Image returns the current version of an image. cpu is x86_64 or aarch64.
func (s *Store) Image(name, cpu string) (boot.Image, error) {
	recs, err := s.List()
	var have []string
	for _, r := range recs {
		if !r.Current {
			continue
		}
		if r.Image.Name == name && r.Image.CPU == cpu {
			return r.Image, nil
		}
		have = append(have, r.Image.Name+" ("+r.Image.CPU+")")
	}
	if err != nil {
		return boot.Image{}, fmt.Errorf("cannot find image %s for %s: %w", name, cpu, err)
	}
	return boot.Image{}, fmt.Errorf("image %s for %s is %w, which holds %s; get it with \"bootd asset fetch\" or \"bootd asset import\"",
		name, cpu, ErrNotFound, orNone(have))
}

// Images returns the current version of every image, for [boot.Catalog].
// Each has the key <name>/<cpu>; the plain <name> is the one for x86_64, or
// whichever there is when there is none for x86_64. What cannot be read is left
// out and named in the error.
func (s *Store) Images() (map[string]boot.Image, error) {
	recs, err := s.List()
	m := make(map[string]boot.Image)
	for _, r := range recs {
		if !r.Current {
			continue
		}
		m[r.Image.Name+"/"+r.Image.CPU] = r.Image
		if _, ok := m[r.Image.Name]; !ok || r.Image.CPU == "x86_64" {
			m[r.Image.Name] = r.Image
		}
	}
	return m, err
}

// Stamp returns a value that differs from the one before when the set of
// images may have changed in between, by this process or another. It costs one
// stat for each record, so it can be asked every second.
func (s *Store) Stamp() (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(filepath.Join(s.dir, "images"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return nil // just removed, which the next stamp shows
		}
		// A replaced file has another inode, whatever the clock's resolution.
		fmt.Fprintln(h, path, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("cannot look for changed images: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// readRecord reads one record and checks that it is what its path says.
func (s *Store) readRecord(path string) (Record, error) {
	var r Record
	text, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("cannot read an image record: %w", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("cannot read image record %s: %w; fetch the image again, or delete the file", path, err)
	}
	if err := checkImage(r.Image); err != nil {
		return r, fmt.Errorf("cannot use image record %s: %w", path, err)
	}
	if want := s.recordPath(r.Image); path != want {
		return r, fmt.Errorf("cannot use image record %s: what it describes belongs at %s", path, want)
	}
	r.Current = false
	return r, nil
}

func (s *Store) imageDir(name, cpu string) string {
	return filepath.Join(s.dir, "images", filepath.FromSlash(name), cpu)
}

func (s *Store) recordPath(img boot.Image) string {
	return filepath.Join(s.imageDir(img.Name, img.CPU), img.Version+".json")
}

func (s *Store) blobPath(digest string) string {
	return filepath.Join(s.dir, "sha256", digest)
}

// hasBlobs reports whether all files of img are in the store.
func (s *Store) hasBlobs(img boot.Image) bool {
	for _, f := range files(img) {
		st, err := os.Stat(s.blobPath(f.SHA256))
		if err != nil || st.Size() != f.Size {
			return false
		}
	}
	return true
}

// files lists the files of an image.
func files(img boot.Image) []boot.ImageFile {
	l := append([]boot.ImageFile{img.Kernel}, img.Initrds...)
	if img.RootFS != nil {
		l = append(l, *img.RootFS)
	}
	return append(l, img.ESXi.Files()...)
}

// Names become paths and URLs, so what they may hold is stated, not what they
// may not.
var (
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,3}$`)
	versionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)
	filePattern    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+~-]{0,199}$`)
	digestPattern  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// cpus are the processors that images are kept for.
var cpus = []string{"x86_64", "aarch64"}

func checkName(name string) error {
	if !namePattern.MatchString(name) || slices.Contains(cpus, name[strings.LastIndexByte(name, '/')+1:]) {
		return fmt.Errorf("%q cannot be the name of an image: use letters, digits, '.', '_' and '-', with up to three '/', as in fedora-coreos/stable", name)
	}
	return nil
}

func checkCPU(cpu string) error {
	if !slices.Contains(cpus, cpu) {
		return fmt.Errorf("%q is not a processor that images are known for (%s)", cpu, strings.Join(cpus, ", "))
	}
	return nil
}

func checkFamily(f boot.Family) error {
	known := []boot.Family{boot.FedoraCoreOS, boot.Flatcar, boot.Linux, boot.ESXi}
	if !slices.Contains(known, f) {
		return fmt.Errorf("%q is not a family of images (%s, %s, %s, %s)", f, known[0], known[1], known[2], known[3])
	}
	return nil
}

func checkVersion(v string) error {
	if !versionPattern.MatchString(v) {
		return fmt.Errorf("%q cannot be a version: use letters, digits, '.', '_', '+', '~' and '-'", v)
	}
	return nil
}

// checkImage checks everything in img that becomes a path or a URL.
func checkImage(img boot.Image) error {
	if err := cmp.Or(checkName(img.Name), checkCPU(img.CPU), checkFamily(img.Family), checkVersion(img.Version)); err != nil {
		return err
	}
	for _, f := range files(img) {
		if !filePattern.MatchString(f.Name) {
			return fmt.Errorf("%q cannot be the name of an image's file", f.Name)
		}
		if !digestPattern.MatchString(f.SHA256) {
			return fmt.Errorf("%s: %q is not a SHA-256 digest in lower-case hexadecimal", f.Name, f.SHA256)
		}
		if f.Size < 0 {
			return fmt.Errorf("%s: its size is %d", f.Name, f.Size)
		}
	}
	return nil
}

func orNone(l []string) string {
	if len(l) == 0 {
		return "nothing"
	}
	return strings.Join(l, ", ")
}
