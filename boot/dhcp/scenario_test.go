package dhcp_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/boot/lease"
)

// A station is a machine's network card.
type station interface {
	send(t *testing.T, payload []byte, to netip.Addr)
	// receive returns what arrived for the card next, as "unicast" or
	// "broadcast" frame, with its UDP destination and payload.
	receive(t *testing.T) (frame string, to netip.AddrPort, payload []byte)
}

// scenario is a machine's life, in simulation and on a real network.
func scenario(t *testing.T, p dhcp.Policy, s station) {
	server, all := addr("10.0.0.1"), addr("255.255.255.255")
	for _, step := range []struct {
		name   string
		packet []byte
		to     netip.Addr
		want   string // empty: no answer
	}{
		{"discover", request(discover, mac(7)), all, "unicast to 10.0.0.100:68: OFFER 10.0.0.100"},
		{"select", request(ask, mac(7), asks("10.0.0.100"), chooses("10.0.0.1")), all, "unicast to 10.0.0.100:68: ACK 10.0.0.100"},
		{"renew", request(ask, mac(7), has("10.0.0.100")), server, "unicast to 10.0.0.100:68: ACK 10.0.0.100"},
		{"rebind", request(ask, mac(7), has("10.0.0.100")), all, "unicast to 10.0.0.100:68: ACK 10.0.0.100"},
		{"a stranger's address", request(ask, mac(7), asks("192.168.1.5")), all, "broadcast to 255.255.255.255:68: NAK 0.0.0.0"},
		{"release", request(release, mac(7), has("10.0.0.100"), chooses("10.0.0.1")), server, ""},
		{"discover again", request(discover, mac(7), broadcast), all, "broadcast to 255.255.255.255:68: OFFER 10.0.0.100"},
		{"a reserved address", request(discover, mac(7), asks("10.0.0.50"), broadcast), all, "broadcast to 255.255.255.255:68: OFFER 10.0.0.100"},
	} {
		s.send(t, step.packet, step.to)
		if step.want == "" {
			continue // an answer to it would be taken for the next step's
		}
		frame, to, payload := s.receive(t)
		m, err := dhcpv4.FromBytes(payload)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		got := fmt.Sprintf("%s to %s: %s %s", frame, to, m.MessageType(), m.YourIPAddr)
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	if l, ok := p.Leases.ByMAC("lab", mac(7)); !ok || l.Addr != addr("10.0.0.100") {
		t.Errorf("the lease is %+v", l)
	}
}

// simulated is a station on a wire.
type simulated struct{ *wire }

func (s simulated) send(_ *testing.T, b []byte, _ netip.Addr) {
	s.in <- b
	synctest.Wait()
}

func (s simulated) receive(t *testing.T) (string, netip.AddrPort, []byte) {
	select {
	case a := <-s.out:
		frame := "unicast"
		if a.To.Addr() == addr("255.255.255.255") {
			frame = "broadcast"
		}
		return frame, a.To, a.Reply
	default:
		t.Fatal("no answer")
		return "", netip.AddrPort{}, nil
	}
}

func TestScenarioSimulated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t)
		r := start(t, p, onlyEth1, nil)
		scenario(t, p, simulated{r.wire("eth1")})
	})
}

const inNamespace = "DHCP_TEST_IN_NAMESPACE"

// TestReal runs TestRealInside in a network namespace of its own, which goes
// away with its process.
func TestReal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root; TestScenarioSimulated is the same without")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("the command ip is not installed; TestScenarioSimulated is the same without")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestRealInside$", "-test.v")
	c.Env = append(os.Environ(), inNamespace+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := c.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skipf("making network namespaces is not permitted here (%v); TestScenarioSimulated is the same without", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestRealInside/scenario") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// A machine is a thread that lives in a network namespace of its own.
type machine struct {
	work  chan func()
	ended chan struct{} // closed when its thread has ended, which a failed check may do
}

func newMachine(t *testing.T) (m machine, tid int) {
	m.work, m.ended = make(chan func()), make(chan struct{})
	ready := make(chan error)
	go func() {
		defer close(m.ended)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		tid = unix.Gettid()
		ready <- err
		for f := range m.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(m.work) })
	return m, tid
}

func (m machine) do(f func()) {
	done := make(chan struct{})
	select {
	case m.work <- func() { defer close(done); f() }:
		<-done
	case <-m.ended:
	}
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestRealInside(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		t.Skip("TestReal runs it, in a network namespace")
	}
	m, tid := newMachine(t)
	plug(t, m, tid)
	other, err := net.ListenPacket("udp4", "10.0.0.1:67")
	if err != nil {
		t.Fatal(err)
	}
	p := policy(t)
	_, err = dhcp.Listen(dhcp.Config{Policy: p, Log: quiet, Record: func(boot.Event) {}})
	if err == nil || !strings.Contains(err.Error(), "another DHCP server has port 67") {
		t.Errorf("beside another server: %v", err)
	}
	other.Close()
	s, err := dhcp.Listen(dhcp.Config{Policy: p, Log: quiet, Record: func(boot.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	t.Run("scenario", func(t *testing.T) {
		c := newCard(t, m)
		defer c.Close()
		scenario(t, p, c)
	})
	t.Run("udhcpc", func(t *testing.T) { udhcpc(t, m, p) })
	t.Run("an address that somebody uses", func(t *testing.T) {
		c := newCard(t, m)
		defer c.Close()
		m.do(func() { run(t, "ip", "addr", "add", "10.0.0.102/24", "dev", "card") })
		defer m.do(func() { run(t, "ip", "addr", "del", "10.0.0.102/24", "dev", "card") })
		c.send(t, request(discover, mac(8), asks("10.0.0.102"), broadcast), addr("255.255.255.255"))
		_, _, payload := c.receive(t)
		if got, err := dhcpv4.FromBytes(payload); err != nil || got.YourIPAddr.String() != "10.0.0.103" {
			t.Errorf("offered %v, %v", got, err)
		}
		if l, _ := p.Leases.ByAddr("lab", addr("10.0.0.102")); l.State != lease.Declined {
			t.Errorf("10.0.0.102 is %s", l.State)
		}
	})
	realClients(t, m, p)
	t.Run("relay agent", func(t *testing.T) { relayed(t, m, tid, p) })
	t.Run("another server", func(t *testing.T) { lookout(t, m, p) })
	t.Run("after the interface was made anew", func(t *testing.T) {
		run(t, "ip", "link", "del", "eth1")
		plug(t, m, tid)
		s.Reload()
		udhcpc(t, m, p)
	})
}

// plug connects a machine to eth1.
func plug(t *testing.T, m machine, tid int) {
	t.Helper()
	run(t, "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "card", "address", mac(7).String())
	run(t, "ip", "link", "set", "card", "netns", fmt.Sprint(tid))
	run(t, "ip", "addr", "add", "10.5.0.1/24", "dev", "eth1") // what the system would send from
	run(t, "ip", "addr", "add", "10.0.0.1/24", "dev", "eth1")
	run(t, "ip", "link", "set", "eth1", "up")
	m.do(func() { run(t, "ip", "link", "set", "card", "up") })
}

// A card sends and receives whole frames, like firmware, which has no address.
type card struct {
	*os.File
	index int
	hw    net.HardwareAddr
	peer  net.HardwareAddr
}

func newCard(t *testing.T, m machine) *card {
	t.Helper()
	server, err := net.InterfaceByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	c := &card{peer: server.HardwareAddr}
	ipv4 := uint16(unix.ETH_P_IP>>8 | unix.ETH_P_IP<<8&0xff00)
	m.do(func() {
		var fd int
		var i *net.Interface
		if i, err = net.InterfaceByName("card"); err != nil {
			return
		}
		c.index, c.hw = i.Index, i.HardwareAddr
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(ipv4)); err != nil {
			return
		}
		c.File = os.NewFile(uintptr(fd), "card")
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: c.index})
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *card) send(t *testing.T, payload []byte, to netip.Addr) {
	from, dst := []byte{0, 0, 0, 0}, c.peer
	if ci := payload[12:16]; ci[0] != 0 {
		from = ci
	}
	if to == addr("255.255.255.255") {
		dst = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	}
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0}
	ip = append(append(ip, from...), to.AsSlice()...)
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(payload)))
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	frame := append(append(append([]byte{}, dst...), c.hw...), 8, 0)
	frame = append(frame, ip...)
	frame = append(frame, 0, 68, 0, 67, byte((8+len(payload))>>8), byte(8+len(payload)), 0, 0)
	if _, err := c.Write(append(frame, payload...)); err != nil {
		t.Fatal(err)
	}
}

func (c *card) receive(t *testing.T) (string, netip.AddrPort, []byte) {
	b := make([]byte, 2000)
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		// Those that come from the server; the socket shows its own too.
		if f := b[:n]; n > 42 && f[23] == 17 && binary.BigEndian.Uint16(f[34:]) == 67 {
			if from, _ := netip.AddrFromSlice(f[26:30]); from != addr("10.0.0.1") {
				t.Errorf("sent from %s, which is not what it calls itself", from)
			}
			frame := "a frame for " + net.HardwareAddr(f[:6]).String()
			switch net.HardwareAddr(f[:6]).String() {
			case c.hw.String():
				frame = "unicast"
			case "ff:ff:ff:ff:ff:ff":
				frame = "broadcast"
			}
			to, _ := netip.AddrFromSlice(f[30:34])
			return frame, netip.AddrPortFrom(to, binary.BigEndian.Uint16(f[36:])), f[42:n]
		}
	}
}

// udhcpc is a real client: BusyBox's.
func udhcpc(t *testing.T, m machine, p dhcp.Policy) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("busybox is not installed")
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	text := "#!/bin/sh\necho \"$1 ip=$ip mask=$mask router=$router dns=$dns domain=$domain lease=$lease serverid=$serverid\" >>" + filepath.Join(dir, "log") +
		"\n[ \"$1\" = bound ] && ip addr replace $ip/$mask dev $interface\nexit 0\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	m.do(func() {
		run(t, "busybox", "udhcpc", "-f", "-q", "-n", "-R", "-t", "5", "-T", "1", "-i", "card", "-s", script)
	})
	b, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	want := "bound ip=10.0.0.100 mask=24 router=10.0.0.254 dns=10.0.0.2 10.0.0.3 domain=lab.example lease=43200 serverid=10.0.0.1"
	if !strings.Contains(string(b), want) {
		t.Errorf("udhcpc was told\n%s\nwant\n%s", b, want)
	}
	if l, ok := p.Leases.ByMAC("lab", mac(7)); !ok || l.Addr != addr("10.0.0.100") {
		t.Errorf("the lease is %+v", l)
	}
}
