package swarm

import (
	"context"
	"testing"
	"time"
)

// DockerEngine is the engine that [New] uses.
func DockerEngine(t testing.TB, host string) Engine {
	d, err := newDocker(host, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// RemoteEngine is DockerEngine elsewhere.
func RemoteEngine(host string, t *TLS, s *SSH) (Engine, error) { return newDocker(host, t, s) }

// Explain is what people are told of an error.
func Explain(err error, host string) string { return explain(err, host) }

// Bounds of what is read of an engine, and how long connecting may take.
const (
	MaxAnswer  = maxAnswer
	MaxObjects = maxObjects
	MaxEvent   = maxEvent
	Connecting = connecting + time.Second
)

// LookAtNetworks is one look of [Swarm.Run] at the networks.
func LookAtNetworks(ctx context.Context, s *Swarm) {
	want, _ := s.cfg.Networks()
	s.lookAtNetworks(ctx, want)
}

// Differs lists what of a network differs from its declaration.
func Differs(w Network, h NetworkState) []string { return differences(w, h) }

// Ours reports whether bootd made a network.
func Ours(h NetworkState) bool { return h.ours() }

// Moved is how far the tasks of a node have moved.
var Moved = moved

// Due is whether tokens are to be replaced.
func Due(r Rotation, made time.Time, nodes []Node, machines []Machine, now time.Time) (string, bool) {
	return r.due(made, nodes, machines, now)
}
