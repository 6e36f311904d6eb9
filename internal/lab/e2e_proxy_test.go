//go:build e2e

package lab_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bootd/internal/lab"
)

// addressServer runs dnsmasq as somebody else's DHCP server, in a namespace of
// its own on the lab's bridge. It knows nothing of network boot.
func addressServer(t *testing.T, l lab.Lab) {
	t.Helper()
	ns := l.Netns() + "-dhcp"
	dir := t.TempDir()
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
		}
	}
	run("ip", "netns", "add", ns)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	run("ip", "-n", ns, "link", "add", "eth0", "type", "veth", "peer", "name", "dhcp0", "netns", l.Netns())
	run("ip", "-n", l.Netns(), "link", "set", "dhcp0", "master", lab.Bridge, "up")
	run("ip", "-n", ns, "link", "set", "lo", "up")
	run("ip", "-n", ns, "link", "set", "eth0", "up")
	run("ip", "-n", ns, "addr", "add", "10.77.0.2/24", "dev", "eth0")
	conf := filepath.Join(dir, "dnsmasq.conf")
	if err := os.WriteFile(conf, []byte("port=0\ninterface=eth0\nbind-interfaces\nuser=root\ndhcp-authoritative\nlog-dhcp\n"+
		"dhcp-range=10.77.0.100,10.77.0.150,1h\ndhcp-leasefile="+dir+"/leases\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", ns, "dnsmasq", "-k", "-C", conf, "--pid-file="+dir+"/pid", "--log-facility="+dir+"/log")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was killed
		if b, err := os.ReadFile(dir + "/log"); err == nil && t.Failed() {
			t.Logf("dnsmasq:\n%s", b[max(0, len(b)-6000):])
		}
	})
	wait(t, patience, "dnsmasq runs", func() bool {
		b, err := os.ReadFile(dir + "/pid")
		return err == nil && len(b) > 0
	})
}

// TestProxy boots the rack on a network where somebody else gives the
// addresses: bootd only adds what is to be booted.
func TestProxy(t *testing.T) {
	image(t)
	l := open(t, "proxy", "", demo(t))
	edit(t, l, "bootd.yaml", "range: 10.77.0.100-10.77.0.199", "mode: proxy")
	for _, ip := range []string{", ip: 10.77.0.11", ", ip: 10.77.0.12", ", ip: 10.77.0.13"} {
		edit(t, l, "machines/rack.yaml", ip, "")
	}
	wait(t, patience, "bootd is a proxy", func() bool {
		return strings.Contains(operator(t, l, "status"), "10.77.0.0/24 on br0, proxy")
	})
	addressServer(t, l)
	all(t, l, []string{"node1", "node2", "node3"}, lab.On, nil)
	becomes(t, l, patience, whole())
	if out := operator(t, l, "lease", "list"); strings.Contains(out, "10.77.0.1") {
		t.Errorf("the proxy gave out addresses:\n%s", out)
	}
	if out := operator(t, l, "machine", "show", "node3"); !strings.Contains(out, "ready") {
		t.Errorf("the boot is not on record:\n%s", out)
	}
}
