package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/internal/client"
	"bootd/internal/config"
)

// A cable is a dhcp.Conn whose other end is the test: it stands for the
// interface and the machine's network card.
type cable struct {
	in     chan []byte
	out    chan []byte
	closed chan struct{}
}

func newCable() *cable {
	return &cable{in: make(chan []byte), out: make(chan []byte, 16), closed: make(chan struct{})}
}

func (c *cable) Receive(packets []dhcp.Packet) (int, error) {
	select {
	case p := <-c.in:
		packets[0].Data = append(packets[0].Data[:0], p...)
		return 1, nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *cable) Send(answers []dhcp.Answer) error {
	for _, a := range answers {
		c.out <- bytes.Clone(a.Reply)
	}
	return nil
}

func (c *cable) Close() error {
	close(c.closed)
	return nil
}

// open is a wire's way to the cable, which leads to port 67.
func (c *cable) open(_ string, port uint16) (dhcp.Conn, error) {
	if port != 67 {
		return newCable(), nil
	}
	return c, nil
}

// noTap is a wire on which other servers cannot be looked for.
func noTap(string) (dhcp.Tap, error) { return nil, errors.New("there is only a cable") }

// exchange sends a packet and waits for its answer.
func (c *cable) exchange(p *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	select {
	case c.in <- p.ToBytes():
	case <-time.After(10 * time.Second):
		return nil, errors.New("nobody receives")
	}
	select {
	case b := <-c.out:
		return dhcpv4.FromBytes(b)
	case <-time.After(10 * time.Second):
		return nil, fmt.Errorf("no answer to %s", p.MessageType())
	}
}

// A machine is a diskless one that boots.
type machine struct {
	t    *testing.T
	mac  boot.MAC
	dhcp func(*dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error)
	addr net.IP // as leased
	// reached waits until a stage is on record. A real machine takes longer for
	// each than the server to note the one before; this one would not.
	reached func(boot.Stage)
	http    http.Client
}

// lease goes from DISCOVER to ACK as a client of some kind.
func (m *machine) lease(kind ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	m.t.Helper()
	send := func(t dhcpv4.MessageType, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		m.t.Helper()
		p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(m.mac[:]), dhcpv4.WithMessageType(t)}, append(kind, more...)...)...)
		if err != nil {
			m.t.Fatal(err)
		}
		a, err := m.dhcp(p)
		if err != nil {
			m.t.Fatal(err)
		}
		return a
	}
	offer := send(dhcpv4.MessageTypeDiscover)
	if offer.MessageType() != dhcpv4.MessageTypeOffer {
		m.t.Fatalf("answer to DISCOVER:\n%s", offer.Summary())
	}
	ack := send(dhcpv4.MessageTypeRequest,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))
	if ack.MessageType() != dhcpv4.MessageTypeAck || !ack.YourIPAddr.Equal(offer.YourIPAddr) {
		m.t.Fatalf("answer to REQUEST:\n%s", ack.Summary())
	}
	m.addr = ack.YourIPAddr
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: m.addr}}
	m.http.Transport = &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	return ack
}

// request does an HTTP request from the machine's address.
func (m *machine) request(method, url, body string) (int, string) {
	m.t.Helper()
	r, err := http.NewRequestWithContext(m.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	r.Header.Set("User-Agent", "iPXE/1.21.1")
	if strings.Contains(url, "/ignition/") {
		r.Header.Set("User-Agent", "Ignition/2.20.0")
		r.Header.Set("Accept", "application/vnd.coreos.ignition+json;version=3.4.0, */*;q=0.1")
	}
	resp, err := m.http.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// get fetches what must be there.
func (m *machine) get(url string) string {
	m.t.Helper()
	status, body := m.request(http.MethodGet, url, "")
	if status != http.StatusOK {
		m.t.Fatalf("GET %s: %d %s", url, status, body)
	}
	return body
}

// tftp fetches a file as the simplest firmware does (RFC 1350). On the loopback
// network answers come from another address than requests went to, which TFTP
// libraries do not take.
func (m *machine) tftp(server, name string) []byte {
	m.t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: m.addr})
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	to, packet := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(server)), []byte("\x00\x01"+name+"\x00octet\x00")
	var file []byte
	for block := uint16(1); ; block++ {
		if _, err := c.WriteToUDP(packet, to); err != nil {
			m.t.Fatal(err)
		}
		b := make([]byte, 600)
		n, from, err := c.ReadFromUDP(b)
		if err != nil {
			m.t.Fatal(err)
		}
		if n < 4 || b[1] != 3 || binary.BigEndian.Uint16(b[2:]) != block {
			m.t.Fatalf("instead of block %d: %q", block, b[:n])
		}
		file = append(file, b[4:n]...)
		to, packet = from, []byte{0, 4, b[2], b[3]}
		if n < 516 {
			_, _ = c.WriteToUDP(packet, to) // the last needs no answer
			return file
		}
	}
}

// find returns what a pattern's group matches in text.
func find(t *testing.T, pattern, text string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("nothing like %s in:\n%s", pattern, text)
	}
	return m[1]
}

// nbp makes something that begins as a BIOS boot program.
func nbp() []byte { return append([]byte("\xea\x05\x00\xc0\x07"), make([]byte, 60<<10)...) }

// freePort is a TCP and UDP port of the loopback interface that nobody has.
func freePort(t *testing.T) int {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp4", "127.0.1.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 1, 1), Port: port})
		l.Close()
		if err == nil {
			u.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBoot is a boot from the first packet to the last report. Everything is
// real but the interface that DHCP packets come from: HTTP and TFTP are served
// on the loopback network, of which the machine leases an address.
func TestBoot(t *testing.T) {
	port, scraped := freePort(t), freePort(t)
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
metrics: {listen: "127.0.1.1:%[2]d"}
images: {lab: {path: image}}
log: {level: warn}
`, port, scraped),
		"profiles/worker.yaml":                  "name: worker\nimage: lab\nfiles:\n  - {path: /etc/motd, contents: greetings}\n",
		"machines/rack.yaml":                    "- {name: node1, mac: \"52:54:00:00:00:01\", profile: worker, ip: 127.0.1.11}\n",
		"image/lab-1-live-kernel.x86_64":        string(kernelFor("x86_64")),
		"image/lab-1-live-initramfs.x86_64.img": "initramfs",
		"image/lab-1-live-rootfs.x86_64.img":    "rootfs",
		"loaders/undionly.kpxe":                 string(nbp()),
	})
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
	var log bytes.Buffer
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, cfg, w, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	}()
	stopped := false
	end := func() {
		if stopped {
			return
		}
		stopped = true
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	defer end()

	m := &machine{t: t, mac: boot.MAC{0x52, 0x54, 0, 0, 0, 1}, dhcp: c.exchange}
	operator := client.New(cfg.Socket)
	eventuallyTrue(t, func() bool {
		s, err := operator.Status(t.Context())
		return err == nil && len(s.Images) == 1 && s.Images[0].Version != ""
	})
	m.reached = func(s boot.Stage) {
		t.Helper()
		eventuallyTrue(t, func() bool {
			got, err := operator.Machine(t.Context(), "node1")
			return err == nil && slices.ContainsFunc(got.Boot.Steps, func(x boot.Step) bool { return x.Stage == s })
		})
	}
	scenario(t, m, fmt.Sprintf("http://127.0.1.1:%d", port), fmt.Sprintf("127.0.1.1:%d", port))

	got, err := operator.Machine(t.Context(), "node1")
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, s := range got.Boot.Steps {
		steps = append(steps, strings.TrimSpace(fmt.Sprintf("%s %s", s.Stage, s.Client)))
	}
	want := []string{"offered firmware", "leased firmware", "loader firmware", "offered iPXE", "leased iPXE", "script iPXE", "kernel iPXE",
		"initrd iPXE", "rootfs initramfs", "refused", "ignition initramfs", "up system", "refused"}
	if d := cmp.Diff(want, steps); d != "" {
		t.Errorf("steps of the boot (-want +got):\n%s", d)
	}
	if got.Stage != boot.Up || got.Profile != "worker" || got.Waits != "" {
		t.Errorf("stage %s, profile %s, waits %q", got.Stage, got.Profile, got.Waits)
	}
	leases, err := operator.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(leases) != 1 || leases[0].Addr.String() != "127.0.1.11" || leases[0].State != "bound" {
		t.Errorf("leases: %+v", leases)
	}
	if err := operator.Release(t.Context(), leases[0].Addr); err != nil {
		t.Error(err)
	}
	if leases, err = operator.Leases(t.Context()); err != nil || leases[0].State != "released" {
		t.Errorf("leases: %+v, %v", leases, err)
	}
	m.http.Transport = http.DefaultTransport
	eventuallyTrue(t, func() bool {
		text := m.get(fmt.Sprintf("http://127.0.1.1:%d/metrics", scraped))
		return strings.Contains(text, `bootd_boot_events_total{client="iPXE",stage="script"} 1`) &&
			strings.Contains(text, `bootd_boot_duration_seconds_count{stage="up"} 1`) &&
			strings.Contains(text, `bootd_dhcp_leases{network="rack",state="released"} 1`) &&
			strings.Contains(text, `bootd_dhcp_pool_addresses{network="rack"} 101`)
	})
	end()
	if strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("errors in the log:\n%s", log.String())
	}
}

// eventuallyTrue waits for what another goroutine does in its own time.
func eventuallyTrue(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that")
		}
	}
}

// scenario boots a machine with BIOS.
func scenario(t *testing.T, m *machine, base, tftpAddr string) {
	firmware := m.lease(
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}))
	if m.addr.String() != "127.0.1.11" {
		t.Fatalf("leased %s, not its own address", m.addr)
	}
	if firmware.BootFileName != "undionly.kpxe" || firmware.ServerIPAddr.String() != "127.0.1.1" {
		t.Fatalf("boot file %q at %s", firmware.BootFileName, firmware.ServerIPAddr)
	}
	if got := m.tftp(tftpAddr, firmware.BootFileName); !bytes.Equal(got, nbp()) {
		t.Fatalf("loader of %d bytes", len(got))
	}

	m.reached(boot.Loader)

	ipxe := m.lease(
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithUserClass("iPXE", false),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}))
	if ipxe.BootFileName != base+"/boot.ipxe" {
		t.Fatalf("boot file of iPXE: %q", ipxe.BootFileName)
	}
	if first := m.get(ipxe.BootFileName); !strings.Contains(first, base+"/ipxe?") {
		t.Errorf("the first script does not ask for the machine's:\n%s", first)
	}
	script := m.get(base + "/ipxe?mac=" + m.mac.String() + "&uuid=77000000-0000-4000-8000-525400770010&platform=pcbios&buildarch=i386")
	for _, f := range []struct {
		stage boot.Stage
		url   string
	}{
		{boot.Kernel, `kernel (http://\S+)`},
		{boot.Initrd, `initrd .*(http://\S+)`},
		{boot.RootFS, `coreos\.live\.rootfs_url=(\S+)`},
	} {
		m.get(find(t, f.url, script))
		m.reached(f.stage)
	}
	config := find(t, `ignition\.config\.url=(\S+)`, script)

	// Somebody else on the network cannot have it.
	other := &machine{t: t}
	if status, _ := other.request(http.MethodGet, config, ""); status != http.StatusForbidden {
		t.Errorf("config for another address: status %d", status)
	}
	ignition := m.get(config)
	for _, part := range []string{"node1", "greetings"} {
		if !strings.Contains(ignition, part) {
			t.Errorf("no %q in the config:\n%s", part, ignition)
		}
	}
	report := "http:" + strings.ReplaceAll(find(t, `data:,http%3A(%2F%2F[^"]*%2Freport%2F[^"]*?)(?:%0A)?"`, ignition), "%2F", "/")
	report = strings.ReplaceAll(report, "%3A", ":")
	if status, body := m.request(http.MethodPost, report, `{"stage": "up"}`); status/100 != 2 {
		t.Errorf("report: %d %s", status, body)
	}
	// The config was for the boot until the system was up.
	if status, _ := m.request(http.MethodGet, config, ""); status != http.StatusForbidden && status != http.StatusGone {
		t.Errorf("config once more: status %d", status)
	}
}
