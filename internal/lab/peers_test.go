package lab_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/net/ipv4"
)

// A room is two network namespaces with a cable between them: one for a DHCP
// server, one for a relay agent with its many clients.
type room struct {
	servers, clients string
	dir              string
}

const (
	roomServer = "10.0.0.1"
	roomAgent  = "10.0.255.254"
)

func newRoom(b *testing.B) room {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("making network namespaces needs root")
	}
	r := room{servers: fmt.Sprintf("bootd-bench-%d-s", os.Getpid()), clients: fmt.Sprintf("bootd-bench-%d-c", os.Getpid()), dir: b.TempDir()}
	run := func(args ...string) {
		b.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			b.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, ns := range []string{r.servers, r.clients} {
		run("netns", "add", ns)
		b.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		run("-n", ns, "link", "set", "lo", "up")
	}
	run("-n", r.servers, "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", r.clients)
	for ns, addr := range map[string]string{r.servers: roomServer, r.clients: roomAgent} {
		run("-n", ns, "addr", "add", addr+"/16", "dev", "eth1")
		run("-n", ns, "link", "set", "eth1", "up")
	}
	// Kea does not open interfaces whose cable is not in yet.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := exec.Command("ip", "-n", r.servers, "link", "show", "eth1").Output()
		if err == nil && bytes.Contains(out, []byte("state UP")) {
			return r
		}
		if time.Now().After(end) {
			b.Fatalf("the cable is not in: %s", out)
		}
	}
}

// socket opens the relay agent's port. It stays in the clients' namespace.
func (r room) socket(b *testing.B) *net.UDPConn {
	b.Helper()
	var c *net.UDPConn
	r.inside(b, func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(roomAgent+":67")))
		return err
	})
	_ = c.SetReadBuffer(4 << 20)
	return c
}

// inside opens sockets in the clients' namespace.
func (r room) inside(b *testing.B, open func() error) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		b.Fatal(err)
	}
	defer here.Close()
	there, err := netns.GetFromName(r.clients)
	if err != nil {
		b.Fatal(err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := netns.Set(here); err != nil {
			b.Fatal(err) // with the thread, which ends with its goroutine
		}
	}()
	if err := open(); err != nil {
		b.Fatal(err)
	}
}

// start runs a server until the function that it returns is called.
func (r room) start(b *testing.B, env []string, argv ...string) (stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", r.servers}, argv...)...)
	var said bytes.Buffer
	c.Stdout, c.Stderr, c.Env = &said, &said, append(os.Environ(), env...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // so that it ends its children
	c.WaitDelay = 5 * time.Second
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	return func() {
		cancel()
		_ = c.Wait() // it was told to end
		if b.Failed() {
			b.Logf("%s:\n%s", argv[0], said.Bytes()[max(0, said.Len()-3000):])
		}
	}
}

// bootd runs the program under test, with more of a configuration.
func (r room) bootd(b *testing.B, dir, more string) func() {
	program := os.Getenv("BOOTD")
	if program == "" {
		b.Skip("BOOTD does not name the program")
	}
	put(b, filepath.Join(dir, "bootd.yaml"), "networks: [{interface: eth1, subnet: 10.0.0.0/16, range: 10.0.1.0-10.0.250.255}]\n"+
		"state_dir: state\napi: {socket: bootd.sock}\nlog: {level: error}\n"+more)
	return r.start(b, nil, program, "serve", "-c", dir)
}

// dhcpPeers are the servers that are compared. Each starts with no leases and
// keeps them on disk: bootd synced before each answer, the others not.
func dhcpPeers() map[string]func(b *testing.B, r room, dir string) (stop func()) {
	return map[string]func(b *testing.B, r room, dir string) func(){
		"bootd": func(b *testing.B, r room, dir string) func() {
			return r.bootd(b, dir, "")
		},
		"dnsmasq": func(b *testing.B, r room, dir string) func() {
			return r.start(b, nil, "dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--interface=eth1", "--bind-interfaces", "--user=root", "--no-ping",
				"--dhcp-range=10.0.1.0,10.0.250.255,255.255.0.0,1h", "--dhcp-lease-max=100000", "--dhcp-authoritative", "--quiet-dhcp",
				"--dhcp-leasefile="+filepath.Join(dir, "leases"), "--pid-file="+filepath.Join(dir, "pid"), "--log-facility=-")
		},
		"kea-dhcp4": func(b *testing.B, r room, dir string) func() {
			put(b, filepath.Join(dir, "kea.json"), `{"Dhcp4": {"interfaces-config": {"interfaces": ["eth1"]}, "valid-lifetime": 3600,
				"lease-database": {"type": "memfile", "persist": true, "name": "`+dir+`/leases.csv"},
				"subnet4": [{"id": 1, "subnet": "10.0.0.0/16", "pools": [{"pool": "10.0.1.0 - 10.0.250.255"}]}],
				"loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": "stderr"}]}]}}`)
			return r.start(b, []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=" + dir}, "kea-dhcp4", "-c", filepath.Join(dir, "kea.json"))
		},
	}
}

// put writes a file, and the folders that it is in.
func put(b *testing.B, path, text string) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDHCPPeers counts four-way exchanges per second through a relay agent
// that keeps so many of them in flight, for each server in turn.
func BenchmarkDHCPPeers(b *testing.B) {
	const clients = 10_000
	for _, flight := range []int{1, 64, 1024} {
		for _, name := range []string{"bootd", "kea-dhcp4", "dnsmasq"} {
			b.Run(fmt.Sprintf("flight=%d/server=%s", flight, name), func(b *testing.B) {
				if _, err := exec.LookPath(name); err != nil && name != "bootd" {
					b.Skipf("%s is not installed", name)
				}
				r := newRoom(b)
				stop := dhcpPeers()[name](b, r, r.dir)
				defer stop()
				c := r.socket(b)
				defer c.Close()
				l := newLoad(c, flight, clients)
				if done, err := l.run(1, 30*time.Second); done < 1 {
					b.Fatalf("it does not answer: %v", err)
				}
				const long = 3 * time.Second
				b.ResetTimer()
				done, err := l.run(math.MaxInt, long)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(0, "ns/op") // means nothing here
				b.ReportMetric(float64(done)/long.Seconds(), "exchanges/s")
				b.ReportMetric(float64(l.again), "repeats")
			})
		}
	}
}

// A load is a relay agent whose clients ask for addresses one after the other,
// so many of them at a time.
type load struct {
	conn    *net.UDPConn
	pc      *ipv4.PacketConn
	clients int
	next    int
	again   int // packets that were sent again
	slots   []clientSlot
}

// A clientSlot is an exchange in flight. Its number is in the transaction ID.
type clientSlot struct {
	busy   bool
	client int
	packet [300]byte
	size   int
	sent   time.Time
}

func newLoad(c *net.UDPConn, flight, clients int) *load {
	return &load{conn: c, pc: ipv4.NewPacketConn(c), clients: clients, slots: make([]clientSlot, flight)}
}

// patience of a client: shorter than any real one's, since a lost packet stands
// still for so long.
const dhcpPatience = 500 * time.Millisecond

// run has so many exchanges completed, or as many as there is time for.
func (l *load) run(count int, limit time.Duration) (done int, err error) {
	begun := 0
	end := time.Now().Add(limit)
	var out []ipv4.Message
	in := make([]ipv4.Message, 64)
	for i := range in {
		in[i].Buffers = [][]byte{make([]byte, 1500)}
	}
	for i := range l.slots {
		if l.slots[i].busy = begun < count; l.slots[i].busy {
			out = append(out, l.discover(i))
			begun++
		}
	}
	for done < count {
		if err := l.send(out); err != nil {
			return done, err
		}
		out = out[:0]
		if err := l.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			return done, err
		}
		n, err := l.pc.ReadBatch(in, 0)
		if err != nil {
			n = 0 // nothing for a while
		}
		for _, m := range in[:n] {
			i, kind, ok := l.answer(m.Buffers[0][:m.N])
			switch {
			case !ok:
			case kind == 2: // OFFER
				out = append(out, l.request(i, m.Buffers[0][:m.N]))
			case kind == 5: // ACK
				done++
				if l.slots[i].busy = begun < count; l.slots[i].busy {
					out = append(out, l.discover(i))
					begun++
				}
			}
		}
		now := time.Now()
		if now.After(end) {
			return done, nil
		}
		for i := range l.slots {
			if s := &l.slots[i]; s.busy && now.Sub(s.sent) > dhcpPatience {
				l.again++
				s.sent = now
				out = append(out, l.message(s))
			}
		}
	}
	return done, nil
}

func (l *load) send(out []ipv4.Message) error {
	for len(out) > 0 {
		n, err := l.pc.WriteBatch(out, 0)
		if err != nil {
			return err
		}
		out = out[n:]
	}
	return nil
}

var roomTo = &net.UDPAddr{IP: net.ParseIP(roomServer), Port: 67}

func (l *load) message(s *clientSlot) ipv4.Message {
	return ipv4.Message{Buffers: [][]byte{s.packet[:s.size]}, Addr: roomTo}
}

// discover begins the exchange of the next client.
func (l *load) discover(i int) ipv4.Message {
	s := &l.slots[i]
	s.client = l.next
	l.next = (l.next + 1) % l.clients
	s.packet = [300]byte{0: 1, 1: 1, 2: 6, 3: 1}
	// The upper bits tell this exchange from the slot's one before.
	binary.BigEndian.PutUint32(s.packet[4:], uint32(s.client)<<12|uint32(i))
	copy(s.packet[24:], net.ParseIP(roomAgent).To4())
	binary.BigEndian.PutUint32(s.packet[30:], uint32(s.client)*2654435761) // scattered, as cards' are
	s.packet[28], s.packet[29] = 2, 0
	copy(s.packet[236:], "\x63\x82\x53\x63\x35\x01\x01\x37\x03\x01\x03\x06\xff")
	s.size, s.sent = 300, time.Now()
	return l.message(s)
}

// answer tells which slot a packet is for.
func (l *load) answer(p []byte) (slot int, kind byte, ok bool) {
	if len(p) < 243 || p[240] != 53 {
		return 0, 0, false
	}
	xid := binary.BigEndian.Uint32(p[4:])
	slot = int(xid & 0xfff)
	if slot >= len(l.slots) || !l.slots[slot].busy || binary.BigEndian.Uint32(l.slots[slot].packet[4:]) != xid {
		return 0, 0, false
	}
	kind = p[242]
	asking := l.slots[slot].packet[242] == 3
	return slot, kind, asking == (kind == 5)
}

// request asks for what was offered.
func (l *load) request(i int, offer []byte) ipv4.Message {
	s := &l.slots[i]
	var server [4]byte
	for o := offer[240:]; len(o) > 2 && o[0] != 255; o = o[2+int(o[1]):] {
		if o[0] == 54 && len(o) >= 6 {
			server = [4]byte(o[2:6])
		}
		if len(o) < 2+int(o[1]) {
			break
		}
	}
	options := append([]byte("\x35\x01\x03\x32\x04"), offer[16:20]...)
	options = append(append(append(options, 54, 4), server[:]...), "\x37\x03\x01\x03\x06\xff"...)
	clear(s.packet[240:])
	copy(s.packet[240:], options)
	s.sent = time.Now()
	return l.message(s)
}
