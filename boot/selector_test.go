package boot_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"bootd/boot"
)

func TestSelectorMatches(t *testing.T) {
	m1, m2 := boot.MAC{2, 1}, boot.MAC{2, 2}
	blade := boot.Inventory{MAC: m1, UUID: "77000000-0000-4000-8000-525400770010", Serial: "SN-Ä17", Manufacturer: "A.T.WORKS, Inc.",
		Product: "Blade 4", Asset: "rack*7", Arch: boot.EFIX64, ArchKnown: true, Addr: netip.MustParseAddr("10.0.0.17")}
	for _, tt := range []struct {
		name string
		s    boot.Selector
		inv  boot.Inventory
		want bool
	}{
		{"nothing set", boot.Selector{}, blade, true},
		{"one of two MACs", boot.Selector{MAC: []boot.MAC{m2, m1}}, blade, true},
		{"another MAC", boot.Selector{MAC: []boot.MAC{m2}}, blade, false},
		{"UUID in capitals", boot.Selector{UUID: strings.ToUpper(blade.UUID)}, blade, true},
		{"another UUID", boot.Selector{UUID: strings.Replace(blade.UUID, "7", "8", 1)}, blade, false},
		{"case of a pattern", boot.Selector{Manufacturer: "a.t.works*"}, blade, true},
		{"case beyond ASCII", boot.Selector{Serial: "sn-ä??"}, blade, true},
		{"? is one character, not one byte", boot.Selector{Serial: "SN-?17"}, blade, true},
		{"? is not none", boot.Selector{Serial: "SN-Ä17?"}, blade, false},
		{"* may be nothing", boot.Selector{Serial: "*SN-*Ä17*"}, blade, true},
		{"the last of several places", boot.Selector{Product: "*e 4"}, boot.Inventory{Product: "e e 4e 4"}, true},
		{"the pattern is longer", boot.Selector{Product: "Blade 4b"}, blade, false},
		{"the text is longer", boot.Selector{Product: "Blade"}, blade, false},
		{"? after * is still one character", boot.Selector{Product: "*???de"}, boot.Inventory{Product: "€cde"}, false},
		{"* in the text is a character", boot.Selector{Asset: "rack77"}, blade, false},
		{"* matches nothing unknown", boot.Selector{Serial: "*"}, boot.Inventory{MAC: m1}, false},
		{"subnet", boot.Selector{Subnet: netip.MustParsePrefix("10.0.0.16/28")}, blade, true},
		{"another subnet", boot.Selector{Subnet: netip.MustParsePrefix("10.0.0.32/28")}, blade, false},
		{"address not known", boot.Selector{Subnet: netip.MustParsePrefix("0.0.0.0/0")}, boot.Inventory{}, false},
		{"uefi", boot.Selector{Arch: "uefi"}, blade, true},
		{"not bios", boot.Selector{Arch: "bios"}, blade, false},
		{"bios is 0, but not when 0 was never told", boot.Selector{Arch: "bios"}, boot.Inventory{}, false},
		{"bios", boot.Selector{Arch: "bios"}, boot.Inventory{ArchKnown: true}, true},
		{"processor by firmware", boot.Selector{Arch: "x86_64"}, blade, true},
		{"iPXE knows the processor better", boot.Selector{Arch: "aarch64"}, boot.Inventory{ArchKnown: true, CPU: "aarch64"}, true},
		{"all must match", boot.Selector{Serial: "SN*", Product: "PX*"}, blade, false},
	} {
		if got := tt.s.Matches(tt.inv); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestRank(t *testing.T) {
	// Each beats all that follow.
	order := []boot.Selector{
		{MAC: []boot.MAC{{2}}, Arch: "bios"},
		{MAC: []boot.MAC{{2}}},
		{UUID: "77000000-0000-4000-8000-525400770010"},
		{Serial: "A", Product: "*"},
		{Serial: "AB*"},
		{Serial: "ÄÄ"}, // characters, not bytes
		{Serial: "A??*"},
		{Asset: "A*", Manufacturer: "*", Arch: "bios"},
		{Asset: "A*"},
		{Product: "*"},
		{Manufacturer: "Long Name Inc.", Arch: "uefi"},
		{Manufacturer: "Long Name Inc."},
		{Subnet: netip.MustParsePrefix("10.0.0.0/24")},
		{Subnet: netip.MustParsePrefix("10.0.0.0/16")},
		{Arch: "bios"},
		{},
	}
	for i, a := range order {
		for j, b := range order {
			equal := i == j || i+j == 9 && (i == 4 || i == 5) // AB* and ÄÄ
			if a.Rank().Less(b.Rank()) != (i > j && !equal) {
				t.Errorf("%+v (%+v) and %+v (%+v): %v", a, a.Rank(), b, b.Rank(), a.Rank().Less(b.Rank()))
			}
		}
	}
	if !order[len(order)-1].IsZero() || order[9].IsZero() {
		t.Error("only a selector without keys is zero")
	}
}

// texts are all words of up to six letters of a small alphabet: enough for what
// two patterns of the properties below have in common.
func texts() []string {
	out, last := []string{}, []string{""}
	for range 6 {
		var next []string
		for _, w := range last {
			for _, c := range []string{"a", "b"} {
				next = append(next, w+c)
			}
		}
		out = append(out, next...)
		last = next
	}
	return out
}

func drawPattern(t *rapid.T, label string) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "A", "*", "?"}), 1, 4).Draw(t, label), "")
}

// TestMeetingPatterns compares the decision whether two patterns can match one
// text with trying all texts.
func TestMeetingPatterns(t *testing.T) {
	all := texts()
	rapid.Check(t, func(t *rapid.T) {
		p, q := drawPattern(t, "p"), drawPattern(t, "q")
		a, b := boot.Selector{Serial: p}, boot.Selector{Serial: q}
		both := ""
		for _, s := range all {
			if inv := (boot.Inventory{Serial: s}); a.Matches(inv) && b.Matches(inv) {
				both = s
				break
			}
		}
		if want := both != "" && a.Rank() == b.Rank(); a.MayTie(b) != want {
			t.Fatalf("%q and %q may tie: %v; a text that both match: %q", p, q, !want, both)
		}
	})
}

// drawMachines draws entries that overlap a lot.
func drawMachines(t *rapid.T) (list []*boot.Machine) {
	n := rapid.IntRange(0, 6).Draw(t, "machines")
	for i := range n {
		m := &boot.Machine{Name: fmt.Sprintf("m%d", i), Profile: "p", Origin: boot.Origin{File: "f", Line: i + 1}}
		s := &m.Match
		if rapid.IntRange(0, 4).Draw(t, "has mac") == 0 {
			s.MAC = rapid.SliceOfNDistinct(rapid.SampledFrom([]boot.MAC{{2, 1}, {2, 2}}), 1, 2, rapid.ID).Draw(t, "mac")
		}
		s.UUID = rapid.SampledFrom([]string{"", "", "u1", "U1", "u2"}).Draw(t, "uuid")
		if rapid.Bool().Draw(t, "has serial") {
			s.Serial = drawPattern(t, "serial")
		}
		if rapid.Bool().Draw(t, "has product") {
			s.Product = drawPattern(t, "product")
		}
		s.Arch = rapid.SampledFrom([]string{"", "bios", "uefi", "x86_64"}).Draw(t, "arch")
		list = append(list, m)
	}
	return list
}

// TestIndex compares what the catalog's indexes find with looking at every
// entry.
func TestIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawMachines(t)
		c, err := boot.NewCatalog(boot.Catalog{Machines: list, Profiles: map[string]*boot.Profile{"p": {Name: "p"}}})
		if err != nil {
			t.Fatal(err)
		}
		inv := boot.Inventory{
			MAC:    rapid.SampledFrom([]boot.MAC{{2, 1}, {2, 2}, {2, 3}}).Draw(t, "MAC"),
			UUID:   rapid.SampledFrom([]string{"", "u1", "u2", "U2"}).Draw(t, "UUID"),
			Serial: rapid.SampledFrom([]string{"", "a", "B", "ab", "abb"}).Draw(t, "Serial"), Product: rapid.SampledFrom([]string{"", "a", "bA"}).Draw(t, "Product"),
			ArchKnown: true, Arch: rapid.SampledFrom([]boot.Arch{boot.BIOS, boot.EFIX64, boot.EFIARM64}).Draw(t, "Arch"),
		}
		var best *boot.Machine
		ties := 0
		for _, m := range list {
			switch {
			case !m.Match.Matches(inv) || best != nil && m.Match.Rank().Less(best.Match.Rank()):
			case best == nil || best.Match.Rank().Less(m.Match.Rank()):
				best, ties = m, 0
			default:
				ties++
			}
		}
		got, err := c.Assign(inv)
		if (err != nil) != (ties > 0) {
			t.Fatalf("err = %v, with %d other entries as exact as %v", err, ties, best)
		}
		if err == nil && got.Machine != best {
			t.Fatalf("got %+v, want %+v", got.Machine, best)
		}
	})
}

// TestTies: an entry is told of when it may tie with any earlier one, and
// then with one that it may tie with.
func TestTies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawMachines(t)
		found := map[*boot.Machine]*boot.Machine{}
		for _, tie := range boot.Ties(list) {
			if found[tie.Second] != nil || !tie.First.Match.MayTie(tie.Second.Match) || tie.First.Origin.Line >= tie.Second.Origin.Line {
				t.Fatalf("wrong tie: %+v, %+v", tie.First, tie.Second)
			}
			found[tie.Second] = tie.First
		}
		for i, m := range list {
			for _, o := range list[:i] {
				if m.Match.MayTie(o.Match) && found[m] == nil {
					t.Fatalf("the tie of %+v and %+v was not found", o, m)
				}
			}
		}
	})
}

// TestTieOfWholeSerial: an entry with a whole serial number can tie with one
// that has a pattern there and more elsewhere.
func TestTieOfWholeSerial(t *testing.T) {
	loose := &boot.Machine{Match: boot.Selector{Serial: "A*", Product: "BC"}}
	whole := &boot.Machine{Match: boot.Selector{Serial: "AA", Product: "B*"}}
	for _, list := range [][]*boot.Machine{{loose, whole}, {whole, loose}} {
		if got := boot.Ties(list); len(got) != 1 || got[0] != (boot.Tie{First: list[0], Second: list[1]}) {
			t.Errorf("got %v", got)
		}
	}
}

// TestNoTieNoDispute: where Ties finds nothing, no machine is disputed.
func TestNoTieNoDispute(t *testing.T) {
	all := texts()
	rapid.Check(t, func(t *rapid.T) {
		list := drawMachines(t)
		if len(boot.Ties(list)) > 0 {
			t.Skip("they tie")
		}
		c, err := boot.NewCatalog(boot.Catalog{Machines: list, Profiles: map[string]*boot.Profile{"p": {Name: "p"}}})
		if err != nil {
			t.Fatal(err)
		}
		inv := boot.Inventory{MAC: boot.MAC{2, 1}, UUID: "u1", ArchKnown: true,
			Serial: rapid.SampledFrom(all).Draw(t, "Serial"), Product: rapid.SampledFrom(all).Draw(t, "Product")}
		if _, err := c.Assign(inv); err != nil {
			t.Fatal(err)
		}
	})
}
