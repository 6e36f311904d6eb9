package controller_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/controller/controllertest"
	"bootd/internal/fleet"
)

// TestClustersKilledAnywhere ends everything at each point of a cluster's life: before
// and after each step, each call of a host and each word with the swarm. What was
// begun is completed by the next controller, and nothing is made twice or left.
func TestClustersKilledAnywhere(t *testing.T) {
	var s *clusterSite
	var killed, on atomic.Bool
	var points once
	kill := func(ctx context.Context, point string) error {
		if !on.Load() || !strings.Contains(point, "CLUSTER") || !points.isNew(point) {
			return nil
		}
		killed.Store(true)
		s.interrupt()
		<-ctx.Done()
		return ctx.Err()
	}
	g := &gate{
		before: func(ctx context.Context, point string) error { return kill(ctx, "before "+point) },
		after:  func(ctx context.Context, point string) error { return kill(ctx, "after "+point) },
	}
	s = &clusterSite{site: newGatedSite(t, g)}
	s.configure(nil)
	s.crew.Set(func(c *controllertest.Crew) {
		c.Intercept = func(ctx context.Context, call string) error {
			step, _ := ctx.Value(stepKey{}).(string)
			return kill(ctx, step+": "+call)
		}
	})
	h, _ := s.host("esx-1")
	s.enable(fleet.Swarm)
	wait := func(task fleet.Task, err error) fleet.ClusterID {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if task = s.settled(task, func() bool { return killed.CompareAndSwap(true, false) }); task.State != fleet.TaskCompleted {
			t.Fatalf("%s: %+v", task.Operation, task.Cause())
		}
		return fleet.ClusterID(task.Entity.ID)
	}
	// What is done in the background is a task of its own.
	ready := func(id fleet.ClusterID, workers int) {
		t.Helper()
		s.until("the cluster is ready", func() bool {
			if killed.CompareAndSwap(true, false) {
				s.stop()
				s.start()
			}
			x := s.get(id)
			if x.ErrorReason != "" {
				t.Fatal(x.ErrorReason)
			}
			return x.State == fleet.ClusterReady
		})
		if d := cmp.Diff(map[fleet.NodeType]int{fleet.SwarmEtcd: 1, fleet.SwarmWorker: workers}, s.counts(id)); d != "" {
			t.Error(d)
		}
		s.consistent()
	}

	on.Store(true)
	id := wait(s.create(spec(2)))
	ready(id, 2)
	wait(s.control.ResizeCluster(s.ctx(), root, id, 1))
	ready(id, 1)
	wait(s.control.DeleteCluster(s.ctx(), root, id))
	on.Store(false)
	if _, err := s.control.Cluster(s.ctx(), root, id); fleet.CodeOf(err) != fleet.ClusterNotFound {
		t.Errorf("it is still there: %v", err)
	}
	s.done(s.control.DeleteImage(s.ctx(), root, s.image))
	s.nothingLeft(h)
	t.Logf("it was killed at %d points", points.number())
	if points.number() < 30 {
		t.Errorf("it was killed at %d points alone: %v", points.number(), points.seen)
	}
}
