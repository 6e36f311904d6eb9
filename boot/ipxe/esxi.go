package ipxe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"bootd/boot"
)

// Installs remembers on stable storage on which machines a system has been
// installed, and which are to be installed anew.
type Installs interface {
	State(boot.MAC) boot.InstallState
	// Done notes that a boot has installed the system. It ends the order that
	// the boot carried out.
	Done(ctx context.Context, mac boot.MAC, bootID string) error
}

// esxiTicketLife is the least time that an installer has until it fetches its
// ks.cfg: it loads half a gigabyte before, by firmware that may be slow.
const esxiTicketLife = time.Hour

// The machine's own files, below /esxi/<ticket>/.
const (
	bootCfgFile   = "boot.cfg"
	kickstartFile = "ks.cfg"
	pxelinuxFile  = "pxelinux.cfg"
)

// esxiScript answers /ipxe for a machine on which ESXi is installed, or is going
// to be.
func (h *Handler) esxiScript(q request, a boot.Assignment, img boot.Image) answer {
	if h.Installs == nil || img.ESXi == nil {
		return h.wait(q, a.Inventory, a.Name+": this bootd does not install ESXi.")
	}
	state := h.Installs.State(a.Inventory.MAC)
	yes, why := state.Installs(a)
	if !yes {
		h.Log.Debug("boots from its disk", "mac", a.Inventory.MAC, "machine", a.Name, "reason", why)
		return h.localDisk(q, a)
	}
	p := ESXiParams{Base: q.base, Assignment: a, Image: img, Ordered: state.Ordered}
	// Everything that it will ask for is made once before it begins to load.
	if err := p.check(); err != nil {
		h.Log.Warn("machine cannot boot", "mac", a.Inventory.MAC, "machine", a.Name, "err", err)
		return h.wait(q, a.Inventory, err.Error())
	}
	now := time.Now()
	tl, err := h.Boots.Commit(q.Context(), boot.Event{
		Time: now, MAC: a.Inventory.MAC, Stage: boot.Script, Client: boot.IPXE, Addr: q.addr, Run: q.run, Inventory: a.Inventory,
		Text: "profile " + a.Profile.Name + ", installs " + img.Name + " " + img.Version,
	})
	if err != nil {
		h.Log.Error("script withheld: the boot cannot be recorded", "mac", a.Inventory.MAC, "machine", a.Name, "err", err)
		return script200(Wait(q.base, "bootd cannot record this boot; its log says why."))
	}
	p.Ticket = h.Tickets.Boot(tl.ID, tl.MAC, ticketFrom(a.Network, q.addr), now.Add(max(h.TicketLife, esxiTicketLife)))
	body, err := ESXiScript(p)
	if err != nil {
		return h.wait(q, a.Inventory, err.Error())
	}
	return script200(body)
}

// esxiFile answers /esxi/<ticket>/boot.cfg, ks.cfg and pxelinux.cfg.
func (h *Handler) esxiFile(q request, ticket, file string) answer {
	tl, deny := h.admit(q, ticket, file)
	if deny != nil {
		return *deny
	}
	a, err := h.Assign(h.inventory(tl.MAC, q.addr))
	var p ESXiParams
	if err == nil {
		p, err = h.esxiParams(q, tl, a)
		p.Ticket = ticket
	}
	var body []byte
	if err == nil {
		body, err = map[string]func(ESXiParams) ([]byte, error){
			bootCfgFile: BootCfg, kickstartFile: Kickstart, pxelinuxFile: PXELinuxCfg,
		}[file](p)
	}
	e := boot.Event{MAC: tl.MAC, Boot: tl.ID, Client: boot.Initramfs, Addr: q.addr, Time: time.Now(), Stage: boot.Kickstart}
	if err != nil {
		h.Log.Error("file for the installer of ESXi cannot be made", "file", file, "mac", tl.MAC, "machine", a.Name, "err", err)
		e.Stage, e.Text = boot.Failed, file+": "+err.Error()
		h.Boots.Record(e)
		return text(http.StatusServiceUnavailable, "bootd cannot make this file now; its log says why")
	}
	ans := answer{status: http.StatusOK, kind: typeText, body: body}
	if file != kickstartFile || q.head {
		return ans
	}
	h.assigned(a)
	// It is noted first: that a system was installed is believed only of a
	// machine that had its ks.cfg.
	e.Text, e.Bytes = "ks.cfg by URL", int64(len(body))
	if _, err := h.Boots.Commit(q.Context(), e); err != nil {
		h.Log.Error("ks.cfg withheld: the boot cannot be recorded", "mac", tl.MAC, "machine", a.Name, "err", err)
		return text(http.StatusServiceUnavailable, "bootd cannot record this boot; its log says why")
	}
	return ans
}

// esxiParams is what is known when a machine in boot tl asks for one of its
// files.
func (h *Handler) esxiParams(q request, tl boot.Timeline, a boot.Assignment) (ESXiParams, error) {
	if a.Profile == nil || h.Installs == nil {
		return ESXiParams{}, errors.New("its profile was taken away since it got its script")
	}
	img, ok := h.Image(a.Profile.Image, cpuOf(a.Inventory))
	if !ok || img.ESXi == nil {
		return ESXiParams{}, fmt.Errorf("its profile %s has been changed to image %q since it got its script", a.Profile.Name, a.Profile.Image)
	}
	return ESXiParams{
		Base: q.base, Assignment: a, Image: img, Ordered: h.Installs.State(tl.MAC).Ordered,
		ReportURL: q.base + "/report/" + h.Tickets.Report(tl.ID, tl.MAC),
	}, nil
}

// installedBy reports whether t is of the boot that installed the machine's
// system, which may report later, from the disk.
func (h *Handler) installedBy(t boot.Ticket) bool {
	if h.Installs == nil {
		return false
	}
	id := h.Installs.State(t.MAC).Boot
	return id != "" && t.Of(id)
}

// installed notes that the system is on the machine's disk, if the report says
// so. t is of the boot tl: either that says it, or the system itself from the
// disk, if what the installer said has been lost.
func (h *Handler) installed(ctx context.Context, tl boot.Timeline, stage boot.Stage) error {
	installer := tl.Has(boot.Kickstart)
	switch {
	case stage == boot.Installed && (h.Installs == nil || !installer):
		return errNoInstaller
	case stage == boot.Installed, stage == boot.Up && installer && h.Installs != nil && !tl.Has(boot.Installed):
		return h.Installs.Done(ctx, tl.MAC, tl.ID)
	}
	return nil
}

// errNoInstaller says that a machine reports an installation that did not begin.
var errNoInstaller = errors.New("this boot installs nothing")

// ESXiParams say how ESXi is installed on a machine.
type ESXiParams struct {
	Base       string // root of bootd's URLs: http://10.0.0.1
	Assignment boot.Assignment
	Image      boot.Image // of the family ESXi
	Ticket     string     // for boot.cfg and ks.cfg; a URL-safe text
	Ordered    bool       // somebody asked for it, so what is on the disk may go
	ReportURL  string     // where the machine reports; ks.cfg only
}

func (p ESXiParams) own(file string) string { return p.Base + "/esxi/" + p.Ticket + "/" + file }

// host is what the profile says of ESXi.
func (p ESXiParams) host() boot.Host {
	if p.Assignment.Profile.Host == nil {
		return boot.Host{}
	}
	return *p.Assignment.Profile.Host
}

// nic is the card that the host is managed through.
func (p ESXiParams) nic() string {
	if n := p.host().NIC; n != "" {
		return n
	}
	return p.Assignment.Inventory.MAC.String()
}

// check makes everything that the machine will ask for.
func (p ESXiParams) check() error {
	p.Ticket = strings.Repeat("x", 64) // as long as any
	p.ReportURL = p.Base + "/report/" + p.Ticket
	for _, f := range []func(ESXiParams) ([]byte, error){ESXiScript, BootCfg, Kickstart} {
		if _, err := f(p); err != nil {
			return err
		}
	}
	return nil
}

// ESXiScript is the script that starts the installer: by mboot.efi under UEFI;
// under BIOS by mboot.c32, which iPXE starts itself if it was built with COMBOOT,
// or else by pxelinux.0, if the image has it.
func ESXiScript(p ESXiParams) ([]byte, error) {
	a, m := p.Assignment, p.Image.ESXi
	var b bytes.Buffer
	say(&b, "%s: profile %s, installs %s %s", a.Name, a.Profile.Name, p.Image.Name, p.Image.Version)
	fmt.Fprintln(&b, "imgfree ||")
	switch efi := a.Inventory.Arch.EFI(); {
	case efi && a.Inventory.Arch.CPU() != p.Image.CPU || a.Inventory.Arch == boot.EFIIA32 || a.Inventory.Arch == boot.HTTPIA32:
		return nil, fmt.Errorf("image %s %s does not boot under %s", p.Image.Name, p.Image.Version, a.Inventory.Arch)
	case efi && m.EFI == nil:
		return nil, fmt.Errorf("image %s %s has no loader for UEFI: its medium has no EFI/BOOT/BOOTX64.EFI", p.Image.Name, p.Image.Version)
	case efi:
		fmt.Fprintf(&b, "kernel %s -c %s || goto failed\nboot || goto failed\n", assetURL(p.Base, *m.EFI), p.own(bootCfgFile))
	case m.BIOS == nil:
		return nil, fmt.Errorf("image %s %s boots by UEFI only: its medium has no mboot.c32; set the firmware of %s to UEFI", p.Image.Name, p.Image.Version, a.Name)
	default:
		fmt.Fprintf(&b, "kernel %s -c %s || goto pxelinux\nboot || goto pxelinux\n:pxelinux\nimgfree ||\n", assetURL(p.Base, *m.BIOS), p.own(bootCfgFile))
		if m.PXELinux == nil {
			say(&b, "This iPXE cannot start mboot.c32. Import the image again with pxelinux.0 of syslinux 3.86 beside the ISO, or boot by UEFI.")
			break
		}
		// Options 209 and 210 (RFC 5071) are passed on in the DHCP answer that
		// iPXE keeps for what it starts.
		fmt.Fprintf(&b, "set 209:string esxi/%s/%s\nset 210:string %s/\nchain %s || goto failed\n",
			p.Ticket, pxelinuxFile, p.Base, assetURL(p.Base, *m.PXELinux))
	}
	fmt.Fprintln(&b, ":failed")
	say(&b, "%s did not boot. What is above says why.", a.Name)
	fmt.Fprintln(&b, "imgfree ||")
	return again(&b, p.Base), nil
}

// PXELinuxCfg is the configuration of pxelinux, version 3.86. Its paths are
// relative to option 210; an absolute one would be too long for it with a long
// address, at 127 characters.
func PXELinuxCfg(p ESXiParams) ([]byte, error) {
	m := p.Image.ESXi
	if m.BIOS == nil {
		return nil, errors.New("the image has no mboot.c32")
	}
	return fmt.Appendf(nil, "DEFAULT esxi\nNOHALT 1\nLABEL esxi\n  KERNEL %s\n  APPEND -c %s\n  IPAPPEND 2\n",
		assetURL("", *m.BIOS)[1:], p.own(bootCfgFile)), nil
}

// BootCfg is the machine's boot.cfg. mboot joins prefix and each file's path
// with a slash (esx-boot, bootlib/string.c, make_path), so the paths are digest
// and name. What runs them goes by the last part of a path.
func BootCfg(p ESXiParams) ([]byte, error) {
	m := p.Image.ESXi
	opts, err := kernelOptions(p)
	if err != nil {
		return nil, fmt.Errorf("cannot boot profile %s: %w", p.Assignment.Profile.Name, err)
	}
	path := func(f boot.ImageFile) string { return f.SHA256 + "/" + f.Name }
	var b bytes.Buffer
	fmt.Fprintf(&b, "bootstate=0\ntitle=%s\n", m.Title)
	for _, s := range m.Settings {
		fmt.Fprintf(&b, "%s=%s\n", s.Key, s.Value)
	}
	fmt.Fprintf(&b, "prefix=%s/assets/sha256\nkernel=%s\nkernelopt=%s\n", p.Base, path(p.Image.Kernel), opts)
	mods := make([]string, len(p.Image.Initrds))
	for i, f := range p.Image.Initrds {
		mods[i] = path(f)
		if o := m.ModuleOptions[f.Name]; o != "" {
			mods[i] += " " + o
		}
	}
	fmt.Fprintf(&b, "modules=%s\n", strings.Join(mods, " --- "))
	if m.Crypto != nil {
		fmt.Fprintf(&b, "crypto=%s\n", path(*m.Crypto))
	}
	return b.Bytes(), nil
}

// kernelOptions are the options for the installer: where its ks.cfg is, and how
// it gets there. What the profile says in args comes last.
func kernelOptions(p ESXiParams) (string, error) {
	m, a := p.Image.ESXi, p.Assignment
	opts := strings.Fields(m.KernelOpt)
	if !strings.Contains(" "+m.KernelOpt+" ", " runweasel ") {
		opts = append(opts, "runweasel")
	}
	opts = append(opts, "ks="+p.own(kickstartFile), "netdevice="+p.nic())
	static, err := a.StaticAddr()
	switch {
	case err != nil:
		return "", err
	case static.IsValid():
		opts = append(opts, "ip="+static.Addr().String(), "netmask="+netmask(static))
		if a.Network.Router.IsValid() {
			opts = append(opts, "gateway="+a.Network.Router.String())
		}
		if len(a.Network.DNS) > 0 {
			opts = append(opts, "nameserver="+a.Network.DNS[0].String())
		}
	default:
		opts = append(opts, "bootproto=dhcp")
	}
	if v := p.host().VLAN; v != 0 {
		opts = append(opts, fmt.Sprintf("vlanid=%d", v))
	}
	for _, arg := range a.Profile.Args {
		w, err := words(arg, "args")
		if err != nil {
			return "", err
		}
		opts = append(opts, w...)
	}
	return strings.Join(opts, " "), nil
}

// netmask writes a prefix's length as 255.255.255.0.
func netmask(p netip.Prefix) string {
	return net.IP(net.CIDRMask(p.Bits(), 32)).String()
}
