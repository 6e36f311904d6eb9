package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"bootd/boot"
	"bootd/boot/ipxe"
	"bootd/boot/lease"
	"bootd/internal/controller"
	"bootd/internal/esx"
	"bootd/internal/esx/esxtest"
	"bootd/internal/esx/vmdk"
	"bootd/internal/fleet"
	"bootd/internal/override"
	"bootd/internal/spool"
	"bootd/internal/store"
	"bootd/internal/swarm"
	"bootd/internal/swarm/swarmtest"
	"bootd/internal/task"
	"bootd/internal/timeline"
)

// A guestSite is all of bootd that has to do with clusters, but for its listeners: the
// controller over a simulated host, the record of boots, and a swarm on an engine in
// memory. Its VMs do what their Ignition configs say a node does.
type guestSite struct {
	*testing.T
	guests  *guests
	control *controller.Controller
	tasks   *task.Runner
	engine  *swarmtest.Engine
	host    *esxtest.Host
	reports string // where the VMs reach bootd
	project fleet.ProjectID

	running sync.WaitGroup // what VMs do
	mu      sync.Mutex
	configs []string // that VMs were switched on with
	deaf    bool     // VMs that are switched on do nothing
	taken   []string // addresses that refuse connections
}

var operator = controller.Principal{Name: "operator", Role: controller.Admin}

// newGuestSite starts it, with a configuration.
func newGuestSite(t *testing.T, files map[string]string) *guestSite {
	t.Helper()
	state := t.TempDir()
	files["bootd.yaml"] = "state_dir: " + state + "\nhttp: {port: 8080}\nnetworks:\n" +
		"  - {name: rack, interface: lo, subnet: 10.77.0.0/24, server: 10.77.0.2, mode: 'off'}\n" + files["bootd.yaml"]
	cfg := site(t, files)
	s := &guestSite{T: t, engine: swarmtest.New("10.77.0.2")}
	db, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(state, "store"), Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	record, err := timeline.New(t.Context(), db, silent)
	if err != nil {
		t.Fatal(err)
	}
	overrides, err := override.Load(t.Context(), db, silent)
	if err != nil {
		t.Fatal(err)
	}
	leases, err := lease.Open(filepath.Join(state, "leases"), silent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = leases.Close() })
	images, err := openAssets(cfg)
	if err != nil {
		t.Fatal(err)
	}
	live, err := newLive(cfg, images, overrides, silent)
	if err != nil {
		t.Fatal(err)
	}
	herd := &swarms{live: live, record: record, overrides: overrides, store: db, log: silent, again: make(chan struct{}, 1)}
	for _, d := range cfg.Swarms {
		herd.kept = append(herd.kept, &keptSwarm{Swarm: swarm.NewOn(herd.swarmConfig(cfg, d), s.engine), made: d})
	}
	tickets, err := boot.NewTickets(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	given, err := newGiven(t.Context(), db, live, func(boot.MAC) bool { return true }, silent)
	if err != nil {
		t.Fatal(err)
	}
	r := &renderer{join: herd.join, leave: herd.drainTimeout}
	s.guests = &guests{live: live, record: record, herd: herd, renderer: r, tickets: tickets, leases: leases, key: []byte("key"), log: silent,
		dial: s.dial, known: map[fleet.VMID]guest{}}
	live.guests = s.guests.entries
	live.changed = herd.nudge
	web := httptest.NewServer(ipxe.New(ipxe.Config{
		Assign: func(inv boot.Inventory) (boot.Assignment, error) { return live.assign(inv, record.Current) },
		Boots:  watched{record, overrides, given, herd.nudge}, Joining: r.joining, Leaving: herd.leave, Installs: installs{overrides}, Tickets: tickets, Log: silent,
	}))
	t.Cleanup(func() {
		web.CloseClientConnections()
		web.Close()
		s.running.Wait()
	})
	s.reports = web.URL
	s.start(db, state, herd, record)
	return s
}

// start runs what is long-lived until the test ends.
func (s *guestSite) start(db *store.Store, state string, herd *swarms, record *timeline.Recorder) {
	s.Helper()
	images, err := spool.Open(filepath.Join(state, "spool"))
	if err != nil {
		s.Fatal(err)
	}
	s.host, err = esxtest.Start(esxtest.Options{Name: "esx-1", MemoryBytes: 64 << 30, Cores: 8, DatastoreBytes: 1 << 40, Backend: s, Serial: true})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(s.host.Close)
	s.tasks = task.New(db, task.Options{Pause: 10 * time.Millisecond, Log: silent})
	s.control = controller.New(db, s.tasks, controller.Options{Spool: images, Nodes: s.guests, Look: 20 * time.Millisecond, Rounds: time.Hour, Grace: patience,
		Connect: func(h fleet.Host) (controller.Hypervisor, error) {
			return esx.New(esx.Config{Address: h.Address, Username: h.Username, Password: h.Password, Fingerprint: h.Fingerprint})
		}})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{record.Run, herd.Run, s.tasks.Run, s.control.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				s.Errorf("%v", err)
			}
		})
	}
	s.Cleanup(func() {
		cancel()
		wg.Wait()
		s.control.Close()
	})
}

const patience = 2 * time.Minute

// dial refuses connections to some addresses, and hears nothing of others.
func (s *guestSite) dial(_ context.Context, _, addr string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if host, _, _ := net.SplitHostPort(addr); slices.Contains(s.taken, host) {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	return nil, errors.New("no route to host")
}

// PowerOn implements esxtest's Backend: the VM does what a node does.
func (s *guestSite) PowerOn(_ *esxtest.Host, m esxtest.Machine) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	config, err := unpacked(m.ExtraConfig)
	if err != nil {
		return err
	}
	s.configs = append(s.configs, config)
	if !s.deaf {
		s.running.Go(func() { s.node(config) })
	}
	return nil
}

// PowerOff implements esxtest's Backend.
func (s *guestSite) PowerOff(*esxtest.Host, esxtest.Machine) error { return nil }

// Destroyed implements esxtest's Backend.
func (s *guestSite) Destroyed(*esxtest.Host, types.ManagedObjectReference) {}

// unpacked is the config in a VM's configuration.
func unpacked(extra map[string]string) (string, error) {
	if extra["guestinfo.ignition.config.data.encoding"] != "gzip+base64" {
		return "", fmt.Errorf("encoding %q", extra["guestinfo.ignition.config.data.encoding"])
	}
	b, err := base64.StdEncoding.DecodeString(extra["guestinfo.ignition.config.data"])
	if err != nil {
		return "", err
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(z)
	return string(out), err
}

// fileIn is a file of an Ignition config.
func fileIn(config, path string) string {
	var c struct {
		Storage struct {
			Files []struct {
				Path     string
				Contents struct{ Source string }
			}
		}
	}
	if json.Unmarshal([]byte(config), &c) != nil {
		return ""
	}
	for _, f := range c.Storage.Files {
		if f.Path != path {
			continue
		}
		if packed, ok := strings.CutPrefix(f.Contents.Source, "data:;base64,"); ok {
			text, _ := unpacked(map[string]string{"guestinfo.ignition.config.data": packed, "guestinfo.ignition.config.data.encoding": "gzip+base64"})
			return text
		}
		text, _ := url.PathUnescape(strings.TrimPrefix(f.Contents.Source, "data:,"))
		return strings.TrimSpace(text)
	}
	return ""
}

// node is a node's life up to its joining.
func (s *guestSite) node(config string) {
	report := func(stage, node string) {
		_, path, _ := strings.Cut(fileIn(config, "/etc/bootd/report-url"), ":8080")
		resp, err := http.Post(s.reports+path, "application/json", strings.NewReader(fmt.Sprintf(`{"stage": %q, "node": %q}`, stage, node)))
		if err != nil {
			return // the test has ended
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			s.Errorf("report of %s: %s", stage, resp.Status)
		}
	}
	report("up", "")
	var join struct {
		RemoteAddrs             []string
		JoinToken, Availability string
	}
	if json.Unmarshal([]byte(fileIn(config, "/etc/bootd/swarm-join.json")), &join) != nil {
		return // it joins none
	}
	report("engine", "")
	id, err := s.engine.Join(swarm.JoinInfo{Addr: join.RemoteAddrs[0], Token: join.JoinToken}, fileIn(config, "/etc/hostname"), swarm.Availability(join.Availability))
	if err != nil {
		s.Errorf("join: %v", err)
		return
	}
	report("joined", id)
}

// done waits for a task that must succeed, and is the ID of its entity.
func (s *guestSite) done(t fleet.Task, err error) string {
	s.Helper()
	t = s.ended(t, err)
	if t.State != fleet.TaskCompleted {
		s.Fatalf("%s: %+v", t.Operation, t.Cause())
	}
	return t.Entity.ID
}

func (s *guestSite) ended(t fleet.Task, err error) fleet.Task {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	if t, err = s.tasks.Wait(ctx, t.ID); err != nil {
		s.Fatal(err)
	}
	return t
}

// furnish registers the host, uploads an image, and makes a project.
func (s *guestSite) furnish(kinds ...fleet.ClusterType) {
	s.Helper()
	ctx := s.Context()
	raw := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 1 << 10 {
		raw[i] = byte(r.Uint32())
	}
	var disk bytes.Buffer
	if err := vmdk.WriteStream(&disk, bytes.NewReader(raw), int64(len(raw)), "lsilogic"); err != nil {
		s.Fatal(err)
	}
	s.done(s.control.CreateHost(ctx, operator, controller.HostSpec{Address: s.host.Address(), Username: "root", Password: "secret", Tags: []fleet.UsageTag{fleet.Cloud}}))
	image := fleet.ImageID(s.done(s.control.UploadImage(ctx, operator, controller.ImageSpec{Name: "node.vmdk", Replication: fleet.OnDemand}, &disk)))
	for _, k := range kinds {
		s.done(s.control.EnableClusters(ctx, operator, fleet.DefaultDeployment, k, image))
	}
	tenant := fleet.TenantID(s.done(s.control.CreateTenant(ctx, operator, "acme", nil)))
	limit, err := fleet.NewAmount(100, fleet.Count)
	if err != nil {
		s.Fatal(err)
	}
	limits := fleet.Amounts{"vm": limit}
	s.done(s.control.CreateTicket(ctx, operator, tenant, "gold", limits))
	s.project = fleet.ProjectID(s.done(s.control.CreateProject(ctx, operator, tenant, controller.ProjectSpec{Name: "web", Ticket: "gold", Limits: limits})))
}

func (s *guestSite) spec(kind fleet.ClusterType, workers int) fleet.ClusterSpec {
	return fleet.ClusterSpec{Name: "two", Type: kind, Workers: workers, Properties: map[string]string{
		"dns": "10.77.0.1", "gateway": "10.77.0.1", "netmask": "255.255.255.0", "etcd_ip1": "10.77.0.11", "zookeeper_ip1": "10.77.0.11",
		"master_ip": "10.77.0.20", "container_network": "10.2.0.0/16"}}
}

// ready makes a cluster and waits until it is.
func (s *guestSite) ready(kind fleet.ClusterType, workers int) fleet.ClusterID {
	s.Helper()
	id := fleet.ClusterID(s.done(s.control.CreateCluster(s.Context(), operator, s.project, s.spec(kind, workers))))
	s.becomesReady(id)
	return id
}

func (s *guestSite) becomesReady(id fleet.ClusterID) {
	s.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := s.control.Cluster(s.Context(), operator, id)
		switch {
		case err != nil:
			s.Fatal(err)
		case c.State == fleet.ClusterReady:
			return
		case c.ErrorReason != "", time.Now().After(end):
			s.Fatalf("the cluster is %s: %s", c.State, c.ErrorReason)
		}
	}
}

// members are the swarm's nodes of clusters: their role, and whether they take work.
func (s *guestSite) members() []string {
	s.Helper()
	k, err := s.guests.herd.all("")
	if err != nil {
		s.Fatal(err)
	}
	nodes, err := k[0].Nodes(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	var out []string
	for _, n := range nodes {
		if !n.Self {
			kind, _, _ := strings.Cut(n.Machine, "-")
			out = append(out, fmt.Sprintf("%s %s %s cluster=%s", kind, n.Role, n.State, n.Labels["cluster"]))
		}
	}
	slices.Sort(out)
	return out
}

// expectMembers waits for them.
func (s *guestSite) expectMembers(want ...string) {
	s.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := s.members()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("the swarm has %q, want %q", got, want)
		}
	}
}

// TestGuestsSwarm: the nodes of a cluster join the swarm that bootd keeps, by what is
// in the configurations of their VMs, and leave it as they go.
func TestGuestsSwarm(t *testing.T) {
	s := newGuestSite(t, map[string]string{
		"bootd.yaml":          "swarm: {}\ncontroller: {clusters: {swarm: {worker: other}}}\n",
		"profiles/other.yaml": "name: other\nfiles: [{path: /etc/motd, contents: hello}]\nswarm: {labels: {tier: backend}}\n",
	})
	s.furnish(fleet.Swarm)
	const manager, worker = "etcd manager ready cluster=two", "worker worker ready cluster=two"
	id := s.ready(fleet.Swarm, 2)
	s.expectMembers(manager, worker, worker)
	s.mu.Lock()
	address := fileIn(s.configs[0], "/etc/NetworkManager/system-connections/bootd.nmconnection")
	s.mu.Unlock()
	if !strings.Contains(address, "address1=10.77.0.11/24,10.77.0.1") {
		t.Errorf("the manager's address: %q", address)
	}
	if k, _ := s.guests.herd.all(""); k != nil {
		nodes, err := k[0].Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if wanted := strings.HasPrefix(n.Machine, "worker"); wanted != (n.Labels["tier"] == "backend") {
				t.Errorf("%s has labels %v", n.Machine, n.Labels) // of its profile
			}
		}
	}

	s.done(s.control.ResizeCluster(t.Context(), operator, id, 1))
	s.becomesReady(id)
	s.expectMembers(manager, worker)
	if k, _ := s.guests.herd.all(""); k[0].Counters().Drains != 1 {
		t.Errorf("%d nodes were drained", k[0].Counters().Drains)
	}

	// A VM that is lost is replaced, and so is its node.
	vms, err := s.control.ClusterVMs(t.Context(), operator, id)
	if err != nil {
		t.Fatal(err)
	}
	y, err := esx.New(esx.Config{Address: s.host.Address(), Username: "root", Password: "secret", Fingerprint: s.host.Fingerprint()})
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	for _, v := range vms {
		if err := y.DeleteVM(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}
	}
	s.done(s.control.MaintainCluster(t.Context(), operator, id))
	s.expectMembers(manager, worker)

	s.done(s.control.DeleteCluster(t.Context(), operator, id))
	s.expectMembers()
	if profiles, machines := s.guests.entries(s.guests.live.config()); len(profiles)+len(machines) > 0 {
		t.Errorf("still known: %v", machines)
	}
	if seen := s.guests.record.Machines(); len(seen) > 0 {
		t.Errorf("still on record: %+v", seen)
	}
}

// TestGuestsOthers: the nodes of other clusters are up when they say so.
func TestGuestsOthers(t *testing.T) {
	s := newGuestSite(t, map[string]string{"bootd.yaml": "controller: {}\n"})
	s.furnish(fleet.Kubernetes, fleet.Mesos)
	for _, kind := range []fleet.ClusterType{fleet.Kubernetes, fleet.Mesos} {
		id := s.ready(kind, 1)
		s.done(s.control.DeleteCluster(t.Context(), operator, id))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.configs); n != 3+6 {
		t.Errorf("%d VMs were switched on", n)
	}
}

// TestGuestsChecked: what cannot work is told before there is a cluster.
func TestGuestsChecked(t *testing.T) {
	s := newGuestSite(t, map[string]string{
		"bootd.yaml": "  - {name: hall, interface: lo, subnet: 10.79.0.0/24, server: 10.79.0.2, range: 10.79.0.100-10.79.0.200}\n" +
			"controller: {clusters: {mesos: {zookeeper: live}}}\n",
		"profiles/live.yaml": "name: live\nimage: fedora-coreos/stable\n",
		"machines/a.yaml":    "- {name: printer, mac: '52:54:00:00:00:01', profile: plain, ip: 10.77.0.12}\n", "profiles/plain.yaml": "name: plain\n",
	})
	for _, c := range []struct {
		kind   fleet.ClusterType
		image  fleet.ImageID
		change func(map[string]string)
		want   string
	}{
		{fleet.Swarm, "i", func(map[string]string) {}, "bootd keeps no swarm that nodes could join: add swarm: {} to bootd.yaml"},
		{fleet.Kubernetes, "i", func(map[string]string) {}, ""},
		{fleet.Kubernetes, "", func(map[string]string) {}, "gateway: bootd gives no addresses in network rack"},
		{fleet.Mesos, "", func(p map[string]string) {
			p["gateway"], p["dns"], p["zookeeper_ip1"] = "10.79.0.1", "10.79.0.1", "10.79.0.11"
		}, "add controller.clusters.mesos.master: PROFILE to bootd.yaml"},
		{fleet.Kubernetes, "i", func(p map[string]string) { p["etcd_ip1"] = "10.77.0.12" }, "10.77.0.12 is the address of machine printer (machines/a.yaml:1:3)"},
		{fleet.Mesos, "i", func(p map[string]string) {
			p["gateway"], p["dns"], p["zookeeper_ip1"] = "10.78.0.1", "10.78.0.1", "10.78.0.11"
		}, "gateway: 10.78.0.1 is in none of the networks of bootd.yaml"},
	} {
		spec := s.spec(c.kind, 1)
		c.change(spec.Properties)
		x, err := spec.Cluster("c", "p")
		if err != nil {
			t.Fatal(err)
		}
		x.Image = c.image
		err = s.guests.Check(x)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || fleet.CodeOf(err) != fleet.SpecInvalid) {
			t.Errorf("%s: %v, want %q", c.kind, err, c.want)
		}
	}
	s.mu.Lock()
	s.taken = []string{"10.77.0.11"}
	s.mu.Unlock()
	s.furnish(fleet.Mesos)
	failed := s.ended(s.control.CreateCluster(t.Context(), operator, s.project, s.spec(fleet.Mesos, 1)))
	if c := failed.Cause(); c == nil || c.Code != fleet.IPAddressInUse || !strings.Contains(c.Message, "10.77.0.11") {
		t.Errorf("%+v", failed)
	}
}

// TestGuestsDiskless: a node without a disk has an entry like a machine's before it is
// switched on, and none when it is gone.
func TestGuestsDiskless(t *testing.T) {
	s := newGuestSite(t, map[string]string{
		"bootd.yaml": "  - {name: hall, interface: lo, subnet: 10.79.0.0/24, server: 10.79.0.2, range: 10.79.0.100-10.79.0.200}\n" +
			"swarm: {}\ncontroller: {clusters: {swarm: {etcd: live, worker: live}}}\n",
		"profiles/live.yaml": "name: live\nimage: fedora-coreos/stable\n",
	})
	c, err := fleet.ClusterSpec{Name: "two", Type: fleet.Swarm, Properties: map[string]string{
		"dns": "10.79.0.1", "gateway": "10.79.0.1", "netmask": "255.255.255.0", "etcd_ip1": "10.79.0.11"}}.Cluster("c", "p")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.guests.Check(c); err != nil {
		t.Fatal(err)
	}
	n := fleet.Node{VM: "v", Cluster: "c", Type: fleet.SwarmEtcd, Name: "etcd-v", MAC: boot.MAC{0, 0x50, 0x56, 1, 2, 3}, Addr: c.Static[0]}
	if told, err := s.guests.Prepare(t.Context(), c, n); err != nil || told != nil {
		t.Errorf("%v, %v", told, err)
	}
	a, err := s.guests.live.catalog().Assign(boot.Inventory{MAC: n.MAC})
	if err != nil || a.Name != "etcd-v" || a.Machine == nil || a.Machine.IP != n.Addr || a.Profile.Image != "fedora-coreos/stable" ||
		a.Profile.Swarm == nil || a.Profile.Swarm.Role != boot.Manager || len(a.Profile.Files) > 0 {
		t.Errorf("%+v %+v, %v", a, a.Profile, err)
	}
	if err := s.guests.Check(c); err == nil || !strings.Contains(err.Error(), "10.79.0.11 is the address of machine etcd-v (a node of cluster two)") {
		t.Errorf("another one: %v", err)
	}
	if err := s.guests.Forget(t.Context(), c, n); err != nil {
		t.Error(err)
	}
	if a, err := s.guests.live.catalog().Assign(boot.Inventory{MAC: n.MAC}); err != nil || a.Machine != nil {
		t.Errorf("still known: %+v, %v", a.Machine, err)
	}
}

// TestStanding: what is known of a node that is not up says where it hangs.
func TestStanding(t *testing.T) {
	mac := boot.MAC{0, 0x50, 0x56, 0, 0, 1}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(stages ...boot.Stage) boot.Timeline {
		tl := boot.Timeline{ID: "b", MAC: mac, Started: now}
		for i, s := range stages {
			tl.Apply(boot.Event{Time: now.Add(time.Duration(i) * time.Second), MAC: mac, Stage: s})
		}
		return tl
	}
	in := func(s swarm.NodeState, tasks int) []swarm.NodeStatus {
		return []swarm.NodeStatus{{MAC: boot.MAC{1}, State: swarm.NodeReady}, {MAC: mac, State: s, Since: now, Tasks: tasks}}
	}
	for name, c := range map[string]struct {
		boot    boot.Timeline
		members []swarm.NodeStatus
		want    fleet.Standing
	}{
		"unheard":    {at(boot.Ignition), nil, fleet.Standing{Live: true, Why: unheard}},
		"up":         {at(boot.Ignition, boot.Up), nil, fleet.Standing{Live: true, Why: "it is up, and its engine is not"}},
		"engine":     {at(boot.Ignition, boot.Up, boot.Engine), nil, fleet.Standing{Live: true, Why: "its engine is up, and has not joined the swarm"}},
		"not listed": {at(boot.Ignition, boot.Up, boot.Engine, boot.Joined), nil, fleet.Standing{Live: true, Why: "it says that it has joined, and the swarm does not show it as ready"}},
		"ready":      {at(boot.Joined), in(swarm.NodeReady, 3), fleet.Standing{Up: true, Live: true, Since: now, Tasks: 3}},
		"down":       {at(boot.Joined), in(swarm.NodeDown, 0), fleet.Standing{Live: true, Since: now, Why: "the swarm says that it is down"}},
	} {
		if got := standing(fleet.Node{MAC: mac}, c.boot, c.members); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if got := reported(at(boot.Ignition, boot.Up)); !got.Up || got.Live || !got.Since.Equal(now.Add(time.Second)) {
		t.Errorf("%+v", got)
	}
}
