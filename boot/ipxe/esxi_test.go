package ipxe_test

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bootd/boot"
	"bootd/boot/ipxe"
)

func esxiFile(name string, digit string) boot.ImageFile {
	return boot.ImageFile{Name: name, SHA256: strings.Repeat(digit, 64), Size: 100}
}

var esxi = boot.Image{
	Name: "esxi/8.0", Version: "8.0.3-0.0.24022510", Family: boot.ESXi, CPU: "x86_64",
	Kernel:  esxiFile("b.b00", "a"),
	Initrds: []boot.ImageFile{esxiFile("jumpstrt.gz", "b"), esxiFile("s.v00", "c"), esxiFile("imgdb.tgz", "d")},
	ESXi: &boot.ESXiMedium{
		Title: "Loading ESXi installer", KernelOpt: "runweasel",
		Settings:      []boot.ESXiSetting{{Key: "timeout", Value: "5"}},
		ModuleOptions: map[string]string{"s.v00": "x=1"},
		EFI:           new(esxiFile("mboot.efi", "e")), BIOS: new(esxiFile("mboot.c32", "f")),
		Crypto: new(esxiFile("crypto64.efi", "0")), PXELinux: new(esxiFile("pxelinux.0", "1")),
	},
}

const hash = "$6$saltsalt$" + "QFmFH1bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"

var hosts = &boot.Profile{Name: "hypervisor", Image: "esxi/8.0", Host: &boot.Host{RootPasswordHash: hash}}

func esxiParams() ipxe.ESXiParams {
	return ipxe.ESXiParams{
		Base: base, Image: esxi, Ticket: "TICKET", ReportURL: base + "/report/REPORT",
		Assignment: boot.Assignment{
			Name: "esx1", Profile: hosts, Machine: &boot.Machine{Name: "esx1", IP: addr1},
			Inventory: boot.Inventory{MAC: node1, Addr: addr1, Arch: boot.EFIX64, ArchKnown: true},
			Network: &boot.Network{Name: "eth1", Subnet: segment.Subnet, Router: netip.MustParseAddr("10.0.0.254"), Domain: "example.com",
				DNS: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")}, NTP: []netip.Addr{netip.MustParseAddr("10.0.0.4")}},
		},
	}
}

func TestESXiGolden(t *testing.T) {
	full := *hosts
	full.Args, full.SSHKeys = []string{"allowLegacyCPU=true"}, []string{"ssh-ed25519 AAAA it's me"}
	full.Host = &boot.Host{
		RootPasswordHash: hash, SSH: new(true), Static: new(true), NTP: []string{"ntp1.example.com", "10.0.0.5"}, NIC: "vmnic1", VLAN: 20,
		Disk: "firstdisk=local,usb", License: "00000-00000-00000-00000-00000", Keyboard: "German", FirstBoot: "esxcli system maintenanceMode set -e true\n",
		VMFS: boot.VMFSPreserve,
	}
	for name, tt := range map[string]struct {
		make   func(ipxe.ESXiParams) ([]byte, error)
		change func(*ipxe.ESXiParams)
	}{
		"esxi/uefi.ipxe":    {ipxe.ESXiScript, nil},
		"esxi/bios.ipxe":    {ipxe.ESXiScript, func(p *ipxe.ESXiParams) { p.Assignment.Inventory.Arch = boot.BIOS }},
		"esxi/pxelinux.cfg": {ipxe.PXELinuxCfg, nil},
		"esxi/boot.cfg":     {ipxe.BootCfg, nil},
		"esxi/full-boot.cfg": {ipxe.BootCfg, func(p *ipxe.ESXiParams) {
			p.Assignment.Profile = &full
		}},
		"esxi/ks.cfg": {ipxe.Kickstart, nil},
		"esxi/ordered-ks.cfg": {ipxe.Kickstart, func(p *ipxe.ESXiParams) {
			p.Ordered, p.Base, p.ReportURL = true, base+":8080", base+":8080/report/REPORT"
		}},
		"esxi/full-ks.cfg": {ipxe.Kickstart, func(p *ipxe.ESXiParams) { p.Assignment.Profile, p.Ordered = &full, true }},
	} {
		t.Run(name, func(t *testing.T) {
			p := esxiParams()
			if tt.change != nil {
				tt.change(&p)
			}
			got, err := tt.make(p)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, got)
			if strings.HasSuffix(name, ".ipxe") {
				checkScript(t, string(got))
			}
			for _, s := range sections(string(got)) {
				if strings.Contains(s.head, "busybox") {
					check(t, s.text, "sh", "-n")
				}
			}
		})
	}
}

// A sectionText is a script in a ks.cfg.
type sectionText struct{ head, text string }

func sections(ks string) []sectionText {
	var l []sectionText
	for line := range strings.Lines(ks) {
		switch {
		case strings.HasPrefix(line, "%"):
			l = append(l, sectionText{head: strings.TrimSpace(line)})
		case len(l) > 0:
			l[len(l)-1].text += line
		}
	}
	return l
}

// check runs a program on a text.
func check(t *testing.T, text, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	c := exec.Command(path, args...)
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s\n%s", name, err, out, text)
	}
}

// TestESXiRefuses is about what could not be installed, or would become
// something else on the way.
func TestESXiRefuses(t *testing.T) {
	host := func(change func(*boot.Host)) func(*ipxe.ESXiParams) {
		return func(p *ipxe.ESXiParams) {
			h, q := *hosts.Host, *hosts
			change(&h)
			q.Host = &h
			p.Assignment.Profile = &q
		}
	}
	medium := func(change func(*boot.ESXiMedium)) func(*ipxe.ESXiParams) {
		return func(p *ipxe.ESXiParams) { m := *esxi.ESXi; change(&m); p.Image.ESXi = &m }
	}
	bios := func(p *ipxe.ESXiParams) { p.Assignment.Inventory.Arch = boot.BIOS }
	for name, tt := range map[string]struct {
		make   func(ipxe.ESXiParams) ([]byte, error)
		change []func(*ipxe.ESXiParams)
		want   string
	}{
		"no password":  {ipxe.Kickstart, []func(*ipxe.ESXiParams){host(func(h *boot.Host) { h.RootPasswordHash = "" })}, "openssl passwd -6"},
		"no section":   {ipxe.Kickstart, []func(*ipxe.ESXiParams){func(p *ipxe.ESXiParams) { p.Assignment.Profile = &boot.Profile{Name: "x"} }}, "root_password_hash is not set"},
		"two lines":    {ipxe.Kickstart, []func(*ipxe.ESXiParams){host(func(h *boot.Host) { h.License = "x\n%pre" })}, "esxi.license"},
		"a command":    {ipxe.Kickstart, []func(*ipxe.ESXiParams){host(func(h *boot.Host) { h.NTP = []string{"a;reboot"} })}, "esxi.ntp"},
		"a section":    {ipxe.Kickstart, []func(*ipxe.ESXiParams){host(func(h *boot.Host) { h.FirstBoot = "true\n %post\n" })}, `"%post" would begin a section`},
		"no own ip":    {ipxe.Kickstart, []func(*ipxe.ESXiParams){host(func(h *boot.Host) { h.Static = new(true) }), func(p *ipxe.ESXiParams) { p.Assignment.Machine = nil }}, "no ip in its entry"},
		"another net":  {ipxe.BootCfg, []func(*ipxe.ESXiParams){host(func(h *boot.Host) { h.Static = new(true) }), func(p *ipxe.ESXiParams) { p.Assignment.Network = nil }}, "not in the subnet"},
		"UEFI only":    {ipxe.ESXiScript, []func(*ipxe.ESXiParams){bios, medium(func(m *boot.ESXiMedium) { m.BIOS = nil })}, "boots by UEFI only"},
		"BIOS only":    {ipxe.ESXiScript, []func(*ipxe.ESXiParams){medium(func(m *boot.ESXiMedium) { m.EFI = nil })}, "no loader for UEFI"},
		"32-bit UEFI":  {ipxe.ESXiScript, []func(*ipxe.ESXiParams){func(p *ipxe.ESXiParams) { p.Assignment.Inventory.Arch = boot.EFIIA32 }}, "does not boot under UEFI IA32"},
		"arm64":        {ipxe.ESXiScript, []func(*ipxe.ESXiParams){func(p *ipxe.ESXiParams) { p.Assignment.Inventory.Arch = boot.EFIARM64 }}, "does not boot under UEFI ARM64"},
		"bad argument": {ipxe.BootCfg, []func(*ipxe.ESXiParams){func(p *ipxe.ESXiParams) { p.Assignment.Profile = &boot.Profile{Args: []string{"a\nb"}} }}, "not printable"},
	} {
		t.Run(name, func(t *testing.T) {
			p := esxiParams()
			for _, f := range tt.change {
				f(&p)
			}
			if got, err := tt.make(p); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q\n%s", err, tt.want, got)
			}
		})
	}
}

// installs remembers as the real one does, until it ends.
type installs struct {
	mu     sync.Mutex
	states map[boot.MAC]boot.InstallState
	broken bool
}

func (i *installs) State(mac boot.MAC) boot.InstallState {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.states[mac]
}

func (i *installs) Done(_ context.Context, mac boot.MAC, id string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.broken {
		return errors.New("no space left on device")
	}
	i.states[mac] = boot.InstallState{Boot: id}
	return nil
}

// newESXiWorld is a world in which node1 is an entry with a profile for ESXi.
func newESXiWorld(t *testing.T) (*world, *installs) {
	w := newWorld(t)
	i := &installs{states: map[boot.MAC]boot.InstallState{}}
	w.handler.Installs = i
	w.images["esxi/8.0 x86_64"] = esxi
	w.profiles[node1] = hosts
	assign := w.handler.Assign
	w.handler.Assign = func(inv boot.Inventory) (boot.Assignment, error) {
		a, err := assign(inv)
		a.Machine = &boot.Machine{Name: a.Name}
		return a, err
	}
	return w, i
}

// uefi makes the machine one with UEFI.
func (s *sim) uefi() *sim {
	s.settings["platform"], s.settings["buildarch"] = "efi", "x86_64"
	return s
}

// mboot fetches what mboot does: its boot.cfg, then kernel, modules and crypto
// module, by joining prefix and path (esx-boot, make_path). It returns the
// kernel's options.
func (w *world) mboot(addr netip.Addr, command string) string {
	w.t.Helper()
	words := strings.Fields(command)
	if len(words) != 3 || !strings.HasPrefix(words[0], base+"/assets/") || words[1] != "-c" {
		w.t.Fatalf("mboot is started as %q", command)
	}
	code, cfg := w.get(addr, strings.TrimPrefix(words[2], base))
	if code != 200 {
		w.t.Fatalf("boot.cfg: %d %s", code, cfg)
	}
	keys := map[string]string{}
	for line := range strings.Lines(cfg) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		keys[k] = v
	}
	paths := []string{keys["kernel"], keys["crypto"]}
	for m := range strings.SplitSeq(keys["modules"], " --- ") {
		paths = append(paths, strings.Fields(m)[0])
	}
	for _, p := range paths {
		url := keys["prefix"] + "/" + p
		if code, _ := w.get(addr, strings.TrimPrefix(url, base)); code != 200 || strings.HasPrefix(p, "/") {
			w.t.Errorf("mboot gets %s: %d", url, code)
		}
	}
	return keys["kernelopt"]
}

var ksPattern = regexp.MustCompile(`\bks=(\S+)`)

// install walks a machine to where its installer has its ks.cfg, and returns
// that and the path for its reports.
func (w *world) install(addr netip.Addr) (ks, report string) {
	w.t.Helper()
	w.powerOn(node1, addr)
	s := w.machine(node1, addr).uefi()
	if end := s.run(string(ipxe.First(base, "RUN1"))); end != booted {
		w.t.Fatalf("the machine %s, having done %q and shown %q", end, s.log, s.said)
	}
	opts := w.mboot(addr, s.kernel)
	url := ksPattern.FindStringSubmatch(opts)
	if url == nil || !strings.Contains(opts, "runweasel") || !strings.Contains(opts, "netdevice="+node1.String()) {
		w.t.Fatalf("kernel options %q", opts)
	}
	code, ks := w.get(addr, strings.TrimPrefix(url[1], base))
	if code != 200 {
		w.t.Fatalf("ks.cfg: %d %s", code, ks)
	}
	return ks, regexp.MustCompile(`/report/[\w-]+`).FindString(ks)
}

// onDisk powers the machine on and reports whether it is sent to its disk.
func (w *world) onDisk() bool {
	w.powerOn(node1, addr1)
	return w.machine(node1, addr1).uefi().run(string(ipxe.First(base, "RUN1"))) == exited
}

// TestESXiLife is a host from its first installation to its second.
func TestESXiLife(t *testing.T) {
	w, i := newESXiWorld(t)
	ks, report := w.install(addr1)
	if !strings.Contains(ks, "install --firstdisk\n") {
		t.Errorf("without an order, the disk is not to be overwritten:\n%s", ks)
	}
	// GETs change nothing, and neither does a second try.
	for range 2 {
		w.get(addr1, report)
	}
	if w.onDisk() {
		t.Fatal("a fetched ks.cfg counts as an installation")
	}
	_, report = w.install(addr1)
	if s := w.boots.stages(node1); !slices.Contains(s, boot.Kernel) || !slices.Contains(s, boot.Initrd) || !slices.Contains(s, boot.Kickstart) {
		t.Errorf("recorded %v", s)
	}
	i.broken = true
	if rec := w.do("POST", addr1, report, `{"stage":"installed"}`); rec.Code != 503 {
		t.Errorf("with a full disk: %d %s", rec.Code, rec.Body)
	}
	i.broken = false
	if rec := w.do("POST", addr1, report, `{"stage":"installed"}`); rec.Code != 204 {
		t.Fatalf("installed: %d %s", rec.Code, rec.Body)
	}
	first := i.State(node1).Boot
	if first == "" {
		t.Fatal("the installation is not remembered")
	}
	if !w.onDisk() {
		t.Error("an installed machine is not sent to its disk")
	}
	// Its system reports in a later boot than the one that installed it, and
	// of that nothing else is believed.
	if rec := w.do("POST", addr1, report, `{"stage":"installed"}`); rec.Code != 409 {
		t.Errorf("installed, from an earlier boot: %d", rec.Code)
	}
	if rec := w.do("POST", addr1, report, `{"stage":"up"}`); rec.Code != 204 || !slices.Contains(w.boots.stages(node1), boot.Up) {
		t.Errorf("up: %d %v", rec.Code, w.boots.stages(node1))
	}
	// Ordered, it is installed again, and its disk may go.
	i.states[node1] = boot.InstallState{Ordered: true, Boot: first}
	ks, again := w.install(addr1)
	if !strings.Contains(ks, "install --firstdisk --overwritevmfs\n") {
		t.Errorf("an ordered installation stops at a datastore:\n%s", ks)
	}
	if rec := w.do("POST", addr1, again, `{"stage":"installed"}`); rec.Code != 204 || i.State(node1).Ordered || i.State(node1).Boot == first {
		t.Errorf("again: %d %+v", rec.Code, i.State(node1))
	}
	w.powerOn(node1, addr1)
	if rec := w.do("POST", addr1, report, `{"stage":"up"}`); rec.Code != 409 {
		t.Errorf("the system that is gone reports: %d", rec.Code)
	}
}

// TestESXiUpIsEnough is about a machine whose installer could not report.
func TestESXiUpIsEnough(t *testing.T) {
	w, i := newESXiWorld(t)
	_, report := w.install(addr1)
	if rec := w.do("POST", addr1, report, `{"stage":"up"}`); rec.Code != 204 || i.State(node1).Boot == "" {
		t.Errorf("%d %+v", rec.Code, i.State(node1))
	}
}

func TestESXiTickets(t *testing.T) {
	own := func(w *world, file string) string {
		w.powerOn(node1, addr1)
		s := w.machine(node1, addr1).uefi()
		if end := s.run(string(ipxe.First(base, "RUN1"))); end != booted {
			t.Fatalf("the machine %s: %q", end, s.said)
		}
		return strings.TrimSuffix(strings.TrimPrefix(strings.Fields(s.kernel)[2], base), "boot.cfg") + file
	}
	for _, file := range []string{"boot.cfg", "ks.cfg", "pxelinux.cfg"} {
		t.Run(file, func(t *testing.T) {
			w, _ := newESXiWorld(t)
			path := own(w, file)
			if rec := w.do("HEAD", addr1, path, ""); rec.Code != 200 || rec.Body.Len() > 0 || slices.Contains(w.boots.stages(node1), boot.Kickstart) {
				t.Errorf("HEAD: %d %v", rec.Code, w.boots.stages(node1))
			}
			head, get := w.do("HEAD", addr1, path, ""), w.do("GET", addr1, path, "")
			if get.Code != 200 || head.Header().Get("Content-Length") != get.Header().Get("Content-Length") {
				t.Errorf("%d, length %q by HEAD, %q by GET", get.Code, head.Header().Get("Content-Length"), get.Header().Get("Content-Length"))
			}
			if rec := w.do("POST", addr1, path, ""); rec.Code != 405 {
				t.Errorf("POST: %d", rec.Code)
			}
			if code, body := w.get(addr2, path); code != 403 || strings.Contains(body, "$6$") {
				t.Errorf("from another address: %d %s", code, body)
			}
			if code, _ := w.get(addr1, strings.Replace(path, "/esxi/", "/esxi/A", 1)); code != 403 {
				t.Errorf("changed: %d", code)
			}
			w.boots.broken = true
			if code, body := w.get(addr1, path); file == "ks.cfg" && (code != 503 || strings.Contains(body, "$6$")) {
				t.Errorf("with a full disk: %d", code)
			}
			w.boots.broken = false
			w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: boot.Installed, Client: boot.System})
			if code, _ := w.get(addr1, path); code != 403 {
				t.Errorf("once installed: %d", code)
			}
			w.powerOn(node1, addr1)
			if code, _ := w.get(addr1, path); code != 403 {
				t.Errorf("in the next boot: %d", code)
			}
		})
	}
	t.Run("late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, _ := newESXiWorld(t)
			path := own(w, "ks.cfg")
			time.Sleep(55 * time.Minute)
			if code, _ := w.get(addr1, path); code != 200 {
				t.Errorf("after 55 minutes: %d", code)
			}
			time.Sleep(10 * time.Minute)
			if code, _ := w.get(addr1, path); code != 403 {
				t.Errorf("after 65 minutes: %d", code)
			}
		})
	})
	w, _ := newESXiWorld(t)
	if code, _ := w.get(addr1, own(w, "")+"passwd"); code != 404 {
		t.Errorf("another file: %d", code)
	}
}

// TestESXiWaits is about machines that are not installed, and are told why; and
// those that are left to their disks.
func TestESXiWaits(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*world, *installs)
		says   string // empty: boots from its disk
	}{
		"no image":                   {func(w *world, _ *installs) { delete(w.images, "esxi/8.0 x86_64") }, "bootd asset import esxi/8.0 FILE.iso"},
		"no memory of installations": {func(w *world, _ *installs) { w.handler.Installs = nil }, "does not install ESXi"},
		"no password": {func(w *world, _ *installs) {
			w.profiles[node1] = &boot.Profile{Name: "x", Image: "esxi/8.0"}
		}, "root_password_hash is not set"},
		"no record": {func(w *world, _ *installs) { w.boots.broken = true }, "cannot record this boot"},
		"only when ordered": {func(w *world, _ *installs) {
			w.profiles[node1] = &boot.Profile{Name: "x", Image: "esxi/8.0", Host: &boot.Host{RootPasswordHash: hash, Install: boot.InstallOrdered}}
		}, ""},
		"no entry names it": {func(w *world, _ *installs) {
			assign := w.handler.Assign
			w.handler.Assign = func(inv boot.Inventory) (boot.Assignment, error) {
				a, err := assign(inv)
				a.Machine = nil
				return a, err
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, i := newESXiWorld(t)
			tt.change(w, i)
			w.powerOn(node1, addr1)
			rec := w.do("GET", addr1, strings.Replace(ask, "platform=pcbios&buildarch=i386", "platform=efi&buildarch=x86_64", 1), "")
			body := rec.Body.String()
			checkScript(t, body)
			if rec.Code != 200 || strings.Contains(body, "/esxi/") {
				t.Errorf("%d\n%s", rec.Code, body)
			}
			if tt.says != "" && !strings.Contains(body, tt.says) || tt.says == "" && !strings.Contains(body, "exit 1") {
				t.Errorf("want %q in\n%s", tt.says, body)
			}
		})
	}
}
