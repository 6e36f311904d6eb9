package dhcp

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"bootd/boot"
)

// A Request is what a client's packet says, as far as it decides something.
type Request struct {
	Type      dhcpv4.MessageType
	MAC       boot.MAC
	Client    boot.Client
	Class     string // vendor class identifier, option 60
	HTTP      bool   // the firmware boots by HTTP (class HTTPClient)
	Arch      boot.Arch
	ArchKnown bool
	UUID      string     // option 97
	Host      string     // option 12
	Asked     netip.Addr // option 50
	Server    netip.Addr // option 54
	Has       netip.Addr // ciaddr: the client uses it
	Relay     netip.Addr // giaddr
	Link      netip.Addr // subnet that a relay agent names (RFC 3527)
	Broadcast bool

	packet *dhcpv4.DHCPv4
}

// Inventory is what the request tells of the machine.
func (r Request) Inventory() boot.Inventory {
	return boot.Inventory{MAC: r.MAC, UUID: r.UUID, Arch: r.Arch, ArchKnown: r.ArchKnown}
}

// wants reports whether the client asks for an option (option 55). One that
// lists nothing may be sent anything.
func (r Request) wants(code dhcpv4.OptionCode) bool {
	return len(r.packet.Options.Get(dhcpv4.OptionParameterRequestList)) == 0 || r.packet.IsOptionRequested(code)
}

// Decode reads a client's packet. It accepts what real clients send, and
// refuses what cannot be answered: replies, other link layers, addresses that no
// card has.
func Decode(b []byte) (Request, error) {
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		return Request{}, fmt.Errorf("not a DHCP packet: %w", err)
	}
	if p.OpCode != dhcpv4.OpcodeBootRequest {
		return Request{}, fmt.Errorf("a reply, not a request")
	}
	mac, ok := boot.MACFrom(p.ClientHWAddr)
	if p.HWType != iana.HWTypeEthernet || !ok || mac.IsZero() || mac[0]&1 != 0 {
		return Request{}, fmt.Errorf("from %s address %q, which is no Ethernet card's", p.HWType, p.ClientHWAddr)
	}
	if p.MessageType() == dhcpv4.MessageTypeNone {
		return Request{}, fmt.Errorf("BOOTP without a DHCP message type")
	}
	r := Request{
		Type:      p.MessageType(),
		MAC:       mac,
		Class:     printable(p.ClassIdentifier()),
		UUID:      uuid(p.Options.Get(dhcpv4.OptionClientMachineIdentifier)),
		Host:      hostName(p.HostName()),
		Asked:     addr(p.RequestedIPAddress()),
		Server:    addr(p.ServerIdentifier()),
		Has:       addr(p.ClientIPAddr),
		Relay:     addr(p.GatewayIPAddr),
		Broadcast: p.IsBroadcast(),
		packet:    p,
	}
	r.Link = r.Relay
	if info := p.RelayAgentInfo(); info != nil && r.Relay.IsValid() {
		if link := info.Get(dhcpv4.LinkSelectionSubOption); len(link) == 4 {
			r.Link = netip.AddrFrom4([4]byte(link))
		}
	}
	r.Arch, r.ArchKnown = architecture(p, r.Class)
	r.Client, r.HTTP = client(p, r.Class)
	return r, nil
}

func addr(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	if !ok || !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// client tells which program sent the packet. iPXE says that it is a PXE
// client too, so it is looked for first: by its user class, which it sends
// without the length bytes of RFC 3004, or by its encapsulated options.
func client(p *dhcpv4.DHCPv4, class string) (c boot.Client, http bool) {
	for _, u := range p.UserClass() {
		if u == "iPXE" {
			return boot.IPXE, false
		}
	}
	switch {
	case len(p.Options.Get(dhcpv4.GenericOptionCode(optIPXE))) > 0:
		return boot.IPXE, false
	case strings.HasPrefix(class, "PXEClient"):
		return boot.Firmware, false
	case strings.HasPrefix(class, "HTTPClient"):
		return boot.Firmware, true
	case strings.Contains(class, "initramfs"), strings.HasPrefix(class, "dracut"):
		return boot.Initramfs, false
	}
	return boot.System, false
}

// architecture reads option 93, or else the vendor class
// PXEClient:Arch:00007:UNDI:003016, where the number is decimal.
func architecture(p *dhcpv4.DHCPv4, class string) (boot.Arch, bool) {
	if b := p.Options.Get(dhcpv4.OptionClientSystemArchitectureType); len(b) >= 2 {
		return boot.Arch(uint16(b[0])<<8 | uint16(b[1])), true
	}
	parts := strings.Split(class, ":")
	if len(parts) >= 3 && parts[1] == "Arch" {
		if n, err := strconv.ParseUint(parts[2], 10, 16); err == nil {
			return boot.Arch(n), true
		}
	}
	return 0, false
}

// uuid reads option 97: a type byte, 0, and a GUID whose first three parts are
// little endian (RFC 4578 section 2.3), as SMBIOS has it. Some firmware sends
// all zeros or all ones, which names no machine.
func uuid(b []byte) string {
	if len(b) != identifierSize || b[0] != 0 {
		return ""
	}
	u := append([]byte(nil), b[1:]...)
	same := true
	for _, x := range u {
		same = same && x == u[0]
	}
	if same {
		return ""
	}
	u[0], u[1], u[2], u[3] = u[3], u[2], u[1], u[0]
	u[4], u[5] = u[5], u[4]
	u[6], u[7] = u[7], u[6]
	h := hex.EncodeToString(u)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// hostName keeps what can be a host name of what a client says.
func hostName(s string) string {
	s = strings.ToLower(strings.TrimRight(s, "\x00"))
	if !boot.ValidName(s) {
		return ""
	}
	return s
}

// printable bounds and cleans text that goes into logs.
func printable(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
