package config

import (
	"fmt"
	"path"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"golang.org/x/crypto/ssh"

	"bootd/boot"
)

// A rawProfile is a profile as it is written, before what it extends is put
// under it.
type rawProfile struct {
	boot.Profile
	at      located // of the document
	extends string
	extAt   located
	imageAt located
	swarmAt located
	nameAt  located // of the swarm's name
}

// located remembers where something was, for a mistake that is only seen when
// all files have been read.
type located struct {
	d *document
	n ast.Node
}

// wrong notes a mistake there.
func (l located) wrong(message, hint string) { l.d.wrong(l.n, message, hint) }

// profile reads one document of profiles/*.yaml.
func (l *loader) profile(d *document, body ast.Node) {
	p := rawProfile{at: located{d, body}}
	p.Origins = map[string]boot.Origin{}
	f := l.profileFields(d, &p)
	f["name"] = func(key string, v ast.Node) {
		d.into(&p.Name, d.checkName)(key, v)
		p.Origins["name"] = d.origin(v)
	}
	f["extends"] = func(key string, v ast.Node) {
		d.into(&p.extends)(key, v)
		p.extAt = located{d, v}
		p.Origins["extends"] = d.origin(v)
	}
	if !d.mapping(body, "profile", f) {
		l.lost[profilesDir] = true
		return
	}
	if p.Name == "" {
		l.lost[profilesDir] = true
		d.lacks(body, "name", "this profile has no name", "add name: NAME")
		return
	}
	if other := l.profiles[p.Name]; other != nil {
		d.wrong(body, fmt.Sprintf("profile %q is also defined at %s", p.Name, other.at.d.origin(other.at.n)), "profile names must differ")
		return
	}
	l.profiles[p.Name] = &p
}

// profileFields are the keys that a profile and a machine's own entry share.
func (l *loader) profileFields(d *document, p *rawProfile) fields {
	note := func(key string, f func(string, ast.Node)) func(string, ast.Node) {
		return func(k string, v ast.Node) {
			p.Origins[key] = d.origin(v)
			f(k, v)
		}
	}
	delivery := func(key string, v ast.Node) {
		s := ""
		d.one(&s, string(boot.ByURL), string(boot.ByInitrd))(key, v)
		p.Delivery = boot.Delivery(s)
	}
	return fields{
		"image": note("image", func(key string, v ast.Node) {
			d.into(&p.Image)(key, v)
			p.imageAt = located{d, v}
		}),
		"loader":   note("loader", d.one(&p.Loader, "snponly", "ipxe", boot.GRUBLoader)),
		"delivery": note("delivery", delivery),
		"console": note("console", func(key string, v ast.Node) {
			d.list(v, func(n ast.Node) {
				if s, ok := d.word(n, key); ok {
					p.Console = append(p.Console, s)
				}
			})
		}),
		"args": func(key string, v ast.Node) { p.Args = d.args(p, key, v) },
		"ssh_keys": func(key string, v ast.Node) {
			d.list(v, func(n ast.Node) { d.sshKey(p, n) })
		},
		"files":  func(key string, v ast.Node) { d.list(v, func(n ast.Node) { d.file(p, n) }) },
		"units":  func(key string, v ast.Node) { d.list(v, func(n ast.Node) { d.unit(p, n) }) },
		"butane": func(key string, v ast.Node) { d.butane(p, v) },
		"esxi":   func(_ string, v ast.Node) { d.host(p, v) },
		"power":  func(_ string, v ast.Node) { l.power(d, &p.Profile, v) },
		"swarm": note("swarm", func(key string, v ast.Node) {
			p.swarmAt = located{d, v}
			d.member(p, v)
		}),
	}
}

// word reads text without white space.
func (d *document) word(n ast.Node, what string) (string, bool) {
	s, ok := d.text(n, what)
	s = strings.TrimSpace(s)
	if ok && (s == "" || strings.ContainsAny(s, " \t\n\r\x00")) {
		d.wrong(n, fmt.Sprintf("%s: %q is not one word", what, clip(s)), "give each its own line, with - before it")
		return "", false
	}
	return s, ok
}

// args reads kernel arguments: a list, or text that is split at white space as
// the kernel does, with double quotes kept together.
func (d *document) args(p *rawProfile, key string, v ast.Node) []string {
	var out []string
	d.list(v, func(n ast.Node) {
		s, ok := d.text(n, key)
		if !ok {
			return
		}
		if strings.ContainsAny(s, "\x00\n\r") && strings.ContainsAny(strings.TrimSpace(s), "\x00\n\r") {
			d.wrong(n, "a kernel argument cannot hold a line break", "")
			return
		}
		for _, a := range splitArgs(s) {
			p.Origins[fmt.Sprintf("args.%d", len(out))] = d.origin(n)
			out = append(out, a)
		}
	})
	return out
}

func splitArgs(s string) []string {
	quoted := false
	return strings.FieldsFunc(s, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t')
	})
}

func (d *document) sshKey(p *rawProfile, n ast.Node) {
	s, ok := d.text(n, "ssh_keys")
	if !ok {
		return
	}
	s = strings.TrimSpace(s)
	if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(s)); err != nil || len(rest) > 0 {
		d.wrong(n, fmt.Sprintf("%q is not a public SSH key", clip(s)), "write what is in the .pub file: ssh-ed25519 AAAA... name")
		return
	}
	p.Origins[fmt.Sprintf("ssh_keys.%d", len(p.SSHKeys))] = d.origin(n)
	p.SSHKeys = append(p.SSHKeys, s)
}

func (d *document) file(p *rawProfile, n ast.Node) {
	var f boot.File
	var mode ast.Node
	contents := false
	if !d.mapping(n, "file", fields{
		"path": d.into(&f.Path, func(v ast.Node, s string) {
			if s != "" && (!path.IsAbs(s) || path.Clean(s) != s || s == "/") {
				d.wrong(v, fmt.Sprintf("path %q is not a clean absolute path", s), "write it as /etc/name")
			}
		}),
		"contents": func(k string, v ast.Node) {
			contents = true
			if s, ok := d.text(v, k); ok {
				f.Contents = s
			}
		},
		"source": d.into(&f.Source, d.checkURL),
		"sha256": d.into(&f.SHA256, d.checkDigest),
		"mode":   func(_ string, v ast.Node) { mode = v; f.Mode = d.mode(v) },
		"user":   d.into(&f.User),
		"group":  d.into(&f.Group),
	}) {
		return
	}
	switch {
	case f.Path == "":
		d.lacks(n, "path", "this file has no path", "add path: /etc/name")
		return
	case contents && f.Source != "":
		d.wrong(n, fmt.Sprintf("file %s has both contents and source", f.Path), "keep one of them")
	case f.SHA256 != "" && f.Source == "":
		d.wrong(n, fmt.Sprintf("file %s has a sha256 but no source", f.Path), "the digest is of what source gives")
	case mode != nil && f.Mode == 0:
		return // said already
	}
	for _, other := range p.Files {
		if other.Path == f.Path {
			d.wrong(n, fmt.Sprintf("file %s is written twice in this profile", f.Path), "")
			return
		}
	}
	p.Origins["files."+f.Path] = d.origin(n)
	p.Files = append(p.Files, f)
}

// mode reads permission bits, always in octal: 644, 0644, "0644" and 0o644 are
// the same.
func (d *document) mode(v ast.Node) int {
	s, ok := d.text(v, "mode")
	if !ok {
		return 0
	}
	digits := strings.TrimPrefix(strings.TrimSpace(s), "0o")
	n := 0
	for _, r := range digits {
		if r < '0' || r > '7' || n > 07777 {
			n = -1
			break
		}
		n = n*8 + int(r-'0')
	}
	if digits == "" || n <= 0 || n > 07777 {
		d.wrong(v, fmt.Sprintf("mode %q is not permission bits", s), "write them in octal, as 0644")
		return 0
	}
	return n
}

func (d *document) unit(p *rawProfile, n ast.Node) {
	u := boot.Unit{}
	text := func(v ast.Node, what string) string {
		s, ok := d.text(v, what)
		if ok && !inSection(s) {
			d.wrong(v, fmt.Sprintf("%s does not begin with a section", what), "its first line must be one such as [Unit] or [Service]")
		}
		return s
	}
	if !d.mapping(n, "unit", fields{
		"name": d.into(&u.Name),
		"enabled": func(k string, v ast.Node) {
			b := false
			d.yes(&b)(k, v)
			u.Enabled = &b
		},
		"mask":     d.yes(&u.Mask),
		"contents": func(_ string, v ast.Node) { u.Contents = text(v, "the unit") },
		"dropins": func(k string, v ast.Node) {
			u.DropIns = map[string]string{}
			d.entries(v, k, func(name string, key, v ast.Node) {
				if !strings.HasSuffix(name, ".conf") || strings.Contains(name, "/") {
					d.wrong(key, fmt.Sprintf("drop-in %q would not be read by systemd", name), "its name must end in .conf")
				}
				u.DropIns[name] = text(v, "the drop-in "+name)
			})
		},
	}) {
		return
	}
	switch i := strings.LastIndexByte(u.Name, '.'); {
	case u.Name == "":
		d.lacks(n, "name", "this unit has no name", "add name: NAME.service")
		return
	case i <= 0 || strings.Contains(u.Name, "/") || !unitTypes[u.Name[i+1:]]:
		d.wrong(n, fmt.Sprintf("unit name %q has no type that systemd knows", u.Name), "write it as NAME.service, NAME.timer, ...")
		return
	}
	for _, other := range p.Units {
		if other.Name == u.Name {
			d.wrong(n, fmt.Sprintf("unit %s is written twice in this profile", u.Name), "")
			return
		}
	}
	p.Origins["units."+u.Name] = d.origin(n)
	p.Units = append(p.Units, u)
}

// inSection reports whether the first line of a unit that says something
// begins a section. systemd ignores what stands before one.
func inSection(text string) bool {
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		if l != "" && l[0] != '#' && l[0] != ';' {
			return len(l) > 2 && l[0] == '[' && l[len(l)-1] == ']'
		}
	}
	return false
}

var unitTypes = map[string]bool{"service": true, "socket": true, "device": true, "mount": true, "automount": true,
	"swap": true, "target": true, "path": true, "timer": true, "slice": true, "scope": true}

func (d *document) butane(p *rawProfile, v ast.Node) {
	if m, ok := v.(ast.MapNode); ok && m != nil {
		d.wrong(v, "butane is a mapping", "it must be text: write butane: | and indent the document below it")
		return
	}
	s, ok := d.text(v, "butane")
	if !ok || strings.TrimSpace(s) == "" {
		return
	}
	at := d.fragment(v)
	// The document inside must be YAML itself; what it means is checked when
	// it is translated.
	var inner Mistakes
	_, bodies := parse(d.name, []byte(s), &inner)
	for _, m := range inner {
		d.at(boot.Origin{File: d.name, Line: at.Line + m.Origin.Line - 1, Column: at.Column + m.Origin.Column - 1}, "butane: "+m.Message, m.Hint)
	}
	if len(inner) == 0 && len(bodies) == 1 {
		if _, ok := bodies[0].(ast.MapNode); !ok {
			d.at(at, "butane: the document is "+kind(bodies[0]), "it must be a mapping: variant: fcos ...")
			return
		}
	}
	if len(bodies) > 1 {
		d.at(at, "butane: there are several documents", "keep one; use extends for more")
		return
	}
	p.Origins[fmt.Sprintf("butane.%d", len(p.Butane))] = at
	p.Butane = append(p.Butane, boot.Fragment{Text: s, Origin: at})
}

func (d *document) member(p *rawProfile, v ast.Node) {
	if _, null := v.(*ast.NullNode); null {
		return
	}
	m := &boot.Member{}
	role := ""
	note := func(key string, f func(string, ast.Node)) func(string, ast.Node) {
		return func(k string, v ast.Node) { p.Origins["swarm."+key] = d.origin(v); f(k, v) }
	}
	d.mapping(v, "swarm", fields{
		"swarm": note("swarm", func(k string, v ast.Node) {
			p.nameAt = located{d, v}
			d.into(&m.Swarm)(k, v)
		}),
		"role":         note("role", d.one(&role, string(boot.Worker), string(boot.Manager))),
		"availability": note("availability", d.one(&m.Availability, "active", "pause", "drain")),
		"labels": func(key string, v ast.Node) {
			m.Labels = d.labels(key, v, func(label string, o boot.Origin) { p.Origins["swarm.labels."+label] = o })
		},
	})
	m.Role = boot.Role(role)
	p.Swarm = m
}
