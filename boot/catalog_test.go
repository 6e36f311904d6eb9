package boot_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
)

func mac(t testing.TB, s string) boot.MAC {
	t.Helper()
	m, err := boot.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAssign(t *testing.T) {
	m1 := mac(t, "52:54:00:00:00:01")
	catalog, err := boot.NewCatalog(boot.Catalog{
		Networks: []boot.Network{{Name: "rack", Subnet: netip.MustParsePrefix("10.0.0.0/24")}},
		Profiles: map[string]*boot.Profile{
			"worker": {Name: "worker", Image: "a", Args: []string{"quiet"}, Swarm: &boot.Member{Labels: map[string]string{"tier": "back"}}},
			"other":  {Name: "other"},
		},
		Machines: []*boot.Machine{
			{Name: "any-{{.serial}}", Match: boot.Selector{Manufacturer: "a.t.*"}, Profile: "worker"},
			{Name: "blade-{{.serial}}", Match: boot.Selector{Manufacturer: "A.T.Works*"}, Profile: "worker"},
			{Name: "node1", Match: boot.Selector{MAC: []boot.MAC{m1}}, Profile: "worker",
				Override: boot.Profile{Args: []string{"debug"}, Swarm: &boot.Member{Labels: map[string]string{"rack": "r1"}}}},
			{Name: "x", Match: boot.Selector{Product: "PX*"}, Profile: "other", Origin: boot.Origin{File: "machines/a.yaml", Line: 4, Column: 3}},
			{Name: "y", Match: boot.Selector{Product: "*X1"}, Profile: "other", Origin: boot.Origin{File: "machines/a.yaml", Line: 5, Column: 3}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	m9 := mac(t, "52:54:00:00:00:09")
	for _, tt := range []struct {
		name          string
		inv           boot.Inventory
		host, profile string
		errs          []string
	}{
		{"MAC beats manufacturer", boot.Inventory{MAC: m1, Serial: "S1", Manufacturer: "A.T.WORKS"}, "node1", "worker", nil},
		{"more literal pattern", boot.Inventory{MAC: m9, Serial: "S 9", Manufacturer: "a.t.works inc"}, "blade-s-9", "worker", nil},
		{"less literal pattern", boot.Inventory{MAC: m9, Serial: "S9", Manufacturer: "A.T.Other"}, "any-s9", "worker", nil},
		{"nobody", boot.Inventory{MAC: m9}, "node-525400000009", "", nil},
		{"name not yet known", boot.Inventory{MAC: m9, Manufacturer: "A.T.WORKS"}, "node-525400000009", "worker", []string{"serial"}},
		{"tie", boot.Inventory{MAC: m9, Product: "PXX1"}, "node-525400000009", "", []string{`"x" (machines/a.yaml:4:3)`, `"y" (machines/a.yaml:5:3)`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := catalog.Assign(tt.inv)
			if (err != nil) != (len(tt.errs) > 0) {
				t.Fatalf("err = %v", err)
			}
			for _, want := range tt.errs {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("err = %v, which does not name %s", err, want)
				}
			}
			profile := ""
			if a.Profile != nil {
				profile = a.Profile.Name
			}
			if a.Name != tt.host || profile != tt.profile {
				t.Errorf("got %s, %s; want %s, %s", a.Name, profile, tt.host, tt.profile)
			}
		})
	}
	a, err := catalog.Assign(boot.Inventory{MAC: m1, Addr: netip.MustParseAddr("10.0.0.7")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"quiet", "debug"}, a.Profile.Args); diff != "" {
		t.Error("override of args:", diff)
	}
	if diff := cmp.Diff(map[string]string{"tier": "back", "rack": "r1"}, a.Profile.Swarm.Labels); diff != "" {
		t.Error("override of labels:", diff)
	}
	if a.Network == nil || a.Network.Name != "rack" {
		t.Errorf("network = %v", a.Network)
	}
	if l := catalog.Profiles["worker"].Swarm.Labels; len(l) != 1 {
		t.Errorf("the override changed the profile itself: %v", l)
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct{ template, want string }{
		{"blade-{{.serial}}", ""},
		{"{{.mac}}", ""},
		{"b-{{.sreial}}", "only serial"},
		{"b-{{.serial", "unclosed"},
		{"b_{{.serial}}", "does not make a host name"},
		{"{{.serial}}-", "does not make a host name"},
	} {
		_, err := boot.ParseName(tt.template)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("ParseName(%q): %v; want %q", tt.template, err, tt.want)
		}
	}
}

func TestMayTie(t *testing.T) {
	s := func(serial, manufacturer string) boot.Selector {
		return boot.Selector{Serial: serial, Manufacturer: manufacturer}
	}
	for _, tt := range []struct {
		a, b boot.Selector
		want bool
	}{
		{s("A*", ""), s("*B", ""), true},
		{s("A*", ""), s("B*", ""), false},
		{s("A*", ""), s("AB*", ""), false}, // the longer one wins
		{s("A?", ""), s("?B", ""), true},
		{s("A?", ""), s("?BC", ""), false},
		{s("a*", ""), s("A*", ""), true},
		{s("A*", ""), s("", "A*"), false}, // a serial beats a manufacturer
		{boot.Selector{Arch: "bios"}, boot.Selector{Arch: "uefi"}, false},
		{boot.Selector{Arch: "bios"}, boot.Selector{Arch: "x86_64"}, true},
		{boot.Selector{MAC: []boot.MAC{{1}}}, boot.Selector{MAC: []boot.MAC{{2}}}, false},
		{boot.Selector{MAC: []boot.MAC{{1}}}, boot.Selector{MAC: []boot.MAC{{2}, {1}}}, true},
	} {
		if got := tt.a.MayTie(tt.b); got != tt.want || tt.b.MayTie(tt.a) != got {
			t.Errorf("%+v and %+v: %v, the other way round %v; want %v", tt.a, tt.b, got, tt.b.MayTie(tt.a), tt.want)
		}
	}
}

// TestExtendOrigins follows each value of a merged profile to where it was
// written.
func TestExtendOrigins(t *testing.T) {
	at := func(n int) boot.Origin { return boot.Origin{File: "f", Line: n} }
	base := boot.Profile{Name: "base", Image: "a", Args: []string{"x", "y"},
		Files: []boot.File{{Path: "/etc/a"}, {Path: "/etc/ab"}}, Butane: []boot.Fragment{{Text: "1"}},
		Origins: map[string]boot.Origin{"image": at(1), "args.0": at(2), "args.1": at(3), "files./etc/a": at(4),
			"files./etc/a.mode": at(5), "files./etc/ab": at(6), "butane.0": at(7)}}
	over := boot.Profile{Name: "w", Args: []string{"y", "z"}, Files: []boot.File{{Path: "/etc/a", Mode: 1}}, Butane: []boot.Fragment{{Text: "2"}},
		Origins: map[string]boot.Origin{"name": at(20), "args.0": at(21), "args.1": at(22), "files./etc/a": at(23), "butane.0": at(24)}}
	got := base.Extend(over)
	want := boot.Profile{Name: "w", Image: "a", Args: []string{"x", "y", "z"},
		Files: []boot.File{{Path: "/etc/a", Mode: 1}, {Path: "/etc/ab"}}, Butane: []boot.Fragment{{Text: "1"}, {Text: "2"}},
		Origins: map[string]boot.Origin{"name": at(20), "image": at(1), "args.0": at(2), "args.1": at(3), "args.2": at(22),
			"files./etc/a": at(23), "files./etc/ab": at(6), "butane.0": at(7), "butane.1": at(24)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got.Args[0], got.Files[0].Mode = "changed", 7
	if base.Args[0] != "x" || over.Files[0].Mode != 1 {
		t.Error("the result shares memory with its inputs")
	}
}

func BenchmarkAssign(b *testing.B) {
	c := boot.Catalog{Profiles: map[string]*boot.Profile{"w": {Name: "w"}}}
	for i := range 10_000 {
		c.Machines = append(c.Machines, &boot.Machine{Name: fmt.Sprintf("n%d", i), Profile: "w",
			Match: boot.Selector{MAC: []boot.MAC{{2, 0, 0, 0, byte(i >> 8), byte(i)}}}})
	}
	catalog, err := boot.NewCatalog(c)
	if err != nil {
		b.Fatal(err)
	}
	inv := boot.Inventory{MAC: boot.MAC{2, 0, 0, 0, 7, 7}}
	for b.Loop() {
		if a, err := catalog.Assign(inv); err != nil || a.Machine == nil {
			b.Fatal(a, err)
		}
	}
}
