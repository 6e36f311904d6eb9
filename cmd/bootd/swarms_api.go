package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"bootd/internal/api"
	"bootd/internal/override"
	"bootd/internal/swarm"
)

// Nodes implements [api.Swarms]. Swarms that are not ready are left out as long
// as one is.
func (s *swarms) Nodes(ctx context.Context, name string) ([]api.Node, error) {
	list, err := s.all(name)
	if err != nil {
		return nil, err
	}
	out := []api.Node{}
	var failed error
	for _, k := range list {
		nodes, err := k.Nodes(ctx)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		for _, n := range nodes {
			out = append(out, s.node(k.made.Name, n))
		}
	}
	if len(out) == 0 && failed != nil {
		return nil, unavailable(failed)
	}
	return out, nil
}

// unavailable makes an error that the caller may wait out of a swarm's.
func unavailable(err error) error {
	if errors.Is(err, swarm.ErrNotReady) {
		return &api.Problem{Title: "Service Unavailable", Status: http.StatusServiceUnavailable, Detail: err.Error()}
	}
	return err
}

func (s *swarms) node(name string, n swarm.NodeStatus) api.Node {
	out := api.Node{Swarm: name, Machine: n.Machine, MAC: n.MAC, ID: n.ID, Hostname: n.Hostname, Role: n.Role, Leader: n.Leader, Self: n.Self,
		State: string(n.State), Availability: string(n.Availability), Labels: n.Labels, Tasks: n.Tasks,
		Engine: n.Engine, Addr: n.Addr, Since: n.Since}
	if !n.MAC.IsZero() {
		if h := s.overrides.Get(n.MAC).Held; h != nil {
			out.Why = "ordered " + h.At.Format(time.DateTime)
			if h.Reason != "" {
				out.Why = h.Reason
			}
		}
	}
	return out
}

// find finds a node in the swarms, or in the named one.
func (s *swarms) find(ctx context.Context, name, ref string) (*keptSwarm, swarm.NodeStatus, error) {
	list, err := s.all(name)
	if err != nil {
		return nil, swarm.NodeStatus{}, err
	}
	var in []*keptSwarm
	var found swarm.NodeStatus
	var names []string
	var failed error
	for _, k := range list {
		nodes, err := k.Nodes(ctx)
		if err == nil {
			var n swarm.NodeStatus
			if n, err = swarm.Find(nodes, ref); err == nil {
				in, names, found = append(in, k), append(names, k.made.Name), n
				continue
			}
		}
		if !errors.Is(err, swarm.ErrNoNode) {
			failed = errors.Join(failed, err)
		}
	}
	switch {
	case len(in) == 1:
		return in[0], found, nil
	case len(in) > 1:
		return nil, found, conflict("several swarms have a node %q: %s; name one with --swarm", ref, strings.Join(names, ", "))
	case failed != nil:
		return nil, found, refusal(failed)
	}
	return nil, found, notFound("no swarm has a node %q; bootd swarm nodes shows which there are", ref)
}

// refusal makes an error for the caller of what a swarm says.
func refusal(err error) error {
	switch {
	case errors.Is(err, swarm.ErrRefused), errors.Is(err, swarm.ErrAmbiguous):
		return conflict("%v", err)
	case errors.Is(err, swarm.ErrNoNode):
		return notFound("%v", err)
	}
	return unavailable(err)
}

// SetAvailability implements [api.Swarms]. For a machine of bootd's it is an
// order, that lasts over its boots.
func (s *swarms) SetAvailability(ctx context.Context, name, ref string, in api.Availability) (api.Node, error) {
	k, n, err := s.find(ctx, name, ref)
	if err != nil {
		return api.Node{}, err
	}
	if !n.MAC.IsZero() {
		if _, err := s.overrides.Change(ctx, n.MAC, func(o *override.Override) error {
			o.Held = nil
			if in.Availability != string(swarm.Active) {
				o.Held = &override.Hold{Availability: in.Availability, Reason: in.Reason, At: time.Now()}
			}
			return nil
		}); err != nil {
			return api.Node{}, err
		}
	}
	// The order will be carried out in any case; this is so that it is when the
	// caller is told.
	if err := k.SetAvailability(ctx, n.ID, swarm.Availability(in.Availability)); err != nil {
		return api.Node{}, refusal(err)
	}
	k.Nudge()
	n.Availability = swarm.Availability(in.Availability)
	return s.node(k.made.Name, n), nil
}

// Remove implements [api.Swarms].
func (s *swarms) Remove(ctx context.Context, name, ref string, force bool) (api.Removal, error) {
	k, n, err := s.find(ctx, name, ref)
	if err != nil {
		return api.Removal{}, err
	}
	r, err := k.Remove(ctx, n.ID, force)
	if err != nil {
		return api.Removal{}, refusal(err)
	}
	return removal(k, r), nil
}

// Prune implements [api.Swarms].
func (s *swarms) Prune(ctx context.Context, name string, dryRun bool) ([]api.Removal, error) {
	list, err := s.all(name)
	if err != nil {
		return nil, err
	}
	var out []api.Removal
	var failed error
	for _, k := range list {
		removals, err := k.Prune(ctx, dryRun)
		failed = errors.Join(failed, err)
		for _, r := range removals {
			out = append(out, removal(k, r))
		}
	}
	if failed != nil && len(out) == 0 {
		return nil, refusal(failed)
	}
	return out, nil
}

func removal(k *keptSwarm, r swarm.Removal) api.Removal {
	return api.Removal{Swarm: k.made.Name, ID: r.Node.ID, Hostname: r.Node.Hostname, Machine: r.Node.Machine, Kept: r.Kept, Why: r.Why}
}

// Replace implements [api.Swarms].
func (s *swarms) Replace(ctx context.Context, name string) (api.Replaced, error) {
	list, err := s.all(name)
	if err != nil {
		return api.Replaced{}, err
	}
	lost := slices.DeleteFunc(list, func(k *keptSwarm) bool { return k.Status().Phase != swarm.Lost })
	switch len(lost) {
	case 0:
		return api.Replaced{}, conflict("no swarm is lost, so there is nothing to replace; bootd status shows how they are")
	case 1:
	default:
		return api.Replaced{}, conflict("%d swarms are lost; name one with --swarm", len(lost))
	}
	was, err := lost[0].Replace(ctx)
	if err != nil {
		return api.Replaced{}, refusal(err)
	}
	return api.Replaced{Swarm: lost[0].made.Name, Was: was}, nil
}

// RotateTokens implements [api.Swarms].
func (s *swarms) RotateTokens(ctx context.Context, name string) error {
	list, err := s.all(name)
	if err != nil {
		return err
	}
	var failed error
	for _, k := range list {
		failed = errors.Join(failed, k.RotateTokens(ctx))
	}
	if failed != nil {
		return refusal(failed)
	}
	return nil
}
