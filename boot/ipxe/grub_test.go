package ipxe_test

import (
	"bytes"
	"net/http"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/boot/ipxe"
)

func TestGRUBScripts(t *testing.T) {
	quoted := boot.Profile{Args: []string{`dyndbg="file x +p"`, "systemd.show_status=1"}, Console: []string{"ttyS0,115200n8"}}
	got := map[string][]byte{
		"boot.cfg":        ipxe.GRUBFirst(base, "RUN1"),
		"boot-8080.cfg":   ipxe.GRUBFirst(base+":8080", "RUN1"),
		"local-disk.cfg":  ipxe.GRUBLocalDisk("node1", "worker"),
		"wait.cfg":        ipxe.GRUBWait("No profile yet.", "- {name: 'node1'}"),
		"reacquire.cfg":   ipxe.GRUBReacquire("bootd gives no script."),
		"coreos-http.cfg": nil, "coreos-tftp.cfg": nil, "initrd-http.cfg": nil, "linux-tftp.cfg": nil,
	}
	for name, p := range map[string]ipxe.Params{
		"coreos-http.cfg": params(coreOS, quoted),
		"coreos-tftp.cfg": params(coreOS, quoted),
		"initrd-http.cfg": params(flatcar, boot.Profile{Delivery: boot.ByInitrd}),
		"linux-tftp.cfg":  params(rescue, boot.Profile{}),
	} {
		var err error
		if got[name], err = ipxe.GRUBScript(p, strings.Contains(name, "http")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range got {
		golden(t, "grub/"+name, b)
		checkGRUB(t, b)
	}
}

// checkGRUB has GRUB's own parser look at a script, where it is installed.
func checkGRUB(t *testing.T, script []byte) {
	t.Helper()
	program, err := exec.LookPath("grub-script-check")
	if err != nil {
		t.Log("grub-script-check is not installed (apt install grub-common)")
		return
	}
	c := exec.CommandContext(t.Context(), program)
	c.Stdin = bytes.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %s\n%s", err, out, script)
	}
}

// What GRUB would change on its way to the kernel.
func TestGRUBArguments(t *testing.T) {
	for _, tt := range []struct{ arg, words, err string }{
		{arg: "quiet", words: "'quiet'"},
		{arg: "mitigations=off quiet", words: "'mitigations=off' 'quiet'"},
		{arg: "a=$x;y&z|#{}", words: "'a=$x;y&z|#{}'"},
		{arg: `a="b c d" e`, words: "'a=b c d' 'e'"},
		{arg: `"a=b c" d="e"`, words: "'a=b c' 'd=e'"},
		{arg: `a="b c`, err: `a " without another one`},
		{arg: `a=it's`, err: "which GRUB would change"},
		{arg: `a=\x20`, err: "which GRUB would change"},
		{arg: strings.Repeat("a", 1600), words: "'" + strings.Repeat("a", 1600) + "'"},
		{arg: strings.Repeat("a", 2000), err: "shorten args"},
	} {
		got, err := ipxe.GRUBScript(params(rescue, boot.Profile{Args: []string{tt.arg}}), true)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.arg, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.arg, err)
		case !strings.Contains(string(got), " 'BOOTIF=01-52-54-00-00-00-01' "+tt.words+"; then\n"):
			t.Errorf("%s:\n%s", tt.arg, got)
		}
	}
}

// asGRUB is a machine whose firmware has its address, from where GRUB asks.
func asGRUB(w *world) {
	w.profiles[node1].Loader = boot.GRUBLoader
	w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: boot.Offered, Client: boot.Firmware})
	w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: boot.Leased, Client: boot.Firmware, Addr: addr1})
}

var grubAsk = "/grub?" + strings.TrimPrefix(ask, "/ipxe?") + "&run=RUN1"

// TestGRUBBoots walks a machine from GRUB's first script to its config, by HTTP
// and by TFTP.
func TestGRUBBoots(t *testing.T) {
	for _, by := range []string{"http", "tftp"} {
		t.Run(by, func(t *testing.T) {
			w := newWorld(t)
			asGRUB(w)
			get := func(path string) string {
				t.Helper()
				if by == "tftp" {
					b, _, ok := w.handler.File(t.Context(), path[1:], addr1, base)
					if !ok {
						t.Fatalf("%s is not there", path)
					}
					return string(b)
				}
				code, body := w.get(addr1, path)
				if code != http.StatusOK {
					t.Fatalf("%s: %d", path, code)
				}
				return body
			}
			if first := get("/grub/grub.cfg"); !strings.Contains(first, `source "${from}/grub?${ask}"`) {
				t.Errorf("the first script:\n%s", first)
			}
			script := get(grubAsk)
			if !strings.Contains(script, "linux '("+by+",10.0.0.1)/") || !strings.Contains(script, "initrd '("+by+",10.0.0.1)/") {
				t.Errorf("not by %s:\n%s", by, script)
			}
			ticket := ticketPattern.FindStringSubmatch(script)
			if ticket == nil {
				t.Fatalf("no ticket in\n%s", script)
			}
			for _, f := range []boot.ImageFile{coreOS.Kernel, coreOS.Initrds[0]} {
				w.handler.Delivered(addr1, ipxe.Transfer{Digest: f.SHA256, Size: f.Size, Bytes: f.Size, Complete: true})
			}
			if code, body := w.get(addr1, "/ignition/"+ticket[1]); code != 200 || !strings.Contains(body, secret) {
				t.Errorf("its config: %d %s", code, body)
			}
			tl, _ := w.boots.Current(node1)
			var got []string
			for _, s := range tl.Steps {
				got = append(got, string(s.Stage)+" by "+string(s.Client)+" "+s.Text)
			}
			want := []string{"offered by firmware ", "leased by firmware ",
				"script by GRUB profile worker, image fedora-coreos/stable 42.20250901.3.0",
				"kernel by GRUB " + coreOS.Kernel.Name, "initrd by GRUB " + coreOS.Initrds[0].Name, "ignition by initramfs by URL"}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("on record (-want +got):\n%s", d)
			}
		})
	}
}

// TestGRUBConfigAsInitrd: by TFTP, too, the config can be one of the initrds, once
// for the boot that it was made for.
func TestGRUBConfigAsInitrd(t *testing.T) {
	w := newWorld(t)
	w.profiles[node1].Delivery = boot.ByInitrd
	asGRUB(w)
	script, _, _ := w.handler.File(t.Context(), grubAsk[1:], addr1, base)
	m := regexp.MustCompile(`'\(tftp,10\.0\.0\.1\)/(initrd/[^/]+/config\.cpio)'`).FindSubmatch(script)
	if m == nil {
		t.Fatalf("no config in\n%s", script)
	}
	name := string(m[1])
	if _, _, ok := w.handler.File(t.Context(), name, addr2, base); ok {
		t.Error("another machine has it")
	}
	if _, _, ok := w.handler.File(t.Context(), name+"x", addr1, base); ok {
		t.Error("a name that was never given leads to it")
	}
	body, sent, ok := w.handler.File(t.Context(), name, addr1, base)
	if !ok || !strings.Contains(string(body), secret) {
		t.Fatalf("%t, %d bytes", ok, len(body))
	}
	if stages := w.boots.stages(node1); slices.Contains(stages, boot.Ignition) {
		t.Errorf("before it was sent, stages are %v", stages)
	}
	sent(time.Second)
	tl, _ := w.boots.Current(node1)
	if i := len(tl.Steps) - 1; tl.Steps[i].Stage != boot.Ignition || tl.Steps[i].Client != boot.GRUB {
		t.Errorf("after it was sent, steps are %+v", tl.Steps)
	}
}

// What GRUB is told instead of a boot.
func TestGRUBIsTold(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setUp func(*world)
		want  string
	}{
		{"no entry", func(w *world) { asGRUB(w); delete(w.profiles, node1) }, "has no profile for this machine"},
		{"the local disk", func(w *world) { asGRUB(w); w.profiles[node1] = &boot.Profile{Name: "disk", Loader: boot.GRUBLoader} }, "chainloader"},
		{"ESXi", func(w *world) {
			asGRUB(w)
			w.profiles[node1].Image = "esxi/8.0"
			w.images["esxi/8.0 x86_64"] = boot.Image{Name: "esxi/8.0", Family: boot.ESXi, ESXi: &boot.ESXiMedium{}}
		}, "image esxi/8.0 is installed by iPXE only, and this is GRUB"},
		{"an argument that it would change", func(w *world) { asGRUB(w); w.profiles[node1].Args = []string{`a\b`} }, "which GRUB would change"},
		{"a system that is up", func(w *world) {
			asGRUB(w)
			w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: boot.Up})
		}, "has not asked for an address since"},
		{"nobody has asked for an address", func(*world) {}, "has not asked for an address since"},
		{"another loader was offered", func(w *world) { asGRUB(w); w.profiles[node1].Loader = "" }, "does not say loader: grub"},
		{"another address", func(w *world) { asGRUB(w); w.leases[addr1] = node2 }, "its address is not leased to it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.setUp(w)
			code, body := w.get(addr1, grubAsk)
			if code != 200 || !strings.Contains(body, tt.want) || ticketPattern.MatchString(body) {
				t.Errorf("%d\n%s", code, body)
			}
			checkGRUB(t, []byte(body))
		})
	}
}

// Only iPXE that has got an address itself gets a script for iPXE.
func TestFirmwareIsNotIPXE(t *testing.T) {
	w := newWorld(t)
	asGRUB(w)
	if _, body := w.get(addr1, ask); !strings.Contains(body, "has not asked for an address since") {
		t.Errorf("with the address of its firmware, iPXE gets\n%s", body)
	}
}

func TestExtlinux(t *testing.T) {
	for name, p := range map[string]ipxe.Params{
		"coreos.conf": params(coreOS, boot.Profile{Console: []string{"ttyS0,115200n8"}, Args: []string{"quiet"}}),
		"linux.conf":  params(boot.Image{Name: "rescue", Version: "1", Family: boot.Linux, Kernel: rescue.Kernel}, boot.Profile{Delivery: boot.ByInitrd}),
	} {
		got, err := ipxe.Extlinux(p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		golden(t, "extlinux/"+name, got)
	}
	for want, p := range map[string]ipxe.Params{
		"image rescue has 2":  params(rescue, boot.Profile{}),
		"say delivery: url":   params(coreOS, boot.Profile{Delivery: boot.ByInitrd}),
		`would change a $`:    params(coreOS, boot.Profile{Args: []string{"a=$b"}}),
		"shorten args":        params(coreOS, boot.Profile{Args: []string{strings.Repeat("a", 2000)}}),
		"has spaces that":     params(coreOS, boot.Profile{Args: []string{"a  b"}}),
		"profile worker by U": params(coreOS, boot.Profile{Args: []string{`\`}}),
	} {
		if _, err := ipxe.Extlinux(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestUBoot: only U-Boot gets a file of pxelinux's names from bootd, and only the
// one of its own card.
func TestUBoot(t *testing.T) {
	const own = "pxelinux.cfg/01-52-54-00-00-00-01"
	uboot := func(w *world, mac boot.MAC, a boot.Arch, addr netip.Addr) {
		inv := boot.Inventory{MAC: mac, Arch: a, ArchKnown: true}
		w.boots.Record(boot.Event{Time: time.Now(), MAC: mac, Stage: boot.Offered, Client: boot.Firmware, Inventory: inv})
		w.boots.Record(boot.Event{Time: time.Now(), MAC: mac, Stage: boot.Leased, Client: boot.Firmware, Addr: addr, Inventory: inv})
	}
	w := newWorld(t)
	arm := coreOS
	arm.CPU = "aarch64"
	w.images["fedora-coreos/stable aarch64"] = arm
	if _, _, ok := w.handler.File(t.Context(), own, addr1, base); ok {
		t.Error("a machine that was never seen gets a script")
	}
	uboot(w, node1, boot.BIOS, addr1)
	if _, _, ok := w.handler.File(t.Context(), own, addr1, base); ok {
		t.Error("pxelinux gets a script of bootd's")
	}
	uboot(w, node1, boot.UBootA64, addr1)
	for _, name := range []string{"pxelinux.cfg/default", "pxelinux.cfg/default-arm", "pxelinux.cfg/0A00000B", "pxelinux.cfg/01-", "pxelinux.cfg/01-52-54-00-00-00-02", "pxelinux.cfg/01-%", "%", ""} {
		if b, _, ok := w.handler.File(t.Context(), name, addr1, base); ok {
			t.Errorf("%s is there:\n%s", name, b)
		}
	}
	b, _, ok := w.handler.File(t.Context(), own, addr1, base)
	ticket := ticketPattern.FindStringSubmatch(string(b))
	if !ok || ticket == nil || !regexp.MustCompile(`(?m)^KERNEL sha256/1{64}$`).Match(b) {
		t.Fatalf("its script:\n%s", b)
	}
	if code, body := w.get(addr1, "/ignition/"+ticket[1]); code != 200 || !strings.Contains(body, secret) {
		t.Errorf("its config: %d %s", code, body)
	}
	delete(w.profiles, node1)
	w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: boot.Offered, Client: boot.Firmware})
	uboot(w, node1, boot.UBootA64, addr1)
	if b, _, ok := w.handler.File(t.Context(), own, addr1, base); ok {
		t.Errorf("without an entry the operator's files are hidden by\n%s", b)
	}
	if stages := w.boots.stages(node1); stages[len(stages)-1] != boot.Waiting {
		t.Errorf("without an entry its stages are %v", stages)
	}
}

// Whatever names hold, a script stays what it is: quoted words in GRUB's, lines of
// known keys in U-Boot's.
func FuzzOtherLoaders(f *testing.F) {
	f.Add("node1", "quiet", "vmlinuz", "1.0")
	f.Add("a\nreboot", `x="a b" 'c`, "../../x'y", "';reboot;'")
	f.Add("MENU", "a\\", "f", "\x1b[2J")
	word := `'[^'\n]*'`
	grub := regexp.MustCompile(`^echo ` + word + `(?:\\'` + word + `)*\nif linux(?: ` + word + `)+; then\nif initrd ` + word + `; then\nboot\nfi\nfi\necho ` + word + `(?:\\'` + word + `)*\n$`)
	extlinux := regexp.MustCompile(`^PROMPT 0\nDEFAULT bootd\nLABEL bootd\nMENU LABEL [ -~]*\nKERNEL sha256/[0-9a-f]{64}\nINITRD sha256/[0-9a-f]{64}\nAPPEND [ -~]*\n$`)
	f.Fuzz(func(t *testing.T, name, arg, file, version string) {
		img := coreOS
		img.Kernel.Name, img.Version = file, version
		p := params(img, boot.Profile{Args: []string{arg}})
		p.Name = name
		for _, http := range []bool{false, true} {
			if b, err := ipxe.GRUBScript(p, http); err == nil && !grub.Match(b) {
				t.Errorf("GRUB:\n%s", b)
			}
		}
		if b, err := ipxe.Extlinux(p); err == nil && !extlinux.Match(b) {
			t.Errorf("U-Boot:\n%s", b)
		}
	})
}
