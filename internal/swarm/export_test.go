package swarm

import (
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
