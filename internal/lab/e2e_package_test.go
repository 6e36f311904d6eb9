//go:build e2e

package lab_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/lab"
)

// TestPackage installs the Debian package in a system with a real systemd, the
// lab image's in a container: the server starts without root, comes back when it
// is killed, when it hangs and when the system boots again, goes on with its
// state after an upgrade, through one under a configuration with mistakes as well,
// and leaves it when it is removed.
func TestPackage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a container with systemd")
	}
	for _, program := range []string{"systemd-nspawn", "unsquashfs", "cpio", "make", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	image, err := lab.ReadImage(lab.ImageDir)
	if err != nil {
		t.Skipf("there is no image to take systemd from: %v", err)
	}
	root := systemOf(t, filepath.Join(lab.ImageDir, image.RootFS))
	if out, err := exec.CommandContext(t.Context(), "systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "--private-network", "/bin/true").CombinedOutput(); err != nil {
		t.Skipf("systemd-nspawn cannot make a container here: %v\n%s", err, out)
	}
	probe := filepath.Join(root, "probe")
	for name, version := range map[string]string{"old.deb": "1.0", "new.deb": "1.1"} {
		makePackage(t, version, filepath.Join(probe, name))
	}
	bootSystem(t, root)
	bootSystem(t, root)

	b, err := os.ReadFile(filepath.Join(probe, "result"))
	if err != nil {
		t.Fatal("the system did not come to look at bootd:", err)
	}
	// The key of tickets is made at the first start, and differs.
	key := ""
	got := regexp.MustCompile(`[0-9a-f]{64}  -`).ReplaceAllStringFunc(string(b), func(s string) string {
		if key == "" {
			key = s
		}
		if s == key {
			return "the first"
		}
		return "another: " + s
	})
	want := []string{"boot 1",
		"installed: configuration root:bootd 2750, disabled, inactive",
		"installed: bootd is in bootd docker"}
	as := func(when string) {
		for _, s := range []string{"user bootd", "capabilities 2400", "ports 67 69 80", "socket bootd:bootd 660", "state bootd:bootd 750", "key the first"} {
			want = append(want, when+": "+s)
		}
	}
	as("started")
	as("after kill -9")
	as("after it hung")
	want = append(want, "end 1", "boot 2")
	as("after a reboot")
	want = append(want, `mistaken: 1.1 install ok installed, unknown key "netwroks", was not restarted`, "mistaken: the old server goes on")
	as("after an upgrade")
	want = append(want, "upgraded: 1.1", "removed: inactive, key the first", "purged: /etc/bootd/bootd.yaml", "end 2")
	if diff := cmp.Diff(want, lines(got)); diff != "" {
		t.Errorf("%s", diff)
	}
}

// systemOf unpacks the root file system of an image, and puts the probe into it.
func systemOf(t *testing.T, rootfs string) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unpack := exec.CommandContext(t.Context(), "cpio", "-id", "--quiet")
	unpack.Dir, unpack.Stdin = dir, f
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("cannot unpack %s: %v\n%s", rootfs, err, out)
	}
	root := filepath.Join(dir, "root")
	if out, err := exec.CommandContext(t.Context(), "unsquashfs", "-q", "-n", "-d", root, filepath.Join(dir, "root.squashfs")).CombinedOutput(); err != nil {
		t.Fatalf("cannot unpack the root file system: %v\n%s", err, out)
	}
	units := filepath.Join(root, "etc/systemd/system")
	wants := filepath.Join(units, "multi-user.target.wants")
	for _, d := range []string{wants, filepath.Join(root, "probe")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const from = "testdata/package"
	copyTo(t, filepath.Join(from, "run"), filepath.Join(root, "probe/run"))
	for _, u := range []string{"wire.service", "probe.service"} {
		copyTo(t, filepath.Join(from, u), filepath.Join(units, u))
		link(t, "../"+u, filepath.Join(wants, u))
	}
	// What would wait for an engine, or for a DHCP server in an empty network.
	for _, u := range []string{"docker.service", "docker.socket", "containerd.service", "bootd-lab-joined.path", "systemd-networkd.service", "systemd-networkd.socket"} {
		link(t, "/dev/null", filepath.Join(units, u))
	}
	const config = "networks:\n  - {interface: eth1, subnet: 10.0.0.0/24, range: 10.0.0.100-10.0.0.250}\n"
	if err := os.WriteFile(filepath.Join(root, "probe/bootd.yaml"), []byte(config), 0o640); err != nil {
		t.Fatal(err)
	}
	return root
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, path string) {
	t.Helper()
	_ = os.Remove(path) // it may be there
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

// makePackage builds the package as a version.
func makePackage(t *testing.T, version, to string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "make", "-C", "../..", "deb", "BIN="+dir, "DEB_VERSION="+version)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make deb: %v\n%s", err, out)
	}
	made, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(made) != 1 {
		t.Fatalf("make deb made %q, %v\n%s", made, err, out)
	}
	copyTo(t, made[0], to)
	listed, err := exec.CommandContext(t.Context(), "dpkg-deb", "-c", to).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`-rwxr-xr-x root/root .* \./usr/bin/bootd\n`,
		`-rw-r--r-- root/root .* \./usr/lib/systemd/system/bootd.service\n`,
		`-rw-r--r-- root/root .* \./usr/lib/sysusers.d/bootd.conf\n`,
		`-rw-r--r-- root/root .* \./usr/lib/tmpfiles.d/bootd.conf\n`,
		`-rw-r--r-- root/root .* \./usr/share/man/man1/bootd-machine-list.1.gz\n`,
		`-rw-r--r-- root/root .* \./usr/share/bash-completion/completions/bootd\n`,
		`-rw-r--r-- root/root .* \./usr/share/fish/vendor_completions.d/bootd.fish\n`,
		`-rw-r--r-- root/root .* \./usr/share/zsh/vendor-completions/_bootd\n`,
	} {
		if !regexp.MustCompile(want).Match(listed) {
			t.Errorf("the package does not hold %s", want)
		}
	}
	if strings.Contains(string(listed), dir) {
		t.Errorf("the package holds what is of this machine:\n%s", listed)
	}
}

// bootSystem boots a system in a container, and returns when it has switched itself
// off.
func bootSystem(t *testing.T, root string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemd-nspawn", "-D", root, "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		result, _ := os.ReadFile(filepath.Join(root, "probe/result"))
		t.Fatalf("the system did not end well: %v\n%s\n%s", err, out, result)
	}
}
