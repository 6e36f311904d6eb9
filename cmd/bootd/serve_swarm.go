package main

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bootd/boot"
	"bootd/internal/config"
	"bootd/internal/swarm"
	"bootd/internal/timeline"
)

// newSwarm makes the part that keeps the Docker Swarm.
func newSwarm(cfg *config.Config, s config.Swarm, l *live, record *timeline.Recorder, log *slog.Logger) (*swarm.Swarm, error) {
	init := swarm.Init{
		Advertise:    s.Advertise,
		Availability: swarm.Availability(s.Availability),
		AddressPools: s.AddressPools,
		DataPathPort: uint16(s.DataPathPort),
	}
	if len(init.AddressPools) == 0 {
		init.AddressPools = addressPool(cfg.Catalog.Networks)
	}
	if init.Advertise == "" && strings.HasPrefix(s.Host, "unix:") {
		// The engine refuses to guess among several addresses; the machines
		// are where bootd serves.
		for i := range cfg.Catalog.Networks {
			if a, err := serverAddr(&cfg.Catalog.Networks[i]); err == nil {
				init.Advertise = a.String()
				break
			}
		}
	}
	return swarm.New(swarm.Config{
		Name:     s.Name,
		Host:     s.Host,
		Init:     init,
		Grace:    s.Grace,
		Machines: func() []swarm.Machine { return members(l.catalog(), record.Machines()) },
		Record:   record.Record,
		Log:      log,
	})
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

// members are the machines that are to be in the swarm, with what is known of
// their latest boot.
func members(c *boot.Catalog, seen []timeline.Seen) []swarm.Machine {
	var out []swarm.Machine
	for _, s := range seen {
		if s.Current == nil {
			continue
		}
		a, err := c.Assign(s.Inventory)
		if err != nil || a.Profile == nil || a.Profile.Swarm == nil {
			continue
		}
		m := swarm.Machine{
			MAC: s.MAC, Name: a.Name, BootID: s.Current.ID, Started: s.Current.Started, NodeID: s.Current.Node,
			Role: a.Profile.Swarm.Role, Labels: a.Profile.Swarm.Labels, Availability: swarm.Availability(a.Profile.Swarm.Availability),
		}
		// When Docker is restarted on a node, the node leaves and joins again
		// within one boot: what came before the last joining is over.
		joined := last(s.Current, boot.Joined)
		m.Left = last(s.Current, boot.Left).After(joined)
		m.Ready = last(s.Current, boot.Ready).After(joined)
		out = append(out, m)
	}
	return out
}

// last is when a stage was last reached in a boot; zero if never.
func last(t *boot.Timeline, s boot.Stage) time.Time {
	var at time.Time
	for _, step := range t.Steps {
		if step.Stage == s && step.Last.After(at) {
			at = step.Last
		}
	}
	return at
}
