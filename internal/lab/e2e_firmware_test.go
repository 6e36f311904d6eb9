//go:build e2e

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bootd/internal/lab"
)

// single is a lab with one machine, called m, which boots the live image and joins
// nothing. profile is what else its profile says, config what else bootd.yaml does.
func single(t *testing.T, name string, firmware lab.Firmware, profile, config string) lab.Lab {
	t.Helper()
	image(t)
	l, err := lab.New(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"lab.yaml":        fmt.Sprintf("network: 10.77.0.1/24\nmachines:\n  - {name: m, mac: %q, firmware: %s}\n", singleMAC, firmware),
		"machines/m.yaml": fmt.Sprintf("- {name: m, mac: %q, profile: p, ip: 10.77.0.11}\n", singleMAC),
		"profiles/p.yaml": "name: p\nimage: lab\nconsole: [\"ttyS0,115200n8\"]\nargs:\n  - " + strings.ReplaceAll(strings.TrimPrefix(kernelArgs, "console=ttyS0,115200n8 "), " ", "\n  - ") + "\n" + profile,
		"bootd.yaml": "networks:\n  - {interface: br0, subnet: 10.77.0.0/24, range: 10.77.0.100-10.77.0.199}\n" +
			"images:\n  lab: {family: fedora-coreos, path: " + lab.ImageDir + "}\n" +
			"state_dir: " + filepath.Join(dir, "state") + "\napi: {socket: " + l.Socket() + "}\n" + config,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	program := bootd(t)
	return open(t, name, "", lab.Options{
		Config: dir,
		Server: func(_ lab.Lab, config string) []string { return []string{program, "serve", "-c", config} },
	})
}

const singleMAC = "52:54:00:77:00:51"

// up powers the machine on, follows it until its system is up, and returns what
// bootd has on record of that boot.
func up(t *testing.T, l lab.Lab) string {
	t.Helper()
	watch(t, l, "m", "switch root")
	record := ""
	wait(t, patience, "the machine's system is up", func() bool {
		record = operator(t, l, "machine", "show", "m")
		return upLine.MatchString(record)
	})
	t.Logf("\n%s", record)
	return record
}

var upLine = regexp.MustCompile(`(?m)^\+\S+ +up `)

// said reads the machine's console.
func said(t *testing.T, l lab.Lab) string {
	t.Helper()
	b, err := os.ReadFile(l.Console("m"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSecureBoot boots a machine that starts only what is signed: by shim and GRUB
// from Debian's packages to the live image, whose kernel is Debian's. That one locks
// itself down.
func TestSecureBoot(t *testing.T) {
	l := single(t, "secure", lab.UEFISecure, `loader: grub
units:
  - name: lockdown.service
    enabled: true
    contents: |
      [Service]
      Type=oneshot
      ExecStart=/bin/sh -c 'echo "lockdown: $(cat /sys/kernel/security/lockdown)" >/dev/ttyS0'
      [Install]
      WantedBy=multi-user.target
`, "")
	record := up(t, l)
	for _, want := range []string{"shimx64.efi", "grubx64.efi", "GRUB, profile p, image lab"} {
		if !strings.Contains(record, want) {
			t.Errorf("there is no %q on record", want)
		}
	}
	wait(t, patience, "the machine has said whether its kernel is locked down", func() bool { return strings.Contains(said(t, l), "lockdown: ") })
	if !strings.Contains(said(t, l), "[integrity]") {
		t.Error("the kernel is not locked down, so Secure Boot was not on")
	}
}

// TestHTTPBoot boots a machine whose firmware fetches its loader by HTTP.
func TestHTTPBoot(t *testing.T) {
	l := single(t, "http", lab.UEFIHTTP, "", "")
	record := up(t, l)
	for _, want := range []string{"snponly.efi by HTTP", "iPXE, profile p, image lab"} {
		if !strings.Contains(record, want) {
			t.Errorf("there is no %q on record", want)
		}
	}
}

// chassis is the program by which OpenIPMI's BMC switches its machine: it presses the
// lab's buttons. It notes in the file orders what it was told.
const chassis = `#!/bin/sh
cd %[1]s || exit 1
press() { %[2]s lab power "$1" m --name %[3]s >>log 2>&1; }
op=$1; shift
case $op in
check) exit 0 ;;
get)
	while [ $# -gt 0 ]; do
		case $1 in
		power) if %[2]s lab status --name %[3]s | grep -q '^m .* on '; then echo power:1; else echo power:0; fi ;;
		boot) echo "boot:$(cat boot 2>/dev/null || echo default)" ;;
		*) exit 1 ;;
		esac
		shift
	done ;;
*)
	while [ $# -gt 1 ]; do
		echo "$1 $2" >>orders
		case "$1 $2" in
		"power 1") press on ;;
		"power 0") press off ;;
		"reset "*) press cycle ;;
		"boot "*) echo "$2" >boot ;;
		esac
		shift 2
	done ;;
esac
exit 0
`

const lanConf = `name "m"
set_working_mc 0x20
  startlan 1
    addr 10.77.0.201 623
    priv_limit admin
    allowed_auths_callback md5
    allowed_auths_user md5
    allowed_auths_operator md5
    allowed_auths_admin md5
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "%[1]s/chassis"
  user 1 false "" "" user 10 md5
  user 2 true "admin" "secret" admin 10 md5
`

// startBMC gives the lab's machine a BMC on the lab's network. It returns the
// directory with the file orders.
func startBMC(t *testing.T, l lab.Lab) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"chassis":  fmt.Sprintf(chassis, dir, bootd(t), l.Name()),
		"lan.conf": fmt.Sprintf(lanConf, dir),
		"m.emu":    "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "-n", l.Netns(), "addr", "add", "10.77.0.201/32", "dev", lab.Bridge).CombinedOutput(); err != nil {
		t.Fatalf("ip: %v: %s", err, out)
	}
	answers := func(ctx context.Context) bool {
		return exec.CommandContext(ctx, "ip", "netns", "exec", l.Netns(),
			"ipmitool", "-I", "lanplus", "-H", "10.77.0.201", "-U", "admin", "-P", "secret", "-N", "1", "-R", "1", "mc", "info").Run() == nil
	}
	if err := l.Start(t.Context(), filepath.Join(l.RunDir(), "ipmi.log"), answers,
		"ipmi_sim", "-n", "-c", dir+"/lan.conf", "-f", dir+"/m.emu", "-s", dir+"/state"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestIPMI has bootd switch a machine through its BMC: on, from the network, until
// its system is up; off and on; off.
func TestIPMI(t *testing.T) {
	password := filepath.Join(t.TempDir(), "bmc.password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := single(t, "ipmi", lab.BIOS, "", "power: {ipmi: 10.77.0.201, user: admin, password_file: "+password+"}\n")
	dir := startBMC(t, l)
	power := func(want string, args ...string) {
		t.Helper()
		if out := operator(t, l, append([]string{"machine", "power"}, args...)...); !regexp.MustCompile(`(?m)^m +` + want).MatchString(out) {
			t.Errorf("power %v says, not %s:\n%s", args, want, out)
		}
	}
	power("off ", "status", "m")
	power("on +off +ipmi .* boots next from pxe", "on", "m", "--boot", "pxe")
	if !status(t, l, "m").On {
		t.Fatal("the machine is off")
	}
	first := up(t, l)
	if !strings.Contains(first, "switched on by ipmi") {
		t.Error("there is nothing on record of who switched it on")
	}
	power("on ", "status", "m")
	before := status(t, l, "m").PID
	power("on +on +ipmi", "cycle", "m", "--yes")
	if now := status(t, l, "m"); !now.On || now.PID == before {
		t.Errorf("after the cycle: %+v", now)
	}
	wait(t, patience, "it boots again", func() bool {
		now := operator(t, l, "machine", "show", "m")
		return bootOf(now) != bootOf(first) && strings.Contains(now, "power-cycled by ipmi") && strings.Contains(now, "iPXE, profile p, image lab")
	})
	power("off +on +ipmi", "off", "m", "--yes")
	if status(t, l, "m").On {
		t.Error("the machine is on")
	}
	power("off ", "status", "m")
	orders, err := os.ReadFile(filepath.Join(dir, "orders"))
	if err != nil || !strings.HasPrefix(string(orders), "boot pxe\npower 1\n") {
		t.Errorf("the BMC was told %q, %v", orders, err)
	}
}

// bootOf finds the ID of the boot that is shown.
func bootOf(record string) string { return regexp.MustCompile(`(?m)^boot (\S+),`).FindString(record) }
