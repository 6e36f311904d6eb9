package ipxe_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/boot/ipxe"
)

var (
	addr1   = netip.MustParseAddr("10.0.0.11")
	addr2   = netip.MustParseAddr("10.0.0.12")
	node2   = boot.MAC{0x52, 0x54, 0, 0, 0, 2}
	segment = &boot.Network{Name: "eth1", Mode: boot.Authoritative, Subnet: netip.MustParsePrefix("10.0.0.0/24")}
)

// secret is in every config, so that it can be looked for everywhere else.
const secret = "SWMTKN-1-secret"

// dirFiles serves the files of a directory as loaders.
type dirFiles string

func (d dirFiles) Open(name string) (*os.File, error) {
	if !fs.ValidPath(name) {
		return nil, fs.ErrNotExist
	}
	return os.Open(filepath.Join(string(d), filepath.FromSlash(name)))
}

// A world is a handler with everything around it, and no network.
type world struct {
	t        testing.TB
	boots    *memory
	profiles map[boot.MAC]*boot.Profile
	network  *boot.Network
	leases   map[netip.Addr]boot.MAC
	images   map[string]boot.Image
	render   func(ipxe.RenderRequest) ([]byte, error)
	renders  []ipxe.RenderRequest
	handler  *ipxe.Handler
}

func newWorld(t testing.TB) *world {
	w := &world{
		t: t, boots: newMemory(), network: segment,
		profiles: map[boot.MAC]*boot.Profile{node1: {Name: "worker", Image: "fedora-coreos/stable"}},
		leases:   map[netip.Addr]boot.MAC{addr1: node1, addr2: node2},
		images:   map[string]boot.Image{"fedora-coreos/stable x86_64": coreOS, "flatcar/stable x86_64": flatcar},
	}
	w.render = func(q ipxe.RenderRequest) ([]byte, error) {
		return []byte(`{"ignition":{"version":"3.3.0"},"secret":"` + secret + `","report":"` + q.ReportURL + `"}`), nil
	}
	key := []byte(strings.Repeat("k", 32))
	tickets, err := boot.NewTickets(key)
	if err != nil {
		t.Fatal(err)
	}
	loaders := t.TempDir()
	if err := os.WriteFile(filepath.Join(loaders, "ipxe.efi"), []byte("MZ loader"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.handler = ipxe.New(ipxe.Config{
		Assign: w.assign,
		Image:  func(name, cpu string) (boot.Image, bool) { i, ok := w.images[name+" "+cpu]; return i, ok },
		Render: func(_ context.Context, q ipxe.RenderRequest) ([]byte, error) {
			w.renders = append(w.renders, q)
			return w.render(q)
		},
		Boots:   w.boots,
		Holder:  func(a netip.Addr) (boot.MAC, bool) { m, ok := w.leases[a]; return m, ok },
		Tickets: tickets,
		Loaders: dirFiles(loaders),
		Assets:  http.HandlerFunc(w.assets),
		Log:     slog.New(slog.DiscardHandler),
	})
	return w
}

func (w *world) assign(inv boot.Inventory) (boot.Assignment, error) {
	a := boot.Assignment{Inventory: inv, Name: "node" + fmt.Sprint(inv.MAC[5])}
	if w.network != nil && w.network.Subnet.Contains(inv.Addr) {
		a.Network = w.network
	}
	if inv.Serial == "TWICE" {
		return a, errors.New("machines/a.yaml:1:1 and machines/b.yaml:1:1 both match")
	}
	a.Profile = w.profiles[inv.MAC]
	return a, nil
}

// assets serves files as large as the images say.
func (w *world) assets(rw http.ResponseWriter, r *http.Request) {
	var files []boot.ImageFile
	for _, img := range w.images {
		files = append(append(append(files, img.Kernel), img.Initrds...), img.ESXi.Files()...)
		if img.RootFS != nil {
			files = append(files, *img.RootFS)
		}
	}
	for _, f := range files {
		if r.URL.Path != "/assets/sha256/"+f.SHA256+"/"+f.Name || r.Method != http.MethodGet {
			continue
		}
		rw.Header().Set("Content-Type", "application/octet-stream")
		rw.Write(make([]byte, f.Size))
		w.handler.Served(r, ipxe.Transfer{Digest: f.SHA256, Name: f.Name, Status: 200, Size: f.Size, Bytes: f.Size, Took: time.Second, Complete: true})
		return
	}
	http.Error(rw, "not found", http.StatusNotFound)
}

// do sends a request from a client at addr.
func (w *world) do(method string, addr netip.Addr, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://attacker.example"+path, strings.NewReader(body))
	r.RemoteAddr = netip.AddrPortFrom(addr, 4711).String()
	r.Header.Set("Accept", "application/vnd.coreos.ignition+json;version=3.3.0, */*;q=0.1")
	local := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	return rec
}

func (w *world) get(addr netip.Addr, path string) (int, string) {
	rec := w.do("GET", addr, path, "")
	return rec.Code, rec.Body.String()
}

// powerOn is what DHCP records.
func (w *world) powerOn(mac boot.MAC, addr netip.Addr) {
	w.boots.Record(boot.Event{Time: time.Now(), MAC: mac, Stage: boot.Offered, Client: boot.Firmware})
	w.boots.Record(boot.Event{Time: time.Now(), MAC: mac, Stage: boot.Leased, Client: boot.IPXE, Addr: addr})
}

// machine is an iPXE that runs bootd's scripts from addr.
func (w *world) machine(mac boot.MAC, addr netip.Addr) *sim {
	s := newSim(func(_, url string) (string, bool) {
		path, ok := strings.CutPrefix(url, base)
		if !ok {
			w.t.Errorf("a link to %s", url)
		}
		code, body := w.get(addr, path)
		return body, code == http.StatusOK
	}, &card{mac: mac.String(), link: true, ip: true})
	s.open = []int{0}
	return s
}

var ticketPattern = regexp.MustCompile(`/(?:ignition|initrd|report)/([A-Za-z0-9_-]+)`)

// bootTo runs the machine's scripts until its kernel starts, and returns the ticket
// on its command line.
func (w *world) bootTo(mac boot.MAC, addr netip.Addr) (ticket string, s *sim) {
	w.t.Helper()
	s = w.machine(mac, addr)
	if end := s.run(string(ipxe.First(base, "RUN1"))); end != booted {
		w.t.Fatalf("the machine %s, having done %q and shown %q", end, s.log, s.said)
	}
	if m := ticketPattern.FindStringSubmatch(s.kernel); m != nil {
		ticket = m[1]
	}
	return ticket, s
}

// runOf is the name that a first script gives to the run of its loader.
func runOf(script string) string {
	_, rest, _ := strings.Cut(script, "|| set run ")
	run, _, _ := strings.Cut(rest, "\n")
	return run
}

// TestRuns: each first script has a name of its own for the run of its loader.
func TestRuns(t *testing.T) {
	w := newWorld(t)
	_, one := w.get(addr1, "/boot.ipxe")
	_, two := w.get(addr1, "/boot.ipxe")
	if a, b := runOf(one), runOf(two); len(a) < 10 || a == b {
		t.Errorf("two runs are called %q and %q", a, b)
	}
}

// TestBoot walks a machine from its first script to the swarm.
func TestBoot(t *testing.T) {
	w := newWorld(t)
	w.powerOn(node1, addr1)
	if code, body := w.get(addr1, "/boot.ipxe"); code != 200 || body != string(ipxe.First(base, runOf(body))) {
		t.Fatalf("/boot.ipxe: %d\n%s", code, body)
	}
	ticket, s := w.bootTo(node1, addr1)
	rootfs := regexp.MustCompile(`coreos.live.rootfs_url=` + base + `(\S+)`).FindStringSubmatch(s.kernel)
	if len(rootfs) != 2 {
		t.Fatalf("no root file system in %s", s.kernel)
	}
	if code, _ := w.get(addr1, rootfs[1]); code != 200 {
		t.Fatalf("rootfs: %d", code)
	}
	rec := w.do("GET", addr1, "/ignition/"+ticket, "")
	if rec.Code != 200 || !strings.Contains(rec.Body.String(), secret) {
		t.Fatalf("ignition: %d %s", rec.Code, rec.Body)
	}
	if h := rec.Header(); h.Get("Content-Type") != "application/vnd.coreos.ignition+json" || h.Get("Cache-Control") != "no-store" || h.Get("ETag") != "" {
		t.Errorf("ignition: header %v", h)
	}
	var config struct{ Report string }
	if err := json.Unmarshal(rec.Body.Bytes(), &config); err != nil {
		t.Fatal(err)
	}
	report, ok := strings.CutPrefix(config.Report, base)
	if !ok {
		t.Fatalf("report URL %q", config.Report)
	}
	for _, body := range []string{
		`{"stage":"up","text":"Fedora CoreOS"}`, `{"stage":"engine"}`, `{"stage":"joined","node":"kxo9y5k8wq3nlfwx2"}`, `{"stage":"left"}`,
	} {
		if rec := w.do("POST", addr1, report, body); rec.Code != 204 || rec.Body.Len() != 0 {
			t.Errorf("%s: %d %s", body, rec.Code, rec.Body)
		}
	}

	want := []boot.Stage{boot.Offered, boot.Leased, boot.Script, boot.Kernel, boot.Initrd, boot.RootFS, boot.Ignition, boot.Up, boot.Engine, boot.Joined, boot.Left}
	if d := cmp.Diff(want, w.boots.stages(node1)); d != "" {
		t.Error(d)
	}
	tl, _ := w.boots.Current(node1)
	if tl.Node != "kxo9y5k8wq3nlfwx2" {
		t.Errorf("node %q", tl.Node)
	}
	inv := w.boots.Inventory(node1)
	wantInv := boot.Inventory{
		MAC: node1, UUID: "77000000-0000-4000-8000-525400770010", Serial: "LAB0001", Manufacturer: "Lab", Product: "PXE Node",
		Arch: boot.BIOS, ArchKnown: true, CPU: "x86_64", MemoryMB: 1024, Addr: addr1,
	}
	if d := cmp.Diff(wantInv, inv, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if q := w.renders[0]; q.Wrap || !strings.Contains(q.Accept, "version=3.3.0") || q.Assignment.Name != "node1" {
		t.Errorf("asked to render %+v", q)
	}
}

// TestBootByInitrd is about a machine that cannot fetch its config itself.
func TestBootByInitrd(t *testing.T) {
	w := newWorld(t)
	w.profiles[node1] = &boot.Profile{Name: "worker", Image: "flatcar/stable", Delivery: boot.ByInitrd}
	w.powerOn(node1, addr1)
	_, s := w.bootTo(node1, addr1)
	if strings.Contains(s.kernel, "config.url") || !strings.HasSuffix(s.initrds["config"], "/config.cpio") {
		t.Errorf("it boots %s with %v", s.kernel, s.initrds)
	}
	if len(w.renders) != 1 || !w.renders[0].Wrap {
		t.Errorf("rendered %+v", w.renders)
	}
	want := []boot.Stage{boot.Offered, boot.Leased, boot.Script, boot.Kernel, boot.Initrd, boot.Ignition}
	if d := cmp.Diff(want, w.boots.stages(node1)); d != "" {
		t.Error(d)
	}
}

// TestRefusedConfigs is about everybody who must not get a config.
func TestRefusedConfigs(t *testing.T) {
	for name, tt := range map[string]struct {
		addr    netip.Addr
		meddle  func(w *world, ticket string) string
		refused string // what the machine's timeline says of it
	}{
		"another address": {addr2, nil, "asked for from 10.0.0.12: this ticket belongs to another address"},
		"expired":         {addr1, func(_ *world, s string) string { time.Sleep(16 * time.Minute); return s }, "has expired"},
		"after up":        {addr1, func(w *world, s string) string { w.report(boot.Up); return s }, "stage up already"},
		"after joined":    {addr1, func(w *world, s string) string { w.report(boot.Joined); return s }, "stage joined already"},
		"of the boot before": {addr1, func(w *world, s string) string {
			w.powerOn(node1, addr1)
			w.bootTo(node1, addr1)
			return s
		}, "of an earlier boot"},
		"switched off and on": {addr1, func(w *world, s string) string { w.powerOn(node1, addr1); return s }, "of an earlier boot"},
		"forged":              {addr1, func(_ *world, s string) string { return "AQ" + strings.Repeat("A", len(s)-2) }, "was not issued here"},
		"the ticket for reports": {addr1, func(w *world, s string) string {
			w.get(addr1, "/ignition/"+s)
			return ticketPattern.FindStringSubmatch(w.renders[0].ReportURL)[1]
		}, "was not issued here"},
		"not a ticket": {addr1, func(*world, string) string { return "node1" }, ""},
		"no ticket":    {addr1, func(*world, string) string { return "" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.powerOn(node1, addr1)
				ticket, _ := w.bootTo(node1, addr1)
				if tt.meddle != nil {
					ticket = tt.meddle(w, ticket)
				}
				n := len(w.renders)
				for _, path := range []string{"/ignition/" + ticket, "/initrd/" + ticket + "/config.cpio"} {
					for _, method := range []string{"GET", "HEAD"} {
						rec := w.do(method, tt.addr, path, "")
						if rec.Code != 403 || strings.Contains(rec.Body.String(), secret) || len(w.renders) != n {
							t.Errorf("%s %s: %d %s", method, path, rec.Code, rec.Body)
						}
					}
				}
				if tl, _ := w.boots.Current(node1); tl.Addr != addr1 {
					t.Errorf("the machine is thought to be at %s now", tl.Addr)
				}
				got := w.boots.text(node1, boot.Refused)
				if !strings.Contains(got, tt.refused) || (got == "") != (tt.refused == "") {
					t.Errorf("the timeline says %q, want %q", got, tt.refused)
				}
			})
		})
	}
}

// report commits a stage of node1, as its unit would.
func (w *world) report(s boot.Stage) {
	w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: s})
}

// TestIgnitionRetries is about what Ignition may do: ask again, in time.
func TestIgnitionRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.powerOn(node1, addr1)
		ticket, _ := w.bootTo(node1, addr1)
		for range 3 {
			time.Sleep(4 * time.Minute)
			if code, body := w.get(addr1, "/ignition/"+ticket); code != 200 {
				t.Errorf("%d %s", code, body)
			}
		}
		if rec := w.do("HEAD", addr1, "/ignition/"+ticket, ""); rec.Code != 200 || len(w.renders) != 3 {
			t.Errorf("HEAD: %d, %d configs rendered", rec.Code, len(w.renders))
		}
	})
}

// TestNotYet is about a machine whose config has to wait for longer than its
// ticket lasts: as long as it keeps asking it does not run out.
func TestNotYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		good := w.render
		w.render = func(ipxe.RenderRequest) ([]byte, error) {
			return nil, fmt.Errorf("cannot join: the swarm has no manager: %w", ipxe.ErrNotYet)
		}
		w.powerOn(node1, addr1)
		ticket, _ := w.bootTo(node1, addr1)
		for range 6 {
			rec := w.do("GET", addr1, "/ignition/"+ticket, "")
			if rec.Code != 503 || rec.Header().Get("Retry-After") != "5" {
				t.Fatalf("%d %v", rec.Code, rec.Header())
			}
			time.Sleep(5 * time.Minute)
		}
		if s := w.boots.text(node1, boot.Waiting); !strings.Contains(s, "no manager") {
			t.Errorf("the timeline says %q", s)
		}
		w.render = good
		if code, body := w.get(addr1, "/ignition/"+ticket); code != 200 {
			t.Errorf("%d %s", code, body)
		}
		// Nobody takes over what it left.
		if code, _ := w.get(addr2, "/ignition/"+ticket); code != 403 {
			t.Errorf("from another address: %d", code)
		}
		time.Sleep(20 * time.Minute)
		if code, _ := w.get(addr1, "/ignition/"+ticket); code != 403 {
			t.Errorf("after a pause: %d", code)
		}
	})
}

func TestRenderErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		code int
		body string
	}{
		"too old": {fmt.Errorf("Ignition 2.2.0 reads specs up to 3.1.0, this needs 3.3.0: %w", ipxe.ErrTooOld), 406, "specs up to 3.1.0"},
		"broken":  {errors.New("cannot read /etc/bootd/secret: permission denied"), 500, "its log says why"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.render = func(ipxe.RenderRequest) ([]byte, error) { return nil, tt.err }
			w.powerOn(node1, addr1)
			ticket, _ := w.bootTo(node1, addr1)
			code, body := w.get(addr1, "/ignition/"+ticket)
			if code != tt.code || !strings.Contains(body, tt.body) || strings.Contains(body, "/etc/bootd") {
				t.Errorf("%d %s", code, body)
			}
			if s := w.boots.text(node1, boot.Failed); !strings.Contains(s, tt.err.Error()) {
				t.Errorf("the timeline says %q", s)
			}
		})
	}
}

func TestReports(t *testing.T) {
	ticketOf := func(w *world) string {
		w.powerOn(node1, addr1)
		ticket, _ := w.bootTo(node1, addr1)
		w.get(addr1, "/ignition/"+ticket)
		return strings.TrimPrefix(w.renders[len(w.renders)-1].ReportURL, base)
	}
	for name, tt := range map[string]struct {
		body string
		code int
	}{
		"good":         {`{"stage":"up"}`, 204},
		"spaces":       {" {\"stage\" : \"engine\"}\n", 204},
		"all":          {`{"stage":"joined","node":"abc123","text":"ü\n"}`, 204},
		"no JSON":      {`stage=up`, 400},
		"empty":        {``, 400},
		"no stage":     {`{}`, 400},
		"another":      {`{"stage":"ready"}`, 400},
		"a secret one": {`{"stage":"ignition"}`, 400},
		"unknown key":  {`{"stage":"up","nod":"x"}`, 400},
		"two":          {`{"stage":"up"}{"stage":"up"}`, 400},
		"bad node":     {`{"stage":"up","node":"a b"}`, 400},
		"long node":    {`{"stage":"up","node":"` + strings.Repeat("a", 65) + `"}`, 400},
		"too large":    {`{"stage":"up","text":"` + strings.Repeat("a", 5000) + `"}`, 400},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			path := ticketOf(w)
			n := len(w.boots.stages(node1))
			rec := w.do("POST", addr1, path, tt.body)
			if rec.Code != tt.code {
				t.Errorf("%d %s", rec.Code, rec.Body)
			}
			if added := len(w.boots.stages(node1)) > n; added != (tt.code == 204) {
				t.Errorf("recorded: %v", w.boots.stages(node1))
			}
		})
	}

	w := newWorld(t)
	path := ticketOf(w)
	w.boots.broken = true
	if rec := w.do("POST", addr1, path, `{"stage":"up"}`); rec.Code != 503 || rec.Header().Get("Retry-After") == "" {
		t.Errorf("with a full disk: %d %v", rec.Code, rec.Header())
	}
	w.boots.broken = false
	// It is switched off and on while its report is on the way.
	w.boots.before = func() { w.powerOn(node1, addr1) }
	if rec := w.do("POST", addr1, path, `{"stage":"left"}`); rec.Code != 409 {
		t.Errorf("overtaken by a new boot: %d %s", rec.Code, rec.Body)
	}
	w.boots.before = nil
	path = ticketOf(w)
	if rec := w.do("GET", addr1, path, ""); rec.Code != 405 || rec.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d %v", rec.Code, rec.Header())
	}
	w.powerOn(node1, addr1)
	if rec := w.do("POST", addr1, path, `{"stage":"left"}`); rec.Code != 409 {
		t.Errorf("from an earlier boot: %d %s", rec.Code, rec.Body)
	}
	if s := w.boots.stages(node1); slices.Contains(s, boot.Left) {
		t.Errorf("the new boot has what the old one reported: %v", s)
	}
	if rec := w.do("POST", addr1, "/report/AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", `{"stage":"up"}`); rec.Code != 403 {
		t.Errorf("forged: %d %s", rec.Code, rec.Body)
	}
}
