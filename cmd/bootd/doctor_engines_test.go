package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"bootd/internal/doctor"
	"bootd/internal/swarm/dockertest"
)

// TestDoctorOfEngines shows real Docker engines to the doctor.
func TestDoctorOfEngines(t *testing.T) {
	lab := dockertest.New(t)
	manager, worker := lab.Engine("manager"), lab.Engine("worker")
	dir := t.TempDir()
	check := func(e *dockertest.Engine, level doctor.Level, text string) {
		t.Helper()
		write(t, dir, map[string]string{"bootd.yaml": "networks: []\nstate_dir: state\napi: {socket: sock}\nswarm: {host: '" + e.Host + "', advertise: " + e.Addr + "}\n"})
		var out, said bytes.Buffer
		run(t.Context(), []string{"doctor", "-c", dir, "-o", "json"}, nil, &out, &said)
		var found []doctor.Finding
		if err := json.Unmarshal(out.Bytes(), &found); err != nil {
			t.Fatalf("%v\n%s%s", err, &out, &said)
		}
		i := slices.IndexFunc(found, func(f doctor.Finding) bool { return f.Check == "swarm default" })
		if i < 0 || found[i].Level != level || !strings.Contains(found[i].Text, text) || (found[i].Remedy == "") != (level == doctor.OK) {
			t.Errorf("found %+v, want %s %q", found, level, text)
		}
	}
	check(manager, doctor.OK, "in no swarm yet")
	docker(t, manager, "POST", "/swarm/init", map[string]any{"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": manager.Addr}, nil)
	check(manager, doctor.OK, ", a manager")
	var made struct{ JoinTokens struct{ Worker string } }
	docker(t, manager, "GET", "/swarm", nil, &made)
	docker(t, worker, "POST", "/swarm/join", map[string]any{"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": worker.Addr,
		"RemoteAddrs": []string{manager.Addr + ":2377"}, "JoinToken": made.JoinTokens.Worker}, nil)
	check(worker, doctor.Fault, "is a worker of a swarm")
	worker.Stop()
	check(worker, doctor.Fault, "cannot be asked")
}

// docker asks an engine.
func docker(t *testing.T, e *dockertest.Engine, method, path string, body, answer any) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(e.Host, "unix://"))
	}}}
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://docker"+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	got, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(got.Body); err != nil || got.StatusCode != http.StatusOK {
		t.Fatal(fmt.Errorf("%s %s: %s %w\n%s", method, path, got.Status, err, &text))
	}
	if answer != nil {
		if err := json.Unmarshal(text.Bytes(), answer); err != nil {
			t.Fatal(err)
		}
	}
}
