package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestEveryCommandExplainsItself: each command says in a few words what it does,
// then in more of them, and shows an example of itself; names of things are
// completed; and a script runs it.
func TestEveryCommandExplainsItself(t *testing.T) {
	scripts := allScripts(t)
	a := &app{out: io.Discard, err: io.Discard}
	walk(a.command(), func(c *cobra.Command) {
		path := c.CommandPath()
		switch {
		case c.Short == "":
			t.Errorf("%s does not say what it does", path)
		case strings.HasSuffix(c.Short, "."):
			t.Errorf("%s: %q ends with a full stop, and the others do not", path, c.Short)
		case len(path)+len(c.Short) > 100:
			t.Errorf("%s: %q is too long for a list", path, c.Short)
		}
		if c.Long == "" || c.Long == c.Short {
			t.Errorf("%s does not say more than %q", path, c.Short)
		}
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			if len([]rune(strings.TrimRight(line, "\n"))) > 120 {
				t.Errorf("%s: a line of its help is too long: %q", path, line)
			}
		}
		if c.HasSubCommands() {
			return
		}
		if !strings.Contains(c.Example, path) {
			t.Errorf("%s has no example of itself: %q", path, c.Example)
		}
		if !strings.Contains(scripts, path+" ") && !strings.Contains(scripts, path+"\n") {
			t.Errorf("no script in testdata/script runs %s", path)
		}
		if c.ValidArgsFunction == nil && c.ValidArgs == nil && namesThings(c.Use) {
			t.Errorf("%s: the names of %q are not completed", path, c.Use)
		}
	})
}

// namesThings reports whether what a command takes has a name already, which a
// shell can complete: not one that it is about to get, and no file.
func namesThings(use string) bool {
	words := strings.Fields(use)
	if words[0] == "create" || words[0] == "init" || words[0] == "import" || words[0] == "upload" {
		return false
	}
	for _, w := range words[1:] {
		w = strings.Trim(w, "[].")
		if w != "" && w == strings.ToUpper(w) && !slices.Contains([]string{"DIRECTORY", "FILE", "COMMAND", "GROUP"}, w) {
			return true
		}
	}
	return false
}

func allScripts(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("testdata/[sc]*/*.txtar") // script, clusters
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

// TestOutputIsChosenInOnePlace: -o yaml and -o wide work everywhere because no
// command looks at the flag itself.
func TestOutputIsChosenInOnePlace(t *testing.T) {
	a := &app{out: io.Discard, err: io.Discard}
	walk(a.command(), func(c *cobra.Command) {
		if c.HasParent() && (c.LocalNonPersistentFlags().Lookup("output") != nil || c.LocalNonPersistentFlags().ShorthandLookup("o") != nil) {
			t.Errorf("%s has a flag of its own for output", c.CommandPath())
		}
		if c.PersistentPreRunE != nil && c.HasParent() || c.PersistentPreRun != nil {
			t.Errorf("%s hides what the root command does first", c.CommandPath())
		}
	})
	for _, o := range outputs {
		if err := a.choose(o); err != nil || a.format != "table" && a.format != "json" {
			t.Errorf("%s: %q, %v", o, a.format, err)
		}
	}
}

func walk(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range slices.SortedFunc(slices.Values(c.Commands()), func(a, b *cobra.Command) int { return strings.Compare(a.Name(), b.Name()) }) {
		walk(sub, f)
	}
}
