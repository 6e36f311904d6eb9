package boot

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Value is one effective setting of a machine, and where it was written.
type Value struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin Origin `json:"origin"`
}

// Explain lists every effective value of a, in a fixed order, with the place
// that it came from. What nobody wrote shows its default.
func (a Assignment) Explain() []Value {
	var out []Value
	add := func(key, value string, o Origin) {
		if value != "" {
			out = append(out, Value{key, value, o})
		}
	}
	if m := a.Machine; m != nil {
		add("name", a.Name, m.Origins["name"])
		for _, k := range m.Match.words() {
			o, ok := m.Origins["match."+k.key]
			if !ok {
				o = m.Origins[k.key] // mac may stand beside match
			}
			add("match."+k.key, k.word, o)
		}
		add("profile", m.Profile, m.Origins["profile"])
		if m.IP.IsValid() {
			add("ip", m.IP.String(), m.Origins["ip"])
		}
	} else {
		add("name", a.Name, Origin{Note: "default: no entry matches this machine"})
	}
	if n := a.Network; n != nil {
		add("network", n.Name, n.Origin)
	}
	if a.Profile != nil {
		out = append(out, a.Profile.Explain()...)
	}
	return out
}

// Explain lists every effective value of p like [Assignment.Explain].
func (p *Profile) Explain() []Value {
	var out []Value
	def := Origin{Note: "default"}
	add := func(key, value, fallback string) {
		o, ok := p.Origins[key]
		switch {
		case value == "" && fallback == "":
			return
		case !ok:
			o = def
		}
		if value == "" {
			value = fallback
		}
		out = append(out, Value{key, value, o})
	}
	add("image", p.Image, "none: boots from its own disk")
	add("loader", p.Loader, "snponly on UEFI, undionly on BIOS")
	add("console", strings.Join(p.Console, " "), "")
	for i, s := range p.Args {
		add(fmt.Sprintf("args.%d", i), s, "")
	}
	add("delivery", string(p.Delivery), string(ByURL))
	for i, s := range p.SSHKeys {
		add(fmt.Sprintf("ssh_keys.%d", i), s, "")
	}
	for _, f := range p.Files {
		add("files."+f.Path, summary(f.Contents, f.Source), "(empty)")
	}
	for _, u := range p.Units {
		add("units."+u.Name, summary(u.Contents, state(u)), "(as it is)")
	}
	for i, b := range p.Butane {
		add(fmt.Sprintf("butane.%d", i), summary(b.Text, ""), "")
	}
	if m := p.Swarm; m != nil {
		add("swarm.swarm", m.Swarm, "")
		add("swarm.role", string(m.Role), string(Worker))
		add("swarm.availability", m.Availability, "active")
		for _, k := range slices.Sorted(maps.Keys(m.Labels)) {
			add("swarm.labels."+k, m.Labels[k], "")
		}
	}
	if h := p.Host; h != nil {
		said := h.explain()
		for _, k := range hostOrigins {
			add("esxi."+k, said[k], "")
		}
	}
	if b := p.Power; b != nil {
		for _, k := range powerOrigins {
			add(k, b.explain()[k], "")
		}
	}
	return out
}

// explain is what b says, by the keys of powerOrigins.
func (b BMC) explain() map[string]string {
	out := map[string]string{
		"power":               strings.TrimSpace(string(b.Kind) + " " + b.Addr),
		"power.user":          b.User,
		"power.password_file": b.PasswordFile,
	}
	switch {
	case b.AnyCertificate():
		out["power.tls"] = "any certificate is taken"
	case b.Fingerprint != "":
		out["power.tls"] = "certificate " + b.Fingerprint
	case b.CAFile != "":
		out["power.tls"] = "certificates signed by " + b.CAFile
	}
	return out
}

func state(u Unit) string {
	switch {
	case u.Mask:
		return "masked"
	case u.Enabled != nil && *u.Enabled:
		return "enabled"
	case u.Enabled != nil:
		return "disabled"
	}
	return ""
}

// summary is a text's size and first line, or else what is said instead.
func summary(text, instead string) string {
	if text == "" {
		return instead
	}
	first, rest, more := strings.Cut(text, "\n")
	if !more || strings.TrimSpace(rest) == "" {
		return first
	}
	return fmt.Sprintf("%s ... (%d lines)", first, strings.Count(strings.TrimRight(text, "\n"), "\n")+1)
}
