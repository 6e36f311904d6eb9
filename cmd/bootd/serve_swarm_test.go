package main

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
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

// TestMembers: a node that left and joined again within one boot is neither
// leaving nor ready yet.
func TestMembers(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	mac := boot.MAC{2, 0, 0, 0, 0, 1}
	c, err := boot.NewCatalog(boot.Catalog{
		Profiles: map[string]*boot.Profile{"w": {Name: "w", Swarm: &boot.Member{}}},
		Machines: []*boot.Machine{{Name: "node1", Match: boot.Selector{MAC: []boot.MAC{mac}}, Profile: "w"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tl := &boot.Timeline{ID: "b", MAC: mac, Started: t0}
	for i, tt := range []struct {
		stage       boot.Stage
		left, ready bool
	}{
		{boot.Joined, false, false}, {boot.Ready, false, true}, {boot.Left, true, true},
		{boot.Joined, false, false}, {boot.Ready, false, true}, {boot.Left, true, true},
	} {
		tl.Apply(boot.Event{Time: t0.Add(time.Duration(i+1) * time.Minute), MAC: mac, Stage: tt.stage, Client: boot.System, Node: "n"})
		m := members(c, []timeline.Seen{{MAC: mac, Inventory: boot.Inventory{MAC: mac}, Current: tl}})
		if len(m) != 1 || m[0].Left != tt.left || m[0].Ready != tt.ready {
			t.Errorf("step %d, %s: %+v, want left %v, ready %v", i, tt.stage, m, tt.left, tt.ready)
		}
	}
}
