package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"bootd/boot"
)

// Times of leases that nobody wrote down. A system keeps its address for a
// working day's pause; firmware never gives an address back, so what it gets
// runs out soon.
const (
	leaseTime         = time.Hour
	firmwareLeaseTime = 5 * time.Minute
)

func (l *loader) network(d *document, n ast.Node) {
	net := boot.Network{Mode: boot.Authoritative, LeaseTime: leaseTime, FirmwareLeaseTime: firmwareLeaseTime, Origin: d.origin(n)}
	mode := string(net.Mode)
	var subnet, ranges, server, router ast.Node
	keep := func(dst *ast.Node) func(string, ast.Node) { return func(_ string, v ast.Node) { *dst = v } }
	ok := d.mapping(n, "network", fields{
		"name":      d.into(&net.Name),
		"interface": d.into(&net.Interface, d.checkInterface),
		"mode":      d.one(&mode, string(boot.Authoritative), string(boot.Proxy), string(boot.Off)),
		"subnet": func(key string, v ast.Node) {
			if p, ok := d.prefix(v, key); ok {
				net.Subnet, subnet = p, v
			}
		},
		"range":               keep(&ranges),
		"server":              func(k string, v ast.Node) { server = v; d.addrInto(&net.Server)(k, v) },
		"router":              func(k string, v ast.Node) { router = v; d.addrInto(&net.Router)(k, v) },
		"dns":                 d.addrsInto(&net.DNS),
		"ntp":                 d.addrsInto(&net.NTP),
		"domain":              d.into(&net.Domain, d.checkDomain),
		"mtu":                 d.number(&net.MTU, 576, 65535),
		"options":             d.dhcpOptions(&net.Options),
		"relayed":             d.yes(&net.Relayed),
		"wire":                d.into(&net.Wire, d.checkName),
		"lease_time":          d.duration(&net.LeaseTime, 30*time.Second, 365*24*time.Hour),
		"firmware_lease_time": d.duration(&net.FirmwareLeaseTime, 30*time.Second, 365*24*time.Hour),
	})
	if !ok {
		l.lost[allNetworks] = true
		return
	}
	net.Mode = boot.Mode(mode)
	if net.Interface == "" {
		d.wrong(n, "this network has no interface", "add interface: eth1, where its machines are")
	}
	if net.Name == "" {
		net.Name = net.Interface
	}
	if subnet == nil {
		l.lost[allNetworks] = true
		if !net.Subnet.IsValid() && l.clean(d, n) {
			d.wrong(n, "this network has no subnet", "add subnet: 10.0.0.0/24")
		}
		return
	}
	for _, a := range []struct {
		addr netip.Addr
		at   ast.Node
		what string
	}{{net.Server, server, "server"}, {net.Router, router, "router"}} {
		if a.addr.IsValid() && !net.Subnet.Contains(a.addr) {
			d.wrong(a.at, fmt.Sprintf("%s %s is outside the subnet %s", a.what, a.addr, net.Subnet), "")
		}
	}
	if ranges != nil && net.Mode == boot.Proxy {
		d.wrong(ranges, "this network has a range, but another server gives its addresses (mode: proxy)", "leave out range, or mode: proxy")
	} else if ranges != nil {
		d.list(ranges, func(v ast.Node) {
			if r, ok := d.addrRange(v, net); ok {
				net.Ranges = append(net.Ranges, r)
			}
		})
	}
	l.overlaps(d, n, net)
	l.networks = append(l.networks, net)
}

// clean reports whether no mistake has been found in the lines from n on; a
// network whose subnet is wrong does not also lack one.
func (l *loader) clean(d *document, n ast.Node) bool {
	from := d.origin(n)
	for _, m := range l.mistakes {
		if m.Origin.File == from.File && m.Origin.Line >= from.Line {
			return false
		}
	}
	return true
}

func (d *document) addrRange(v ast.Node, net boot.Network) (boot.Range, bool) {
	s, ok := d.text(v, "range")
	if !ok {
		return boot.Range{}, false
	}
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		last = first
	}
	r := boot.Range{}
	var err1, err2 error
	r.First, err1 = netip.ParseAddr(strings.TrimSpace(first))
	r.Last, err2 = netip.ParseAddr(strings.TrimSpace(last))
	switch {
	case err1 != nil || err2 != nil || !r.First.Is4() || !r.Last.Is4():
		d.wrong(v, fmt.Sprintf("range %q is not two IPv4 addresses", s), "write it as 10.0.0.100-10.0.0.250")
	case r.Last.Less(r.First):
		d.wrong(v, fmt.Sprintf("range %s ends before it begins", s), fmt.Sprintf("did you mean %s-%s?", r.Last, r.First))
	case !net.Subnet.Contains(r.First) || !net.Subnet.Contains(r.Last):
		d.wrong(v, fmt.Sprintf("range %s is not within the subnet %s", s, net.Subnet), "")
	case net.Subnet.Bits() < 31 && r.Contains(net.Subnet.Addr()):
		d.wrong(v, fmt.Sprintf("range %s holds the network's own address %s", s, net.Subnet.Addr()), fmt.Sprintf("begin at %s", net.Subnet.Addr().Next()))
	case net.Subnet.Bits() < 31 && r.Contains(broadcast(net.Subnet)):
		d.wrong(v, fmt.Sprintf("range %s holds the broadcast address %s", s, broadcast(net.Subnet)), fmt.Sprintf("end at %s", broadcast(net.Subnet).Prev()))
	default:
		return r, true
	}
	return r, false
}

func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(a)
}

func (l *loader) overlaps(d *document, n ast.Node, net boot.Network) {
	for _, other := range l.networks {
		if other.Subnet.Overlaps(net.Subnet) {
			d.wrong(n, fmt.Sprintf("subnet %s overlaps %s of the network at %s", net.Subnet, other.Subnet, other.Origin), "")
		}
		if other.Name == net.Name && net.Name != "" {
			d.wrong(n, fmt.Sprintf("two networks are called %q, the other one at %s", net.Name, other.Origin), "give each a name: of its own")
		}
	}
	for i, r := range net.Ranges {
		for _, q := range net.Ranges[:i] {
			if r.Contains(q.First) || q.Contains(r.First) {
				d.wrong(n, fmt.Sprintf("ranges %s and %s overlap", q, r), "")
			}
		}
	}
}

// checkInterface knows what Linux allows (dev_valid_name in net/core/dev.c).
func (d *document) checkInterface(v ast.Node, s string) {
	if s == "" || s == "." || s == ".." || len(s) > 15 || strings.ContainsAny(s, "/: \t\n") {
		d.wrong(v, fmt.Sprintf("%q cannot be the name of a network interface", clip(s)), "ip link shows their names")
	}
}

func (d *document) checkDomain(v ast.Node, s string) {
	if !boot.ValidName(s) {
		d.wrong(v, fmt.Sprintf("%q is not a domain", clip(s)), "write it as example.com, in lower case")
	}
}
