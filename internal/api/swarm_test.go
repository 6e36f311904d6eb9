package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/api"
)

// A herd is Swarms that are only written down.
type herd struct {
	lines []string
	err   error
}

func (h *herd) note(format string, args ...any) {
	h.lines = append(h.lines, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (h *herd) Nodes(_ context.Context, swarm string) ([]api.Node, error) {
	h.note("nodes %s", swarm)
	return nil, h.err
}

func (h *herd) SetAvailability(_ context.Context, swarm, node string, in api.Availability) (api.Node, error) {
	h.note("%s %s/%s %s", in.Availability, swarm, node, in.Reason)
	return api.Node{Swarm: "blue", Hostname: node, Availability: in.Availability}, h.err
}

func (h *herd) Remove(_ context.Context, swarm, node string, force bool) (api.Removal, error) {
	h.note("remove %s/%s %t", swarm, node, force)
	return api.Removal{Swarm: "blue", Hostname: node, Why: "down"}, h.err
}

func (h *herd) Prune(_ context.Context, swarm string, dryRun bool) ([]api.Removal, error) {
	h.note("prune %s %t", swarm, dryRun)
	return nil, h.err
}

func (h *herd) RotateTokens(_ context.Context, swarm string) error {
	h.note("rotate %s", swarm)
	return h.err
}

func (h *herd) Replace(_ context.Context, swarm string) (api.Replaced, error) {
	h.note("replace %s", swarm)
	return api.Replaced{Swarm: "blue", Was: "s1"}, h.err
}

func TestSwarms(t *testing.T) {
	for _, c := range []struct {
		method, target, body string
		status               int
		want                 string // part of the answer
		done                 string
	}{
		{"GET", "/v1/swarm/nodes", "", 200, "[]", "nodes"},
		{"GET", "/v1/swarm/nodes?swarm=blue", "", 200, "[]", "nodes blue"},
		{"PUT", "/v1/swarm/nodes/node1/availability", `{"availability":"drain","reason":"a fan"}`, 200, `"availability":"drain"`, "drain /node1 a fan"},
		{"PUT", "/v1/swarm/nodes/node1/availability", `{"availability":"drained"}`, 400, "use active, pause or drain", ""},
		{"PUT", "/v1/swarm/nodes/node1/availability", ``, 400, "the body is not an availability", ""},
		{"DELETE", "/v1/swarm/nodes/node1?swarm=blue&force=true", "", 200, `"why":"down"`, "remove blue/node1 true"},
		{"DELETE", "/v1/swarm/nodes/node1", "", 200, `"hostname":"node1"`, "remove /node1 false"},
		{"DELETE", "/v1/swarm/nodes/node1?force=very", "", 400, "neither true nor false", ""},
		{"POST", "/v1/swarm/prune?dry_run=1", "", 200, "[]", "prune  true"},
		{"POST", "/v1/swarm/prune?dry_run=x", "", 400, "neither true nor false", ""},
		{"POST", "/v1/swarm/tokens/rotate?swarm=blue", "", 204, "", "rotate blue"},
		{"POST", "/v1/swarm/replace?swarm=blue", "", 200, `"was":"s1"`, "replace blue"},
		{"GET", "/v1/swarm/prune", "", 405, "only POST", ""},
	} {
		t.Run(c.method+c.target, func(t *testing.T) {
			h := &herd{}
			config := config(newSource())
			config.Swarms = h
			w := do(t, api.New(config), c.method, c.target, c.body)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
				t.Fatalf("%d %s, want %d %s", w.Code, w.Body, c.status, c.want)
			}
			if d := cmp.Diff(c.done, strings.Join(h.lines, "; ")); d != "" {
				t.Error(d)
			}
			config.Swarms = nil
			if w := do(t, api.New(config), c.method, c.target, c.body); c.status < 400 && w.Code != 404 {
				t.Errorf("without a swarm: %d %s", w.Code, w.Body)
			}
		})
	}
}
