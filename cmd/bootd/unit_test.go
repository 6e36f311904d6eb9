package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const unitFile = "../../systemd/bootd.service"

// setting returns the values of a key of the unit, in order.
func setting(t *testing.T, key string) []string {
	t.Helper()
	b, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			out = append(out, strings.Fields(v)...)
		}
	}
	return out
}

// TestUnitExposure: what the README says of systemd's own measure is so.
func TestUnitExposure(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=30", unitFile).CombinedOutput()
	if bytes.Contains(out, []byte("nrecognized option")) {
		t.Skip("this systemd-analyze is too old to look at a file")
	}
	m := regexp.MustCompile(`Overall exposure level for bootd.service: ([0-9.]+)`).FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// Another version of systemd may count a little differently.
	if score, err := strconv.ParseFloat(string(m[1]), 64); err != nil || score >= 3 {
		t.Errorf("the exposure is %s, want less than 3", m[1])
	}
}

// A notified is a socket that a server takes for systemd's.
type notified struct {
	path string
	conn *net.UnixConn
}

func listenNotified(t *testing.T, dir string) notified {
	t.Helper()
	n := notified{path: filepath.Join(dir, "notify")}
	var err error
	n.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err == nil {
		err = os.Chmod(n.path, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.conn.Close() })
	return n
}

// until waits for a state; log is shown if it does not come.
func (n notified) until(t *testing.T, state string, log *os.File) {
	t.Helper()
	if err := n.conn.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	for {
		size, err := n.conn.Read(b)
		if err != nil {
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("systemd was not told %s: %v\n%s", state, err, said)
		}
		if slices.Contains(strings.Split(string(b[:size]), "\n"), state) {
			return
		}
	}
}

// TestUnitWithoutRoot runs the server with the capabilities that the unit gives
// and no others, as nobody, in a network of its own: it binds its ports, says
// that it is ready and well, and after kill -9 comes up again.
func TestUnitWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	for _, program := range []string{"unshare", "setpriv", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	if out, err := exec.Command("unshare", "-n", "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "far").CombinedOutput(); err != nil {
		t.Skipf("networks cannot be made here: %v\n%s", err, out)
	}
	const nobody = 65534
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("setpriv", "--reuid", "65534", "--clear-groups", "test", "-x", dir).Run(); err != nil {
		t.Skipf("nobody cannot reach %s", dir)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test binary is the program when it is called by its name.
	program := filepath.Join(dir, "bootd")
	if err := copyFile(program, binary); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"site/bootd.yaml": "networks:\n  - {interface: eth1, subnet: 10.0.0.0/24, range: 10.0.0.100-10.0.0.250}\n" +
		"state_dir: " + dir + "/state\napi: {socket: " + dir + "/run/bootd.sock}\n"})
	for _, d := range []string{"state", "run"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, d), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	systemd := listenNotified(t, dir)
	for _, life := range []string{"first", "after kill -9"} {
		t.Run(life, func(t *testing.T) { serveAsNobody(t, dir, program, systemd) })
	}
}

// serveAsNobody runs the server until it is well, looks at it, and kills it.
func serveAsNobody(t *testing.T, dir, program string, systemd notified) {
	var caps []string
	for _, c := range setting(t, "AmbientCapabilities") {
		caps = append(caps, "+"+strings.ToLower(strings.TrimPrefix(c, "CAP_")))
	}
	set := "-all," + strings.Join(caps, ",")
	script := fmt.Sprintf(`set -e
ip link set lo up
ip link add eth1 type veth peer name far
ip addr add 10.0.0.1/24 dev eth1
ip link set far up
ip link set eth1 up
exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --bounding-set %[1]s --inh-caps %[1]s --ambient-caps %[1]s \
	%[2]s serve -c %[3]s/site`, set, program, dir)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.CommandContext(t.Context(), "unshare", "-n", "sh", "-c", script)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+systemd.path, "WATCHDOG_USEC=4000000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
	}()
	systemd.until(t, "READY=1", log)
	systemd.until(t, "WATCHDOG=1", log)
	// unshare, sh and setpriv have become the server.
	if uid, effective := credentials(t, cmd.Process.Pid); uid != "65534" || effective != "0000000000002400" {
		t.Errorf("it runs as user %s with capabilities %s; want nobody with CAP_NET_BIND_SERVICE and CAP_NET_RAW", uid, effective)
	}
	ports := bound(t, cmd.Process.Pid)
	for _, want := range []string{"udp 67", "udp 69", "tcp 80"} {
		if !slices.Contains(ports, want) {
			t.Errorf("%s is not bound, only %q", want, ports)
		}
	}
	st, err := os.Stat(filepath.Join(dir, "run/bootd.sock"))
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v (%v), want 0660", st, err)
	}
}

// credentials reads whom a process runs as, and what it is capable of.
func credentials(t *testing.T, pid int) (uid, effective string) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		switch f := strings.Fields(line); f[0] {
		case "Uid:":
			uid = f[2]
		case "CapEff:":
			effective = f[1]
		}
	}
	return uid, effective
}

// bound lists the ports of IPv4 in the network of a process.
func bound(t *testing.T, pid int) []string {
	t.Helper()
	var out []string
	for _, proto := range []string{"udp", "tcp"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, proto))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			local := strings.Fields(lines.Text())[1]
			_, hex, _ := strings.Cut(local, ":")
			if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
				out = append(out, fmt.Sprintf("%s %d", proto, port))
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
