//go:build e2e

package lab_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/lab"
)

// bootd is the program under test: the one that BOOTD names, or else one built
// from this tree.
func bootd(t *testing.T) string {
	t.Helper()
	if p := os.Getenv("BOOTD"); p != "" {
		return p
	}
	p := filepath.Join(t.TempDir(), "bootd")
	cmd := exec.Command("go", "build", "-o", p, "bootd/cmd/bootd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build bootd: %v\n%s", err, out)
	}
	return p
}

// demo are the options of a lab like the demo's.
func demo(t *testing.T) lab.Options {
	t.Helper()
	program := bootd(t)
	return lab.Options{
		Image:  lab.ImageDir,
		Engine: true,
		Server: func(_ lab.Lab, config string) []string { return []string{program, "serve", "-c", config} },
	}
}

// A node is a member of the swarm as its manager shows it.
type node struct {
	Name, State, Availability string
	Labels                    map[string]string
}

func nodes(t *testing.T, l lab.Lab) map[string]node {
	t.Helper()
	list := map[string]node{}
	for _, id := range lines(docker(t, l, "node", "ls", "-q", "--filter", "role=worker")) {
		out, err := exec.Command("docker", "-H", l.Engine(), "node", "inspect", id).Output()
		if err != nil {
			continue // removed meanwhile
		}
		var raw []struct {
			Description struct{ Hostname string }
			Status      struct{ State string }
			Spec        struct {
				Availability string
				Labels       map[string]string
			}
		}
		if err := json.Unmarshal(out, &raw); err != nil || len(raw) != 1 {
			t.Fatalf("docker node inspect: %v\n%s", err, out)
		}
		n := raw[0]
		list[id] = node{n.Description.Hostname, n.Status.State, n.Spec.Availability, n.Spec.Labels}
	}
	return list
}

// rack is what the demo's machines look like in the swarm, by name. Labels
// that bootd uses for itself are left out.
func rack(t *testing.T, l lab.Lab, ours ...string) map[string]node {
	t.Helper()
	found := map[string]node{}
	for id, n := range nodes(t, l) {
		if _, twice := found[n.Name]; twice {
			found[n.Name+" again: "+id] = n
			continue
		}
		kept := map[string]string{}
		for _, k := range ours {
			if v, ok := n.Labels[k]; ok {
				kept[k] = v
			}
		}
		n.Labels = kept
		found[n.Name] = n
	}
	return found
}

// whole is the demo's rack when all is well.
func whole() map[string]node {
	n := func(name, tier string) node {
		return node{name, "ready", "active", map[string]string{"tier": tier, "rack": "r1"}}
	}
	return map[string]node{"node1": n("node1", "backend"), "node2": n("node2", "backend"), "node3": n("node3", "frontend")}
}

// becomes waits until the swarm's workers are the wanted ones, and no others.
func becomes(t *testing.T, l lab.Lab, limit time.Duration, want map[string]node) {
	t.Helper()
	becomesWith(t, l, limit, want, "tier", "rack")
}

// becomesWith is becomes, with these labels of nodes in mind.
func becomesWith(t *testing.T, l lab.Lab, limit time.Duration, want map[string]node, labels ...string) {
	t.Helper()
	var got map[string]node
	end := time.Now().Add(limit)
	for {
		got = rack(t, l, labels...)
		if cmp.Equal(want, got) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v the swarm's workers are (-want +got):\n%s\n%s", limit, cmp.Diff(want, got), docker(t, l, "node", "ls"))
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// TestRack is the whole of bootd: three machines, BIOS and UEFI, are switched
// on and become nodes of the swarm with the names and labels of their YAML. One
// is shut down and leaves. Then the rack's power fails and comes back, and
// bootd is killed while the machines boot.
func TestRack(t *testing.T) {
	image(t)
	o := demo(t)
	l := open(t, "rack", "", o)
	names := []string{"node1", "node2", "node3"}

	on := time.Now()
	boots := all(t, l, names, lab.On, nil)
	becomes(t, l, patience, whole())
	t.Logf("the rack is whole %.1f s after power-on", time.Since(on).Seconds())
	table(t, names, boots)

	// Machines reach each other, as the swarm's overlay networks need it.
	ssh(t, l, "node1", "timeout 10 bash -c '</dev/tcp/10.77.0.12/7946'")

	press(t, l, "node2")
	rest := whole()
	delete(rest, "node2")
	becomes(t, l, patience, rest)

	var once sync.Once
	all(t, l, names, lab.Cycle, func(m lab.Marker) {
		if m.Name == "initramfs" {
			once.Do(func() {
				t.Log("kill -9 of bootd")
				if err := l.RestartServer(t.Context(), o); err != nil {
					t.Error(err)
				}
			})
		}
	})
	becomes(t, l, patience, whole())
}

// all presses the same button at all machines and follows them until they have
// joined.
func all(t *testing.T, l lab.Lab, names []string, a lab.Action, each func(lab.Marker)) map[string][]lab.Marker {
	t.Helper()
	var mu sync.Mutex
	boots := map[string][]lab.Marker{}
	var wg sync.WaitGroup
	for _, n := range names {
		if _, err := l.Power(t.Context(), n, a); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			markers, err := follow(t, l, n, "joined", each)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			boots[n] = markers
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return boots
}

// TestComparison boots the same two machines, each alone, by dnsmasq and nginx
// and by bootd, and prints when each stage was reached.
func TestComparison(t *testing.T) {
	i := image(t)
	byHand := open(t, "cmp-dnsmasq", threeMachines, lab.Options{Engine: true})
	c, err := lab.ParseConfig([]byte(threeMachines))
	if err != nil {
		t.Fatal(err)
	}
	startBaseline(t, byHand, c, i)
	ours := open(t, "cmp-bootd", "", demo(t))
	// One after the other, in turns, so that what else the host does meets
	// both.
	boots := map[string][]lab.Marker{}
	for _, b := range []struct {
		l              lab.Lab
		title, machine string
	}{
		{byHand, "bios dnsmasq", "bios"},
		{ours, "bios bootd", "node1"},
		{byHand, "uefi dnsmasq", "uefi"},
		{ours, "uefi bootd", "node3"},
	} {
		boots[b.title] = boot(t, b.l, b.machine)
		if _, err := b.l.Power(t.Context(), b.machine, lab.Off); err != nil {
			t.Fatal(err)
		}
	}
	table(t, []string{"bios dnsmasq", "bios bootd", "uefi dnsmasq", "uefi bootd"}, boots)
	// A shared host is too noisy for a limit in seconds; what the boot server
	// can be blamed for is told as a ratio.
	for _, n := range []string{"bios", "uefi"} {
		before, now := span(boots[n+" dnsmasq"]), span(boots[n+" bootd"])
		t.Logf("%s: from iPXE to the configured root file system %.1f s by dnsmasq and nginx, %.1f s by bootd: ratio %.2f",
			n, before.Seconds(), now.Seconds(), now.Seconds()/before.Seconds())
	}
}

// span is the time in which a machine depends on its boot server.
func span(markers []lab.Marker) time.Duration {
	var from, to time.Duration
	for _, m := range markers {
		switch m.Name {
		case "ipxe":
			from = m.Since
		case "switch root":
			to = m.Since
		}
	}
	return to - from
}
