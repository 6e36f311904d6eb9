package swarm

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"bootd/boot"
)

// labelPromoted marks a node that manages in place of a manager that is lost,
// though its machine's profile makes it a worker.
const labelPromoted = LabelPrefix + "promoted"

// electorate decides which machines' nodes manage the swarm beside those whose
// profiles say so, when so many managers are asked for: promote and demote are
// IDs of nodes. There is one change at a time, because each changes the quorum.
type electorate struct {
	promote, demote string
	why             string
}

// An engine that is promoted asks some manager for another certificate. When that
// one has just been lost, or does not know of the promotion yet, the engine waits
// for up to 65 seconds before it asks again, then for up to twice as long, and so
// on (swarmkit's ca.TLSRenewer). It asks at once when its role is changed again.
const (
	// promotionLimit is how long that may take before it is begun anew.
	promotionLimit = time.Minute
	// promotionPause is how long a node stays a worker in between: long enough
	// for it to notice.
	promotionPause = 5 * time.Second
)

// stalled reports whether a node was promoted and does not become a manager.
func (p *planner) stalled(n *Node) bool {
	since := n.RoleSince
	if since.IsZero() {
		since = n.Seen
	}
	return n.Role == boot.Manager && !n.Manager && n.State == NodeReady && p.now.Sub(since) > promotionLimit
}

// demotedJustNow reports whether a node may not have noticed yet that it is a
// worker.
func (p *planner) demotedJustNow(n *Node) bool {
	return n.Role == boot.Worker && !n.RoleSince.IsZero() && p.now.Sub(n.RoleSince) < promotionPause
}

// elect makes an electorate. Only machines' nodes that are ready and take tasks
// are promoted: those whose label "rack" has no manager yet before others, then
// by name. Those that were promoted are demoted again when there are more
// managers than asked for, the latest name first.
func (p *planner) elect() electorate {
	if p.policy.Managers <= 0 {
		return electorate{}
	}
	healthy := 0
	racks := map[string]int{}
	var able, promoted []*Node
	for i := range p.nodes {
		n := &p.nodes[i]
		m := p.machineOf(n)
		switch {
		case p.stalled(n): // another one, or the same again
		case n.Role == boot.Manager && n.Manager && n.Reachable && n.State == NodeReady:
			healthy++
			racks[n.Labels["rack"]]++
			if m != nil && roleOf(m) == boot.Worker && n.Labels[labelPromoted] != "" {
				promoted = append(promoted, n)
			}
		case n.Role == boot.Manager && (n.State == NodeReady || n.State == NodeUnknown && n.Reachable):
			return electorate{} // it is becoming one, or a new leader has not heard of it yet: wait and see
		case m != nil && roleOf(m) == boot.Manager && n.State == NodeReady:
			healthy++ // about to be promoted by its own profile
		case p.demotedJustNow(n):
		case m != nil && n.State == NodeReady && n.Availability == Active && !n.Manager:
			able = append(able, n)
		}
	}
	switch {
	case healthy < p.policy.Managers && len(able) > 0:
		best := slices.MinFunc(able, func(a, b *Node) int {
			return cmp.Or(cmp.Compare(racks[a.Labels["rack"]], racks[b.Labels["rack"]]), cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.ID, b.ID))
		})
		return electorate{promote: best.ID, why: fmt.Sprintf("promoted: %d of %d managers are there", healthy, p.policy.Managers)}
	case healthy > p.policy.Managers && len(promoted) > 0:
		last := slices.MaxFunc(promoted, func(a, b *Node) int {
			return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.ID, b.ID))
		})
		return electorate{demote: last.ID}
	}
	return electorate{}
}

// machineOf is the machine that a node is now, beyond doubt and staying; nil if
// there is none.
func (p *planner) machineOf(n *Node) *Machine {
	mac, owned := n.owner()
	if !owned || n.ID == p.policy.Self {
		return nil
	}
	m := p.byMAC[mac]
	if m == nil || m.NodeID != n.ID || m.Left {
		return nil
	}
	return m
}

// roleFor is what a node should be as the machine m.
func (p *planner) roleFor(n *Node, m *Machine) boot.Role {
	switch {
	case p.stalled(n), p.demotedJustNow(n):
		return boot.Worker
	case roleOf(m) == boot.Manager, n.ID == p.elected.promote:
		return boot.Manager
	case n.Labels[labelPromoted] != "" && n.ID != p.elected.demote && p.policy.Managers > 0:
		return boot.Manager
	}
	return boot.Worker
}
