package boot_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bootd/boot"
)

func TestRenderPower(t *testing.T) {
	inv := boot.Inventory{MAC: boot.MAC{0x52, 0x54, 0, 0, 0, 1}, Serial: "SN 7/a"}
	for _, tt := range []struct {
		kind       boot.PowerKind
		addr, want string
		err        string
	}{
		{boot.Redfish, "https://bmc-{{.name}}", "https://bmc-node1", ""},
		{boot.Redfish, "https://BMC.example.com:8443/", "https://BMC.example.com:8443", ""},
		{boot.Redfish, "https://10.1.0.11/redfish/v1/", "https://10.1.0.11", ""},
		{boot.Redfish, "https://[fd00::1]:444", "https://[fd00::1]:444", ""},
		{boot.Redfish, "http://{{.serial}}.bmc", "http://sn-7-a.bmc", ""},
		{boot.Redfish, "https://ilo{{slice .mac 9}}.lan", "https://ilo00-00-01.lan", ""},
		{boot.IPMI, "10.1.0.11", "10.1.0.11:623", ""},
		{boot.IPMI, "bmc-{{.name}}:6230", "bmc-node1:6230", ""},
		{boot.IPMI, "fd00::1", "[fd00::1]:623", ""},
		{boot.IPMI, "[fd00::1]:1623", "[fd00::1]:1623", ""},
		{boot.Redfish, "10.1.0.11", "", "is not the address of a BMC; write it as https://10.1.0.11"},
		{boot.Redfish, "ftp://10.1.0.11", "", "is not the address of a BMC"},
		{boot.Redfish, "https://", "", "is not the address of a BMC"},
		{boot.Redfish, "https://a b", "", "is not the address of a BMC"},
		{boot.Redfish, "https://10.1.0.11/redfish/v1/Systems/1", "", "has something after the host"},
		{boot.Redfish, "https://10.1.0.11/?a=b", "", "has something after the host"},
		{boot.IPMI, "-h", "", "is not the address of a BMC; write it as 10.1.0.11"},
		{boot.IPMI, "10.1.0.11:0", "", "is not the address of a BMC"},
		{boot.IPMI, "10.1.0.11:70000", "", "is not the address of a BMC"},
		{boot.IPMI, "https://10.1.0.11", "", "is not the address of a BMC"},
		{boot.IPMI, "{{.rack}}", "", `there is no "rack"; only name, serial,`},
		{boot.IPMI, "{{.name", "", "unclosed action"},
		{boot.IPMI, "{{range .name}}{{end}}", "", "can hold only values"},
	} {
		check := boot.ParsePowerAddr(tt.kind, tt.addr)
		got, err := boot.BMC{Kind: tt.kind, Addr: tt.addr}.Render("node1", inv)
		if tt.err != "" {
			if check == nil || !strings.Contains(check.Error(), tt.err) || err == nil {
				t.Errorf("%s %s: %v, %v; want %s", tt.kind, tt.addr, check, err, tt.err)
			}
			continue
		}
		if check != nil || err != nil || got.Addr != tt.want {
			t.Errorf("%s %s: %q, %v, %v; want %q", tt.kind, tt.addr, got.Addr, check, err, tt.want)
		}
	}
	// A password in the address would end up in messages.
	err := boot.ParsePowerAddr(boot.Redfish, "https://root:calvin@10.1.0.11")
	if err == nil || strings.Contains(err.Error(), "calvin") || !strings.Contains(err.Error(), "password_file") {
		t.Error(err)
	}
	if _, err := (boot.BMC{Kind: boot.IPMI, Addr: "{{.asset}}"}).Render("node1", inv); err == nil || !strings.Contains(err.Error(), "needs the asset, which the machine has not told") {
		t.Error(err)
	}
}

func TestExtendPower(t *testing.T) {
	base := boot.BMC{Kind: boot.Redfish, Addr: "https://bmc-{{.name}}", User: "root", PasswordFile: "/p", Fingerprint: "ab", System: "1"}
	for _, tt := range []struct {
		name             string
		base, over, want boot.BMC
	}{
		{"only a user", base, boot.BMC{User: "admin"}, boot.BMC{Kind: boot.Redfish, Addr: base.Addr, User: "admin", PasswordFile: "/p", Fingerprint: "ab", System: "1"}},
		{"another address", base, boot.BMC{Kind: boot.Redfish, Addr: "https://10.1.0.1"}, boot.BMC{Kind: boot.Redfish, Addr: "https://10.1.0.1", User: "root", PasswordFile: "/p"}},
		{"another kind", base, boot.BMC{Kind: boot.IPMI, Addr: "10.1.0.1"}, boot.BMC{Kind: boot.IPMI, Addr: "10.1.0.1", User: "root", PasswordFile: "/p"}},
		{"wake-on-LAN", base, boot.BMC{Kind: boot.WOL, Interface: "eth1"}, boot.BMC{Kind: boot.WOL, Interface: "eth1"}},
		{"none", base, boot.BMC{Kind: boot.NoPower}, boot.BMC{Kind: boot.NoPower}},
		{"from wake-on-LAN", boot.BMC{Kind: boot.WOL, PasswordFile: "/s"}, boot.BMC{Kind: boot.IPMI, Addr: "10.1.0.1"}, boot.BMC{Kind: boot.IPMI, Addr: "10.1.0.1"}},
		{"secure again", boot.BMC{Insecure: new(true)}, boot.BMC{Insecure: new(false)}, boot.BMC{Insecure: new(false)}},
		{"pinned instead", boot.BMC{Insecure: new(true)}, boot.BMC{Fingerprint: "cd"}, boot.BMC{Fingerprint: "cd"}},
		{"defaults and an address", boot.BMC{User: "root", PasswordFile: "/p", CipherSuite: 3}, boot.BMC{Kind: boot.IPMI, Addr: "10.1.0.1"},
			boot.BMC{Kind: boot.IPMI, Addr: "10.1.0.1", User: "root", PasswordFile: "/p", CipherSuite: 3}},
	} {
		if diff := cmp.Diff(tt.want, tt.base.Extend(tt.over), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}
