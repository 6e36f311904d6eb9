package boot

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"text/template"
)

// A Catalog is everything that decides what machines boot. It is immutable:
// whoever changes something builds a new one with [NewCatalog] and swaps it.
type Catalog struct {
	Networks []Network
	Profiles map[string]*Profile
	Machines []*Machine // in the order they were written
	Images   map[string]Image

	// Unknown is the profile of machines that no entry matches. When it is
	// empty they wait, and boot as soon as an entry for them is written.
	Unknown string

	byMAC    map[MAC][]*Machine // entries that name the MAC
	patterns []*Machine         // entries that name no MAC
	reserved map[netip.Addr]*Machine
	merged   map[*Machine]*Profile // effective, with the entry's own keys
	names    map[*Machine]*template.Template
}

// NewCatalog makes the indexes of c and returns it. The contents of c must not
// be changed afterwards. Names that are not templates of a host name and
// entries whose profile does not exist are errors.
func NewCatalog(c Catalog) (*Catalog, error) {
	c.byMAC = map[MAC][]*Machine{}
	c.reserved = map[netip.Addr]*Machine{}
	c.merged = map[*Machine]*Profile{}
	c.names = map[*Machine]*template.Template{}
	for _, m := range c.Machines {
		if len(m.Match.MAC) == 0 {
			c.patterns = append(c.patterns, m)
		}
		for _, mac := range m.Match.MAC {
			c.byMAC[mac] = append(c.byMAC[mac], m)
		}
		if m.IP.IsValid() {
			c.reserved[m.IP] = m
		}
		p := c.Profiles[m.Profile]
		if p == nil {
			return nil, fmt.Errorf("%s: machine %q has profile %q, which does not exist", m.Origin, m.Name, m.Profile)
		}
		merged := p.Extend(m.Override)
		merged.Name = p.Name
		c.merged[m] = &merged
		if strings.Contains(m.Name, "{{") {
			t, err := ParseName(m.Name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.Origin, err)
			}
			c.names[m] = t
		}
	}
	if c.Unknown != "" && c.Profiles[c.Unknown] == nil {
		return nil, fmt.Errorf("unknown machines are to get profile %q, which does not exist", c.Unknown)
	}
	return &c, nil
}

// An Assignment is what one machine gets.
type Assignment struct {
	Inventory Inventory
	Machine   *Machine // nil: no entry matches
	Name      string   // host name; for a machine without an entry, from its MAC
	Profile   *Profile // effective, with the machine's own keys merged in; nil: none, the machine waits
	Network   *Network // by Inventory.Addr; nil: not known
}

// Assign decides what the machine that inv describes gets. The entry that
// names it most exactly wins (see [Rank]). Two that are equally exact are an
// error that names both, and so is a name that needs what the machine has not
// told; the rest of the Assignment is then still set.
func (c *Catalog) Assign(inv Inventory) (Assignment, error) {
	a := Assignment{Inventory: inv, Network: c.NetworkOf(inv.Addr)}
	m, rival := c.match(inv)
	if rival != nil {
		a.Name = fallbackName(inv)
		return a, fmt.Errorf("machine %s matches both %q (%s) and %q (%s) equally well; add to one of them a key that only it has",
			inv.MAC, m.Name, m.Origin, rival.Name, rival.Origin)
	}
	if m == nil {
		a.Name = fallbackName(inv)
		a.Profile = c.Profiles[c.Unknown]
		return a, nil
	}
	a.Machine = m
	a.Profile = c.merged[m]
	a.Name = m.Name
	if t := c.names[m]; t != nil {
		name, err := RenderName(t, inv)
		if err != nil {
			a.Name = fallbackName(inv)
			return a, fmt.Errorf("machine %s: name of %s: %w", inv.MAC, m.Origin, err)
		}
		a.Name = name
	}
	return a, nil
}

// match finds the entry for a machine, and a second one when nothing decides
// between the two.
func (c *Catalog) match(inv Inventory) (best, rival *Machine) {
	consider := func(list []*Machine) {
		for _, m := range list {
			if !m.Match.Matches(inv) {
				continue
			}
			switch {
			case best == nil || best.Match.Rank().Less(m.Match.Rank()):
				best, rival = m, nil
			case best.Match.Rank() == m.Match.Rank():
				rival = m
			}
		}
	}
	// A MAC beats everything else, so patterns matter only without one.
	if consider(c.byMAC[inv.MAC]); best == nil {
		consider(c.patterns)
	}
	return best, rival
}

func fallbackName(inv Inventory) string {
	return "node-" + strings.ReplaceAll(inv.MAC.String(), ":", "")
}

// NetworkOf returns the network that addr lies in, or nil.
func (c *Catalog) NetworkOf(addr netip.Addr) *Network {
	for i := range c.Networks {
		if c.Networks[i].Subnet.Contains(addr) {
			return &c.Networks[i]
		}
	}
	return nil
}

// NetworksOn returns the networks of an interface, in the order they were
// written.
func (c *Catalog) NetworksOn(iface string) []*Network {
	var out []*Network
	for i := range c.Networks {
		if c.Networks[i].Interface == iface {
			out = append(out, &c.Networks[i])
		}
	}
	return out
}

// Reserved returns the entry that an address is reserved for, or nil.
func (c *Catalog) Reserved(addr netip.Addr) *Machine { return c.reserved[addr] }

// Image returns the image of that name for a processor, or for the only one
// that there is.
func (c *Catalog) Image(name, cpu string) (Image, bool) {
	if i, ok := c.Images[name+"/"+cpu]; ok {
		return i, true
	}
	i, ok := c.Images[name]
	return i, ok && (cpu == "" || i.CPU == "" || i.CPU == cpu)
}

// hostName is a host name as RFC 1123 section 2.1 allows: labels of letters,
// digits and inner hyphens.
var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

// ValidName reports whether s can be a node's host name. Linux allows 64
// characters.
func ValidName(s string) bool { return len(s) <= 64 && hostName.MatchString(s) }

// NameKeys are the keys that the template of a name may use.
func NameKeys() []string {
	return []string{"serial", "mac", "uuid", "asset", "product", "manufacturer"}
}

// ParseName reads a template of a host name such as blade-{{.serial}} and
// tries it out, so that a key that does not exist is found now.
func ParseName(s string) (*template.Template, error) {
	t, err := template.New("name").Option("missingkey=error").Parse(s)
	if err != nil {
		return nil, fmt.Errorf("name %q: %s", s, strings.TrimPrefix(err.Error(), "template: name:"))
	}
	example := map[string]string{}
	for _, k := range NameKeys() {
		example[k] = "x1"
	}
	var b strings.Builder
	if err := t.Execute(&b, example); err != nil {
		return nil, fmt.Errorf("name %q: only %s can be used in a name", s, strings.Join(NameKeys(), ", "))
	}
	if !ValidName(strings.ToLower(b.String())) {
		return nil, fmt.Errorf("name %q does not make a host name: with x1 for each key it is %q", s, b.String())
	}
	return t, nil
}

// RenderName fills in a template of [ParseName]. Characters that a host name
// cannot have become hyphens; a key that the machine has not told is an error.
func RenderName(t *template.Template, inv Inventory) (string, error) {
	values := map[string]string{}
	for k, v := range map[string]string{
		"serial": inv.Serial, "mac": strings.ReplaceAll(inv.MAC.String(), ":", ""), "uuid": inv.UUID,
		"asset": inv.Asset, "product": inv.Product, "manufacturer": inv.Manufacturer,
	} {
		if v != "" {
			values[k] = v
		}
	}
	var b strings.Builder
	if err := t.Execute(&b, values); err != nil {
		missing := slices.DeleteFunc(NameKeys(), func(k string) bool { return values[k] != "" })
		return "", fmt.Errorf("%q needs something that the machine has not told (not known of it: %s)",
			t.Root.String(), strings.Join(missing, ", "))
	}
	name := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, b.String()), "-.")
	if !ValidName(name) {
		return "", fmt.Errorf("%q makes %q, which is not a host name", t.Root.String(), name)
	}
	return name, nil
}
