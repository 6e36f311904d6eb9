package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// A room is two network namespaces with a cable between them: one for a DHCP
// server, one for a relay agent with its many clients.
type room struct {
	servers, clients string
	dir              string
}

const (
	roomServer = "10.0.0.1"
	roomAgent  = "10.0.255.254"
)

func newRoom(b testing.TB) room {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("making network namespaces needs root")
	}
	r := room{servers: fmt.Sprintf("bootd-bench-%d-s", os.Getpid()), clients: fmt.Sprintf("bootd-bench-%d-c", os.Getpid()), dir: b.TempDir()}
	run := func(args ...string) {
		b.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			b.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, ns := range []string{r.servers, r.clients} {
		run("netns", "add", ns)
		b.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		run("-n", ns, "link", "set", "lo", "up")
	}
	run("-n", r.servers, "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", r.clients)
	for ns, addr := range map[string]string{r.servers: roomServer, r.clients: roomAgent} {
		run("-n", ns, "addr", "add", addr+"/16", "dev", "eth1")
		run("-n", ns, "link", "set", "eth1", "up")
	}
	// Kea does not open interfaces whose cable is not in yet.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := exec.Command("ip", "-n", r.servers, "link", "show", "eth1").Output()
		if err == nil && bytes.Contains(out, []byte("state UP")) {
			return r
		}
		if time.Now().After(end) {
			b.Fatalf("the cable is not in: %s", out)
		}
	}
}

// inside opens sockets in the clients' namespace.
func (r room) inside(b testing.TB, open func() error) {
	b.Helper()
	if err := r.within(open); err != nil {
		b.Fatal(err)
	}
}

// within is inside for goroutines that cannot end the test.
func (r room) within(open func() error) error {
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer here.Close()
	there, err := netns.GetFromName(r.clients)
	if err == nil {
		err = netns.Set(there)
		there.Close()
	}
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = open()
	if back := netns.Set(here); back != nil {
		return back // the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// start runs a server until the function that it returns is called.
func (r room) start(b testing.TB, env []string, argv ...string) (stop func()) {
	b.Helper()
	_, stop = r.startProcess(b, env, argv...)
	return stop
}

// startProcess is start that tells the server's process ID.
func (r room) startProcess(b testing.TB, env []string, argv ...string) (pid int, stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", r.servers}, argv...)...) // which becomes argv
	var said bytes.Buffer
	c.Stdout, c.Stderr, c.Env = &said, &said, append(os.Environ(), env...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // so that it ends its children
	c.WaitDelay = 5 * time.Second
	if err := c.Start(); err != nil {
		cancel()
		b.Fatal(err)
	}
	return c.Process.Pid, func() {
		cancel()
		_ = c.Wait() // it was told to end
		if b.Failed() {
			b.Logf("%s:\n%s", argv[0], said.Bytes()[max(0, said.Len()-3000):])
		}
	}
}

// bootd runs the program under test, with more of a configuration.
func (r room) bootd(b *testing.B, dir, more string) func() {
	program := os.Getenv("BOOTD")
	if program == "" {
		b.Skip("BOOTD does not name the program")
	}
	put(b, filepath.Join(dir, "bootd.yaml"), "networks: [{interface: eth1, subnet: 10.0.0.0/16, range: 10.0.1.0-10.0.250.255}]\n"+
		"state_dir: state\napi: {socket: bootd.sock}\nlog: {level: error}\n"+more)
	return r.start(b, nil, program, "serve", "-c", dir)
}

// dhcpPeers are the servers that are compared. Each starts with no leases and
// writes them down, but only bootd has them on stable storage before it
// answers. What that costs shows beside the bootd whose files are in memory.
func dhcpPeers() map[string]func(b *testing.B, r room, dir string) (stop func()) {
	return map[string]func(b *testing.B, r room, dir string) func(){
		"bootd": func(b *testing.B, r room, dir string) func() {
			return r.bootd(b, dir, "")
		},
		"bootd-in-memory": func(b *testing.B, r room, dir string) func() {
			return r.bootd(b, inMemory(b), "")
		},
		"dnsmasq": func(b *testing.B, r room, dir string) func() {
			return r.start(b, nil, "dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--interface=eth1", "--bind-interfaces", "--user=root", "--no-ping",
				"--dhcp-range=10.0.1.0,10.0.250.255,255.255.0.0,1h", "--dhcp-lease-max=100000", "--dhcp-authoritative", "--quiet-dhcp",
				"--dhcp-leasefile="+filepath.Join(dir, "leases"), "--pid-file="+filepath.Join(dir, "pid"), "--log-facility=-")
		},
		"kea-dhcp4": func(b *testing.B, r room, dir string) func() {
			put(b, filepath.Join(dir, "kea.json"), `{"Dhcp4": {"interfaces-config": {"interfaces": ["eth1"]}, "valid-lifetime": 3600,
				"lease-database": {"type": "memfile", "persist": true, "name": "`+dir+`/leases.csv"},
				"subnet4": [{"id": 1, "subnet": "10.0.0.0/16", "pools": [{"pool": "10.0.1.0 - 10.0.250.255"}]}],
				"loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": "stderr"}]}]}}`)
			return r.start(b, []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=" + dir}, "kea-dhcp4", "-c", filepath.Join(dir, "kea.json"))
		},
	}
}

// inMemory makes a directory where syncing costs nothing.
func inMemory(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "bootd-bench-")
	if err != nil {
		b.Skipf("there is no file system in memory: %v", err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// put writes a file, and the folders that it is in.
func put(b testing.TB, path, text string) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDHCPPeers counts four-way exchanges per second through a relay agent
// that keeps so many of them in flight, for each server in turn.
func BenchmarkDHCPPeers(b *testing.B) {
	const clients = 10_000
	for _, flight := range []int{1, 64, 1024} {
		for _, name := range []string{"bootd", "bootd-in-memory", "kea-dhcp4", "dnsmasq"} {
			b.Run(fmt.Sprintf("flight=%d/server=%s", flight, name), func(b *testing.B) {
				if _, err := exec.LookPath(name); err != nil && !strings.HasPrefix(name, "bootd") {
					b.Skipf("%s is not installed", name)
				}
				r := newRoom(b)
				stop := dhcpPeers()[name](b, r, r.dir)
				defer stop()
				l := newLoad(b, r, flight, clients)
				if done, err := l.run(1, 30*time.Second); done < 1 {
					b.Fatalf("it does not answer: %v", err)
				}
				const long = 3 * time.Second
				l.took = l.took[:0]
				b.ResetTimer()
				done, err := l.run(math.MaxInt, long)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(0, "ns/op") // means nothing here
				b.ReportMetric(float64(done)/long.Seconds(), "exchanges/s")
				b.ReportMetric(float64(l.percentile(50).Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(l.percentile(99).Microseconds())/1000, "p99-ms")
				b.ReportMetric(float64(l.again), "repeats")
			})
		}
	}
}
