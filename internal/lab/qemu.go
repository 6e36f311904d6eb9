package lab

import (
	"fmt"
	"strconv"
)

// The firmware of UEFI machines: Debian's package ovmf. The variables of that
// with Secure Boot hold Microsoft's keys.
const (
	ovmfCode       = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars       = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	ovmfSecureCode = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	ovmfSecureVars = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
)

// ovmf is the firmware of a UEFI machine, and what its variables are at first.
func (f Firmware) ovmf() (code, vars string) {
	if f == UEFISecure {
		return ovmfSecureCode, ovmfSecureVars
	}
	return ovmfCode, ovmfVars
}

// The ways to run machines.
const (
	TCG = "tcg" // emulation: slow, and works everywhere
	KVM = "kvm" // some hosts have /dev/kvm and still crash the guests
)

const qemuBinary = "qemu-system-x86_64"

// hardware is what of a machine belongs to the host.
type hardware struct {
	accel   string
	tap     string
	console string // file
	qmp     string // socket
	vars    string // file with the UEFI variables
}

// arguments is QEMU's command line for a machine.
func (m Machine) arguments(h hardware) []string {
	accel, cpu := "kvm", "host"
	if h.accel != KVM {
		// Debian's kernel does not start with an emulated five-level page table.
		accel, cpu = "tcg,thread=multi,tb-size=512", "max,la57=off"
	}
	args := []string{
		qemuBinary, "-name", m.Name, "-accel", accel, "-cpu", cpu,
		"-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.Memory),
		"-nographic", "-nodefaults", "-no-user-config", "-vga", "none",
		"-chardev", "file,id=console,path=" + h.console, "-serial", "chardev:console",
		"-qmp", "unix:" + h.qmp + ",server=on,wait=off",
		"-uuid", m.UUID,
		"-smbios", fmt.Sprintf("type=1,manufacturer=%s,product=%s,serial=%s", option(m.Manufacturer), option(m.Product), option(m.Serial)),
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
		"-netdev", "tap,id=net,ifname=" + h.tap + ",script=no,downscript=no",
	}
	nic := fmt.Sprintf("%s,netdev=net,mac=%s,bootindex=1", m.NIC, m.MAC)
	if m.Firmware == BIOS {
		// The card's ROM is QEMU's iPXE. When it finds nothing to boot it is
		// started again, as a rack's machines are by their watchdog.
		return append(args, "-machine", "pc", "-device", nic, "-boot", "reboot-timeout=2000")
	}
	machine := "q35"
	if m.Firmware == UEFISecure {
		// Only the firmware, in system management mode, may change its variables.
		machine = "q35,smm=on"
		args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	code, _ := m.Firmware.ovmf()
	args = append(args, "-machine", machine,
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+code,
		"-drive", "if=pflash,unit=1,format=raw,file="+h.vars,
		"-device", nic+",romfile=") // without a ROM, OVMF uses its own drivers and its own PXE
	if m.Firmware == UEFIHTTP {
		args = append(args,
			"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n",
			"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n")
	}
	return args
}

// option writes a value so that QEMU's option parser takes it whole.
func option(s string) string {
	var b []rune
	for _, r := range s {
		if r == ',' {
			b = append(b, ',')
		}
		b = append(b, r)
	}
	return string(b)
}
