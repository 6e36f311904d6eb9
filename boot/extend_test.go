package boot_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"bootd/boot"
)

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

func TestExtend(t *testing.T) {
	yes, no := true, false
	base := boot.Profile{
		Name: "base", Image: "fedora-coreos/stable", Loader: "ipxe", Console: []string{"tty0", "ttyS0"}, Args: []string{"quiet"},
		Delivery: boot.ByInitrd, SSHKeys: []string{"k1"},
		Units: []boot.Unit{{Name: "a.service", Enabled: &yes, DropIns: map[string]string{"a.conf": "[Unit]"}}, {Name: "b.service"}},
		Swarm: &boot.Member{Swarm: "s", Role: boot.Manager, Availability: "drain", Labels: map[string]string{"tier": "back", "rack": "1"}},
	}
	for _, tt := range []struct {
		name       string
		over, want boot.Profile
	}{
		{"nothing changes nothing", boot.Profile{}, base},
		{"scalars replace", boot.Profile{Name: "w", Image: "flatcar/stable", Loader: "snponly", Delivery: boot.ByURL}, func() boot.Profile {
			p := base
			p.Name, p.Image, p.Loader, p.Delivery = "w", "flatcar/stable", "snponly", boot.ByURL
			return p
		}()},
		{"console replaces, lists append once", boot.Profile{Console: []string{"ttyS1"}, Args: []string{"x", "quiet", "x"}, SSHKeys: []string{"k2", "k1"}}, func() boot.Profile {
			p := base
			p.Console, p.Args, p.SSHKeys = []string{"ttyS1"}, []string{"quiet", "x"}, []string{"k1", "k2"}
			return p
		}()},
		{"units replace whole, in place", boot.Profile{Units: []boot.Unit{{Name: "c.service"}, {Name: "a.service", Enabled: &no}}}, func() boot.Profile {
			p := base
			p.Units = []boot.Unit{{Name: "a.service", Enabled: &no}, {Name: "b.service"}, {Name: "c.service"}}
			return p
		}()},
		{"labels merge, the rest of swarm replaces", boot.Profile{Swarm: &boot.Member{Role: boot.Worker, Labels: map[string]string{"tier": "front", "x": ""}}}, func() boot.Profile {
			p := base
			p.Swarm = &boot.Member{Swarm: "s", Role: boot.Worker, Availability: "drain", Labels: map[string]string{"tier": "front", "rack": "1", "x": ""}}
			return p
		}()},
	} {
		if diff := cmp.Diff(tt.want, base.Extend(tt.over), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

// TestExtendKeepsNeighbours: /etc/a.conf is not a part of /etc/a, nor is
// a.service.service of a.service.
func TestExtendKeepsNeighbours(t *testing.T) {
	at := func(n int) boot.Origin { return boot.Origin{File: "f", Line: n} }
	base := boot.Profile{Files: []boot.File{{Path: "/etc/a.conf"}, {Path: "/etc/a"}}, Image: "i",
		Origins: map[string]boot.Origin{"files./etc/a.conf": at(1), "files./etc/a": at(2), "image": at(3)}}
	got := base.Extend(boot.Profile{Files: []boot.File{{Path: "/etc/a"}}, Image: "from code",
		Origins: map[string]boot.Origin{"files./etc/a": at(9)}})
	want := map[string]boot.Origin{"files./etc/a.conf": at(1), "files./etc/a": at(9)}
	if diff := cmp.Diff(want, got.Origins); diff != "" {
		t.Error(diff)
	}
}

func drawProfile(t *rapid.T, file string) boot.Profile {
	p := boot.Profile{Origins: map[string]boot.Origin{}}
	line := 0
	at := func(key string) {
		line++
		p.Origins[key] = boot.Origin{File: file, Line: line}
	}
	word := func(label string) string { return rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(t, label) }
	words := func(label string) []string {
		return rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 3).Draw(t, label)
	}
	if p.Image = word("image"); p.Image != "" {
		at("image")
	}
	if p.Console = words("console"); len(p.Console) > 0 {
		at("console")
	}
	p.Args = words("args")
	for i := range p.Args {
		at("args." + string(rune('0'+i)))
	}
	for _, w := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"/a", "/a.b", "/a.b.c"}), 0, 3, rapid.ID).Draw(t, "files") {
		p.Files = append(p.Files, boot.File{Path: w, Contents: file})
		at("files." + w)
	}
	for _, w := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a.service", "b.service"}), 0, 2, rapid.ID).Draw(t, "units") {
		p.Units = append(p.Units, boot.Unit{Name: w, Enabled: new(rapid.Bool().Draw(t, "enabled")), DropIns: map[string]string{"d.conf": file}})
		at("units." + w)
	}
	for i, w := range words("butane") {
		at("butane." + string(rune('0'+i)))
		p.Butane = append(p.Butane, boot.Fragment{Text: w})
	}
	if rapid.Bool().Draw(t, "has swarm") {
		p.Swarm = &boot.Member{Role: boot.Role(word("role")), Labels: map[string]string{}}
		at("swarm")
		if p.Swarm.Role != "" {
			at("swarm.role")
		}
		for _, w := range words("labels") {
			p.Swarm.Labels[w] = file
			at("swarm.labels." + w)
		}
	}
	return p
}

// TestExtendLaws: it does not matter in which order a chain of profiles is
// merged, nothing that goes in is changed or shared, and every value of the
// result has an origin.
func TestExtendLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawProfile(t, "a"), drawProfile(t, "b"), drawProfile(t, "c")
		before := dump(t, a, b, c)
		left, right := a.Extend(b).Extend(c), a.Extend(b.Extend(c))
		if diff := cmp.Diff(left, right, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		for _, v := range left.Explain() {
			if v.Origin.File == "" && v.Origin.Note != "default" || v.Origin.Note == "default" && left.Origins[v.Key] != (boot.Origin{}) {
				t.Fatalf("%+v", v)
			}
		}
		for _, result := range []*boot.Profile{&left, &right} {
			scribble(result)
			if diff := cmp.Diff(before, dump(t, a, b, c)); diff != "" {
				t.Fatal("writing into the result changed what went in:", diff)
			}
		}
	})
}

func dump(t *rapid.T, v ...boot.Profile) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// scribble writes into all that p refers to.
func scribble(p *boot.Profile) {
	for _, l := range [][]string{p.Console, p.Args, p.SSHKeys} {
		for i := range l {
			l[i] = "scribbled"
		}
	}
	for i := range p.Files {
		p.Files[i].Contents = "scribbled"
	}
	for i := range p.Units {
		*p.Units[i].Enabled = !*p.Units[i].Enabled
		p.Units[i].DropIns["d.conf"] = "scribbled"
	}
	for i := range p.Butane {
		p.Butane[i].Text = "scribbled"
	}
	if p.Swarm != nil {
		p.Swarm.Role = "scribbled"
		p.Swarm.Labels["x"] = "scribbled"
	}
	for k := range p.Origins {
		p.Origins[k] = boot.Origin{Note: "scribbled"}
	}
}
