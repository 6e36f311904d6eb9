package main

import (
	"net/netip"
	"os"
	"slices"
	"strings"

	"bootd/boot"
	"bootd/internal/config"
	"bootd/internal/swarm"
)

// newSwarm makes the part that keeps a Docker Swarm.
func (s *swarms) newSwarm(cfg *config.Config, d config.Swarm) (*swarm.Swarm, error) {
	return swarm.New(s.swarmConfig(cfg, d))
}

func (s *swarms) swarmConfig(cfg *config.Config, d config.Swarm) swarm.Config {
	init := swarm.Init{
		Advertise:    d.Advertise,
		Availability: swarm.Availability(d.Availability),
		AddressPools: d.AddressPools,
		DataPathPort: uint16(d.DataPathPort),
	}
	if len(init.AddressPools) == 0 {
		init.AddressPools = addressPool(cfg.Catalog.Networks)
	}
	if init.Advertise == "" && strings.HasPrefix(d.Host, "unix:") {
		// The engine refuses to guess among several addresses; the machines
		// are where bootd serves.
		for i := range cfg.Catalog.Networks {
			if a, err := serverAddr(&cfg.Catalog.Networks[i]); err == nil {
				init.Advertise = a.String()
				break
			}
		}
	}
	return swarm.Config{
		Name:     d.Name,
		Host:     d.Host,
		TLS:      (*swarm.TLS)(d.TLS),
		SSH:      loginTo(d.SSH),
		Init:     init,
		Settings: func() swarm.Settings { return settings(s.declared(d.Name)) },
		Machines: func() []swarm.Machine { return s.members(d.Name) },
		Networks: func() ([]swarm.Network, bool) {
			now := s.declared(d.Name)
			return overlays(now.Networks), now.Name != ""
		},
		Memory: swarmMemory{s.store, d.Name},
		Record: s.record.Record,
		Log:    s.log,
	}
}

// settings are what can change while a swarm is kept.
func settings(d config.Swarm) swarm.Settings {
	out := swarm.Settings{Grace: d.Grace, DrainTimeout: d.DrainTimeout, Availability: swarm.Availability(d.Availability),
		RemoveStrangers: d.RemoveStrangers, Nodes: map[string]swarm.Wish{}, Managers: d.Managers, Rotation: swarm.Rotation(d.Rotation)}
	for host, n := range d.Nodes {
		out.Nodes[host] = swarm.Wish{Labels: n.Labels, Availability: swarm.Availability(n.Availability)}
	}
	return out
}

// overlays are the networks of a swarm as package swarm has them.
func overlays(declared []config.Overlay) []swarm.Network {
	var out []swarm.Network
	for _, o := range declared {
		n := swarm.Network{Name: o.Name, Encrypted: o.Encrypted, Attachable: o.Attachable, Internal: o.Internal,
			MTU: o.MTU, Options: o.Options, Labels: o.Labels}
		for _, p := range o.Subnets {
			n.Subnets = append(n.Subnets, swarm.Subnet(p))
		}
		out = append(out, n)
	}
	return out
}

// loginTo says how to log in where an engine is, also with the keys of the agent
// of whoever started bootd.
func loginTo(s *config.SSH) *swarm.SSH {
	if s == nil {
		return nil
	}
	return &swarm.SSH{Key: s.Key, KnownHosts: s.KnownHosts, Agent: os.Getenv("SSH_AUTH_SOCK")}
}

// addressPool chooses the addresses of the swarm's overlay networks when nobody
// has. Docker takes them from 10.0.0.0/8, beginning at 10.0.0.0/24, which is
// also what many racks use; a node then cannot tell the two apart. Nil leaves it
// to Docker.
func addressPool(networks []boot.Network) []netip.Prefix {
	overlaps := func(p netip.Prefix) bool {
		return slices.ContainsFunc(networks, func(n boot.Network) bool { return n.Subnet.Overlaps(p) })
	}
	if !overlaps(netip.MustParsePrefix("10.0.0.0/8")) {
		return nil
	}
	for block := 240; block >= 0; block -= 16 {
		if p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(block), 0, 0}), 12); !overlaps(p) {
			return []netip.Prefix{p}
		}
	}
	return nil // every part of it is in use: bootd.yaml has to say
}
