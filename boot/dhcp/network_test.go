package dhcp_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
	"bootd/boot/dhcp"
)

// A machine with a reserved address gets it, in whichever of the wire's
// networks it lies; and a network without DHCP hides no other.
func TestReservationOnOneWire(t *testing.T) {
	link := dhcp.Link{Interface: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("10.3.0.1/24"), netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("10.0.0.1/24")}}
	p := policy(t, network("off", "eth1", "10.3.0.0/24", boot.Off),
		network("b", "eth1", "10.1.0.0/24", boot.Authoritative, span("10.1.0.100", "10.1.0.109")),
		network("a", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.100", "10.0.0.109")))
	play(t, p, []step{
		{link: link, packet: request(discover, mac(1)), want: "OFFER 10.0.0.50 to 10.0.0.50:68 at 02:00:00:00:00:01"},
		{link: link, packet: request(ask, mac(1), asks("10.0.0.50"), chooses("10.0.0.1")), want: "ACK 10.0.0.50 to 10.0.0.50:68 at 02:00:00:00:00:01"},
		{link: link, packet: request(discover, mac(7)), want: "OFFER 10.1.0.100 to 10.1.0.100:68" + at7},
	})
}

// Addresses that somebody uses are not given away, although they lie in the
// range: the relay agent's, and those that bootd itself has.
func TestUsedAddresses(t *testing.T) {
	far := network("far", "eth1", "10.9.0.0/24", boot.Authoritative, span("10.9.0.1", "10.9.0.3"))
	lab := network("lab", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.1", "10.0.0.4"))
	lab.Router = addr("10.0.0.3")
	link := dhcp.Link{Interface: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.0.2/24")}}
	play(t, policy(t, lab, far), []step{
		{link: link, packet: request(discover, mac(7), relay("10.9.0.1"), asks("10.9.0.1")), want: "OFFER 10.9.0.2 to 10.9.0.1:67"},
		{link: link, packet: request(discover, mac(7)), want: "OFFER 10.0.0.4 to 10.0.0.4:68" + at7},
		{link: link, packet: request(discover, mac(8)), want: "nothing: no address is free on network lab: 0 are leased, 1 offered, 0 declined; make its range larger"},
	})
}

// Nobody has answers sent to somebody else by claiming a foreign address.
func TestForeignAddress(t *testing.T) {
	play(t, policy(t), []step{
		{packet: request(inform, mac(7), has("192.0.2.1")), want: "nothing: informs from 192.0.2.1, which is not on network lab (10.0.0.0/24)"},
		{packet: request(discover, mac(7), has("192.0.2.1")), want: offer100},
		{packet: request(ask, mac(7), has("192.0.2.1"), asks("10.0.0.100"), chooses("10.0.0.1")), want: ack100},
	})
}

// A name that cannot be made is not replaced by one that nobody chose.
func TestUndecidedName(t *testing.T) {
	c, err := boot.NewCatalog(boot.Catalog{
		Networks: []boot.Network{network("lab", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.100", "10.0.0.103"))},
		Profiles: map[string]*boot.Profile{"worker": {Name: "worker"}},
		Machines: []*boot.Machine{{Name: "blade-{{.serial}}", Match: boot.Selector{MAC: []boot.MAC{mac(7)}}, Profile: "worker"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := policy(t)
	p.Catalog = func() *boot.Catalog { return c }
	if got := reply(t, p, request(discover, mac(7))).HostName(); got != "" {
		t.Errorf("before the serial number is known, the name is %q", got)
	}
	p.Remembered = func(boot.MAC) boot.Inventory { return boot.Inventory{Serial: "X42"} }
	if got := reply(t, p, request(discover, mac(7))).HostName(); got != "blade-x42" {
		t.Errorf("the name is %q, want blade-x42", got)
	}
}

// An answer is no larger than its client takes; what it cannot do without
// stays in.
func TestSize(t *testing.T) {
	lab := network("lab", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.100", "10.0.0.103"))
	lab.Domain = strings.Repeat("a-rather-long-label.", 10) + "example"
	for i := range 24 {
		lab.DNS = append(lab.DNS, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
		lab.NTP = append(lab.NTP, netip.AddrFrom4([4]byte{10, 0, 2, byte(i)}))
	}
	far := network("far", "eth1", "10.9.0.0/24", boot.Authoritative, span("10.9.0.100", "10.9.0.103"))
	far.Domain, far.DNS, far.NTP = lab.Domain, lab.DNS, lab.NTP
	pxe := class("PXEClient:Arch:00007:UNDI:003000")
	says := func(n uint16) option { return generic(57, []byte{byte(n >> 8), byte(n)}) }
	for _, c := range []struct {
		name    string
		options []option
		limit   int   // of the packet
		has     []int // options, of those that may be left out
	}{
		{"says nothing", []option{pxe}, 548, []int{6}},
		{"says too little", []option{pxe, says(300)}, 548, []int{6}},
		{"takes more", []option{pxe, says(1472)}, 1444, []int{42, 15, 6}},
		{"says too much", []option{pxe, says(65535)}, 1472, []int{42, 15, 6}},
		// The agent takes out what is for it before it passes the packet on.
		{"through an agent", []option{pxe, relay("10.9.0.254"), generic(82, append([]byte{1, 200}, make([]byte, 200)...))}, 548 + 202, []int{82, 6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dhcp.Decode(request(discover, mac(7), c.options...))
			if err != nil {
				t.Fatal(err)
			}
			a := policy(t, lab, far).Answer(r, eth1, t0)
			m, err := dhcpv4.FromBytes(a.Reply)
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Reply) > c.limit {
				t.Errorf("%d bytes, want at most %d", len(a.Reply), c.limit)
			}
			for _, code := range append(c.has, 1, 43, 51, 53, 54, 60, 67) {
				if !m.Options.Has(dhcpv4.GenericOptionCode(code)) {
					t.Errorf("option %d is missing:\n%s", code, long(a.Reply))
				}
			}
		})
	}
}
