package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/assets"
	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/internal/client"
	"bootd/internal/config"
)

// TestESXi is a host's life from its first installation to its second, with bootd
// started anew in between. As in TestBoot, everything is real but the interface
// that DHCP packets come from; and there is no ESXi, whose requests are made here.
func TestESXi(t *testing.T) {
	port := freePort(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"bootd.yaml": fmt.Sprintf(`
networks:
  - {interface: bootd-test0, name: rack, subnet: 127.0.1.0/24, server: 127.0.1.1, range: 127.0.1.100-127.0.1.200}
state_dir: state
http: {port: %[1]d}
tftp: {port: %[1]d}
loaders: loaders
api: {socket: bootd.sock}
`, port),
		"profiles/p.yaml":       "name: hypervisor\nimage: esxi/8.0\nesxi: {root_password_hash: $6$saltsalt$QFmFH1bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/}\n",
		"machines/rack.yaml":    "- {name: esx1, mac: \"52:54:00:00:00:01\", profile: hypervisor, ip: 127.0.1.11}\n",
		"loaders/undionly.kpxe": string(nbp()),
	})
	importISO(t, dir)
	base := fmt.Sprintf("http://127.0.1.1:%d", port)
	bootd := startWired(t, dir)
	m := bootd.machine(t)

	script := bootd.script(t, m, base)
	cfg := m.get(find(t, `mboot\.c32 -c (\S+)`, script))
	prefix := find(t, `(?m)^prefix=(.*)$`, cfg)
	for f := range strings.SplitSeq(find(t, `(?m)^kernel=(.*)$`, cfg)+" --- "+find(t, `(?m)^modules=(.*)$`, cfg), " --- ") {
		m.get(prefix + "/" + f)
	}
	ks := m.get(find(t, `\bks=(\S+)`, cfg))
	bootd.reached(t, boot.Kickstart)
	if strings.Contains(ks, "--overwritevmfs") || !strings.Contains(ks, "rootpw --iscrypted $6$") {
		t.Errorf("ks.cfg:\n%s", ks)
	}
	report := find(t, `"(http://[^"]+/report/[^"]+)"`, ks)
	if status, body := m.request(http.MethodPost, report, `{"stage":"installed"}`); status != http.StatusNoContent {
		t.Fatalf("installed: %d %s", status, body)
	}
	bootd.stop()

	bootd = startWired(t, dir)
	if script := bootd.script(t, m, base); !strings.Contains(script, "boots from the local disk") {
		t.Errorf("an installed machine gets:\n%s", script)
	}
	if status, body := m.request(http.MethodPost, report, `{"stage":"up"}`); status != http.StatusNoContent {
		t.Errorf("up: %d %s", status, body)
	}
	bootd.reached(t, boot.Up)
	if err := bootd.operator.Install(t.Context(), "esx1", true); err != nil {
		t.Fatal(err)
	}
	bootd.stop()

	bootd = startWired(t, dir)
	cfg = m.get(find(t, `mboot\.c32 -c (\S+)`, bootd.script(t, m, base)))
	if ks := m.get(find(t, `\bks=(\S+)`, cfg)); !strings.Contains(ks, "--overwritevmfs") {
		t.Errorf("ordered:\n%s", ks)
	}
	bootd.stop()
}

// importISO imports the medium that the tests of assets have.
func importISO(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open("../../assets/testdata/esxi/level1.iso.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"esxi.iso": string(text)})
	s, err := assets.Open(filepath.Join(dir, "state", "assets"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), assets.ISO{Path: filepath.Join(dir, "esxi.iso")}, nil); err != nil {
		t.Fatal(err)
	}
}

// A wired is a running server with a machine's cable.
type wired struct {
	cable    *cable
	operator *client.Client
	stop     func()
}

func startWired(t *testing.T, dir string) *wired {
	t.Helper()
	cfg, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := newCable()
	w := wire{
		open: c.open,
		tap:  noTap,
		link: func(iface string) (dhcp.Link, error) {
			return dhcp.Link{Interface: iface, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.1.1/24")}}, nil
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var log bytes.Buffer
	go func() { ended <- serve(ctx, cfg, w, slog.New(slog.NewTextHandler(&log, nil))) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil || strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("serve: %v\n%s", err, &log)
		}
	}
	t.Cleanup(stop)
	operator := client.New(cfg.Socket)
	eventuallyTrue(t, func() bool { _, err := operator.Status(t.Context()); return err == nil })
	return &wired{c, operator, stop}
}

func (w *wired) machine(t *testing.T) *machine {
	return &machine{t: t, mac: boot.MAC{0x52, 0x54, 0, 0, 0, 1}}
}

func (w *wired) reached(t *testing.T, s boot.Stage) {
	t.Helper()
	eventuallyTrue(t, func() bool {
		got, err := w.operator.Machine(t.Context(), "esx1")
		return err == nil && got.Boot != nil && slices.ContainsFunc(got.Boot.Steps, func(x boot.Step) bool { return x.Stage == s })
	})
}

// script switches the machine on and returns its script.
func (w *wired) script(t *testing.T, m *machine, base string) string {
	t.Helper()
	m.dhcp = w.cable.exchange
	pxe := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}),
	}
	m.lease(pxe...)
	m.tftp(strings.TrimPrefix(base, "http://"), "undionly.kpxe")
	w.reached(t, boot.Loader)
	m.lease(append(pxe, dhcpv4.WithUserClass("iPXE", false))...)
	return m.get(base + "/ipxe?mac=" + m.mac.String() + "&platform=pcbios&buildarch=i386&cpu=x86_64")
}
