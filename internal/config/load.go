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
	"github.com/goccy/go-yaml/parser"

	"bootd/boot"
)

// ServerFile is the file that every configuration directory has.
const ServerFile = "bootd.yaml"

// The folders beside it.
const (
	profilesDir = "profiles"
	machinesDir = "machines"
)

// allNetworks stands in loader.lost for the networks of ServerFile.
const allNetworks = "networks"

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
	named     []namedProfile // that the controller's clusters have
	switches  boot.Profile   // of bootd.yaml: only what says how machines are switched
	swarms    []*rawSwarm
	swarmKey  string // which of swarm and swarms is there
	fsys      fs.FS  // the directory

	// lost says of which files or folders something could not be understood,
	// so that what refers to it is not called wrong as well.
	lost map[string]bool
}

// Load reads and checks the configuration in dir. The error is [Mistakes],
// with all of them.
func Load(dir string) (c *Config, err error) {
	// Reading again what somebody just wrote must not stop a server that runs
	// well, even if there is a defect here.
	defer func() {
		if p := recover(); p != nil {
			c, err = nil, Mistakes{{Origin: boot.Origin{File: ServerFile, Line: 1, Column: 1}, Message: fmt.Sprintf("the configuration cannot be checked (%v)", p), Hint: "this is a defect of bootd"}}
		}
	}()
	// The digest is taken before the files are read: what changes in between
	// is then seen by Watch as a change, rather than missed.
	sum := digest(dir)
	c, err = load(dir, os.DirFS(dir))
	if c != nil {
		c.sum = sum
	}
	return c, err
}

// load is Load on any file system.
func load(dir string, fsys fs.FS) (*Config, error) {
	l := &loader{config: defaults(dir), switches: boot.Profile{Origins: map[string]boot.Origin{}}, profiles: map[string]*rawProfile{}, lost: map[string]bool{}, fsys: fsys}
	l.read(fsys, ServerFile, l.server, true)
	for _, name := range l.glob(fsys, profilesDir) {
		l.read(fsys, name, l.profile, false)
	}
	for _, name := range l.glob(fsys, machinesDir) {
		l.read(fsys, name, l.machinesIn, false)
	}
	l.checkProfiles()
	l.checkMachines()
	l.checkSwarms()
	l.checkChoice()
	if len(l.mistakes) == 0 {
		l.build()
	}
	if len(l.mistakes) > 0 {
		l.mistakes.Sort()
		return nil, l.mistakes
	}
	return &l.config, nil
}

// glob lists the files of a folder that are read.
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
	l.lose(name)
	l.mistakes = append(l.mistakes, Mistake{Origin: boot.Origin{File: name}, Message: fmt.Sprintf("cannot read it: %v", err), Hint: hint})
}

// read parses a file and hands its documents to f.
func (l *loader) read(fsys fs.FS, name string, f func(*document, ast.Node), single bool) {
	text, err := readFile(fsys, name)
	if err != nil {
		l.cannotRead(name, err)
		return
	}
	before := len(l.mistakes)
	d, bodies := parse(name, text, &l.mistakes, parser.AllowDuplicateMapKey()) // we say that ourselves, and better
	if len(l.mistakes) > before {
		l.lose(name)
	}
	if single && len(bodies) > 1 {
		d.wrong(bodies[1], "there is a second document", "this file holds one")
	}
	for _, body := range bodies {
		// A value that the parser lets through in a shape that nobody expected
		// must not stop the server either.
		func() {
			defer func() {
				if p := recover(); p != nil {
					l.lose(name)
					d.at(boot.Origin{File: name, Line: 1, Column: 1}, fmt.Sprintf("this file cannot be understood (%v)", p), "")
				}
			}()
			f(d, body)
		}()
	}
}

// readFile reads a file that is not too large.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	if info, err := fs.Stat(fsys, name); err == nil && info.Size() > maxFile {
		return nil, fmt.Errorf("it is larger than %d MiB", maxFile>>20)
	}
	return fs.ReadFile(fsys, name)
}

func (l *loader) profileNames() []string { return slices.Sorted(maps.Keys(l.profiles)) }

// checkProfiles finds what is wrong between profiles, and with what they use.
func (l *loader) checkProfiles() {
	for _, name := range l.profileNames() {
		p := l.profiles[name]
		l.checkExists(p.extends, p.extAt)
		if cycle := l.cycle(p); cycle != "" {
			p.extAt.wrong("profiles extend each other in a circle: "+cycle, "")
		}
		l.checkUse(p)
	}
	l.checkExists(l.unknown, l.unknownAt)
	for _, n := range l.named {
		l.checkExists(n.name, n.at)
	}
}

// checkExists looks for a profile that something at a place refers to.
func (l *loader) checkExists(profile string, at located) {
	if profile == "" || l.profiles[profile] != nil {
		return
	}
	if l.lost[profilesDir] && nearest(profile, l.profileNames()) == "" {
		return // it may be in what could not be read
	}
	at.wrong(fmt.Sprintf("profile %q does not exist", profile), suggest(profile, l.profileNames()))
}

// lose notes that a file, or a part of it, is not known.
func (l *loader) lose(name string) {
	folder, _, _ := strings.Cut(name, "/")
	l.lost[folder] = true
}

// checkUse looks at what a profile, or a machine's own keys, refer to.
func (l *loader) checkUse(p *rawProfile) {
	if l.lost[ServerFile] {
		return
	}
	if p.Image != "" && !builtin.MatchString(p.Image) && !imported.MatchString(p.Image) && !slices.ContainsFunc(l.config.Images, func(s ImageSource) bool { return s.Name == p.Image }) {
		known := []string{"fedora-coreos/stable", "fedora-coreos/testing", "fedora-coreos/next", "flatcar/stable", "flatcar/beta", "flatcar/alpha", "flatcar/lts"}
		for _, s := range l.config.Images {
			known = append(known, s.Name)
		}
		p.imageAt.wrong(fmt.Sprintf("image %q is not known", p.Image), suggest(p.Image, known)+"; others are declared under images in bootd.yaml")
	}
	l.checkMember(p)
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
	l.checkWholePower(c)
	l.checkWholeHosts(c)
	l.config.Catalog = c
	for _, s := range l.swarms {
		l.config.Swarms = append(l.config.Swarms, s.Swarm)
	}
}

// whole merges a profile with all that it extends.
func (l *loader) whole(name string) boot.Profile {
	p := l.profiles[name]
	if p.extends == "" {
		return l.switches.Extend(p.Profile)
	}
	return l.whole(p.extends).Extend(p.Profile)
}
