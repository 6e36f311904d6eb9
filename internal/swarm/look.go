package swarm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bootd/boot"
)

// look looks at everything once and does what there is to do. It reports
// false when there is more to do at once; the error says why the swarm is not
// ready.
func (s *Swarm) look(ctx context.Context) (done bool, err error) {
	info, err := s.ask(ctx, 0)
	if err != nil {
		return false, err
	}
	v, err := s.judge(ctx, info)
	switch {
	case err != nil:
		return false, err
	case v.makeSwarm:
		return false, s.init(ctx)
	case v.phase == Lost:
		s.lost(v.text)
		return true, nil // and nothing is done about it before somebody says what
	case v.phase != Ready:
		return false, errors.New(v.text)
	}
	if err := s.keep(ctx, info); err != nil {
		return false, err
	}
	nodes, err := call(ctx, s.engine.Nodes)
	if err != nil {
		return false, errors.New(explain(err, s.cfg.Host))
	}
	if s.note(Ready, "", info) {
		s.networks.nudge()
		s.log.Info("swarm ready", "id", info.Swarm, "node", info.Node, "addr", info.Addr)
	}
	skew := s.seen(nodes)
	set := s.settings()
	policy := Policy{Grace: set.Grace, Self: info.Node, SelfAvailability: set.Availability,
		RemoveStrangers: set.RemoveStrangers, Wishes: set.Nodes, Managers: set.Managers}
	machines, now := s.machines(skew), time.Now().Add(skew)
	if why, yes := set.Rotation.due(info.TokensMade, nodes, machines, now); yes {
		rotating, cancel := context.WithTimeout(ctx, patience)
		err := s.rotate(rotating, why)
		cancel()
		if err != nil {
			s.log.Warn("it will be tried again", "err", err)
		}
	}
	actions := Plan(machines, nodes, policy, now)
	return s.carryOut(ctx, actions, fixed(s.cfg.Init, info)), nil
}

// A roleSince is a node's role, and when it became that; zero: it always was.
type roleSince struct {
	role boot.Role
	at   time.Time
}

// seen notes since when each node has been there and had its role, and returns
// the clock that the nodes' times are by, less this one.
func (s *Swarm) seen(nodes []Node) (skew time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := make(map[string]time.Time, len(nodes)) // those that are gone are forgotten
	roles := make(map[string]roleSince, len(nodes))
	now := time.Now()
	for i := range nodes {
		n := &nodes[i]
		at, ok := s.first[n.ID]
		if !ok {
			at = now
		}
		first[n.ID], n.Seen = at, at.Add(s.skew)
		r, ok := s.roles[n.ID]
		switch {
		case !ok:
			r.role = n.Role
		case r.role != n.Role:
			r = roleSince{n.Role, now}
		}
		if roles[n.ID] = r; !r.at.IsZero() {
			n.RoleSince = r.at.Add(s.skew)
		}
	}
	s.first, s.roles = first, roles
	return s.skew
}

// call gives f limited time.
func call[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return f(ctx)
}

// init makes the swarm. Killed in between, the next look finds either a swarm
// or none.
func (s *Swarm) init(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*patience) // keys are generated and an election is held
	defer cancel()
	switch err := s.engine.Init(ctx, s.cfg.Init); {
	case errors.Is(err, ErrMember):
		return nil // the next look shows how it is
	case err != nil:
		return errors.New(explain(err, s.cfg.Host))
	}
	s.log.Info("made a swarm", "host", s.cfg.Host, "advertise", s.cfg.Init.Advertise)
	return nil
}

// machines lists the machines, by the engine's clock, with what this process
// has reported of them.
func (s *Swarm) machines(skew time.Duration) []Machine {
	list := append([]Machine(nil), s.cfg.Machines()...)
	s.mu.Lock()
	defer s.mu.Unlock()
	boots := make(map[string]string, len(list))
	for i := range list {
		m := &list[i]
		m.Started = m.Started.Add(skew)
		if node, ok := s.reported[m.BootID]; ok {
			boots[m.BootID] = node
			m.Ready = true
		}
	}
	s.reported = boots // boots that are over are forgotten
	return list
}

// carryOut does what was planned. What failed is planned again at the next
// look; carryOut reports false if that should be soon, because the nodes were
// not any more what the plan was made for.
func (s *Swarm) carryOut(ctx context.Context, actions []Action, notices []string) (done bool) {
	done = true
	for _, a := range actions {
		if ctx.Err() != nil {
			return false
		}
		var err error
		switch a := a.(type) {
		case Set:
			if !s.isHeld(a.Node) {
				err = s.set(ctx, a)
			}
		case Remove:
			err = s.remove(ctx, a)
		case Report:
			s.report(a)
		case Keep:
			notices = append(notices, "node "+a.Node+": "+a.Why)
		}
		switch {
		case err == nil:
		case errors.Is(err, ErrConflict), errors.Is(err, ErrNoNode):
			done = false
		default:
			notices = append(notices, err.Error())
		}
	}
	s.tell(notices)
	return done
}

func (s *Swarm) set(ctx context.Context, a Set) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.engine.SetNode(ctx, a.Node, a.Version, a.Spec); err != nil {
		return fmt.Errorf("cannot update node %s: %w", a.Node, err)
	}
	s.log.Info("node updated", "node", a.Node, "mac", a.MAC, "labels", describeLabels(userLabels(a.Spec.Labels)),
		"availability", a.Spec.Availability, "role", a.Spec.Role, "reason", a.Why)
	return nil
}

func (s *Swarm) remove(ctx context.Context, a Remove) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Without force: the engine refuses if the node has come back meanwhile.
	if err := s.engine.RemoveNode(ctx, a.Node); err != nil {
		return fmt.Errorf("cannot remove node %s (%s): %w", a.Node, a.Hostname, err)
	}
	s.removed(a.Node, a.Hostname, a.MAC, a.Reason)
	return nil
}

func (s *Swarm) report(a Report) {
	s.mu.Lock()
	s.reported[a.BootID] = a.Node
	s.mu.Unlock()
	s.log.Info("node ready", "node", a.Node, "mac", a.MAC)
	s.cfg.Record(boot.Event{Time: time.Now(), MAC: a.MAC, Stage: boot.Ready, Node: a.Node, Text: a.Text})
}

// tell shows the notices in the status and logs those that are new.
func (s *Swarm) tell(notices []string) {
	s.mu.Lock()
	told := s.told
	s.told = make(map[string]bool, len(notices))
	for _, n := range notices {
		s.told[n] = true
	}
	s.status.Notices = notices
	s.mu.Unlock()
	for _, n := range notices {
		if !told[n] {
			s.log.Warn("swarm is not as it should be", "reason", n)
		}
	}
}
