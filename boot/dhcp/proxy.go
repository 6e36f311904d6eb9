package dhcp

import (
	"net/netip"

	"bootd/boot"
)

// proxying reports whether the answer is only about booting: somebody else
// gives the client its address, or it has one already and asks the boot server
// on its own port.
func (q *query) proxying() bool { return q.BootPort || q.network.Mode == boot.Proxy }

// proxy answers beside somebody else's DHCP server (PXE specification 2.1,
// section 2.2): who boots from the network gets an offer without an address,
// which goes together with the other server's. Everybody else must not even
// see that bootd is there: there are clients that take the first offer that
// comes, with no address in it.
func (q *query) proxy() Answer {
	switch {
	case !q.boots(), q.ROM == boot.UBoot: // which does not know what a proxy is
		return Answer{Why: "its address is somebody else's to give, and it asks for nothing to boot"}
	case q.Type != TypeDiscover:
		return Answer{Why: "a " + q.Type.String() + " is for who gives the address"}
	}
	m := q.blank(TypeOffer)
	file, ok := q.bootFile(&m)
	if !ok {
		return q.nothing()
	}
	return q.send(m, q.event(boot.Offered, netip.Addr{}, q.describe(file)), false)
}

// bootRequest answers a client that has its address and asks for its boot file
// on port 4011: firmware that took an offer of class PXEClient for one of a
// boot server (BINL), and iPXE that was told of none.
func (q *query) bootRequest() Answer {
	switch {
	case !q.boots():
		return Answer{Why: "asks the boot server, and boots nothing from the network"}
	case q.Type != TypeRequest && q.Type != TypeInform:
		return Answer{Why: "a " + q.Type.String() + " is not for the boot server"}
	}
	to, ok := q.sender()
	if !ok {
		// Anybody could have it sent to anybody.
		return Answer{Why: "asks the boot server from outside network " + q.network.Name}
	}
	m := q.blank(TypeAck)
	m.setAddr(atCIAddr, to.Addr())
	file, ok := q.bootFile(&m)
	if !ok {
		return q.nothing()
	}
	return Answer{Reply: q.pack(m), To: to, Event: q.event(boot.Offered, netip.Addr{}, q.describe(file))}
}

// sender is where an answer on port 4011 goes: where the question came from,
// or to the address that the client says it has.
func (q *query) sender() (netip.AddrPort, bool) {
	if from := q.From; q.network.Subnet.Contains(from.Addr()) {
		return from, true
	}
	return netip.AddrPortFrom(q.Has, clientPort), q.network.Subnet.Contains(q.Has)
}

// nothing tells that bootd has no loader for a machine that boots from the
// network.
func (q *query) nothing() Answer {
	why := q.describe("")
	return Answer{Why: why, Event: q.event(boot.Failed, netip.Addr{}, why)}
}
