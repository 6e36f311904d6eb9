package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
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
