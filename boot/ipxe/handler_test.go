package ipxe_test

import (
	"context"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bootd/boot"
	"bootd/boot/ipxe"
)

// ask is the query of node1's /ipxe.
const ask = "/ipxe?mac=52:54:00:00:00:01&uuid=77000000-0000-4000-8000-525400770010&serial=LAB0001&manufacturer=Lab&product=PXE%20Node&asset=&cpu=x86_64&platform=pcbios&buildarch=i386&mem=1024"

// TestMachinesThatCannotBoot is about scripts that say why not, and ask again.
func TestMachinesThatCannotBoot(t *testing.T) {
	for name, tt := range map[string]struct {
		query  string
		change func(*world)
		says   string
		stage  boot.Stage
	}{
		"unknown": {ask, func(w *world) { w.profiles = nil },
			"echo -- - {name: node1, mac: '52:54:00:00:00:01', profile: worker}", boot.Waiting},
		"unknown, its serial": {ask, func(w *world) { w.profiles = nil }, "serial: LAB0001", boot.Waiting},
		"no image":            {ask, func(w *world) { w.images = nil }, "bootd asset fetch fedora-coreos/stable", boot.Waiting},
		"no image for arm": {strings.Replace(ask, "cpu=x86_64", "cpu=arm64", 1), nil,
			"boots image fedora-coreos/stable, which bootd does not have for aarch64.", boot.Waiting},
		"32-bit processor": {strings.Replace(ask, "cpu=x86_64", "cpu=i386", 1), nil, "does not have for i386.", boot.Waiting},
		"two entries":      {strings.Replace(ask, "LAB0001", "TWICE", 1), nil, "machines/a.yaml:1:1 and machines/b.yaml:1:1 both match", boot.Waiting},
		"bad args": {ask, func(w *world) { w.profiles[node1].Args = []string{"x=${uuid}"} },
			"has ?{, which iPXE would replace", boot.Waiting},
		"too long":  {ask, func(w *world) { w.profiles[node1].Args = []string{strings.Repeat("x", 2000)} }, "2047 are possible; shorten args", boot.Waiting},
		"no record": {ask, func(w *world) { w.boots.broken = true }, "bootd cannot record this boot; its log says why.", ""},
		"another machine's address": {ask, func(w *world) { w.leases[addr1] = node2 },
			"bootd gives no script to 52:54:00:00:00:01 at 10.0.0.11: its address is not leased to it.", boot.Refused},
		"no lease": {ask, func(w *world) { delete(w.leases, addr1) }, "its address is not leased to it", boot.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.powerOn(node1, addr1)
			if tt.change != nil {
				tt.change(w)
			}
			rec := w.do("GET", addr1, tt.query, "")
			body := rec.Body.String()
			if rec.Code != 200 || !strings.Contains(body, tt.says) {
				t.Errorf("%d\n%s\nwant in it: %s", rec.Code, body, tt.says)
			}
			checkScript(t, body)
			if strings.Contains(body, "/ignition/") || !strings.HasSuffix(body, "/boot.ipxe || goto again\n") {
				t.Errorf("it does not ask again, or has a ticket:\n%s", body)
			}
			stages := w.boots.stages(node1)
			if tt.stage != "" && !slices.Contains(stages, tt.stage) || slices.Contains(stages, boot.Script) {
				t.Errorf("recorded %v", stages)
			}
		})
	}
}

// TestPolling is about a machine that waits until somebody writes its entry.
func TestPolling(t *testing.T) {
	w := newWorld(t)
	profile := w.profiles[node1]
	delete(w.profiles, node1)
	w.powerOn(node1, addr1)
	s := w.machine(node1, addr1)
	polls, fetch := 0, s.fetch
	s.fetch = func(mac, url string) (string, bool) {
		if strings.HasSuffix(url, "/boot.ipxe") {
			if polls++; polls == 100 {
				w.profiles[node1] = profile
			}
		}
		return fetch(mac, url)
	}
	if end := s.run(string(ipxe.First(base, "RUN1"))); end != booted || polls != 100 {
		t.Errorf("the machine %s after %d polls: %q", end, polls, s.said)
	}
	if s := w.boots.stages(node1); !slices.Contains(s, boot.Waiting) || !slices.Contains(s, boot.Script) {
		t.Errorf("recorded %v", s)
	}
}

// TestServerAway is about bootd being restarted while a machine waits.
func TestServerAway(t *testing.T) {
	w := newWorld(t)
	w.powerOn(node1, addr1)
	s := w.machine(node1, addr1)
	tries, fetch := 0, s.fetch
	s.fetch = func(mac, url string) (string, bool) {
		if tries++; tries < 20 {
			return "", false
		}
		return fetch(mac, url)
	}
	if end := s.run(string(ipxe.First(base, "RUN1"))); end != booted {
		t.Errorf("the machine %s: %q", end, s.log)
	}
}

func TestLocalDiskIsRecorded(t *testing.T) {
	w := newWorld(t)
	w.profiles[node1] = &boot.Profile{Name: "installed"}
	w.powerOn(node1, addr1)
	if end := w.machine(node1, addr1).run(string(ipxe.First(base, "RUN1"))); end != exited {
		t.Errorf("the machine %s", end)
	}
	if s := w.boots.text(node1, boot.Script); s != "profile installed, local disk" {
		t.Errorf("recorded %q", s)
	}
}

// TestProxyNetwork is about a network where another server gives the addresses: it
// may give another one to the system than to iPXE.
func TestProxyNetwork(t *testing.T) {
	w := newWorld(t)
	w.network = &boot.Network{Mode: boot.Proxy, Subnet: segment.Subnet}
	w.leases = nil
	w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: boot.Offered})
	ticket, _ := w.bootTo(node1, addr1)
	if code, body := w.get(netip.MustParseAddr("10.0.0.99"), "/ignition/"+ticket); code != 200 {
		t.Errorf("from the network: %d %s", code, body)
	}
	if code, _ := w.get(netip.MustParseAddr("10.0.1.11"), "/ignition/"+ticket); code != 403 {
		t.Errorf("from another network: %d", code)
	}
}

// TestInventoryIsCleaned is about what SMBIOS really holds.
func TestInventoryIsCleaned(t *testing.T) {
	for name, tt := range map[string]struct {
		query string
		want  boot.Inventory
	}{
		"plain":                      {"", boot.Inventory{}},
		"trailing spaces":            {"&serial=ABC%20%20&product=%20X%20Y", boot.Inventory{Serial: "ABC", Product: "X Y"}},
		"control characters":         {"&serial=A%0AB%00&asset=%FF%FE", boot.Inventory{Serial: "A?B?", Asset: "??"}},
		"plus":                       {"&product=A+B", boot.Inventory{Product: "A+B"}},
		"bad escape":                 {"&product=100%", boot.Inventory{Product: "100%"}},
		"long":                       {"&serial=" + strings.Repeat("x", 500), boot.Inventory{Serial: strings.Repeat("x", 128)}},
		"an ampersand sent raw":      {"&product=A&mac=52:54:00:00:00:02", boot.Inventory{Product: "A"}},
		"UUID in capitals":           {"&uuid=77000000-0000-4000-8000-52540077001A", boot.Inventory{UUID: "77000000-0000-4000-8000-52540077001a"}},
		"no UUID":                    {"&uuid=Not Settable", boot.Inventory{}},
		"UEFI":                       {"&platform=efi&buildarch=x86_64&cpu=x86_64", boot.Inventory{Arch: boot.EFIX64, ArchKnown: true, CPU: "x86_64"}},
		"UEFI on ARM":                {"&platform=efi&buildarch=arm64&cpu=arm64", boot.Inventory{Arch: boot.EFIARM64, ArchKnown: true, CPU: "aarch64"}},
		"BIOS":                       {"&platform=pcbios&buildarch=i386&cpu=x86_64", boot.Inventory{Arch: boot.BIOS, ArchKnown: true, CPU: "x86_64"}},
		"something new":              {"&platform=sbi&buildarch=riscv64&cpu=riscv64", boot.Inventory{}},
		"memory":                     {"&mem=65536", boot.Inventory{MemoryMB: 65536}},
		"memory that cannot be":      {"&mem=-5", boot.Inventory{}},
		"memory, far too much of it": {"&mem=99999999999999999999", boot.Inventory{}},
	} {
		w := newWorld(t)
		w.powerOn(node1, addr1)
		w.get(addr1, "/ipxe?mac=52-54-00-00-00-01"+strings.ReplaceAll(tt.query, " ", "%20"))
		got := w.boots.Inventory(node1)
		tt.want.MAC, tt.want.Addr = node1, addr1
		if got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
	for _, mac := range []string{"", "x", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "52:54:00:00:00:01:02:03", "52:54:00:00:00"} {
		w := newWorld(t)
		if code, body := w.get(addr1, "/ipxe?mac="+mac); code != 400 {
			t.Errorf("mac=%s: %d %s", mac, code, body)
		}
	}
}

func TestRoutes(t *testing.T) {
	w := newWorld(t)
	w.powerOn(node1, addr1)
	const kernel = "/assets/sha256/1111111111111111111111111111111111111111111111111111111111111111/fedora-coreos-42.20250901.3.0-live-kernel.x86_64"
	for _, tt := range []struct {
		method, path string
		code         int
		kind         string
	}{
		{"GET", "/boot.ipxe", 200, "text/plain"},
		{"HEAD", "/boot.ipxe", 200, "text/plain"},
		{"POST", "/boot.ipxe", 405, "text/plain"},
		{"GET", "/boot.ipxe/", 404, "text/plain"},
		{"GET", "//boot.ipxe", 404, "text/plain"}, // a redirect elsewhere
		{"GET", "/./boot.ipxe", 404, "text/plain"},
		{"HEAD", ask, 200, "text/plain"},
		{"DELETE", ask, 405, "text/plain"},
		{"GET", "/", 404, "text/plain"},
		{"GET", "/ignition", 403, "text/plain"},
		{"PUT", "/ignition/x", 405, "text/plain"},
		{"GET", "/initrd/x", 404, "text/plain"},
		{"GET", "/initrd/x/y", 404, "text/plain"},
		{"GET", "/initrd/x/config.cpio", 403, "text/plain"},
		{"GET", "/report/x", 405, "text/plain"},
		{"POST", "/report/x", 403, "text/plain"},
		{"GET", "/loader/ipxe.efi", 200, "application/efi"},
		{"HEAD", "/loader/ipxe.efi", 200, "application/efi"},
		{"GET", "/loader/none.efi", 404, "text/plain"},
		{"GET", "/loader/../machine_test.go", 404, "text/plain"},
		{"GET", "/loader/", 404, "text/plain"},
		{"POST", "/loader/ipxe.efi", 405, "text/plain"},
		{"GET", kernel, 200, "application/octet-stream"},
		{"GET", "/assets/x", 404, "text/plain"},
		{"POST", kernel, 405, "text/plain"},
		{"GET", "/healthz", 404, "text/plain"},
	} {
		rec := w.do(tt.method, addr1, tt.path, "")
		kind, _, err := mime.ParseMediaType(rec.Header().Get("Content-Type"))
		if rec.Code != tt.code || kind != tt.kind || err != nil {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.path, rec.Code, kind, tt.code, tt.kind)
		}
		if (rec.Code == 405) != (rec.Header().Get("Allow") != "") {
			t.Errorf("%s %s: %d, Allow: %q", tt.method, tt.path, rec.Code, rec.Header().Get("Allow"))
		}
		if tt.method == "HEAD" && rec.Body.Len() > 0 {
			t.Errorf("HEAD %s has a body", tt.path)
		}
	}
	// Looking is not booting.
	if s := w.boots.stages(node1); slices.Contains(s, boot.Script) || slices.Contains(s, boot.Waiting) {
		t.Errorf("HEAD was recorded: %v", s)
	}
	if s := w.boots.text(node1, boot.Loader); s != "ipxe.efi by HTTP" {
		t.Errorf("the loader is recorded as %q", s)
	}
}

// TestTransfers is about which transfers count.
func TestTransfers(t *testing.T) {
	kernel, rootfs := coreOS.Kernel, *coreOS.RootFS
	whole := func(f boot.ImageFile) ipxe.Transfer {
		return ipxe.Transfer{Digest: f.SHA256, Name: f.Name, Status: 200, Size: f.Size, Bytes: f.Size, Took: time.Second, Complete: true}
	}
	broken, first, last, unchanged := whole(rootfs), whole(rootfs), whole(rootfs), whole(rootfs)
	broken.Complete, broken.Bytes = false, 10
	first.Status, first.Bytes = 206, 10
	last.Status, last.Offset, last.Bytes = 206, 10, 9
	unchanged.Status, unchanged.Bytes, unchanged.Complete = 304, 0, false
	for name, tt := range map[string]struct {
		method string
		addr   netip.Addr
		t      ipxe.Transfer
		want   boot.Stage
	}{
		"kernel":            {"GET", addr1, whole(kernel), boot.Kernel},
		"initrd":            {"GET", addr1, whole(coreOS.Initrds[0]), boot.Initrd},
		"rootfs":            {"GET", addr1, whole(rootfs), boot.RootFS},
		"rootfs, asked for": {"HEAD", addr1, whole(rootfs), ""},
		"broken off":        {"GET", addr1, broken, ""},
		"the first part":    {"GET", addr1, first, ""},
		"the last part":     {"GET", addr1, last, boot.RootFS},
		"unchanged":         {"GET", addr1, unchanged, ""},
		"another image":     {"GET", addr1, whole(flatcar.Kernel), ""},
		"somebody else":     {"GET", addr2, whole(kernel), ""},
	} {
		w := newWorld(t)
		w.powerOn(node1, addr1)
		r := httptest.NewRequest(tt.method, "/assets/x", nil)
		r.RemoteAddr = tt.addr.String() + ":1"
		w.handler.Served(r, tt.t)
		got := w.boots.stages(node1)[2:]
		if tt.want == "" && len(got) > 0 || tt.want != "" && !slices.Equal(got, []boot.Stage{tt.want}) {
			t.Errorf("%s: recorded %v, want %q", name, got, tt.want)
		}
	}
}

func TestBaseURL(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1:80": "http://10.0.0.1", "10.0.0.1:8080": "http://10.0.0.1:8080",
		"[fd00::1]:80": "http://[fd00::1]", "[fd00::1]:81": "http://[fd00::1]:81",
	} {
		if got := ipxe.BaseURL(netip.MustParseAddrPort(in)); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// FuzzRouter: whatever is sent, by whomever, there is no panic and no redirect,
// the answer is of a known type, and nobody without a ticket gets a config.
func FuzzRouter(f *testing.F) {
	for _, p := range []string{
		"/boot.ipxe", "/ipxe", "/ignition/AQ", "/initrd/AQ/config.cpio", "/report/AQ", "/loader/ipxe.efi", "/assets/sha256/x/y",
		"//boot.ipxe", "/ignition//", "/../x", "/ignition/%2e%2e", "*", "",
	} {
		f.Add("GET", p, "mac=52:54:00:00:00:01&serial=x", "", "10.0.0.11:1000")
	}
	f.Add("POST", "/report/x", "", `{"stage":"up"}`, "10.0.0.11:1")
	f.Add("CONNECT", "x", "\x00", "\xff", "no address")
	f.Add("HEAD", "/ipxe", "mac=52:54:00:00:00:02&serial=%0Ashell&product=${uuid}", "", "[fe80::1%eth0]:1")
	kinds := []string{"text/plain", "application/octet-stream", "application/efi"}
	w := newWorld(f)
	w.powerOn(node1, addr1)
	f.Fuzz(func(t *testing.T, method, path, query, body, remote string) {
		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.Method, r.URL.Path, r.URL.RawQuery, r.RemoteAddr = method, path, query, remote
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}))
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, r)
		got := rec.Body.String()
		if rec.Code < 200 || rec.Code >= 300 && rec.Code < 400 {
			t.Errorf("%s %q: status %d", method, path, rec.Code)
		}
		kind, _, _ := strings.Cut(rec.Header().Get("Content-Type"), ";")
		if !slices.Contains(kinds, kind) {
			t.Errorf("%s %q: status %d of type %q", method, path, rec.Code, kind)
		}
		if strings.Contains(got, secret) || len(w.renders) > 0 {
			t.Fatalf("%s %q gave a config away", method, path)
		}
		if strings.HasPrefix(got, "#!ipxe") {
			checkScript(t, got)
		}
	})
}

func BenchmarkScript(b *testing.B) {
	w := newWorld(b)
	w.powerOn(node1, addr1)
	for b.Loop() {
		if rec := w.do("GET", addr1, ask, ""); rec.Code != 200 {
			b.Fatal(rec.Code)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

func BenchmarkIgnition(b *testing.B) {
	w := newWorld(b)
	w.powerOn(node1, addr1)
	ticket, _ := w.bootTo(node1, addr1)
	for b.Loop() {
		if rec := w.do("GET", addr1, "/ignition/"+ticket, ""); rec.Code != 200 {
			b.Fatal(rec.Code)
		}
		w.renders = w.renders[:0]
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}
