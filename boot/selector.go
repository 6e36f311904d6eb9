package boot

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
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
		if p.pattern != "" && (p.text == "" || !glob(p.pattern, p.text)) {
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

type keyWord struct{ key, word string }

// words lists what is set, as it is written.
func (s Selector) words() (out []keyWord) {
	add := func(key, word string) {
		if word != "" {
			out = append(out, keyWord{key, word})
		}
	}
	var macs []string
	for _, m := range s.MAC {
		macs = append(macs, m.String())
	}
	add("mac", strings.Join(macs, " "))
	add("uuid", s.UUID)
	add("serial", s.Serial)
	add("asset", s.Asset)
	add("product", s.Product)
	add("manufacturer", s.Manufacturer)
	if s.Subnet.IsValid() {
		add("subnet", s.Subnet.String())
	}
	add("arch", s.Arch)
	return out
}

// IsZero reports whether nothing is set, so that s would match every machine.
func (s Selector) IsZero() bool { return s.Rank() == Rank{} }

// A Rank orders selectors by how exactly they name a machine. Keys that are
// fewer machines have come first: a MAC beats any serial number, a serial
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
		r.Literal += utf8.RuneCountInString(p) - strings.Count(p, "*") - strings.Count(p, "?")
	}
	if s.Subnet.IsValid() {
		r.Literal += s.Subnet.Bits()
	}
	return r
}

// Less reports whether r names machines less exactly than o.
func (r Rank) Less(o Rank) bool { return r.compare(o) < 0 }

func (r Rank) compare(o Rank) int {
	return cmp.Or(cmp.Compare(r.Keys, o.Keys), cmp.Compare(r.Literal, o.Literal))
}

// isGlob reports whether a pattern can match more than one text.
func isGlob(pattern string) bool { return strings.ContainsAny(pattern, "*?") }

// same compares two characters without regard to case.
func same(a, b rune) bool { return a == b || unicode.ToLower(a) == unicode.ToLower(b) }

// glob reports whether text matches pattern, in which * stands for any text
// and ? for one character; case does not matter. It takes time in proportion to
// the product of the lengths at worst.
func glob(pattern, text string) bool {
	i, j := 0, 0        // what is compared
	star, back := -1, 0 // after the last *, and where its text ends so far
	for j < len(text) {
		c, size := utf8.DecodeRuneInString(text[j:])
		if i < len(pattern) {
			p, psize := utf8.DecodeRuneInString(pattern[i:])
			if p == '*' {
				i++
				star, back = i, j
				continue
			}
			if p == '?' || same(p, c) {
				i += psize
				j += size
				continue
			}
		}
		if star < 0 {
			return false
		}
		_, size = utf8.DecodeRuneInString(text[back:])
		back += size
		i, j = star, back
	}
	return strings.Trim(pattern[i:], "*") == ""
}
