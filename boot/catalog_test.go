package boot_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
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
			{Name: "serial", Match: boot.Selector{Serial: "sN77"}, Profile: "other"},
			{Name: "uuid", Match: boot.Selector{UUID: "77000000-AAAA-4000-8000-525400770010"}, Profile: "other"},
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
		{"whole serial in another case", boot.Inventory{MAC: m9, Serial: "Sn77", Manufacturer: "A.T.WORKS"}, "serial", "other", nil},
		{"UUID in another case beats serial", boot.Inventory{MAC: m9, Serial: "Sn77", UUID: "77000000-aaaa-4000-8000-525400770010"}, "uuid", "other", nil},
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

func TestUnknownMachines(t *testing.T) {
	c := boot.Catalog{Profiles: map[string]*boot.Profile{"any": {Name: "any"}}, Unknown: "any"}
	catalog, err := boot.NewCatalog(c)
	if err != nil {
		t.Fatal(err)
	}
	a, err := catalog.Assign(boot.Inventory{MAC: boot.MAC{0x52, 0x54, 0, 0xab, 0, 1}})
	if err != nil || a.Machine != nil || a.Profile != c.Profiles["any"] || a.Name != "node-525400ab0001" {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestNewCatalogRefuses(t *testing.T) {
	at := boot.Origin{File: "machines/a.yaml", Line: 4, Column: 3}
	profiles := map[string]*boot.Profile{"p": {Name: "p"}}
	for _, tt := range []struct {
		c    boot.Catalog
		want string
	}{
		{boot.Catalog{Profiles: profiles, Machines: []*boot.Machine{{Name: "n", Profile: "q", Origin: at}}}, `machines/a.yaml:4:3: machine "n" has profile "q"`},
		{boot.Catalog{Profiles: profiles, Machines: []*boot.Machine{{Name: "n-{{.seral}}", Profile: "p", Origin: at}}}, `machines/a.yaml:4:3: name "n-{{.seral}}"`},
		{boot.Catalog{Profiles: profiles, Unknown: "q"}, `unknown machines are to get profile "q"`},
	} {
		if _, err := boot.NewCatalog(tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("err = %v, want %s", err, tt.want)
		}
	}
}

// TestSharedProfiles is about ten thousand machines of one profile: what is
// made of a profile is made once for all of them.
func TestSharedProfiles(t *testing.T) {
	p := &boot.Profile{Name: "p"}
	at := map[string]boot.Origin{"name": {Line: 1}}
	plain := &boot.Machine{Name: "plain", Match: boot.Selector{Serial: "1"}, Profile: "p", Override: boot.Profile{Origins: at}}
	own := &boot.Machine{Name: "own", Match: boot.Selector{Serial: "2"}, Profile: "p", Override: boot.Profile{Args: []string{"x"}}}
	c, err := boot.NewCatalog(boot.Catalog{Profiles: map[string]*boot.Profile{"p": p}, Machines: []*boot.Machine{plain, own}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Effective(plain) != p {
		t.Error("a machine that sets nothing has a profile of its own")
	}
	if e := c.Effective(own); e == p || e.Name != "p" || len(e.Args) != 1 || len(p.Args) != 0 {
		t.Errorf("a machine that sets something: %+v; its profile: %+v", e, p)
	}
}

func TestReserved(t *testing.T) {
	ip := netip.MustParseAddr("10.0.0.7")
	m := &boot.Machine{Name: "n", Match: boot.Selector{Serial: "1"}, Profile: "p", IP: ip}
	c, err := boot.NewCatalog(boot.Catalog{Profiles: map[string]*boot.Profile{"p": {Name: "p"}}, Machines: []*boot.Machine{m}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Reserved(ip) != m || c.Reserved(ip.Next()) != nil {
		t.Errorf("%v, %v", c.Reserved(ip), c.Reserved(ip.Next()))
	}
}

// BenchmarkAssign is what DHCP pays for each packet, with 10,000 entries.
func BenchmarkAssign(b *testing.B) {
	kinds := map[string]func(i int) boot.Selector{
		"by_mac":     func(i int) boot.Selector { return boot.Selector{MAC: []boot.MAC{{2, 0, 0, 0, byte(i >> 8), byte(i)}}} },
		"by_uuid":    func(i int) boot.Selector { return boot.Selector{UUID: fmt.Sprintf("77000000-0000-4000-8000-%012x", i)} },
		"by_serial":  func(i int) boot.Selector { return boot.Selector{Serial: fmt.Sprintf("SN%05d", i)} },
		"by_pattern": func(i int) boot.Selector { return boot.Selector{Serial: fmt.Sprintf("SN%05d*", i)} },
	}
	known := boot.Inventory{MAC: boot.MAC{2, 0, 0, 0, 7, 7}, UUID: fmt.Sprintf("77000000-0000-4000-8000-%012x", 7*256+7),
		Serial: fmt.Sprintf("SN%05d", 7*256+7), Manufacturer: "QEMU", Product: "Standard PC"}
	stranger := boot.Inventory{MAC: boot.MAC{2, 1}, UUID: "88000000-0000-4000-8000-000000000000", Serial: "XN", Manufacturer: "QEMU"}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		c := boot.Catalog{Profiles: map[string]*boot.Profile{"w": {Name: "w"}}}
		for i := range 10_000 {
			c.Machines = append(c.Machines, &boot.Machine{Name: fmt.Sprintf("n%d", i), Profile: "w", Match: kinds[name](i)})
		}
		catalog, err := boot.NewCatalog(c)
		if err != nil {
			b.Fatal(err)
		}
		for _, who := range []struct {
			name  string
			inv   boot.Inventory
			found bool
		}{{"known", known, true}, {"stranger", stranger, false}} {
			b.Run(name+"/"+who.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if a, err := catalog.Assign(who.inv); err != nil || (a.Machine != nil) != who.found {
						b.Fatal(a, err)
					}
				}
			})
		}
	}
}

func TestExplain(t *testing.T) {
	at := func(n int) boot.Origin { return boot.Origin{File: "f", Line: n, Column: 1} }
	a := boot.Assignment{Name: "n", Network: &boot.Network{Name: "rack", Origin: at(1)},
		Machine: &boot.Machine{Profile: "p", IP: netip.MustParseAddr("10.0.0.7"),
			Match:   boot.Selector{MAC: []boot.MAC{{2, 1}, {2, 2}}, Subnet: netip.MustParsePrefix("10.0.0.0/8")},
			Origins: map[string]boot.Origin{"name": at(2), "mac": at(3), "match": at(4), "match.subnet": at(5), "profile": at(6), "ip": at(7)}},
		Profile: &boot.Profile{Args: []string{"x"}, Units: []boot.Unit{{Name: "a.service", Mask: true}, {Name: "b.service", Enabled: new(false)}},
			Files:   []boot.File{{Path: "/a", Source: "http://h/a"}, {Path: "/b"}},
			Swarm:   &boot.Member{Labels: map[string]string{"b": "2", "a": "1"}},
			Origins: map[string]boot.Origin{"args.0": at(8), "units.a.service": at(9), "swarm.labels.a": at(10), "swarm.labels.b": at(11), "files./a": at(12), "files./b": at(13)}}}
	var got strings.Builder
	for _, v := range a.Explain() {
		fmt.Fprintf(&got, "%s = %s (%s)\n", v.Key, v.Value, v.Origin)
	}
	want := `name = n (f:2:1)
match.mac = 02:01:00:00:00:00 02:02:00:00:00:00 (f:3:1)
match.subnet = 10.0.0.0/8 (f:5:1)
profile = p (f:6:1)
ip = 10.0.0.7 (f:7:1)
network = rack (f:1:1)
image = none: boots from its own disk (default)
loader = snponly on UEFI, undionly on BIOS (default)
args.0 = x (f:8:1)
delivery = url (default)
files./a = http://h/a (f:12:1)
files./b = (empty) (f:13:1)
units.a.service = masked (f:9:1)
units.b.service = disabled (default)
swarm.role = worker (default)
swarm.availability = active (default)
swarm.labels.a = 1 (f:10:1)
swarm.labels.b = 2 (f:11:1)
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
	// Of a machine that nobody has written down, too, the reason is told.
	stranger := boot.Assignment{Name: "node-020100000000"}.Explain()
	if len(stranger) != 1 || !strings.Contains(stranger[0].Origin.Note, "no entry matches") {
		t.Errorf("a stranger: %v", stranger)
	}
}
