//go:build e2e

package lab_test

import (
	"errors"
	"fmt"
	"os"
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
