//go:build e2e

package lab_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bootd/internal/lab"
)

// TestOrders has a machine that nobody has written down. It waits at its
// script and says so, boots as soon as an operator lets it, boots once as
// something else, and then as before.
func TestOrders(t *testing.T) {
	image(t)
	l := open(t, "orders", "", demo(t))
	const mac = "52:54:00:77:00:11"
	edit(t, l, "machines/rack.yaml", "- {name: node1, mac: "+mac+", profile: worker, ip: 10.77.0.11}\n", "")
	if _, err := l.Power(t.Context(), "node1", lab.On); err != nil {
		t.Fatal(err)
	}
	wait(t, patience, "it waits", func() bool {
		console, err := os.ReadFile(filepath.Join(l.RunDir(), "node1.console"))
		return err == nil && strings.Contains(string(console), "has no profile for this machine") &&
			strings.Contains(operator(t, l, "machine", "list"), "waiting")
	})
	if out := operator(t, l, "machine", "show", mac); !strings.Contains(out, "LAB-NODE1") {
		t.Errorf("its inventory is not shown:\n%s", out)
	}
	operator(t, l, "machine", "approve", mac, "--profile", "worker", "--name", "stranger")
	is := func(tier string) map[string]node {
		return map[string]node{"stranger": {"stranger", "ready", "active", map[string]string{"tier": tier, "rack": "r1"}}}
	}
	becomes(t, l, patience, is("backend"))

	operator(t, l, "machine", "next", "stranger", "--profile", "frontend")
	all(t, l, []string{"node1"}, lab.Cycle, nil)
	becomes(t, l, patience, is("frontend"))
	all(t, l, []string{"node1"}, lab.Cycle, nil)
	becomes(t, l, patience, is("backend"))
}
