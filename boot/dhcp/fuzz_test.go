package dhcp_test

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
	"bootd/boot/dhcp"
)

// Whatever arrives is decoded or refused; what is decoded is from one card and
// holds only texts that are fit for a log.
func FuzzDecode(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := dhcp.Decode(b)
		asLibrary(t, b, r, err)
		if err != nil {
			return
		}
		if r.MAC.IsZero() || r.MAC[0]&1 != 0 {
			t.Errorf("decoded a packet from %s", r.MAC)
		}
		if len(r.Class) > 64 || slices.ContainsFunc([]byte(r.Class), func(c byte) bool { return c < ' ' || c > '~' }) {
			t.Errorf("class %q", r.Class)
		}
		if r.Host != "" && !boot.ValidName(r.Host) {
			t.Errorf("host name %q", r.Host)
		}
		if len(r.UUID) != 0 && len(r.UUID) != 36 {
			t.Errorf("UUID %q", r.UUID)
		}
		for _, a := range []netip.Addr{r.Asked, r.Server, r.Has, r.Relay} {
			if a.IsValid() && (!a.Is4() || a.IsUnspecified()) {
				t.Errorf("address %s", a)
			}
		}
		if r.Link.IsValid() && !r.Relay.IsValid() {
			t.Errorf("subnet %s named without a relay agent", r.Link)
		}
	})
}

// asLibrary holds what was decoded to what another decoder makes of it.
func asLibrary(t *testing.T, b []byte, r dhcp.Request, err error) {
	m, other := dhcpv4.FromBytes(b)
	if err != nil {
		if other == nil && m.OpCode == dhcpv4.OpcodeBootRequest && m.HWType == 1 && len(m.ClientHWAddr) == 6 && m.ClientHWAddr[0]&1 == 0 &&
			m.ClientHWAddr.String() != "00:00:00:00:00:00" && m.MessageType() != dhcpv4.MessageTypeNone {
			t.Errorf("refused: %v", err)
		}
		return
	}
	if other != nil {
		t.Fatalf("decoded, though it is %v", other)
	}
	address := func(ip net.IP) netip.Addr {
		a, _ := netip.AddrFromSlice(ip.To4())
		if a.IsUnspecified() {
			return netip.Addr{}
		}
		return a
	}
	want := []any{m.ClientHWAddr.String(), uint8(m.MessageType()), address(m.RequestedIPAddress()), address(m.ServerIdentifier()),
		address(m.ClientIPAddr), address(m.GatewayIPAddr), m.IsBroadcast()}
	got := []any{r.MAC.String(), uint8(r.Type), r.Asked, r.Server, r.Has, r.Relay, r.Broadcast}
	if !slices.Equal(want, got) {
		t.Errorf("decoded %v, want %v", got, want)
	}
	if class := m.ClassIdentifier(); len(class) <= 64 && !strings.ContainsFunc(class, func(c rune) bool { return c < ' ' || c > '~' }) && r.Class != class {
		t.Errorf("class %q, want %q", r.Class, class)
	}
	if a := m.ClientArch(); len(a) > 0 && r.Arch != boot.Arch(a[0]) && r.ROM != boot.RaspberryPi {
		t.Errorf("architecture %d, want %d", r.Arch, a[0])
	}
	if ipxe := slices.Contains(m.UserClass(), "iPXE") || len(m.Options.Get(dhcpv4.GenericOptionCode(175))) > 0; ipxe && r.Client != boot.IPXE {
		t.Errorf("iPXE was taken for %s", r.Client)
	}
}

// An answer belongs to its request, gives only addresses that its client may
// have, fits into one frame, and holds nothing of the one before it.
func FuzzAnswer(f *testing.F) {
	seed(f)
	// Enough addresses for everybody: refusals teach little.
	p := policy(f, network("lab", "eth1", "10.0.0.0/16", boot.Authoritative, span("10.0.0.100", "10.0.250.250")),
		network("far", "eth1", "10.9.0.0/16", boot.Authoritative, span("10.9.0.100", "10.9.250.250")))
	p = dhcp.Guarded(p)
	var desk dhcp.Desk
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := dhcp.Decode(b)
		if err != nil {
			return
		}
		withoutAddress(t, r)
		a := p.Answer(r, eth1, t0)
		if a.Reply == nil {
			if a.Why == "" {
				t.Error("no answer, and no reason for it")
			}
			return
		}
		if again := desk.Answer(p, r, eth1, t0); !bytes.Equal(a.Reply, again.Reply) {
			t.Errorf("in memory that is used again the answer is %s, else %s", long(again.Reply), long(a.Reply))
		}
		m, err := dhcpv4.FromBytes(a.Reply)
		if err != nil {
			t.Fatalf("the answer cannot be decoded: %v", err)
		}
		asked, _ := dhcpv4.FromBytes(b)
		if m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != asked.TransactionID || m.ClientHWAddr.String() != r.MAC.String() {
			t.Errorf("the answer is %s xid %s for %s; asked was xid %s by %s", m.OpCode, m.TransactionID, m.ClientHWAddr, asked.TransactionID, r.MAC)
		}
		if len(a.Reply) < 300 || len(a.Reply) > 1472 {
			t.Errorf("the answer has %d bytes", len(a.Reply))
		}
		if !a.To.IsValid() || !a.To.Addr().Is4() || a.To.Port() != 67 && a.To.Port() != 68 {
			t.Errorf("the answer goes to %s", a.To)
		}
		given, ok := netip.AddrFromSlice(m.YourIPAddr.To4())
		if !ok || given.IsUnspecified() {
			return
		}
		if entry := p.Catalog().Reserved(given); entry != nil {
			if !slices.Contains(entry.Match.MAC, r.MAC) {
				t.Errorf("%s was given %s, which is reserved for %s", r.MAC, given, entry.Name)
			}
			return
		}
		n := p.Catalog().NetworkOf(given)
		if n == nil || !slices.ContainsFunc(n.Ranges, func(r boot.Range) bool { return r.Contains(given) }) {
			t.Errorf("%s was given %s, which is in no range", r.MAC, given)
		}
	})
}

// withoutAddress asks the boot server, and a proxy: whoever gets an answer
// there boots from the network and gets no address, and on port 4011 it goes to
// where the question came from.
func withoutAddress(t *testing.T, r dhcp.Request) {
	p := dhcp.Policy{
		Catalog:    func() *boot.Catalog { return beside },
		Remembered: func(boot.MAC) boot.Inventory { return boot.Inventory{} },
		Loaders:    func(string) bool { return true },
		HTTPPort:   80,
	}
	for _, onBootPort := range []bool{false, true} {
		r.BootPort, r.From = onBootPort, netip.MustParseAddrPort("10.0.0.77:2070")
		a := p.Answer(r, eth1, t0)
		if a.Reply == nil {
			continue
		}
		m, err := dhcpv4.FromBytes(a.Reply)
		if err != nil {
			t.Fatalf("the answer cannot be decoded: %v", err)
		}
		if r.Client != boot.Firmware && r.Client != boot.IPXE {
			t.Errorf("%s was answered by a proxy", r.Client)
		}
		if !m.YourIPAddr.IsUnspecified() || m.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || a.Durable || a.Probe.Addr.IsValid() {
			t.Errorf("a proxy gives an address: %s", long(a.Reply))
		}
		if onBootPort && a.To != r.From {
			t.Errorf("answered to %s", a.To)
		}
	}
}

// beside is a network whose addresses are somebody else's.
var beside, _ = boot.NewCatalog(boot.Catalog{Networks: []boot.Network{
	network("lab", "eth1", "10.0.0.0/16", boot.Proxy), network("far", "eth1", "10.9.0.0/16", boot.Proxy),
}})

// seed adds requests that are hard to come by; the committed corpus has those
// of real firmware.
func seed(f *testing.F) {
	long := make([]byte, 900)
	for _, b := range [][]byte{
		request(discover, mac(1)),
		request(ask, mac(7), relay("10.9.0.254"), relayInfo("10.9.0.0"), asks("10.9.0.100")),
		request(ask, mac(7), relay("10.9.0.254"), generic(82, long), asks("10.0.0.100")),
		request(discover, mac(7), relay("10.9.0.254"), generic(82, append(long, long[:200]...)), class("PXEClient:Arch:00007")),
		request(discover, mac(7), relay("10.9.0.254"), generic(82, append(long, long...)), class("PXEClient:Arch:00007")),
		request(discover, mac(7), generic(97, append(long, long...))),
		request(decline, mac(7), asks("10.0.0.100")),
		request(release, mac(7), has("10.0.0.100")),
		request(inform, mac(7), has("10.0.0.7")),
	} {
		f.Add(b)
	}
}
