package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
)

// efi makes a program for UEFI on a machine type, told apart by its name.
func efi(machine uint16, name string) []byte {
	b := make([]byte, 8<<10)
	copy(b, "MZ")
	b[0x3c] = 0x80
	copy(b[0x80:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x84:], machine)
	copy(b[0x100:], name)
	return b
}

// A kind of client, as its packets show it.
type clientKind struct {
	name    string
	options func(boot.Arch) []dhcpv4.Modifier
}

func kinds() []clientKind {
	class := func(prefix string) func(boot.Arch) []dhcpv4.Modifier {
		return func(a boot.Arch) []dhcpv4.Modifier {
			return []dhcpv4.Modifier{
				dhcpv4.WithOption(dhcpv4.OptClassIdentifier(fmt.Sprintf("%s:Arch:%05d:UNDI:003016", prefix, a))),
				dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{byte(a >> 8), byte(a)}),
			}
		}
	}
	ipxe := func(features ...byte) func(boot.Arch) []dhcpv4.Modifier {
		var own []byte
		for _, f := range features {
			own = append(own, f, 1, 1)
		}
		return func(a boot.Arch) []dhcpv4.Modifier {
			return append(class("PXEClient")(a), dhcpv4.WithUserClass("iPXE", false), dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(175), own))
		}
	}
	return []clientKind{
		{"PXE", class("PXEClient")},
		{"HTTP boot", class("HTTPClient")},
		{"iPXE", ipxe(19, 24, 36)},
		{"iPXE without HTTP", ipxe(24, 36)},
		{"iPXE without kernels", ipxe(19)},
		{"U-Boot", class("U-Boot.armv8")},
	}
}

// TestAdvertised asks for an address as every kind of client of every
// architecture, and fetches each boot file that it is told of, by the way that
// it is told of. What is advertised is there, whole, and the same by TFTP and
// HTTP.
func TestAdvertised(t *testing.T) {
	const x64, ia32, arm64, arm32 = 0x8664, 0x14c, 0xaa64, 0x1c2
	loaders := map[string][]byte{
		"undionly.kpxe": nbp(), "ipxe.pxe": append(nbp(), "ipxe.pxe"...),
		"snponly.efi": efi(x64, "1"), "ipxe.efi": efi(x64, "2"), "snponly-shimx64.efi": efi(x64, "3"),
		"i386/snponly.efi": efi(ia32, "4"), "i386/ipxe.efi": efi(ia32, "5"),
		"arm64/snponly.efi": efi(arm64, "6"), "arm64/ipxe.efi": efi(arm64, "7"), "arm64/ipxe-shimaa64.efi": efi(arm64, "8"),
		"arm32/snponly.efi": efi(arm32, "9"), "arm32/ipxe.efi": efi(arm32, "10"),
		"shimx64.efi": signedEFI("11"), "grubx64.efi": signedEFI("12"),
	}
	port := freePort(t)
	dir := t.TempDir()
	files := map[string]string{
		"bootd.yaml": fmt.Sprintf(`
networks:
  - {interface: bootd-test0, name: rack, subnet: 127.0.1.0/24, server: 127.0.1.1, range: 127.0.1.100-127.0.1.200}
state_dir: state
http: {port: %[1]d}
tftp: {port: %[1]d}
loaders: loaders
api: {socket: bootd.sock}
log: {level: warn}
`, port),
		"machines/rack.yaml": `
- {name: a, mac: "52:54:00:00:00:01", profile: plain}
- {name: b, mac: "52:54:00:00:00:02", profile: snponly}
- {name: c, mac: "52:54:00:00:00:03", profile: ipxe}
- {name: d, mac: "52:54:00:00:00:04", profile: grub}
`,
		"profiles/plain.yaml":   "name: plain\n",
		"profiles/snponly.yaml": "name: snponly\nloader: snponly\n",
		"profiles/ipxe.yaml":    "name: ipxe\nloader: ipxe\n",
		"profiles/grub.yaml":    "name: grub\nloader: grub\n",
	}
	for name, b := range loaders {
		files["loaders/"+name] = string(b)
	}
	write(t, dir, files)
	w := startWired(t, dir)
	advertised := map[string]bool{}
	for _, k := range kinds() {
		for a := range boot.Arch(40) {
			for m := range byte(4) {
				d, err := dhcpv4.NewDiscovery([]byte{0x52, 0x54, 0, 0, 0, m + 1}, k.options(a)...)
				if err != nil {
					t.Fatal(err)
				}
				offer, err := w.cable.exchange(d)
				if err != nil {
					t.Fatalf("%s, %s: %v", k.name, a, err)
				}
				file := offer.BootFileNameOption()
				if file == "" {
					continue
				}
				if s := offer.BootFileName; s != file {
					t.Errorf("%s, %s: %q in the header and %q as an option", k.name, a, s, file)
				}
				advertised[file] = true
			}
		}
	}
	base := fmt.Sprintf("http://127.0.1.1:%d", port)
	names := map[string]bool{}
	for _, file := range slices.Sorted(maps.Keys(advertised)) {
		if file == base+"/boot.ipxe" {
			if got, _ := fetch(t, "GET", file, ""); !bytes.HasPrefix(got, []byte("#!ipxe\n")) {
				t.Errorf("%s is %.100q", file, got)
			}
			continue
		}
		name := strings.TrimPrefix(file, base+"/loader/")
		want, ok := loaders[name]
		if !ok {
			t.Errorf("%s is advertised and no loader", file)
			continue
		}
		names[name] = true
		byTFTP(t, fmt.Sprintf("127.0.1.1:%d", port), name, want)
		byHTTP(t, base+"/loader/"+name, want)
	}
	// What is not advertised is behind what is: a shim fetches its loader.
	for name, want := range loaders {
		if !names[name] {
			byTFTP(t, fmt.Sprintf("127.0.1.1:%d", port), name, want)
			byHTTP(t, base+"/loader/"+name, want)
		}
	}
	if len(names) < len(loaders)/2 {
		t.Errorf("only %v are advertised", names)
	}
}

func byTFTP(t *testing.T, addr, name string, want []byte) {
	t.Helper()
	m := &machine{t: t, addr: net.IPv4(127, 0, 1, 100)}
	for _, spelled := range []string{name, "/" + name, strings.ReplaceAll(name, "/", `\`)} {
		if got := m.tftp(addr, spelled); !bytes.Equal(got, want) {
			t.Errorf("%s by TFTP: %d bytes", spelled, len(got))
		}
	}
}

func byHTTP(t *testing.T, url string, want []byte) {
	t.Helper()
	if got, r := fetch(t, "GET", url, ""); r.StatusCode != 200 || !bytes.Equal(got, want) {
		t.Errorf("%s: %s, %d bytes", url, r.Status, len(got))
	}
	if _, r := fetch(t, "HEAD", url, ""); r.StatusCode != 200 || r.ContentLength != int64(len(want)) {
		t.Errorf("HEAD %s: %s, length %d", url, r.Status, r.ContentLength)
	}
	if got, r := fetch(t, "GET", url, "bytes=100-299"); r.StatusCode != 206 || !bytes.Equal(got, want[100:300]) {
		t.Errorf("part of %s: %s, %d bytes", url, r.Status, len(got))
	}
}

func fetch(t *testing.T, method, url, part string) ([]byte, *http.Response) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if part != "" {
		r.Header.Set("Range", part)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b, answer
}
