package config_test

import (
	"errors"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"bootd/internal/config"
)

var keyLine = regexp.MustCompile(`^( *(?:- )?)("?[a-z0-9_./]+"?):(.*)$`)

// TestEveryKey replaces each value in a configuration that has every key by
// things that somebody may write there. Whatever it is, there is a
// configuration or a mistake with a place in the same file; a list or a mapping
// where there should be text is always one.
func TestEveryKey(t *testing.T) {
	a, err := txtar.ParseFile("testdata/every_key.txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range a.Files {
		files[f.Name] = string(f.Data)
	}
	maps.Copy(files, secrets(t))
	if _, err := config.LoadFiles(files); err != nil {
		t.Fatal(err)
	}
	odd := []string{"", "~", `""`, `" "`, "[]", "{}", "-1", "0", "1e9", ".inf", "yes", "true", "2026-01-01", "[[[x]]]", "{a: {b: c}}",
		`"a\nb\0"`, "ä", "'{{.serial}}'", "'*'", "/", "..", "10.0.0.1", "::1", "0.0.0.0/0", "00:00:00:00:00:00", "|", "!!str x", "*x", "http://", "[", strings.Repeat("x", 300)}
	count := 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if path.Ext(name) != ".yaml" {
			continue
		}
		lines := strings.Split(files[name], "\n")
		for i, l := range lines {
			m := keyLine.FindStringSubmatch(l)
			if m == nil {
				continue
			}
			// What belongs to the value goes with it.
			end := i + 1
			for end < len(lines) && strings.HasPrefix(lines[end], strings.Repeat(" ", len(m[1])+1)) {
				end++
			}
			for _, v := range odd {
				count++
				changed := maps.Clone(files)
				changed[name] = strings.Join(slices.Concat(lines[:i], []string{m[1] + m[2] + ": " + v}, lines[end:]), "\n")
				checkOdd(t, changed, path.Base(name)+": "+m[2]+": "+v, v == "[[[x]]]" || v == "*x" || v == "[")
			}
		}
	}
	if count < 2000 {
		t.Errorf("only %d values were tried", count)
	}
}

func checkOdd(t *testing.T, files map[string]string, what string, wrong bool) {
	t.Helper()
	c, err := config.LoadFiles(files)
	if err == nil {
		if wrong || c.Catalog == nil {
			t.Errorf("%s: was taken", what)
		}
		return
	}
	var mistakes config.Mistakes
	if !errors.As(err, &mistakes) || len(mistakes) == 0 {
		t.Fatalf("%s: not mistakes: %v", what, err)
	}
	for _, m := range mistakes {
		text, ok := files[m.Origin.File]
		if !ok || m.Origin.Line < 1 || m.Origin.Column < 1 || m.Origin.Line > strings.Count(text, "\n")+1 || strings.Contains(m.Message, "cannot be understood") {
			t.Errorf("%s: a mistake without a place: %+v", what, m)
		}
	}
}
