package config_test

import (
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bootd/boot"
	"bootd/internal/config"
)

const print64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// powerOf loads a configuration and returns how each machine is switched.
func powerOf(t *testing.T, files map[string]string) map[string]*boot.BMC {
	t.Helper()
	c, err := config.LoadFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*boot.BMC{}
	for _, m := range c.Catalog.Machines {
		out[m.Name] = c.Catalog.Effective(m).Power
	}
	return out
}

// TestPower: forty blades need one line; what a machine or its profile says goes
// before it.
func TestPower(t *testing.T) {
	files := map[string]string{
		"bootd.yaml": "power: {redfish: 'https://bmc-{{.name}}', user: root, password_file: /etc/bootd/bmc.password}\n",
		"profiles/p.yaml": "name: a\n---\nname: b\nextends: a\npower: {ipmi: 'bmc-{{.serial}}:6230', cipher_suite: 17}\n---\n" +
			"name: c\npower:\n  wol: {interface: eth2, broadcast: 10.2.0.255, password_file: /etc/bootd/secureon}\n",
		"machines/m.yaml": `
- {name: n1, mac: "52:54:00:00:00:01", profile: a}
- {name: n2, mac: "52:54:00:00:00:02", profile: b}
- {name: n3, mac: "52:54:00:00:00:03", profile: c}
- name: n4
  mac: 52:54:00:00:00:04
  profile: a
  power: {redfish: https://10.1.0.4, fingerprint: "SHA256:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF", system: "1"}
- {name: n5, mac: "52:54:00:00:00:05", profile: a, power: none}
- {name: n6, mac: "52:54:00:00:00:06", profile: a, power: {insecure: true, user: admin}}
- {name: n7, mac: "52:54:00:00:00:07", profile: c, power: {ipmi: 10.1.0.7, user: x, password_file: /y}}
- {name: n8, mac: "52:54:00:00:00:08", profile: a, power: {wol: {}}}
`,
	}
	got := powerOf(t, files)
	pw := "/etc/bootd/bmc.password"
	want := map[string]*boot.BMC{
		"n1": {Kind: boot.Redfish, Addr: "https://bmc-{{.name}}", User: "root", PasswordFile: pw},
		"n2": {Kind: boot.IPMI, Addr: "bmc-{{.serial}}:6230", User: "root", PasswordFile: pw, CipherSuite: 17},
		"n3": {Kind: boot.WOL, Interface: "eth2", Broadcast: netip.MustParseAddr("10.2.0.255"), PasswordFile: "/etc/bootd/secureon"},
		"n4": {Kind: boot.Redfish, Addr: "https://10.1.0.4", User: "root", PasswordFile: pw, Fingerprint: print64, System: "1"},
		"n5": {Kind: boot.NoPower},
		"n6": {Kind: boot.Redfish, Addr: "https://bmc-{{.name}}", User: "admin", PasswordFile: pw, Insecure: new(true)},
		"n7": {Kind: boot.IPMI, Addr: "10.1.0.7", User: "x", PasswordFile: "/y"},
		"n8": {Kind: boot.WOL},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}

	c, err := config.LoadFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]string{}
	for _, v := range c.Catalog.Effective(c.Catalog.Machines[5]).Explain() {
		explained[v.Key] = v.Value + " from " + v.Origin.String()
	}
	for k, v := range map[string]string{
		"power":               "redfish https://bmc-{{.name}} from bootd.yaml:1:8",
		"power.user":          "admin from machines/m.yaml:10:",
		"power.password_file": pw + " from bootd.yaml:1:",
		"power.tls":           "any certificate is taken from machines/m.yaml:10:",
	} {
		if !strings.HasPrefix(explained[k], v) {
			t.Errorf("explain %s: %s, want %s", k, explained[k], v)
		}
	}
}

func TestPowerMistakes(t *testing.T) {
	base := map[string]string{"bootd.yaml": "", "profiles/p.yaml": "name: a"}
	for _, tt := range []struct{ power, want string }{
		{"{redfish: 10.1.0.1, user: u, password_file: f}", `redfish: "10.1.0.1" is not the address of a BMC; write it as https://10.1.0.11`},
		{"{redfish: 'https://u:topsecret@10.1.0.1', user: u, password_file: f}", "redfish: the address of the BMC at 10.1.0.1 holds a user or password; use the keys user and password_file"},
		{"{redfish: 'https://bmc-{{.nmae}}', user: u, password_file: f}", `there is no "nmae"; only name, serial,`},
		{"{ipmi: 'a b', user: u, password_file: f}", `ipmi: "a b" is not the address of a BMC`},
		{"{redfish: https://a, ipmi: b, user: u, password_file: f}", "power has both redfish and ipmi; keep one of them"},
		{"{redfish: https://a, user: u, password_file: f, insecure: true, fingerprint: " + print64 + "}", "power has both insecure and fingerprint; keep one of them"},
		{"{redfish: https://a, user: u, password_file: f, fingerprint: abc}", `"abc" is not the SHA-256 fingerprint of a certificate; it has 64`},
		{"{redfish: http://a, user: u, password_file: f}", "http://a sends the password in the clear; write https://"},
		{"{redfish: https://a, user: u, password_file: f, cipher_suite: 3}", "cipher_suite means nothing for redfish, only for ipmi; leave it out"},
		{"{ipmi: a, user: u, password_file: f, cipher_suite: 0}", `cipher_suite cannot be "0"`},
		{"{ipmi: a, user: u, password_file: f, insecure: true}", "insecure means nothing for ipmi, only for redfish"},
		{"{wol: {broadcast: 10.0.0.0/24}}", `broadcast: "10.0.0.0/24" is not an IPv4 broadcast address`},
		{"{wol: {interface: eth1}, password_file: f}", "wake-on-LAN has no user and password; a password of SecureOn is written as wol: {password_file: FILE}"},
		{"{wol: {broadcats: 10.0.0.255}}", `unknown key "broadcats" in wol; did you mean "broadcast"?`},
		{"{redfsh: https://a}", `unknown key "redfsh" in power; did you mean "redfish"?`},
		{"{redfish: https://a, password: topsecret}", `a password does not belong here; write it into a file that only bootd can read, and that file's path here, as password_file: FILE`},
		{"off", `power cannot be "off"; write power: {redfish:`},
		{"{redfish: https://a, password_file: f}", `machine "n": the BMC at https://a has no user; add user: NAME, here or under power in bootd.yaml`},
		{"{ipmi: a, user: u}", `machine "n": the BMC at a has no password; add password_file: FILE, here or under power in bootd.yaml`},
	} {
		files := maps.Clone(base)
		files["machines/m.yaml"] = "- name: n\n  mac: 52:54:00:00:00:01\n  profile: a\n  power: " + tt.power + "\n"
		_, err := config.LoadFiles(files)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "machines/m.yaml:4:") || !strings.HasSuffix(err.Error(), "\n1 mistake in the configuration") {
			t.Errorf("%s:\n got %v\nwant %s", tt.power, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: the password is shown: %v", tt.power, err)
		}
	}

	// One default that lacks something is told once, where it was written.
	files := maps.Clone(base)
	files["bootd.yaml"] = "power: {redfish: 'https://bmc-{{.name}}'}\n"
	files["machines/m.yaml"] = "- {name: n, mac: \"52:54:00:00:00:01\", profile: a}\n- {name: m, mac: \"52:54:00:00:00:02\", profile: a}\n"
	_, err := config.LoadFiles(files)
	want := "bootd.yaml:1:8: machine \"n\": the BMC at https://bmc-{{.name}} has no user; add user: NAME, here or under power in bootd.yaml\n" +
		"    power: {redfish: 'https://bmc-{{.name}}'}\n           ^\n1 mistake in the configuration"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
