package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/api"
	"bootd/internal/client"
)

var (
	mac   = boot.MAC{0x52, 0x54, 0, 0, 0, 1}
	epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	addrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

// A record is a list of events that grows; it outlives servers.
type record struct {
	mu      sync.Mutex
	events  []api.Event
	changed chan struct{}
}

func newRecord(n int) *record {
	r := &record{changed: make(chan struct{})}
	for range n {
		r.add(boot.Event{Time: epoch, MAC: mac, Stage: boot.Offered})
	}
	return r
}

func (r *record) add(e boot.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, api.Event{Seq: uint64(len(r.events) + 1), Event: e})
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *record) past(seq uint64) []api.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events[min(int(seq), len(r.events)):]
}

func (r *record) follow(ctx context.Context, seq uint64, f func(api.Event) error) error {
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		for _, e := range r.past(seq) {
			if err := f(e); err != nil {
				return err
			}
			seq = e.Seq
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

var (
	status  = api.Status{Version: "1", PID: 7, Started: epoch, Config: "/etc/bootd", Networks: []api.Network{{Name: "rack", Subnet: netip.MustParsePrefix("10.0.0.0/24")}}}
	machine = api.Machine{Name: "node/1", MAC: mac, Profile: "worker", Stage: boot.Ready, Since: epoch, Addr: netip.MustParseAddr("10.0.0.11"),
		Boot: &boot.Timeline{ID: "1", MAC: mac, Started: epoch, Steps: []boot.Step{{Stage: boot.Ready, First: epoch, Last: epoch, Count: 1}}}}
	lease = api.Lease{MAC: mac, Addr: netip.MustParseAddr("10.0.0.11"), Network: "rack", State: "bound", Expires: epoch}
	node  = api.Node{Machine: "node1", ID: "x", Role: boot.Worker, State: "ready", Labels: map[string]string{"tier": "front"}, Since: epoch}
)

// told adds what an operator said to the record, as an event's text.
func (r *record) told(format string, args ...any) {
	r.add(boot.Event{Text: fmt.Sprintf(format, args...)})
}

func (r *record) Nodes(context.Context, string) ([]api.Node, error) { return []api.Node{node}, nil }

func (r *record) SetAvailability(_ context.Context, swarm, name string, in api.Availability) (api.Node, error) {
	r.told("%s of %s/%s %s", in.Availability, swarm, name, in.Reason)
	return node, nil
}

func (r *record) Remove(_ context.Context, swarm, name string, force bool) (api.Removal, error) {
	r.told("remove %s/%s %t", swarm, name, force)
	return api.Removal{ID: "n"}, nil
}

func (r *record) Prune(_ context.Context, swarm string, dryRun bool) ([]api.Removal, error) {
	r.told("prune %s %t", swarm, dryRun)
	return []api.Removal{{ID: "n"}}, nil
}

func (r *record) RotateTokens(_ context.Context, swarm string) error {
	r.told("rotate %s", swarm)
	return nil
}

func (r *record) Replace(_ context.Context, swarm string) (api.Replaced, error) {
	r.told("replace %s", swarm)
	return api.Replaced{Was: "s1"}, nil
}

func (r *record) Approve(_ context.Context, m api.Machine, in api.Approval) error {
	r.told("approve %s %s %s", m.Name, in.Profile, in.Name)
	return nil
}

func (r *record) Next(_ context.Context, m api.Machine, in api.Next) error {
	r.told("next %s %q", m.Name, in.Profile)
	return nil
}

func (r *record) Install(_ context.Context, m api.Machine, wanted bool) error {
	r.told("install %s %t", m.Name, wanted)
	return nil
}

func (r *record) Forget(_ context.Context, m api.Machine) error {
	r.told("forget %s", m.Name)
	return nil
}

func (r *record) Release(_ context.Context, a netip.Addr) error {
	r.told("release %s", a)
	return nil
}

// TestOrders: what is said arrives as it was said.
func TestOrders(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	r := newRecord(0)
	serve(t, socket, r)
	c, ctx := client.New(socket), t.Context()
	_, err1 := c.SetAvailability(ctx, "blue", "rack 1/a", api.Availability{Availability: "drain", Reason: "a fan"})
	removal, err2 := c.RemoveNode(ctx, "", "n1", true)
	list, err3 := c.Prune(ctx, "blue", true)
	_, err4 := c.Prune(ctx, "", false)
	was, err5 := c.ReplaceSwarm(ctx, "blue")
	if err := errors.Join(err1, err2, err3, err4, err5,
		c.RotateTokens(ctx, "blue"),
		c.Approve(ctx, "node/1", api.Approval{Profile: "worker", Name: "n7"}),
		c.Next(ctx, "node/1", &api.Next{Profile: "rescue"}),
		c.Next(ctx, "node/1", nil),
		c.Install(ctx, "node/1", true),
		c.Install(ctx, "node/1", false),
		c.Forget(ctx, "node/1"),
		c.Release(ctx, netip.MustParseAddr("10.0.0.11")),
	); err != nil {
		t.Fatal(err)
	}
	if removal.ID != "n" || len(list) != 1 || was.Was != "s1" {
		t.Errorf("answers: %+v, %+v", removal, list)
	}
	var told []string
	for _, e := range r.past(0) {
		told = append(told, e.Text)
	}
	want := []string{"drain of blue/rack 1/a a fan", "remove /n1 true", "prune blue true", "prune  false", "replace blue", "rotate blue",
		"approve node/1 worker n7", `next node/1 "rescue"`, `next node/1 ""`, "install node/1 true", "install node/1 false",
		"forget node/1", "release 10.0.0.11"}
	if d := cmp.Diff(want, told); d != "" {
		t.Error(d)
	}
}

// serve runs a server of r at a socket, until the returned function is called.
func serve(t *testing.T, socket string, r *record) (stop func()) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := api.Listen(socket, api.New(api.Config{
		Status:   func() api.Status { return status },
		Machines: func() []api.Machine { return []api.Machine{machine} },
		Boots:    func(context.Context, boot.MAC) ([]boot.Timeline, error) { return []boot.Timeline{*machine.Boot}, nil },
		Leases:   func() []api.Lease { return []api.Lease{lease} },
		Swarms:   r,
		Orders:   r,
		Record:   func(_ context.Context, e boot.Event) error { r.add(e); return nil },
		Past:     r.past, Follow: r.follow, Log: log,
	}), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestMethods(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	r := newRecord(0)
	serve(t, socket, r)
	c := client.New(socket)
	ctx := t.Context()
	same := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(want, got, addrs, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	st, err := c.Status(ctx)
	same("status", st, status, err)
	machines, err := c.Machines(ctx)
	same("machines", machines, []api.Machine{machine}, err)
	m, err := c.Machine(ctx, "node/1") // a name that has to be escaped
	same("machine", m, machine, err)
	boots, err := c.Boots(ctx, mac.String())
	same("boots", boots, []boot.Timeline{*machine.Boot}, err)
	leases, err := c.Leases(ctx)
	same("leases", leases, []api.Lease{lease}, err)
	nodes, err := c.SwarmNodes(ctx, "")
	same("nodes", nodes, []api.Node{node}, err)

	power := boot.Event{Time: epoch, MAC: mac, Stage: boot.Power, Text: "switched on"}
	if err := c.Report(ctx, power); err != nil {
		t.Error(err)
	}
	same("reported", r.past(0), []api.Event{{Seq: 1, Event: power}}, nil)

	var p *api.Problem
	if err := c.Report(ctx, boot.Event{Stage: boot.Ready}); !errors.As(err, &p) || p.Status != 400 || !strings.Contains(err.Error(), "from outside") {
		t.Errorf("a report that is refused: %v", err)
	}
	if _, err := c.Machine(ctx, "node9"); !errors.As(err, &p) || p.Status != 404 || !strings.Contains(err.Error(), "node9") {
		t.Errorf("a machine that is not there: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	ctx := t.Context()
	says := func(t *testing.T, socket string, want ...string) {
		t.Helper()
		c := client.New(socket)
		_, err := c.Status(ctx)
		for _, e := range []error{err, c.Report(ctx, boot.Event{}), c.Events(ctx, "", 0, true, nil), c.Events(ctx, "", 0, false, nil)} {
			for _, w := range want {
				if e == nil || !strings.Contains(e.Error(), w) {
					t.Errorf("%v; want %q in it", e, w)
				}
			}
		}
		if !errors.Is(err, client.ErrUnreachable) && want[0] == "bootd is not running" {
			t.Errorf("%v is not ErrUnreachable", err)
		}
	}
	t.Run("never started", func(t *testing.T) {
		says(t, filepath.Join(dir, "none"), "bootd is not running", filepath.Join(dir, "none"), "no such file", "`bootd serve`", "--socket")
	})
	t.Run("killed", func(t *testing.T) {
		socket := filepath.Join(dir, "stale")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		says(t, socket, "bootd is not running", "refused")
	})
	t.Run("goes away in the middle", func(t *testing.T) {
		socket := filepath.Join(dir, "torn")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		says(t, socket, "bootd is not running", "went away")
	})
	t.Run("not allowed", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("root may connect to every socket")
		}
		socket := filepath.Join(dir, "private")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := os.Chmod(socket, 0); err != nil {
			t.Fatal(err)
		}
		says(t, socket, "permission denied", "be root")
	})
	t.Run("somebody else", func(t *testing.T) {
		socket := filepath.Join(dir, "other")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				// Closed before the request is read, it would fail to be written.
				_, _ = c.Read(make([]byte, 4096))
				_, _ = c.Write([]byte("HTTP/1.0 200 OK\r\n\r\nhello"))
				c.Close()
			}
		}()
		if _, err := client.New(socket).Status(ctx); err == nil || !strings.Contains(err.Error(), "cannot read the answer") {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := client.New(filepath.Join(dir, "none")).Status(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v", err)
		}
	})
}

func TestPastEvents(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	serve(t, socket, newRecord(3))
	c := client.New(socket)
	var got []uint64
	note := func(e api.Event) error { got = append(got, e.Seq); return nil }
	if err := c.Events(t.Context(), "", 1, false, note); err != nil {
		t.Fatal(err)
	}
	if err := c.Events(t.Context(), "node/1", 2, false, note); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{2, 3, 3}, got); diff != "" {
		t.Error(diff)
	}
	enough := errors.New("enough")
	for _, follow := range []bool{false, true} {
		if err := c.Events(t.Context(), "", 0, follow, func(api.Event) error { return enough }); err != enough {
			t.Errorf("follow %v: err = %v", follow, err)
		}
		var p *api.Problem
		if err := c.Events(t.Context(), "node9", 0, follow, note); !errors.As(err, &p) || p.Status != 404 {
			t.Errorf("follow %v: err = %v", follow, err)
		}
	}
}

// TestFollowOverRestarts: events of the past, of now, and of after a restart
// come once each, in order.
func TestFollowOverRestarts(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	r := newRecord(2)
	stop := serve(t, socket, r)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan uint64, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- client.New(socket).Events(ctx, "", 0, true, func(e api.Event) error { got <- e.Seq; return nil })
	}()
	next := func(want uint64) {
		t.Helper()
		select {
		case seq := <-got:
			if seq != want {
				t.Fatalf("event %d, want %d", seq, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("event %d never came", want)
		}
	}
	next(1)
	next(2)
	r.add(boot.Event{Time: epoch, MAC: mac, Stage: boot.Leased})
	next(3)
	stop()
	r.add(boot.Event{Time: epoch, MAC: mac, Stage: boot.Script})
	serve(t, socket, r)
	next(4)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(got) > 0 {
		t.Errorf("event %d came again", <-got)
	}
}
