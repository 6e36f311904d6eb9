package web_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bootd/boot"
	"bootd/internal/web"
)

// start is when the site below begins, unless its clock is the real one.
var start = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// A site is what a dashboard shows in tests: machines that boot by events, as
// real ones do.
type site struct {
	mu       sync.Mutex
	now      func() time.Time
	status   web.Status
	machines map[string]*web.Machine // by name
	details  map[string]web.Detail
	leases   []web.Lease
	nodes    []web.Node
	nodesErr error
	events   []web.Event
	more     chan struct{} // closed when there is another event
	orders   []string
	refuse   error
}

// newSite is an empty site whose clock stands still at start.
func newSite() *site {
	s := &site{now: func() time.Time { return start }, machines: map[string]*web.Machine{}, details: map[string]web.Detail{}, more: make(chan struct{})}
	s.status = web.Status{
		Version: "1.2.3", Started: start.Add(-50 * time.Hour), Dir: "/etc/bootd", Profiles: []string{"frontend", "rescue", "worker"},
		Networks: []web.Network{
			{Network: boot.Network{Name: "rack", Interface: "eth1", Mode: boot.Authoritative, Subnet: netip.MustParsePrefix("10.0.0.0/16"),
				Ranges: []boot.Range{{First: netip.MustParseAddr("10.0.100.0"), Last: netip.MustParseAddr("10.0.100.150")}}, Origin: boot.Origin{File: "bootd.yaml", Line: 2, Column: 5}}},
			{Network: boot.Network{Name: "office", Interface: "eth2", Mode: boot.Proxy, Subnet: netip.MustParsePrefix("192.168.7.0/24")}},
		},
		Images: []web.Image{{Name: "fedora-coreos/stable", Version: "42.20260301.3.0"}, {Name: "lab"}},
		Swarms: []web.Swarm{{Name: "default", Phase: "ready", Host: "unix:///var/run/docker.sock"}},
	}
	return s
}

func mac(i int) boot.MAC { return boot.MAC{0x52, 0x54, 0, 0, byte(i >> 8), byte(i)} }

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

// way is how a machine boots: seconds after its power button, stage, program,
// text, bytes, milliseconds.
var way = []struct {
	at     float64
	stage  boot.Stage
	client boot.Client
	text   string
	bytes  int64
	took   int
}{
	{0, boot.Power, "", "switched on by redfish", 0, 0},
	{4.9, boot.Offered, boot.Firmware, "UEFI x64: snponly.efi", 0, 0},
	{8.8, boot.Leased, boot.Firmware, "UEFI x64: snponly.efi", 0, 0},
	{8.9, boot.Loader, boot.Firmware, "snponly.efi by TFTP", 173772, 60},
	{10.9, boot.Leased, boot.IPXE, "UEFI x64: http://10.0.0.1/boot.ipxe", 0, 0},
	{10.95, boot.Script, boot.IPXE, "profile worker, image fedora-coreos/stable 42.20260301.3.0", 0, 0},
	{11.6, boot.Kernel, boot.IPXE, "fedora-coreos-live-kernel.x86_64", 14155776, 659},
	{12.8, boot.Initrd, boot.IPXE, "fedora-coreos-live-initramfs.x86_64.img", 88080384, 1175},
	{21.1, boot.Leased, boot.Initramfs, "", 0, 0},
	{30.8, boot.RootFS, boot.Initramfs, "fedora-coreos-live-rootfs.x86_64.img", 922746880, 9500},
	{33.8, boot.Ignition, boot.Initramfs, "by URL", 9113, 128},
	{50.4, boot.Up, boot.System, "", 0, 0},
	{69, boot.Engine, boot.System, "", 0, 0},
	{70, boot.Joined, boot.System, "", 0, 0},
	{71, boot.Ready, "", "node oc4dc1nd ready, labels tier=frontend", 0, 0},
}

// add adds machine i, which was switched on a while ago and has come to a stage.
func (s *site) add(i int, name string, ago time.Duration, to boot.Stage) *web.Machine {
	m := &web.Machine{Name: name, MAC: mac(i), Profile: "worker", Entry: "machines/rack1.yaml:" + fmt.Sprint(i+1) + ":3", Addr: addr(i)}
	m.Inventory = boot.Inventory{MAC: mac(i), UUID: fmt.Sprintf("77000000-0000-4000-8000-%012d", i), Serial: fmt.Sprintf("CZ%05d", i),
		Manufacturer: "A.T.WORKS", Product: "Blade 5", Arch: boot.EFIX64, ArchKnown: true, CPU: "x86_64", MemoryMB: 65536, Addr: addr(i)}
	s.machines[name] = m
	if to == "" {
		m.MAC, m.Inventory = boot.MAC{}, boot.Inventory{}
		return m
	}
	began := s.now().Add(-ago)
	m.First, m.Last = began, began
	m.Boot = &boot.Timeline{ID: "boot-" + name, MAC: m.MAC, Name: name, Profile: "worker", Arch: boot.EFIX64, Expect: boot.Ready}
	for _, w := range way {
		s.event(m, boot.Event{Time: began.Add(time.Duration(w.at * float64(time.Second))), Stage: w.stage, Client: w.client, Text: w.text, Bytes: w.bytes,
			Took: time.Duration(w.took) * time.Millisecond})
		if w.stage == to {
			break
		}
	}
	det := web.Detail{Boots: []boot.Timeline{*m.Boot}}
	for _, v := range []boot.Value{
		{Key: "name", Value: name, Origin: boot.Origin{File: "machines/rack1.yaml", Line: i + 1, Column: 3}},
		{Key: "profile", Value: "worker", Origin: boot.Origin{File: "machines/rack1.yaml", Line: i + 1, Column: 30}},
		{Key: "image", Value: "fedora-coreos/stable", Origin: boot.Origin{File: "profiles/worker.yaml", Line: 2, Column: 8}},
		{Key: "loader", Value: "snponly on UEFI, undionly on BIOS", Origin: boot.Origin{Note: "default"}},
		{Key: "ssh_keys.0", Value: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtq me", Origin: boot.Origin{File: "profiles/worker.yaml", Line: 3, Column: 12}},
		{Key: "files./etc/motd", Value: "hello", Origin: boot.Origin{File: "profiles/worker.yaml", Line: 9, Column: 7}},
		{Key: "swarm.labels.tier", Value: "frontend", Origin: boot.Origin{File: "profiles/worker.yaml", Line: 4, Column: 33}},
	} {
		det.Values = append(det.Values, web.Value{Value: v})
	}
	det.Given = slices.Clone(det.Values)
	s.details[name] = det
	return m
}

// event lets something happen to a machine.
func (s *site) event(m *web.Machine, e boot.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.MAC, e.Addr, e.Boot = m.MAC, m.Addr, m.Boot.ID
	next := m.Boot.Clone()
	next.Apply(e)
	m.Boot = &next
	m.Last = e.Time
	s.events = append(s.events, web.Event{Seq: uint64(len(s.events) + 1), Event: e})
	close(s.more)
	s.more = make(chan struct{})
}

// rack fills the site with n machines in all the conditions there are.
func (s *site) rack(n int) {
	for i := range n {
		name := fmt.Sprintf("node%d", i+1)
		switch {
		case i%97 == 13:
			s.add(i, name, 20*time.Minute, boot.Loader) // stuck
		case i%89 == 5:
			m := s.add(i, "node-"+strings.ReplaceAll(mac(i).String(), ":", ""), 3*time.Minute, boot.Leased)
			m.Profile, m.Entry, m.Boot.Profile = "", "", ""
			s.event(m, boot.Event{Time: s.now().Add(-4 * time.Second), Stage: boot.Waiting, Client: boot.IPXE, Text: "no entry matches it"})
		case i%61 == 7:
			s.add(i, name, 0, "")
		case i%40 < 5:
			s.add(i, name, time.Duration(way[5+i%40*2].at*float64(time.Second))+2*time.Second, way[5+i%40*2].stage)
		default:
			m := s.add(i, name, time.Duration(2+i%900)*time.Minute, boot.Ready)
			if i%4 == 3 {
				m.Profile = "frontend"
			}
		}
		if i < 120 {
			s.leases = append(s.leases, web.Lease{MAC: mac(i), Addr: netip.AddrFrom4([4]byte{10, 0, 100, byte(i)}), Network: "rack",
				State: []string{"bound", "bound", "bound", "bound", "offered", "bound", "expired", "bound", "bound", "declined"}[i%10], Expires: s.now().Add(time.Hour), Host: name})
		}
	}
	for i, name := range s.names() {
		m := s.machines[name]
		if m.Boot == nil || m.Boot.Stage() != boot.Ready || len(s.nodes) >= 40 {
			continue
		}
		node := web.Node{Swarm: "default", ID: fmt.Sprintf("n%024d", i), Hostname: name, Machine: name, Role: "worker", State: "ready", Availability: "active",
			Labels: map[string]string{"tier": "frontend", "rack": "r1"}, Tasks: i * 7 % 13, Engine: "28.5.2", Addr: m.Addr.String(), Since: s.now().Add(-time.Hour)}
		switch len(s.nodes) {
		case 0, 1, 2:
			node.Role, node.Leader = "manager", len(s.nodes) == 0
		case 7:
			node.Availability, node.Why = "drain", "a new fan"
		case 11:
			node.State = "down"
		}
		s.nodes = append(s.nodes, node)
	}
}

func (s *site) names() []string {
	var out []string
	for name := range s.machines {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (s *site) Status() web.Status { s.mu.Lock(); defer s.mu.Unlock(); return s.status }

func (s *site) Machines() []web.Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []web.Machine
	for _, m := range s.machines {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b web.Machine) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (s *site) Detail(_ context.Context, m web.Machine) (web.Detail, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.details[m.Name]
	if len(d.Boots) > 0 && m.Boot != nil {
		d.Boots = append([]boot.Timeline{*m.Boot}, d.Boots[1:]...)
	}
	return d, nil
}

func (s *site) Leases() []web.Lease { return s.leases }

func (s *site) Nodes(context.Context) ([]web.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.nodes), s.nodesErr
}

func (s *site) Past(seq uint64) []web.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events[min(int(seq), len(s.events)):])
}

func (s *site) Follow(ctx context.Context, seq uint64, f func(web.Event) error) error {
	for {
		s.mu.Lock()
		past, more := slices.Clone(s.events[min(int(seq), len(s.events)):]), s.more
		s.mu.Unlock()
		for _, e := range past {
			if err := f(e); err != nil {
				return err
			}
			seq = e.Seq
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}

func (s *site) Machine(_ context.Context, m web.Machine, o web.Order) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return "", s.refuse
	}
	s.orders = append(s.orders, strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", o.Verb, m.Name, o.Profile, o.Name, o.Power)))
	if o.Verb == web.Approve {
		s.machines[m.Name].Profile = o.Profile
	}
	return m.Name + " is approved.", nil
}

func (s *site) Power(context.Context, web.Machine) (string, error) { return "It is on.", nil }

func (s *site) Node(_ context.Context, swarm, id string, o web.Order) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return "", s.refuse
	}
	s.orders = append(s.orders, fmt.Sprintf("%s %s/%s %s", o.Verb, swarm, id, o.Reason))
	for i := range s.nodes {
		if s.nodes[i].ID == id && o.Verb == web.Drain {
			s.nodes[i].Availability, s.nodes[i].Why = "drain", o.Reason
		}
	}
	return "The node is drained.", nil
}

func (s *site) Release(_ context.Context, a netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, "release "+a.String())
	return s.refuse
}

func (s *site) handler(t testing.TB) http.Handler {
	t.Helper()
	h, err := web.New(web.Config{State: s, Events: s, Orders: s, Now: s.now, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return h
}
