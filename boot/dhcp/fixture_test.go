package dhcp_test

import (
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/boot/lease"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	t0    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	quiet = slog.New(slog.DiscardHandler)
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// mac numbers the machines of the tests. 1 has an entry with an address, 2 one
// without, 3 and 4 share an entry.
func mac(n int) boot.MAC { return boot.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

// eth1 is attached to lab and reaches far through a relay agent.
var eth1 = dhcp.Link{Interface: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}

func network(name, iface, subnet string, mode boot.Mode, ranges ...boot.Range) boot.Network {
	return boot.Network{Name: name, Interface: iface, Mode: mode, Subnet: netip.MustParsePrefix(subnet), Ranges: ranges,
		LeaseTime: 12 * time.Hour, FirmwareLeaseTime: 10 * time.Minute}
}

func span(first, last string) boot.Range { return boot.Range{First: addr(first), Last: addr(last)} }

func catalog(t testing.TB, networks ...boot.Network) *boot.Catalog {
	t.Helper()
	if networks == nil {
		far := network("far", "eth1", "10.9.0.0/24", boot.Authoritative, span("10.9.0.100", "10.9.0.103"))
		lab := network("lab", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.100", "10.0.0.103"))
		lab.Router, lab.DNS, lab.NTP = addr("10.0.0.254"), []netip.Addr{addr("10.0.0.2"), addr("10.0.0.3")}, []netip.Addr{addr("10.0.0.4")}
		lab.Domain, lab.MTU = "lab.example", 9000
		networks = []boot.Network{far, lab,
			network("guests", "eth2", "10.2.0.0/24", boot.Proxy),
			network("office", "eth3", "10.3.0.0/24", boot.Off)}
	}
	worker := &boot.Profile{Name: "worker"}
	c, err := boot.NewCatalog(boot.Catalog{
		Networks: networks,
		Profiles: map[string]*boot.Profile{"worker": worker},
		Machines: []*boot.Machine{
			{Name: "node1", Match: boot.Selector{MAC: []boot.MAC{mac(1)}}, Profile: "worker", IP: addr("10.0.0.50")},
			{Name: "node2", Match: boot.Selector{MAC: []boot.MAC{mac(2)}}, Profile: "worker"},
			{Name: "node3", Match: boot.Selector{MAC: []boot.MAC{mac(3), mac(4)}}, Profile: "worker", IP: addr("10.0.0.101")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func leases(t testing.TB) *lease.Table {
	t.Helper()
	l, err := lease.Open(t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func policy(t testing.TB, networks ...boot.Network) dhcp.Policy {
	c := catalog(t, networks...)
	return dhcp.Policy{
		Catalog:    func() *boot.Catalog { return c },
		Remembered: func(boot.MAC) boot.Inventory { return boot.Inventory{} },
		Leases:     leases(t),
		Loaders:    func(name string) bool { return !strings.Contains(name, "-shim") && name != "pxelinux.0" },
		HTTPPort:   80,
	}
}

type option = dhcpv4.Modifier

// request is a client's packet as bytes.
func request(t dhcpv4.MessageType, from boot.MAC, options ...option) []byte {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: from[:],
		TransactionID: dhcpv4.TransactionID{0xb0, 0x07, from[4], from[5]},
		ClientIPAddr:  net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		Options: dhcpv4.OptionsFromList(dhcpv4.OptMessageType(t)),
	}
	for _, o := range options {
		o(m)
	}
	return m.ToBytes()
}

func ip(s string) net.IP { return net.ParseIP(s).To4() }

func asks(s string) option             { return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip(s))) }
func chooses(s string) option          { return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip(s))) }
func has(s string) option              { return func(m *dhcpv4.DHCPv4) { m.ClientIPAddr = ip(s) } }
func relay(s string) option            { return func(m *dhcpv4.DHCPv4) { m.GatewayIPAddr = ip(s) } }
func class(s string) option            { return dhcpv4.WithOption(dhcpv4.OptClassIdentifier(s)) }
func generic(c uint8, b []byte) option { return dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(c), b) }
func arch(n uint8) option              { return generic(93, []byte{0, n}) }
func broadcast(m *dhcpv4.DHCPv4)       { m.SetBroadcast() }

// short tells an answer in a line.
func short(a dhcp.Answer) string {
	if a.Reply == nil {
		return "nothing: " + a.Why
	}
	m, err := dhcpv4.FromBytes(a.Reply)
	if err != nil {
		return "not a DHCP packet: " + err.Error()
	}
	s := m.MessageType().String()
	if !m.YourIPAddr.IsUnspecified() {
		s += " " + m.YourIPAddr.String()
	}
	s += " to " + a.To.String()
	if !a.MAC.IsZero() {
		s += " at " + a.MAC.String()
	}
	if text := m.Message(); text != "" {
		s += ": " + text
	}
	return s
}

// long tells every field and option of an answer.
func long(b []byte) string {
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return "not a DHCP packet: " + err.Error() + "\n"
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s xid %s flags %#04x size %d\n", m.MessageType(), m.TransactionID, m.Flags, len(b))
	fmt.Fprintf(&s, "ciaddr %s yiaddr %s siaddr %s giaddr %s chaddr %s\n", m.ClientIPAddr, m.YourIPAddr, m.ServerIPAddr, m.GatewayIPAddr, m.ClientHWAddr)
	fmt.Fprintf(&s, "sname %q file %q\n", m.ServerHostName, m.BootFileName)
	for c := range 256 {
		if v, ok := m.Options[uint8(c)]; ok {
			fmt.Fprintf(&s, "option %d %s\n", c, value(uint8(c), v))
		}
	}
	return s.String()
}

// value shows texts as texts and everything else in hexadecimal.
func value(code uint8, v []byte) string {
	switch code {
	case 12, 15, 56, 60, 66, 67, 77:
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprintf("%x", v)
}
