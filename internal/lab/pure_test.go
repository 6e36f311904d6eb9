package lab

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
)

var update = flag.Bool("update", false, "write the golden files")

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestArguments(t *testing.T) {
	h := hardware{accel: TCG, tap: "tap525400770011", console: "/run/x/m.console", qmp: "/run/x/m.qmp", vars: "/run/x/m.vars"}
	m := Machine{
		Name: "m", MAC: boot.MAC{0x52, 0x54, 0, 0x77, 0, 0x11}, Memory: 1024, CPUs: 2, NIC: "virtio-net-pci",
		UUID: "77000000-0000-4000-8000-525400770011", Serial: "S1", Manufacturer: "A, B", Product: "P",
	}
	for _, f := range []Firmware{BIOS, UEFI, UEFIHTTP, UEFISecure} {
		t.Run(string(f), func(t *testing.T) {
			m.Firmware = f
			got := strings.Join(m.arguments(h), "\n") + "\n"
			golden := filepath.Join("testdata", "qemu-"+string(f)+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(read(t, golden), got); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
	h.accel = KVM
	if args := m.arguments(h); !slices.Contains(args, "kvm") || !slices.Contains(args, "host") {
		t.Errorf("with KVM: %q", args)
	}
}

// A console as a machine wrote it, in pieces of every size.
func TestMarkers(t *testing.T) {
	type marker struct {
		Name   string
		Uptime time.Duration
	}
	for _, file := range []string{"bios", "uefi"} {
		text := read(t, filepath.Join("testdata", file+".console"))
		var want []marker
		for _, f := range strings.Fields(read(t, filepath.Join("testdata", file+".markers"))) {
			name, up, _ := strings.Cut(f, "@")
			d, err := time.ParseDuration(up)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, marker{strings.ReplaceAll(name, "_", " "), d})
		}
		for _, piece := range []int{1, 7, 1000, len(text)} {
			var c console
			var got []marker
			for b := range slices.Chunk([]byte(text), piece) {
				for _, m := range c.feed(b) {
					got = append(got, marker{m.Name, m.Uptime})
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s in pieces of %d (-want +got):\n%s", file, piece, diff)
			}
		}
	}
}

func TestParseLine(t *testing.T) {
	for line, want := range map[string]string{
		"http://10.77.0.1/boot.ipxe... ok":                                                           "script",
		"http://10.77.0.1/ipxe?mac=52:54:00:77:00:11&uuid=7... ok":                                   "script",
		"http://10.77.0.1/assets/sha256/ab/bootd-lab-12.1-live-kernel.x86_64... ok":                  "kernel",
		"http://10.77.0.1/assets/sha256/ab/bootd-lab-12.1-live-initramfs.x86_64.img... ok":           "initrd",
		"http://10.77.0.1/52-54-00-77-00-12.cpio... ok":                                              "file",
		"http://10.77.0.1/a-live-kernel.x86_64... 47%\b\b\b\b    \b\b\b\b 93%\b\b\b\b    \b\b\b\bok": "kernel",
		"http://10.77.0.1/boot.ipxe..... ok":                                                         "script",
		"http://10.77.0.1/boot.ipxe... Connection reset (http://ipxe.org/0f0a6095)":                  "",
		"http://10.77.0.1/boot.ipxe...":                                                              "",
		"bios login: LAB[19.27] engine up":                                                           "engine up",
		"LAB[2.84] network eth0 10.77.0.11":                                                          "network",
		"LAB[5.53] FATAL: Ignition stage files failed":                                               "FATAL",
		"[    2.034] Kernel panic - not syncing: VFS: Unable to mount root fs":                       "FATAL",
		"iPXE initialising devices...ok":                                                             "ipxe",
		"\x1b[0;37;40m>>Start PXE over IPv4.\x1b[1;1H":                                               "pxe",
		"LAB[x] joined": "",
		"":              "",
	} {
		m, ok := parseLine(line)
		if m.Name != want || ok != (want != "") {
			t.Errorf("parseLine(%q) = %q, %v; want %q", line, m.Name, ok, want)
		}
	}
}

func TestParseStat(t *testing.T) {
	const stat = "4242 (a) b) R 1 4242 4242 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 18446744073709551615\n"
	if start, state, err := parseStat(stat); start != 987654 || state != 'R' || err != nil {
		t.Errorf("parseStat = %d, %c, %v", start, state, err)
	}
	for _, bad := range []string{"", "1 (x)", "1 (x) R 1 2 3"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) succeeds", bad)
		}
	}
}

// This process is alive; the one that had its PID before it is not.
func TestAlive(t *testing.T) {
	me := find(os.Getpid())
	if !me.alive() {
		t.Error("this process is not alive")
	}
	for _, p := range []process{{me.PID, me.Start - 1}, {}, {-1, 0}} {
		if p.alive() {
			t.Errorf("process %+v is alive", p)
		}
	}
}

func TestMissing(t *testing.T) {
	nothing := func(string) bool { return false }
	but := func(there ...string) func(string) bool {
		return func(n string) bool { return !slices.Contains(there, n) }
	}
	debian := func(v string) map[string]string { return map[string]string{"ID": "debian", "VERSION_ID": v} }
	if got := missing(debian("12"), true, func(string) bool { return true }); len(got) != 0 {
		t.Errorf("where all is there, %v is missing", got)
	}
	if got := missing(debian("12"), false, nothing); slices.Contains(got, "nginx-light") || !slices.Contains(got, "qemu-system-x86") {
		t.Errorf("without tests: %v", got)
	}
	if got := missing(debian("12"), true, nothing); !slices.Contains(got, "nginx-light") || slices.Contains(got, "docker-cli") {
		t.Errorf("with tests: %v", got)
	}
	for _, tt := range []struct {
		osr  map[string]string
		want []string
	}{
		{debian("12"), []string{"cpio", "docker.io"}},
		{debian("13"), []string{"cpio", "docker-cli"}},
		{map[string]string{"ID": "ubuntu", "VERSION_ID": "24.04"}, []string{"cpio", "docker.io"}},
		{nil, []string{"cpio", "docker.io"}},
	} {
		if diff := cmp.Diff(tt.want, missing(tt.osr, true, but("cpio", "docker"))); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.osr, diff)
		}
	}
}

func TestImageCurrent(t *testing.T) {
	i := func(recipe, kernel string) Image {
		if kernel == "" {
			return Image{Recipe: recipe}
		}
		return Image{Recipe: recipe, Package: map[string]string{"linux": kernel}}
	}
	for _, tt := range []struct {
		have, want Image
		current    bool
	}{
		{i("r", "1"), i("r", "1"), true},
		{i("r", "1"), i("s", "1"), false},
		{i("r", "1"), i("r", "2"), false},
		{i("r", "1"), i("r", ""), true}, // apt's lists are empty
		{i("r", ""), i("r", "1"), false},
	} {
		if got := tt.have.current(tt.want); got != tt.current {
			t.Errorf("%+v current for %+v: %v", tt.have, tt.want, got)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	got := parsePolicy(`docker.io:
  Installed: (none)
  Candidate: 20.10.24+dfsg1-1
  Version table:
     20.10.24+dfsg1-1 500
linux-image-virtual:
  Installed: (none)
  Candidate: (none)
ignition:
  Installed: 1
  Candidate: 2
`)
	if diff := cmp.Diff(map[string]string{"docker.io": "20.10.24+dfsg1-1", "ignition": "2"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReplaceDir(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, text := range []string{"first", "second"} {
		if err := os.MkdirAll(from, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, "f"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := replaceDir(from, to); err != nil {
			t.Fatal(err)
		}
		if got := read(t, filepath.Join(to, "f")); got != text {
			t.Errorf("holds %q, want %q", got, text)
		}
	}
	if got := read(t, filepath.Join(from, "f")); got != "first" {
		t.Errorf("what was replaced holds %q", got)
	}
}

func TestNew(t *testing.T) {
	for name, ok := range map[string]bool{"demo": true, "e2e-1": true, "": false, "Demo": false, "../x": false, "a/b": false, "a-name-that-is-too-long": false} {
		if _, err := New(name); (err == nil) != ok {
			t.Errorf("New(%q): %v", name, err)
		}
	}
}
