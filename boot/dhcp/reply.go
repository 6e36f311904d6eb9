package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
)

// Option codes that the library has no name for.
const (
	optServerName = 66  // TFTP server name
	optIPXE       = 175 // iPXE's encapsulated options
)

// pxeDirect is PXE's vendor option 43: discovery control (6) with bit 3, boot
// the file that is named here and ask no boot server. Without it EDK2 takes an
// offer of class PXEClient for the beginning of a dialogue on port 4011.
var pxeDirect = []byte{6, 1, 8, 255}

// noProxyDHCP is iPXE's option 175.176: do not wait two seconds for a
// proxyDHCP server.
var noProxyDHCP = []byte{176, 1, 1}

// minSize is the least size of a packet. Some old clients and relay agents drop
// smaller ones than BOOTP's.
const minSize = 300

// maxSize is the most that fits into one Ethernet frame, with the headers of IP
// and UDP. Firmware cannot put fragments together.
const maxSize = 1500 - 20 - 8

// identifierSize is the length of option 97: a type and a GUID.
const identifierSize = 17

// blank makes a reply that says nothing yet.
func (q *query) blank(t dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        q.packet.HWType,
		TransactionID: q.packet.TransactionID,
		Flags:         q.packet.Flags,
		ClientIPAddr:  net.IPv4zero,
		YourIPAddr:    net.IPv4zero,
		ServerIPAddr:  net.IPv4zero,
		GatewayIPAddr: q.packet.GatewayIPAddr,
		ClientHWAddr:  q.packet.ClientHWAddr,
		Options:       dhcpv4.Options{},
	}
	m.UpdateOption(dhcpv4.OptMessageType(t))
	m.UpdateOption(dhcpv4.OptServerIdentifier(ip(q.server)))
	// A relay agent gets its information back as it was (RFC 3046 section
	// 2.2), and a client its machine identifier (RFC 4578 section 2.3).
	if b := q.packet.Options.Get(dhcpv4.OptionRelayAgentInformation); b != nil {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, b))
	}
	if b := q.packet.Options.Get(dhcpv4.OptionClientMachineIdentifier); len(b) == identifierSize {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, b))
	}
	return m
}

// reply makes an OFFER or ACK, and returns the boot file in it. a may be
// invalid, for an answer that gives no address.
func (q *query) reply(t dhcpv4.MessageType, a netip.Addr) (m *dhcpv4.DHCPv4, file string) {
	m = q.blank(t)
	if a.IsValid() {
		m.YourIPAddr = ip(a)
	}
	if t == dhcpv4.MessageTypeAck && q.Has.IsValid() {
		m.ClientIPAddr = ip(q.Has)
	}
	n := q.network
	m.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(n.Subnet.Bits(), 32)))
	if n.Subnet.Bits() < 31 {
		m.UpdateOption(dhcpv4.OptBroadcastAddress(ip(broadcast(n.Subnet))))
	}
	if n.Router.IsValid() {
		m.UpdateOption(dhcpv4.OptRouter(ip(n.Router)))
	}
	if len(n.DNS) > 0 {
		m.UpdateOption(dhcpv4.OptDNS(ips(n.DNS)...))
	}
	if len(n.NTP) > 0 && q.wants(dhcpv4.OptionNTPServers) {
		m.UpdateOption(dhcpv4.OptNTPServers(ips(n.NTP)...))
	}
	if n.Domain != "" {
		m.UpdateOption(dhcpv4.OptDomainName(n.Domain))
	}
	if n.MTU > 0 && q.wants(dhcpv4.OptionInterfaceMTU) {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(n.MTU))))
	}
	// A name that was only made up from the MAC is no reason to rename a
	// machine that bootd knows nothing of.
	if q.named && q.wants(dhcpv4.OptionHostName) {
		m.UpdateOption(dhcpv4.OptHostName(q.to.Name))
	}
	return m, q.bootFile(m)
}

// leaseTimes adds the length of the lease, and when to renew it. PXE firmware
// needs the first and nothing of the rest.
func (q *query) leaseTimes(m *dhcpv4.DHCPv4) {
	t := q.leaseTime()
	m.UpdateOption(dhcpv4.OptIPAddressLeaseTime(t))
	if q.Client == boot.System || q.Client == boot.Initramfs {
		m.UpdateOption(dhcpv4.OptRenewTimeValue(t / 2))
		m.UpdateOption(dhcpv4.OptRebindingTimeValue(t * 7 / 8))
	}
}

// bootFile adds what firmware and iPXE need for the next step. The server is
// named in three places, because each firmware looks in another (EDK2: siaddr,
// then option 54; others: option 66 or sname).
func (q *query) bootFile(m *dhcpv4.DHCPv4) string {
	base := "http://" + q.server.String()
	if q.HTTPPort != 80 {
		base = "http://" + netip.AddrPortFrom(q.server, q.HTTPPort).String()
	}
	file, ok := boot.BootFile(q.Arch, q.Client, q.to.Profile, q.Loaders, base)
	if !ok {
		return ""
	}
	m.ServerIPAddr = ip(q.server)
	m.UpdateOption(dhcpv4.OptBootFileName(file))
	if len(file) < 128 {
		m.BootFileName = file
	}
	switch {
	case q.Client == boot.IPXE:
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(optIPXE), noProxyDHCP))
	case q.HTTP:
		m.UpdateOption(dhcpv4.OptClassIdentifier("HTTPClient"))
	default:
		m.ServerHostName = q.server.String()
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(optServerName), []byte(q.server.String())))
		m.UpdateOption(dhcpv4.OptClassIdentifier("PXEClient"))
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, pxeDirect))
	}
	return file
}

func ips(list []netip.Addr) []net.IP {
	out := make([]net.IP, len(list))
	for i, a := range list {
		out[i] = ip(a)
	}
	return out
}

func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) | 1<<(32-p.Bits()) - 1
	binary.BigEndian.PutUint32(a[:], n)
	return netip.AddrFrom4(a)
}

// dispensable lists what is left out of a packet that is too large for its
// client, the least needed first.
var dispensable = []dhcpv4.OptionCode{
	dhcpv4.OptionNTPServers, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionBroadcastAddress,
	dhcpv4.OptionDomainName, dhcpv4.OptionHostName, dhcpv4.OptionDomainNameServer,
}

// room is how large a packet the client takes: what it says (option 57, with
// the headers of IP and UDP), or the least that every host must take (RFC 2131
// section 2).
func (q *query) room() int {
	n := 576
	if b := q.packet.Options.Get(dhcpv4.OptionMaximumDHCPMessageSize); len(b) == 2 {
		n = max(n, int(binary.BigEndian.Uint16(b)))
	}
	return min(n-20-8, maxSize)
}

// pack encodes a packet, with padding after its end option. A relay agent
// takes its information out before the client sees it, so that counts only for
// what fits into a frame; beyond that it is left out (RFC 3046 section 2.2).
func (q *query) pack(m *dhcpv4.DHCPv4) []byte {
	relayed, room := len(m.Options.Get(dhcpv4.OptionRelayAgentInformation)), q.room()
	b := m.ToBytes()
	for _, code := range dispensable {
		if len(b)-relayed <= room {
			break
		}
		if m.Options.Has(code) {
			m.Options.Del(code)
			b = m.ToBytes()
		}
	}
	if len(b) > maxSize {
		m.Options.Del(dhcpv4.OptionRelayAgentInformation)
		b = m.ToBytes()
	}
	for len(b) < minSize {
		b = append(b, 0)
	}
	return b
}
