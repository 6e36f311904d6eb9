package boot_test

import (
	"flag"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// installed are sets of loaders that somebody may have.
var installed = []struct {
	name  string
	files []string
}{
	{"Debian", []string{"undionly.kpxe", "ipxe.pxe", "snponly.efi", "ipxe.efi", "arm64/ipxe.efi"}},
	{"all", []string{"undionly.kpxe", "ipxe.pxe", "snponly.efi", "ipxe.efi", "i386/snponly.efi", "i386/ipxe.efi",
		"arm64/snponly.efi", "arm64/ipxe.efi", "arm32/snponly.efi", "arm32/ipxe.efi", "pxelinux.0"}},
	{"Secure Boot", []string{"undionly.kpxe", "snponly.efi", "snponly-shimx64.efi", "ipxe.efi", "ipxe-shimx64.efi",
		"arm64/ipxe.efi", "arm64/ipxe-shimaa64.efi", "arm64/snponly.efi"}},
	{"a shim with nothing behind it", []string{"ipxe.efi", "snponly-shimx64.efi"}},
	{"Debian, with shim and GRUB", []string{"undionly.kpxe", "snponly.efi", "arm64/ipxe.efi", "shimx64.efi", "grubx64.efi", "arm64/shimaa64.efi"}},
	{"none", nil},
}

func booters() map[string][]boot.Booter {
	const whole = boot.FeatureHTTP | boot.FeatureBzImage | boot.FeatureEFI
	out := map[string][]boot.Booter{}
	for a := range boot.Arch(48) {
		for name, b := range map[string]boot.Booter{
			"PXE":               {Client: boot.Firmware},
			"HTTP boot":         {Client: boot.Firmware, ROM: boot.HTTPBoot},
			"U-Boot":            {Client: boot.Firmware, ROM: boot.UBoot},
			"Raspberry Pi":      {Client: boot.Firmware, ROM: boot.RaspberryPi},
			"iPXE":              {Client: boot.IPXE, Features: whole},
			"iPXE, silent":      {Client: boot.IPXE},
			"iPXE without HTTP": {Client: boot.IPXE, Features: whole &^ boot.FeatureHTTP},
			"iPXE, no kernels":  {Client: boot.IPXE, Features: boot.FeatureHTTP},
			"system":            {Client: boot.System},
		} {
			b.Arch = a
			out[name] = append(out[name], b)
		}
	}
	return out
}

// Every combination of firmware, architecture, installed loaders and wish, and
// what it is told to boot. Architectures with the same answers are one line.
func TestBootFileTable(t *testing.T) {
	const base = "http://10.0.0.1"
	var got strings.Builder
	byName := booters()
	var names []string
	for n := range byName {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, set := range installed {
		have := func(f string) bool { return slices.Contains(set.files, f) }
		for _, wish := range []string{"", "snponly", "ipxe", "grub"} {
			fmt.Fprintf(&got, "# loaders: %s, wish: %q\n", set.name, wish)
			for _, n := range names {
				var order []string
				archs := map[string][]string{}
				for _, b := range byName[n] {
					file, ok := boot.BootFile(b, &boot.Profile{Loader: wish}, have, base)
					switch {
					case !ok && file != "":
						t.Errorf("%s, %s: %q although there is none", n, b.Arch, file)
					case !ok:
						file = "nothing"
					case file == "":
						file = "only the server"
					default:
						advertised(t, file, base, have)
					}
					if archs[file] == nil {
						order = append(order, file)
					}
					archs[file] = append(archs[file], fmt.Sprint(uint16(b.Arch)))
				}
				for _, file := range order {
					fmt.Fprintf(&got, "%-18s %-38s %s\n", n, file, runs(archs[file]))
				}
			}
			got.WriteByte('\n')
		}
	}
	const golden = "testdata/bootfile.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("(-want +got; -update rewrites it):\n%s", diff)
	}
}

// advertised checks that a file that is announced is there, and so is what a
// shim loads by its own name.
func advertised(t *testing.T, file, base string, have func(string) bool) {
	t.Helper()
	if file == base+"/boot.ipxe" {
		return
	}
	name := strings.TrimPrefix(file, base+"/loader/")
	if !have(name) {
		t.Errorf("%s is announced and not there", file)
	}
	if at := strings.TrimSuffix(name, path.Base(name)); strings.HasPrefix(path.Base(name), "shim") {
		if grub := at + strings.Replace(path.Base(name), "shim", "grub", 1); !have(grub) {
			t.Errorf("%s is announced without %s, which it starts", file, grub)
		}
	}
	if before, after, ok := strings.Cut(name, "-shim"); ok {
		if _, ext, _ := strings.Cut(after, "."); !have(before + "." + ext) {
			t.Errorf("%s is announced without %s.%s, which it starts", file, before, ext)
		}
	}
}

// runs joins numbers, and what lies between three or more in a row to a dash.
func runs(numbers []string) string {
	var out []string
	for i := 0; i < len(numbers); {
		j, first := i, 0
		fmt.Sscan(numbers[i], &first)
		for j+1 < len(numbers) && numbers[j+1] == fmt.Sprint(first+j+1-i) {
			j++
		}
		if j-i >= 2 {
			out = append(out, numbers[i]+"-"+numbers[j])
		} else {
			out = append(out, numbers[i:j+1]...)
		}
		i = j + 1
	}
	return strings.Join(out, " ")
}

// The kinds of firmware that are told apart, one by one.
func TestBootFile(t *testing.T) {
	have := func(string) bool { return true }
	for _, c := range []struct {
		name string
		b    boot.Booter
		p    *boot.Profile
		want string
	}{
		{"BIOS", boot.Booter{Client: boot.Firmware, Arch: boot.BIOS}, nil, "undionly.kpxe"},
		{"UEFI", boot.Booter{Client: boot.Firmware, Arch: boot.EFIX64}, nil, "snponly-shimx64.efi"},
		{"UEFI with own drivers", boot.Booter{Client: boot.Firmware, Arch: boot.EFIX64}, &boot.Profile{Loader: "ipxe"}, "ipxe-shimx64.efi"},
		{"arm64", boot.Booter{Client: boot.Firmware, Arch: boot.EFIARM64}, nil, "arm64/snponly-shimaa64.efi"},
		{"IA32 has no shim", boot.Booter{Client: boot.Firmware, Arch: boot.EFIIA32}, nil, "i386/snponly.efi"},
		{"HTTP boot", boot.Booter{Client: boot.Firmware, Arch: boot.HTTPX64, ROM: boot.HTTPBoot}, nil, "http://10.0.0.1:8080/loader/snponly-shimx64.efi"},
		{"HTTP boot that says it is PXE's architecture", boot.Booter{Client: boot.Firmware, Arch: boot.EFIX64, ROM: boot.HTTPBoot}, nil, "http://10.0.0.1:8080/loader/snponly-shimx64.efi"},
		{"UEFI with GRUB", boot.Booter{Client: boot.Firmware, Arch: boot.EFIBC}, &boot.Profile{Loader: boot.GRUBLoader}, "shimx64.efi"},
		{"arm64 with GRUB, by HTTP", boot.Booter{Client: boot.Firmware, Arch: boot.HTTPARM64, ROM: boot.HTTPBoot}, &boot.Profile{Loader: boot.GRUBLoader}, "http://10.0.0.1:8080/loader/arm64/shimaa64.efi"},
		{"BIOS has no shim", boot.Booter{Client: boot.Firmware, Arch: boot.BIOS}, &boot.Profile{Loader: boot.GRUBLoader}, "undionly.kpxe"},
		{"iPXE", boot.Booter{Client: boot.IPXE, Arch: boot.BIOS}, nil, "http://10.0.0.1:8080/boot.ipxe"},
		{"a card's iPXE without HTTP", boot.Booter{Client: boot.IPXE, Arch: boot.BIOS, Features: boot.FeatureBzImage}, nil, "undionly.kpxe"},
		{"a card's iPXE that starts no kernels", boot.Booter{Client: boot.IPXE, Arch: boot.EFIX64, Features: boot.FeatureHTTP | boot.FeatureBzImage}, nil, "http://10.0.0.1:8080/loader/snponly-shimx64.efi"},
	} {
		got, ok := boot.BootFile(c.b, c.p, have, "http://10.0.0.1:8080")
		if !ok || got != c.want {
			t.Errorf("%s: %q, %t, want %q", c.name, got, ok, c.want)
		}
	}
}
