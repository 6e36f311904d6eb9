package swarm

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// networkTick is between two looks at the networks when nothing has been
// declared anew. What failed is tried again then.
const networkTick = 10 * time.Second

// Networking is the list of networks, as far as a manager's engine knows them.
type Networking interface {
	// Networks lists all networks, also those of the engine alone.
	Networks(ctx context.Context) ([]NetworkState, error)
	// CreateNetwork makes an overlay network. That it has been made does not
	// mean that there are addresses for it: see [NetworkState]. It is an
	// [ErrConflict] when there is one of that name.
	CreateNetwork(ctx context.Context, n Network) error
	// RemoveNetwork removes a network that nothing uses. It is an [ErrInUse]
	// when something does, and an [ErrNoNetwork] when there is none.
	RemoveNetwork(ctx context.Context, id string) error
	// NetworkUsers names what uses a network, as far as the engine can tell.
	NetworkUsers(ctx context.Context, id string) ([]string, error)
}

// What the errors of Networking can be asked for, beside [ErrConflict].
var (
	ErrInUse     = errors.New("the network is in use")
	ErrNoNetwork = errors.New("there is no such network")
)

// A networkKeeper is what is known of the networks between two looks.
type networkKeeper struct {
	nudged chan struct{} // holds one wish to see whether something is declared anew

	mu      sync.Mutex
	notices []string
}

func (k *networkKeeper) nudge() {
	select {
	case k.nudged <- struct{}{}:
	default:
	}
}

// said returns the notices.
func (k *networkKeeper) said() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.notices
}

// keepNetworks keeps the networks as they are declared until ctx ends. It goes
// its own way, so that no node waits for a network.
func (s *Swarm) keepNetworks(ctx context.Context) {
	tick := time.NewTicker(networkTick)
	defer tick.Stop()
	var done []Network // what was declared at the last look; nil: there was none
	for {
		want, known := s.cfg.Networks()
		want = append([]Network{}, want...)
		if ready := s.Status().Phase == Ready; ready && known && (done == nil || !reflect.DeepEqual(want, done)) {
			s.lookAtNetworks(ctx, want)
			done = want
		}
		select {
		case <-ctx.Done():
			return
		case <-s.networks.nudged:
		case <-tick.C:
			done = nil
		}
	}
}

// lookAtNetworks looks at the networks and does what there is to do. Killed in
// between, the next look shows what is left.
func (s *Swarm) lookAtNetworks(ctx context.Context, want []Network) {
	const most = 3 // removing one network may make room for others
	for pass := range most {
		have, err := call(ctx, s.engine.Networks)
		if err != nil {
			// That the engine does not answer is told by the look at the nodes.
			s.log.Debug("the networks cannot be listed", "err", err)
			return
		}
		s.mu.Lock()
		now := time.Now().Add(s.skew)
		s.mu.Unlock()
		var notices []string
		again := false
		for _, a := range planNetworks(want, have, now) {
			if ctx.Err() != nil {
				return
			}
			removed, notice := s.carryOutNetwork(ctx, a)
			again = again || removed
			if notice != "" {
				notices = append(notices, notice)
			}
		}
		if !again || pass == most-1 {
			s.tellNetworks(notices)
			return
		}
	}
}

// carryOutNetwork does one thing. It reports whether a network was removed, and
// what people should know.
func (s *Swarm) carryOutNetwork(ctx context.Context, a networkAction) (removed bool, notice string) {
	switch a := a.(type) {
	case createNetwork:
		return false, s.makeNetwork(ctx, a.Network)
	case removeNetwork:
		if why := s.dropNetwork(ctx, a.ID); why != "" {
			return false, fmt.Sprintf("network %s is not declared any more, but cannot be removed: %s", a.Name, why)
		}
		s.log.Info("network removed", "overlay", a.Name, "reason", "it is not declared any more")
		return true, ""
	case replaceNetwork:
		diff := strings.Join(a.Why, ", ")
		if why := s.dropNetwork(ctx, a.ID); why != "" {
			return false, fmt.Sprintf("network %s is not as declared (%s); it has to be made anew, but cannot be removed: %s", a.Name, diff, why)
		}
		s.log.Info("network removed", "overlay", a.Name, "reason", "it is to be made anew: "+diff)
		return true, s.makeNetwork(ctx, a.Network)
	case keepNetwork:
		return false, "network " + a.Name + ": " + a.Why
	}
	return false, ""
}

// makeNetwork returns why it cannot.
func (s *Swarm) makeNetwork(ctx context.Context, n Network) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	switch err := s.engine.CreateNetwork(ctx, n.marked()); {
	case errors.Is(err, ErrConflict):
		return "" // made meanwhile: the next look shows by whom
	case err != nil:
		return fmt.Sprintf("cannot make network %s: %s", n.Name, printable(err.Error(), 300))
	}
	s.log.Info("network made", "overlay", n.Name, "subnets", formatSubnets(n.Subnets))
	return ""
}

// dropNetwork removes a network and returns why it cannot.
func (s *Swarm) dropNetwork(ctx context.Context, id string) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.engine.RemoveNetwork(ctx, id)
	switch {
	case err == nil, errors.Is(err, ErrNoNetwork):
		return ""
	case !errors.Is(err, ErrInUse):
		return printable(err.Error(), 300)
	}
	users, usersErr := s.engine.NetworkUsers(ctx, id)
	if usersErr != nil || len(users) == 0 {
		return printable(err.Error(), 300) + "; take it out of what uses it, and bootd goes on"
	}
	const most = 5
	if more := len(users) - most; more > 0 {
		users = append(slices.Clone(users[:most]), fmt.Sprintf("%d more", more))
	}
	return "it is in use by " + strings.Join(users, ", ") + "; take it out of them (docker service update --network-rm), and bootd goes on"
}

// tellNetworks shows the notices in the status and logs those that are new.
func (s *Swarm) tellNetworks(notices []string) {
	s.networks.mu.Lock()
	told := s.networks.notices
	s.networks.notices = notices
	s.networks.mu.Unlock()
	for _, n := range notices {
		if !slices.Contains(told, n) {
			s.log.Warn("swarm is not as it should be", "reason", n)
		}
	}
}
