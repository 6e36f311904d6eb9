package ipxe_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/boot/ipxe"
)

var update = flag.Bool("update", false, "write golden files")

const base = "http://10.0.0.1"

var (
	node1 = boot.MAC{0x52, 0x54, 0, 0, 0, 1}

	coreOS = boot.Image{
		Name: "fedora-coreos/stable", Version: "42.20250901.3.0", Family: boot.FedoraCoreOS, CPU: "x86_64",
		Kernel:  boot.ImageFile{Name: "fedora-coreos-42.20250901.3.0-live-kernel.x86_64", SHA256: strings.Repeat("1", 64), Size: 17},
		Initrds: []boot.ImageFile{{Name: "fedora-coreos-42.20250901.3.0-live-initramfs.x86_64.img", SHA256: strings.Repeat("2", 64), Size: 18}},
		RootFS:  &boot.ImageFile{Name: "fedora-coreos-42.20250901.3.0-live-rootfs.x86_64.img", SHA256: strings.Repeat("3", 64), Size: 19},
	}
	flatcar = boot.Image{
		Name: "flatcar/stable", Version: "4230.2.2", Family: boot.Flatcar, CPU: "x86_64",
		Kernel:  boot.ImageFile{Name: "flatcar_production_pxe.vmlinuz", SHA256: strings.Repeat("4", 64), Size: 20},
		Initrds: []boot.ImageFile{{Name: "flatcar_production_pxe_image.cpio.gz", SHA256: strings.Repeat("5", 64), Size: 21}},
	}
	rescue = boot.Image{
		Name: "rescue", Version: "1 (of May)", Family: boot.Linux, CPU: "x86_64",
		Kernel:  boot.ImageFile{Name: "vmlinuz 6.12#1", SHA256: strings.Repeat("6", 64), Size: 22},
		Initrds: []boot.ImageFile{{Name: "initrd.img", SHA256: strings.Repeat("7", 64)}, {Name: "firmware.cpio", SHA256: strings.Repeat("8", 64)}},
	}
)

func params(img boot.Image, p boot.Profile) ipxe.Params {
	p.Name = "worker"
	return ipxe.Params{Base: base, Name: "node1", MAC: node1, Image: img, Profile: &p, Ticket: "TICKET"}
}

// golden compares with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s: -want +got:\n%s", path, d)
	}
}

func TestScripts(t *testing.T) {
	console := []string{"tty0", "ttyS0,115200n8"}
	for name, p := range map[string]ipxe.Params{
		"fedora-coreos-url.ipxe":    params(coreOS, boot.Profile{Console: console, Args: []string{"systemd.show_status=1", "mitigations=off quiet"}}),
		"fedora-coreos-initrd.ipxe": params(coreOS, boot.Profile{Delivery: boot.ByInitrd}),
		"flatcar-url.ipxe":          params(flatcar, boot.Profile{Console: console, Delivery: boot.ByURL, Args: []string{"flatcar.autologin"}}),
		"flatcar-initrd.ipxe":       params(flatcar, boot.Profile{Delivery: boot.ByInitrd}),
		"linux.ipxe":                params(rescue, boot.Profile{Delivery: boot.ByInitrd, Args: []string{`dyndbg="file x +p"`}}),
	} {
		got, err := ipxe.Script(p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden(t, name, got)
		checkScript(t, string(got))
	}
	for name, got := range map[string][]byte{
		"boot.ipxe":            ipxe.First(base, "RUN1"),
		"local-disk-bios.ipxe": ipxe.LocalDisk("node1", "worker", false),
		"local-disk-uefi.ipxe": ipxe.LocalDisk("node1", "worker", true),
		"wait.ipxe":            ipxe.Wait(base, "No profile yet.", "- {name: node1}"),
	} {
		golden(t, name, got)
		checkScript(t, string(got))
	}
}

// commands are those that the 2019 builds for BIOS and for UEFI both have, of
// those that bootd has a use for.
var commands = strings.Fields("echo set inc isset iseq goto exit sleep prompt shell chain kernel initrd imgfree boot dhcp ifclose cpuid reboot sanboot")

// settings are those that scripts may expand.
var settings = regexp.MustCompile(`^(version|platform|buildarch|cpu|run|try|n|uuid|memsize|(serial|manufacturer|product|asset):uristring|net(X|\$\{n\})/(mac|ip))$`)

// checkScript checks what holds for every script: each command is one that iPXE
// has, each label is there, nothing is expanded that is not ours, no line goes on
// in the next.
func checkScript(t *testing.T, script string) {
	t.Helper()
	if !strings.HasPrefix(script, "#!ipxe\n") || !strings.HasSuffix(script, "\n") {
		t.Fatalf("not a script: %q", script)
	}
	lines := strings.Split(strings.TrimSuffix(script, "\n"), "\n")
	for _, l := range lines[1:] {
		if strings.HasSuffix(l, `\`) || strings.ContainsFunc(l, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("line %q has characters that iPXE or a terminal may take for something", l)
		}
		if strings.HasPrefix(l, ":") {
			continue
		}
		for i, words := range splitCommands(l) {
			switch {
			case len(words) == 0 && i > 0: // what follows a || at the end of a line
			case len(words) == 0:
				t.Errorf("an empty line")
			case !slices.Contains(commands, words[0]):
				t.Errorf("line %q: %q is not a command", l, words[0])
			case words[0] == "goto" && !slices.Contains(lines, ":"+words[1]):
				t.Errorf("line %q: no such label", l)
			}
		}
		for _, s := range expansions(l) {
			if !settings.MatchString(s) {
				t.Errorf("line %q expands %q", l, s)
			}
		}
	}
}

func splitCommands(line string) [][]string {
	l := [][]string{nil}
	for _, w := range strings.Fields(line) {
		switch {
		case w == "||" || w == "&&" || w == ";":
			l = append(l, nil)
		case w[0] == '#':
			return l
		default:
			l[len(l)-1] = append(l[len(l)-1], w)
		}
	}
	return l
}

// expansions finds the ${...} of a line, the outermost of nested ones.
func expansions(line string) []string {
	var l []string
	for {
		_, rest, ok := strings.Cut(line, "${")
		if !ok {
			return l
		}
		depth, end := 1, len(rest)
		for i := range len(rest) {
			if strings.HasPrefix(rest[i:], "${") {
				depth++
			}
			if rest[i] == '}' {
				if depth--; depth == 0 {
					end = i
					break
				}
			}
		}
		l = append(l, rest[:end])
		line = rest[end:]
	}
}

// TestArgsThatCannotBeCarried is about arguments that iPXE would change on their
// way to the kernel.
func TestArgsThatCannotBeCarried(t *testing.T) {
	for _, arg := range []string{
		"", " ", "a\nshell", "a\rb", "a\tb", "a  b", " a", "a ", "x=${net0/mac}", "x=${", "a || shell", "a && shell", "a ; shell",
		"#x", "a #x", "ü", "a\x00b", "a\x7f", "||", ";",
	} {
		for _, p := range []boot.Profile{{Args: []string{"ok", arg}}, {Console: []string{arg + "\n"}}} {
			if got, err := ipxe.Script(params(coreOS, p)); err == nil {
				t.Errorf("%q became\n%s", arg, got)
			} else if !strings.Contains(err.Error(), "worker") {
				t.Errorf("%q: the error does not name the profile: %v", arg, err)
			}
		}
	}
	for _, arg := range []string{"a", "a=b", "a b", "x=$y", "x={}", "a#b", "a;b", "a||b", `a\`, `x="a b"`, "--", "-x", "%41", "$"} {
		got, err := ipxe.Script(params(coreOS, boot.Profile{Args: []string{arg}}))
		if err != nil {
			t.Errorf("%q: %v", arg, err)
			continue
		}
		checkScript(t, string(got))
		s := newSim(func(string, string) (string, bool) { return "", true }, &card{mac: "x", link: true})
		s.open = []int{0}
		if end := s.run(string(got)); end != booted || !strings.HasSuffix(s.kernel, " "+arg) {
			t.Errorf("%q: %s with %s", arg, end, s.kernel)
		}
	}
}

func TestCommandLineLength(t *testing.T) {
	probe := params(coreOS, boot.Profile{Args: []string{"x"}})
	script, err := ipxe.Script(probe)
	if err != nil {
		t.Fatal(err)
	}
	s := newSim(func(string, string) (string, bool) { return "", true }, &card{mac: "x"})
	s.open = []int{0}
	s.run(string(script))
	_, line, _ := strings.Cut(s.kernel, " ")
	room := 2047 - len(coreOS.Kernel.Name) - 1 - len(line) + 1

	probe.Profile.Args = []string{strings.Repeat("x", room)}
	if _, err := ipxe.Script(probe); err != nil {
		t.Errorf("2047 characters: %v", err)
	}
	probe.Profile.Args = []string{strings.Repeat("x", room+1)}
	if _, err := ipxe.Script(probe); err == nil || !strings.Contains(err.Error(), "2048 characters, 2047 are possible") {
		t.Errorf("2048 characters: %v", err)
	}
}

func TestUnknownFamily(t *testing.T) {
	img := coreOS
	img.Family = "windows"
	if _, err := ipxe.Script(params(img, boot.Profile{})); err == nil || !strings.Contains(err.Error(), `"windows"`) {
		t.Errorf("err = %v", err)
	}
}

// TestFirstScript runs the first script on machines with several cards.
func TestFirstScript(t *testing.T) {
	const a, b, c = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:0c"
	end := "#!ipxe\nreboot\n"
	for name, tt := range map[string]struct {
		cards  string // one word each: MAC's last letter, + with link; * it came through this one
		answer string // MAC that is answered
		end    string
		want   []string // how the log ends
	}{
		"the card it came through":   {"a+*", a, restarted, []string{"chain http://10.0.0.1/ipxe: true"}},
		"the second of two":          {"a b+*", b, restarted, []string{"chain http://10.0.0.1/ipxe: true"}},
		"nothing configured":         {"a+", a, restarted, []string{"DHCP on net0", "chain http://10.0.0.1/ipxe: true"}},
		"no cable in the first":      {"a b+", b, restarted, []string{"no DHCP on net0", "DHCP on net1", "chain http://10.0.0.1/ipxe: true"}},
		"the first in another place": {"a+ b+", b, restarted, []string{"DHCP on net0", "chain http://10.0.0.1/ipxe: false", "DHCP on net1", "chain http://10.0.0.1/ipxe: true"}},
		"it came through the wrong": {"a+* b c+", c, restarted, []string{
			"chain http://10.0.0.1/ipxe: false", "DHCP on net0", "chain http://10.0.0.1/ipxe: false", "no DHCP on net1", "DHCP on net2", "chain http://10.0.0.1/ipxe: true"}},
		"nobody answers": {"a+", "", restarted, []string{"pause", "DHCP on net0", "chain http://10.0.0.1/ipxe: false", "sleep 10"}},
		"no cards":       {"", "", restarted, []string{"pause", "pause", "sleep 10"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(func(mac, url string) (string, bool) {
				if !strings.Contains(url, "?mac="+mac+"&uuid=") {
					t.Errorf("asked by the card %s for %s", mac, url)
				}
				return end, mac == tt.answer
			})
			for i, w := range strings.Fields(tt.cards) {
				s.cards = append(s.cards, &card{mac: "52:54:00:00:00:0" + w[:1], link: strings.Contains(w, "+"), ip: strings.Contains(w, "*")})
				if s.cards[i].ip {
					s.open = append(s.open, i)
				}
			}
			if end := s.run(string(ipxe.First(base, "RUN1"))); end != tt.end {
				t.Fatalf("it %s: %q", end, s.log)
			}
			if n := len(tt.want); len(s.log) < n || !slices.Equal(s.log[len(s.log)-n:], tt.want) {
				t.Errorf("it did\n%s\nwant at the end\n%s", strings.Join(s.log, "\n"), strings.Join(tt.want, "\n"))
			}
			if tt.answer == "" && strings.Count(strings.Join(s.log, "\n"), "pause") != 29 {
				t.Errorf("it did not try 30 times: %q", s.log)
			}
		})
	}
}

// TestFailedDownload is about a kernel that cannot be fetched: the machine starts
// over, for a fresh script, and forgets what it had.
func TestFailedDownload(t *testing.T) {
	script, err := ipxe.Script(params(coreOS, boot.Profile{}))
	if err != nil {
		t.Fatal(err)
	}
	broken := true
	s := newSim(func(_, url string) (string, bool) {
		switch {
		case strings.HasSuffix(url, "/boot.ipxe"):
			broken = false
			return string(script), true
		case strings.Contains(url, "initramfs"):
			return "", !broken
		}
		return "", true
	}, &card{mac: "x"})
	s.open = []int{0}
	if end := s.run(string(script)); end != booted {
		t.Fatalf("it %s: %q", end, s.log)
	}
	if len(s.images) != 2 || len(s.initrds) != 1 {
		t.Errorf("it boots with %q", s.images)
	}
}

func TestLocalDisk(t *testing.T) {
	s := newSim(nil)
	if end := s.run(string(ipxe.LocalDisk("node1", "worker", false))); end != exited || !slices.Equal(s.log, []string{"sanboot", "exit 1"}) {
		t.Errorf("BIOS: it %s: %q", end, s.log)
	}
	s = newSim(nil)
	if end := s.run(string(ipxe.LocalDisk("node1", "worker", true))); end != exited || !slices.Equal(s.log, []string{"exit 1"}) {
		t.Errorf("UEFI: it %s: %q", end, s.log)
	}
}

// FuzzScript: whatever a profile, an image or a machine's own description says,
// the script has the commands it would have had, and the kernel gets each argument
// as it was written; or the script is refused.
func FuzzScript(f *testing.F) {
	f.Add("node1", "quiet", "ttyS0", "vmlinuz", "1.0")
	f.Add("a\nshell", "x ${uuid}", "tty0\n", "../../x", "|| shell")
	f.Add("-n --x", "a || shell", "#", "a b\nc", "${version}")
	f.Add(`\`, "&&", ";", "ü%0a", "\x1b[2J")
	f.Add(" -x ; shell", "a", "tty0", "f", "; shell ;")
	f.Fuzz(func(t *testing.T, name, arg, console, file, version string) {
		img := coreOS
		img.Kernel.Name, img.Version = file, version
		p := params(img, boot.Profile{Args: []string{arg}, Console: []string{console}})
		p.Name = name
		script, err := ipxe.Script(p)
		if err == nil {
			checkScript(t, string(script))
			if n := strings.Count(string(script), "\n"); n != 15 {
				t.Errorf("%d lines instead of 15:\n%s", n, script)
			}
			s := newSim(func(string, string) (string, bool) { return "", true }, &card{mac: "x"})
			s.open = []int{0}
			if end := s.run(string(script)); end != booted || !strings.HasSuffix(s.kernel, " console="+console+" "+arg) {
				t.Errorf("it %s with %s", end, s.kernel)
			}
		}
		checkScript(t, string(ipxe.Wait(base, name, arg, version)))
		checkScript(t, string(ipxe.LocalDisk(name, version, false)))
	})
}
