package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// overlayName is what managers take as the name of a network (isValidDNSName in
// swarmkit's manager/controlapi/common.go), at most 63 characters.
var overlayName = regexp.MustCompile(`^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`)

// takenNames are networks that every engine, or every swarm, has already.
var takenNames = []string{"bridge", "host", "none", "default", "ingress", "docker_gwbridge"}

// Options of Docker's that have keys of their own.
const (
	optionEncrypted = "encrypted"
	optionMTU       = "com.docker.network.driver.mtu"
)

// overlay reads one of a swarm's networks.
func (d *document) overlay(s *rawSwarm, name string, k, v ast.Node) {
	switch {
	case slices.Contains(takenNames, name):
		d.wrong(k, fmt.Sprintf("Docker makes the network %q itself", name), "choose another name")
	case !overlayName.MatchString(name) || len(name) > 63:
		d.wrong(k, fmt.Sprintf("%q cannot be the name of an overlay network", clip(name)), "use letters, digits, and hyphens or underscores between them, at most 63")
	}
	o := Overlay{Name: name, Origin: d.origin(k)}
	var subnets []located
	var gateways, ranges ast.Node
	driver := "overlay"
	keep := func(dst *ast.Node) func(string, ast.Node) { return func(_ string, v ast.Node) { *dst = v } }
	readable := false
	if _, null := v.(*ast.NullNode); null {
		readable = true // "mynet:" and nothing: all as Docker chooses
	} else {
		readable = d.mapping(v, "network "+name, fields{
			"driver": d.one(&driver, "overlay"),
			"subnet": func(key string, v ast.Node) {
				d.list(v, func(n ast.Node) {
					if p, ok := d.overlaySubnet(n, key); ok {
						o.Subnets = append(o.Subnets, Subnet{Prefix: p})
						subnets = append(subnets, located{d, n})
					}
				})
			},
			"gateway":    keep(&gateways),
			"ip_range":   keep(&ranges),
			"encrypted":  d.yes(&o.Encrypted),
			"attachable": d.yes(&o.Attachable),
			"internal":   d.yes(&o.Internal),
			"mtu":        d.number(&o.MTU, 576, 65535),
			"options":    func(key string, v ast.Node) { o.Options = d.options(key, v) },
			"labels":     func(key string, v ast.Node) { o.Labels = d.labels(key, v, nil) },
		})
	}
	if readable {
		d.gateways(&o, gateways)
		d.ranges(&o, ranges)
	}
	s.Networks = append(s.Networks, o)
	s.networks = append(s.networks, located{d, k})
	s.subnets = append(s.subnets, subnets)
}

// overlaySubnet reads a subnet that holds a gateway and at least one container.
func (d *document) overlaySubnet(n ast.Node, key string) (netip.Prefix, bool) {
	p, ok := d.prefix(n, key)
	if ok && (p.Bits() < 8 || p.Bits() > 29) {
		d.wrong(n, fmt.Sprintf("%s %s has no size that an overlay network can have", key, p), "it is from /8 to /29; each service and each task takes an address, and each node one for its share of the load")
		return p, false
	}
	if ok && (p.Addr().IsMulticast() || p.Addr().IsLoopback() || p.Addr().IsUnspecified()) {
		d.wrong(n, fmt.Sprintf("%s %s is not for hosts", key, p), "private ones are in 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16")
		return p, false
	}
	return p, ok
}

func (d *document) gateways(o *Overlay, v ast.Node) {
	if v == nil {
		return
	}
	d.list(v, func(n ast.Node) {
		a, ok := d.addr(n, "gateway")
		if !ok {
			return
		}
		s := within(o, a)
		switch {
		case s == nil:
			d.wrong(n, fmt.Sprintf("gateway %s is outside the network's subnet", a), "add subnet: with the subnet that it is in")
		case s.Gateway.IsValid():
			d.wrong(n, fmt.Sprintf("subnet %s has two gateways", s.Prefix), fmt.Sprintf("keep %s or %s", s.Gateway, a))
		case a == s.Prefix.Addr() || a == broadcast(s.Prefix):
			d.wrong(n, fmt.Sprintf("gateway %s is the first or last address of %s, which nobody can have", a, s.Prefix), "")
		default:
			s.Gateway = a
		}
	})
}

func (d *document) ranges(o *Overlay, v ast.Node) {
	if v == nil {
		return
	}
	d.list(v, func(n ast.Node) {
		r, ok := d.prefix(n, "ip_range")
		if !ok {
			return
		}
		s := within(o, r.Addr())
		switch {
		case s == nil || r.Bits() < s.Prefix.Bits():
			d.wrong(n, fmt.Sprintf("ip_range %s is not within the network's subnet", r), "it is the part of the subnet that containers get addresses from")
		case s.Range.IsValid():
			d.wrong(n, fmt.Sprintf("subnet %s has two ranges", s.Prefix), fmt.Sprintf("keep %s or %s", s.Range, r))
		default:
			s.Range = r
		}
	})
}

// within returns the subnet of o that an address is in.
func within(o *Overlay, a netip.Addr) *Subnet {
	i := slices.IndexFunc(o.Subnets, func(s Subnet) bool { return s.Prefix.Contains(a) })
	if i < 0 {
		return nil
	}
	return &o.Subnets[i]
}

// options reads options of the driver that have no key of their own.
func (d *document) options(key string, v ast.Node) map[string]string {
	out := map[string]string{}
	d.entries(v, key, func(name string, k, v ast.Node) {
		switch {
		case name == "" || strings.ContainsAny(name, " \t\n="):
			d.wrong(k, fmt.Sprintf("%q cannot be the name of an option", clip(name)), "it must be one word without =")
			return
		case name == optionEncrypted:
			d.wrong(k, "encryption has a key of its own", "write encrypted: true beside options")
			return
		case name == optionMTU:
			d.wrong(k, "the MTU has a key of its own", "write mtu: NUMBER beside options")
			return
		}
		if s, ok := d.text(v, "option "+name); ok {
			out[name] = s
		}
	})
	return out
}

// checkOverlays finds networks that would hide machines or each other.
func (l *loader) checkOverlays(s *rawSwarm) {
	type owner struct {
		name string
		p    netip.Prefix
	}
	var seen []owner
	for i, o := range s.Networks {
		for j, sub := range o.Subnets {
			at := s.subnets[i][j]
			for _, n := range l.networks {
				if sub.Prefix.Overlaps(n.Subnet) {
					at.wrong(fmt.Sprintf("subnet %s overlaps %s of network %q, where machines are", sub.Prefix, n.Subnet, n.Name), "overlay networks need addresses of their own")
				}
			}
			for _, p := range s.AddressPools {
				if sub.Prefix.Overlaps(p) {
					at.wrong(fmt.Sprintf("subnet %s overlaps the address pool %s", sub.Prefix, p), "Docker gives out the pool's addresses by itself; leave the subnet out, or choose one outside")
				}
			}
			for _, other := range seen {
				if sub.Prefix.Overlaps(other.p) {
					at.wrong(fmt.Sprintf("subnet %s overlaps %s of network %q of this swarm", sub.Prefix, other.p, other.name), "")
				}
			}
			seen = append(seen, owner{o.Name, sub.Prefix})
		}
	}
}
