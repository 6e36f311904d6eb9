package config

import (
	"fmt"
	"net/netip"
	"reflect"

	"github.com/goccy/go-yaml/ast"

	"bootd/boot"
)

// A Controller says how Photon Controller's API is served.
type Controller struct {
	Listen string   // address; port 0: any that is free. Empty: the API is served on the operator's socket only
	Names  []string // host names and addresses that clients use, beside those the machine has itself; for the certificate
	// OldFlavors takes flavors that do not say how large a VM is, as servers before
	// Photon Controller 1.1 did.
	OldFlavors bool
	// Profiles are those of the nodes of clusters, by type and role: "swarm/etcd".
	// What a node needs for its role is added to them.
	Profiles map[string]string
}

// clusterRoles are the roles of each type of clusters, as the names of VMs begin.
var clusterRoles = map[string][]string{
	"swarm":      {"etcd", "worker"},
	"kubernetes": {"etcd", "master", "worker"},
	"mesos":      {"zookeeper", "master", "marathon", "worker"},
}

// clusterProfiles reads which profiles the nodes of clusters have.
func (l *loader) clusterProfiles(d *document, c *Controller, key string, v ast.Node) {
	types := fields{}
	for kind, roles := range clusterRoles {
		named := fields{}
		for _, role := range roles {
			named[role] = func(key string, v ast.Node) {
				name := ""
				d.into(&name)(key, v)
				if name == "" {
					return
				}
				if c.Profiles == nil {
					c.Profiles = map[string]string{}
				}
				c.Profiles[kind+"/"+role] = name
				l.named = append(l.named, namedProfile{name, located{d, v}})
			}
		}
		types[kind] = func(key string, v ast.Node) { d.mapping(v, key, named) }
	}
	d.mapping(v, key, types)
}

// A namedProfile is one that something refers to.
type namedProfile struct {
	name string
	at   located
}

// Equal reports whether two say the same; either may be nil.
func (c *Controller) Equal(o *Controller) bool { return reflect.DeepEqual(c, o) }

// controller reads the section that switches the controller on.
func (l *loader) controller(d *document, key string, v ast.Node) {
	c := &Controller{}
	l.config.Controller = c
	open, flavors := "", "strict"
	ok := d.mapping(v, key, fields{
		"listen": d.into(&c.Listen, d.checkPort),
		"names": func(_ string, v ast.Node) {
			d.list(v, func(n ast.Node) {
				var name string
				d.into(&name, d.checkHostName)("names", n)
				if name != "" {
					c.Names = append(c.Names, name)
				}
			})
		},
		"auth":     d.one(&open, "none"),
		"flavors":  d.one(&flavors, "strict", "old"),
		"clusters": func(key string, v ast.Node) { l.clusterProfiles(d, c, key, v) },
	})
	c.OldFlavors = flavors == "old"
	// At a loopback address too: every process of this machine reaches that, while the
	// socket has an owner and a group.
	if _, err := netip.ParseAddrPort(c.Listen); ok && err == nil && open == "" {
		d.lacks(v, "auth", fmt.Sprintf("everybody who reaches %s, every program on this machine too, could change everything", c.Listen),
			"if that is meant, because only those reach it who may, write auth: none; or leave listen out: bootd's own commands use its socket")
	}
}

// checkPort is checkListen, where port 0 is any that is free.
func (d *document) checkPort(v ast.Node, s string) {
	if _, err := netip.ParseAddrPort(s); err != nil {
		d.wrong(v, fmt.Sprintf("%q is not an address to listen at", clip(s)), "write it as 127.0.0.1:9443, or 0.0.0.0:9443 for all of this machine's addresses")
	}
}

// checkHostName is for the names of a certificate.
func (d *document) checkHostName(v ast.Node, s string) {
	if _, err := netip.ParseAddr(s); err != nil && !boot.ValidName(s) {
		d.wrong(v, fmt.Sprintf("%q is neither a host name nor an address", clip(s)), "write what clients have in their URL, in lower case and without the port")
	}
}
