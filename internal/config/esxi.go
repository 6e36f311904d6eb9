package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"bootd/boot"
)

var (
	// imported are the images that "bootd asset import" makes of installation
	// media. They are not declared in bootd.yaml.
	imported = regexp.MustCompile(`^esxi/[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

	// What crypt(5) says of SHA-256 and SHA-512.
	passwordHash = regexp.MustCompile(`^\$(5\$(rounds=[0-9]{1,9}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43}|6\$(rounds=[0-9]{1,9}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86})$`)
	vmnic        = regexp.MustCompile(`^vmnic[0-9]{1,3}$`)
	licenseKey   = regexp.MustCompile(`^[0-9A-Z]{5}(-[0-9A-Z]{5}){4}$`)
	keyboard     = regexp.MustCompile(`^[A-Z][A-Za-z]+( [A-Z][A-Za-z]+)*$`)
	// firstdisk with its filter; a path; or a name as in /vmfs/devices/disks.
	installDisk = regexp.MustCompile(`^(firstdisk(=[A-Za-z0-9_,.-]+)?|/vmfs/devices/disks/[A-Za-z0-9_.:-]+|(mpx|naa|eui|t10)\.[A-Za-z0-9_.:-]+)$`)
)

// host reads how ESXi is installed.
func (d *document) host(p *rawProfile, v ast.Node) {
	h := &boot.Host{}
	p.Host = h
	p.Origins["esxi"] = d.origin(v)
	f := d.hostFields(h)
	for key, read := range f {
		f[key] = func(k string, v ast.Node) { p.Origins["esxi."+key] = d.origin(v); read(k, v) }
	}
	d.mapping(v, "esxi", f)
}

// hostFields are the keys of esxi.
func (d *document) hostFields(h *boot.Host) fields {
	match := func(pattern *regexp.Regexp, what, hint string) func(v ast.Node, s string) {
		return func(v ast.Node, s string) {
			if !pattern.MatchString(s) {
				d.wrong(v, fmt.Sprintf("%q is not %s", clip(s), what), hint)
			}
		}
	}
	choice := func(set func(string), words ...string) func(string, ast.Node) {
		return func(k string, v ast.Node) {
			s := ""
			d.one(&s, words...)(k, v)
			set(s)
		}
	}
	return fields{
		"root_password_hash": d.into(&h.RootPasswordHash, d.checkPasswordHash),
		"ssh": func(k string, v ast.Node) {
			b := false
			d.yes(&b)(k, v)
			h.SSH = &b
		},
		"ntp": func(k string, v ast.Node) {
			d.list(v, func(n ast.Node) {
				var s string
				if d.into(&s, d.checkTimeServer)(k, n); s != "" {
					h.NTP = append(h.NTP, s)
				}
			})
		},
		"network": choice(func(s string) {
			if s != "" {
				h.Static = new(s == "static")
			}
		}, "dhcp", "static"),
		"nic": d.into(&h.NIC, func(v ast.Node, s string) {
			if _, err := boot.ParseMAC(s); err != nil && !vmnic.MatchString(s) {
				d.wrong(v, fmt.Sprintf("nic: %q is not a network card", clip(s)), "write vmnic0, or its MAC address")
			}
		}),
		"vlan": d.number(&h.VLAN, 1, 4094),
		"disk": d.into(&h.Disk, match(installDisk, "a disk to install on",
			"write firstdisk, firstdisk=local,usb, a name such as naa.600508b1001c, or a path below /vmfs/devices/disks/")),
		"license":   d.into(&h.License, match(licenseKey, "a license key", "it has five groups of five: 00000-00000-00000-00000-00000")),
		"keyboard":  d.into(&h.Keyboard, match(keyboard, "a keyboard that ESXi knows", "they are called US Default, German, Swiss French, ...")),
		"firstboot": func(k string, v ast.Node) { d.firstBoot(h, k, v) },
		"install":   choice(func(s string) { h.Install = boot.InstallPolicy(s) }, string(boot.InstallOnce), string(boot.InstallOrdered)),
		"vmfs":      choice(func(s string) { h.VMFS = boot.VMFSPolicy(s) }, string(boot.VMFSPreserve), string(boot.VMFSOverwrite)),
	}
}

// checkPasswordHash shows nothing of what was written: it may be the password.
func (d *document) checkPasswordHash(v ast.Node, s string) {
	if !passwordHash.MatchString(s) {
		*d.mistakes = append(*d.mistakes, Mistake{Origin: d.origin(v),
			Message: "root_password_hash is not a hash of a password",
			Hint:    "\"openssl passwd -6\" prints one, which begins with $6$; quote it with ' '"})
	}
}

func (d *document) checkTimeServer(v ast.Node, s string) {
	if _, err := netip.ParseAddr(s); err != nil && !hostName.MatchString(s) {
		d.wrong(v, fmt.Sprintf("ntp: %q is not a host name or address", clip(s)), "write it as pool.ntp.org or 10.0.0.1")
	}
}

// firstBoot reads a script that becomes a part of ks.cfg.
func (d *document) firstBoot(h *boot.Host, k string, v ast.Node) {
	s, ok := d.text(v, k)
	if !ok {
		return
	}
	for line := range strings.Lines(s) {
		if l := strings.TrimSpace(line); strings.HasPrefix(l, "%") {
			d.wrong(v, fmt.Sprintf("firstboot: the line %q would begin a section of ks.cfg", clip(l)), "write the script only")
			return
		}
	}
	h.FirstBoot = s
}

// checkWholeHosts looks at what machines get from profile and entry together.
func (l *loader) checkWholeHosts(c *boot.Catalog) {
	for _, m := range l.machines {
		p := c.Effective(&m.Machine)
		switch {
		case p == nil || !imported.MatchString(p.Image):
		case p.Host == nil || p.Host.RootPasswordHash == "":
			m.at.wrong(fmt.Sprintf("machine %s gets image %s, but no esxi.root_password_hash", m.Name, p.Image),
				"add esxi: {root_password_hash: ...} to its profile "+p.Name+"; \"openssl passwd -6\" makes one")
		case p.Host.Static != nil && *p.Host.Static && !m.IP.IsValid():
			m.at.wrong(fmt.Sprintf("machine %s has esxi.network: static, but no ip", m.Name), "add ip: ADDRESS to this entry, or let its profile "+p.Name+" say network: dhcp")
		}
	}
}
