package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"bootd/boot"
)

// NodeStatus is a node as people see it.
type NodeStatus struct {
	Machine  string   `json:"machine,omitempty"` // name; empty: not one of bootd's
	MAC      boot.MAC `json:"mac,omitzero"`
	ID       string   `json:"id"`
	Hostname string   `json:"hostname"`

	Role         boot.Role         `json:"role"`
	Leader       bool              `json:"leader,omitempty"`
	Self         bool              `json:"self,omitempty"` // the node of the engine that bootd talks to
	State        NodeState         `json:"state"`
	Availability Availability      `json:"availability"`
	Labels       map[string]string `json:"labels,omitempty"` // without bootd's own
	Tasks        int               `json:"tasks"`            // running
	Engine       string            `json:"engine"`           // version
	Addr         string            `json:"addr"`
	// Since is when the node joined; for one that is down, the latest that it
	// can have gone down.
	Since time.Time `json:"since"`
}

// Nodes lists all nodes of the swarm by host name. The error is an
// [ErrNotReady] when there is no swarm.
func (s *Swarm) Nodes(ctx context.Context) ([]NodeStatus, error) {
	const what = "cannot list the nodes of the swarm"
	info, err := s.ask(ctx, fresh)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", what, ErrNotReady, err)
	}
	v, err := s.judge(ctx, info)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", what, ErrNotReady, err)
	case v.phase != Ready:
		return nil, fmt.Errorf("%s: %w: %s", what, ErrNotReady, cmp.Or(v.text, "there is none yet"))
	}
	nodes, err := call(ctx, s.engine.Nodes)
	if err == nil {
		var tasks map[string]int
		if tasks, err = call(ctx, s.engine.Tasks); err == nil {
			return statuses(nodes, tasks, s.cfg.Machines(), info.Node), nil
		}
	}
	if errors.Is(err, context.Canceled) {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return nil, fmt.Errorf("%s: %w: %s", what, ErrNotReady, explain(err, s.cfg.Host))
}

func statuses(nodes []Node, tasks map[string]int, machines []Machine, self string) []NodeStatus {
	names := map[boot.MAC]string{}
	for _, m := range machines {
		names[m.MAC] = m.Name
	}
	out := make([]NodeStatus, 0, len(nodes))
	for _, n := range nodes {
		st := NodeStatus{
			ID: n.ID, Hostname: n.Hostname, Role: n.Role, Leader: n.Leader, Self: n.ID == self, State: n.State,
			Availability: n.Availability, Labels: userLabels(n.Labels), Tasks: tasks[n.ID], Engine: n.Engine,
			Addr: n.Addr, Since: n.Created,
		}
		if mac, ok := n.owner(); ok && !st.Self {
			st.MAC, st.Machine = mac, cmp.Or(names[mac], mac.String())
		}
		if n.State == NodeDown {
			st.Since = n.DownSince
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b NodeStatus) int {
		return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	return out
}
