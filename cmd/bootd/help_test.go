package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestEveryCommandExplainsItself: each command says in a few words what it does,
// and shows an example of itself.
func TestEveryCommandExplainsItself(t *testing.T) {
	a := &app{out: io.Discard, err: io.Discard}
	walk(a.command(), func(c *cobra.Command) {
		path := c.CommandPath()
		switch {
		case c.Short == "" && c.HasParent():
			t.Errorf("%s does not say what it does", path)
		case strings.HasSuffix(c.Short, "."):
			t.Errorf("%s: %q ends with a full stop, and the others do not", path, c.Short)
		}
		// The completion scripts are cobra's own.
		if !c.HasSubCommands() && !strings.Contains(path, " completion") && !strings.HasSuffix(path, " help") {
			if !strings.Contains(c.Example, path) {
				t.Errorf("%s has no example of itself: %q", path, c.Example)
			}
		}
	})
}

func walk(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range slices.SortedFunc(slices.Values(c.Commands()), func(a, b *cobra.Command) int { return strings.Compare(a.Name(), b.Name()) }) {
		walk(sub, f)
	}
}
