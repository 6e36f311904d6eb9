package main

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"slices"
	"time"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/boot/lease"
	"bootd/internal/api"
	"bootd/internal/override"
	"bootd/internal/timeline"
)

// apiConfig answers operators from the parts of the server.
func apiConfig(l *live, o *orders, herd *swarms, answers *dhcp.Server, lookout *dhcp.Lookout, log *slog.Logger) api.Config {
	record, leases := o.record, o.leases
	started := time.Now()
	c := api.Config{
		Status:   func() api.Status { return status(l, herd, lookout.Others(), answers.Floods(), started) },
		Machines: func() []api.Machine { return machines(l.catalog(), record.Machines(), o.overrides, time.Now()) },
		Boots:    record.Boots,
		Leases:   func() []api.Lease { return leaseList(leases.All(), time.Now()) },
		Orders:   o,
		Power:    newButtons(l, o.record, log.With("part", "power")),
		Swarms:   herd,
		Record: func(ctx context.Context, e boot.Event) error {
			_, err := record.Commit(ctx, e)
			return err
		},
		Past: func(seq uint64) []api.Event { return past(record, seq) },
		Follow: func(ctx context.Context, seq uint64, f func(api.Event) error) error {
			return follow(ctx, record, seq, f)
		},
		Log: log.With("part", "api"),
	}
	return c
}

func status(l *live, herd *swarms, others []dhcp.Another, floods []dhcp.Flood, started time.Time) api.Status {
	l.mu.Lock()
	cfg, problem := l.cfg, l.problem
	l.mu.Unlock()
	c := l.catalog()
	st := api.Status{Version: thisBuild().Version, PID: os.Getpid(), Started: started, Config: cfg.Dir,
		Profiles: len(c.Profiles), Machines: len(c.Machines), Networks: []api.Network{}, Images: []api.Image{}}
	for _, n := range c.Networks {
		out := api.Network{Name: n.Name, Interface: n.Interface, Mode: n.Mode, Subnet: n.Subnet}
		for _, o := range others {
			if o.Interface == n.Interface && n.Mode == boot.Authoritative && !n.Relayed {
				out.Others = append(out.Others, api.OtherServer{Addr: o.Addr, MAC: o.MAC, Offers: o.Offers, Since: o.Since, Last: o.Last})
			}
		}
		for _, f := range floods {
			if f.Network == n.Name {
				out.Floods = append(out.Floods, api.Flood{Relay: f.Relay, Port: f.Port, Held: f.Held, Dropped: f.Dropped, Since: f.Since, Last: f.Last})
			}
		}
		st.Networks = append(st.Networks, out)
	}
	for _, name := range imageNames(cfg) {
		i, _ := c.Image(name, "")
		st.Images = append(st.Images, api.Image{Name: name, Version: i.Version})
	}
	list, _ := herd.all("") // none is no error here
	for _, k := range list {
		now := k.Status()
		st.Swarms = append(st.Swarms, api.Swarm{Name: now.Name, Phase: string(now.Phase), Text: now.Text, ID: now.Swarm, Host: now.Host, Notices: now.Notices})
	}
	if problem != nil {
		st.Problem = problem.Error()
	}
	return st
}

// machines joins the entries of the catalog with the machines that have been
// seen.
func machines(c *boot.Catalog, seen []timeline.Seen, orders *override.Overrides, now time.Time) []api.Machine {
	var out []api.Machine
	met := map[*boot.Machine]bool{}
	for _, s := range seen {
		a, err := c.Assign(s.Inventory)
		m := api.Machine{Name: a.Name, MAC: s.MAC, Inventory: s.Inventory, FirstSeen: s.First, LastSeen: s.Last, Addr: s.Inventory.Addr}
		m.Ordered = ordered(orders.Get(s.MAC))
		if a.Machine != nil {
			met[a.Machine] = true
			m.Entry = a.Machine.Origin.String()
		}
		if a.Profile != nil {
			m.Profile = a.Profile.Name
		}
		if t := s.Current; t != nil {
			m.Boot, m.Stage, m.Since = t, t.Stage(), since(t)
			if miss, ok := t.Missing(now); ok {
				m.Waits = "for " + string(miss.Next)
				if now.Sub(miss.Since) > miss.Patience {
					m.Waits += ": " + miss.Reason
				}
			}
		}
		switch {
		case err != nil:
			m.Waits = err.Error()
		case a.Profile == nil && m.Boot != nil:
			m.Waits = "no entry matches it: bootd machine approve " + s.MAC.String() + " --profile PROFILE, or write one in machines/*.yaml"
		}
		out = append(out, m)
	}
	for _, e := range c.Machines {
		if met[e] {
			continue
		}
		m := api.Machine{Name: e.Name, Profile: e.Profile, Entry: e.Origin.String(), Addr: e.IP}
		if len(e.Match.MAC) > 0 {
			m.MAC = e.Match.MAC[0]
			m.Ordered = ordered(orders.Get(m.MAC))
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b api.Machine) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.MAC[:], b.MAC[:]))
	})
	return out
}

// ordered is what operators have ordered for a machine; nil if nothing.
func ordered(o override.Override) *api.Ordered {
	out := &api.Ordered{}
	if a := o.Approved; a != nil {
		out.Approved = &api.Approval{Name: a.Name, Profile: a.Profile}
	}
	if n := o.Next; n != nil {
		out.Next, out.NextBoot = n.Profile, n.Boot
	}
	if h := o.Held; h != nil {
		out.Held, out.Reason = h.Availability, h.Reason
	}
	if i := o.Install; i != nil {
		out.Install = !i.Wanted.IsZero()
	}
	if *out == (api.Ordered{}) {
		return nil
	}
	return out
}

// since is when the furthest stage was reached.
func since(t *boot.Timeline) time.Time {
	if at := reached(t, t.Stage()); !at.IsZero() {
		return at
	}
	return t.Started
}

func leaseList(all []lease.Lease, now time.Time) []api.Lease {
	var out []api.Lease
	for _, l := range all {
		state := l.State.String()
		if l.State != lease.Released && !l.Active(now) {
			state = "expired"
		}
		out = append(out, api.Lease{MAC: l.MAC, Addr: l.Addr, Network: l.Network, State: state, Expires: l.Expires, Host: l.Host})
	}
	return out
}

// past lists the events after number seq that are kept.
func past(record *timeline.Recorder, seq uint64) []api.Event {
	kept := record.Since(seq)
	out := make([]api.Event, len(kept))
	for i, e := range kept {
		out[i] = api.Event{Seq: e.Seq, Event: e.Event}
	}
	return out
}

// follow calls f with the events after number seq, those of the past first,
// until ctx ends or f fails.
func follow(ctx context.Context, record *timeline.Recorder, seq uint64, f func(api.Event) error) error {
	// Watched before the past is read, so nothing falls between.
	more, cancel := record.Watch()
	defer cancel()
	some := make([]timeline.Numbered, 64)
	for {
		for n := record.Read(seq, some); n > 0 && ctx.Err() == nil; n = record.Read(seq, some) {
			for _, e := range some[:n] {
				if err := f(api.Event{Seq: e.Seq, Event: e.Event}); err != nil {
					return err
				}
			}
			seq = some[n-1].Seq
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}
