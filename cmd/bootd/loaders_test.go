package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
)

// TestOtherLoaders boots a machine by U-Boot and one by shim and GRUB, from their
// first packet to their config, with everything by TFTP that they fetch that way.
func TestOtherLoaders(t *testing.T) {
	port := freePort(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"bootd.yaml": fmt.Sprintf(`
networks:
  - {interface: bootd-test0, name: rack, subnet: 127.0.1.0/24, server: 127.0.1.1, range: 127.0.1.100-127.0.1.200}
state_dir: state
http: {port: %[1]d}
tftp: {port: %[1]d, root: tftpboot}
loaders: loaders
api: {socket: bootd.sock}
images: {lab: {path: image}, arm: {path: arm}}
`, port),
		"profiles/worker.yaml": "name: worker\nimage: lab\nloader: grub\n",
		"profiles/board.yaml":  "name: board\nimage: arm\n",
		"machines/rack.yaml": `
- {name: secure, mac: "52:54:00:00:00:01", profile: worker, ip: 127.0.1.11}
- {name: board, mac: "52:54:00:00:00:02", profile: board, ip: 127.0.1.12}
`,
		"image/lab-1-live-kernel.x86_64":        string(kernelFor("x86_64")),
		"image/lab-1-live-initramfs.x86_64.img": "initramfs",
		"image/lab-1-live-rootfs.x86_64.img":    "rootfs",
		"arm/lab-1-live-kernel.aarch64":         string(kernelFor("aarch64")),
		"arm/lab-1-live-initramfs.aarch64.img":  "initramfs of the board",
		"arm/lab-1-live-rootfs.aarch64.img":     "rootfs",
		"loaders/undionly.kpxe":                 string(nbp()),
		"loaders/shimx64.efi.signed":            string(signedEFI("shim")),
		"loaders/grubnetx64.efi.signed":         string(signedEFI("GRUB")),
		"tftpboot/pxelinux.cfg/default":         "of the operator",
	})
	w := startWired(t, dir)
	eventuallyTrue(t, func() bool {
		s, err := w.operator.Status(t.Context())
		return err == nil && len(s.Images) == 2 && s.Images[0].Version != "" && s.Images[1].Version != ""
	})
	at := fmt.Sprintf("127.0.1.1:%d", port)
	steps := func(name string) (out []string) {
		got, err := w.operator.Machine(t.Context(), name)
		if err != nil || got.Boot == nil {
			return nil
		}
		for _, s := range got.Boot.Steps {
			out = append(out, strings.TrimSpace(string(s.Stage)+" "+string(s.Client)))
		}
		return out
	}
	does := func(name, step string, f func()) {
		t.Helper()
		f()
		eventuallyTrue(t, func() bool { return slices.Contains(steps(name), step) })
	}
	config := func(m *machine, script string) func() {
		return func() {
			t.Helper()
			if c := m.get(find(t, `ignition\.config\.url=(http://[^\s']+)`, script)); !strings.Contains(c, `"ignition"`) {
				t.Errorf("a config:\n%s", c)
			}
		}
	}

	secure := &machine{t: t, mac: boot.MAC{0x52, 0x54, 0, 0, 0, 1}, dhcp: w.cable.exchange}
	does("secure", "leased firmware", func() {
		ack := secure.lease(dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")))
		if ack.BootFileName != "shimx64.efi" {
			t.Errorf("boot file %q", ack.BootFileName)
		}
	})
	for name, want := range map[string]string{"shimx64.efi": "shim", "grubx64.efi": "GRUB"} {
		if got := secure.tftp(at, name); string(got) != string(signedEFI(want)) {
			t.Errorf("%s has %d bytes", name, len(got))
		}
	}
	eventuallyTrue(t, func() bool { // both are on record before GRUB asks, as with a real one
		return slices.Equal(steps("secure"), []string{"offered firmware", "leased firmware", "loader firmware", "loader firmware"})
	})
	first := string(secure.tftp(at, "/grub/grub.cfg"))
	run := find(t, `&run=([A-Z0-9]+)&`, first)
	var script string
	does("secure", "script GRUB", func() {
		script = string(secure.tftp(at, "/grub?mac="+secure.mac.String()+"&run="+run+"&cpu=x86_64&platform=efi&buildarch=x86_64&serial=A%20B"))
	})
	does("secure", "kernel GRUB", func() {
		if got := secure.tftp(at, find(t, `linux '\(tftp,127\.0\.1\.1\)([^']+)'`, script)); string(got) != string(kernelFor("x86_64")) {
			t.Errorf("the kernel has %d bytes", len(got))
		}
	})
	does("secure", "initrd GRUB", func() {
		if got := secure.tftp(at, find(t, `initrd '\(tftp,127\.0\.1\.1\)([^']+)'`, script)); string(got) != "initramfs" {
			t.Errorf("the initramfs is %q", got)
		}
	})
	does("secure", "ignition initramfs", config(secure, script))
	want := []string{"offered firmware", "leased firmware", "loader firmware", "loader firmware", "script GRUB", "kernel GRUB", "initrd GRUB", "ignition initramfs"}
	if d := cmp.Diff(want, steps("secure")); d != "" {
		t.Errorf("steps of GRUB's boot (-want +got):\n%s", d)
	}
	if m, err := w.operator.Machine(t.Context(), "secure"); err != nil || m.Inventory.Serial != "A B" {
		t.Errorf("its serial number is %q, %v", m.Inventory.Serial, err)
	}

	board := &machine{t: t, mac: boot.MAC{0x52, 0x54, 0, 0, 0, 2}, dhcp: w.cable.exchange}
	does("board", "leased firmware", func() {
		if ack := board.lease(dhcpv4.WithOption(dhcpv4.OptClassIdentifier("U-Boot.armv8"))); ack.BootFileName != "" || !ack.ServerIPAddr.IsLoopback() {
			t.Errorf("boot file %q at %s", ack.BootFileName, ack.ServerIPAddr)
		}
	})
	does("board", "script firmware", func() { script = string(board.tftp(at, "pxelinux.cfg/01-52-54-00-00-00-02")) })
	does("board", "kernel firmware", func() {
		if got := board.tftp(at, find(t, `(?m)^KERNEL (.*)$`, script)); string(got) != string(kernelFor("aarch64")) {
			t.Errorf("the kernel has %d bytes", len(got))
		}
	})
	does("board", "initrd firmware", func() {
		if got := board.tftp(at, find(t, `(?m)^INITRD (.*)$`, script)); string(got) != "initramfs of the board" {
			t.Errorf("the initramfs is %q", got)
		}
	})
	does("board", "ignition initramfs", config(board, script))
	want = []string{"offered firmware", "leased firmware", "script firmware", "kernel firmware", "initrd firmware", "ignition initramfs"}
	if d := cmp.Diff(want, steps("board")); d != "" {
		t.Errorf("steps of U-Boot's boot (-want +got):\n%s", d)
	}
	if got := board.tftp(at, "pxelinux.cfg/default"); string(got) != "of the operator" {
		t.Errorf("the operator's file is %q", got)
	}
}

// signedEFI is a program for UEFI on x64 with a certificate table.
func signedEFI(name string) []byte {
	const x64 = 0x8664
	b := efi(x64, name)
	copy(b[0x98:], "\x0b\x02")
	copy(b[0x128:], "\x00\x02\x00\x00\x10\x00\x00\x00")
	return b
}
