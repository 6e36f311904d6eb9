package main

import (
	"log/slog"

	"bootd/boot"
	"bootd/internal/config"
	"bootd/internal/swarm"
	"bootd/internal/timeline"
)

// newSwarm makes the part that keeps the Docker Swarm.
func newSwarm(cfg *config.Config, l *live, record *timeline.Recorder, log *slog.Logger) (*swarm.Swarm, error) {
	s := cfg.Swarm
	init := swarm.Init{
		Advertise:    s.Advertise,
		Availability: swarm.Availability(s.Availability),
		AddressPools: s.AddressPools,
		DataPathPort: uint16(s.DataPathPort),
	}
	if init.Advertise == "" {
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
		Machines: func() []swarm.Machine { return members(l.catalog(), record.Machines()) },
		Record:   record.Record,
		Log:      log,
	})
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
		for _, step := range s.Current.Steps {
			m.Left = m.Left || step.Stage == boot.Left
			m.Ready = m.Ready || step.Stage == boot.Ready
		}
		out = append(out, m)
	}
	return out
}
