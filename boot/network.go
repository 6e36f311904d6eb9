package boot

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// A Mode says what bootd's DHCP does on a network.
type Mode string

// The modes of a network.
const (
	Authoritative Mode = "authoritative" // bootd gives the addresses
	Proxy         Mode = "proxy"         // another server gives addresses; bootd adds the boot file
	Off           Mode = "off"           // no DHCP at all, only TFTP and HTTP
)

// A Network is one subnet with machines on it.
type Network struct {
	Name      string // for people; the interface's name when none is given
	Interface string // where packets arrive
	Mode      Mode
	Subnet    netip.Prefix
	Ranges    []Range    // addresses to lease; empty: reservations only
	Server    netip.Addr // bootd's own address here; invalid: taken from the interface
	Router    netip.Addr // invalid: none is announced
	DNS       []netip.Addr
	NTP       []netip.Addr
	Domain    string
	MTU       int      // 0: none is announced
	Options   []Option // further ones, by code, each once

	// Relayed says that machines are here only behind relay agents: bootd has
	// no address in the subnet and needs none.
	Relayed bool
	// Wire is a name that networks behind relay agents share when their
	// machines are on one wire, so that either can give them addresses. Networks
	// that bootd has addresses in share the wire of their interface by itself.
	Wire string

	// LeaseTime is what a running system gets. FirmwareLeaseTime is what
	// firmware and loaders get, which never release an address.
	LeaseTime, FirmwareLeaseTime time.Duration

	Origin Origin
}

// A Range is an inclusive range of IPv4 addresses.
type Range struct{ First, Last netip.Addr }

// Contains reports whether a lies in r.
func (r Range) Contains(a netip.Addr) bool {
	return a.Is4() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// Size is how many addresses r has.
func (r Range) Size() int {
	if !r.First.Is4() || !r.Last.Is4() || r.Last.Less(r.First) {
		return 0
	}
	a, b := r.First.As4(), r.Last.As4()
	return int(binary.BigEndian.Uint32(b[:])) - int(binary.BigEndian.Uint32(a[:])) + 1
}

// String writes r as 10.0.0.100-10.0.0.250.
func (r Range) String() string { return r.First.String() + "-" + r.Last.String() }
