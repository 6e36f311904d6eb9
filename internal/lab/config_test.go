package lab

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bootd/boot"
)

func TestParseConfig(t *testing.T) {
	got, err := ParseConfig([]byte(`
network: 10.9.0.1/16
machines:
  - {name: a, mac: 52-54-00-77-00-11}
  - name: b
    mac: 52:54:00:77:00:12
    firmware: uefi-http
    memory: 1536M
    cpus: 4
    nic: e1000
    uuid: 77000000-0000-4000-8000-52540077ABCD
    serial: S 1
    manufacturer: A.T.WORKS, Inc.
    product: Blade
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Network: netip.MustParsePrefix("10.9.0.1/16"),
		Machines: []Machine{
			{
				Name: "a", MAC: boot.MAC{0x52, 0x54, 0, 0x77, 0, 0x11}, Firmware: BIOS, Memory: 1024, CPUs: 2, NIC: "virtio-net-pci",
				UUID: "77000000-0000-4000-8000-525400770011", Serial: "LAB-A", Manufacturer: "bootd lab", Product: "Diskless Machine",
			},
			{
				Name: "b", MAC: boot.MAC{0x52, 0x54, 0, 0x77, 0, 0x12}, Firmware: UEFIHTTP, Memory: 1536, CPUs: 4, NIC: "e1000",
				UUID: "77000000-0000-4000-8000-52540077abcd", Serial: "S 1", Manufacturer: "A.T.WORKS, Inc.", Product: "Blade",
			},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if _, err := got.Machine("c"); err == nil || !strings.Contains(err.Error(), "it has a, b") {
		t.Errorf("an unknown machine: %v", err)
	}
}

func TestParseConfigMistakes(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"nothing":     {"", []string{"machines: there are none"}},
		"not YAML":    {"machines: [", []string{"1:"}},
		"unknown key": {"machines:\n  - {name: a, mac: 52:54:00:77:00:11, firmwear: bios}", []string{"firmwear", "2:"}},
		"network":     {"network: 10.77.0.0/24\nmachines: [{name: a, mac: 52:54:00:77:00:11}]", []string{"network:"}},
		"IPv6":        {"network: fd00::1/64\nmachines: [{name: a, mac: 52:54:00:77:00:11}]", []string{"network:"}},
		"all of a machine at once": {
			"machines: [{name: A_B, mac: x, uuid: y, firmware: openfirmware, memory: 3T, cpus: 99, nic: 'virtio,mac=z'}]",
			[]string{"name:", "mac:", "uuid:", "firmware:", "memory:", "cpus:", "nic:"},
		},
		"all machines at once": {"machines: [{name: '', mac: 52:54:00:77:00:11}, {name: b}]", []string{"machines[0]", "machines[1]"}},
		"too small":            {"machines: [{name: a, mac: 52:54:00:77:00:11, memory: 256M}]", []string{"too little"}},
		"multicast":            {"machines: [{name: a, mac: 01:54:00:77:00:11}]", []string{"multicast"}},
		"the same twice": {
			"machines: [{name: a, mac: 52:54:00:77:00:11}, {name: a, mac: 52:54:00:77:00:11}]",
			[]string{"another machine has a too", "another machine has 52:54:00:77:00:11 too"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig([]byte(tt.text))
			if err == nil {
				t.Fatal("no mistake found")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("mistakes are\n%v\nwithout %q", err, w)
				}
			}
		})
	}
}

func TestParseMemory(t *testing.T) {
	for s, want := range map[string]int{"1G": 1024, "1536M": 1536, "64G": 65536, "": 0, "G": 0, "1": 0, "1GM": 0, "-1G": 0, "1g": 0, "99999999G": 0} {
		if got, err := parseMemory(s); got != want || (err == nil) != (want > 0) {
			t.Errorf("parseMemory(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
}

// An example's own files must fit together.
func TestExamples(t *testing.T) {
	for name, want := range map[string][]Firmware{
		Demo:      {BIOS, BIOS, UEFI},
		"classic": {BIOS, BIOS, BIOS, UEFI},
	} {
		t.Run(name, func(t *testing.T) { testExample(t, name, want) })
	}
	l, err := New("test")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.writeExample("../demo", t.TempDir(), "", ""); err == nil || !strings.Contains(err.Error(), "there are classic, demo") {
		t.Errorf("error %v", err)
	}
}

func testExample(t *testing.T, name string, firmwares []Firmware) {
	l, err := New("test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := l.writeExample(name, dir, "/images/lab", "ssh-ed25519 AAAA lab"); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	var firmware []Firmware
	rack := read(t, dir+"/machines/rack.yaml")
	for _, m := range c.Machines {
		firmware = append(firmware, m.Firmware)
		if want := "name: " + m.Name + ", mac: " + m.MAC.String(); !strings.Contains(rack, want) {
			t.Errorf("machines/rack.yaml has no %q", want)
		}
	}
	if diff := cmp.Diff(firmwares, firmware); diff != "" {
		t.Errorf("machines (-want +got):\n%s", diff)
	}
	for file, want := range map[string][]string{
		"bootd.yaml":         {"path: /images/lab}", "host: unix:///run/bootd-lab/test/docker.sock", "state_dir: /var/lib/bootd-lab/test/bootd", "socket: /run/bootd-lab/test/bootd.sock"},
		"profiles/base.yaml": {"- ssh-ed25519 AAAA lab\n"},
	} {
		text := read(t, dir+"/"+file)
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s has no %q:\n%s", file, w, text)
			}
		}
	}
}
