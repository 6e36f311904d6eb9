package boot

import (
	"slices"
	"strings"
)

// Matches reports whether inv is a machine that s is for. A field of s that is
// set matches only what the machine has told: an unknown serial number matches
// no pattern, not even *.
func (s Selector) Matches(inv Inventory) bool {
	if len(s.MAC) > 0 && !slices.Contains(s.MAC, inv.MAC) {
		return false
	}
	if s.UUID != "" && !strings.EqualFold(s.UUID, inv.UUID) {
		return false
	}
	for _, p := range [...]struct{ pattern, text string }{
		{s.Serial, inv.Serial},
		{s.Asset, inv.Asset},
		{s.Product, inv.Product},
		{s.Manufacturer, inv.Manufacturer},
	} {
		if p.pattern != "" && (p.text == "" || !glob(strings.ToLower(p.pattern), strings.ToLower(p.text))) {
			return false
		}
	}
	if s.Subnet.IsValid() && !s.Subnet.Contains(inv.Addr) {
		return false
	}
	return s.Arch == "" || s.matchesArch(inv)
}

func (s Selector) matchesArch(inv Inventory) bool {
	switch s.Arch {
	case "bios":
		return inv.ArchKnown && !inv.Arch.EFI()
	case "uefi":
		return inv.ArchKnown && inv.Arch.EFI()
	}
	cpu := inv.CPU
	if cpu == "" && inv.ArchKnown {
		cpu = inv.Arch.CPU()
	}
	return cpu == s.Arch
}

// IsZero reports whether nothing is set, so that s would match every machine.
func (s Selector) IsZero() bool { return s.Rank() == Rank{} }

// A Rank orders selectors by how exactly they name a machine. Keys that are
// fewer machines each come first: a MAC beats any serial number, a serial
// number any manufacturer; of two with the same keys, the one with more literal
// characters in its patterns wins.
type Rank struct {
	Keys    int // bit mask: mac 128, uuid 64, serial 32, asset 16, product 8, manufacturer 4, subnet 2, arch 1
	Literal int // characters of patterns and bits of the subnet
}

// Rank returns the rank of s.
func (s Selector) Rank() Rank {
	var r Rank
	bit := func(set bool, n int) {
		if set {
			r.Keys |= n
		}
	}
	bit(len(s.MAC) > 0, 128)
	bit(s.UUID != "", 64)
	bit(s.Serial != "", 32)
	bit(s.Asset != "", 16)
	bit(s.Product != "", 8)
	bit(s.Manufacturer != "", 4)
	bit(s.Subnet.IsValid(), 2)
	bit(s.Arch != "", 1)
	for _, p := range []string{s.Serial, s.Asset, s.Product, s.Manufacturer} {
		r.Literal += len(p) - strings.Count(p, "*") - strings.Count(p, "?")
	}
	if s.Subnet.IsValid() {
		r.Literal += s.Subnet.Bits()
	}
	return r
}

// Less reports whether r names machines less exactly than o.
func (r Rank) Less(o Rank) bool {
	if r.Keys != o.Keys {
		return r.Keys < o.Keys
	}
	return r.Literal < o.Literal
}

// MayTie reports whether some machine could match both s and o while neither
// of them is more exact, so that nothing would decide between them.
func (s Selector) MayTie(o Selector) bool {
	if s.Rank() != o.Rank() {
		return false
	}
	if len(s.MAC) > 0 && !slices.ContainsFunc(s.MAC, func(m MAC) bool { return slices.Contains(o.MAC, m) }) {
		return false
	}
	if !strings.EqualFold(s.UUID, o.UUID) {
		return false
	}
	for _, p := range [...][2]string{
		{s.Serial, o.Serial}, {s.Asset, o.Asset}, {s.Product, o.Product}, {s.Manufacturer, o.Manufacturer},
	} {
		if !globsMeet(strings.ToLower(p[0]), strings.ToLower(p[1])) {
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

// glob reports whether text matches pattern, in which * stands for any text
// and ? for one character. It takes time in proportion to the product of the
// lengths at worst.
func glob(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	i, j, star, back := 0, 0, -1, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, back = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == t[j]):
			i++
			j++
		case star >= 0:
			back++
			i, j = star+1, back
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// globsMeet reports whether some text matches both patterns.
func globsMeet(a, b string) bool {
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
					(p[i] == q[j] || p[i] == '?' || q[j] == '?')
			}
		}
		cur, next = next, cur
	}
	return next[0]
}
