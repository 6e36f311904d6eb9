package dockertest_test

import (
	"testing"

	"bootd/internal/swarm/dockertest"
)

// TestEngines checks that two engines are apart from each other and from the
// host, and that one can be stopped and started.
func TestEngines(t *testing.T) {
	l := dockertest.New(t)
	a, b := l.Engine("a"), l.Engine("b")
	for _, e := range []*dockertest.Engine{a, b} {
		info, err := e.Client().Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Name != e.Name {
			t.Errorf("engine %s calls itself %s", e.Name, info.Name)
		}
	}
	id := func() string {
		info, err := a.Client().Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.ID
	}
	before := id()
	a.Stop()
	a.Start()
	if after := id(); after != before {
		t.Errorf("restarted, the engine's ID is %s, was %s", after, before)
	}
	a.Kill()
	a.Wipe()
	a.Start()
	if after := id(); after == before {
		t.Errorf("wiped, the engine's ID is still %s", after)
	}
}
