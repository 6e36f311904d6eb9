package ipxe

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"bootd/boot"
)

// Kickstart is the machine's ks.cfg. What it says of the disk depends on whether
// somebody ordered the installation: without an order, the installer stops at
// a disk with a datastore. The installer reports when the system is on the
// disk, and that reports when it has started from there; both by Python, which
// every version has, while the options of its wget differ.
func Kickstart(p ESXiParams) ([]byte, error) {
	h := p.host()
	if err := checkHost(h); err != nil {
		return nil, fmt.Errorf("cannot install by profile %s: esxi.%w", p.Assignment.Profile.Name, err)
	}
	network, err := networkLine(p)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s, by bootd\n", oneLine(p.Assignment.Name+": profile "+p.Assignment.Profile.Name))
	fmt.Fprintf(&b, "vmaccepteula\nrootpw --iscrypted %s\n", h.RootPasswordHash)
	if h.Keyboard != "" {
		fmt.Fprintf(&b, "keyboard '%s'\n", h.Keyboard)
	}
	if h.License != "" {
		fmt.Fprintf(&b, "serialnum --esx=%s\n", h.License)
	}
	fmt.Fprintf(&b, "%s\n%s\nreboot\n", installLine(h, p.Ordered), network)
	fmt.Fprintf(&b, "\n%%post --interpreter=python --ignorefailure=true\n%s", reportBy(p.ReportURL, boot.Installed))
	fmt.Fprintf(&b, "\n%%firstboot --interpreter=busybox\n%s", settings(p))
	if s := strings.TrimSpace(h.FirstBoot); s != "" {
		fmt.Fprintf(&b, "\n%%firstboot --interpreter=busybox\n%s\n", s)
	}
	fmt.Fprintf(&b, "\n%%firstboot --interpreter=busybox\n%s", openFirewall(p.ReportURL))
	fmt.Fprintf(&b, "\n%%firstboot --interpreter=python\n%s", reportBy(p.ReportURL, boot.Up))
	fmt.Fprintf(&b, "\n%%firstboot --interpreter=busybox\n%s", closeFirewall(p.ReportURL))
	return b.Bytes(), nil
}

// checkHost finds what would become something else in a ks.cfg. The
// configuration has been checked before; this is where a mistake there would
// hurt.
func checkHost(h boot.Host) error {
	if h.RootPasswordHash == "" {
		return errors.New("root_password_hash is not set; \"openssl passwd -6\" makes one")
	}
	for _, f := range []struct{ key, value, bad string }{
		{"root_password_hash", h.RootPasswordHash, " '\"\\"}, {"keyboard", h.Keyboard, "'\"\\"}, {"license", h.License, " '\"\\"},
		{"disk", h.Disk, " '\"\\"}, {"nic", h.NIC, " '\"\\"}, {"ntp", strings.Join(h.NTP, ""), " '\"\\$`;&|"},
	} {
		if strings.ContainsAny(f.value, f.bad) || oneLine(f.value) != f.value {
			return fmt.Errorf("%s: it has a character that ks.cfg cannot hold", f.key)
		}
	}
	for line := range strings.Lines(h.FirstBoot) {
		if strings.HasPrefix(strings.TrimSpace(line), "%") {
			return fmt.Errorf("firstboot: the line %q would begin a section of ks.cfg", strings.TrimSpace(line))
		}
	}
	return nil
}

// oneLine replaces what is not printable.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

func installLine(h boot.Host, ordered bool) string {
	line := "install --disk=" + h.Disk
	if h.Disk == "" || strings.HasPrefix(h.Disk, "firstdisk") {
		line = "install --" + cmp.Or(h.Disk, "firstdisk")
	}
	switch {
	case h.VMFS == boot.VMFSPreserve:
		line += " --preservevmfs"
	case h.VMFS == boot.VMFSOverwrite, ordered:
		line += " --overwritevmfs"
	}
	return line
}

// networkLine sets up the management network.
func networkLine(p ESXiParams) (string, error) {
	a := p.Assignment
	static, err := a.StaticAddr()
	if err != nil {
		return "", err
	}
	line := "network --bootproto=dhcp"
	if static.IsValid() {
		line = fmt.Sprintf("network --bootproto=static --ip=%s --netmask=%s", static.Addr(), netmask(static))
		if a.Network.Router.IsValid() {
			line += " --gateway=" + a.Network.Router.String()
		}
		var dns []string
		for _, d := range a.Network.DNS {
			dns = append(dns, d.String())
		}
		if len(dns) > 0 {
			line += " --nameserver=" + strings.Join(dns, ",")
		}
		line += " --hostname=" + hostName(a)
	}
	line += " --device=" + p.nic()
	if v := p.host().VLAN; v != 0 {
		line += fmt.Sprintf(" --vlanid=%d", v)
	}
	return line, nil
}

// hostName is the name with the network's domain.
func hostName(a boot.Assignment) string {
	if a.Network != nil && a.Network.Domain != "" && !strings.Contains(a.Name, ".") {
		return a.Name + "." + a.Network.Domain
	}
	return a.Name
}

// settings is the script that sets up the host at its first start from the disk.
func settings(p ESXiParams) string {
	var b strings.Builder
	h, name := p.host(), hostName(p.Assignment)
	if strings.Contains(name, ".") {
		fmt.Fprintf(&b, "esxcli system hostname set --fqdn=%s\n", name)
	} else {
		fmt.Fprintf(&b, "esxcli system hostname set --host=%s\n", name)
	}
	if h.SSH != nil && *h.SSH {
		b.WriteString("vim-cmd hostsvc/enable_ssh\nvim-cmd hostsvc/start_ssh\nvim-cmd hostsvc/enable_esx_shell\nvim-cmd hostsvc/start_esx_shell\n")
		for _, k := range p.Assignment.Profile.SSHKeys {
			fmt.Fprintf(&b, "echo '%s' >> /etc/ssh/keys-root/authorized_keys\n", strings.ReplaceAll(oneLine(k), "'", `'\''`))
		}
	}
	if servers := h.TimeServers(p.Assignment.Network); len(servers) > 0 {
		// Before version 7 there is no esxcli for it.
		fmt.Fprintf(&b, "esxcli network firewall ruleset set --ruleset-id=ntpClient --enabled=true\n"+
			"if ! esxcli system ntp set --server=%s --enabled=true; then\n"+
			"  printf 'restrict default nomodify notrap nopeer noquery\\ndriftfile /etc/ntp.drift\\n' > /etc/ntp.conf\n",
			strings.Join(servers, " --server="))
		for _, s := range servers {
			fmt.Fprintf(&b, "  echo 'server %s' >> /etc/ntp.conf\n", s)
		}
		b.WriteString("  chkconfig ntpd on\n  /etc/init.d/ntpd restart\nfi\n")
	}
	return b.String()
}

// reportBy is a program in any Python since 2.6 that tells bootd of a stage. It
// goes on for five minutes while bootd cannot be reached or says that it should
// be asked again.
func reportBy(target string, stage boot.Stage) string {
	return fmt.Sprintf(`import json, time
try:
    from urllib.request import Request, urlopen
except ImportError:
    from urllib2 import Request, urlopen
body = json.dumps({"stage": "%s"}).encode("ascii")
for attempt in range(60):
    try:
        urlopen(Request("%s", body, {"Content-Type": "application/json"}), timeout=10)
        break
    except Exception as e:
        if 400 <= getattr(e, "code", 500) < 500:
            break
    time.sleep(5)
`, stage, target)
}

// The firewall of ESXi lets nothing out that is not asked for. Its rule for HTTP
// is for the usual ports; for others it is off while the host reports.
func openFirewall(target string) string {
	if usualPort(target) {
		return "esxcli network firewall ruleset set --ruleset-id=httpClient --enabled=true\n"
	}
	return "esxcli network firewall set --enabled=false\n"
}

func closeFirewall(target string) string {
	if usualPort(target) {
		return "esxcli network firewall ruleset set --ruleset-id=httpClient --enabled=false\n"
	}
	return "esxcli network firewall set --enabled=true\n"
}

func usualPort(target string) bool {
	u, err := url.Parse(target)
	return err == nil && (u.Port() == "" || u.Port() == "80")
}
