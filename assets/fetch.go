package assets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"golang.org/x/sync/errgroup"

	"bootd/boot"
)

// errMoved says that the source began to offer another version during the fetch.
var errMoved = errors.New("the source changed to another version meanwhile")

// Fetch gets the image that src offers now, verifies it, and makes it the
// current version. What is in the store already is not fetched again, and what
// an interrupted Fetch left is resumed. p may be nil. When the source changes
// during the fetch, it starts over with the new version.
//
// An error names the file or URL and what may be done. After any error the store
// holds what it held before.
func (s *Store) Fetch(ctx context.Context, src Source, p Progress) (boot.Image, error) {
	if p == nil {
		p = silence{}
	}
	g := &getter{client: s.Client, limits: s.Limits}
	const rounds = 3
	for round := 1; ; round++ {
		pl, err := src.resolve(ctx, g)
		if err == nil {
			err = checkPlan(pl)
		}
		if err != nil {
			return boot.Image{}, fmt.Errorf("cannot fetch %s: %w", title(src, pl), err)
		}
		img, err := s.fetch(ctx, src, pl, g, p)
		if err == nil {
			return img, nil
		}
		again := errors.Is(err, errMoved) || errors.Is(err, errVanished) || moved(ctx, src, pl, g, err)
		if round == rounds || !again {
			return boot.Image{}, fmt.Errorf("cannot fetch %s %s: %w", pl.image.Name, pl.image.Version, err)
		}
	}
}

// title names an image for an error that came before its name was known.
func title(src Source, pl plan) string {
	switch c := src.(type) {
	case CoreOS:
		return "fedora-coreos/" + c.Stream
	case Flatcar:
		return "flatcar/" + c.Channel
	case Dir:
		return c.Name
	case URLs:
		return c.Name
	case ISO:
		return cmp.Or(c.Name, c.Path)
	}
	return pl.image.Name
}

// moved reports whether err may come from a source that has changed since pl.
func moved(ctx context.Context, src Source, pl plan, g *getter, err error) bool {
	var m mismatch
	if !errors.As(err, &m) && !isMissing(err) {
		return false
	}
	now, err := src.resolve(ctx, g)
	return err == nil && now.image.Version != pl.image.Version
}

// checkPlan checks what a plan says before anything is fetched.
func checkPlan(pl plan) error {
	img := pl.image
	for _, err := range []error{checkName(img.Name), checkCPU(img.CPU), checkFamily(img.Family), checkVersion(img.Version)} {
		if err != nil {
			return err
		}
	}
	seen := make(map[string]bool)
	for _, f := range pl.parts {
		if !filePattern.MatchString(f.name) {
			return fmt.Errorf("%q cannot be the name of an image's file", f.name)
		}
		if seen[f.name] {
			return fmt.Errorf("two of its files are called %s", f.name)
		}
		seen[f.name] = true
		if f.name == "lock" {
			return fmt.Errorf("%q cannot be the name of an image's file", f.name)
		}
	}
	return nil
}

// fetch carries out a plan.
func (s *Store) fetch(ctx context.Context, src Source, pl plan, g *getter, p Progress) (boot.Image, error) {
	dir, unlock, err := s.lockPartial(ctx, pl.image.Name, pl.image.CPU)
	if err != nil {
		return boot.Image{}, err
	}
	defer unlock()
	if img, ok, err := s.already(pl); ok || err != nil {
		return img, err
	}
	run := &run{s: s, g: g, p: p, pl: pl, dir: dir, ring: s.loadKeys(pl.systemKeys, pl.keyHelp)}
	if err := run.prepare(ctx); err != nil {
		return boot.Image{}, err
	}
	if err := run.obtain(ctx); err != nil {
		return boot.Image{}, err
	}
	if !pl.pinned {
		now, err := src.resolve(ctx, g)
		if err != nil {
			return boot.Image{}, err
		}
		if now.image.Version != pl.image.Version {
			return boot.Image{}, errMoved
		}
	}
	rec := run.record()
	if err := s.commit(rec, run.got); err != nil {
		return boot.Image{}, err
	}
	// What else is there was for versions that nobody wants any more.
	emptyPartial(dir, time.Now().Add(time.Hour))
	return rec.Image, nil
}

// already finds the plan's version in the store, verified as the plan demands,
// and makes it current.
func (s *Store) already(pl plan) (boot.Image, bool, error) {
	unlock, err := s.lock()
	if err != nil {
		return boot.Image{}, false, err
	}
	defer unlock()
	r, err := s.readRecord(s.recordPath(pl.image))
	if err != nil || !s.hasBlobs(r.Image) || (pl.signed && r.KeyID == "") || r.Image.Family != pl.image.Family {
		return boot.Image{}, false, nil // whatever is wrong with it, fetching mends it
	}
	have := files(r.Image)
	if len(have) != len(pl.parts) {
		return boot.Image{}, false, nil
	}
	for i, f := range pl.parts {
		if f.name != have[i].Name || (f.sha256 != "" && f.sha256 != have[i].SHA256) {
			return boot.Image{}, false, nil
		}
	}
	return r.Image, true, s.setCurrent(r.Image.Name, r.Image.CPU, r.Image.Version)
}

// A run is one fetch under way.
type run struct {
	s    *Store
	g    *getter
	p    Progress
	pl   plan
	dir  string // for partial files
	ring keyring

	// One for each part of the plan, each written by one goroutine.
	want   []promises
	sizes  []int64 // -1: not known
	got    []verified
	proofs []proof
}

// prepare finds out, before anything large is fetched, all that would make it
// useless: a missing file, signature or key, a full disk.
func (r *run) prepare(ctx context.Context) error {
	n := len(r.pl.parts)
	r.want, r.sizes, r.got, r.proofs = make([]promises, n), make([]int64, n), make([]verified, n), make([]proof, n)
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(max(1, r.s.Limits.Parallel))
	for i, f := range r.pl.parts {
		eg.Go(func() (err error) {
			if r.want[i], err = r.promises(ctx, f); err != nil {
				return err
			}
			r.sizes[i], err = r.size(ctx, f)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	var need int64
	for i, f := range r.pl.parts {
		if _, ok := r.stored(f); ok || r.sizes[i] < 0 {
			continue
		}
		need += r.sizes[i]
		if st, err := os.Stat(r.partial(f)); err == nil {
			need -= min(st.Size(), r.sizes[i])
		}
	}
	return r.room(need)
}

func (r *run) partial(f part) string { return filepath.Join(r.dir, f.name) }

// stored finds a file with the promised digest in the store.
func (r *run) stored(f part) (int64, bool) {
	if f.sha256 == "" {
		return 0, false
	}
	st, err := os.Stat(r.s.blobPath(f.sha256))
	if err != nil {
		return 0, false
	}
	return st.Size(), true
}

func (r *run) room(need int64) error {
	free, err := freeSpace(r.dir)
	if err != nil {
		return err
	}
	if need > free {
		return fullError(fmt.Sprintf("%s has %d MB free, and %d MB more are needed; make room (\"bootd asset rm\" removes old versions), or move the store",
			r.s.dir, free>>20, (need-free)>>20+1))
	}
	return nil
}

// A fullError foresees that the disk will be full. It is a [syscall.ENOSPC], as
// it would be a moment later.
type fullError string

func (e fullError) Error() string { return string(e) }

func (e fullError) Is(target error) bool { return target == syscall.ENOSPC }

func (r *run) size(ctx context.Context, f part) (int64, error) {
	if n, ok := r.stored(f); ok {
		return n, nil
	}
	if f.within != nil {
		return f.within.size, nil
	}
	if f.path != "" {
		st, err := os.Stat(f.path)
		if err != nil {
			return 0, err
		}
		return st.Size(), nil
	}
	n, err := r.g.size(ctx, f.url)
	if isMissing(err) {
		err = fmt.Errorf("%w: the source names a file that its server does not have; is the mirror complete?", err)
	}
	return n, err
}

// promises collects what the source says of a file: digest and signature.
func (r *run) promises(ctx context.Context, f part) (promises, error) {
	want := promises{sha256: f.sha256}
	var err error
	switch {
	case f.path != "":
		if f.sig != "" {
			want.sig, want.keys, err = localSignature(f.sig, r.ring)
		}
	case f.sig != "":
		want.sig, want.keys, err = r.signature(ctx, f)
	case r.pl.signed:
		err = fmt.Errorf("the source names no signature for %s; images without one are taken only if the source is marked insecure", f.shown())
	case f.sums != "":
		var list []byte
		list, err = r.g.small(ctx, f.sums, 1<<20)
		if isMissing(err) {
			return want, nil
		}
		want.sha512 = sha512In(list, f.name)
	}
	return want, err
}

// signature fetches the signature of f and finds its key.
func (r *run) signature(ctx context.Context, f part) (*signature, openpgp.EntityList, error) {
	data, err := r.g.small(ctx, f.sig, 64<<10)
	if isMissing(err) {
		err = fmt.Errorf("%w: images without a signature are taken only if the source is marked insecure", err)
	}
	if err != nil {
		return nil, nil, err
	}
	sig, err := parseSignature(data)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot use %s: %w", redact(f.sig), err)
	}
	keys, err := r.ring.find(sig, time.Now())
	if err != nil {
		return nil, nil, fmt.Errorf("cannot verify %s: it is %w", f.shown(), err)
	}
	return &sig, keys, nil
}

// obtain gets and checks all files.
func (r *run) obtain(ctx context.Context) (err error) {
	if len(r.pl.parts) > maxShown {
		all := together{r.p, r.pl.image.Name}
		var size int64
		for _, n := range r.sizes {
			size += max(n, 0)
		}
		all.p.Start(all.name, size)
		defer func() {
			if err == nil {
				all.p.Done(all.name)
			}
		}()
		r.p = all
	}
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(max(1, r.s.Limits.Parallel))
	for i, f := range r.pl.parts {
		eg.Go(func() error {
			r.p.Start(f.name, r.sizes[i])
			path, pr, err := r.one(ctx, f, r.want[i])
			if err != nil {
				return err
			}
			r.proofs[i] = pr
			r.got[i] = verified{boot.ImageFile{Name: f.name, SHA256: pr.digest, Size: pr.size}, path}
			r.p.Done(f.name)
			return nil
		})
	}
	return eg.Wait()
}

// one gets one file. The path is empty when it is in the store already.
func (r *run) one(ctx context.Context, f part, want promises) (string, proof, error) {
	if n, ok := r.stored(f); ok {
		if pr, err := check(r.s.blobPath(f.sha256), want); err == nil {
			r.p.Add(f.name, n)
			return "", pr, nil
		}
	}
	path := r.partial(f)
	if f.path != "" {
		if err := r.copy(ctx, f, path); err != nil {
			return "", proof{}, fmt.Errorf("cannot copy %s: %w", f.path, diskError(err))
		}
		pr, err := check(path, want)
		if err != nil {
			os.Remove(path)
			err = fmt.Errorf("cannot import %s: %w", f.path, err)
		}
		return path, pr, err
	}
	for {
		d := &download{g: r.g, part: f, path: path, p: r.p, room: r.room}
		err := d.run(ctx)
		r.s.own(path)
		if err != nil {
			return "", proof{}, err
		}
		pr, err := check(path, want)
		var m mismatch
		if err == nil || !errors.As(err, &m) {
			return path, pr, wrapFile(f, err)
		}
		// What was here before may have been damaged, by a power failure for
		// instance, or the server may have lied about what it continued.
		os.Remove(path)
		os.Remove(path + ".json")
		if !d.resumed {
			return "", pr, wrapFile(f, err)
		}
		r.p.Add(f.name, -d.shown)
	}
}

func wrapFile(f part, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot use %s: %w", f.shown(), err)
}

// copy copies a local file. The kernel shares the blocks where the file system
// can.
func (r *run) copy(ctx context.Context, f part, path string) (err error) {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	var in io.Reader = file
	if f.within != nil {
		in = io.NewSectionReader(file, f.within.off, f.within.size)
	}
	os.Remove(path)
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.CopyN(out, in, 32<<20)
		r.p.Add(f.name, n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	r.s.own(path)
	return out.Sync()
}

// record describes the image that was got.
func (r *run) record() Record {
	rec := Record{Image: r.pl.image, Fetched: time.Now().UTC().Truncate(time.Second), Source: r.pl.source}
	signed := true
	for i, f := range r.pl.parts {
		file := r.got[i].file
		switch f.role {
		case kernel:
			rec.Image.Kernel = file
		case initrd:
			rec.Image.Initrds = append(rec.Image.Initrds, file)
		case rootfs:
			rec.Image.RootFS = &file
		case mbootEFI:
			rec.Image.ESXi.EFI = &file
		case mbootBIOS:
			rec.Image.ESXi.BIOS = &file
		case mbootCrypto:
			rec.Image.ESXi.Crypto = &file
		case pxelinux:
			rec.Image.ESXi.PXELinux = &file
		}
		signed = signed && r.proofs[i].keyID != ""
	}
	if signed {
		rec.KeyID, rec.Signer = r.proofs[0].keyID, r.proofs[0].signer
	}
	return rec
}
