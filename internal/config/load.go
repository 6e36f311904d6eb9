package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"bootd/boot"
)

// ServerFile is the file that every configuration directory has.
const ServerFile = "bootd.yaml"

// maxFile bounds a file, so that a wrong one (an ISO, a core dump) is refused
// before it is parsed.
const maxFile = 4 << 20

// A loader is one reading of a directory.
type loader struct {
	config    Config
	mistakes  Mistakes
	networks  []boot.Network
	profiles  map[string]*rawProfile
	machines  []*rawMachine
	unknown   string
	unknownAt located
}

// Load reads and checks the configuration in dir. The error is [Mistakes],
// with all of them.
func Load(dir string) (*Config, error) {
	// The digest is taken before the files are read: what changes in between
	// is then seen by Watch as a change, rather than missed.
	sum := digest(dir)
	c, err := load(dir, os.DirFS(dir))
	if c != nil {
		c.sum = sum
	}
	return c, err
}

// load is Load on any file system.
func load(dir string, fsys fs.FS) (*Config, error) {
	l := &loader{config: defaults(dir), profiles: map[string]*rawProfile{}}
	l.read(fsys, ServerFile, l.server, true)
	for _, name := range l.glob(fsys, "profiles") {
		l.read(fsys, name, l.profile, false)
	}
	for _, name := range l.glob(fsys, "machines") {
		l.read(fsys, name, l.machinesIn, false)
	}
	l.checkProfiles()
	l.checkMachines()
	if len(l.mistakes) == 0 {
		l.build()
	}
	if len(l.mistakes) > 0 {
		l.mistakes.Sort()
		return nil, l.mistakes
	}
	return &l.config, nil
}

// files lists what a directory's configuration is read from.
func (l *loader) glob(fsys fs.FS, dir string) []string {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.cannotRead(dir, err)
		}
		return nil
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || e.IsDir() {
			continue
		}
		switch filepath.Ext(name) {
		case ".yaml", ".yml":
			out = append(out, dir+"/"+name)
		}
	}
	return out
}

func (l *loader) cannotRead(name string, err error) {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	hint := ""
	if errors.Is(err, fs.ErrNotExist) && name == ServerFile {
		hint = fmt.Sprintf("is %s the configuration directory? choose another with -c", l.config.Dir)
	}
	l.mistakes = append(l.mistakes, Mistake{Origin: boot.Origin{File: name}, Message: fmt.Sprintf("cannot read it: %v", err), Hint: hint})
}

// read parses a file and hands its documents to f.
func (l *loader) read(fsys fs.FS, name string, f func(*document, ast.Node), single bool) {
	if info, err := fs.Stat(fsys, name); err == nil && info.Size() > maxFile {
		l.cannotRead(name, fmt.Errorf("it is larger than %d MiB", maxFile>>20))
		return
	}
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		l.cannotRead(name, err)
		return
	}
	d, bodies := parse(name, text, &l.mistakes)
	if single && len(bodies) > 1 {
		d.wrong(bodies[1], "there is a second document", "this file holds one")
	}
	for _, body := range bodies {
		// A value that the parser lets through in a shape that nobody expected
		// must not stop the server either.
		func() {
			defer func() {
				if p := recover(); p != nil {
					d.at(boot.Origin{File: name, Line: 1, Column: 1}, fmt.Sprintf("this file cannot be understood (%v)", p), "")
				}
			}()
			f(d, body)
		}()
	}
}

func (l *loader) profileNames() []string { return slices.Sorted(maps.Keys(l.profiles)) }

// checkProfiles finds what is wrong between profiles, and with what they use.
func (l *loader) checkProfiles() {
	for _, name := range l.profileNames() {
		p := l.profiles[name]
		if p.extends != "" && l.profiles[p.extends] == nil {
			p.extAt.wrong(fmt.Sprintf("profile %q does not exist", p.extends), suggest(p.extends, l.profileNames()))
		}
		if cycle := l.cycle(p); cycle != "" {
			p.extAt.wrong("profiles extend each other in a circle: "+cycle, "")
		}
		l.checkUse(p)
	}
	if l.unknown != "" && l.profiles[l.unknown] == nil {
		l.unknownAt.wrong(fmt.Sprintf("profile %q does not exist", l.unknown), suggest(l.unknown, l.profileNames()))
	}
}

// checkUse looks at what a profile, or a machine's own keys, refer to.
func (l *loader) checkUse(p *rawProfile) {
	if p.Image != "" && !builtin.MatchString(p.Image) && !slices.ContainsFunc(l.config.Images, func(s ImageSource) bool { return s.Name == p.Image }) {
		known := []string{"fedora-coreos/stable", "fedora-coreos/testing", "fedora-coreos/next", "flatcar/stable", "flatcar/beta", "flatcar/alpha", "flatcar/lts"}
		for _, s := range l.config.Images {
			known = append(known, s.Name)
		}
		p.imageAt.wrong(fmt.Sprintf("image %q is not known", p.Image), suggest(p.Image, known)+"; others are declared under images in bootd.yaml")
	}
	if p.Swarm == nil {
		return
	}
	switch s := l.config.Swarm; {
	case s == nil:
		p.swarmAt.wrong("there is no swarm to join", "add swarm: {} to bootd.yaml")
	case p.Swarm.Swarm != "" && p.Swarm.Swarm != s.Name:
		p.swarmAt.wrong(fmt.Sprintf("swarm %q is not known", p.Swarm.Swarm), suggest(p.Swarm.Swarm, []string{s.Name}))
	}
}

// cycle returns the circle that p is in by extending, as "a, b, a", or "".
// Only the profile whose name comes first in it reports it.
func (l *loader) cycle(p *rawProfile) string {
	path := []string{p.Name}
	for q := l.profiles[p.extends]; q != nil; q = l.profiles[q.extends] {
		if q == p {
			if p.Name != slices.Min(path) {
				return ""
			}
			return strings.Join(append(path, p.Name), ", ")
		}
		if slices.Contains(path, q.Name) {
			return ""
		}
		path = append(path, q.Name)
	}
	return ""
}

// build makes the checked values of what had no mistake.
func (l *loader) build() {
	profiles := map[string]*boot.Profile{}
	for name := range l.profiles {
		p := l.whole(name)
		profiles[name] = &p
	}
	var machines []*boot.Machine
	for _, m := range l.machines {
		machines = append(machines, &m.Machine)
	}
	c, err := boot.NewCatalog(boot.Catalog{Networks: l.networks, Profiles: profiles, Machines: machines, Unknown: l.unknown})
	if err != nil {
		l.mistakes = append(l.mistakes, Mistake{Origin: boot.Origin{File: ServerFile}, Message: err.Error()})
		return
	}
	l.config.Catalog = c
}

// whole merges a profile with all that it extends.
func (l *loader) whole(name string) boot.Profile {
	p := l.profiles[name]
	if p.extends == "" {
		return boot.Profile{}.Extend(p.Profile)
	}
	return l.whole(p.extends).Extend(p.Profile)
}
