package metrics_test

import (
	"io"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/metrics"
)

// scrape returns bootd's own lines, without their help.
func scrape(t *testing.T, m *metrics.Metrics) []string {
	t.Helper()
	server := httptest.NewServer(m.Handler())
	defer server.Close()
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("status %d, error %v:\n%s", resp.StatusCode, err, b)
	}
	var own []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "bootd_") && !strings.Contains(line, "_bucket{") {
			own = append(own, strings.TrimSuffix(line, "\n"))
		}
	}
	if !strings.Contains(string(b), "\ngo_goroutines ") || !strings.Contains(string(b), "\nprocess_open_fds ") {
		t.Error("the Go runtime or the process is not in it")
	}
	return own
}

func TestScrape(t *testing.T) {
	now := metrics.Snapshot{
		Version: "1.2", ConfigValid: true, Late: 1, StoreBytes: 4096, DHCPDropped: 7, DHCPUnanswered: 9,
		Machines: map[boot.Stage]int{boot.Ready: 2, "": 1},
		Networks: []metrics.Network{{Name: "rack", Pool: 151, Leases: map[string]int{"bound": 3}}},
		Images:   []metrics.Image{{Name: "lab/debian", There: true}, {Name: "flatcar/stable"}},
		Swarms: []metrics.Swarm{{Name: "blue", Ready: true, Tasks: 5,
			Nodes: []metrics.Nodes{
				{State: "ready", Role: "worker", Availability: "active", Booted: true, Count: 2},
				{State: "ready", Role: "manager", Availability: "drain", Count: 1},
			},
			Counters: metrics.Counters{Removals: map[string]uint64{"left": 4}, Rotations: 2, Drains: 4, DrainTime: 10 * time.Second}}},
	}
	m := metrics.New(func() metrics.Snapshot { return now })
	m.Event(boot.Event{Stage: boot.Kernel, Client: boot.IPXE, Bytes: 1 << 20})
	m.Event(boot.Event{Stage: boot.Kernel, Client: boot.IPXE, Bytes: 1 << 20})
	m.Event(boot.Event{Stage: boot.Removed})
	m.Reached(boot.Ready, 90*time.Second)
	want := []string{
		`bootd_boot_duration_seconds_sum{stage="ready"} 90`,
		`bootd_boot_duration_seconds_count{stage="ready"} 1`,
		`bootd_boot_events_total{client="",stage="removed"} 1`,
		`bootd_boot_events_total{client="iPXE",stage="kernel"} 2`,
		`bootd_boot_sent_bytes_total{stage="kernel"} 2.097152e+06`,
		`bootd_build_info{version="1.2"} 1`,
		`bootd_config_valid 1`,
		`bootd_dhcp_dropped_total 7`,
		`bootd_dhcp_leases{network="rack",state="bound"} 3`,
		`bootd_dhcp_other_servers{network="rack"} 0`,
		`bootd_dhcp_pool_addresses{network="rack"} 151`,
		`bootd_dhcp_unanswered_total 9`,
		`bootd_image_available{image="flatcar/stable"} 0`,
		`bootd_image_available{image="lab/debian"} 1`,
		`bootd_machines{stage="never seen"} 1`,
		`bootd_machines{stage="ready"} 2`,
		`bootd_machines_late 1`,
		`bootd_store_bytes 4096`,
		`bootd_swarm_drain_seconds_sum{swarm="blue"} 10`,
		`bootd_swarm_drain_seconds_count{swarm="blue"} 4`,
		`bootd_swarm_lost{swarm="blue"} 0`,
		`bootd_swarm_nodes{availability="active",booted="true",role="worker",state="ready",swarm="blue"} 2`,
		`bootd_swarm_nodes{availability="drain",booted="false",role="manager",state="ready",swarm="blue"} 1`,
		`bootd_swarm_ready{swarm="blue"} 1`,
		`bootd_swarm_removals_total{reason="left",swarm="blue"} 4`,
		`bootd_swarm_tasks{swarm="blue"} 5`,
		`bootd_swarm_token_rotations_total{swarm="blue"} 2`,
	}
	if d := cmp.Diff(want, scrape(t, m)); d != "" {
		t.Error(d)
	}
	now = metrics.Snapshot{}
	for _, line := range scrape(t, m) {
		if regexp.MustCompile(`rack|blue`).MatchString(line) {
			t.Errorf("what is gone is still shown: %s", line)
		}
	}
}
