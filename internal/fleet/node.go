package fleet

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bootd/boot"
)

// A Node is a VM in its role in a cluster.
type Node struct {
	VM      VMID       `json:"vm"`
	Cluster ClusterID  `json:"cluster"`
	Type    NodeType   `json:"type"`
	Name    string     `json:"name"` // of the VM, and the host name
	MAC     boot.MAC   `json:"mac"`
	Addr    netip.Addr `json:"addr,omitzero"` // that it gives itself; invalid: by DHCP
	Made    time.Time  `json:"made"`          // when its record was written
	On      time.Time  `json:"on,omitzero"`   // when it was first switched on
	Leaving bool       `json:"leaving,omitzero"`
}

// A Standing is how a node does in its cluster.
type Standing struct {
	// Up says that the node does what it is for.
	Up bool
	// Live says that the cluster itself tells so now. Otherwise the node has told it
	// once, so that it may have been lost since.
	Live  bool
	Since time.Time // of Up, or of not being up any more; zero: it never was, or that is not known
	Tasks int       // that run on it
	Why   string    // it is not up, as far as that is known
}

// A NodeLook is a node with what is known of it now.
type NodeLook struct {
	Node
	Standing
	State VMState   // of its VM; [VMDeleted]: there is none any more
	Fault string    // of its VM
	Host  HostID    // empty: none is chosen yet
	Away  time.Time // since when its host does not answer; zero: it does
}

// Works reports whether a node does what it is for, as far as anybody knows.
func (n NodeLook) Works() bool {
	return n.State == VMStarted && n.Up && (n.Live || n.Away.IsZero())
}

// lost is why a node is not to be waited for any more; empty: it is not lost. Who
// was up and is not, or was switched on and never came up, has as long as grace. A
// VM that somebody switched off is not lost.
func (n NodeLook) lost(now time.Time, grace time.Duration) string {
	switch n.State {
	case VMDeleted:
		return "its VM is gone"
	case VMError:
		return cmp.Or(n.Fault, "its VM is in state ERROR")
	case VMStarted:
	default:
		if !n.Away.IsZero() && now.Sub(n.Away) > grace {
			return "its host does not answer"
		}
		return ""
	}
	if n.Works() || n.On.IsZero() {
		return ""
	}
	since := n.On
	for _, t := range []time.Time{n.Since, n.Away} {
		if t.After(since) {
			since = t
		}
	}
	if now.Sub(since) <= grace {
		return ""
	}
	return cmp.Or(n.Why, "it is not up")
}

// Changes are what is to be done to a cluster's nodes so that it is as it should be.
type Changes struct {
	Remove []Removal // first, so that what they hold is free for others
	Raise  []VMID    // that are there and not up yet
	Make   []Vacancy
}

// None reports whether there is nothing to do.
func (c Changes) None() bool { return len(c.Remove)+len(c.Raise)+len(c.Make) == 0 }

// A Removal is a node that is to go.
type Removal struct {
	VM VMID
	// Drain: it works, so that what runs on it should be moved first.
	Drain bool
	Why   string
}

// A Vacancy is a node that is to be made.
type Vacancy struct {
	Role Role
	Addr netip.Addr // invalid: by DHCP
}

// Settle decides what is to be done so that there are the nodes of some roles; those
// of others are left alone. An address is given to a new node only once nobody has
// it, also nobody who is to go. Grace is how long a node may be down.
func Settle(roles []Role, nodes []NodeLook, now time.Time, grace time.Duration) Changes {
	var out Changes
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, older)
	taken := map[netip.Addr]bool{}
	for _, n := range nodes {
		taken[n.Addr] = true
	}
	for _, r := range roles {
		keep := out.keep(r, nodes, now, grace)
		if len(r.Addrs) == 0 {
			extra := Spare(keep, len(keep)-r.Count)
			for _, id := range extra {
				out.Remove = append(out.Remove, Removal{id, true, "the cluster is to have fewer"})
			}
			keep = slices.DeleteFunc(keep, func(n NodeLook) bool { return slices.Contains(extra, n.VM) })
		}
		for _, n := range keep {
			if !n.Works() {
				out.Raise = append(out.Raise, n.VM)
			}
		}
		out.Make = append(out.Make, vacancies(r, len(keep), taken)...)
	}
	return out
}

// older orders nodes by when they were made.
func older(a, b NodeLook) int { return cmp.Or(a.Made.Compare(b.Made), cmp.Compare(a.VM, b.VM)) }

// keep is the nodes of a role that stay; the others are to be removed.
func (c *Changes) keep(r Role, nodes []NodeLook, now time.Time, grace time.Duration) []NodeLook {
	var out []NodeLook
	seen := map[netip.Addr]bool{}
	for _, n := range nodes {
		if n.Type != r.Node {
			continue
		}
		why := n.lost(now, grace)
		switch {
		case why != "":
			c.Remove = append(c.Remove, Removal{n.VM, false, why})
		case n.Leaving:
			c.Remove = append(c.Remove, Removal{n.VM, true, "it is leaving"})
		case len(r.Addrs) > 0 && (!slices.Contains(r.Addrs, n.Addr) || seen[n.Addr]):
			c.Remove = append(c.Remove, Removal{n.VM, true, fmt.Sprintf("no node is to have address %s, or another one has it", n.Addr)})
		default:
			seen[n.Addr] = true
			out = append(out, n)
		}
	}
	return out
}

func vacancies(r Role, have int, taken map[netip.Addr]bool) []Vacancy {
	var out []Vacancy
	if len(r.Addrs) == 0 {
		for range r.Count - have {
			out = append(out, Vacancy{Role: r})
		}
		return out
	}
	for _, a := range r.Addrs {
		if !taken[a] {
			out = append(out, Vacancy{r, a})
		}
	}
	return out
}

// Spare chooses which nodes a cluster can do without best: those that are not up,
// then those that run the fewest tasks, then those on the hosts that have most of
// the cluster's nodes, then the youngest.
func Spare(nodes []NodeLook, count int) []VMID {
	var out []VMID
	nodes = slices.Clone(nodes)
	for range min(count, len(nodes)) {
		on := map[HostID]int{}
		for _, n := range nodes {
			on[n.Host]++
		}
		next := slices.MinFunc(nodes, func(a, b NodeLook) int {
			return cmp.Or(rank(a)-rank(b), a.Tasks-b.Tasks, on[b.Host]-on[a.Host], older(b, a))
		})
		out = append(out, next.VM)
		nodes = slices.DeleteFunc(nodes, func(n NodeLook) bool { return n.VM == next.VM })
	}
	return out
}

// rank is 0 for nodes that are not even on, 1 for those that are not up.
func rank(n NodeLook) int {
	switch {
	case n.Works():
		return 2
	case n.State == VMStarted:
		return 1
	}
	return 0
}
