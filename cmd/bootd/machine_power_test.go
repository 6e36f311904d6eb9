package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/api"
	"bootd/internal/client"
)

// A rack has machines whose power is asked for; slow ones answer when no other
// is asked for any more.
type rack struct {
	machines []api.Machine
	slow     string // a machine
	others   chan struct{}
	now, top atomic.Int32 // asked at once
}

func (r *rack) State(ctx context.Context, m api.Machine) (api.PowerState, error) {
	n := r.now.Add(1)
	defer r.now.Add(-1)
	for top := r.top.Load(); n > top && !r.top.CompareAndSwap(top, n); top = r.top.Load() {
	}
	if m.Name != r.slow {
		r.others <- struct{}{}
		return api.PowerState{Machine: m.Name, State: "on", Kind: boot.IPMI}, nil
	}
	for range len(r.machines) - 1 {
		select {
		case <-r.others:
		case <-ctx.Done():
			return api.PowerState{}, ctx.Err()
		}
	}
	return api.PowerState{}, &api.Problem{Title: "Gateway Timeout", Status: http.StatusGatewayTimeout, Detail: "does not answer"}
}

func (r *rack) Switch(ctx context.Context, m api.Machine, _ api.PowerOrder) (api.PowerState, error) {
	return r.State(ctx, m)
}

// TestManyMachines: a hundred machines are asked at once, but not all of them,
// and the first one, which is slow, keeps no other back.
func TestManyMachines(t *testing.T) {
	r := &rack{slow: "m00", others: make(chan struct{}, 100)}
	var names []chosen
	for i := range 100 {
		m := api.Machine{Name: fmt.Sprintf("m%02d", i), MAC: boot.MAC{2, 0, 0, 0, 0, byte(i)}}
		r.machines = append(r.machines, m)
		names = append(names, chosen{m.Name, m.MAC.String()})
	}
	socket := filepath.Join(t.TempDir(), "s")
	log := slog.New(slog.DiscardHandler)
	s, err := api.Listen(socket, api.New(api.Config{Machines: func() []api.Machine { return r.machines }, Power: r, Log: log}), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	results := switchAll(ctx, client.New(socket), powerOrder{action: "status"}, names, true)
	for i, got := range results {
		if got.Machine != names[i].name || (got.err != nil) != (i == 0) || i > 0 && got.State != "on" {
			t.Errorf("%d: %+v, %v", i, got, got.err)
		}
	}
	if top := r.top.Load(); top > powerAtOnce {
		t.Errorf("%d machines were asked at once, want at most %d", top, powerAtOnce)
	}
	var out, errs strings.Builder
	a := &app{out: &out, err: &errs, format: "table"}
	if err := a.powerResults(powerOrder{action: "status"}, results); err == nil || err.Error() != "1 of 100 machines failed: m00" {
		t.Error(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 101 {
		t.Errorf("%d lines", n)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestSelectMachines(t *testing.T) {
	list := []api.Machine{
		{Name: "web1", MAC: boot.MAC{2, 0, 0, 0, 0, 1}, Profile: "worker", Inventory: boot.Inventory{Product: "ProLiant/DL360", Serial: "A1"}},
		{Name: "web2", MAC: boot.MAC{2, 0, 0, 0, 0, 2}, Profile: "worker", Stage: boot.Ready, Inventory: boot.Inventory{Product: "PowerEdge", Serial: "B2"}},
		{Name: "db1", Profile: "manager"},
	}
	for _, tt := range []struct {
		selector string
		want     []string
		err      string
	}{
		{"", []string{"web1", "web2", "db1"}, ""},
		{"profile=worker", []string{"web1", "web2"}, ""},
		{"name=WEB?", []string{"web1", "web2"}, ""},
		{"product=proliant*", []string{"web1"}, ""},
		{"profile=worker, serial=b*", []string{"web2"}, ""},
		{"stage=ready", []string{"web2"}, ""},
		{"profile=none", nil, "no machine matches"},
		{"profile", nil, "is not key=pattern"},
		{"profile=", nil, "is not key=pattern"},
		{"rack=1", nil, `knows no "rack"`},
		{"name=[", nil, "syntax error in pattern"},
	} {
		got, err := selectMachines(list, tt.selector)
		var names []string
		for _, c := range got {
			names = append(names, c.name)
		}
		if diff := cmp.Diff(tt.want, names); diff != "" || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %v, %s", tt.selector, err, diff)
		}
		if slices.ContainsFunc(got, func(c chosen) bool { return c.name == "db1" && c.id != "db1" }) {
			t.Errorf("%q: a machine without an address is asked for by its name: %v", tt.selector, got)
		}
	}
}
