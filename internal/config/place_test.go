package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/config"
)

// TestFragmentPlace: the place of a Butane fragment is where its text begins,
// in each of the ways to write one, so that what is wrong in its second line is
// shown in the file's right line and column.
func TestFragmentPlace(t *testing.T) {
	for _, tt := range []struct {
		name, yaml   string
		line, column int
		text         string
	}{
		{"block", "name: a\nbutane: |\n  variant: fcos\n  version: 1.6.0\n", 3, 3, "variant: fcos\nversion: 1.6.0\n"},
		{"block deeply indented", "name: a\nbutane: |\n        a: 1\n        b:\n          c: 2\n", 3, 9, "a: 1\nb:\n  c: 2\n"},
		{"block that begins with empty lines", "name: a\nbutane: |\n\n\n  a: 1\n", 3, 3, "\n\na: 1\n"},
		{"block that begins with a comment", "butane: |\n  # why\n  a: 1\nname: a\n", 2, 3, "# why\na: 1\n"},
		{"block with a comment beside", "name: a\nbutane: |- # text follows\n  a: 1\n", 3, 3, "a: 1"},
		{"indentation told", "name: a\nbutane: |2\n    a: 1\n    b: 2\n", 3, 3, "  a: 1\n  b: 2\n"},
		{"block below its key", "name: a\nbutane:\n  |\n  a: 1\n", 4, 3, "a: 1\n"},
		{"folded", "name: a\nbutane: >\n  a: 1\n", 3, 3, "a: 1\n"},
		{"double quotes", "name: a\nbutane: \"a: 1\\nb: 2\"\n", 2, 10, "a: 1\nb: 2"},
		{"single quotes", "name: a\nbutane: 'a: 1'\n", 2, 10, "a: 1"},
		{"flow mapping", "{name: a, butane: 'a: 1'}\n", 1, 20, "a: 1"},
		{"lines that end in CR LF", "name: a\r\nssh_keys: []\r\nbutane: |\r\n  a: 1\r\n  b: 2\r\n", 4, 3, "a: 1\nb: 2\n"},
		{"byte order mark", "\ufeffname: a\nbutane: |\n  a: 1\n", 3, 3, "a: 1\n"},
		{"second document", "name: b\n---\nname: a\nbutane: |\n  a: 1\n", 5, 3, "a: 1\n"},
	} {
		c, err := config.LoadFiles(map[string]string{"bootd.yaml": "", "profiles/p.yaml": tt.yaml})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got := c.Catalog.Profiles["a"].Butane
		want := []boot.Fragment{{Text: tt.text, Origin: boot.Origin{File: "profiles/p.yaml", Line: tt.line, Column: tt.column}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

// TestMistakePlace is about files that make it hard to count lines and columns.
func TestMistakePlace(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{"CR LF after a block", "name: a\r\nbutane: |\r\n  a: 1\r\nimagee: b\r\n", "profiles/p.yaml:4:1: unknown key \"imagee\" in profile; did you mean \"image\"?\n    imagee: b\n    ^"},
		{"byte order mark", "\ufeffnaem: a\n", "profiles/p.yaml:1:1: unknown key \"naem\" in profile; did you mean \"name\"?\n    naem: a\n    ^"},
		{"columns are characters", "name: a\nfiles: [{path: /ä/ö, modes: 7}]\n", "profiles/p.yaml:2:22: unknown key \"modes\" in file; did you mean \"mode\"?\n    files: [{path: /ä/ö, modes: 7}]\n                         ^"},
		{"a directive", "%YAML 1.2\n---\nname: a\nimagee: b\n", "profiles/p.yaml:4:1: unknown key \"imagee\" in profile; did you mean \"image\"?\n    imagee: b\n    ^"},
		{"commands to the terminal", "name: a\nimage: \"\x1b[31m\" # \x1b[0m\n", "profiles/p.yaml:2:8: image: \"\\x1b[31m\" holds a character that cannot be printed"},
		{"a long line", "name: a\nssh_keys: [" + strings.Repeat("k", 150) + ", " + strings.Repeat("x", 500) + "]\n",
			"\n    ..." + strings.Repeat("k", 58) + ", " + strings.Repeat("x", 100) + "...\n       " + strings.Repeat(" ", 60) + "^"},
		{"a mistake inside of a fragment", "name: a\nbutane: |\n    a: 1\n    b: [1\n", "profiles/p.yaml:4:8: butane: "},
		{"a second key inside of a fragment", "name: a\nbutane: |\n    a: 1\n    a: 2\n", "profiles/p.yaml:4:5: butane: "},
		{"NUL", "name: a\nimage: \x00\n", "profiles/p.yaml:2:1: the file contains a NUL byte; it must be text\n    image: \ufffd\n    ^"},
	} {
		_, err := config.LoadFiles(map[string]string{"bootd.yaml": "", "profiles/p.yaml": tt.yaml})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got\n%v\nwant\n%s", tt.name, err, tt.want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\x00") {
			t.Errorf("%s: the mistake holds control characters: %q", tt.name, err)
		}
	}
}

// TestDeepNesting: a file that nobody wrote by hand does not stop the server,
// by using up its stack or its time.
func TestDeepNesting(t *testing.T) {
	for _, part := range []string{"[", "{a: ", "- ", "? ", "[\n"} {
		_, err := config.LoadFiles(map[string]string{"bootd.yaml": "", "profiles/p.yaml": strings.Repeat(part, 1_000_000)})
		var mistakes config.Mistakes
		if !errors.As(err, &mistakes) || !strings.Contains(mistakes[0].Message, "nested too deeply") {
			t.Errorf("%q: %.200v", part, err)
		}
	}
}

// tenThousand are the machines of a large site, each recognized by a key of
// this form.
func tenThousand(key string) map[string]string {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "- name: n%d\n  "+key+"\n  profile: a\n", i, i>>8, i&255)
	}
	return map[string]string{"bootd.yaml": "", "profiles/p.yaml": "name: a", "machines/m.yaml": b.String()}
}

// TestManyMachines: ten thousand entries are compared with each other in
// reasonable time, and a mistake that is in all of them is told once for each.
func TestManyMachines(t *testing.T) {
	for _, tt := range []struct {
		key      string
		mistakes int // in all
	}{
		{"match: {serial: SN%02x%02x}", 0},
		{"match: {manufacturer: \"A*\"} # %d %d", 9_999},
	} {
		files := tenThousand(tt.key)
		began := time.Now()
		_, err := config.LoadFiles(files)
		var mistakes config.Mistakes
		errors.As(err, &mistakes)
		if len(mistakes) != tt.mistakes {
			t.Errorf("%s: %d mistakes, want %d: %.400v", tt.key, len(mistakes), tt.mistakes, err)
		}
		if took := time.Since(began); took > 20*time.Second { // some tenths of a second are normal
			t.Errorf("%s: took %s", tt.key, took)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for name, key := range map[string]string{"mac": "mac: 52:54:00:00:%02x:%02x", "serial": "match: {serial: SN%02x%02x}", "pattern": "match: {serial: \"SN%02x%02x*\"}"} {
		files := tenThousand(key)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if c, err := config.LoadFiles(files); err != nil || len(c.Catalog.Machines) != 10_000 {
					b.Fatalf("%.400v", err)
				}
			}
		})
	}
}
