package boot_test

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"bootd/boot"
)

// FuzzPowerAddr: an address that is taken makes, for whatever machine, an error
// or an address of the right form: a host and a port, with no way to put an
// option, a path or a password there.
func FuzzPowerAddr(f *testing.F) {
	for _, s := range []string{"https://bmc-{{.name}}", "10.1.0.11:623", "https://[fd00::1]:443", "{{.serial}}", "-U", "https://a@b", "{{slice .mac 9}}"} {
		f.Add(true, s, "SN1")
		f.Add(false, s, "-x @/")
	}
	f.Fuzz(func(t *testing.T, redfish bool, addr, serial string) {
		kind := boot.IPMI
		if redfish {
			kind = boot.Redfish
		}
		if boot.ParsePowerAddr(kind, addr) != nil {
			return
		}
		b, err := boot.BMC{Kind: kind, Addr: addr}.Render("node1", boot.Inventory{Serial: serial, MAC: boot.MAC{2, 0, 0, 0, 0, 1}})
		if err != nil {
			return
		}
		host := ""
		if redfish {
			u, err := url.Parse(b.Addr)
			if err != nil || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Scheme != "http" && u.Scheme != "https" {
				t.Fatalf("%q: %q", addr, b.Addr)
			}
			host = u.Hostname()
		} else if host, _, err = net.SplitHostPort(b.Addr); err != nil {
			t.Fatalf("%q: %q: %v", addr, b.Addr, err)
		}
		if _, err := netip.ParseAddr(host); err != nil && (host == "" || strings.ContainsAny(host, "@/ \t\n:?#%") || host[0] == '-') {
			t.Fatalf("%q: host %q", addr, host)
		}
	})
}
