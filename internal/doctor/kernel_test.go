package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bootd/internal/doctor"
)

const inside = "DOCTOR_TEST_IN_NAMESPACE"

// isolated runs a test of this file in a network of its own, which goes away
// with its process.
func isolated(t *testing.T, name string) {
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("the command ip is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+name+"$", "-test.v")
	c.Env = append(os.Environ(), inside+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := c.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skipf("making network namespaces is not permitted here: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+name) {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// TestFirewall sets up real firewalls of many kinds, and asks the kernel whether
// what a machine sends comes through: it does what the doctor says.
func TestFirewall(t *testing.T) { isolated(t, "TestFirewallInside") }

// A firewallCase is rules and what becomes of DHCP, TFTP and HTTP from eth1.
type firewallCase struct {
	name    string
	program string // that takes the rules as its input
	rules   string
	want    [3]doctor.Verdict
	beside  string // rules of nft that are there as well
}

const (
	in    = doctor.Passes
	out   = doctor.Drops
	maybe = doctor.MayDrop
)

func firewalls() []firewallCase {
	nft := func(name, rules string, dhcp, tftp, http doctor.Verdict) firewallCase {
		return firewallCase{name, "nft", rules, [3]doctor.Verdict{dhcp, tftp, http}, ""}
	}
	ipt := func(name, rules string, dhcp, tftp, http doctor.Verdict) firewallCase {
		return firewallCase{name, "iptables-restore", "*filter\n" + rules + "COMMIT\n", [3]doctor.Verdict{dhcp, tftp, http}, ""}
	}
	legacy := func(name, rules, beside string, dhcp, tftp, http doctor.Verdict) firewallCase {
		return firewallCase{name, "iptables-legacy-restore", "*filter\n" + rules + "COMMIT\n", [3]doctor.Verdict{dhcp, tftp, http}, beside}
	}
	const base = "table inet t {\n%s\nchain in {\ntype filter hook input priority 0; policy %s; %s\n}\n}"
	return []firewallCase{
		nft("no rules", "", in, in, in),
		nft("a closed door", fmt.Sprintf(base, "", "drop", ""), out, out, out),
		nft("one port closed", fmt.Sprintf(base, "", "accept", "udp dport 69 drop"), in, out, in),
		nft("ports let in", fmt.Sprintf(base, "", "drop", "udp dport { 67, 69 } accept; tcp dport 80 accept"), in, in, in),
		nft("a range let in", fmt.Sprintf(base, "", "drop", "udp dport 60-68 accept"), in, out, out),
		nft("refused", fmt.Sprintf(base, "", "accept", "tcp dport 80 reject with tcp reset"), in, in, out),
		nft("an interface let in", fmt.Sprintf(base, "", "drop", `iifname "eth1" accept`), in, in, in),
		nft("interfaces let in by pattern", fmt.Sprintf(base, "", "drop", `iifname "eth*" udp dport 67 accept`), in, out, out),
		nft("another interface let in", fmt.Sprintf(base, "", "drop", `iifname "lo" accept`), out, out, out),
		nft("all but one interface", fmt.Sprintf(base, "", "accept", `iifname != "lo" udp dport 67 drop`), out, in, in),
		nft("a subnet let in", fmt.Sprintf(base, "", "drop", "ip saddr 10.0.0.0/24 accept"), in, in, in),
		nft("another subnet closed", fmt.Sprintf(base, "", "accept", "ip saddr { 192.168.0.0/16, 10.9.0.0/24 } drop"), in, in, in),
		nft("addresses closed", fmt.Sprintf(base, "", "accept", "ip saddr 10.0.0.40-10.0.0.60 drop"), out, out, out),
		nft("the server's address let in", fmt.Sprintf(base, "", "drop", "ip daddr 10.0.0.1 accept"), out, in, in),
		nft("states", fmt.Sprintf(base, "", "drop", "ct state established,related accept; ct state invalid drop; ct state new udp dport 67 accept"), in, out, out),
		nft("a map of states", fmt.Sprintf(base, "", "drop", "ct state vmap { established : accept, related : accept, invalid : drop }; meta l4proto udp accept"), in, in, out),
		nft("a map of ports", fmt.Sprintf(base, "", "drop", "udp dport vmap { 67 : accept, 69 : drop }; tcp dport 80 accept"), in, out, in),
		nft("jumps and returns", fmt.Sprintf(base, "chain b {\nudp dport 67 return; udp dport 69 drop\n}", "accept", "jump b; tcp dport 80 drop"), in, out, out),
		nft("goto does not come back", fmt.Sprintf(base, "chain b {\nudp dport 67 accept\n}", "drop", "goto b; tcp dport 80 accept"), in, out, out),
		nft("the strictest of two tables", fmt.Sprintf(base, "", "accept", "tcp dport 80 accept")+
			"\ntable ip u {\nchain i {\ntype filter hook input priority 10; tcp dport 80 drop\n}\n}", in, in, out),
		nft("IPv6 is something else", "table ip6 t {\nchain in {\ntype filter hook input priority 0; policy drop;\n}\n}", in, in, in),
		nft("what is sent is something else", "table inet t {\nchain o {\ntype filter hook output priority 0; policy accept; udp dport 67 drop\n}\n}", in, in, in),
		nft("a named set", "table inet t {\nset s {\ntype inet_service; elements = { 67 }\n}\nchain in {\ntype filter hook input priority 0; policy drop; udp dport @s accept\n}\n}", maybe, maybe, out),
		nft("a named set of addresses", "table ip filter {\nset s {\ntype ipv4_addr; elements = { 10.0.0.9 }\n}\nchain INPUT {\ntype filter hook input priority 0; policy drop; ip saddr @s accept\n}\n}", maybe, maybe, maybe),
		nft("a named set of interfaces", fmt.Sprintf(base, "set s {\ntype ifname; elements = { \"eth1\" }\n}", "drop", "iifname @s accept"), maybe, maybe, maybe),
		nft("a named map of ports", fmt.Sprintf(base, "map m {\ntype inet_service : verdict; elements = { 67 : drop }\n}", "accept", "udp dport vmap @m"), maybe, maybe, in),
		nft("a table called as that of iptables", "table ip filter {\nchain input {\ntype filter hook input priority 0; policy drop; tcp dport 80 accept\n}\n}", out, out, in),
		nft("maybe back", fmt.Sprintf(base, "chain b {\nlimit rate 9/second return; drop\n}", "accept", "tcp dport 80 accept; jump b"), maybe, maybe, in),
		nft("maybe dropped", fmt.Sprintf(base, "", "accept", "ether saddr != 02:00:00:00:00:01 drop"), maybe, maybe, maybe),
		nft("what a program decides", fmt.Sprintf(base, "", "accept", "udp dport 67 queue"), maybe, in, in),
		nft("by whom it is for", fmt.Sprintf(base, "", "drop", "fib daddr type broadcast drop; fib daddr type local accept"), out, in, in),
		nft("by whom its frame is for", fmt.Sprintf(base, "", "accept", "meta pkttype broadcast drop"), out, in, in),
		nft("odd flags", fmt.Sprintf(base, "", "accept", "tcp flags & (fin|syn|rst|ack) != syn drop; tcp flags & (fin|syn) == (fin|syn) drop; tcp flags & (fin|syn) == 0x0 drop"), in, in, in),
		nft("new connections", fmt.Sprintf(base, "", "accept", "tcp flags & (fin|syn|rst|ack) == syn drop"), in, in, out),
		nft("so many a second", fmt.Sprintf(base, "", "drop", "udp dport 67 limit rate 1000/second accept"), maybe, out, out),

		ipt("no rules", "", in, in, in),
		ipt("a closed door", ":INPUT DROP\n", out, out, out),
		ipt("one port closed", "-A INPUT -p udp -m udp --dport 69 -j DROP\n", in, out, in),
		ipt("refused", "-A INPUT -p tcp --dport 80 -j REJECT --reject-with tcp-reset\n", in, in, out),
		ipt("ports let in", ":INPUT DROP\n-A INPUT -p udp -m multiport --dports 67,69 -j ACCEPT\n", in, in, out),
		ipt("a range closed", "-A INPUT -p udp --dport 60:68 -j DROP\n", out, in, in),
		ipt("all but one", "-A INPUT -p udp ! --dport 67 -j DROP\n", in, out, in),
		ipt("an interface let in", ":INPUT DROP\n-A INPUT -i eth+ -p udp -j ACCEPT\n-A INPUT -i lo -j ACCEPT\n", in, in, out),
		ipt("a subnet let in", ":INPUT DROP\n-A INPUT ! -i lo -s 10.0.0.0/24 -d 10.0.0.1/32 -j ACCEPT\n", out, in, in),
		ipt("chains", ":INPUT DROP\n:a - [0:0]\n:b - [0:0]\n-A INPUT -j a\n-A INPUT -p udp --dport 69 -j ACCEPT\n-A a -p udp -g b\n-A a -j ACCEPT\n-A b -p udp --dport 67 -j DROP\n-A b -p udp --dport 69 -j RETURN\n", out, in, in),
		ipt("states and words", ":INPUT DROP\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p udp -m conntrack --ctstate NEW -m comment --comment \"it is -j DROP \\\"67\\\"\" -j ACCEPT\n", in, in, out),
		ipt("so many a second", ":INPUT DROP\n-A INPUT -p udp -m limit --limit 1000/sec -j ACCEPT\n", maybe, maybe, out),
		ipt("maybe dropped", "-A INPUT -p udp -m mac ! --mac-source 02:00:00:00:00:01 -j DROP\n", maybe, maybe, in),
		ipt("maybe back", ":a - [0:0]\n-A INPUT -p udp -j a\n-A a -m limit --limit 9/sec -j RETURN\n-A a -j DROP\n", maybe, maybe, in),
		ipt("by whom it is for", ":a - [0:0]\n-A INPUT -j a\n-A a -m addrtype --dst-type LOCAL -j RETURN\n-A a -m addrtype --dst-type MULTICAST -j RETURN\n-A a -j DROP\n", out, in, in),
		ipt("by whom its frame is for", "-A INPUT -m pkttype --pkt-type broadcast -j DROP\n", out, in, in),
		ipt("odd flags", "-A INPUT -f -j DROP\n-A INPUT -p tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP\n-A INPUT -p tcp --tcp-flags ALL NONE -j DROP\n", in, in, in),
		ipt("new connections", "-A INPUT -p tcp --syn -j DROP\n", in, in, out),

		legacy("beside no rules", "-A INPUT -p udp --dport 69 -j DROP\n", "", in, out, in),
		legacy("beside nftables", "-A INPUT -p udp --dport 69 -j DROP\n", "table ip filter {\nchain INPUT {\ntype filter hook input priority 0; tcp dport 80 drop\n}\n}", in, out, out),
	}
}

func TestFirewallInside(t *testing.T) {
	if os.Getenv(inside) == "" {
		t.Skip("TestFirewall runs it, in a network of its own")
	}
	far := newRoom(t)
	plug(t, far)
	r := newReceiver(t)
	for _, c := range firewalls() {
		t.Run(c.program+" "+c.name, func(t *testing.T) {
			for _, program := range []string{c.program, "nft"} {
				if _, err := exec.LookPath(program); err != nil && (program == c.program || c.beside != "") {
					t.Skipf("%s is not installed", program)
				}
			}
			apply(t, c)
			f, err := doctor.ReadFirewall(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			for i, p := range packets() {
				if got := f.Verdict(p); got != c.want[i] {
					t.Errorf("the doctor says that %s port %d %s, want %s", p.Proto, p.Port, got, c.want[i])
				}
				if want := c.want[i]; want != maybe {
					if came := r.receives(t, far, p, want == in); came != (want == in) {
						t.Errorf("the kernel: %s port %d comes through %v, want %v", p.Proto, p.Port, came, want == in)
					}
				}
			}
			helps(t, r, far)
		})
	}
}

// helps does what the doctor says against each of the filters, as an operator
// would, and then everything comes through.
func helps(t *testing.T, r *receiver, far room) {
	t.Helper()
	for _, p := range packets() {
		f, err := doctor.ReadFirewall(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		filters := f.Against(p)
		for _, against := range filters {
			run(t, "sh", "-c", against.Admit(p))
		}
		if f, err = doctor.ReadFirewall(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if got := f.Verdict(p); got != in {
			t.Errorf("then the doctor says that %s port %d %s", p.Proto, p.Port, got)
		}
		if len(filters) > 0 && !r.receives(t, far, p, true) {
			t.Errorf("%s port %d does not come through after %v", p.Proto, p.Port, filters)
		}
	}
}

func packets() []doctor.Packet {
	from, to := netip.MustParseAddr("10.0.0.50"), netip.MustParseAddr("10.0.0.1")
	return []doctor.Packet{
		{Iface: "eth1", Proto: "udp", Src: from, Dst: netip.MustParseAddr("255.255.255.255"), SrcPort: 68, Port: 67},
		{Iface: "eth1", Proto: "udp", Src: from, Dst: to, Port: 69},
		{Iface: "eth1", Proto: "tcp", Src: from, Dst: to, Port: 80},
	}
}

// apply sets up rules until the test ends.
func apply(t *testing.T, c firewallCase) {
	t.Helper()
	set := func(program, rules string, args ...string) error {
		cmd := exec.Command(program, args...)
		cmd.Stdin = strings.NewReader(rules)
		if b, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", program, err, b)
		}
		return nil
	}
	clean := func() error { return set("nft", "flush ruleset\n", "-f", "-") }
	var err error
	if c.program == "nft" {
		err = set("nft", c.rules, "-f", "-")
	} else {
		unset := clean
		clean = func() error {
			err := set(c.program, "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n")
			if c.beside != "" {
				err = errors.Join(err, unset())
			}
			return err
		}
		err = set(c.program, c.rules)
	}
	if err == nil && c.beside != "" {
		err = set("nft", c.beside, "-f", "-")
	}
	if err != nil {
		_ = clean() // as far as it came
		if s := err.Error(); strings.Contains(s, "not supported") || strings.Contains(s, "No such file or directory") || strings.Contains(s, "missing kernel module") {
			t.Skipf("this kernel has no such rules: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := clean(); err != nil {
			t.Error(err)
		}
	})
}

// A receiver is the server's ports.
type receiver struct {
	udp map[uint16]net.PacketConn
	tcp net.Listener
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{udp: map[uint16]net.PacketConn{}}
	for _, port := range []uint16{67, 69} {
		c, err := net.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		r.udp[port] = c
	}
	var err error
	r.tcp, err = net.Listen("tcp4", "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.tcp.Close() })
	return r
}

// receives reports whether a packet from far comes through. One that is expected
// gets all the time that it needs.
func (r *receiver) receives(t *testing.T, far room, p doctor.Packet, expected bool) bool {
	t.Helper()
	limit := 100 * time.Millisecond
	if expected {
		limit = time.Minute
	}
	if p.Proto == "tcp" {
		came := false
		far.do(func() {
			d := net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{IP: p.Src.AsSlice()}}
			c, err := d.Dial("tcp4", netip.AddrPortFrom(p.Dst, p.Port).String())
			if err == nil {
				came = true
				c.Close()
			}
		})
		return came
	}
	text := []byte(t.Name())
	for end := time.Now().Add(limit); time.Now().Before(end); {
		far.do(func() { shout(t, p, text) })
		c := r.udp[p.Port]
		if err := c.SetReadDeadline(time.Now().Add(min(limit, time.Second))); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 200)
		// What came late for a test before is not this one's.
		for n, _, err := c.ReadFrom(b); err == nil; n, _, err = c.ReadFrom(b) {
			if string(b[:n]) == string(text) {
				return true
			}
		}
	}
	return false
}

// shout sends a packet, to everybody if it is for everybody.
func shout(t *testing.T, p doctor.Packet, text []byte) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(int(fd), "far"))
		})
		return errors.Join(err, failed)
	}}
	c, err := lc.ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(p.Src, p.SrcPort).String())
	if err == nil {
		_, err = c.WriteTo(text, net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Dst, p.Port)))
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		t.Errorf("cannot send to port %d: %v", p.Port, err)
	}
}

// A room is a thread in a network namespace of its own.
type room struct {
	work chan func()
	tid  int
}

func newRoom(t *testing.T) room {
	t.Helper()
	r := room{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		r.tid = unix.Gettid()
		ready <- err
		for f := range r.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(r.work) })
	return r
}

func (r room) do(f func()) {
	done := make(chan struct{})
	r.work <- func() { defer close(done); f() }
	<-done
}

// plug connects a room's far, 10.0.0.50, to eth1, 10.0.0.1.
func plug(t *testing.T, r room) {
	t.Helper()
	run(t, "ip", "link", "set", "lo", "up")
	run(t, "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "far", "netns", fmt.Sprint(r.tid))
	run(t, "ip", "addr", "add", "10.0.0.1/24", "dev", "eth1")
	run(t, "ip", "link", "set", "eth1", "up")
	r.do(func() {
		run(t, "ip", "addr", "add", "10.0.0.50/24", "dev", "far")
		run(t, "ip", "link", "set", "far", "up")
	})
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if b, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, b)
	}
}
