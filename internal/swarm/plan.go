package swarm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"bootd/boot"
)

// A Machine is what bootd knows of a machine that is to be a node.
type Machine struct {
	MAC  boot.MAC
	Name string

	// Of its latest boot.
	BootID  string
	Started time.Time // when that boot began
	NodeID  string    // as the node reported, showing the boot's ticket; empty: not yet
	Left    bool      // it reported that it has left the swarm
	Ready   bool      // its Ready event has been recorded

	// What it is to be.
	Role   boot.Role // worker when empty
	Labels map[string]string
	// Availability is kept when it is set. When it is empty the node becomes
	// active once it has its labels, and is afterwards left as people set it.
	Availability Availability
}

// A Policy says how the swarm is kept.
type Policy struct {
	// Grace is how long a node may be down before it is removed.
	Grace time.Duration
	// Self is the ID of the engine's own node, which is no machine of bootd's
	// and is never changed but for its availability.
	Self             string
	SelfAvailability Availability // empty: as it is
	// RemoveStrangers has nodes that are no machines of bootd's removed as well,
	// once they have been down for longer than Grace.
	RemoveStrangers bool
	// Wishes are what is wanted of nodes that are no machines of bootd's, by
	// host name.
	Wishes map[string]Wish
	// Managers is how many managers there should be, the engine's own node among
	// them; machines' workers are promoted in place of those that are lost. 0:
	// as the machines say.
	Managers int
}

// An Action is something to be done to a node, or to be said about it: a [Set],
// [Remove], [Report] or [Keep].
type Action interface{ action() }

// Set changes what is wanted of a node, all in one update.
type Set struct {
	Node    string
	Version uint64
	Spec    Spec
	MAC     boot.MAC // zero: the engine's own node
	Why     string
}

// Remove makes the swarm forget a node that is down.
type Remove struct {
	Node     string
	Hostname string
	MAC      boot.MAC
	Reason   string
}

// Report tells that a machine's node is ready, with its labels set.
type Report struct {
	Node   string
	MAC    boot.MAC
	BootID string
	Text   string
}

// Keep tells that a node is left as it is though it should not be, and why.
type Keep struct {
	Node string
	Why  string // with the remedy
}

func (Set) action()    {}
func (Remove) action() {}
func (Report) action() {}
func (Keep) action()   {}

// bootSlack is how much earlier than the boot that it reports a node may have
// joined: the clocks of bootd and of the swarm's leader may differ so much.
const bootSlack = time.Minute

// unheard is how long a node that has joined may take to show itself. One that lost
// its power in between has no name, and does not even go down for the swarm,
// which has not seen it up, until another leader comes.
const unheard = time.Minute

// Plan decides what to do, in the order in which it should be done. When
// everything is as it should be, nothing is. The times of nodes and now are by
// one clock; those of machines may differ a little.
//
// A node is a machine's if it carries bootd's label, or if the machine reports
// its ID and it joined during that machine's boot. Host names do not count.
// All other nodes are left alone.
//
// Nodes that are not down are never removed, and managers only after being
// demoted, one at a time and only if the others can still decide.
func Plan(machines []Machine, nodes []Node, policy Policy, now time.Time) []Action {
	p := newPlanner(machines, nodes, policy, now)
	p.elected = p.elect()
	for i := range p.nodes {
		p.node(&p.nodes[i])
	}
	return p.actions
}

type planner struct {
	policy  Policy
	now     time.Time
	nodes   []Node                // by ID
	ids     map[string]*Node      //
	byMAC   map[boot.MAC]*Machine // the latest boot of each
	claims  map[string][]*Machine // node ID to those that report it
	demoted bool                  // a demotion is under way: no further one
	elected electorate
	actions []Action
}

func newPlanner(machines []Machine, nodes []Node, policy Policy, now time.Time) *planner {
	p := &planner{
		policy: policy, now: now,
		nodes: slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return cmp.Compare(a.ID, b.ID) }),
		ids:   map[string]*Node{}, byMAC: map[boot.MAC]*Machine{}, claims: map[string][]*Machine{},
	}
	for i := range p.nodes {
		n := &p.nodes[i]
		p.ids[n.ID] = n
		p.demoted = p.demoted || n.Manager && n.Role != boot.Manager
	}
	for i := range machines {
		m := &machines[i]
		if old := p.byMAC[m.MAC]; !m.MAC.IsZero() && (old == nil || !m.Started.Before(old.Started)) {
			p.byMAC[m.MAC] = m
		}
	}
	for i := range machines {
		if m := &machines[i]; m.NodeID != "" && p.byMAC[m.MAC] == m {
			p.claims[m.NodeID] = append(p.claims[m.NodeID], m)
		}
	}
	return p
}

func (p *planner) add(a Action) { p.actions = append(p.actions, a) }

func (p *planner) keep(n *Node, format string, args ...any) {
	p.add(Keep{n.ID, fmt.Sprintf(format, args...)})
}

// node decides about one node.
func (p *planner) node(n *Node) {
	claims := p.claims[n.ID]
	if n.ID == p.policy.Self {
		for _, m := range claims {
			p.keep(n, "machine %s (%s) reports the ID of the manager's own node; look at what runs on it", m.Name, m.MAC)
		}
		p.self(n)
		return
	}
	mac, owned := n.owner()
	if !owned {
		if m := p.adopted(n, claims); m != nil {
			p.current(n, m)
		} else if len(claims) == 0 {
			p.stranger(n)
		}
		return
	}
	for _, m := range claims {
		if m.MAC != mac {
			p.keep(n, "machine %s (%s) reports the ID of a node that is machine %s; look at what runs on it", m.Name, m.MAC, mac)
		}
	}
	m := p.byMAC[mac]
	switch {
	case n.State == NodeDown:
		p.down(n, m, mac)
	case m != nil && (m.NodeID == n.ID || m.NodeID == ""):
		p.current(n, m)
	case n.Labels[labelRemove] != "":
		// It came back between its demotion and its removal.
		s := n.Spec
		s.Labels = maps.Clone(n.Labels)
		delete(s.Labels, labelRemove)
		p.add(Set{n.ID, n.Version, s, mac, "not down any more"})
	}
}

// adopted returns the machine that a node without bootd's label is, if it is
// beyond doubt.
func (p *planner) adopted(n *Node, claims []*Machine) *Machine {
	switch {
	case len(claims) == 0:
		return nil
	case len(claims) > 1:
		p.keep(n, "machines %s (%s) and %s (%s) both report this node's ID; look at what runs on them",
			claims[0].Name, claims[0].MAC, claims[1].Name, claims[1].MAC)
		return nil
	}
	m := claims[0]
	if n.Created.Before(m.Started.Add(-bootSlack)) {
		p.keep(n, "machine %s (%s) reports this node's ID, but the node joined before that machine booted; "+
			"if it is right, remove the node and boot the machine again", m.Name, m.MAC)
		return nil
	}
	return m
}

// current decides about the node that a machine is now.
func (p *planner) current(n *Node, m *Machine) {
	if m.Left && m.NodeID == n.ID && n.State != NodeDown {
		p.leaving(n, m)
		return
	}
	s := p.spec(n, m)
	if !s.equal(n.Spec) {
		why := "as configured for " + m.Name
		switch {
		case n.ID == p.elected.promote:
			why = p.elected.why
		case p.stalled(n):
			why = fmt.Sprintf("promoted, and no manager after %s: once more", promotionLimit)
		}
		p.add(Set{n.ID, n.Version, s, m.MAC, why})
		return
	}
	wanted := p.roleFor(n, m)
	if n.State != NodeReady || m.NodeID != n.ID || m.Ready || m.BootID == "" || wanted == boot.Manager && !n.Reachable {
		return
	}
	text := "node " + n.ID + " ready"
	if l := userLabels(m.Labels); len(l) > 0 {
		text += ", labels " + describeLabels(l)
	}
	p.add(Report{n.ID, m.MAC, m.BootID, text})
}

// leaving decides about a node whose machine is being shut down: its tasks are
// moved away as long as it is there.
func (p *planner) leaving(n *Node, m *Machine) {
	s := n.Spec
	s.Availability = Drain
	if _, owned := n.owner(); !owned {
		s.Labels = labelsFor(*m, *n) // so that it is known for the machine's when it is down
	}
	if s.equal(n.Spec) {
		return
	}
	p.add(Set{n.ID, n.Version, s, m.MAC, m.Name + " is being shut down"})
}

// stranger decides about a node that is no machine of bootd's.
func (p *planner) stranger(n *Node) {
	s := p.wished(n)
	switch silent := p.now.Sub(n.DownSince); {
	case n.Hostname == "" && n.State != NodeReady && n.Role != boot.Manager:
		if p.now.Sub(n.Seen) > unheard {
			p.add(Remove{n.ID, "", boot.MAC{}, "it joined and was never heard of again"})
		}
	case !s.equal(n.Spec):
		p.add(Set{Node: n.ID, Version: n.Version, Spec: s, Why: "as configured for " + n.Hostname})
	case !p.policy.RemoveStrangers, n.State != NodeDown, n.DownSince.IsZero(), silent <= p.policy.Grace:
	case n.Role == boot.Manager:
		p.keep(n, "%s is down and could be removed, but it is a manager; demote it first (docker node demote %s)", n.Hostname, n.ID)
	default:
		p.remove(n, boot.MAC{}, fmt.Sprintf("%s, which bootd did not boot, has been down for more than %s", n.Hostname, p.policy.Grace))
	}
}

// wished is what a node should be that bootd did not boot. Labels that nobody
// wishes for stay; those that were wished for once and are not any more go.
func (p *planner) wished(n *Node) Spec {
	s := n.Spec
	w, ok := p.policy.Wishes[n.Hostname]
	if !ok && n.Labels[labelWished] == "" {
		return s
	}
	s.Labels = maps.Clone(n.Labels)
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	for _, k := range parseKeys(n.Labels[labelWished]) {
		delete(s.Labels, k)
	}
	labels := userLabels(w.Labels)
	maps.Copy(s.Labels, labels)
	put(s.Labels, labelWished, formatKeys(labels))
	if w.Availability != "" {
		s.Availability = w.Availability
	}
	return s
}

// spec is what a node should be as the machine m.
func (p *planner) spec(n *Node, m *Machine) Spec {
	s := n.Spec
	s.Labels = labelsFor(*m, *n)
	if n.State == NodeDown {
		return s // its place is marked; the rest waits until it is back
	}
	_, owned := n.owner()
	switch {
	case m.Availability != "":
		s.Availability = m.Availability
	case !owned, n.Labels[labelAvailability] != "":
		s.Availability = Active
	}
	role := p.roleFor(n, m)
	if n.State != NodeReady || n.Role == role {
		return s
	}
	if n.Role == boot.Manager && !p.stalled(n) && !p.demote(n) {
		return s
	}
	s.Role = role
	if role == boot.Manager && roleOf(m) == boot.Worker {
		s.Labels[labelPromoted] = "yes"
	} else {
		delete(s.Labels, labelPromoted)
	}
	return s
}

func roleOf(m *Machine) boot.Role {
	if m.Role == "" {
		return boot.Worker
	}
	return m.Role
}

// down decides about a node that bootd owns and that is down. m is its machine
// and may be nil.
func (p *planner) down(n *Node, m *Machine, mac boot.MAC) {
	name := mac.String()
	if m != nil {
		name = m.Name
	}
	silent := p.now.Sub(n.DownSince)
	switch {
	case n.Labels[labelRemove] != "":
		p.remove(n, mac, n.Labels[labelRemove])
	case m != nil && m.Left && m.NodeID == n.ID:
		p.remove(n, mac, name+" left the swarm")
	case m != nil && m.NodeID != n.ID && p.joined(m):
		p.remove(n, mac, fmt.Sprintf("%s booted again and is node %s now", name, m.NodeID))
	case !n.DownSince.IsZero() && silent > p.policy.Grace:
		p.remove(n, mac, fmt.Sprintf("%s has been down for more than %s", name, p.policy.Grace))
	}
}

// joined reports whether the node that m reports is in the swarm, and really
// m's.
func (p *planner) joined(m *Machine) bool {
	n := p.ids[m.NodeID]
	if n == nil || n.ID == p.policy.Self {
		return false
	}
	mac, owned := n.owner()
	return owned && mac == m.MAC
}

// remove removes a node that is down, a manager after its demotion.
func (p *planner) remove(n *Node, mac boot.MAC, reason string) {
	switch {
	case n.Role == boot.Manager:
		if !p.demote(n) {
			return
		}
		s := n.Spec
		s.Role = boot.Worker
		s.Labels = maps.Clone(n.Labels)
		s.Labels[labelRemove] = reason
		p.add(Set{n.ID, n.Version, s, mac, "demoted before it is removed: " + reason})
	case n.Manager: // the others are about to let it go
	default:
		p.add(Remove{n.ID, n.Hostname, mac, reason})
	}
}

// demote reports whether a manager may be demoted now, and if it may not says
// why. It counts as done: there is one demotion at a time.
func (p *planner) demote(n *Node) bool {
	if p.demoted {
		return false // at a later look
	}
	others, reachable := managersBeside(p.nodes, n.ID)
	if reachable < quorum(others) {
		p.keep(n, "cannot demote manager %s: of the other %d managers %d are reachable and %d must be; "+
			"make another node a manager first", n.Hostname, others, reachable, quorum(others))
		return false
	}
	p.demoted = true
	return true
}

// self decides about the engine's own node.
func (p *planner) self(n *Node) {
	s := p.wished(n)
	if a := p.policy.SelfAvailability; a != "" {
		s.Availability = a
	}
	if !s.equal(n.Spec) {
		p.add(Set{Node: n.ID, Version: n.Version, Spec: s, Why: "as configured for the manager"})
	}
}
