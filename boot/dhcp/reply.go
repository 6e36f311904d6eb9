package dhcp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"time"

	"bootd/boot"
)

// pxeDirect is PXE's vendor option 43: discovery control (6) with bit 3, boot
// the file that is named here and ask no boot server. Without it EDK2 takes an
// offer of class PXEClient for the beginning of a dialogue on port 4011.
var pxeDirect = [...]byte{6, 1, 8, 255}

// piDirect is the same for the ROM of a Raspberry Pi, which boots only from a
// server whose menu (9, with the prompt 10) has an entry of this name.
var piDirect = append([]byte{6, 1, 8, 10, 4, 0, 'P', 'X', 'E', 9, 20, 0, 0, 17}, "Raspberry Pi Boot\xff"...)

// noProxyDHCP is iPXE's option 175.176: do not wait two seconds for a
// proxyDHCP server.
var noProxyDHCP = [...]byte{176, 1, 1}

// minSize is the least size of a packet. Some old clients and relay agents drop
// smaller ones than BOOTP's.
const minSize = 300

// maxSize is the most that fits into one Ethernet frame, with the headers of IP
// and UDP. Firmware cannot put fragments together.
const maxSize = 1500 - 20 - 8

// blank makes a reply that says nothing yet.
func (q *query) blank(t MessageType) message {
	var memory []byte
	if q.work != nil {
		memory = q.work.reply
	}
	m := newMessage(memory, q.packet, t)
	m.putAddr(optServer, q.id)
	// A client gets back its identifier (RFC 6842), and that of its machine
	// (RFC 4578 section 2.3).
	if b := q.packet.get(optClientID); len(b) > 0 && len(b) < 256 {
		m.put(optClientID, b...)
	}
	if b := q.packet.get(optMachine); len(b) == identifierSize {
		m.put(optMachine, b...)
	}
	// That it chose its subnet itself was understood (RFC 3011).
	if a := q.packet.addr(optSubnet); a.IsValid() && a == q.Link {
		m.putAddr(optSubnet, a)
	}
	return m
}

// reply makes an OFFER or ACK, and returns the boot file in it. a may be
// invalid, for an answer that gives no address.
func (q *query) reply(t MessageType, a netip.Addr) (m message, file string) {
	m = q.blank(t)
	if a.IsValid() {
		m.setAddr(atYIAddr, a)
	}
	if t == TypeAck && q.Has.IsValid() {
		m.setAddr(atCIAddr, q.Has)
	}
	n := q.network
	m.putUint32(optMask, ^uint32(0)<<(32-n.Subnet.Bits()))
	if n.Subnet.Bits() < 31 {
		m.putAddr(optBroadcast, broadcast(n.Subnet))
	}
	if n.Router.IsValid() {
		m.putAddr(optRouter, n.Router)
	}
	if len(n.DNS) > 0 {
		m.putAddrs(optDNS, n.DNS)
	}
	if len(n.NTP) > 0 && q.wants(optNTP) {
		m.putAddrs(optNTP, n.NTP)
	}
	if n.Domain != "" {
		m.putText(optDomain, n.Domain)
	}
	if n.MTU > 0 && q.wants(optMTU) {
		m.put(optMTU, byte(n.MTU>>8), byte(n.MTU))
	}
	// A name that was only made up from the MAC is no reason to rename a
	// machine that bootd knows nothing of.
	if q.named && q.wants(optHost) {
		m.putText(optHost, q.to.Name)
	}
	q.furtherOptions(&m)
	file, _ = q.bootFile(&m)
	return m, file
}

// furtherOptions adds what somebody configured for the machine, then for its
// network.
func (q *query) furtherOptions(m *message) {
	add := func(list []boot.Option) {
		for _, o := range list {
			if (o.Always || q.wants(o.Code)) && !m.has(o.Code) {
				m.put(o.Code, o.Value...)
			}
		}
	}
	if q.to.Machine != nil {
		add(q.to.Machine.Options)
	}
	add(q.network.Options)
}

// leaseTimes adds the length of the lease, and when to renew it. PXE firmware
// needs the first and nothing of the rest.
func (q *query) leaseTimes(m *message) {
	t := q.leaseTime()
	m.putUint32(optLeaseTime, seconds(t))
	if !q.boots() {
		m.putUint32(optRenewal, seconds(t/2))
		m.putUint32(optRebinding, seconds(t*7/8))
	}
}

// seconds rounds a time to what DHCP counts in. What is longer than it can
// say is as long as it can say without meaning for ever.
func seconds(t time.Duration) uint32 {
	return uint32(min(t.Round(time.Second)/time.Second, 1<<32-2))
}

// bootFile adds what firmware and iPXE need for the next step. The server is
// named in three places, because each firmware looks in another (EDK2: siaddr,
// then option 54; others: option 66 or sname). It reports false when there is
// nothing for this client to boot.
func (q *query) bootFile(m *message) (file string, ok bool) {
	if !q.boots() {
		return "", false
	}
	file, ok = boot.BootFile(q.booter(), q.to.Profile, q.Loaders, q.base())
	if !ok {
		return "", false
	}
	m.setAddr(atSIAddr, q.server)
	if file != "" {
		m.putText(optBootFile, file)
		m.setText(atFile, atCookie-atFile, file) // all that U-Boot reads
	}
	q.bootServer(m)
	return file, true
}

// bootServer adds what makes a client take the boot file, and where it is
// from.
func (q *query) bootServer(m *message) {
	proxy := q.proxying()
	if q.Client == boot.IPXE {
		if proxy {
			m.putText(optClass, "PXEClient")
		} else {
			m.put(optIPXE, noProxyDHCP[:]...)
		}
		return
	}
	if q.ROM == boot.HTTPBoot {
		m.putText(optClass, "HTTPClient")
		return
	}
	server := q.server.String()
	m.setText(atSName, atFile-atSName, server)
	m.putText(optServerName, server)
	switch q.ROM {
	case boot.UBoot:
		return
	case boot.RaspberryPi:
		m.put(optVendor, piDirect...)
	default:
		m.put(optVendor, pxeDirect[:]...)
	}
	m.putText(optClass, "PXEClient")
}

// base is the root of bootd's own URLs.
func (q *query) base() string {
	if q.HTTPPort == 80 {
		return "http://" + q.server.String()
	}
	return "http://" + q.server.String() + ":" + strconv.Itoa(int(q.HTTPPort))
}

func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) | 1<<(32-p.Bits()) - 1
	binary.BigEndian.PutUint32(a[:], n)
	return netip.AddrFrom4(a)
}

// dispensable are bootd's own options that a client can do without.
var dispensable = [...]byte{optNTP, optMTU, optBroadcast, optDomain, optHost, optClientID, optDNS}

// dispensable lists what is left out of a packet that is too large for its
// client, the least needed first: what somebody configured, then bootd's own.
func (q *query) dispensable() []byte {
	if len(q.network.Options) == 0 && (q.to.Machine == nil || len(q.to.Machine.Options) == 0) {
		return dispensable[:]
	}
	var codes []byte
	add := func(list []boot.Option) {
		for _, o := range list {
			if !o.Always {
				codes = append(codes, o.Code)
			}
		}
	}
	add(q.network.Options)
	if q.to.Machine != nil {
		add(q.to.Machine.Options)
	}
	return append(codes, dispensable[:]...)
}

// room is how large a packet the client takes: what it says (option 57, with
// the headers of IP and UDP), or the least that every host must take (RFC 2131
// section 2).
func (q *query) room() int {
	n := 576
	if b := q.packet.get(optMaxSize); len(b) == 2 {
		n = max(n, int(binary.BigEndian.Uint16(b)))
	}
	return min(n-20-8, maxSize)
}

// pack finishes a packet, with padding after its end option. A relay agent gets
// its information back as it was, as the last option (RFC 3046 section 2.2). It
// takes that out before the client sees it, so that it counts only for what
// fits into a frame; beyond that it is left out.
func (q *query) pack(m message) []byte {
	room := q.room() - 1
	for _, code := range q.dispensable() {
		if len(m) <= room {
			break
		}
		m.drop(code)
	}
	if info := q.packet.get(optRelayInfo); len(info) > 0 {
		before := len(m)
		if m.put(optRelayInfo, info...); len(m) >= maxSize {
			m = m[:before]
		}
	}
	m = append(m, optEnd)
	for len(m) < minSize {
		m = append(m, optPad)
	}
	return m
}
