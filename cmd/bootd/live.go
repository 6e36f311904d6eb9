package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bootd/assets"
	"bootd/boot"
	"bootd/internal/config"
	"bootd/internal/override"
)

// live is what the server goes by at the moment: the configuration in force
// and the images that are there, joined into one catalog that is swapped when
// either changes.
type live struct {
	images    *assets.Store
	loaders   assets.Loaders
	overrides *override.Overrides
	log       *slog.Logger
	changed   func() // told after each swap; set before Run
	// guests are entries that nobody has written, with their profiles. Set before Run.
	guests func(*config.Config) (map[string]*boot.Profile, []*boot.Machine)

	swapping sync.Mutex
	fetch    chan struct{} // holds one wish to look for missing images

	cat     atomic.Pointer[boot.Catalog]
	mu      sync.Mutex // guards those below
	cfg     *config.Config
	problem error         // of the configuration on disk, when an older one is in force
	asked   map[wish]bool // what machines asked for and the store did not have

	variants   map[variant]*boot.Profile // that were ordered for one boot
	variantsOf *boot.Catalog
}

// A variant is a machine's entry with another profile than its own.
type variant struct {
	machine *boot.Machine
	profile string
}

// A wish is for an image for a processor: x86_64, aarch64; empty: whatever the
// configuration says.
type wish struct{ image, cpu string }

// newLive makes the first catalog.
func newLive(cfg *config.Config, images *assets.Store, overrides *override.Overrides, log *slog.Logger) (*live, error) {
	l := &live{images: images, overrides: overrides, log: log, cfg: cfg, changed: func() {}, guests: noGuests, loaders: findLoaders(cfg),
		fetch: make(chan struct{}, 1), asked: map[wish]bool{}}
	l.lookForImages()
	if !l.loaders.IPXE() {
		log.Warn("no iPXE loaders were found; machines without iPXE in their ROM cannot boot: install the package ipxe, or set loaders in bootd.yaml")
	}
	l.warnGRUB(cfg)
	return l, l.swap(cfg)
}

// warnGRUB tells of profiles and entries that say loader: grub in vain.
func (l *live) warnGRUB(cfg *config.Config) {
	for _, lack := range withoutGRUB(cfg, l.loaders) {
		l.log.Warn("shim and GRUB were not found; machines that are to start them get iPXE, which Secure Boot does not start", "for", lack.For, "cpu", lack.CPU, "remedy", lack.Remedy+", and start bootd again")
	}
}

func noGuests(*config.Config) (map[string]*boot.Profile, []*boot.Machine) {
	return map[string]*boot.Profile{}, nil
}

func (l *live) String() string { return "configuration" }

func (l *live) catalog() *boot.Catalog { return l.cat.Load() }

func (l *live) config() *config.Config {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cfg
}

// findLoaders finds the iPXE builds: in the configured directory, the state
// directory, the system's packages.
func findLoaders(cfg *config.Config) assets.Loaders {
	var dirs []string
	if cfg.Loaders != "" {
		dirs = append(dirs, cfg.Loaders)
	}
	return assets.FindLoaders(append(dirs, filepath.Join(cfg.StateDir, "loaders"))...)
}

// again makes a new catalog because orders or images have changed.
func (l *live) again() error {
	if err := l.swap(nil); err != nil {
		return err
	}
	l.changed()
	return nil
}

// swap puts a configuration in force, with the images and orders that are there
// now; nil keeps the one in force and takes over the rest.
func (l *live) swap(next *config.Config) error {
	// Files and images change at their own times. One swap after the other, or
	// the older configuration could come back.
	l.swapping.Lock()
	defer l.swapping.Unlock()
	cfg := next
	if cfg == nil {
		cfg = l.config()
	}
	images, err := l.images.Images()
	if err != nil {
		l.log.Warn("some images cannot be used", "err", err)
	}
	c := cfg.Catalog
	entries, ignored := approved(l.overrides.All(), c)
	for _, why := range ignored {
		l.log.Warn("an order is not carried out", "reason", why)
	}
	profiles, machines := l.guests(cfg)
	maps.Copy(profiles, c.Profiles)
	catalog, err := boot.NewCatalog(boot.Catalog{Networks: c.Networks, Profiles: profiles, Unknown: c.Unknown, Images: images,
		Machines: slices.Concat(c.Machines, entries, machines)})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg = cfg
	if next != nil {
		l.problem = nil
	}
	l.cat.Store(catalog)
	return nil
}

// Run follows the files and the asset store, and fetches images that are
// missing.
func (l *live) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { l.fetchMissing(ctx) })
	parts.Go(func() { l.followImages(ctx) })
	err := config.Watch(ctx, l.config(), func(cfg *config.Config, err error) {
		if l.apply(cfg, err) {
			l.lookForImages()
		}
	})
	if err != nil && ctx.Err() == nil {
		// Machines need answers more than operators need live changes.
		l.log.Error("changed files are not noticed any more; start bootd again after a change", "err", err)
	}
	<-ctx.Done()
	return nil
}

// apply puts a changed configuration in force, unless it has mistakes.
func (l *live) apply(cfg *config.Config, err error) bool {
	if err == nil {
		err = checkProfiles(cfg)
	}
	if err == nil {
		l.warnFixed(cfg)
		err = l.swap(cfg)
	}
	if err != nil {
		l.mu.Lock()
		l.problem = err
		l.mu.Unlock()
		l.log.Error("the changed configuration has mistakes; the old one stays in force", "err", err)
		return false
	}
	l.log.Info("the configuration has been read again")
	l.warnGRUB(cfg)
	l.changed()
	return true
}

// warnFixed names what a running server cannot change.
func (l *live) warnFixed(next *config.Config) {
	now := l.config()
	for _, f := range []struct {
		key     string
		differs bool
	}{
		{"state_dir", now.StateDir != next.StateDir},
		{"http.port", now.HTTPPort != next.HTTPPort},
		{"tftp", now.TFTPPort != next.TFTPPort || now.TFTPRoot != next.TFTPRoot},
		{"loaders", now.Loaders != next.Loaders},
		{"api.socket", now.Socket != next.Socket},
		{"metrics.listen", now.Metrics != next.Metrics},
		{"controller", !now.Controller.Equal(next.Controller)},
		{"dashboard", now.Dashboard != next.Dashboard},
		{"log", now.LogLevel != next.LogLevel || now.LogJSON != next.LogJSON},
	} {
		if f.differs {
			l.log.Warn("a changed setting takes effect when bootd is started again", "key", f.key)
		}
	}
}

// followImages swaps the catalog when images come or go, also by another
// process.
func (l *live) followImages(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	seen, _ := l.images.Stamp() // an error shows at the next look
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		stamp, err := l.images.Stamp()
		if err != nil || stamp == seen {
			continue
		}
		if err := l.again(); err != nil {
			if failed := err.Error(); failed != said {
				l.log.Error("the images were not taken over; it will be tried again", "err", err)
				said = failed
			}
			continue
		}
		seen, said = stamp, ""
	}
}

// lookForImages makes fetchMissing look again.
func (l *live) lookForImages() {
	select {
	case l.fetch <- struct{}{}:
	default:
	}
}

// image returns an image for a machine that asks. One that is missing is
// fetched: that a rack has machines with another processor shows when the first
// of them asks.
func (l *live) image(name, cpu string) (boot.Image, bool) {
	i, ok := l.catalog().Image(name, cpu)
	if ok {
		return i, true
	}
	w := wish{name, cpu}
	l.mu.Lock()
	known := l.asked[w]
	l.asked[w] = true // as many as profiles name images, times the processors
	l.mu.Unlock()
	if !known {
		l.lookForImages()
	}
	return i, false
}

// wishes lists the images that profiles name, and those that machines have asked
// for and did not get.
func (l *live) wishes() []wish {
	cfg := l.config()
	var out []wish
	for _, name := range imageNames(cfg) {
		out = append(out, wish{image: name})
		l.mu.Lock()
		for _, cpu := range []string{"x86_64", "aarch64"} {
			// An image that is declared file by file is for one processor.
			if l.asked[wish{name, cpu}] && !declared(cfg, name) {
				out = append(out, wish{name, cpu})
			}
		}
		l.mu.Unlock()
	}
	return out
}

// declared reports whether the configuration says where each file of an image
// is.
func declared(cfg *config.Config, name string) bool {
	return slices.ContainsFunc(cfg.Images, func(s config.ImageSource) bool {
		return s.Name == name && (s.Path != "" || s.Kernel != nil)
	})
}

// fetchMissing gets what profiles name and the store does not have, so that a
// new configuration needs no second step. Local directories are compared with
// what is there each time; others are fetched anew by `bootd asset fetch` only.
func (l *live) fetchMissing(ctx context.Context) {
	const least, most = 30 * time.Second, time.Hour
	wait := least
	retry := time.NewTimer(most)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.fetch:
			wait = least
		case <-retry.C:
		}
		failed := false
		for _, w := range l.wishes() {
			failed = !l.fetchOne(ctx, w, wait) || failed
		}
		if failed {
			retry.Reset(wait)
			wait = min(2*wait, most)
		}
	}
}

// fetchOne fetches an image unless it is there, and reports whether it is as it
// should be; next is for the log, when it will be tried again.
func (l *live) fetchOne(ctx context.Context, w wish, next time.Duration) bool {
	src, err := imageSource(l.config(), w.image, w.cpu)
	_, local := src.(assets.Dir)
	_, there := l.catalog().Image(w.image, w.cpu)
	if there && !local { // also one that was imported, and has no source
		return true
	}
	if err == nil {
		l.log.Info("looking after an image", "image", w.image, "cpu", w.cpu)
		_, err = l.images.Fetch(ctx, src, nil)
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return true
	case there:
		l.log.Warn("an image cannot be compared with its directory; the one in the store is used", "image", w.image, "err", err, "next_try", next)
	default:
		l.log.Error("an image is missing; machines that need it wait", "image", w.image, "cpu", w.cpu, "err", err, "next_try", next)
	}
	return false
}

// imageNames are the images that profiles and machines name.
func imageNames(cfg *config.Config) []string {
	var out []string
	add := func(p *boot.Profile) {
		if p.Image != "" && !slices.Contains(out, p.Image) {
			out = append(out, p.Image)
		}
	}
	for _, name := range profileNames(cfg) {
		add(cfg.Catalog.Profiles[name])
	}
	for _, m := range cfg.Catalog.Machines {
		add(cfg.Catalog.Effective(m))
	}
	return out
}

// assign decides what a machine that asks for its script or config gets.
func (l *live) assign(inv boot.Inventory, current func(boot.MAC) (boot.Timeline, bool)) (boot.Assignment, error) {
	a, err := l.catalog().Assign(inv)
	if t, ok := current(inv.MAC); ok && err == nil {
		a = l.ordered(a, l.overrides.Get(inv.MAC).Profile(t.ID))
	}
	return a, err
}

// assignNext decides what a machine that asks for its script boots, in the boot
// with an ID or, if that is empty, in one that begins: an order for its next boot
// counts, which assign leaves alone until it has begun.
func (l *live) assignNext(inv boot.Inventory, bootID string) (boot.Assignment, error) {
	a, err := l.catalog().Assign(inv)
	if err == nil {
		a = l.ordered(a, l.overrides.Get(inv.MAC).NextProfile(bootID))
	}
	return a, err
}

// ordered is an assignment with the profile that was ordered for one boot only;
// empty: none was.
func (l *live) ordered(a boot.Assignment, name string) boot.Assignment {
	if name == "" {
		return a
	}
	p := l.variant(a.Machine, name)
	if p == nil {
		l.log.Warn("an order is not carried out", "mac", a.Inventory.MAC, "machine", a.Name, "reason", "there is no profile "+name+" any more")
		return a
	}
	a.Profile = p
	return a
}

// variant is a profile with the own keys of a machine's entry, which may be nil.
// It is the same value each time, since what is derived from it is kept by it.
func (l *live) variant(m *boot.Machine, name string) *boot.Profile {
	c := l.catalog()
	p := c.Profiles[name]
	if p == nil || m == nil {
		return p
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.variantsOf != c {
		l.variantsOf, l.variants = c, map[variant]*boot.Profile{}
	}
	key := variant{m, name}
	if l.variants[key] == nil {
		v := p.Extend(m.Override)
		v.Name = p.Name
		l.variants[key] = &v
	}
	return l.variants[key]
}

// expect is the last stage that a boot leads to.
func (l *live) expect(a boot.Assignment) boot.Stage {
	if a.Profile.Image != "" && l.family(a) == boot.ESXi {
		if yes, _ := (installs{l.overrides}).State(a.Inventory.MAC).Installs(a); yes {
			return boot.Installed
		}
		return boot.Script // and then its disk
	}
	_, joins := l.config().SwarmOf(a.Profile.Swarm)
	return lastStage(a.Profile.Image != "", l.family(a), joins)
}

// lastStage is the last stage of a boot with an image of some family, or without
// any, of a machine that is to join a swarm or not.
func lastStage(image bool, family boot.Family, joins bool) boot.Stage {
	switch {
	case !image:
		return boot.Script
	case family == boot.Linux: // nothing runs there that could tell more
		return boot.Initrd
	case joins:
		return boot.Ready
	}
	return boot.Up
}

// family is that of the machine's image.
func (l *live) family(a boot.Assignment) boot.Family {
	if i, ok := l.catalog().Image(a.Profile.Image, a.Inventory.CPU); ok {
		return i.Family
	}
	return familyOf(l.config(), a.Profile.Image)
}

// openAssets opens the asset store in the state directory.
func openAssets(cfg *config.Config) (*assets.Store, error) {
	return assets.Open(filepath.Join(cfg.StateDir, "assets"))
}

// imageSource is where an image comes from: as the configuration says, or else
// as its name says. cpu empty means as configured, or x86_64.
func imageSource(cfg *config.Config, name, cpu string) (assets.Source, error) {
	i := slices.IndexFunc(cfg.Images, func(s config.ImageSource) bool { return s.Name == name })
	var s config.ImageSource
	if i >= 0 {
		s = cfg.Images[i]
	}
	if cpu == "" {
		cpu = s.CPU
	}
	switch {
	case s.Path != "":
		return assets.Dir{Path: s.Path, Name: name, Version: s.Version, Family: s.Family, CPU: cpu}, nil
	case s.Kernel != nil:
		u := assets.URLs{Name: name, Version: s.Version, Family: s.Family, CPU: cpu, Kernel: assets.Remote(*s.Kernel)}
		for _, r := range s.Initrds {
			u.Initrds = append(u.Initrds, assets.Remote(r))
		}
		if s.RootFS != nil {
			r := assets.Remote(*s.RootFS)
			u.RootFS = &r
		}
		return u, nil
	}
	if cpu == "" {
		cpu = "x86_64"
	}
	src, ok := assets.SourceOf(name, cpu)
	if strings.HasPrefix(name, string(boot.ESXi)+"/") {
		return nil, fmt.Errorf("image %q comes from an ISO: bootd asset import %s FILE.iso", name, name)
	}
	if !ok {
		return nil, fmt.Errorf("image %q is not known: declare it under images in bootd.yaml, or name fedora-coreos/STREAM or flatcar/CHANNEL", name)
	}
	switch v := src.(type) {
	case assets.CoreOS:
		if s.Mirror != "" {
			v.Base = s.Mirror
		}
		v.Insecure = s.Insecure
		return v, nil
	case assets.Flatcar:
		if s.Mirror != "" {
			v.Base = s.Mirror
		}
		v.Insecure = s.Insecure
		return v, nil
	}
	return src, nil
}

// secretKey reads the key of something, or makes it, so that what was made under
// it before a restart is good after it. without says what is lost with the key.
func secretKey(path, of, without string) ([]byte, error) {
	const size = 32
	b, err := os.ReadFile(path)
	if err == nil && len(b) == size {
		return b, nil
	}
	if err == nil {
		return nil, fmt.Errorf("the key in %s is damaged (%d bytes, not %d); remove it, and %s", path, len(b), size, without)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the key of %s: %w", of, err)
	}
	b = make([]byte, size)
	rand.Read(b)
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot keep the key of %s: %w", of, err)
	}
	return b, nil
}

func profileNames(cfg *config.Config) []string {
	var names []string
	for name := range cfg.Catalog.Profiles {
		names = append(names, name)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}
