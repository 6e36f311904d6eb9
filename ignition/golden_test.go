package ignition_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bootd/boot"
	"bootd/ignition"

	v3_0 "github.com/coreos/ignition/v2/config/v3_0"
	ign "github.com/coreos/ignition/v2/config/v3_6"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGolden renders each testdata/*.txtar: profile.json is the profile,
// node.json the node, family the image's family, *.bu its fragments in order.
// The golden file has what was remarked on, and the config.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(inputs) < 3 {
		t.Fatalf("%d inputs, %v", len(inputs), err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			p, n, family := readInput(t, input)
			tmpl, err := ignition.Prepare(p, family)
			if err != nil {
				t.Fatal(err)
			}
			r, err := tmpl.Render(n)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			for _, e := range tmpl.Entries() {
				fmt.Fprintf(&out, "# %s\n", e)
			}
			out.Write(r.Pretty())
			golden := strings.TrimSuffix(input, ".txtar") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out.String()); diff != "" {
				t.Errorf("(-want +got); if this is right, run with -update\n%s", diff)
			}
			checkServed(t, r, tmpl.Version())
		})
	}
}

// checkServed compares the compact form with the pretty one, and has Ignition
// validate it, and the oldest Ignition too where the version allows it.
func checkServed(t *testing.T, r *ignition.Rendered, version ignition.Version) {
	t.Helper()
	raw, v, err := r.For(ignition.Newest)
	if err != nil || v != version {
		t.Fatalf("For(Newest) = %s, %v", v, err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, r.Pretty()); err != nil || !bytes.Equal(b.Bytes(), raw) {
		t.Errorf("the config served is not the one shown: %v", err)
	}
	if _, rep, err := ign.ParseCompatibleVersion(raw); err != nil || len(rep.Entries) != 0 {
		t.Errorf("Ignition says: %v\n%s", err, rep)
	}
	if version == ignition.Oldest {
		if _, rep, err := v3_0.Parse(raw); err != nil || len(rep.Entries) != 0 {
			t.Errorf("the oldest Ignition says: %v\n%s", err, rep)
		}
	}
}

func readInput(t *testing.T, name string) (*boot.Profile, ignition.Node, boot.Family) {
	t.Helper()
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	p, n, family := new(boot.Profile), ignition.Node{}, boot.Family("")
	line := 1 + strings.Count(string(archive.Comment), "\n")
	for _, f := range archive.Files {
		switch {
		case f.Name == "profile.json":
			err = json.Unmarshal(f.Data, p)
		case f.Name == "node.json":
			err = json.Unmarshal(f.Data, &n)
		case f.Name == "family":
			family = boot.Family(strings.TrimSpace(string(f.Data)))
		case strings.HasSuffix(f.Name, ".bu"):
			p.Butane = append(p.Butane, boot.Fragment{Text: string(f.Data), Origin: boot.Origin{File: filepath.Base(name), Line: line + 1, Column: 1}})
		default:
			t.Fatalf("%s in %s means nothing", f.Name, name)
		}
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		line += 1 + strings.Count(string(f.Data), "\n")
	}
	return p, n, family
}
