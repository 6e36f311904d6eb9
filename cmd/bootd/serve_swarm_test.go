package main

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/override"
	"bootd/internal/swarm"
	"bootd/internal/timeline"
)

func TestAddressPool(t *testing.T) {
	for _, tt := range []struct {
		subnets []string
		want    string // empty: Docker's own
	}{
		{nil, ""},
		{[]string{"192.168.1.0/24"}, ""},
		{[]string{"10.0.0.0/24"}, "10.240.0.0/12"},
		{[]string{"10.0.0.0/24", "10.250.1.0/24"}, "10.224.0.0/12"},
		{[]string{"10.0.0.0/8"}, ""},
	} {
		var networks []boot.Network
		for _, s := range tt.subnets {
			networks = append(networks, boot.Network{Subnet: netip.MustParsePrefix(s)})
		}
		var want []netip.Prefix
		if tt.want != "" {
			want = []netip.Prefix{netip.MustParsePrefix(tt.want)}
		}
		got := addressPool(networks)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%v: %s", tt.subnets, diff)
		}
	}
}

// TestMember: a node that left and joined again within one boot is neither
// leaving nor ready yet.
func TestMember(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	mac := boot.MAC{2, 0, 0, 0, 0, 1}
	a := boot.Assignment{Name: "node1", Profile: &boot.Profile{Name: "w", Swarm: &boot.Member{Availability: "active"}}}
	tl := &boot.Timeline{ID: "b", MAC: mac, Started: t0}
	for i, tt := range []struct {
		stage       boot.Stage
		left, ready bool
	}{
		{boot.Joined, false, false}, {boot.Ready, false, true}, {boot.Left, true, true},
		{boot.Joined, false, false}, {boot.Ready, false, true}, {boot.Left, true, true},
	} {
		tl.Apply(boot.Event{Time: t0.Add(time.Duration(i+1) * time.Minute), MAC: mac, Stage: tt.stage, Client: boot.System, Node: "n"})
		m := member(a, timeline.Seen{MAC: mac, Current: tl}, nil)
		if m.Left != tt.left || m.Ready != tt.ready || m.Name != "node1" || m.NodeID != "n" || m.Availability != swarm.Active {
			t.Errorf("step %d, %s: %+v, want left %v, ready %v", i, tt.stage, m, tt.left, tt.ready)
		}
	}
	if m := member(a, timeline.Seen{MAC: mac, Current: tl}, &override.Hold{Availability: "drain"}); m.Availability != swarm.Drain {
		t.Errorf("an operator's order does not stand above the profile: %+v", m)
	}
}
