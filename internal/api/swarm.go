package api

import (
	"context"
	"net/http"
	"strconv"
)

// Swarms are what operators can do with the swarms that bootd keeps. A swarm is
// named, or empty: the only one, or for nodes the one that has it. A node is
// named by its machine, its host name, or the beginning of its ID. Errors that
// the caller can do something about are [Problem]s.
type Swarms interface {
	Nodes(ctx context.Context, swarm string) ([]Node, error)
	// SetAvailability drains or pauses a node until it is made active again,
	// over its machine's boots.
	SetAvailability(ctx context.Context, swarm, node string, in Availability) (Node, error)
	// Remove makes a swarm forget a node. One that is ready, or that the
	// managers' quorum needs, is refused; force removes a ready one.
	Remove(ctx context.Context, swarm, node string, force bool) (Removal, error)
	// Prune removes the nodes that are down and that bootd would remove in time
	// anyway, at once, and tells which those are; with dryRun it only tells.
	Prune(ctx context.Context, swarm string, dryRun bool) ([]Removal, error)
	// RotateTokens makes the tokens invalid that nodes join with.
	RotateTokens(ctx context.Context, swarm string) error
	// Replace gives up a swarm that is lost, for the one that its engine is in
	// now or for a new one.
	Replace(ctx context.Context, swarm string) (Replaced, error)
}

// An Availability says whether a node takes tasks.
type Availability struct {
	Availability string `json:"availability"` // active, pause or drain
	Reason       string `json:"reason,omitempty"`
}

// A Removal is a node that was removed, or is to be, or is kept though it is
// down.
type Removal struct {
	Swarm    string `json:"swarm"`
	ID       string `json:"id"`
	Hostname string `json:"hostname"`
	Machine  string `json:"machine,omitempty"`
	Why      string `json:"why"`
	Kept     bool   `json:"kept,omitempty"`
}

func (a *api) swarms() (Swarms, error) {
	if a.Swarms == nil {
		return nil, problem(http.StatusNotFound, "bootd manages no swarm; add swarm: {} to bootd.yaml")
	}
	return a.Swarms, nil
}

func (a *api) nodes(r *http.Request) (any, error) {
	s, err := a.swarms()
	if err != nil {
		return nil, err
	}
	list, err := s.Nodes(r.Context(), r.URL.Query().Get("swarm"))
	if err != nil {
		return nil, err
	}
	return nonNil(list), nil
}

func (a *api) setAvailability(r *http.Request) (any, error) {
	s, err := a.swarms()
	if err != nil {
		return nil, err
	}
	in, err := decode[Availability](r, "an availability, as {\"availability\": \"drain\"}")
	if err != nil {
		return nil, err
	}
	switch in.Availability {
	case "active", "pause", "drain":
	default:
		return nil, problem(http.StatusBadRequest, "%q is no availability: use active, pause or drain", in.Availability)
	}
	return s.SetAvailability(r.Context(), r.URL.Query().Get("swarm"), r.PathValue("node"), in)
}

func (a *api) removeNode(r *http.Request) (any, error) {
	s, err := a.swarms()
	if err != nil {
		return nil, err
	}
	force, err := flag(r, "force")
	if err != nil {
		return nil, err
	}
	return s.Remove(r.Context(), r.URL.Query().Get("swarm"), r.PathValue("node"), force)
}

func (a *api) prune(r *http.Request) (any, error) {
	s, err := a.swarms()
	if err != nil {
		return nil, err
	}
	dry, err := flag(r, "dry_run")
	if err != nil {
		return nil, err
	}
	list, err := s.Prune(r.Context(), r.URL.Query().Get("swarm"), dry)
	if err != nil {
		return nil, err
	}
	return nonNil(list), nil
}

func (a *api) rotateTokens(r *http.Request) (any, error) {
	s, err := a.swarms()
	if err != nil {
		return nil, err
	}
	return nil, s.RotateTokens(r.Context(), r.URL.Query().Get("swarm"))
}

func (a *api) replaceSwarm(r *http.Request) (any, error) {
	s, err := a.swarms()
	if err != nil {
		return nil, err
	}
	return s.Replace(r.Context(), r.URL.Query().Get("swarm"))
}

// flag reads a parameter that is true or false, and false when it is missing.
func flag(r *http.Request, name string) (bool, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return false, problem(http.StatusBadRequest, "%s is %q, which is neither true nor false", name, s)
	}
	return v, nil
}
