package swarm

import "testing"

// DockerEngine is the engine that [New] uses.
func DockerEngine(t testing.TB, host string) Engine {
	d, err := newDocker(host)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
