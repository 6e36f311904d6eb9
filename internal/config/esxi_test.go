package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/config"
)

// TestESXi reads every key, and an entry's own above its profile's.
func TestESXi(t *testing.T) {
	const hash = "$6$saltsalt$QFmFH1bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
	c, err := config.LoadFiles(map[string]string{
		"bootd.yaml": "networks:\n  - {interface: eth1, subnet: 10.0.0.0/24}\n",
		"profiles/p.yaml": `
name: hypervisor
image: esxi/8.0
esxi:
  root_password_hash: ` + hash + `
  ssh: true
  ntp: [10.0.0.4, pool.ntp.org]
  network: static
  nic: vmnic0
  vlan: 20
  disk: firstdisk=local,usb
  keyboard: Swiss French
  firstboot: |
    esxcli system version get
  install: ordered
  vmfs: preserve
`,
		"machines/m.yaml": `
- {name: esx1, mac: 52:54:00:00:00:01, profile: hypervisor, ip: 10.0.0.11, esxi: {license: 00000-00000-00000-00000-00000, ssh: false, disk: naa.600508b1001c}}
- {name: esx2, mac: 52:54:00:00:00:02, profile: hypervisor, ip: 10.0.0.12}
`,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := boot.Host{
		RootPasswordHash: hash, SSH: new(true), NTP: []string{"10.0.0.4", "pool.ntp.org"}, Static: new(true), NIC: "vmnic0", VLAN: 20,
		Disk: "firstdisk=local,usb", Keyboard: "Swiss French", FirstBoot: "esxcli system version get\n",
		Install: boot.InstallOrdered, VMFS: boot.VMFSPreserve,
	}
	m := c.Catalog.Machines
	if d := cmp.Diff(&want, c.Catalog.Effective(m[1]).Host); d != "" {
		t.Error(d)
	}
	want.License, want.SSH, want.Disk = "00000-00000-00000-00000-00000", new(false), "naa.600508b1001c"
	own := c.Catalog.Effective(m[0])
	if d := cmp.Diff(&want, own.Host); d != "" {
		t.Error(d)
	}
	said := map[string]string{}
	for _, v := range own.Explain() {
		said[v.Key] = v.Value + " " + v.Origin.String()
	}
	for key, want := range map[string]string{
		"esxi.root_password_hash": "(set) profiles/p.yaml:5:23", "esxi.disk": "naa.600508b1001c machines/m.yaml:2:141",
		"esxi.ssh": "false machines/m.yaml:2:128", "esxi.network": "static profiles/p.yaml:8:12",
	} {
		if said[key] != want {
			t.Errorf("%s: %q, not %q", key, said[key], want)
		}
	}
}
