package main

import (
	"context"
	"net/http"
	"net/http/pprof"
	"slices"
	"time"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/boot/lease"
	"bootd/internal/api"
	"bootd/internal/metrics"
	"bootd/internal/store"
	"bootd/internal/swarm"
	"bootd/internal/timeline"
)

// measured is what metrics are read from.
type measured struct {
	live   *live
	record *timeline.Recorder
	leases *lease.Table
	store  *store.Store
	dhcp   *dhcp.Server
	others *dhcp.Lookout
	swarms *swarms
}

// snapshot reads everything once.
func (m measured) snapshot() metrics.Snapshot {
	now := time.Now()
	m.live.mu.Lock()
	valid := m.live.problem == nil
	m.live.mu.Unlock()
	c := m.live.catalog()
	s := metrics.Snapshot{Version: thisBuild().Version, ConfigValid: valid, StoreBytes: m.store.Size(), DHCPDropped: m.dhcp.Dropped(), DHCPUnanswered: m.dhcp.Unanswered(),
		Machines: map[boot.Stage]int{}}
	for _, seen := range m.record.Machines() {
		if seen.Current == nil {
			s.Machines[""]++
			continue
		}
		s.Machines[seen.Current.Stage()]++
		if miss, ok := seen.Current.Missing(now); ok && now.Sub(miss.Since) > miss.Patience {
			s.Late++
		}
	}
	states := map[string]map[string]int{}
	for _, l := range leaseList(m.leases.All(), now) {
		if states[l.Network] == nil {
			states[l.Network] = map[string]int{}
		}
		states[l.Network][l.State]++
	}
	for _, n := range c.Networks {
		pool := 0
		for _, r := range n.Ranges {
			pool += r.Size()
		}
		others := 0
		for _, o := range m.others.Others() {
			if o.Interface == n.Interface && n.Mode == boot.Authoritative && !n.Relayed {
				others++
			}
		}
		s.Networks = append(s.Networks, metrics.Network{Name: n.Name, Pool: pool, Leases: states[n.Name], Others: others})
	}
	kept, _ := m.swarms.all("") // none is no error here
	for _, k := range kept {
		s.Swarms = append(s.Swarms, swarmMetrics(k))
	}
	for _, name := range imageNames(m.live.config()) {
		_, there := c.Image(name, "")
		s.Images = append(s.Images, metrics.Image{Name: name, There: there})
	}
	return s
}

// swarmMetrics counts a swarm's nodes. An engine that does not answer soon has
// none.
func swarmMetrics(k *keptSwarm) metrics.Swarm {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	nodes, err := k.Nodes(ctx)
	done := k.Counters()
	out := metrics.Swarm{Name: k.made.Name, Ready: err == nil, Lost: k.Status().Phase == swarm.Lost, Counters: metrics.Counters(done)}
	for _, n := range nodes {
		out.Tasks += n.Tasks
		like := metrics.Nodes{State: string(n.State), Role: string(n.Role), Availability: string(n.Availability), Booted: !n.MAC.IsZero()}
		i := slices.IndexFunc(out.Nodes, func(o metrics.Nodes) bool { o.Count = 0; return o == like })
		if i < 0 {
			i = len(out.Nodes)
			out.Nodes = append(out.Nodes, like)
		}
		out.Nodes[i].Count++
	}
	return out
}

// A counter counts the events of boots.
type counter struct {
	record  *timeline.Recorder
	metrics *metrics.Metrics
}

func (c counter) String() string { return "metrics" }

// Run counts until ctx ends.
func (c counter) Run(ctx context.Context) error {
	return follow(ctx, c.record, 0, func(e api.Event) error {
		c.metrics.Event(e.Event)
		if e.Stage != boot.Up && e.Stage != boot.Ready {
			return nil
		}
		t, ok := c.record.Current(e.MAC)
		if at := reached(&t, e.Stage); ok && at.Equal(e.Time) { // the first time in this boot
			c.metrics.Reached(e.Stage, at.Sub(t.Started))
		}
		return nil
	})
}

// reached is when a stage was first reached in a boot; zero if never.
func reached(t *boot.Timeline, s boot.Stage) time.Time {
	for _, step := range t.Steps {
		if step.Stage == s {
			return step.First
		}
	}
	return time.Time{}
}

// operatorRoutes are all that operators can ask for at the socket: the API,
// metrics, and the profiles of the process.
func operatorRoutes(operators http.Handler, m *metrics.Metrics) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", operators)
	mux.Handle("GET /metrics", m.Handler())
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
