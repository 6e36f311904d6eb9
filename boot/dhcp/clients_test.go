package dhcp_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootd/boot/dhcp"
)

// variables are how clients that learned it from ISC's tell a script what they
// were told.
const variables = "ip=$new_ip_address mask=$new_subnet_mask router=$new_routers dns=$new_domain_name_servers domain=$new_domain_name " +
	"lease=$new_dhcp_lease_time serverid=$new_dhcp_server_identifier"

// told is what each of them must have been told.
const told = " ip=10.0.0.100 mask=255.255.255.0 router=10.0.0.254 dns=10.0.0.2 10.0.0.3 domain=lab.example lease=43200 serverid=10.0.0.1"

// realClients have programs that Linux systems use ask for an address.
func realClients(t *testing.T, m machine, p dhcp.Policy) {
	for _, c := range []struct {
		program string
		args    func(script, dir string) []string
	}{
		{"dhclient", func(script, dir string) []string {
			return []string{"-d", "-1", "-4", "-cf", "/dev/null", "-sf", script, "-lf", filepath.Join(dir, "leases"), "-pf", filepath.Join(dir, "pid"), "card"}
		}},
		{"dhcpcd", func(script, _ string) []string {
			return []string{"-B", "-4", "-A", "-L", "-t", "30", "-f", "/dev/null", "-I", "", "-o", "domain_name_servers,domain_name,routers", "-c", script, "card"}
		}},
	} {
		t.Run(c.program, func(t *testing.T) {
			program, err := exec.LookPath(c.program)
			if err != nil {
				t.Skipf("%s is not installed", c.program)
			}
			m.do(func() { run(t, "ip", "addr", "flush", "dev", "card") })
			keeps := "/var/lib/dhcpcd/card.lease" // wherever it is told to run
			if _, err := os.Stat(keeps); err != nil {
				defer os.Remove(keeps)
			}
			dir := t.TempDir()
			script, log := filepath.Join(dir, "script"), filepath.Join(dir, "log")
			if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$reason "+variables+"\" >>"+log+"\nexit 0\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			out, err := os.Create(filepath.Join(dir, "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			ctx, cancel := context.WithCancel(t.Context())
			cmd := exec.CommandContext(ctx, program, c.args(script, dir)...)
			cmd.Stdout, cmd.Stderr = out, out
			m.do(func() { err = cmd.Start() })
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				cancel()
				_ = cmd.Wait() // it is killed
			}()
			for end := time.Now().Add(40 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				b, _ := os.ReadFile(log)
				if strings.Contains(string(b), "BOUND ") || strings.Contains(string(b), "REBOOT ") { // it may remember an address
					if !strings.Contains(string(b), told) {
						t.Errorf("it was told\n%s\nwant\n%s", b, told)
					}
					break
				}
				if time.Now().After(end) {
					said, _ := os.ReadFile(out.Name())
					t.Fatalf("it has no address; it said\n%s\n%s", said, b)
				}
			}
			if l, ok := p.Leases.ByMAC("lab", mac(7)); !ok || l.Addr != addr("10.0.0.100") {
				t.Errorf("the lease is %+v", l)
			}
		})
	}
}

// relayed has a client behind ISC's relay agent, which runs on the machine.
func relayed(t *testing.T, agent machine, agentID int, p dhcp.Policy) {
	for _, program := range []string{"dhcrelay", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	far, farID := newMachine(t)
	run(t, "ip", "link", "add", "below", "type", "veth", "peer", "name", "far", "address", mac(8).String())
	run(t, "ip", "link", "set", "below", "netns", fmt.Sprint(agentID))
	run(t, "ip", "link", "set", "far", "netns", fmt.Sprint(farID))
	agent.do(func() {
		run(t, "ip", "addr", "flush", "dev", "card")
		run(t, "ip", "addr", "add", "10.0.0.9/24", "dev", "card")
		run(t, "ip", "addr", "add", "10.9.0.1/24", "dev", "below")
		run(t, "ip", "link", "set", "below", "up")
	})
	defer agent.do(func() {
		run(t, "ip", "link", "del", "below")
		run(t, "ip", "addr", "flush", "dev", "card")
	})
	far.do(func() { run(t, "ip", "link", "set", "far", "up") })
	run(t, "ip", "route", "add", "10.9.0.0/24", "via", "10.0.0.9")
	defer run(t, "ip", "route", "del", "10.9.0.0/24")

	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "dhcrelay", "-4", "-d", "-a", "--no-pid", "-id", "below", "-iu", "card", "10.0.0.1")
	cmd.Stdout, cmd.Stderr = out, out
	agent.do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it is killed
	}()
	script, log := filepath.Join(dir, "script"), filepath.Join(dir, "log")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$1 ip=$ip mask=$mask serverid=$serverid\" >>"+log+"\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	far.do(func() {
		// The agent is not there at once: until it is, the client asks again.
		said, err := exec.Command("busybox", "udhcpc", "-f", "-q", "-n", "-t", "30", "-T", "1", "-i", "far", "-s", script).CombinedOutput()
		if err != nil {
			agentSaid, _ := os.ReadFile(out.Name())
			t.Errorf("%v\n%s\nagent:\n%s", err, said, agentSaid)
		}
	})
	b, _ := os.ReadFile(log)
	if want := "bound ip=10.9.0.100 mask=24 serverid=10.0.0.1"; !strings.Contains(string(b), want) {
		t.Errorf("it was told\n%s\nwant\n%s", b, want)
	}
	if l, ok := p.Leases.ByMAC("far", mac(8)); !ok || l.Addr != addr("10.9.0.100") {
		t.Errorf("the lease is %+v", l)
	}
}
