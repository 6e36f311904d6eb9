package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testLab is a lab with machines that are never powered on.
func testLab(t *testing.T, name string, o Options) Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	l, err := New(fmt.Sprintf("%s-%d", name, os.Getpid()%100000))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := l.Up(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return l
}

// traces lists what there is of a lab on this host.
func traces(t *testing.T, l Lab) []string {
	t.Helper()
	var found []string
	for _, p := range []string{l.RunDir(), l.RunDir() + ".lock", l.StateDir(), filepath.Join(netnsDir, l.Netns())} {
		if _, err := os.Lstat(p); err == nil {
			found = append(found, p)
		}
	}
	for line := range strings.Lines(read(t, "/proc/self/mountinfo")) {
		if strings.Contains(line, l.Netns()) || strings.Contains(line, l.RunDir()) || strings.Contains(line, l.StateDir()) {
			found = append(found, "mount "+line)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, err := os.ReadFile(p) // empty for a zombie
		if err == nil && strings.Contains(string(b), l.RunDir()+"/") {
			found = append(found, p+" "+string(b))
		}
	}
	return found
}

func sleeper(Lab, string) []string { return []string{"sleep", "1000"} }

func always(context.Context) bool { return true }

func TestUpAndDown(t *testing.T) {
	l := testLab(t, "ud", Options{Server: sleeper, Ready: always})
	if s, err := l.Summary(); err != nil || !s.Server || s.Engine {
		t.Errorf("Summary = %+v, %v", s, err)
	}
	if list, err := l.Status(); err != nil || len(list) != 3 || list[0].On || list[0].Name != "node1" {
		t.Errorf("Status = %+v, %v", list, err)
	}
	if err := l.Up(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "up already") {
		t.Errorf("a second Up: %v", err)
	}
	// The server's address is there, and there is no way out.
	err := l.In(func() error {
		c, err := net.Listen("tcp", "10.77.0.1:0")
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err != nil {
		t.Error(err)
	}
	out, err := exec.Command("ip", "-n", l.Netns(), "-o", "route").CombinedOutput()
	if err != nil || strings.Contains(string(out), "default") {
		t.Errorf("routes: %s, %v", out, err)
	}
	if err := l.Tap("tap0"); err != nil {
		t.Error(err)
	}
	if err := l.Tap("tap0"); err != nil {
		t.Errorf("again: %v", err)
	}
	for range 2 {
		if err := l.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := traces(t, l); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
	if _, err := l.Status(); err == nil || !strings.Contains(err.Error(), "not up") {
		t.Errorf("Status of what is not there: %v", err)
	}
}

// What a killed process has not recorded is found all the same, and Up begins
// afresh where there is a wreck.
func TestDownAfterCrash(t *testing.T) {
	l := testLab(t, "crash", Options{Server: sleeper, Ready: always})
	stray := exec.Command("sleep", "1001")
	if err := l.In(stray.Start); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- stray.Wait() }()
	if err := os.Remove(l.run("state.json")); err != nil {
		t.Fatal(err)
	}
	if err := l.Up(t.Context(), Options{Server: sleeper, Ready: always}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("a process of the wreck lives on")
	}
	if err := os.WriteFile(l.run("state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := traces(t, l); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// If the boot server cannot start, Up says what it wrote and leaves nothing.
func TestUpFails(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	l, err := New(fmt.Sprintf("fail-%d", os.Getpid()%100000))
	if err != nil {
		t.Fatal(err)
	}
	err = l.Up(t.Context(), Options{Server: func(Lab, string) []string { return []string{"sh", "-c", "echo no such luck; exit 3"} }})
	if err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("Up = %v", err)
	}
	if left := traces(t, l); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestRestartServer(t *testing.T) {
	o := Options{Server: sleeper, Ready: always}
	l := testLab(t, "rs", o)
	before, err := l.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.RestartServer(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	after, err := l.load()
	if err != nil {
		t.Fatal(err)
	}
	if before.Server.alive() || !after.Server.alive() {
		t.Errorf("before %+v, after %+v", before.Server, after.Server)
	}
}

// The lab's engine is beside the host's, with a name of its own.
func TestEngine(t *testing.T) {
	for _, r := range []string{"dockerd", "docker", "iptables"} {
		if !present(r) {
			t.Skipf("needs %s", r)
		}
	}
	l := testLab(t, "eng", Options{Engine: true})
	out, err := exec.Command("docker", "-H", l.Engine(), "info", "--format", "{{.Name}} {{.DockerRootDir}}").CombinedOutput()
	if want := engineHost + " " + l.StateDir() + "/docker\n"; err != nil || string(out) != want {
		t.Errorf("the engine says %q, %v; want %q", out, err, want)
	}
	// Killed, it leaves its containerd and its mounts.
	s, err := l.load()
	if err != nil {
		t.Fatal(err)
	}
	s.Engine.signal(syscall.SIGKILL)
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := traces(t, l); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
