package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bootd/assets"
	"bootd/internal/doctor"
)

// A fault is something wrong on a machine, and how the doctor tells of it.
type fault struct {
	name   string
	make   func(t *testing.T, p *patient)
	check  string
	level  doctor.Level
	text   string // a pattern
	remedy string // a part of it
	exit   int
}

func networkFaults() []fault {
	const bad = doctor.Fault
	return []fault{
		{"no such interface", func(t *testing.T, p *patient) {
			p.configure(t, strings.ReplaceAll(healthy, "eth1", "eth7"))
		}, "network rack", bad, "there is no interface eth7", "ip link", exitFailed},
		{"interface off", func(t *testing.T, _ *patient) {
			ip(t, "link set eth1 down")
			t.Cleanup(func() {
				ip(t, "link set eth1 up")
				linked(t, true)
			})
		}, "network rack", bad, "interface eth1 is switched off", "ip link set eth1 up", exitFailed},
		{"no cable", func(t *testing.T, p *patient) {
			p.far.do(func() { ip(t, "link set far down") })
			linked(t, false)
			t.Cleanup(func() {
				p.far.do(func() { ip(t, "link set far up") })
				linked(t, true)
			})
		}, "network rack", doctor.Warning, "interface eth1 has no link", "cable", exitOK},
		{"no address", func(t *testing.T, _ *patient) {
			ip(t, "addr del 10.0.0.1/24 dev eth1")
			t.Cleanup(func() { ip(t, "addr add 10.0.0.1/24 dev eth1") })
		}, "network rack", bad, "interface eth1 has no address in 10.0.0.0/24", "ip addr add ADDRESS/24 dev eth1", exitFailed},
		{"an address that is nobody's", func(t *testing.T, p *patient) {
			p.configure(t, strings.ReplaceAll(healthy, "range:", "server: 10.0.0.3, range:"))
		}, "network rack", bad, "no interface has the address 10.0.0.3", "ip addr add 10.0.0.3/24 dev eth1", exitFailed},
		taken("udp", "0.0.0.0:67", "network rack"),
		taken("udp", "0.0.0.0:69", "network rack"),
		taken("tcp", "10.0.0.1:80", "network rack"),
		taken("tcp", "127.0.0.1:9177", "metrics"),
		{"a port shared by force", func(t *testing.T, _ *patient) {
			// As dnsmasq does, which then has the packets of the other one.
			lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				var failed error
				err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
				return errors.Join(err, failed)
			}}
			c, err := lc.ListenPacket(t.Context(), "udp4", "0.0.0.0:67")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}, "network rack", bad, "UDP port 67 is taken by ", "stop it", exitFailed},
		closed("nft", "add table inet t; add chain inet t in { type filter hook input priority 0; policy accept; }; add rule inet t in udp dport 67 drop",
			"flush ruleset", bad, "^the chain inet t in of nftables drops what comes to UDP port 67 on eth1$", `nft insert rule inet t in iifname "eth1" udp dport 67 accept; `, exitFailed),
		closed("nft", "add table inet t; add chain inet t in { type filter hook input priority 0; policy drop; }; add rule inet t in udp dport { 67, 69 } accept; add rule inet t in tcp dport 80 limit rate 9/second accept",
			"flush ruleset", doctor.Warning, "^the chain inet t in of nftables may drop what comes to TCP port 80 on eth1; ", `nft insert rule inet t in iifname "eth1" tcp dport 80 accept; `, exitOK),
		closed("iptables", "-A INPUT -p udp --dport 69 -j DROP", "-F INPUT", bad, "^the chain INPUT of iptables drops what comes to UDP port 69 on eth1$", "iptables -I INPUT -i eth1 -p udp --dport 69 -j ACCEPT; ", exitFailed),
		{"another DHCP server", otherServer, "DHCP", bad, `^another DHCP server on eth1: 10.0.0.2 \(.*\) gives addresses, such as 10\.0\.0\.2\d\d$`, "mode: proxy", exitFailed},
	}
}

// taken is the fault that this process has a port.
func taken(proto, addr, check string) fault {
	_, port, _ := strings.Cut(addr, ":")
	return fault{proto + " port " + port + " taken", func(t *testing.T, _ *patient) {
		if proto == "tcp" {
			l, err := net.Listen("tcp4", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			return
		}
		c, err := net.ListenPacket("udp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}, check, doctor.Fault, fmt.Sprintf(`^%s port %s is taken by \S+ \(process %d\)$`, strings.ToUpper(proto), port, os.Getpid()),
		fmt.Sprintf("kill %d", os.Getpid()), exitFailed}
}

// closed is the fault that a firewall is in the way.
func closed(program, set, unset string, level doctor.Level, text, remedy string, exit int) fault {
	return fault{program + ": " + text, func(t *testing.T, _ *patient) {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
		args := func(s string) []string {
			if program == "nft" {
				return []string{s}
			}
			return strings.Fields(s)
		}
		if out, err := exec.Command(program, args(set)...).CombinedOutput(); err != nil {
			t.Skipf("this kernel has no such rules: %v\n%s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command(program, args(unset)...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}, "firewall", level, text, remedy, exit}
}

// otherServer runs a DHCP server at the other end of the cable: bootd itself.
func otherServer(t *testing.T, p *patient) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"bootd.yaml": "networks:\n  - {interface: far, subnet: 10.0.0.0/24, range: 10.0.0.200-10.0.0.220}\n" +
		"state_dir: " + dir + "/state\napi: {socket: " + dir + "/sock}\n"})
	p.far.do(func() { ip(t, "addr add 10.0.0.2/24 dev far") })
	var c *exec.Cmd
	p.far.do(func() { c = startServer(t, dir) })
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
		p.far.do(func() { ip(t, "addr del 10.0.0.2/24 dev far") })
	})
}

// startServer runs the server until it answers.
func startServer(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0], "serve", "-c", dir)
	c.Args[0] = "bootd"
	program := filepath.Join(t.TempDir(), "bootd")
	if err := copyFile(program, os.Args[0]); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	c.Path, c.Stderr = program, &log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if run(t.Context(), []string{"status", "-c", dir}, nil, new(bytes.Buffer), new(bytes.Buffer)) == exitOK {
			return c
		}
		if time.Now().After(end) {
			_ = c.Process.Kill()
			_ = c.Wait() // it was killed
			t.Fatalf("the server does not answer\n%s", &log)
		}
	}
}

func hostFaults() []fault {
	const bad = doctor.Fault
	return []fault{
		{"a mistake in the configuration", func(t *testing.T, p *patient) {
			p.configure(t, strings.ReplaceAll(healthy, "interface", "interfaec"))
		}, "configuration", bad, `bootd.yaml:3:\d+: unknown key "interfaec" in network; did you mean "interface"`, "bootd check", exitConfig},
		{"no network", func(t *testing.T, p *patient) {
			p.configure(t, "networks: []\nstate_dir: state\nloaders: loaders\napi: {socket: sock}\nimages: {lab: {path: image}}\n")
		}, "networks", doctor.Warning, "no network is configured", "bootd init", exitOK},
		{"files that the server cannot read", unreadableFile, "configuration", bad, "the server's user bootd cannot read /etc/bootd/bootd.yaml", "chgrp -R bootd /etc/bootd", exitFailed},
		{"a server that hangs up", func(t *testing.T, p *patient) {
			l, err := net.Listen("unix", filepath.Join(p.dir, "sock"))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Close()
				}
			}()
			t.Cleanup(func() { l.Close(); <-ended })
		}, "server", doctor.Warning, "it went away before it had answered", "systemctl start bootd", exitOK},
		{"no loaders", func(t *testing.T, p *patient) {
			away(t, filepath.Join(p.dir, "loaders"))
		}, "loaders", bad, "no build of iPXE was found", "apt-get install ipxe", exitFailed},
		{"loaders for BIOS only", func(t *testing.T, p *patient) {
			away(t, filepath.Join(p.dir, "loaders/snponly.efi"))
		}, "loaders", doctor.Warning, "no build of iPXE for UEFI x64 was found", "apt-get install ipxe", exitOK},
		{"no GRUB", noGRUB, "loaders", doctor.Warning, "^profile secure: loader: grub, but no shim and GRUB for x86_64 were found",
			"apt-get install shim-signed grub-efi-amd64-signed", exitOK},
		{"an image that nobody fetched", func(t *testing.T, p *patient) {
			p.configure(t, healthy+"  new: {path: image}\n")
			write(t, p.dir, map[string]string{"profiles/new.yaml": "name: new\nimage: new\n"})
			t.Cleanup(func() { _ = os.Remove(filepath.Join(p.dir, "profiles/new.yaml")) })
		}, "images", bad, "new is not in the store", "bootd asset fetch new", exitFailed},
		{"a full disk", func(t *testing.T, p *patient) {
			p.mountState(t, "4M")
			if err := os.WriteFile(filepath.Join(p.dir, "state/full"), make([]byte, 4<<20), 0o600); err != nil && !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
		}, "disk", bad, "state has only 0 MiB free; without room no address can be leased", "bootd asset rm", exitFailed},
		{"little room", func(t *testing.T, p *patient) { p.mountState(t, "1G") },
			"disk", doctor.Warning, `state has 1\.0 GiB free, too little for an image and the next version`, "move state_dir", exitOK},
		{"no Docker", func(t *testing.T, p *patient) {
			p.configure(t, healthy+"swarm: {host: 'unix://"+p.dir+"/nowhere.sock', advertise: 10.0.0.1}\n")
		}, "swarm default", bad, "the engine at unix://.*nowhere.sock cannot be asked: ", "systemctl start docker", exitFailed},
	}
}

// noGRUB hides what the machine has of shim and GRUB from a profile that needs
// them; a check tells of it as well.
func noGRUB(t *testing.T, p *patient) {
	for _, dir := range assets.SystemLoaderDirs() {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1M"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	write(t, p.dir, map[string]string{"profiles/secure.yaml": "name: secure\nimage: lab\nloader: grub\n"})
	t.Cleanup(func() { _ = os.Remove(filepath.Join(p.dir, "profiles/secure.yaml")) })
	var warned bytes.Buffer
	exit := run(t.Context(), []string{"check", "-c", p.dir}, nil, new(bytes.Buffer), &warned)
	if want := "bootd: warning: profile secure: loader: grub, but no shim and GRUB for x86_64 were found"; exit != exitOK || !strings.Contains(warned.String(), want) {
		t.Errorf("check ends with %d: %s", exit, &warned)
	}
}

// unreadableFile gives the machine a user for the server, and a configuration
// that only root can read.
func unreadableFile(t *testing.T, p *patient) {
	if err := unix.Mount("tmpfs", "/etc", "tmpfs", 0, "size=16M"); err != nil {
		t.Fatal(err)
	}
	was := p.dir
	t.Cleanup(func() {
		p.dir = was
		if err := unix.Unmount("/etc", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	write(t, "/etc", map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nbootd:x:64999:64999::/:/bin/false\n", "group": "root:x:0:\nbootd:x:64999:\n",
		"bootd/bootd.yaml": strings.NewReplacer("state_dir: state", "state_dir: "+was+"/state", "loaders: loaders", "loaders: "+was+"/loaders", "path: image", "path: "+was+"/image").Replace(healthy),
		// What is readable to all is, and a link is what it leads to.
		"bootd/profiles/base.yaml": "name: base\nimage: lab\n",
	})
	if err := os.Chmod("/etc/bootd/bootd.yaml", 0o640); err != nil {
		t.Fatal(err)
	}
	p.dir = defaultDir
	// The group of the server makes it readable.
	if err := os.Chown("/etc/bootd/bootd.yaml", 0, 64999); err != nil {
		t.Fatal(err)
	}
	if path := unreadable(defaultDir); path != "" {
		t.Errorf("%s is said to be unreadable", path)
	}
	if err := os.Chown("/etc/bootd/bootd.yaml", 0, 0); err != nil {
		t.Fatal(err)
	}
}
