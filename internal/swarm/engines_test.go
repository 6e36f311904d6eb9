//go:build e2e

package swarm_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	dockerswarm "github.com/docker/docker/api/types/swarm"

	"bootd/boot"
	"bootd/internal/swarm"
	"bootd/internal/swarm/dockertest"
)

// TestManyEngines has fifty real engines, or as many as ENGINES says, join at
// once, each as a machine does: it asks for a token, joins, and tells its node.
// All become ready, with their labels.
func TestManyEngines(t *testing.T) {
	count := 50
	if s := os.Getenv("ENGINES"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil || count < 1 || count > 250 {
			t.Fatalf("ENGINES is %q: want a number from 1 to 250", s)
		}
	}
	lab := dockertest.New(t)
	w := newReal(t, lab)
	b := &bootd{t: t, w: w}
	b.start()
	defer b.stop()
	b.ready()
	engines := make([]*dockertest.Engine, count)
	started := time.Now()
	for i := range engines {
		engines[i] = lab.Engine(fmt.Sprintf("blade%02d", i))
	}
	t.Logf("%d engines run after %.0f s", count, time.Since(started).Seconds())

	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var joining sync.WaitGroup
	for i, e := range engines {
		cli := e.Client()
		joining.Go(func() {
			id, err := func() (string, error) {
				j, err := b.sw.Join(ctx, boot.Worker)
				if err != nil {
					return "", err
				}
				if err := cli.SwarmJoin(ctx, dockerswarm.JoinRequest{ListenAddr: "0.0.0.0:2377", RemoteAddrs: []string{j.Addr},
					JoinToken: j.Token, Availability: dockerswarm.NodeAvailabilityDrain}); err != nil {
					return "", err
				}
				info, err := cli.Info(ctx)
				return info.Swarm.NodeID, err
			}()
			if err != nil {
				t.Errorf("%s: %v", e.Name, err)
				return
			}
			b.set(swarm.Machine{MAC: boot.MAC{2, 0, 0, 0, 1, byte(i)}, Name: e.Name, BootID: e.Name, NodeID: id, Labels: map[string]string{"n": fmt.Sprint(i)}})
		})
	}
	joining.Wait()
	joined := time.Since(began)
	for len(b.kinds()) < count && ctx.Err() == nil && !t.Failed() {
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("%d engines have joined after %.1f s, and are ready %.1f s later", count, joined.Seconds(), (time.Since(began) - joined).Seconds())
	nodes, err := w.Nodes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]bool{}
	for _, n := range nodes {
		if n.State == swarm.NodeReady && n.Availability == swarm.Active && len(n.Labels) > 1 {
			good[n.Hostname+"="+n.Labels["n"]] = true
		}
	}
	for i, e := range engines {
		if !good[e.Name+"="+fmt.Sprint(i)] {
			t.Errorf("%s is not ready with its label; there are %v", e.Name, good)
		}
	}
	if len(nodes) != count+1 {
		t.Errorf("%d nodes", len(nodes))
	}
}
