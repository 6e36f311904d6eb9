package boot

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ESXi is the family of VMware ESXi installers: Kernel is the first file that
// the loader mboot starts (b.b00), Initrds are its modules in their order, and
// Image.ESXi says the rest. The system is installed on a disk, once, and boots
// from there afterwards.
const ESXi Family = "esxi"

// Kickstart is the stage in which an installer fetched its ks.cfg.
const Kickstart Stage = "kickstart"

// Installed is the stage in which an installer has reported that the system is
// on the disk. Both lie between Ignition and Up.
const Installed Stage = "installed"

// An ESXiMedium is what an image of the family [ESXi] has besides its kernel and
// modules, as the boot.cfg of the installation medium says.
type ESXiMedium struct {
	Title     string `json:"title,omitempty"`
	KernelOpt string `json:"kernelopt,omitempty"` // without what is only right for a CD
	// Settings are the further keys of boot.cfg that are taken over as they are.
	Settings []ESXiSetting `json:"settings,omitempty"`
	// ModuleOptions are what follows a module's name, for the few that have it.
	ModuleOptions map[string]string `json:"module_options,omitempty"`

	EFI      *ImageFile `json:"efi,omitempty"`      // mboot for UEFI; nil: boots by BIOS only
	BIOS     *ImageFile `json:"bios,omitempty"`     // mboot.c32; nil: boots by UEFI only
	Crypto   *ImageFile `json:"crypto,omitempty"`   // crypto64.efi, which mboot needs for Secure Boot
	PXELinux *ImageFile `json:"pxelinux,omitempty"` // pxelinux.0, which is on no medium of VMware's
}

// An ESXiSetting is a line of boot.cfg.
type ESXiSetting struct {
	Key   string `json:"key"` // lower case
	Value string `json:"value"`
}

// Files lists the files of m, in a fixed order.
func (m *ESXiMedium) Files() []ImageFile {
	if m == nil {
		return nil
	}
	var l []ImageFile
	for _, f := range []*ImageFile{m.EFI, m.BIOS, m.Crypto, m.PXELinux} {
		if f != nil {
			l = append(l, *f)
		}
	}
	return l
}

// A Host is what a profile says of machines on which ESXi is installed. Only the
// hash must be set.
type Host struct {
	// RootPasswordHash is the root password as crypt(3) hashes it: $6$... or
	// $5$...; a password itself is held nowhere.
	RootPasswordHash string
	SSH              *bool    // whether SSH and the shell are on; nil: no
	NTP              []string // time servers; empty: those of the network
	Static           *bool    // the address is set on the host; nil: no, by DHCP
	NIC              string   // management network: vmnic0, or a MAC; empty: the card that booted
	VLAN             int      // of the management network; 0: none
	Disk             string   // --firstdisk as it is in ks.cfg: firstdisk, firstdisk=local,usb; or a device's name or path; empty: firstdisk
	License          string
	Keyboard         string
	FirstBoot        string // shell script for the first boot from the disk
	// Install is when it is installed without being asked for; empty: [InstallOnce].
	Install InstallPolicy
	// VMFS is what becomes of datastores that are on the disk.
	VMFS VMFSPolicy
}

// An InstallPolicy says when a system is installed on a disk.
type InstallPolicy string

// When systems are installed.
const (
	InstallOnce    InstallPolicy = "once"    // on a machine that it was never installed on, and when ordered
	InstallOrdered InstallPolicy = "ordered" // only when ordered
)

// A VMFSPolicy says what an installer does to datastores on the disk.
type VMFSPolicy string

// What becomes of datastores.
const (
	VMFSDefault   VMFSPolicy = ""          // overwritten if the installation was ordered; otherwise the installer refuses
	VMFSPreserve  VMFSPolicy = "preserve"  // always kept
	VMFSOverwrite VMFSPolicy = "overwrite" // always overwritten
)

// hostOrigins are the keys of a Host that have origins of their own.
var hostOrigins = []string{"root_password_hash", "ssh", "ntp", "network", "nic", "vlan", "disk", "license", "keyboard", "firstboot", "install", "vmfs"}

// Extend returns h with what over says laid over it, key by key; lists replace.
func (h Host) Extend(over Host) Host {
	set := func(dst *string, v string) {
		if v != "" {
			*dst = v
		}
	}
	set(&h.RootPasswordHash, over.RootPasswordHash)
	set(&h.NIC, over.NIC)
	set(&h.Disk, over.Disk)
	set(&h.License, over.License)
	set(&h.Keyboard, over.Keyboard)
	set(&h.FirstBoot, over.FirstBoot)
	set((*string)(&h.Install), string(over.Install))
	set((*string)(&h.VMFS), string(over.VMFS))
	for _, b := range []struct{ dst, v **bool }{{&h.SSH, &over.SSH}, {&h.Static, &over.Static}} {
		if *b.v != nil {
			*b.dst = *b.v
		}
		if *b.dst != nil {
			*b.dst = new(**b.dst)
		}
	}
	if len(over.NTP) > 0 {
		h.NTP = over.NTP
	}
	h.NTP = slices.Clone(h.NTP)
	if over.VLAN != 0 {
		h.VLAN = over.VLAN
	}
	return h
}

// layHost lays what from says of ESXi over what is in p.
func (p *Profile) layHost(from Host, take func(key, as string)) {
	was := Host{}
	if p.Host != nil {
		was = *p.Host
	}
	now := was.Extend(from)
	p.Host = &now
	take("esxi", "esxi")
	said := from.explain()
	for _, k := range hostOrigins {
		if said[k] != "" {
			take("esxi."+k, "esxi."+k)
		}
	}
}

// explain is what h says, by the keys of hostOrigins. The hash is not shown: it
// can be tried out against a dictionary.
func (h Host) explain() map[string]string {
	out := map[string]string{
		"ntp": strings.Join(h.NTP, " "), "nic": h.NIC, "disk": h.Disk, "keyboard": h.Keyboard,
		"firstboot": summary(h.FirstBoot, ""), "install": string(h.Install), "vmfs": string(h.VMFS),
	}
	if h.RootPasswordHash != "" {
		out["root_password_hash"] = "(set)"
	}
	if h.License != "" {
		out["license"] = "(set)"
	}
	if h.SSH != nil {
		out["ssh"] = fmt.Sprint(*h.SSH)
	}
	if h.Static != nil {
		out["network"] = map[bool]string{true: "static", false: "dhcp"}[*h.Static]
	}
	if h.VLAN != 0 {
		out["vlan"] = fmt.Sprint(h.VLAN)
	}
	return out
}

// TimeServers are those of h, or else the network's; n may be nil.
func (h Host) TimeServers(n *Network) []string {
	if len(h.NTP) > 0 || n == nil {
		return h.NTP
	}
	var l []string
	for _, a := range n.NTP {
		l = append(l, a.String())
	}
	return l
}

// An InstallState is what is known of the system on a machine's disk.
type InstallState struct {
	// Ordered: it is to be installed, whatever is on the disk.
	Ordered bool
	// Boot is the ID of the boot that last installed it ([Timeline.ID]); empty:
	// never.
	Boot string
}

// Installs reports whether the machine of a is to be installed at this boot,
// and if not, why. A machine that no entry names is not without an order: it
// may be anybody's, with a disk full of data.
func (s InstallState) Installs(a Assignment) (yes bool, why string) {
	policy := InstallOnce
	if h := a.Profile.Host; h != nil && h.Install != "" {
		policy = h.Install
	}
	switch {
	case s.Ordered:
		return true, ""
	case s.Boot != "":
		return false, "ESXi is installed"
	case policy == InstallOrdered:
		return false, "its profile installs ESXi only when that is ordered (bootd machine reinstall)"
	case a.Machine == nil:
		return false, "no entry names it, so ESXi is installed only when that is ordered (bootd machine reinstall)"
	}
	return true, ""
}

// StaticAddr is the address that is set on the host: the one that is kept for
// the machine. The zero Prefix: it asks by DHCP.
func (a Assignment) StaticAddr() (netip.Prefix, error) {
	h := a.Profile.Host
	if h == nil || h.Static == nil || !*h.Static {
		return netip.Prefix{}, nil
	}
	switch {
	case a.Machine == nil || !a.Machine.IP.IsValid():
		return netip.Prefix{}, fmt.Errorf("%s has network: static in profile %s, but no ip in its entry", a.Name, a.Profile.Name)
	case a.Network == nil || !a.Network.Subnet.Contains(a.Machine.IP):
		return netip.Prefix{}, fmt.Errorf("%s: its ip %s is not in the subnet that it boots from", a.Name, a.Machine.IP)
	}
	return netip.PrefixFrom(a.Machine.IP, a.Network.Subnet.Bits()), nil
}

// Has reports whether t has a step of a stage.
func (t *Timeline) Has(s Stage) bool { return t.hasStage(s) }
