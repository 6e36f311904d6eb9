package boot

import (
	"encoding/hex"
	"fmt"
	"net/netip"
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

	// Entries are looked for where they can be found fastest. Each list has
	// the most exact ones first.
	byMAC    map[MAC][]*entry    // entries that name the MAC
	byUUID   map[string][]*entry // of the others, those that name the UUID; lower case
	bySerial map[string][]*entry // of the others, those with a whole serial number; lower case
	patterns []*entry            // all others
	reserved map[netip.Addr]*Machine

	effective map[*Machine]*Profile
}

// An entry is a Machine made ready for being assigned.
type entry struct {
	*Machine
	rank    Rank
	profile *Profile           // effective, with the entry's own keys
	name    *template.Template // nil: the name is no template
}

// NewCatalog makes the indexes of c and returns it. The contents of c must not
// be changed afterwards. Names that are not templates of a host name and
// entries whose profile does not exist are errors.
func NewCatalog(c Catalog) (*Catalog, error) {
	c.byMAC = map[MAC][]*entry{}
	c.byUUID = map[string][]*entry{}
	c.bySerial = map[string][]*entry{}
	c.patterns = nil
	c.reserved = map[netip.Addr]*Machine{}
	c.effective = map[*Machine]*Profile{}
	var entries []*entry
	for _, m := range c.Machines {
		e, err := newEntry(m, c.Profiles)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
		c.effective[m] = e.profile
		if m.IP.IsValid() {
			c.reserved[m.IP] = m
		}
	}
	slices.SortStableFunc(entries, func(a, b *entry) int { return b.rank.compare(a.rank) })
	for _, e := range entries {
		c.index(e)
	}
	if c.Unknown != "" && c.Profiles[c.Unknown] == nil {
		return nil, fmt.Errorf("unknown machines are to get profile %q, which does not exist", c.Unknown)
	}
	return &c, nil
}

func newEntry(m *Machine, profiles map[string]*Profile) (*entry, error) {
	e := &entry{Machine: m, rank: m.Match.Rank(), profile: profiles[m.Profile]}
	if e.profile == nil {
		return nil, fmt.Errorf("%s: machine %q has profile %q, which does not exist", m.Origin, m.Name, m.Profile)
	}
	// Machines that set nothing of their own share their profile, so that what
	// is derived from a profile is derived once for all of them.
	if !m.Override.isZero() {
		p := e.profile.Extend(m.Override)
		p.Name = e.profile.Name
		e.profile = &p
	}
	if isTemplate(m.Name) {
		t, err := ParseName(m.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Origin, err)
		}
		e.name = t
	}
	return e, nil
}

func (c *Catalog) index(e *entry) {
	s := e.Match
	switch {
	case len(s.MAC) > 0:
		for _, mac := range s.MAC {
			c.byMAC[mac] = append(c.byMAC[mac], e)
		}
	case s.UUID != "":
		key := strings.ToLower(s.UUID)
		c.byUUID[key] = append(c.byUUID[key], e)
	case s.Serial != "" && !isGlob(s.Serial):
		key := strings.ToLower(s.Serial)
		c.bySerial[key] = append(c.bySerial[key], e)
	default:
		c.patterns = append(c.patterns, e)
	}
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
		a.Name = FallbackName(inv.MAC)
		return a, fmt.Errorf("machine %s matches both %q (%s) and %q (%s) equally well; add to one of them a key that only it has",
			inv.MAC, m.Name, m.Origin, rival.Name, rival.Origin)
	}
	if m == nil {
		a.Name = FallbackName(inv.MAC)
		a.Profile = c.Profiles[c.Unknown]
		return a, nil
	}
	a.Machine = m.Machine
	a.Profile = m.profile
	a.Name = m.Name
	if m.name != nil {
		name, err := RenderName(m.name, inv)
		if err != nil {
			a.Name = FallbackName(inv.MAC)
			return a, fmt.Errorf("machine %s: name of %s: %w", inv.MAC, m.Origin, err)
		}
		a.Name = name
	}
	return a, nil
}

// match finds the entry for a machine, and a second one when nothing decides
// between the two.
func (c *Catalog) match(inv Inventory) (best, rival *entry) {
	consider := func(list []*entry) {
		for _, e := range list {
			switch {
			case best != nil && e.rank.Less(best.rank):
				return // and so are all that follow
			case !e.Match.Matches(inv):
			case best == nil || best.rank.Less(e.rank):
				best, rival = e, nil
			default:
				rival = e
			}
		}
	}
	// A MAC beats everything else, and a UUID what is left.
	if consider(c.byMAC[inv.MAC]); best != nil {
		return best, rival
	}
	if inv.UUID != "" && len(c.byUUID) > 0 {
		if consider(c.byUUID[strings.ToLower(inv.UUID)]); best != nil {
			return best, rival
		}
	}
	if inv.Serial != "" && len(c.bySerial) > 0 {
		consider(c.bySerial[strings.ToLower(inv.Serial)])
	}
	consider(c.patterns)
	return best, rival
}

// FallbackName is the host name of a machine that nobody has named.
func FallbackName(mac MAC) string {
	b := make([]byte, 0, len("node-")+2*len(mac))
	return string(hex.AppendEncode(append(b, "node-"...), mac[:]))
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

// Effective returns the profile of an entry of c, with the entry's own keys
// merged in.
func (c *Catalog) Effective(m *Machine) *Profile { return c.effective[m] }

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
