package ignition_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"bootd/boot"
	"bootd/ignition"

	ign "github.com/coreos/ignition/v2/config/v3_6"
)

// FuzzRender renders a profile with whatever somebody may write into it. A
// profile with mistakes gives an *Invalid that names at least one error inside
// the fragment; a profile without gives a config that Ignition takes, that holds
// the host name (unless the fragment has its own), and that an older
// version's text says the same.
func FuzzRender(f *testing.F) {
	for _, p := range []string{typical().Butane[0].Text, "", "variant: flatcar\n", "storage: {files: [{path: /a, contents: {local: x}}]}", "a: &a [*a]\n", "- x\n", "storage:\n  files:\n    - path: /etc/hostname\n      mode: 04755\n", "---\n...\n---\nb: 1\n", "passwd:\n  users:\n  - {<<: {name: x}}\n"} {
		f.Add(p, "node1", "text\n", "/etc/motd")
	}
	f.Fuzz(func(t *testing.T, butane, hostname, contents, path string) {
		origin := boot.Origin{File: "p.yaml", Line: 10, Column: 5}
		p := &boot.Profile{Name: "p", Files: []boot.File{{Path: path, Contents: contents}}, Butane: []boot.Fragment{{Text: butane, Origin: origin}}}
		tmpl, err := ignition.Prepare(p, boot.FedoraCoreOS)
		if err != nil {
			// YAML ends lines with more than the line feed (YAML 1.1 section 5.4).
			breaks := strings.FieldsFunc("x"+butane+"x", func(r rune) bool { return !strings.ContainsRune("\n\r\u0085\u2028\u2029", r) })
			checkInvalid(t, err, origin, len(strings.Join(breaks, "")))
			return
		}
		node := worker
		node.Hostname = hostname
		r, err := tmpl.Render(node)
		if err != nil {
			return
		}
		raw, version, err := r.For(ignition.Newest)
		if err != nil || version != tmpl.Version() {
			t.Fatalf("For(Newest) = %v, %v", version, err)
		}
		config, rep, err := ign.ParseCompatibleVersion(raw)
		if err != nil {
			t.Fatalf("Ignition refuses its config: %v\n%s\n%s", err, rep, raw)
		}
		found := false
		for _, file := range config.Storage.Files {
			found = found || file.Path == "/etc/hostname" && file.Contents.Source != nil && *file.Contents.Source == "data:,"+hostname+"%0A"
		}
		said := slices.ContainsFunc(tmpl.Entries(), func(e ignition.Entry) bool { return strings.HasPrefix(e.Message, "this replaces") })
		if !found && !said {
			t.Errorf("the host name is gone and nothing was said of it:\n%s", raw)
		}
		for minor := range ignition.Newest.Minor {
			checkOlder(t, r, ignition.Version{Major: 3, Minor: minor}, config)
		}
	})
}

func checkInvalid(t *testing.T, err error, origin boot.Origin, lines int) {
	t.Helper()
	var invalid *ignition.Invalid
	if !errors.As(err, &invalid) {
		t.Fatalf("a mistake of the user gives %T: %v", err, err)
	}
	errs := 0
	for _, e := range invalid.Entries {
		if e.Kind == ignition.Error {
			errs++
		}
		if o := e.Origin; strings.HasPrefix(e.Key, "butane.") && (o.File != origin.File || o.Line < origin.Line || o.Line > origin.Line+lines || o.Column < origin.Column) {
			t.Errorf("%s is outside the fragment, which has %d lines from %s", e, lines+1, origin)
		}
	}
	if errs == 0 {
		t.Errorf("no entry of %v is an error", invalid.Entries)
	}
}

// checkOlder serves r to a node with an older Ignition, and compares what that
// would make of it with want.
func checkOlder(t *testing.T, r *ignition.Rendered, max ignition.Version, want any) {
	t.Helper()
	raw, version, err := r.For(max)
	var old *ignition.TooOld
	if errors.As(err, &old) {
		if old.Need.Compare(max) <= 0 || old.Why == "" {
			t.Errorf("for %s: %v", max, err)
		}
		return
	}
	if err != nil || version.Compare(max) > 0 {
		t.Fatalf("For(%s) = %s, %v", max, version, err)
	}
	config, rep, err := ign.ParseCompatibleVersion(raw)
	if err != nil {
		t.Fatalf("Ignition %s refuses its config: %v\n%s\n%s", version, err, rep, raw)
	}
	a, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Errorf("the config for %s says something else:\n%s\n%s", max, a, b)
	}
}

// FuzzAccept: what is read from a header is a version that stands in it.
func FuzzAccept(f *testing.F) {
	for _, h := range []string{
		"application/vnd.coreos.ignition+json;version=3.3.0, */*;q=0.1",
		"application/vnd.coreos.ignition+json; version=2.2.0, application/vnd.coreos.ignition+json; version=1; q=0.5, */*; q=0.1",
		`application/vnd.coreos.ignition+json;version="3.7.0-experimental"`, "*/*", "", "a/b;version=3.0.0",
	} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, header string) {
		v, ok := ignition.ParseAccept(header)
		if !ok {
			if v != (ignition.Version{}) {
				t.Errorf("%v, false", v)
			}
			return
		}
		again, ok := ignition.ParseAccept("application/vnd.coreos.ignition+json;version=" + v.String())
		if !ok || again != v {
			t.Errorf("%q gives %s, and that gives %s", header, v, again)
		}
		if !strings.Contains(strings.ToLower(header), "ignition") {
			t.Errorf("%q gives %s", header, v)
		}
	})
}
