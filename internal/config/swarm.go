package config

import (
	"fmt"
	"net/netip"
	"net/url"

	"github.com/goccy/go-yaml/ast"
)

func (l *loader) swarm(d *document, v ast.Node) {
	if _, null := v.(*ast.NullNode); null {
		return // "swarm:" and nothing: none
	}
	s := &Swarm{Name: "default", Host: "unix:///var/run/docker.sock", Availability: "active", Origin: d.origin(v)}
	d.mapping(v, "swarm", fields{
		"name":         d.into(&s.Name, d.checkName),
		"host":         d.into(&s.Host, d.checkEngine),
		"advertise":    d.into(&s.Advertise, d.checkAdvertise),
		"availability": d.one(&s.Availability, "active", "pause", "drain"),
		"address_pools": func(key string, v ast.Node) {
			d.list(v, func(n ast.Node) {
				if p, ok := d.prefix(n, key); ok {
					s.AddressPools = append(s.AddressPools, p)
					l.pools = append(l.pools, located{d, n})
				}
			})
		},
		"data_path_port": d.number(&s.DataPathPort, 1024, 49151),
	})
	l.config.Swarm = s
}

func (d *document) checkAdvertise(v ast.Node, s string) {
	if _, err := netip.ParseAddr(s); err != nil {
		d.checkInterface(v, s)
	}
}

func (d *document) checkEngine(v ast.Node, s string) {
	u, err := url.Parse(s)
	if err == nil && (u.Scheme == "unix" && u.Path != "" || u.Scheme == "tcp" && u.Host != "") {
		return
	}
	d.wrong(v, fmt.Sprintf("host %q is not the address of a Docker engine", s), "write it as unix:///var/run/docker.sock or tcp://10.0.0.2:2376")
}
