//go:build e2e

package lab_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// stormSize is how many machines are switched on in the same moment.
	stormSize = 1000
	// stormLimit is how long one of them tries before it has failed. Only a failure
	// takes that long.
	stormLimit = 3 * time.Minute
	// stormMemory is what the server may take at its worst: three times what it
	// took when this was written.
	stormMemory = 512 << 20
)

// stormFiles are what the machines fetch, by its stage: about as large as a real
// loader, and small in place of a real system.
var stormFiles = map[string][]byte{
	"loader": blob(170<<10, 0x3c, "\x80", 0x80, "PE\x00\x00\x64\x86"),
	"kernel": blob(256<<10, 0x202, "HdrS"),
	"initrd": blob(512 << 10),
	"rootfs": blob(1 << 20),
}

// blob makes a file that has texts at offsets and looks random elsewhere.
func blob(size int, texts ...any) []byte {
	b := make([]byte, size)
	for i, x := 0, uint32(size); i < size; i++ {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	clear(b[:min(size, 0x300)])
	copy(b, "MZ")
	for i := 0; i < len(texts); i += 2 {
		copy(b[texts[i].(int):], texts[i+1].(string))
	}
	return b
}

// TestBootStorm switches on a thousand machines in the same moment, twice. Each is
// simulated packet by packet, from its firmware's DISCOVER to its own Ignition
// config, with an address of its own; the server is the real program in a network
// namespace. None may fail, and the server's memory stays bounded.
func TestBootStorm(t *testing.T) {
	r := newRoom(t)
	for name, b := range map[string][]byte{
		"loaders/snponly.efi":                   stormFiles["loader"],
		"image/lab-1-live-kernel.x86_64":        stormFiles["kernel"],
		"image/lab-1-live-initramfs.x86_64.img": stormFiles["initrd"],
		"image/lab-1-live-rootfs.x86_64.img":    stormFiles["rootfs"],
		"profiles/p.yaml":                       []byte("name: p\nimage: lab\nssh_keys: [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFEkNxwxqjzk1rOKs3y6Xvt4nDxmpPRZu3ZXcHTc5XCN storm\"]\n"),
		"machines/all.yaml":                     []byte("- {match: {manufacturer: storm}, name: \"{{.serial}}\", profile: p}\n"),
		"bootd.yaml": []byte("networks: [{interface: eth1, subnet: 10.0.0.0/16, range: 10.0.1.0-10.0.250.255}]\n" +
			"images: {lab: {path: image}}\nloaders: loaders\nstate_dir: state\napi: {socket: bootd.sock}\nlog: {level: warn}\n"),
	} {
		put(t, filepath.Join(r.dir, name), string(b))
	}
	program := bootd(t)
	pid, stop := r.startProcess(t, nil, program, "serve", "-c", r.dir)
	defer stop()
	ask := func(args ...string) []byte {
		out, _ := exec.Command(program, append(args, "-c", r.dir)...).Output() // empty: not up yet
		return out
	}
	wait(t, time.Minute, "the server has the image", func() bool {
		var s struct{ Images []struct{ Version string } }
		return json.Unmarshal(ask("status", "-o", "json"), &s) == nil && len(s.Images) == 1 && s.Images[0].Version != ""
	})
	s := newStorm(t, r)
	for n, what := range []string{"the first time", "again"} {
		before := memory(t, pid, "VmRSS")
		if n > 0 {
			s.unplug(t)
		}
		took := s.strike(t)
		t.Logf("%d machines, %s, in %.1f s; the server had %d MiB of memory before and %d at most\n%s", stormSize, what, took.Seconds(), before>>20, memory(t, pid, "VmHWM")>>20, s.table())
	}
	if got := memory(t, pid, "VmHWM"); got > stormMemory {
		t.Errorf("the server took %d MiB", got>>20)
	}
	var list []struct{ Name, Stage, Profile string }
	if err := json.Unmarshal(ask("machine", "list", "-o", "json"), &list); err != nil {
		t.Fatal(err)
	}
	on := map[string]bool{}
	for _, m := range list {
		on[m.Name] = m.Profile == "p" && m.Stage == "ignition"
	}
	for i := range stormSize {
		if !on[stormName(i)] {
			t.Errorf("%s is not on record with its Ignition config", stormName(i))
		}
	}
}

func stormName(i int) string { return fmt.Sprintf("storm%04d", i) }

// memory reads a line of a process's status (proc_pid_status(5)), in bytes.
func memory(t *testing.T, pid int, line string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + line + `:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no %s in\n%s", line, b)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// A storm is the machines' side.
type storm struct {
	room  room
	wire  *wire
	card  netlink.Link
	cards *netlink.Handle // changes its addresses
	sums  map[string]uint32
	mu    sync.Mutex
	times map[string][]time.Duration // by stage
}

var stormStages = []string{"firmware's address", "loader by TFTP", "iPXE's address", "script", "kernel", "initrd", "initramfs' address", "rootfs", "Ignition", "all"}

func newStorm(t *testing.T, r room) *storm {
	t.Helper()
	s := &storm{room: r, sums: map[string]uint32{}}
	for name, b := range stormFiles {
		s.sums[name] = crc32.ChecksumIEEE(b)
	}
	var err error
	r.inside(t, func() error { s.wire, err = listenWire("eth1"); return err })
	t.Cleanup(s.wire.close)
	ns, err := netns.GetFromName(r.clients)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if s.cards, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cards.Close)
	if s.card, err = s.cards.LinkByName("eth1"); err != nil {
		t.Fatal(err)
	}
	s.unplug(t)
	return s
}

// unplug takes all addresses off the machines' card.
func (s *storm) unplug(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("ip", "-n", s.room.clients, "addr", "flush", "dev", "eth1").CombinedOutput(); err != nil {
		t.Fatalf("ip: %v: %s", err, out)
	}
}

// strike boots all machines.
func (s *storm) strike(t *testing.T) time.Duration {
	t.Helper()
	s.times = map[string][]time.Duration{}
	ctx, cancel := context.WithTimeout(t.Context(), stormLimit)
	defer cancel()
	failed := make([]error, stormSize)
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range stormSize {
		wg.Go(func() {
			m := &stormMachine{storm: s, name: stormName(i), mac: net.HardwareAddr{0x52, 0x54, 1, 0, byte(i >> 8), byte(i)}, last: time.Now()}
			failed[i] = m.boot(ctx)
		})
	}
	wg.Wait()
	took := time.Since(begun)
	bad := 0
	for i, err := range failed {
		if err == nil {
			continue
		}
		if bad++; bad <= 10 {
			t.Errorf("%s: %v", stormName(i), err)
		}
	}
	if bad > 0 {
		t.Fatalf("%d of %d machines failed", bad, stormSize)
	}
	return took
}

// table shows how long the machines took for each stage.
func (s *storm) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-20s %8s %8s %8s %8s  ms", "", "median", "90 %", "99 %", "slowest")
	for _, stage := range stormStages {
		l := s.times[stage]
		slices.Sort(l)
		fmt.Fprintf(&b, "\n%-20s", stage)
		for _, p := range []int{50, 90, 99, 100} {
			fmt.Fprintf(&b, " %8.0f", float64(l[max(len(l)*p/100, 1)-1])/float64(time.Millisecond))
		}
	}
	return b.String()
}

// A stormMachine is a diskless one.
type stormMachine struct {
	*storm
	name string
	mac  net.HardwareAddr
	addr netip.Addr
	last time.Time // end of the stage before
}

// done notes how long a stage took.
func (m *stormMachine) done(stage string) {
	now := time.Now()
	m.mu.Lock()
	m.times[stage] = append(m.times[stage], now.Sub(m.last))
	m.mu.Unlock()
	m.last = now
}

// boot goes from the first packet to the Ignition config.
func (m *stormMachine) boot(ctx context.Context) error {
	begun := m.last
	pxe := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7}),
	}
	ack, err := m.lease(ctx, "firmware's address", pxe...)
	if err != nil {
		return err
	}
	if err := m.plug(); err != nil {
		return err
	}
	if err := m.loader(ctx, ack.BootFileName); err != nil {
		return err
	}
	m.done("loader by TFTP")
	if ack, err = m.lease(ctx, "iPXE's address", append(pxe, dhcpv4.WithUserClass("iPXE", false),
		dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(175), []byte{19, 1, 1, 24, 1, 1, 36, 1, 1}))...); err != nil {
		return err
	}
	script, err := m.script(ctx, ack.BootFileName)
	if err != nil {
		return err
	}
	m.done("script")
	for stage, url := range map[string]string{"kernel": `kernel (http://\S+)`, "initrd": `initrd .*(http://\S+)`, "rootfs": `coreos\.live\.rootfs_url=(\S+)`, "Ignition": `ignition\.config\.url=(\S+)`} {
		if !regexp.MustCompile(url).MatchString(script) {
			return fmt.Errorf("there is no %s in its script:\n%s", stage, script)
		}
	}
	if err := m.file(ctx, "kernel", find(`kernel (http://\S+)`, script)); err != nil {
		return err
	}
	if err := m.file(ctx, "initrd", find(`initrd .*(http://\S+)`, script)); err != nil {
		return err
	}
	if _, err = m.lease(ctx, "initramfs' address", dhcpv4.WithOption(dhcpv4.OptHostName("lab-initramfs"))); err != nil {
		return err
	}
	if err := m.file(ctx, "rootfs", find(`coreos\.live\.rootfs_url=(\S+)`, script)); err != nil {
		return err
	}
	config, err := m.get(ctx, find(`ignition\.config\.url=(\S+)`, script), "Ignition/2.20.0")
	if err != nil {
		return err
	}
	if !json.Valid(config) || !bytes.Contains(config, []byte(m.name)) {
		return fmt.Errorf("this is not its Ignition config:\n%s", config)
	}
	m.done("Ignition")
	m.last = begun
	m.done("all")
	return nil
}

// find returns what a pattern's group matches.
func find(pattern, text string) string {
	return append(regexp.MustCompile(pattern).FindStringSubmatch(text), "", "")[1]
}

// lease gets the address.
func (m *stormMachine) lease(ctx context.Context, stage string, kind ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	common := append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(m.mac), dhcpv4.WithBroadcast(true)}, kind...)
	p, err := dhcpv4.New(append(common, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover))...)
	if err != nil {
		return nil, err
	}
	offer, err := m.wire.ask(ctx, p, dhcpv4.MessageTypeOffer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", stage, err)
	}
	p, err = dhcpv4.New(append(common, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))...)
	if err != nil {
		return nil, err
	}
	ack, err := m.wire.ask(ctx, p, dhcpv4.MessageTypeAck)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", stage, err)
	}
	addr, _ := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if m.addr.IsValid() && m.addr != addr {
		return nil, fmt.Errorf("%s: it is %s, and was %s before", stage, addr, m.addr)
	}
	m.addr = addr
	m.done(stage)
	return ack, nil
}

// plug makes the address the machine's: the server asks by ARP before it gives one.
func (m *stormMachine) plug() error {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: m.addr.AsSlice(), Mask: net.CIDRMask(16, 32)}}
	if err := m.cards.AddrAdd(m.card, a); err != nil {
		return fmt.Errorf("cannot have the address %s: %w", m.addr, err) // it exists: another machine's
	}
	return nil
}

// loader fetches the loader as EDK2 does, which asks again every four seconds.
func (m *stormMachine) loader(ctx context.Context, name string) error {
	if name != "snponly.efi" {
		return fmt.Errorf("its loader is called %q", name)
	}
	var c *net.UDPConn
	if err := m.room.within(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(m.addr, 0)))
		return err
	}); err != nil {
		return err
	}
	defer c.Close()
	end, _ := ctx.Deadline()
	n, err := tftpGet{conn: c, name: name, again: 4 * time.Second}.run(time.Until(end))
	if want := len(stormFiles["loader"]); err == nil && n != want {
		err = fmt.Errorf("%d of %d bytes", n, want)
	}
	if err != nil {
		return fmt.Errorf("loader: %w", err)
	}
	return nil
}

// script runs the first script as far as its question, and returns the machine's own.
func (m *stormMachine) script(ctx context.Context, url string) (string, error) {
	first, err := m.get(ctx, url, "iPXE/1.21.1")
	if err != nil {
		return "", err
	}
	run, base := find(`set run (\S+)`, string(first)), strings.TrimSuffix(url, "/boot.ipxe")
	if run == "" || base == url {
		return "", fmt.Errorf("the first script, at %s, is\n%s", url, first)
	}
	script, err := m.get(ctx, base+"/ipxe?mac="+m.mac.String()+"&serial="+m.name+"&manufacturer=storm&product=x&platform=efi&buildarch=x86_64&cpu=x86_64&mem=1024&run="+run, "iPXE/1.21.1")
	return string(script), err
}

// file fetches one of the files.
func (m *stormMachine) file(ctx context.Context, stage, url string) error {
	b, err := m.get(ctx, url, "iPXE/1.21.1")
	if err != nil {
		return err
	}
	if crc32.ChecksumIEEE(b) != m.sums[stage] {
		return fmt.Errorf("%s is not what is at %s, but %d other bytes", stage, url, len(b))
	}
	m.done(stage)
	return nil
}

// get fetches a URL over a connection of its own, from the machine's address.
func (m *stormMachine) get(ctx context.Context, url, agent string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", agent)
	if strings.HasPrefix(agent, "Ignition") {
		r.Header.Set("Accept", "application/vnd.coreos.ignition+json;version=3.4.0, */*;q=0.1")
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(m.addr, 0))}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = m.room.within(func() error { c, err = d.DialContext(ctx, network, addr); return err })
		return c, err
	}}}
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, b)
	}
	return b, err
}

// A wire is a packet socket (packet(7)) on the machines' card, for DHCP clients
// that have no address yet.
type wire struct {
	fd    int
	index int
	ended chan struct{}
	mu    sync.Mutex
	xids  map[dhcpv4.TransactionID]chan *dhcpv4.DHCPv4
}

// listenWire opens a wire on an interface of the current namespace.
func listenWire(name string) (*wire, error) {
	card, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	const ip = 0x0008 // ETH_P_IP in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ip)
	if err != nil {
		return nil, err
	}
	w := &wire{fd: fd, index: card.Index, ended: make(chan struct{}), xids: map[dhcpv4.TransactionID]chan *dhcpv4.DHCPv4{}}
	// Everything that the machines fetch comes by here, too.
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Val: unix.IPPROTO_UDP, SkipFalse: 3},
		bpf.LoadAbsolute{Off: 22, Size: 2}, // bootd's packets have no IP options
		bpf.JumpIf{Val: 68, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{},
	})
	filter := make([]unix.SockFilter, len(program))
	for i, p := range program {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	err = errors.Join(err,
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: card.Index}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		// So that it is noticed that the wire is closed.
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	go w.receive()
	return w, nil
}

func (w *wire) close() { w.ended <- struct{}{}; <-w.ended }

// receive hands out what comes for the clients' port.
func (w *wire) receive() {
	defer close(w.ended)
	defer unix.Close(w.fd)
	b := make([]byte, 2048)
	for {
		select {
		case <-w.ended:
			return
		default:
		}
		n, _, err := unix.Recvfrom(w.fd, b, 0)
		if err != nil || n < 28 {
			continue
		}
		p, err := dhcpv4.FromBytes(b[28:n])
		if err != nil {
			continue
		}
		w.mu.Lock()
		if c := w.xids[p.TransactionID]; c != nil {
			select {
			case c <- p:
			default: // it has two already
			}
		}
		w.mu.Unlock()
	}
}

// ask broadcasts a packet, again after 4, 8, 16, ... seconds (RFC 2131 section 4.1),
// until there is an answer of the kind.
func (w *wire) ask(ctx context.Context, p *dhcpv4.DHCPv4, kind dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	answers := make(chan *dhcpv4.DHCPv4, 2)
	w.mu.Lock()
	w.xids[p.TransactionID] = answers
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.xids, p.TransactionID)
		w.mu.Unlock()
	}()
	packet := broadcast(p.ToBytes())
	for pause := 4 * time.Second; ; pause *= 2 {
		if err := unix.Sendto(w.fd, packet, 0, &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: w.index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}); err != nil {
			return nil, err
		}
		select {
		case a := <-answers:
			if a.MessageType() != kind {
				return nil, fmt.Errorf("the answer to its %s is a %s: %s", p.MessageType(), a.MessageType(), a.Message())
			}
			return a, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer to its %s", p.MessageType())
		case <-time.After(pause):
		}
	}
}

// broadcast puts a DHCP message into a packet from 0.0.0.0:68 to
// 255.255.255.255:67. Its UDP header has no checksum, as RFC 768 allows.
func broadcast(message []byte) []byte {
	b := make([]byte, 28, 28+len(message))
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(message)))
	copy(b[16:], "\xff\xff\xff\xff")
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(b[20:], 68)
	binary.BigEndian.PutUint16(b[22:], 67)
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(message)))
	return append(b, message...)
}
