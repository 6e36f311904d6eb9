package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"bootd/assets"
	"bootd/internal/doctor"
)

const doctorInside = "BOOTD_TEST_DOCTOR_INSIDE"

// TestDoctor makes every fault for real that the doctor finds, one after the
// other, in a network and with mounts that go away with the process: it finds
// that one and no other.
func TestDoctor(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make networks")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("the command ip is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestDoctorInside$", "-test.v")
	c.Env = append(os.Environ(), doctorInside+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := c.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skipf("making networks is not permitted here: %v", err)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestDoctorInside")) {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// A patient is a machine that all is well on, until a test changes something.
type patient struct {
	dir string // of the configuration
	far namespace
}

func TestDoctorInside(t *testing.T) {
	if os.Getenv(doctorInside) == "" {
		t.Skip("TestDoctor runs it, in a network of its own")
	}
	p := newPatient(t)
	t.Run("all is well", func(t *testing.T) {
		found, exit := p.examine(t)
		p.only(t, found)
		if exit != exitOK {
			t.Errorf("exit status %d, want %d", exit, exitOK)
		}
		var checks []string
		for _, f := range found {
			checks = append(checks, f.Check)
		}
		want := []string{"configuration", "server", "network rack", "firewall", "DHCP", "loaders", "images", "disk", "disk", "clock"}
		if diff := cmp.Diff(want, checks); diff != "" {
			t.Error(diff)
		}
	})
	for _, f := range slices.Concat(networkFaults(), hostFaults()) {
		t.Run(f.name, func(t *testing.T) {
			f.make(t, p)
			found, exit := p.examine(t)
			i := slices.IndexFunc(found, func(g doctor.Finding) bool { return g.Check == f.check && g.Level == f.level })
			if i < 0 {
				t.Fatalf("it is not found; found is %+v", found)
			}
			if g := found[i]; !regexp.MustCompile(f.text).MatchString(g.Text) || !strings.Contains(g.Remedy, f.remedy) {
				t.Errorf("found is %+v, want %q and %q", g, f.text, f.remedy)
			}
			if exit != f.exit {
				t.Errorf("exit status %d, want %d", exit, f.exit)
			}
			p.only(t, found, f.check)
		})
	}
	t.Run("beside the server that runs", p.besideServer)
	t.Run("not as root", p.asNobody)
}

// besideServer: what the server itself has is not in its way.
func (p *patient) besideServer(t *testing.T) {
	c := startServer(t, p.dir)
	defer func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}()
	found, exit := p.examine(t)
	p.only(t, found)
	if exit != exitOK {
		t.Errorf("exit status %d", exit)
	}
	want := doctor.Finding{Check: "server", Level: doctor.OK, Text: fmt.Sprintf("bootd %s runs, process %d", thisBuild().Version, c.Process.Pid)}
	if !slices.Contains(found, want) {
		t.Errorf("found %+v, want %+v", found, want)
	}
}

// asNobody: what cannot be seen is said, and is no fault.
func (p *patient) asNobody(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "bootd")
	if err := copyFile(program, os.Args[0]); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(dir), dir, filepath.Dir(p.dir), p.dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	examine := func() (found []doctor.Finding, exit int) {
		const nobody = 65534
		c := exec.CommandContext(t.Context(), program, "doctor", "-c", p.dir, "-o", "json")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := c.Output()
		if errors.Is(err, unix.EACCES) {
			t.Skipf("nobody cannot reach %s", dir)
		}
		if e := json.Unmarshal(out, &found); e != nil {
			t.Fatalf("%v, %v\n%s", err, e, out)
		}
		return found, c.ProcessState.ExitCode()
	}
	unknown := func(found []doctor.Finding) map[string]bool {
		is := map[string]bool{}
		for _, f := range found {
			if f.Level == doctor.Unknown && strings.Contains(f.Remedy, "as root") {
				is[f.Check] = true
			}
		}
		return is
	}

	found, exit := examine()
	p.only(t, found)
	want := map[string]bool{"network rack": true, "DHCP": true, "disk": true, "images": true, "loaders": true}
	for _, program := range []string{"nft", "iptables-save"} {
		if _, err := exec.LookPath(program); err == nil {
			want["firewall"] = true
		}
	}
	if diff := cmp.Diff(want, unknown(found)); diff != "" || exit != exitOK {
		t.Errorf("exit status %d; %s", exit, diff)
	}

	// A server that runs and is not for nobody to ask.
	c := startServer(t, p.dir)
	defer func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
	}()
	found, _ = examine()
	p.only(t, found)
	if got := unknown(found); !got["server"] || !got["metrics"] {
		t.Errorf("found %+v", found)
	}

	// Nor is the configuration.
	if err := os.Chmod(filepath.Join(p.dir, "bootd.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, exit = examine()
	p.only(t, found)
	if !unknown(found)["configuration"] || exit != exitFailed {
		t.Errorf("exit status %d, found %+v", exit, found)
	}
}

// healthy is a configuration that all is well with.
const healthy = `
networks:
  - {interface: eth1, name: rack, subnet: 10.0.0.0/24, range: 10.0.0.100-10.0.0.150}
state_dir: state
loaders: loaders
api: {socket: sock}
metrics: {listen: '127.0.0.1:9177'}
images:
  lab: {path: image}
`

func newPatient(t *testing.T) *patient {
	t.Helper()
	// What is mounted here is to be seen by nobody else.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	for _, d := range assets.SystemLoaderDirs() {
		if _, err := os.Stat(d); err == nil {
			if err := unix.Mount("tmpfs", d, "tmpfs", 0, "size=1M"); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := &patient{dir: t.TempDir(), far: newNamespace(t)}
	ip(t, "link set lo up")
	ip(t, fmt.Sprintf("link add eth1 type veth peer name far netns %d", p.far.tid))
	ip(t, "addr add 10.0.0.1/24 dev eth1")
	ip(t, "link set eth1 up")
	p.far.do(func() { ip(t, "link set far up") })
	linked(t, true)

	kernel := string(kernelFor("x86_64"))
	write(t, p.dir, map[string]string{
		"bootd.yaml": healthy, "profiles/base.yaml": "name: base\nimage: lab\n",
		"loaders/undionly.kpxe": string(nbp()), "loaders/snponly.efi": string(efi(0x8664, "1")),
		"image/lab-1-live-kernel.x86_64": kernel, "image/lab-1-live-initramfs.x86_64.img": "initramfs", "image/lab-1-live-rootfs.x86_64.img": "rootfs",
		"state/marker": "",
	})
	p.mountState(t, "8G")
	var said bytes.Buffer
	if code := run(t.Context(), []string{"asset", "import", "lab", filepath.Join(p.dir, "image"), "-c", p.dir}, nil, &said, &said); code != exitOK {
		t.Fatalf("%s", &said)
	}
	return p
}

// linked waits until eth1 has a link, or has none: the kernel notes that in its own
// time.
func linked(t *testing.T, want bool) {
	t.Helper()
	eventuallyTrue(t, func() bool {
		i, err := net.InterfaceByName("eth1")
		if err != nil {
			t.Fatal(err)
		}
		return i.Flags&net.FlagRunning != 0 == want
	})
}

// mountState puts an empty disk of a size below the state directory.
func (p *patient) mountState(t *testing.T, size string) {
	t.Helper()
	dir := filepath.Join(p.dir, "state")
	store := filepath.Join(dir, "assets")
	kept, err := os.Open(store)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0750,size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		return
	}
	// The images are still there: only the disk is another one.
	defer kept.Close()
	err = os.Mkdir(store, 0o755)
	if err == nil {
		err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", kept.Fd()), store, "", unix.MS_BIND, "")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// configure writes bootd.yaml until the test ends.
func (p *patient) configure(t *testing.T, text string) {
	t.Helper()
	write(t, p.dir, map[string]string{"bootd.yaml": text})
	t.Cleanup(func() { write(t, p.dir, map[string]string{"bootd.yaml": healthy}) })
}

// examine runs the doctor.
func (p *patient) examine(t *testing.T) ([]doctor.Finding, int) {
	t.Helper()
	wait := "200ms"
	if strings.Contains(t.Name(), "another_DHCP") {
		wait = "1m" // it is found at once; were it not, no longer than this
	}
	var out, said bytes.Buffer
	exit := run(t.Context(), []string{"doctor", "-c", p.dir, "-o", "json", "--wait", wait}, nil, &out, &said)
	var found []doctor.Finding
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		t.Fatalf("%v\n%s%s", err, &out, &said)
	}
	return found, exit
}

// only demands that nothing is wrong but these checks; of the clock it is left
// open, since this machine's is not touched.
func (p *patient) only(t *testing.T, found []doctor.Finding, checks ...string) {
	t.Helper()
	for _, f := range found {
		silent := f.Check == "server" && strings.Contains(f.Text, "bootd serve") || f.Check == "clock"
		if (f.Level == doctor.Fault || f.Level == doctor.Warning) && !silent && !slices.Contains(checks, f.Check) {
			t.Errorf("found as well: %+v", f)
		}
		if f.Level != doctor.OK && f.Remedy == "" {
			t.Errorf("nothing helps: %+v", f)
		}
	}
}

// away takes a file away until the test ends.
func away(t *testing.T, path string) {
	t.Helper()
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(path+".away", path); err != nil {
			t.Error(err)
		}
	})
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Errorf("ip %s: %v\n%s", args, err, out)
	}
}

// A namespace is a thread in a network namespace of its own.
type namespace struct {
	work chan func()
	tid  int
}

func newNamespace(t *testing.T) namespace {
	t.Helper()
	n := namespace{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		n.tid = unix.Gettid()
		ready <- err
		for f := range n.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(n.work) })
	return n
}

func (n namespace) do(f func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); f() }
	<-done
}
