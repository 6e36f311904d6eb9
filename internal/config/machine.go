package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"bootd/boot"
)

// A rawMachine is an entry of machines/*.yaml and where its parts are.
type rawMachine struct {
	boot.Machine
	own       rawProfile // the profile keys that it sets itself
	at        located
	profileAt located
	ipAt      located
}

// machines reads one document of machines/*.yaml: a list, or a single entry.
func (l *loader) machinesIn(d *document, body ast.Node) {
	if _, ok := body.(*ast.SequenceNode); !ok {
		if _, ok := body.(ast.MapNode); !ok {
			d.wrong(body, "this file is "+kind(body), "it must be a list of machines: - {name: ..., mac: ..., profile: ...}")
			return
		}
	}
	d.list(body, func(n ast.Node) { l.machine(d, n) })
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func (l *loader) machine(d *document, n ast.Node) {
	before := len(l.mistakes)
	m := &rawMachine{at: located{d, n}}
	m.Origin = d.origin(n)
	m.Origins = map[string]boot.Origin{}
	m.own.Origins = map[string]boot.Origin{}
	note := func(key string, f func(string, ast.Node)) func(string, ast.Node) {
		return func(k string, v ast.Node) { m.Origins[key] = d.origin(v); f(k, v) }
	}
	f := l.profileFields(d, &m.own)
	f["name"] = note("name", d.into(&m.Name, d.machineName))
	f["mac"] = note("mac", func(k string, v ast.Node) { d.macs(&m.Match, k, v) })
	f["match"] = note("match", func(_ string, v ast.Node) { d.selector(m, v) })
	f["profile"] = note("profile", func(k string, v ast.Node) {
		d.into(&m.Profile)(k, v)
		m.profileAt = located{d, v}
	})
	f["ip"] = note("ip", func(k string, v ast.Node) {
		m.ipAt = located{d, v}
		d.addrInto(&m.IP)(k, v)
	})
	f["options"] = note("options", d.dhcpOptions(&m.Options))
	if !d.mapping(n, "machine", f) {
		return
	}
	d.lacks(n, "name", "this machine has no name", "add name: NAME, its host name")
	d.lacks(n, "profile", "this machine has no profile", "add profile: NAME")
	if m.Match.IsZero() && len(l.mistakes) == before {
		d.wrong(n, "this entry does not say which machine it is for", "add mac: ADDRESS, or match: {serial: ...}")
	}
	m.Override = m.own.Profile
	l.machines = append(l.machines, m)
}

func isTemplate(name string) bool { return strings.Contains(name, "{{") }

func (d *document) machineName(v ast.Node, name string) {
	if isTemplate(name) {
		if _, err := boot.ParseName(name); err != nil {
			d.wrong(v, err.Error(), "")
		}
		return
	}
	if !boot.ValidName(name) {
		d.wrong(v, fmt.Sprintf("%q is not a host name", name), "use lower-case letters, digits and inner hyphens, at most 64 characters")
	}
}

func (d *document) macs(s *boot.Selector, key string, v ast.Node) {
	d.list(v, func(n ast.Node) {
		if _, ok := n.(ast.MapNode); ok { // between [ and ] YAML takes the colons for its own
			d.wrong(n, key+" is read as a mapping", "put the address in quotes")
			return
		}
		text, ok := d.text(n, key)
		if !ok {
			return
		}
		mac, err := boot.ParseMAC(text)
		switch {
		case err != nil:
			d.wrong(n, err.Error(), "")
		case mac.IsZero():
			d.wrong(n, fmt.Sprintf("%s is no machine's address", mac), "write what ip link or the card's label says")
		case mac[0]&1 != 0:
			d.wrong(n, fmt.Sprintf("%s is a multicast address, which no machine has", mac), "")
		case slices.Contains(s.MAC, mac):
			d.wrong(n, fmt.Sprintf("%s is named twice", mac), "")
		default:
			s.MAC = append(s.MAC, mac)
		}
	})
}

func (d *document) selector(m *rawMachine, v ast.Node) {
	s := &m.Match
	note := func(key string, f func(string, ast.Node)) func(string, ast.Node) {
		return func(k string, v ast.Node) { m.Origins["match."+key] = d.origin(v); f(k, v) }
	}
	d.mapping(v, "match", fields{
		"mac": note("mac", func(k string, v ast.Node) { d.macs(s, k, v) }),
		"uuid": note("uuid", d.into(&s.UUID, func(v ast.Node, text string) {
			if s.UUID = strings.ToLower(text); !uuid.MatchString(s.UUID) {
				d.wrong(v, fmt.Sprintf("%q is not a UUID", text), "write it as 12345678-1234-1234-1234-123456789abc, as dmidecode shows it")
			}
		})),
		"serial":       note("serial", d.into(&s.Serial)),
		"manufacturer": note("manufacturer", d.into(&s.Manufacturer)),
		"product":      note("product", d.into(&s.Product)),
		"asset":        note("asset", d.into(&s.Asset)),
		"subnet": note("subnet", func(k string, v ast.Node) {
			if p, ok := d.prefix(v, k); ok {
				s.Subnet = p
			}
		}),
		"arch": note("arch", d.one(&s.Arch, "bios", "uefi", "x86_64", "aarch64")),
	})
}

// checkMachines finds what is wrong between entries, and between an entry and
// the rest.
func (l *loader) checkMachines() {
	names, ips, macs := map[string]*rawMachine{}, map[netip.Addr]*rawMachine{}, map[boot.MAC]*rawMachine{}
	for _, m := range l.machines {
		l.checkExists(m.Profile, m.profileAt)
		// A template makes another name for each machine.
		if other := names[m.Name]; other != nil && m.Name != "" && !isTemplate(m.Name) {
			m.at.wrong(fmt.Sprintf("machine %q is also at %s", m.Name, other.Origin), "two nodes cannot have one name")
		}
		names[m.Name] = m
		for _, mac := range m.Match.MAC {
			if other := macs[mac]; other != nil && other != m {
				m.at.wrong(fmt.Sprintf("%s belongs to machine %q at %s too", mac, other.Name, other.Origin), "")
			}
			macs[mac] = m
		}
		l.checkIP(m, ips)
		l.checkUse(&m.own)
	}
	l.checkTies()
}

func (l *loader) checkIP(m *rawMachine, ips map[netip.Addr]*rawMachine) {
	if !m.IP.IsValid() {
		return
	}
	if other := ips[m.IP]; other != nil {
		m.ipAt.wrong(fmt.Sprintf("%s is the address of machine %q at %s too", m.IP, other.Name, other.Origin), "")
	}
	ips[m.IP] = m
	inside := false
	for _, n := range l.networks {
		if !n.Subnet.Contains(m.IP) {
			continue
		}
		inside = true
		switch {
		case m.IP == n.Server || m.IP == n.Router:
			m.ipAt.wrong(fmt.Sprintf("%s is the address of bootd or the router on network %q", m.IP, n.Name), "")
		case n.Subnet.Bits() < 31 && (m.IP == n.Subnet.Addr() || m.IP == broadcast(n.Subnet)):
			m.ipAt.wrong(fmt.Sprintf("%s is the first or last address of network %q, which no machine can have", m.IP, n.Name), "")
		}
	}
	if !inside && !l.lost[ServerFile] && !l.lost[allNetworks] {
		m.ipAt.wrong(fmt.Sprintf("%s is in none of the networks", m.IP), "it must lie in the subnet of a network in bootd.yaml")
	}
	if s := m.Match; len(s.MAC) != 1 && (len(s.MAC) > 1 || s.UUID == "" && (s.Serial == "" || strings.ContainsAny(s.Serial, "*?"))) {
		m.ipAt.wrong(fmt.Sprintf("%s is reserved for more than one machine or network card", m.IP), "an entry with an ip names one mac, one uuid or one whole serial")
	}
}

func (l *loader) checkTies() {
	at := map[*boot.Machine]located{}
	var list []*boot.Machine
	for _, m := range l.machines {
		if len(m.Match.MAC) > 0 || m.Match.IsZero() { // said as a MAC used twice, or as an entry without selector
			continue
		}
		at[&m.Machine] = m.at
		list = append(list, &m.Machine)
	}
	for _, t := range boot.Ties(list) {
		at[t.Second].wrong(fmt.Sprintf("a machine could match this entry and the one at %s equally well", t.First.Origin),
			"make one of the patterns longer, or add a key that only one of them has")
	}
}
