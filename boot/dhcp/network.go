package dhcp

import (
	"net/netip"

	"bootd/boot"
)

// network finds the network that a client is on. A relay agent names it. What
// comes without one comes from a network that the interface has an address in,
// or was routed here from a client behind a relay agent, which renews its lease
// without the agent's help and is known by its address. Several networks on one
// wire are told apart by the address that the client has or had; the first
// serves those that have none.
func network(c *boot.Catalog, r Request, link Link) *boot.Network {
	had := r.had()
	if r.Link.IsValid() {
		n := c.NetworkOf(r.Link)
		switch {
		case n == nil, !r.Relay.IsValid() && n.Interface != link.Interface:
			return nil
		case had.IsValid() && !n.Subnet.Contains(had):
			for _, other := range siblings(c, n, link) {
				if other.Subnet.Contains(had) {
					return other
				}
			}
		}
		return n
	}
	var first *boot.Network
	for i := range c.Networks {
		n := &c.Networks[i]
		if n.Interface != link.Interface {
			continue
		}
		here := attached(n, link)
		if had.IsValid() && n.Subnet.Contains(had) && (here || r.Has.IsValid() || r.BootPort) {
			return n
		}
		if here && (first == nil || rank(n.Mode) > rank(first.Mode)) {
			first = n
		}
	}
	return first
}

// had is the address that a client has, or means to have had before.
func (r Request) had() netip.Addr {
	switch {
	case r.BootPort && r.From.Addr().IsValid() && !r.From.Addr().IsUnspecified():
		return r.From.Addr()
	case !r.Has.IsValid() && (r.Type == TypeRequest || r.Type == TypeDecline):
		return r.Asked
	}
	return r.Has
}

// rank says which of the networks of one interface a client is in that could be
// in any: one that gives it most.
func rank(m boot.Mode) int {
	switch m {
	case boot.Authoritative:
		return 2
	case boot.Proxy:
		return 1
	}
	return 0
}

// siblings are the other networks of n's wire that addresses are given from.
// Those that the interface has addresses in are on one wire; those behind relay
// agents are if they say so.
func siblings(c *boot.Catalog, n *boot.Network, link Link) (list []*boot.Network) {
	here := n.Interface == link.Interface && attached(n, link)
	for i := range c.Networks {
		other := &c.Networks[i]
		if other.Name == n.Name || other.Mode != boot.Authoritative {
			continue
		}
		if n.Wire != "" && other.Wire == n.Wire ||
			n.Wire == "" && other.Wire == "" && here && other.Interface == n.Interface && attached(other, link) {
			list = append(list, other)
		}
	}
	return list
}

// home finds the network, on the wire of n, of a client that has just come up
// there: where an address is reserved for it, or where it has a lease.
func (q *query) home(n *boot.Network) *boot.Network {
	if q.BootPort || q.Type != TypeDiscover || n.Mode != boot.Authoritative || len(q.catalog.Networks) == 1 {
		return n
	}
	own := q.own()
	if n.Subnet.Contains(own) {
		return n
	}
	list := siblings(q.catalog, n, q.link)
	for _, other := range list {
		if own.IsValid() && other.Subnet.Contains(own) {
			return other
		}
	}
	if _, ok := q.Leases.ByMAC(n.Name, q.MAC); ok {
		return n
	}
	for _, other := range list {
		if l, ok := q.Leases.ByMAC(other.Name, q.MAC); ok && l.Active(q.now) {
			return other
		}
	}
	return n
}

// attached reports whether an interface is in a network, rather than a relay
// agent between it and the machines.
func attached(n *boot.Network, link Link) bool {
	return !n.Relayed && (n.Server.IsValid() || inside(n, link).IsValid())
}

// inside is the address of an interface in a network.
func inside(n *boot.Network, link Link) netip.Addr {
	for _, a := range link.Addrs {
		if n.Subnet.Contains(a.Addr()) {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

// facing is the address of an interface in the subnet of who sent a packet
// there, or else its first one; invalid: it has none. A relay agent and its
// clients know bootd by it.
func facing(link Link, from netip.Addr) (first netip.Addr) {
	for _, a := range link.Addrs {
		if a.Contains(from) {
			return a.Addr()
		}
		if !first.IsValid() {
			first = a.Addr()
		}
	}
	return first
}

// ServerAddr is bootd's own address on a network: as configured, or the one of
// the interface that lies in the subnet, or, behind relay agents, its first one.
// It is invalid when there is none.
func ServerAddr(n *boot.Network, link Link) netip.Addr {
	a := inside(n, link)
	switch {
	case n.Server.IsValid():
		return n.Server
	case !a.IsValid() && n.Relayed && len(link.Addrs) > 0:
		return link.Addrs[0].Addr()
	}
	return a
}
