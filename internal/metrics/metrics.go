// Package metrics shows how bootd and its machines are in the form that
// Prometheus reads.
//
// Gauges are read from a [Snapshot] when somebody asks, so they cannot go
// stale; counters grow with the events of boots, which [Metrics.Event] is told.
// The labels take few values: no machine has a series of its own, and so a rack
// that reboots does not fill the monitoring. All metrics begin with bootd_.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"bootd/boot"
)

// A Snapshot is how things are at the moment.
type Snapshot struct {
	Version  string
	Machines map[boot.Stage]int // by the stage of their latest boot; "": never seen
	Late     int                // machines that wait longer than they should
	Networks []Network
	Swarms   []Swarm
	Images   []Image
	// ConfigValid is false while the files have mistakes and an older
	// configuration is in force.
	ConfigValid bool
	StoreBytes  int64  // of the embedded store; 0 with an existing cluster
	DHCPDropped uint64 // requests that were dropped unread
	// DHCPUnanswered counts requests of new machines that were not answered,
	// because more asked than took what they were offered.
	DHCPUnanswered uint64
}

// A Network is a network that is served.
type Network struct {
	Name   string
	Pool   int            // addresses to lease
	Leases map[string]int // by state
	Others int            // DHCP servers that are not bootd
}

// A Swarm is a Docker Swarm that is kept.
type Swarm struct {
	Name  string
	Ready bool
	Lost  bool // and not made anew until somebody says so
	Nodes []Nodes
	Tasks int // running
	Counters
}

// Nodes counts the nodes of a swarm that are alike.
type Nodes struct {
	State, Role, Availability string
	Booted                    bool // by bootd
	Count                     int
}

// Counters count what was done to a swarm since bootd was started.
type Counters struct {
	Removals  map[string]uint64 // nodes removed, by reason
	Rotations uint64            // of the join tokens
	Drains    uint64            // of nodes that were shut down
	DrainTime time.Duration     // that those took, added up
}

// An Image is an image that a profile names.
type Image struct {
	Name  string
	There bool
}

// Metrics are the metrics of one server. Methods may be called from any
// goroutine.
type Metrics struct {
	registry *prometheus.Registry
	events   *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	boots    *prometheus.HistogramVec
}

// buckets are for the time from power-on, in seconds: firmware alone takes
// seconds, a rack that shares one cable minutes.
var buckets = []float64{5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200}

// New returns metrics that are read with read, which is called at each scrape.
func New(read func() Snapshot) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bootd_boot_events_total",
			Help: "What machines did at boot, by stage and by the program that did it."}, []string{"stage", "client"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bootd_boot_sent_bytes_total",
			Help: "Bytes of boot files that machines have fetched whole, by stage."}, []string{"stage"}),
		boots: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "bootd_boot_duration_seconds",
			Help: "Time from a machine's first packet, or its power button, until its boot came to a stage.", Buckets: buckets}, []string{"stage"}),
	}
	m.registry.MustRegister(m.events, m.bytes, m.boots, &reader{read},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Event counts an event of a boot. Only the stages and clients that package
// boot knows are counted.
func (m *Metrics) Event(e boot.Event) {
	m.events.WithLabelValues(string(e.Stage), string(e.Client)).Inc()
	if e.Bytes > 0 {
		m.bytes.WithLabelValues(string(e.Stage)).Add(float64(e.Bytes))
	}
}

// Reached notes how long after its beginning a boot came to a stage.
func (m *Metrics) Reached(s boot.Stage, after time.Duration) {
	m.boots.WithLabelValues(string(s)).Observe(after.Seconds())
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// A reader collects what a Snapshot says.
type reader struct{ read func() Snapshot }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("bootd_"+name, help, labels, nil)
}

var (
	info          = desc("build_info", "Which bootd this is; always 1.", "version")
	configValid   = desc("config_valid", "0 while the configuration files have mistakes and an older one is in force.")
	machines      = desc("machines", "Machines by the stage that their latest boot has come to.", "stage")
	late          = desc("machines_late", "Machines that have waited for their next stage longer than usual.")
	pool          = desc("dhcp_pool_addresses", "Addresses that can be leased.", "network")
	others        = desc("dhcp_other_servers", "DHCP servers beside bootd, where there should be none.", "network")
	leases        = desc("dhcp_leases", "Leases by state.", "network", "state")
	dropped       = desc("dhcp_dropped_total", "DHCP requests that were dropped unread, because more came than could be answered.")
	unanswered    = desc("dhcp_unanswered_total", "DHCP requests of new machines that were not answered, because more asked than took what they were offered.")
	images        = desc("image_available", "1 if an image that a profile names is there.", "image")
	storeBytes    = desc("store_bytes", "Size of the embedded store.")
	swarmReady    = desc("swarm_ready", "1 if the swarm can be managed.", "swarm")
	swarmLost     = desc("swarm_lost", "1 if the engine has lost the swarm: see bootd swarm replace.", "swarm")
	swarmNodes    = desc("swarm_nodes", "Nodes of the swarm.", "swarm", "state", "role", "availability", "booted")
	swarmTasks    = desc("swarm_tasks", "Running tasks of the swarm.", "swarm")
	swarmRemovals = desc("swarm_removals_total", "Nodes removed from the swarm, by reason.", "swarm", "reason")
	swarmRotation = desc("swarm_token_rotations_total", "Rotations of the join tokens.", "swarm")
	swarmDrains   = desc("swarm_drain_seconds", "Time that nodes being shut down were waited for until their tasks ran elsewhere.", "swarm")
)

// Describe implements [prometheus.Collector].
func (r *reader) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{info, configValid, machines, late, pool, others, leases, dropped, unanswered, images, storeBytes,
		swarmReady, swarmLost, swarmNodes, swarmTasks, swarmRemovals, swarmRotation, swarmDrains} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (r *reader) Collect(ch chan<- prometheus.Metric) {
	s := r.read()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(info, 1, s.Version)
	gauge(configValid, truth(s.ConfigValid))
	for stage, n := range s.Machines {
		name := string(stage)
		if name == "" {
			name = "never seen"
		}
		gauge(machines, float64(n), name)
	}
	gauge(late, float64(s.Late))
	gauge(storeBytes, float64(s.StoreBytes))
	counter(dropped, float64(s.DHCPDropped))
	counter(unanswered, float64(s.DHCPUnanswered))
	for _, n := range s.Networks {
		gauge(pool, float64(n.Pool), n.Name)
		gauge(others, float64(n.Others), n.Name)
		for state, count := range n.Leases {
			gauge(leases, float64(count), n.Name, state)
		}
	}
	for _, i := range s.Images {
		gauge(images, truth(i.There), i.Name)
	}
	for _, w := range s.Swarms {
		gauge(swarmReady, truth(w.Ready), w.Name)
		gauge(swarmLost, truth(w.Lost), w.Name)
		gauge(swarmTasks, float64(w.Tasks), w.Name)
		for _, n := range w.Nodes {
			booted := "false"
			if n.Booted {
				booted = "true"
			}
			gauge(swarmNodes, float64(n.Count), w.Name, n.State, n.Role, n.Availability, booted)
		}
		for reason, n := range w.Removals {
			counter(swarmRemovals, float64(n), w.Name, reason)
		}
		counter(swarmRotation, float64(w.Rotations), w.Name)
		ch <- prometheus.MustNewConstSummary(swarmDrains, w.Drains, w.DrainTime.Seconds(), nil, w.Name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
