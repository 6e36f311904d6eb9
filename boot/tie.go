package boot

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// A Tie is two entries that some machine could match equally well.
type Tie struct{ First, Second *Machine }

// Ties finds, for each entry, the first earlier one that it ties with. Thus it
// tells about every entry that has to be changed, but not about all pairs.
func Ties(machines []*Machine) []Tie {
	// Only entries of one rank can tie, and of those that name a whole MAC,
	// UUID or serial number only the ones that name the same.
	type rank struct {
		all, loose []*Machine
		exact      map[string][]*Machine
	}
	ranks := map[Rank]*rank{}
	var out []Tie
	for _, m := range machines {
		r := ranks[m.Match.Rank()]
		if r == nil {
			r = &rank{exact: map[string][]*Machine{}}
			ranks[m.Match.Rank()] = r
		}
		keys := m.Match.exactKeys()
		near := [][]*Machine{r.all}
		if len(keys) > 0 {
			near = [][]*Machine{r.loose}
		}
		for _, k := range keys {
			near = append(near, r.exact[k])
		}
		meets := func(o *Machine) bool { return m.Match.meets(&o.Match) }
		for _, list := range near {
			if i := slices.IndexFunc(list, meets); i >= 0 {
				out = append(out, Tie{list[i], m})
				break
			}
		}
		r.all = append(r.all, m)
		for _, k := range keys {
			r.exact[k] = append(r.exact[k], m)
		}
		if len(keys) == 0 {
			r.loose = append(r.loose, m)
		}
	}
	return out
}

// exactKeys are words of which two selectors of the same rank must share one in
// order to meet, unless one of them has none.
func (s Selector) exactKeys() (keys []string) {
	switch {
	case len(s.MAC) > 0:
		for _, m := range s.MAC {
			keys = append(keys, string(m[:]))
		}
	case s.UUID != "":
		keys = []string{strings.ToLower(s.UUID)}
	case s.Serial != "" && !isGlob(s.Serial):
		keys = []string{strings.ToLower(s.Serial)}
	}
	return keys
}

// MayTie reports whether some machine could match both s and o while neither
// of them is more exact, so that nothing would decide between them.
func (s Selector) MayTie(o Selector) bool {
	return s.Rank() == o.Rank() && s.meets(&o)
}

// meets reports whether some machine could match both of two selectors that
// have the same keys.
func (s *Selector) meets(o *Selector) bool {
	if len(s.MAC) > 0 && !slices.ContainsFunc(s.MAC, func(m MAC) bool { return slices.Contains(o.MAC, m) }) {
		return false
	}
	if !strings.EqualFold(s.UUID, o.UUID) {
		return false
	}
	for _, p := range [...][2]string{
		{s.Serial, o.Serial}, {s.Asset, o.Asset}, {s.Product, o.Product}, {s.Manufacturer, o.Manufacturer},
	} {
		if !globsMeet(p[0], p[1]) {
			return false
		}
	}
	if s.Subnet.IsValid() && !s.Subnet.Overlaps(o.Subnet) {
		return false
	}
	// bios and uefi exclude each other, and so do two processors; a firmware
	// and a processor can meet.
	kind := func(a string) bool { return a == "bios" || a == "uefi" }
	return s.Arch == o.Arch || kind(s.Arch) != kind(o.Arch)
}

// globsMeet reports whether some text matches both patterns.
func globsMeet(a, b string) bool {
	if a == "" && b == "" {
		return true
	}
	// Most pairs differ before their first wildcard.
	for a != "" && b != "" {
		c, csize := utf8.DecodeRuneInString(a)
		d, dsize := utf8.DecodeRuneInString(b)
		if wild(c) || wild(d) {
			break
		}
		if !same(c, d) {
			return false
		}
		a, b = a[csize:], b[dsize:]
	}
	p, q := []rune(a), []rune(b)
	// meet[j]: p[i:] and q[j:] match a common text.
	next := make([]bool, len(q)+1)
	cur := make([]bool, len(q)+1)
	for i := len(p); i >= 0; i-- {
		for j := len(q); j >= 0; j-- {
			switch {
			case i == len(p) && j == len(q):
				cur[j] = true
			case i < len(p) && p[i] == '*':
				cur[j] = next[j] || j < len(q) && cur[j+1]
			case j < len(q) && q[j] == '*':
				cur[j] = cur[j+1] || i < len(p) && next[j]
			default:
				cur[j] = i < len(p) && j < len(q) && next[j+1] &&
					(p[i] == '?' || q[j] == '?' || same(p[i], q[j]))
			}
		}
		cur, next = next, cur
	}
	return next[0]
}

func wild(r rune) bool { return r == '*' || r == '?' }
