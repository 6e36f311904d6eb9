package ignition_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"

	"bootd/boot"
	"bootd/ignition"

	ign "github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/google/go-cmp/cmp"
	"github.com/vincent-petithory/dataurl"
)

// render prepares and renders p for n, and parses what a node of today gets.
func render(t *testing.T, p *boot.Profile, family boot.Family, n ignition.Node) types.Config {
	t.Helper()
	tmpl, err := ignition.Prepare(p, family)
	if err != nil {
		t.Fatal(err)
	}
	r, err := tmpl.Render(n)
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := r.For(ignition.Newest)
	if err != nil {
		t.Fatal(err)
	}
	c, rep, err := ign.ParseCompatibleVersion(raw)
	if err != nil {
		t.Fatalf("%v\n%s", err, rep)
	}
	return c
}

// contents reads a file as the node would: "-" when there is none.
func contents(t *testing.T, c types.Config, path string) string {
	t.Helper()
	for _, f := range c.Storage.Files {
		if f.Path != path {
			continue
		}
		if f.Contents.Source == nil {
			return ""
		}
		u, err := dataurl.DecodeString(*f.Contents.Source)
		if err != nil {
			return *f.Contents.Source
		}
		if f.Contents.Compression == nil || *f.Contents.Compression == "" {
			return string(u.Data)
		}
		z, err := gzip.NewReader(strings.NewReader(string(u.Data)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return "-"
}

func fragments(texts ...string) []boot.Fragment {
	var f []boot.Fragment
	for _, t := range texts {
		f = append(f, boot.Fragment{Text: t})
	}
	return f
}

func file(path, rest string) string {
	return fmt.Sprintf("storage:\n  files:\n    - path: %s\n      %s\n", path, rest)
}

func TestLaterLayersWin(t *testing.T) {
	p := &boot.Profile{
		SSHKeys: []string{"key one"},
		Files: []boot.File{
			{Path: "/keep", Contents: "profile"},
			{Path: "/a", Contents: "profile", Mode: 0o600},
			{Path: "/b", Contents: "profile"},
			{Path: "/gone", Contents: "profile"},
			{Path: "/mode", Contents: "profile"},
		},
		Units: []boot.Unit{{Name: "a.service", Enabled: new(true), Contents: "[Install]\nWantedBy=a\n", DropIns: map[string]string{"2.conf": "[Unit]\n", "1.conf": "[Service]\n"}}},
		Butane: fragments(
			file("/a", "contents: {inline: first}")+"passwd: {users: [{name: core, groups: [docker], ssh_authorized_keys: [key two]}]}\n",
			"version: 1.3.0\n"+file("/b", "contents: {inline: second}"),
			file("/b", "contents: {inline: third}")+"  links: [{path: /gone, target: /a}]\n",
			"version: 1.1.0\n"+file("/mode", "mode: 0400")+"systemd: {units: [{name: a.service, enabled: false}]}\n",
		),
	}
	c := render(t, p, boot.FedoraCoreOS, worker)
	got := map[string]string{}
	for _, path := range []string{"/keep", "/a", "/b", "/gone", "/mode"} {
		got[path] = contents(t, c, path)
	}
	want := map[string]string{"/keep": "profile", "/a": "first", "/b": "third", "/gone": "-", "/mode": "profile"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got)\n%s", diff)
	}
	modes := map[string]int{}
	for _, f := range c.Storage.Files {
		if f.Mode != nil && *f.Overwrite {
			modes[f.Path] = *f.Mode
		}
	}
	if modes["/keep"] != 0o644 || modes["/a"] != 0o600 || modes["/mode"] != 0o400 {
		t.Errorf("modes = %v", modes)
	}
	if diff := cmp.Diff([]types.Link{{Node: types.Node{Path: "/gone"}, LinkEmbedded1: types.LinkEmbedded1{Target: new("/a")}}}, c.Storage.Links); diff != "" {
		t.Errorf("links (-want +got)\n%s", diff)
	}
	users := []types.PasswdUser{{Name: "core", Groups: []types.Group{"docker"}, SSHAuthorizedKeys: []types.SSHAuthorizedKey{"key one", "key two"}}}
	if diff := cmp.Diff(users, c.Passwd.Users); diff != "" {
		t.Errorf("users (-want +got)\n%s", diff)
	}
	unit := c.Systemd.Units[len(c.Systemd.Units)-1]
	wantUnit := types.Unit{Name: "a.service", Enabled: new(false), Contents: new("[Install]\nWantedBy=a\n"), Dropins: []types.Dropin{
		{Name: "1.conf", Contents: new("[Service]\n")}, {Name: "2.conf", Contents: new("[Unit]\n")},
	}}
	if diff := cmp.Diff(wantUnit, unit); diff != "" {
		t.Errorf("unit (-want +got)\n%s", diff)
	}
}

// TestNewSourceNewDescription is where Ignition's own merge would make a node
// check the new source against the old one's hash, or decompress plain text.
func TestNewSourceNewDescription(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	long := strings.Repeat("the same line again\n", 100)
	remote := boot.File{Path: "/f", Source: "https://h/f.gz", SHA256: sum}
	resource := func(source string, compression, hash *string) types.Resource {
		return types.Resource{Source: &source, Compression: compression, Verification: types.Verification{Hash: hash}}
	}
	for name, tt := range map[string]struct {
		file   boot.File
		butane string
		want   types.Resource
	}{
		"text over a download":       {remote, "contents: {inline: x}", resource("data:,x", new(""), nil)},
		"a download over text":       {boot.File{Path: "/f", Contents: long}, "contents: {source: 'https://h/f'}", resource("https://h/f", nil, nil)},
		"nothing about the contents": {remote, "mode: 0600", resource("https://h/f.gz", new(""), new("sha256-"+sum))},
	} {
		t.Run(name, func(t *testing.T) {
			p := &boot.Profile{Files: []boot.File{tt.file}, Butane: fragments(file("/f", tt.butane))}
			c := render(t, p, boot.FedoraCoreOS, worker)
			if diff := cmp.Diff(tt.want, c.Storage.Files[len(c.Storage.Files)-1].Contents); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	c := render(t, &boot.Profile{Files: []boot.File{{Path: "/f", Contents: long}}}, boot.FedoraCoreOS, worker)
	if got := contents(t, c, "/f"); got != long {
		t.Errorf("a long file arrives as %q", got)
	}
}

// TestRenderLeavesTheTemplateAlone would notice values shared between nodes.
func TestRenderLeavesTheTemplateAlone(t *testing.T) {
	p := typical()
	p.Butane = append(p.Butane, boot.Fragment{Text: file("/etc/hostname", "contents: {inline: fixed}") + file2("/etc/bootd/report.sh")})
	tmpl, err := ignition.Prepare(p, boot.FedoraCoreOS)
	if err != nil {
		t.Fatal(err)
	}
	first, err := tmpl.Render(worker)
	if err != nil {
		t.Fatal(err)
	}
	before := string(first.Pretty())
	other := ignition.Node{Hostname: "other"}
	if _, err := tmpl.Render(other); err != nil {
		t.Fatal(err)
	}
	again, err := tmpl.Render(worker)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, string(first.Pretty())); diff != "" {
		t.Errorf("the first node's config changed\n%s", diff)
	}
	if diff := cmp.Diff(before, string(again.Pretty())); diff != "" {
		t.Errorf("the same node gets another config\n%s", diff)
	}
}

func file2(path string) string { return fmt.Sprintf("    - path: %s\n      mode: 0700\n", path) }

func TestWhatDoesNotGoTogether(t *testing.T) {
	disk := func(number, start, size int) string {
		return fmt.Sprintf("storage:\n  disks:\n    - device: /dev/sda\n      wipe_table: true\n      partitions:\n        - number: %d\n          start_mib: %d\n          size_mib: %d\n", number, start, size)
	}
	for name, tt := range map[string]struct {
		fragments []string
		want      []string
	}{
		"overlapping partitions": {
			[]string{disk(1, 1, 100), disk(3, 500, 100), disk(2, 50, 100)},
			[]string{"c.yaml:16:13: error: does not go together with what comes before: partitions overlap (butane.2.storage.disks.0.partitions.0)"},
		},
		"partitions side by side": {[]string{disk(1, 1, 100), disk(2, 200, 100)}, nil},
		"a node's file replaced": {
			[]string{file("/x", "mode: 0600"), "variant: fcos\n" + file("/etc/hostname", "contents: {inline: a}")},
			[]string{"b.yaml:14:9: warning: this replaces /etc/hostname, which bootd writes for each node (butane.1.storage.files.0)"},
		},
		"a node's file made a link": {
			[]string{"storage:\n  links:\n    - {path: /etc/bootd/swarm.sh, target: /x}\n"},
			[]string{"a.yaml:13:9: warning: this replaces /etc/bootd/swarm.sh, which bootd writes for each node (butane.0.storage.links.0)"},
		},
		"a node's unit masked": {
			[]string{"systemd:\n  units:\n    - name: other.service\n    - name: docker.service\n      mask: true\n"},
			[]string{"a.yaml:14:9: warning: this changes docker.service, by which bootd makes the node report and join (butane.0.systemd.units.1)"},
		},
		"a node's unit with an addition": {
			[]string{"systemd:\n  units:\n    - name: docker.service\n      dropins: [{name: a.conf, contents: \"[Service]\\n\"}]\n"}, nil,
		},
		"everything replaced": {
			[]string{"ignition:\n  config:\n    replace:\n      source: https://h/other.ign\n"},
			[]string{"a.yaml:14:9: warning: this replaces the whole config, also what bootd adds: the host name, reporting, and joining the swarm (butane.0.ignition.config.replace)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tmpl, err := prepare(boot.FedoraCoreOS, tt.fragments...)
			if diff := cmp.Diff(tt.want, said(t, tmpl, err)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
