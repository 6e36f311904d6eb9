package power_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bootd/boot"
	"bootd/internal/power"
)

func mac(t *testing.T, s string) boot.MAC {
	t.Helper()
	m, err := boot.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMagicPacket(t *testing.T) {
	want := strings.Repeat("ff", 6) + strings.Repeat("525400000001", 16)
	if got := hex.EncodeToString(power.MagicPacket(mac(t, "52:54:00:00:00:01"), nil)); got != want {
		t.Errorf("%s", got)
	}
	for text, bytes := range map[string]string{
		"01:23:45:67:89:ab": "0123456789ab", "01-23-45-67-89-AB\n": "0123456789ab", "0123456789ab": "0123456789ab", "10.0.0.1": "0a000001",
		"": "", "secret": "", "01:23:45:67:89": "", "01:23:45:67:89:ab:cd": "", "::1": "",
	} {
		got, err := power.ParseSecureOn(text)
		if hex.EncodeToString(got) != bytes || (err == nil) != (bytes != "") {
			t.Errorf("%q: %x, %v", text, got, err)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the password is shown: %v", err)
		}
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// inNamespace runs f on a thread with a network of its own, which has two wires:
// eth-a and eth-b here end in far-a and far-b.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a network namespace takes root; TestMagicPacket has the packet without one")
	}
	done := make(chan string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		said := ""
		defer func() { done <- said }()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			said = "SKIP no network namespaces here: " + err.Error()
			return
		}
		for _, l := range []string{
			"link set lo up", "link add eth-a type veth peer name far-a", "link add eth-b type veth peer name far-b",
			"link set eth-a up", "link set far-a up", "link set eth-b up", "link set far-b up",
			"addr add 10.1.0.1/24 dev eth-a", "addr add 10.2.0.1/24 dev eth-b", "route add default via 10.1.0.254 dev eth-a",
		} {
			if out, err := exec.Command("ip", strings.Fields(l)...).CombinedOutput(); err != nil {
				said = "SKIP cannot make a network: ip " + l + ": " + err.Error() + ": " + string(out)
				return
			}
		}
		f()
	}()
	if said := <-done; said != "" {
		t.Skip(strings.TrimPrefix(said, "SKIP "))
	}
}

// capture opens the end of a wire, to see every packet that comes out of it.
func capture(t *testing.T, iface string) (next func() []byte) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_IP)))
	if err != nil {
		t.Error(err)
		return func() []byte { return nil }
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	var index int
	for i, l := range interfaces(t) {
		if l == iface {
			index = i
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: index}); err != nil {
		t.Error(err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000})
	return func() []byte {
		b := make([]byte, 2048)
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return nil
		}
		return b[:n]
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// interfaces maps the index of each interface of this thread to its name.
func interfaces(t *testing.T) map[int]string {
	out := map[int]string{}
	text, err := exec.Command("ip", "-o", "link").Output()
	if err != nil {
		t.Error(err)
	}
	for l := range strings.Lines(string(text)) {
		index, rest, _ := strings.Cut(l, ": ")
		name, _, _ := strings.Cut(rest, "@")
		n := 0
		for _, c := range index {
			n = n*10 + int(c-'0')
		}
		out[n] = name
	}
	return out
}

// TestWakeOnLAN looks at what is on the wire: a broadcast, on the right
// interface only, three times, with the password of SecureOn.
func TestWakeOnLAN(t *testing.T) {
	secureOn := filepath.Join(t.TempDir(), "secureon")
	if err := os.WriteFile(secureOn, []byte("01:23:45:67:89:ab\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := power.MagicPacket(mac(t, "52:54:00:00:00:01"), nil)
	for _, tt := range []struct {
		name     string
		bmc      boot.BMC
		to       string // destination address in hexadecimal
		iface    string
		other    string
		password string
	}{
		{name: "an interface that is not the default route", bmc: boot.BMC{Interface: "eth-b"}, to: "ffffffff", iface: "far-b", other: "far-a"},
		{name: "the other one, with a password", bmc: boot.BMC{Interface: "eth-a", PasswordFile: secureOn}, to: "ffffffff", iface: "far-a", other: "far-b", password: "0123456789ab"},
		{name: "by the subnet's broadcast address", bmc: boot.BMC{Broadcast: addr("10.2.0.255")}, to: "0a0200ff", iface: "far-b", other: "far-a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNamespace(t, func() {
				here, there := capture(t, tt.iface), capture(t, tt.other)
				tt.bmc.Kind = boot.WOL
				target := power.Target{Machine: "node1", MAC: mac(t, "52:54:00:00:00:01"), BMC: tt.bmc}
				out, err := quick().Do(t.Context(), target, power.Order{Action: power.On})
				if err != nil || !out.Changed || out.Now != power.Unknown {
					t.Errorf("%+v, %v", out, err)
					return
				}
				secret, _ := hex.DecodeString(tt.password)
				n := 0
				for p := here(); p != nil; p = here() {
					n++
					want := append(bytes.Clone(plain), secret...)
					if !bytes.Equal(p[:6], bytes.Repeat([]byte{0xff}, 6)) || hex.EncodeToString(p[30:34]) != tt.to ||
						p[36] != 0 || p[37] != 9 || !bytes.Equal(p[42:], want) {
						t.Errorf("on the wire: %x", p)
					}
				}
				if n != 3 {
					t.Errorf("%d packets, want 3", n)
				}
				if p := there(); p != nil {
					t.Errorf("on the wrong wire: %x", p)
				}
			})
		})
	}
}

func TestWakeOnLANErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	on := power.Order{Action: power.On}
	known := mac(t, "52:54:00:00:00:01")
	for _, tt := range []struct {
		name   string
		target power.Target
		order  power.Order
		reason power.Reason
		want   string
	}{
		{"no address", power.Target{}, on, power.Setup, "cannot switch on node1: its hardware address is not known, which wake-on-LAN needs; name it by mac: in its entry, or start it once by hand"},
		{"no interface", power.Target{MAC: known, BMC: boot.BMC{Interface: "nowhere0"}}, on, power.Other, "cannot switch on node1: the magic packet cannot be sent on nowhere0: no such device; `ip link` shows which interfaces there are"},
		{"boot device", power.Target{MAC: known}, power.Order{Action: power.On, Boot: power.PXE}, power.Unsupported, "cannot switch on node1: wake-on-LAN cannot choose what it boots from; set the order in its firmware: network before disks"},
		{"password", power.Target{MAC: known, BMC: boot.BMC{PasswordFile: bad}}, on, power.Setup, "cannot switch on node1: password file " + bad + ": it holds no password of SecureOn, which is six bytes; write it as 01:23:45:67:89:ab"},
		{"cycle", power.Target{MAC: known}, power.Order{Action: power.Cycle}, power.Unsupported, "cannot power-cycle node1: wake-on-LAN cannot do cycle, it can only switch on; press the button, shut it down on its console, or configure a BMC"},
	} {
		tt.target.Machine, tt.target.BMC.Kind = "node1", boot.WOL
		_, err := quick().Do(t.Context(), tt.target, tt.order)
		var e *power.Error
		if tt.name == "no interface" && errors.Is(err, unix.EPERM) {
			continue // without privileges it does not come to that
		}
		if !errors.As(err, &e) || e.Reason != tt.reason || err.Error() != tt.want {
			t.Errorf("%s:\n got %v\nwant %s", tt.name, err, tt.want)
		}
	}
	_, err := quick().Status(t.Context(), power.Target{Machine: "node1", MAC: known, BMC: boot.BMC{Kind: boot.WOL}})
	var e *power.Error
	if !errors.As(err, &e) || e.Reason != power.Unsupported || !strings.HasPrefix(err.Error(), "cannot ask for the power of node1: wake-on-LAN cannot do status") {
		t.Error(err)
	}
}
