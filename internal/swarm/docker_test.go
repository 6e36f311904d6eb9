package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/swarm"
)

// An api answers Docker's API: method and path without the version to status
// and body. It counts the connections that are made to it.
type api struct {
	answer func(conn int, req string) (int, string)

	mu       sync.Mutex
	conns    int
	requests []string
	bodies   []string
}

type connKey struct{}

func (a *api) serve(t *testing.T) (host string) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if v, rest, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/"); ok && strings.HasPrefix(v, "v1.") {
			path = "/" + rest
		}
		w.Header().Set("Api-Version", "1.41")
		if path == "/_ping" {
			return
		}
		body, _ := io.ReadAll(r.Body)
		a.mu.Lock()
		a.requests = append(a.requests, r.Method+" "+path)
		a.bodies = append(a.bodies, string(body))
		a.mu.Unlock()
		status, text := a.answer(r.Context().Value(connKey{}).(int), r.Method+" "+path)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, text)
	}))
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.conns++
		return context.WithValue(ctx, connKey{}, a.conns)
	}
	s.Start()
	t.Cleanup(s.Close)
	return "tcp://" + s.Listener.Addr().String()
}

const (
	inactiveInfo = `{"Swarm": {"LocalNodeState": "inactive"}}`
	activeInfo   = `{"ServerVersion": "20.10.24", "SystemTime": "2026-01-02T12:00:00Z", "Swarm": {
		"NodeID": "n1", "NodeAddr": "10.0.0.1", "LocalNodeState": "active", "ControlAvailable": true,
		"RemoteManagers": [{"NodeID": "n2", "Addr": "10.0.0.2:2377"}, {"NodeID": "n1", "Addr": "10.0.0.1:2378"}]}}`
	swarmInfo = `{"ID": "s1", "JoinTokens": {"Worker": "W", "Manager": "M"}, "DefaultAddrPool": ["10.20.0.0/16"], "DataPathPort": 4789}`
)

// TestInitOnAStoppingEngine asks an engine that forgets its swarm while it
// stops, as real ones do: its old connections say that there is no swarm, and
// new ones reach the engine that has been started after it.
func TestInitOnAStoppingEngine(t *testing.T) {
	for conns := 1; conns <= 2; conns++ {
		a := &api{answer: func(conn int, req string) (int, string) {
			switch {
			case req == "GET /info" && conn <= conns:
				return 200, inactiveInfo
			case req == "GET /info":
				return 200, activeInfo
			}
			return 500, "{}"
		}}
		e := swarm.DockerEngine(t, a.serve(t))
		if i, err := e.Info(t.Context()); err != nil || i.State != swarm.Inactive {
			t.Fatalf("Info: %+v, %v", i, err)
		}
		if err := e.Init(t.Context(), swarm.Init{}); !errors.Is(err, swarm.ErrMember) {
			t.Errorf("after %d lies, Init: %v", conns, err)
		}
		if slices.Contains(a.requests, "POST /swarm/init") {
			t.Errorf("after %d lies, a swarm was made: %q", conns, a.requests)
		}
	}
}

func TestInitRequest(t *testing.T) {
	a := &api{answer: func(_ int, req string) (int, string) {
		if req == "POST /swarm/init" {
			return 200, `"n1"`
		}
		return 200, inactiveInfo
	}}
	err := swarm.DockerEngine(t, a.serve(t)).Init(t.Context(), swarm.Init{
		Advertise: "10.0.0.1", Availability: swarm.Drain, DataPathPort: 5000,
		AddressPools: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")},
	})
	if err != nil {
		t.Fatal(err)
	}
	body := a.bodies[len(a.bodies)-1]
	for _, want := range []string{
		`"AdvertiseAddr":"10.0.0.1"`, `"ListenAddr":"0.0.0.0:2377"`, `"Availability":"drain"`,
		`"DataPathPort":5000`, `"DefaultAddrPool":["10.20.0.0/16"]`, `"SubnetSize":24`, `"ForceNewCluster":false`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("request %s lacks %s", body, want)
		}
	}
}

func TestInfo(t *testing.T) {
	a := &api{answer: func(_ int, req string) (int, string) {
		if req == "GET /swarm" {
			return 200, swarmInfo
		}
		return 200, activeInfo
	}}
	got, err := swarm.DockerEngine(t, a.serve(t)).Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := swarm.Info{
		State: swarm.Member, Manager: true, Node: "n1", Addr: "10.0.0.1:2378", Version: "20.10.24", Time: now, Swarm: "s1",
		Tokens:       map[boot.Role]string{boot.Worker: "W", boot.Manager: "M"},
		AddressPools: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}, DataPathPort: 4789,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestNodesOfTheAPI(t *testing.T) {
	a := &api{answer: func(int, string) (int, string) {
		return 200, `[
			{"ID": "n1", "Version": {"Index": 9}, "CreatedAt": "2026-01-02T11:00:00Z", "UpdatedAt": "2026-01-02T12:00:00Z",
			 "Spec": {"Labels": {"a": "b"}, "Role": "manager", "Availability": "drain"},
			 "Description": {"Hostname": "h1", "Engine": {"EngineVersion": "20.10.24"}},
			 "Status": {"State": "ready", "Addr": "10.0.0.1"},
			 "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}},
			{"ID": "n2", "Version": {"Index": 10}, "CreatedAt": "2026-01-02T11:00:00Z", "UpdatedAt": "2026-01-02T12:00:00Z",
			 "Spec": {"Name": "x", "Labels": {}, "Role": "worker", "Availability": "active"},
			 "Description": {"Hostname": "h2"}, "Status": {"State": "down"}}]`
	}}
	got, err := swarm.DockerEngine(t, a.serve(t)).Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []swarm.Node{
		{
			ID: "n1", Version: 9, Hostname: "h1", State: swarm.NodeReady, Created: now.Add(-time.Hour), Addr: "10.0.0.1",
			Engine: "20.10.24", Manager: true, Reachable: true, Leader: true,
			Spec: swarm.Spec{Labels: map[string]string{"a": "b"}, Availability: swarm.Drain, Role: boot.Manager},
		},
		{
			ID: "n2", Version: 10, Hostname: "h2", State: swarm.NodeDown, DownSince: now, Created: now.Add(-time.Hour),
			Spec: swarm.Spec{Name: "x", Labels: map[string]string{}, Availability: swarm.Active, Role: boot.Worker},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestErrorsOfTheAPI has the texts of real engines.
func TestErrorsOfTheAPI(t *testing.T) {
	for _, tt := range []struct {
		status int
		text   string
		want   error
	}{
		{500, "rpc error: code = Unknown desc = update out of sequence", swarm.ErrConflict},
		{409, "conflict", swarm.ErrConflict},
		{404, "node abc not found", swarm.ErrNoNode},
		{500, "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online.", swarm.ErrNoLeader},
		{500, "rpc error: code = FailedPrecondition desc = node abc is not down and can't be removed", nil},
	} {
		a := &api{answer: func(int, string) (int, string) { return tt.status, fmt.Sprintf(`{"message": %q}`, tt.text) }}
		e := swarm.DockerEngine(t, a.serve(t))
		for what, err := range map[string]error{
			"SetNode":    e.SetNode(t.Context(), "abc", 1, swarm.Spec{}),
			"RemoveNode": e.RemoveNode(t.Context(), "abc"),
		} {
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%s: %v, want %s", what, err, tt.text)
			}
			for _, kind := range []error{swarm.ErrConflict, swarm.ErrNoNode, swarm.ErrNoLeader, swarm.ErrMember} {
				if is := errors.Is(err, kind); is != (kind == tt.want) {
					t.Errorf("%s: %v is %v: %t", what, err, kind, is)
				}
			}
		}
	}
}

// TestUpgrade replaces the engine by one that does not speak the old version
// of the API any more.
func TestUpgrade(t *testing.T) {
	events := make(chan struct{})
	var mu sync.Mutex
	version := "1.41"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		v := version
		mu.Unlock()
		w.Header().Set("Api-Version", v)
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
		case !strings.HasPrefix(r.URL.Path, "/v"+v+"/"):
			http.Error(w, `{"message": "client version is too old"}`, http.StatusBadRequest)
		case strings.HasSuffix(r.URL.Path, "/events"):
			w.(http.Flusher).Flush()
			<-events
		default:
			io.WriteString(w, inactiveInfo)
		}
	}))
	t.Cleanup(s.Close)
	e := swarm.DockerEngine(t, "tcp://"+s.Listener.Addr().String())
	if _, err := e.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	watching, gone := make(chan struct{}), make(chan error)
	go func() { gone <- e.Watch(t.Context(), func() { close(watching) }) }()
	<-watching
	mu.Lock()
	version = "1.44"
	mu.Unlock()
	close(events) // the old engine ends
	if err := <-gone; err == nil {
		t.Error("Watch ended without a reason")
	}
	if _, err := e.Info(t.Context()); err != nil {
		t.Errorf("after the upgrade: %v", err)
	}
}

func TestHosts(t *testing.T) {
	for host, ok := range map[string]bool{
		"": true, "unix:///run/docker.sock": true, "tcp://10.0.0.1:2375": true,
		"/run/docker.sock": false, "http://10.0.0.1:2375": false, "docker": false, "tcp//x": false,
	} {
		if _, err := swarm.New(swarm.Config{Host: host, Log: discard()}); (err == nil) != ok {
			t.Errorf("%q: %v", host, err)
		}
	}
}
