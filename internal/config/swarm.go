package config

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"bootd/boot"
)

// What a swarm does when nobody has written it down. A node that has been
// removed cannot come back without booting again, so the grace is longer than a
// switch takes to restart.
const (
	defaultEngine = "unix:///var/run/docker.sock"
	defaultGrace  = 5 * time.Minute
	defaultDrain  = time.Minute
)

// A rawSwarm is a swarm and where its parts are.
type rawSwarm struct {
	Swarm
	at       located
	hostAt   located
	tlsAt    located // no node: there is no such key
	sshAt    located
	pools    []located          // of AddressPools
	networks []located          // of Networks: their names
	subnets  [][]located        // of the Subnets of each of Networks
	nodesAt  map[string]located // of Nodes: their host names
}

// swarmSection reads the key swarm, one swarm, or swarms, a list.
func (l *loader) swarmSection(d *document, key string, v ast.Node) {
	if _, null := v.(*ast.NullNode); null {
		return // "swarm:" and nothing: none
	}
	if l.swarmKey != "" {
		d.wrong(v, fmt.Sprintf("there is both %s and %s", l.swarmKey, key), "put all of them into swarms, a list, each with a name")
		return
	}
	l.swarmKey = key
	if key == "swarm" {
		l.swarm(d, v, "default")
		return
	}
	d.list(v, func(n ast.Node) { l.swarm(d, n, "") })
}

// swarm reads one swarm, whose name is name unless it says another.
func (l *loader) swarm(d *document, v ast.Node, name string) {
	s := &rawSwarm{at: located{d, v}, hostAt: located{d, v}, nodesAt: map[string]located{}}
	s.Swarm = Swarm{
		Name: name, Host: defaultEngine, Availability: "active",
		Grace: defaultGrace, DrainTimeout: defaultDrain, Origin: d.origin(v),
	}
	l.swarms = append(l.swarms, s)
	strangers := ""
	known := d.mapping(v, "swarm", fields{
		"name": d.into(&s.Name, d.checkName),
		"host": func(key string, v ast.Node) {
			s.hostAt = located{d, v}
			d.into(&s.Host, d.checkEngine)(key, v)
		},
		"tls":          func(_ string, v ast.Node) { l.tls(d, s, v) },
		"ssh":          func(_ string, v ast.Node) { l.ssh(d, s, v) },
		"advertise":    d.into(&s.Advertise, d.checkAdvertise),
		"availability": d.one(&s.Availability, "active", "pause", "drain"),
		"address_pools": func(key string, v ast.Node) {
			d.list(v, func(n ast.Node) {
				if p, ok := d.prefix(n, key); ok {
					s.AddressPools = append(s.AddressPools, p)
					s.pools = append(s.pools, located{d, n})
				}
			})
		},
		"data_path_port": d.number(&s.DataPathPort, 1024, 49151),
		"managers":       func(key string, v ast.Node) { d.managers(&s.Managers, key, v) },
		"grace":          d.duration(&s.Grace, 10*time.Second, 30*24*time.Hour),
		"drain_timeout":  d.duration(&s.DrainTimeout, time.Second, time.Hour),
		"tokens": func(key string, v ast.Node) {
			d.mapping(v, key, fields{"rotate": func(key string, v ast.Node) { d.rotation(&s.Rotation, key, v) }})
		},
		"strangers": d.one(&strangers, "keep", "remove"),
		"networks": func(key string, v ast.Node) {
			d.entries(v, key, func(name string, k, v ast.Node) { d.overlay(s, name, k, v) })
		},
		"nodes": func(key string, v ast.Node) {
			s.Nodes = map[string]Node{}
			d.entries(v, key, func(name string, k, v ast.Node) { d.node(s, name, k, v) })
		},
	})
	s.RemoveStrangers = strangers == "remove"
	if known && name == "" {
		d.lacks(v, "name", "this swarm has no name", "add name: NAME; profiles choose it by that")
	}
}

func (d *document) checkAdvertise(v ast.Node, s string) {
	if _, err := netip.ParseAddr(s); err != nil {
		d.checkInterface(v, s)
	}
}

// managers reads how many managers there should be. More than half of them must
// be alive, so an even number is worse than the odd one below it.
func (d *document) managers(dst *int, key string, v ast.Node) {
	n := 0
	d.number(&n, 0, 99)(key, v)
	switch {
	case n == 2:
		d.wrong(v, "with 2 managers the swarm stops when either of them is lost", "write 1 or 3")
	case n > 0 && n%2 == 0:
		d.wrong(v, fmt.Sprintf("with %d managers the swarm survives the loss of %d, as it does with %d", n, n/2-1, n-1), fmt.Sprintf("write %d or %d", n-1, n+1))
	default:
		*dst = n
	}
}

// rotation reads when the join tokens are replaced.
func (d *document) rotation(dst *Rotation, key string, v ast.Node) {
	const least, most = 10 * time.Minute, 10 * 365 * 24 * time.Hour
	s, ok := d.text(v, key)
	if !ok {
		return
	}
	switch age, err := time.ParseDuration(s); {
	case s == "never":
	case s == "after_joins":
		dst.AfterJoins = true
	case err == nil && age >= least && age <= most:
		dst.Age = age
	case err == nil:
		d.wrong(v, fmt.Sprintf("%s cannot be %q", key, s), fmt.Sprintf("an age is a time from %s to %s, such as 24h", span(least), span(most)))
	default:
		hint := "it is never, after_joins or an age, such as 24h"
		if near := nearest(s, []string{"never", "after_joins"}); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		d.wrong(v, fmt.Sprintf("%s cannot be %q", key, s), hint)
	}
}

// hostName is what Linux allows as one, and people use (hostname(7)).
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

// node reads what is wanted of a node that bootd does not boot.
func (d *document) node(s *rawSwarm, name string, k, v ast.Node) {
	if !hostName.MatchString(name) {
		d.wrong(k, fmt.Sprintf("%q is not a host name", clip(name)), "write it as docker node ls shows it")
	}
	n := Node{Origin: d.origin(k)}
	d.mapping(v, "node "+name, fields{
		"labels":       func(key string, v ast.Node) { n.Labels = d.labels(key, v, nil) },
		"availability": d.one(&n.Availability, "active", "pause", "drain"),
	})
	s.Nodes[name] = n
	s.nodesAt[name] = located{d, k}
}

// labels reads labels of nodes or networks; note, if any, is told where each is.
func (d *document) labels(key string, v ast.Node, note func(label string, o boot.Origin)) map[string]string {
	out := map[string]string{}
	d.entries(v, key, func(label string, k, v ast.Node) {
		if label == "" || strings.ContainsAny(label, " \t\n=") {
			d.wrong(k, fmt.Sprintf("%q cannot be the name of a label", clip(label)), "it must be one word without =")
			return
		}
		if strings.HasPrefix(label, "bootd.") {
			d.wrong(k, fmt.Sprintf("label %q cannot be set", clip(label)), "those that begin with bootd. are bootd's own")
			return
		}
		if s, ok := d.text(v, "label "+label); ok {
			out[label] = s
			if note != nil {
				note(label, d.origin(v))
			}
		}
	})
	return out
}

// checkSwarms finds what is wrong between swarms, and with what they refer to.
func (l *loader) checkSwarms() {
	machines := map[string]*rawMachine{}
	for _, m := range l.machines {
		machines[m.Name] = m
	}
	for i, s := range l.swarms {
		for _, o := range l.swarms[:i] {
			if s.Name == o.Name && s.Name != "" {
				s.at.wrong(fmt.Sprintf("two swarms are called %q, the other one at %s", s.Name, o.Origin), "")
			}
			if s.Host == o.Host {
				s.hostAt.wrong(fmt.Sprintf("the engine at %s is a manager of the swarm at %s already", s.Host, o.Origin), "an engine is in one swarm; give each a host of its own")
			}
		}
		l.checkAccess(s)
		l.checkPools(s)
		l.checkOverlays(s)
		for _, name := range slices.Sorted(maps.Keys(s.nodesAt)) {
			if m := machines[name]; m != nil {
				s.nodesAt[name].wrong(fmt.Sprintf("node %q is the machine at %s", name, m.Origin), "write its labels and availability there, under swarm")
			}
		}
	}
}

// checkPools finds address pools that would hide machines.
func (l *loader) checkPools(s *rawSwarm) {
	for i, p := range s.AddressPools {
		for _, n := range l.networks {
			if p.Overlaps(n.Subnet) {
				s.pools[i].wrong(fmt.Sprintf("address pool %s overlaps the subnet %s of network %q", p, n.Subnet, n.Name), "overlay networks need addresses of their own")
			}
		}
	}
}

func (l *loader) swarmNames() []string {
	var names []string
	for _, s := range l.swarms {
		names = append(names, s.Name)
	}
	return names
}

// checkMember looks at the swarm that a profile, or a machine's own keys, name.
func (l *loader) checkMember(p *rawProfile) {
	if p.Swarm == nil {
		return
	}
	names := l.swarmNames()
	switch {
	case len(names) == 0:
		p.swarmAt.wrong("there is no swarm to join", "add swarm: {} to bootd.yaml")
	case p.Swarm.Swarm != "" && !slices.Contains(names, p.Swarm.Swarm) && !slices.Contains(names, ""):
		p.nameAt.wrong(fmt.Sprintf("swarm %q is not known", p.Swarm.Swarm), suggest(p.Swarm.Swarm, names))
	}
}

// checkChoice finds machines that would not know which of several swarms to
// join. A profile that only others extend, or whose machines all choose, need
// not choose itself.
func (l *loader) checkChoice() {
	if len(l.swarms) < 2 || l.lost[ServerFile] || l.lost[profilesDir] || l.lost[machinesDir] {
		return
	}
	hint := "add swarm: NAME; " + suggest("", l.swarmNames())
	extended, used, left := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, p := range l.profiles {
		extended[p.extends] = true
	}
	for _, m := range l.machines {
		used[m.Profile] = true
		own := m.own.Swarm
		if own != nil && own.Swarm != "" {
			continue
		}
		left[m.Profile] = true
		if at, _ := l.chosen(m.Profile); own != nil && at == nil {
			m.own.swarmAt.wrong("this does not say which of the swarms to join", hint)
		}
	}
	told := map[*rawProfile]bool{}
	for _, name := range l.profileNames() {
		must := name == l.unknown || left[name] || !used[name] && !extended[name]
		if p, choice := l.chosen(name); must && p != nil && choice == "" && !told[p] {
			told[p] = true
			p.swarmAt.wrong("this does not say which of the swarms to join", hint)
		}
	}
}

// chosen returns the swarm that a profile names, itself or by what it extends,
// and the nearest of them that speaks of a swarm at all; nil: none does.
func (l *loader) chosen(name string) (speaks *rawProfile, choice string) {
	seen := map[string]bool{} // profiles may still extend each other in a circle
	for p := l.profiles[name]; p != nil && !seen[p.Name]; p = l.profiles[p.extends] {
		seen[p.Name] = true
		if p.Swarm == nil {
			continue
		}
		if speaks == nil {
			speaks = p
		}
		if p.Swarm.Swarm != "" {
			return speaks, p.Swarm.Swarm
		}
	}
	return speaks, ""
}
