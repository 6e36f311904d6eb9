package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bootd/boot/dhcp"
	"bootd/internal/config"
)

func TestSiteOn(t *testing.T) {
	for _, c := range []struct {
		addr, want string // empty: an error
	}{
		{"10.0.0.1/24", "10.0.0.128-10.0.0.254"},
		{"10.0.0.254/24", "10.0.0.128-10.0.0.253"},
		{"10.0.0.130/24", "10.0.0.131-10.0.0.254"},
		{"10.1.2.3/8", "10.128.0.0-10.128.15.255"},
		{"192.168.7.1/29", "192.168.7.4-192.168.7.6"},
		{"192.168.7.5/29", "192.168.7.4-192.168.7.4"},
		{"192.168.7.1/30", ""},
		{"169.254.1.1/16", ""},
	} {
		s, err := siteOn(dhcp.Link{Interface: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix(c.addr)}})
		if s.Range != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: range %q, error %v; want %q", c.addr, s.Range, err, c.want)
		}
	}
}

// What init writes is a configuration without mistakes, and is left alone by a
// second one.
func TestWriteSite(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJrcmFuZG9tcmFuZG9tcmFuZG9tcmFuZG9tcmFuZG9t me"
	for name, site := range map[string]firstSite{
		"swarm":    {Interface: "eth1", Subnet: "10.0.0.0/24", Range: "10.0.0.128-10.0.0.254", Swarm: true, Keys: []string{key}},
		"no swarm": {Interface: "eth1", Subnet: "10.0.0.0/24", Range: "10.0.0.128-10.0.0.254"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{dir: filepath.Join(t.TempDir(), "site"), out: &out}
			if err := a.writeSite(site); err != nil {
				t.Fatal(err)
			}
			cfg, err := config.Load(a.dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := checkProfiles(cfg); err != nil {
				t.Error(err)
			}
			p := cfg.Catalog.Profiles["worker"]
			if len(cfg.Catalog.Networks) != 1 || p == nil || len(p.SSHKeys) != len(site.Keys) || (p.Swarm != nil) != site.Swarm || (len(cfg.Swarms) == 1) != site.Swarm {
				t.Errorf("%+v\n%+v", cfg, p)
			}
			own := filepath.Join(a.dir, "bootd.yaml")
			if err := os.WriteFile(own, []byte("mine"), 0o644); err != nil {
				t.Fatal(err)
			}
			out.Reset()
			if err := a.writeSite(site); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(own); err != nil || string(b) != "mine" || strings.Count(out.String(), "kept") != 3 {
				t.Errorf("%s, %v\n%s", b, err, out.String())
			}
			if strings.Contains(out.String(), "wrote") {
				t.Error(out.String())
			}
			if b, _ := os.ReadFile(filepath.Join(a.dir, "machines", "rack1.yaml")); !strings.Contains(string(b), "blade-{{.serial}}") {
				t.Errorf("the example of a pattern is\n%s", b)
			}
		})
	}
}
