//go:build e2e

package lab_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bootd/internal/lab"
)

// classic is what the example's rack looks like in the swarm.
func classic() map[string]node {
	n := func(name, role string) node {
		return node{name, "ready", "active", map[string]string{"role": role}}
	}
	return map[string]node{"frontend01": n("frontend01", "frontend"), "frontend02": n("frontend02", "frontend"),
		"worker01": n("worker01", "worker"), "store": n("store", "store")}
}

func without(rack map[string]node, names ...string) map[string]node {
	for _, n := range names {
		delete(rack, n)
	}
	return rack
}

// operator runs the program as an operator of the lab does.
func operator(t *testing.T, l lab.Lab, args ...string) string {
	t.Helper()
	out, err := exec.Command(bootd(t), append(args, "--socket", l.Socket())...).CombinedOutput()
	if err != nil {
		t.Fatalf("bootd %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestClassic boots the five hosts of the old tutorials and lives through what
// happens to a swarm: a service that is asked all the time while one of its
// nodes is shut down, a power cut, a node that an operator drains, a machine
// that is switched off and on ten times, the manager's engine restarted and the
// tokens rotated while the rack boots, and diskless managers that are lost.
func TestClassic(t *testing.T) {
	image(t)
	o := demo(t)
	o.Example = "classic"
	l := open(t, "classic", "", o)
	names := []string{"frontend01", "frontend02", "worker01", "store"}
	all(t, l, names, lab.On, nil)
	swarmBecomes(t, l, patience, classic())
	wait(t, patience, "mynet is there", func() bool {
		out, err := exec.Command("docker", "-H", l.Engine(), "network", "inspect", "mynet", "--format",
			"{{.Driver}} {{.Attachable}} {{range .IPAM.Config}}{{.Subnet}}{{end}}").Output()
		return err == nil && strings.TrimSpace(string(out)) == "overlay true 10.20.0.0/24"
	})

	for _, part := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"planned shutdown", func(t *testing.T) { plannedShutdown(t, l, names) }},
		{"power cut", func(t *testing.T) { powerCut(t, l) }},
		{"operator drains", func(t *testing.T) { operatorDrains(t, l) }},
		{"ten boots", func(t *testing.T) { tenBoots(t, l) }},
		{"rotation and restart while booting", func(t *testing.T) { rotationAndRestart(t, l, names) }},
		{"managers are lost", func(t *testing.T) { managersAreLost(t, l) }},
	} {
		if !t.Run(part.name, part.run) {
			t.FailNow() // the next one begins with the whole rack
		}
	}
}

// swarmBecomes is becomes for the labels of this rack.
func swarmBecomes(t *testing.T, l lab.Lab, limit time.Duration, want map[string]node) {
	t.Helper()
	becomesWith(t, l, limit, want, "role")
}

// plannedShutdown presses the button of a node that serves while a client asks
// for pages as fast as it gets them.
func plannedShutdown(t *testing.T, l lab.Lab, names []string) {
	for _, n := range names {
		// The lab has no registry: each node makes the image itself.
		ssh(t, l, n, "sudo sh -c 'mkdir -p /tmp/web/www && cp $(command -v busybox) /tmp/web/ && hostname >/tmp/web/www/index.html && tar -C /tmp/web -c . | docker import - web:1'")
	}
	docker(t, l, "service", "create", "--detach", "--name", "web", "--replicas", "2", "--stop-grace-period", "3s", "--restart-delay", "1s", "--network", "mynet", "--publish", "8080:80",
		"--constraint", "node.labels.role==frontend", "--no-resolve-image", "web:1", "/busybox", "httpd", "-f", "-p", "80", "-h", "/www")
	running := func() []string {
		return lines(docker(t, l, "service", "ps", "web", "--filter", "desired-state=running", "--format", "{{.Node}} {{.CurrentState}}"))
	}
	on := func(node string) (n int) {
		for _, r := range running() {
			if strings.HasPrefix(r, node+" Running") {
				n++
			}
		}
		return n
	}
	wait(t, patience, "the service runs on both frontends", func() bool { return on("frontend01") == 1 && on("frontend02") == 1 })
	const page = "http://10.77.0.23:8080/" // of worker01, which runs none of it
	get := func() error {
		out, err := exec.Command("ip", "netns", "exec", l.Netns(), "curl", "--silent", "--show-error", "--fail", "--max-time", "10", page).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	wait(t, patience, "worker01 passes requests on", func() bool { return get() == nil })

	ctx, stop := context.WithCancel(t.Context())
	var asked, failed, down int
	var watchers sync.WaitGroup
	watchers.Go(func() {
		for ctx.Err() == nil {
			asked++
			if err := get(); err != nil {
				failed++
				t.Errorf("request %d: %v", asked, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	watchers.Go(func() {
		for ctx.Err() == nil {
			out, err := exec.Command("docker", "-H", l.Engine(), "node", "ls", "--format", "{{.Hostname}} {{.Status}}").Output()
			if err == nil && strings.Contains(string(out), "frontend02 Down") {
				down++
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	time.Sleep(2 * time.Second)
	press(t, l, "frontend02")
	swarmBecomes(t, l, patience, without(classic(), "frontend02"))
	wait(t, patience, "both tasks run on frontend01", func() bool { return on("frontend01") == 2 })
	time.Sleep(2 * time.Second)
	stop()
	watchers.Wait()
	t.Logf("%d requests, %d failed; frontend02 was seen Down %d times", asked, failed, down)
	if asked < 50 {
		t.Errorf("only %d requests were made", asked)
	}
	if down > 0 {
		t.Error("docker node ls showed the node Down")
	}
	docker(t, l, "service", "rm", "web")
	all(t, l, []string{"frontend02"}, lab.On, nil)
	swarmBecomes(t, l, patience, classic())
}

// powerCut pulls a plug. The node is Down, and gone after the grace, which is
// made short while bootd runs.
func powerCut(t *testing.T, l lab.Lab) {
	edit(t, l, "bootd.yaml", "availability: drain", "grace: 10s\n  availability: drain")
	defer edit(t, l, "bootd.yaml", "grace: 10s\n  availability: drain", "availability: drain")
	if _, err := l.Power(t.Context(), "worker01", lab.Off); err != nil {
		t.Fatal(err)
	}
	swarmBecomes(t, l, patience, without(classic(), "worker01"))
	if out := operator(t, l, "events", "--machine", "worker01"); !strings.Contains(out, "has been down for more than 10s") {
		t.Errorf("no event says why the node was removed:\n%s", out)
	}
	all(t, l, []string{"worker01"}, lab.On, nil)
	swarmBecomes(t, l, patience, classic())
}

// operatorDrains takes a node out of service, over a reboot, and back.
func operatorDrains(t *testing.T, l lab.Lab) {
	operator(t, l, "swarm", "drain", "store", "--reason", "a new disk")
	drained := classic()
	s := drained["store"]
	s.Availability = "drain"
	drained["store"] = s
	swarmBecomes(t, l, patience, drained)
	all(t, l, []string{"store"}, lab.Cycle, nil)
	swarmBecomes(t, l, patience, drained)
	if out := operator(t, l, "swarm", "nodes"); !strings.Contains(out, "a new disk") {
		t.Errorf("the nodes do not show why store is drained:\n%s", out)
	}
	operator(t, l, "swarm", "activate", "store")
	swarmBecomes(t, l, patience, classic())
}

// tenBoots cycles a machine's power. Its many nodes leave one entry.
func tenBoots(t *testing.T, l lab.Lab) {
	for range 10 {
		all(t, l, []string{"worker01"}, lab.Cycle, nil)
	}
	swarmBecomes(t, l, patience, classic())
}

// rotationAndRestart makes the tokens that the machines have got invalid
// between their Ignition and their joining, and restarts the manager's engine
// as well.
func rotationAndRestart(t *testing.T, l lab.Lab, names []string) {
	var once sync.Once
	var trouble sync.WaitGroup
	all(t, l, names, lab.Cycle, func(m lab.Marker) {
		if m.Name != "switch root" {
			return
		}
		once.Do(func() {
			trouble.Go(func() {
				out, err := exec.Command(bootd(t), "swarm", "token", "rotate", "--socket", l.Socket()).CombinedOutput()
				t.Logf("bootd swarm token rotate: %s", out)
				if err == nil {
					err = l.RestartEngine(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
			})
		})
	})
	trouble.Wait()
	swarmBecomes(t, l, patience, classic())
}

// managersAreLost makes managers of two machines while they run, cuts the power
// of one and presses the button of the other. Workers take their places, until
// they are back.
func managersAreLost(t *testing.T, l lab.Lab) {
	t.Cleanup(func() {
		if t.Failed() {
			out, err := exec.Command("docker", "-H", l.Engine(), "node", "ls").CombinedOutput()
			told := operator(t, l, "swarm", "nodes") + operator(t, l, "events")
			t.Logf("the swarm: %v\n%s\nwhat bootd did:\n%s", err, out, told[max(0, len(told)-8000):])
		}
	})
	// manage waits until there are three managers, these among them.
	manage := func(names ...string) {
		t.Helper()
		wait(t, patience, "three manage, among them "+strings.Join(names, ", "), func() bool {
			out, err := exec.Command("docker", "-H", l.Engine(), "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}").Output()
			if err != nil {
				return false // there is no leader for a moment
			}
			var got []string
			for _, line := range lines(string(out)) {
				if f := strings.Fields(line); len(f) == 3 && f[1] == "Ready" && f[2] != "Unreachable" {
					got = append(got, f[0])
				}
			}
			return len(got) == 3 && !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(got, name) })
		})
	}
	seen := func(node string) bool {
		out, err := exec.Command("docker", "-H", l.Engine(), "node", "ls", "--format", "{{.Hostname}}").Output()
		return err != nil || slices.Contains(lines(string(out)), node)
	}
	edit(t, l, "bootd.yaml", "availability: drain", "managers: 3\n  grace: 10s\n  availability: drain")
	manage("manager") // and two workers
	for _, file := range []string{"profiles/store.yaml", "profiles/worker.yaml"} {
		edit(t, l, file, "role: worker,", "role: manager,")
	}
	manage("manager", "store", "worker01")

	if _, err := l.Power(t.Context(), "store", lab.Off); err != nil {
		t.Fatal(err)
	}
	wait(t, patience, "store is gone", func() bool { return !seen("store") })
	manage("manager", "worker01") // and a worker in the place of store
	press(t, l, "worker01")
	manage("manager", "frontend01", "frontend02")
	wait(t, patience, "worker01 is gone", func() bool { return !seen("worker01") })

	all(t, l, []string{"store", "worker01"}, lab.On, nil)
	manage("manager", "store", "worker01")
	t.Logf("what bootd did:\n%s", operator(t, l, "events"))
}

// edit replaces a text in a file of the lab's configuration, while bootd runs.
func edit(t *testing.T, l lab.Lab, file, from, to string) {
	t.Helper()
	s, err := l.Summary()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.Config, file)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	next := strings.Replace(string(b), from, to, 1)
	if next == string(b) {
		t.Fatalf("%s has no %q", file, from)
	}
	if err := os.WriteFile(path+".new", []byte(next), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
