package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ImageDir is where the live image is kept by default. It outlives labs.
const ImageDir = "/var/cache/bootd-lab/image"

// A Requirement is something of the host that the lab uses.
type Requirement struct {
	Needs   string // a program's name, or a file's path
	Package string // of Debian and Ubuntu
	For     string // what it is used for
	Tests   bool   // only the end-to-end tests use it
}

// Requirements lists all that the lab uses of the host.
func Requirements() []Requirement {
	return []Requirement{
		{qemuBinary, "qemu-system-x86", "the machines", false},
		{"/usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu", "the BIOS machines' network boot", false},
		{ovmfCode, "ovmf", "the UEFI machines' firmware", false},
		{"/usr/lib/ipxe/snponly.efi", "ipxe", "the loader that UEFI machines fetch", false},
		{"dockerd", "docker.io", "the swarm manager's engine", false},
		{"docker", dockerClient, "looking at the swarm", false},
		{"iptables", "iptables", "the engine's networks", false},
		{"ip", "iproute2", "entering the lab's network", false},
		{"ssh", "openssh-client", "shells on the machines", false},
		{"mmdebstrap", "mmdebstrap", "the live image's root file system", false},
		{"mksquashfs", "squashfs-tools", "the live image's root file system", false},
		{"cpio", "cpio", "the live image's initramfs", false},
		{"zstd", "zstd", "the live image's initramfs", false},
		{"xz", "xz-utils", "unpacking kernel modules", false},
		{"modprobe", "kmod", "choosing kernel modules", false},
		{"dnsmasq", "dnsmasq-base", "the boot server that bootd is compared with", true},
		{"nginx", "nginx-light", "the same", true},
		{"promtool", "prometheus", "alerts of Prometheus", true},
		{"nft", "nftables", "firewalls that the doctor looks at", true},
		{"busybox", "busybox-static", "its DHCP client, and its shell for what runs on nodes", true},
		{"curl", "curl", "its TFTP and HTTP client, and what runs on nodes", true},
		{"atftp", "atftp", "a TFTP client that asks for windows", true},
		{"tftp", "tftp-hpa", "a TFTP client", true},
		{"gpg", "gnupg", "signing images as their makers do", true},
		{"ipmi_sim", "openipmi", "BMCs that bootd switches machines by", true},
		{"ipmitool", "ipmitool", "the same", true},
		{"/usr/lib/shim/shimx64.efi.signed", "shim-signed", "a machine with Secure Boot", true},
		{"/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "grub-efi-amd64-signed", "the same", true},
		{"shellcheck", "shellcheck", "what runs on nodes", true},
		{"systemd-nspawn", "systemd-container", "a system that the package is installed in", true},
	}
}

// Missing lists the packages, in order, that bring what the host lacks. With
// tests it also counts what only the end-to-end tests need. Installing them is
// left to the caller; none needs what it merely recommends.
func Missing(tests bool) []string {
	osr, err := osRelease()
	if err != nil {
		osr = nil // another distribution: its packages may be called the same
	}
	return missing(osr, tests, present)
}

func missing(osr map[string]string, tests bool, present func(string) bool) []string {
	var list []string
	for _, r := range Requirements() {
		if (tests || !r.Tests) && !present(r.Needs) {
			list = append(list, r.Package)
		}
	}
	if !separateClient(osr) {
		for i, p := range list {
			if p == dockerClient {
				list[i] = "docker.io"
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

const dockerClient = "docker-cli"

// separateClient reports whether Docker's client has a package of its own: in
// Debian since 13, not in Ubuntu.
func separateClient(osr map[string]string) bool {
	v, err := strconv.Atoi(osr["VERSION_ID"])
	return osr["ID"] == "debian" && err == nil && v >= 13
}

// present looks for a file, or for a program. Programs for root are found
// even if the caller's PATH lacks their directories.
func present(needs string) bool {
	if strings.HasPrefix(needs, "/") {
		_, err := os.Stat(needs)
		return err == nil
	}
	if _, err := exec.LookPath(needs); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, needs)); err == nil {
			return true
		}
	}
	return false
}
