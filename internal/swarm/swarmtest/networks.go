package swarmtest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"bootd/internal/swarm"
)

// networks are the networks of the swarm and of the manager's engine, by name.
// As with a real one, a network whose subnet is taken is made all the same, but
// without a driver and without addresses.
type networks map[string]*network

type network struct {
	swarm.NetworkState // as it is when there are addresses for it
	allocated          bool
	users              []string
}

// vxlan is an option that managers set.
const vxlan = "com.docker.network.driver.overlay.vxlanid_list"

// theirs makes the networks that an engine and a swarm begin with.
func (e *Engine) theirs() {
	if e.networks != nil {
		return
	}
	e.networks = networks{}
	for _, n := range []swarm.NetworkState{
		{Local: true, Driver: "bridge", Network: swarm.Network{Name: "bridge"}},
		{Local: true, Driver: "bridge", Network: swarm.Network{Name: "docker_gwbridge"}},
		{Ingress: true, Network: swarm.Network{Name: "ingress", Subnets: []swarm.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}}}},
	} {
		e.addNetwork(n)
	}
}

// Networks implements [swarm.Networking].
func (e *Engine) Networks(ctx context.Context) ([]swarm.NetworkState, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.manager(ctx); err != nil {
		return nil, err
	}
	e.theirs()
	var out []swarm.NetworkState
	for _, name := range slices.Sorted(maps.Keys(e.networks)) {
		n := *e.networks[name]
		n.Subnets = slices.Clone(n.Subnets)
		n.Options, n.Labels = maps.Clone(n.Options), maps.Clone(n.Labels)
		if !n.allocated {
			n.Driver, n.Subnets, n.Options, n.MTU, n.Encrypted = "", nil, nil, 0, false
		}
		out = append(out, n.NetworkState)
	}
	return out, nil
}

// CreateNetwork implements [swarm.Networking].
func (e *Engine) CreateNetwork(ctx context.Context, n swarm.Network) error {
	return e.AddNetwork(ctx, swarm.NetworkState{Network: n})
}

// AddNetwork makes a network, as somebody else might.
func (e *Engine) AddNetwork(ctx context.Context, n swarm.NetworkState) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.manager(ctx); err != nil {
		return err
	}
	e.theirs()
	if e.networks[n.Name] != nil {
		return fmt.Errorf("%w: network with name %s already exists", swarm.ErrConflict, n.Name)
	}
	e.addNetwork(n)
	return nil
}

func (e *Engine) addNetwork(n swarm.NetworkState) {
	n.ID, n.Created = e.id(), time.Now()
	n.Subnets, n.Options, n.Labels = slices.Clone(n.Subnets), maps.Clone(n.Options), maps.Clone(n.Labels)
	e.networks[n.Name] = &network{NetworkState: n, allocated: n.Local}
	e.allocate()
}

// allocate gives addresses to networks that have none, as far as possible.
func (e *Engine) allocate() {
	for _, name := range slices.Sorted(maps.Keys(e.networks)) {
		n := e.networks[name]
		if n.allocated {
			continue
		}
		if len(n.Subnets) == 0 {
			n.Subnets = []swarm.Subnet{{Prefix: e.free()}}
		}
		if slices.ContainsFunc(n.Subnets, func(s swarm.Subnet) bool { return e.taken(s.Prefix) }) {
			continue
		}
		n.allocated, n.Driver = true, "overlay"
		for i := range n.Subnets {
			if s := &n.Subnets[i]; !s.Gateway.IsValid() {
				s.Gateway = s.Prefix.Addr().Next()
			}
		}
		if n.Options == nil {
			n.Options = map[string]string{}
		}
		if n.Options[vxlan] == "" {
			n.Options[vxlan] = n.ID[len(n.ID)-4:]
		}
	}
}

// free finds a subnet in the default address pool.
func (e *Engine) free() netip.Prefix {
	p := netip.MustParsePrefix("10.0.1.0/24")
	for e.taken(p) {
		a := p.Addr().As4()
		a[2]++
		p = netip.PrefixFrom(netip.AddrFrom4(a), 24)
	}
	return p
}

func (e *Engine) taken(p netip.Prefix) bool {
	for _, n := range e.networks {
		if n.allocated && slices.ContainsFunc(n.Subnets, func(s swarm.Subnet) bool { return s.Prefix.Overlaps(p) }) {
			return true
		}
	}
	return false
}

// RemoveNetwork implements [swarm.Networking].
func (e *Engine) RemoveNetwork(ctx context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, err := e.network(ctx, id)
	switch {
	case err != nil:
		return err
	case len(n.users) > 0:
		return fmt.Errorf("%w: network %s is in use by service", swarm.ErrInUse, id)
	}
	delete(e.networks, n.Name)
	e.allocate()
	return nil
}

// NetworkUsers implements [swarm.Networking].
func (e *Engine) NetworkUsers(ctx context.Context, id string) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, err := e.network(ctx, id)
	if err != nil {
		return nil, err
	}
	return slices.Clone(n.users), nil
}

func (e *Engine) network(ctx context.Context, id string) (*network, error) {
	if err := e.manager(ctx); err != nil {
		return nil, err
	}
	for _, n := range e.networks {
		if n.ID == id {
			return n, nil
		}
	}
	return nil, swarm.ErrNoNetwork
}

// UseNetwork sets what uses a network that there is.
func (e *Engine) UseNetwork(name string, users ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.networks[name].users = users
}
