package swarm_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"bootd/internal/swarm"
	"bootd/internal/swarm/dockertest"
)

// A swarm that is made with address pools has networks that work: an engine
// that was not told the size of their subnets takes the pools, and then gives
// no network an address.
func TestRealAddressPools(t *testing.T) {
	for _, pool := range []string{"10.240.0.0/12", "10.66.0.0/26"} {
		t.Run(pool, func(t *testing.T) {
			m := dockertest.New(t).Engine("manager")
			e := swarm.DockerEngine(t, m.Host)
			prefix := netip.MustParsePrefix(pool)
			if err := e.Init(t.Context(), swarm.Init{Advertise: m.Addr, AddressPools: []netip.Prefix{prefix}}); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
				list, err := e.Networks(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				i := slices.IndexFunc(list, func(n swarm.NetworkState) bool { return n.Name == "ingress" })
				if i >= 0 && len(list[i].Subnets) == 1 && prefix.Overlaps(list[i].Subnets[0].Prefix) {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("no network with addresses of %s: %+v", pool, list)
				}
			}
		})
	}
}
