package controller_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bootd/internal/controller"
	"bootd/internal/esx"
	"bootd/internal/esx/esxtest"
	"bootd/internal/esx/vmdk"
	"bootd/internal/fleet"
	"bootd/internal/place"
	"bootd/internal/spool"
	"bootd/internal/store"
	"bootd/internal/task"
)

// A site is a controller with everything real behind it: the store, the spool, the
// adapter of ESXi, and simulated hosts. It can be stopped and started again.
type site struct {
	*testing.T
	dir       string
	db        *store.Store
	tasks     *task.Runner
	control   *controller.Controller
	stop      func()
	interrupt func() // ends what runs, and waits for nothing
	gate      *gate  // nil: none

	project fleet.ProjectID
	tenant  fleet.TenantID
	ticket  fleet.TicketID

	tune func(*controller.Options) // before the controller begins; nil: nothing
}

// patience bounds every wait of a test.
const patience = 2 * time.Minute

func newSite(t *testing.T) *site { return newGatedSite(t, nil) }

func newGatedSite(t *testing.T, g *gate) *site {
	t.Helper()
	t.Parallel() // most of a test is waiting
	s := &site{T: t, dir: t.TempDir(), gate: g, stop: func() {}}
	s.start()
	t.Cleanup(func() { s.stop() })
	s.tenant = fleet.TenantID(must(t)(s.control.CreateTenant(s.ctx(), root, "acme", nil)))
	s.ticket = fleet.TicketID(must(t)(s.control.CreateTicket(s.ctx(), root, s.tenant, "gold", amounts(t, "vm=1000 vm.memory=4000GB persistent-disk=100"))))
	s.project = fleet.ProjectID(must(t)(s.control.CreateProject(s.ctx(), root, s.tenant, controller.ProjectSpec{Name: "web", Ticket: "gold",
		Limits: amounts(t, "vm=500 vm.memory=2000GB persistent-disk=50")})))
	for name, f := range map[string]struct {
		kind fleet.Kind
		cost string
	}{
		"small": {fleet.KindVM, "vm.cpu=1 vm.memory=1GB"}, "huge": {fleet.KindVM, "vm.cpu=1 vm.memory=1000GB"},
		"plain": {fleet.KindEphemeralDisk, "ephemeral-disk=1"}, "keep": {fleet.KindPersistentDisk, "persistent-disk=1"},
	} {
		must(t)(s.control.CreateFlavor(s.ctx(), root, name, f.kind, amounts(t, f.cost), true))
	}
	return s
}

func (s *site) ctx() context.Context { return s.Context() }

// start opens the store and begins to work, as bootd does.
func (s *site) start() {
	s.Helper()
	db, err := store.Open(context.Background(), store.Options{Dir: s.dir + "/store", Log: quiet})
	if err != nil {
		s.Fatal(err)
	}
	keep, err := spool.Open(s.dir + "/spool")
	if err != nil {
		s.Fatal(err)
	}
	s.db = db
	s.tasks = task.New(db, task.Options{Log: quiet, Pause: 10 * time.Millisecond, Patience: 10 * time.Second})
	o := controller.Options{Spool: keep, Policy: place.Policy{CPU: 100, Memory: 1}, Sweep: 50 * time.Millisecond, Connect: func(h fleet.Host) (controller.Hypervisor, error) {
		y, err := esx.New(esx.Config{Address: h.Address, Username: h.Username, Password: h.Password, Fingerprint: h.Fingerprint,
			Timeout: 20 * time.Second, Patience: 4 * time.Second})
		if err != nil || s.gate == nil {
			return y, err
		}
		return guarded{y, s.gate}, nil
	}}
	if s.tune != nil {
		s.tune(&o)
	}
	s.control = controller.New(db, s.tasks, o)
	if s.gate != nil {
		s.tasks.Know(s.gate.gated(s.control.Plans())...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.tasks.Run(ctx); err != nil {
			s.Errorf("tasks: %v", err)
		}
	})
	wg.Go(func() {
		if err := s.control.Run(ctx); err != nil {
			s.Errorf("controller: %v", err)
		}
	})
	s.interrupt = cancel
	s.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		s.control.Close()
		if err := db.Close(); err != nil {
			s.Error(err)
		}
	})
}

// wait waits for the end of a task.
func (s *site) wait(t fleet.Task, err error) fleet.Task {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.ctx(), patience)
	defer cancel()
	got, err := s.tasks.Wait(ctx, t.ID)
	if err != nil {
		stacks := make([]byte, 1<<20)
		s.Fatalf("%s: %v; it is %+v\n%s", t.Operation, err, got, stacks[:runtime.Stack(stacks, true)])
	}
	return got
}

// done waits for a task that must succeed, and is the ID of its entity.
func (s *site) done(t fleet.Task, err error) string {
	s.Helper()
	got := s.wait(t, err)
	if got.State != fleet.TaskCompleted {
		s.Fatalf("%s of %s: %+v", got.Operation, got.Entity, got.Cause())
	}
	return got.Entity.ID
}

// failed waits for a task that must fail in a step, with a code and a text, and is
// the ID of its entity.
func (s *site) failed(t fleet.Task, err error) func(step fleet.Operation, code fleet.Code, text string) string {
	s.Helper()
	got := s.wait(t, err)
	return func(step fleet.Operation, code fleet.Code, text string) string {
		s.Helper()
		if got.State != fleet.TaskError || got.Cause() == nil {
			s.Fatalf("%s ended in %s, not in ERROR", got.Operation, got.State)
		}
		i := slices.IndexFunc(got.Steps, func(x fleet.Step) bool { return x.State == fleet.TaskError })
		if c := got.Cause(); got.Steps[i].Operation != step || c.Code != code || !strings.Contains(c.Message, text) {
			s.Errorf("%s failed in %s: %s: %s; want %s: %s: %s", got.Operation, got.Steps[i].Operation, c.Code, c.Message, step, code, text)
		}
		return got.Entity.ID
	}
}

// until polls until something is so.
func (s *site) until(what string, so func() bool) {
	s.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("waited in vain until %s", what)
		}
	}
}

// esxi starts a simulated host.
func (s *site) esxi(name string, change ...func(*esxtest.Options)) *esxtest.Host {
	s.Helper()
	o := esxtest.Options{Name: name, MemoryBytes: 64 << 30, Cores: 8, DatastoreBytes: 1 << 40, Serial: true}
	for _, f := range change {
		f(&o)
	}
	h, err := esxtest.Start(o)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(h.Close)
	return h
}

func hostSpec(h *esxtest.Host) controller.HostSpec {
	return controller.HostSpec{Address: h.Address(), Username: "root", Password: "secret", Tags: []fleet.UsageTag{fleet.Cloud}, Fingerprint: h.Fingerprint()}
}

// host starts a simulated host and registers it.
func (s *site) host(name string, change ...func(*esxtest.Options)) (*esxtest.Host, fleet.HostID) {
	s.Helper()
	h := s.esxi(name, change...)
	return h, fleet.HostID(s.done(s.control.CreateHost(s.ctx(), root, hostSpec(h))))
}

// adapter is somebody else who works on a host.
func adapter(t testing.TB, h *esxtest.Host) *esx.Host {
	t.Helper()
	y, err := esx.New(esx.Config{Address: h.Address(), Username: "root", Password: "secret", Fingerprint: h.Fingerprint()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(y.Close)
	return y
}

// datastores is for hosts with several.
func datastores(n int) func(*esxtest.Options) { return func(o *esxtest.Options) { o.Datastores = n } }

// portGroups is for hosts with more than "VM Network".
func portGroups(names ...string) func(*esxtest.Options) {
	return func(o *esxtest.Options) { o.PortGroups = names }
}

func (s *site) hostIs(id fleet.HostID, want fleet.HostState) {
	s.Helper()
	h, err := s.control.Host(s.ctx(), root, id)
	if err != nil || h.State != want {
		s.Errorf("host is %s, %v; want %s", h.State, err, want)
	}
}

// diskFile is a streamOptimized VMDK of a megabyte.
func diskFile(t testing.TB) []byte {
	t.Helper()
	raw := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 100 << 10 {
		raw[i] = byte(r.Uint32())
	}
	var b bytes.Buffer
	if err := vmdk.WriteStream(&b, bytes.NewReader(raw), int64(len(raw)), "lsilogic"); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// image uploads an image.
func (s *site) image(r fleet.Replication) fleet.ImageID {
	s.Helper()
	return fleet.ImageID(s.done(s.control.UploadImage(s.ctx(), root, controller.ImageSpec{Name: "disk.vmdk", Replication: r}, bytes.NewReader(diskFile(s)))))
}

// vmSpec is a VM with a boot disk and another one; without image a diskless one.
func vmSpec(name string, image fleet.ImageID) fleet.VMSpec {
	s := fleet.VMSpec{Name: name, Flavor: "small", Image: image, Diskless: image == ""}
	if image != "" {
		s.Disks = []fleet.DiskSpec{{Name: "boot", Kind: fleet.KindEphemeralDisk, Flavor: "plain", Boot: true}}
	}
	return s
}

func (s *site) vm(name string, image fleet.ImageID) fleet.VMID {
	s.Helper()
	return fleet.VMID(s.done(s.control.CreateVM(s.ctx(), root, s.project, vmSpec(name, image))))
}

func (s *site) getVM(id fleet.VMID) fleet.VM {
	s.Helper()
	v, err := s.control.VM(s.ctx(), root, id)
	if err != nil {
		s.Fatal(err)
	}
	return v
}

func (s *site) vmIs(id fleet.VMID, want fleet.VMState) {
	s.Helper()
	if v := s.getVM(id); v.State != want {
		s.Errorf("VM is %s (%s), want %s", v.State, v.Fault, want)
	}
}

func (s *site) power(id fleet.VMID, op fleet.Operation) {
	s.Helper()
	s.done(s.control.PowerVM(s.ctx(), root, id, op))
}

// used is what a project uses of its quota.
func (s *site) used(key string) string {
	s.Helper()
	p, err := s.control.Project(s.ctx(), root, s.project)
	if err != nil {
		s.Fatal(err)
	}
	a, ok := p.Quota.Usage[key]
	if !ok {
		return "nothing"
	}
	return a.String()
}

// files are what bootd has on a host: directories of VMs, images, disks.
func files(t testing.TB, h *esxtest.Host) []string {
	t.Helper()
	tree, err := h.Tree()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range tree {
		if _, rest, ok := strings.Cut(path, "] bootd-"); ok {
			dir, _, _ := strings.Cut(rest, "/")
			out = append(out, dir)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func count(list []string, begin string) int {
	n := 0
	for _, f := range list {
		if strings.HasPrefix(f, begin) {
			n++
		}
	}
	return n
}

// consistent checks that what is promised of hosts and datastores, and what is
// charged, is what the VMs and disks there are add up to, and nothing else.
func (s *site) consistent() {
	s.Helper()
	loads, err1 := store.List(s.ctx(), s.db, store.Kind[place.Load]{Name: "host-load"}, "")
	spaces, err2 := store.List(s.ctx(), s.db, store.Kind[place.Space]{Name: "datastore-space"}, "")
	vms, err3 := s.control.VMs(s.ctx(), root, s.project, "")
	disks, err4 := s.control.Disks(s.ctx(), root, s.project, "")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		s.Fatal(err)
	}
	wantVMs, wantMemory, wantBytes := map[string]int{}, map[string]int64{}, map[string]int64{}
	charged := 0
	for _, v := range vms {
		if v.Host == "" {
			continue // it failed, and holds nothing
		}
		charged++
		wantVMs[string(v.Host)]++
		wantMemory[string(v.Host)] += v.Memory
		for _, d := range v.Disks {
			if d.Kind == fleet.KindEphemeralDisk {
				wantBytes[string(v.Datastore)] += d.Capacity
			}
		}
	}
	kept := 0
	for _, d := range disks {
		if d.Datastore != "" {
			kept++
			wantBytes[string(d.Datastore)] += d.Capacity
		}
	}
	for id, l := range loads {
		if l.VMs != wantVMs[id] || l.Memory != wantMemory[id] {
			s.Errorf("host %s has promised %d VMs and %d bytes; there are %d VMs with %d", id, l.VMs, l.Memory, wantVMs[id], wantMemory[id])
		}
		delete(wantVMs, id)
	}
	for id, x := range spaces {
		if x.Promised != wantBytes[id] {
			s.Errorf("datastore %s has promised %d bytes; there are disks of %d", id, x.Promised, wantBytes[id])
		}
		delete(wantBytes, id)
	}
	for id, n := range wantBytes {
		if n > 0 {
			s.Errorf("datastore %s has promised nothing; there are disks of %d", id, n)
		}
	}
	if len(wantVMs) > 0 {
		s.Errorf("hosts %v have promised nothing", wantVMs)
	}
	if got, want := s.used("vm"), fmt.Sprintf("%d COUNT", charged); got != want {
		s.Errorf("%s VMs are charged, want %s", got, want)
	}
	if got, want := s.used("persistent-disk"), fmt.Sprintf("%d COUNT", kept); got != want {
		s.Errorf("%s disks are charged, want %s", got, want)
	}
}

// spooled are the files that are kept of uploads.
func (s *site) spooled() []string {
	s.Helper()
	list, err := os.ReadDir(s.dir + "/spool")
	if err != nil {
		s.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}
