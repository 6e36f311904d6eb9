package controller_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bootd/internal/controller"
	"bootd/internal/esx/esxtest"
	"bootd/internal/fleet"
	"bootd/internal/store"
)

// A life is that of a VM, a disk and two images, from the upload of the first until
// all are deleted.
type life struct {
	*site
	strict bool // every verb must succeed
	// waiting waits for the end of a task.
	waiting func(fleet.Task) fleet.Task

	image, made fleet.ImageID
	vm          fleet.VMID
	disk        fleet.DiskID
}

// do does what is next, and is the ID of its entity.
func (l *life) do(t fleet.Task, err error) string {
	l.Helper()
	if err != nil {
		if l.strict {
			l.Fatal(err)
		}
		return ""
	}
	if t = l.waiting(t); l.strict && t.State != fleet.TaskCompleted {
		l.Fatalf("%s of %s: %+v", t.Operation, t.Entity, t.Cause())
	}
	return t.Entity.ID
}

// live goes on whatever fails, as somebody would who tries again.
func (l *life) live() {
	l.Helper()
	ctx := l.ctx()
	l.image = fleet.ImageID(l.do(l.control.UploadImage(ctx, root, controller.ImageSpec{Name: "disk.vmdk", Replication: fleet.OnDemand}, bytes.NewReader(diskFile(l)))))
	spec := vmSpec("one", l.image)
	spec.Disks = append(spec.Disks, fleet.DiskSpec{Name: "own", Kind: fleet.KindEphemeralDisk, Flavor: "plain", Capacity: 1 << 30})
	if l.image != "" {
		l.vm = fleet.VMID(l.do(l.control.CreateVM(ctx, root, l.project, spec)))
	}
	l.disk = fleet.DiskID(l.do(l.control.CreateDisk(ctx, root, l.project, diskSpec("data"))))
	l.do(l.control.AttachDisk(ctx, root, l.vm, l.disk))
	l.do(l.control.AttachISO(ctx, root, l.vm, "cd.iso", strings.NewReader("a CD image")))
	l.do(l.control.PowerVM(ctx, root, l.vm, fleet.StartVM))
	l.do(l.control.VMNetworks(ctx, root, l.vm))
	l.do(l.control.DetachISO(ctx, root, l.vm))
	l.do(l.control.DetachDisk(ctx, root, l.vm, l.disk))
	l.do(l.control.PowerVM(ctx, root, l.vm, fleet.StopVM))
	l.made = fleet.ImageID(l.do(l.control.CreateVMImage(ctx, root, l.vm, controller.ImageSpec{Name: "made", Replication: fleet.OnDemand})))
	l.consistent()
	l.do(l.control.DeleteImage(ctx, root, l.made))
	l.do(l.control.DeleteVM(ctx, root, l.vm))
	l.do(l.control.DeleteDisk(ctx, root, l.disk))
	l.do(l.control.DeleteImage(ctx, root, l.image))
}

// tidy deletes what failures have left, as an operator would, which must succeed.
func (l *life) tidy() {
	l.Helper()
	l.strict = true
	ctx := l.ctx()
	if v, err := l.control.VM(ctx, root, l.vm); err == nil {
		if v.ISO != nil {
			l.do(l.control.DetachISO(ctx, root, v.ID))
		}
		for _, d := range v.Disks {
			if d.Kind == fleet.KindPersistentDisk {
				l.do(l.control.DetachDisk(ctx, root, v.ID, d.ID))
			}
		}
		if v.State == fleet.VMStarted {
			l.do(l.control.PowerVM(ctx, root, v.ID, fleet.StopVM))
		}
		l.do(l.control.DeleteVM(ctx, root, v.ID))
	}
	if d, err := l.control.Disk(ctx, root, l.disk); err == nil {
		l.do(l.control.DeleteDisk(ctx, root, d.ID))
	}
	for _, id := range []fleet.ImageID{l.made, l.image} {
		if i, err := l.control.Image(ctx, id); err == nil && i.State != fleet.ImagePendingDelete {
			l.do(l.control.DeleteImage(ctx, root, id))
		}
	}
}

// nothingLeft checks that there is nothing any more on hosts, in the spool, and in
// the store but for what people have made by themselves.
func (s *site) nothingLeft(hosts ...*esxtest.Host) {
	s.Helper()
	s.consistent()
	left := func() (out []string) {
		for _, kind := range []string{"vm", "project-vm", "host-vm", "disk", "project-disk", "image", "image-copy", "iso", "leftover", "unfinished-task", "cluster", "cluster-node", "project-cluster"} {
			all, err := store.List(s.ctx(), s.db, store.Kind[json.RawMessage]{Name: kind}, "")
			if err != nil {
				s.Fatal(err)
			}
			for id := range all {
				out = append(out, kind+" "+id)
			}
		}
		uses, err := store.List(s.ctx(), s.db, store.Kind[int]{Name: "use"}, "")
		if err != nil {
			s.Fatal(err)
		}
		for id := range uses {
			out = append(out, "user of "+id)
		}
		names, err := store.List(s.ctx(), s.db, store.Kind[string]{Name: "name"}, "mac/")
		if err != nil {
			s.Fatal(err)
		}
		for id := range names {
			out = append(out, "name "+id)
		}
		for _, h := range hosts {
			for _, f := range files(s, h) {
				out = append(out, "on "+h.Address()+": "+f)
			}
		}
		return append(out, s.spooled()...)
	}
	// An image that is to be deleted goes after its last VM.
	for end := time.Now().Add(patience); len(left()) > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if l := left(); len(l) > 0 {
		slices.Sort(l)
		s.Errorf("left:\n%s", strings.Join(l, "\n"))
	}
}

// settled polls until a task has ended, and begins to work again whenever it was
// killed meanwhile.
func (s *site) settled(t fleet.Task, killed func() bool) fleet.Task {
	s.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if killed() {
			s.stop()
			s.start()
		}
		now, err := s.control.Task(s.ctx(), root, t.ID)
		if err != nil {
			s.Fatal(err)
		}
		if now.State.Ended() {
			return now
		}
		if time.Now().After(end) {
			s.Fatalf("%s does not end: %+v", t.Operation, now)
		}
	}
}

// TestKilledAnywhere ends everything at each point of a life, before it is done and
// when it is done but not noted yet, opens the store again and goes on. Whatever is
// begun is completed all the same; in the second case every step that makes
// something fails for good when it has, so that undoing is interrupted, too.
func TestKilledAnywhere(t *testing.T) {
	for name, undone := range map[string]bool{"completed": false, "undone": true} {
		t.Run(name, func(t *testing.T) {
			var s *site
			var killed atomic.Bool
			var off atomic.Bool
			var points, failures once
			kill := func(ctx context.Context, point string) error {
				if off.Load() || !points.isNew(point) {
					return nil
				}
				killed.Store(true)
				s.interrupt()
				<-ctx.Done()
				return ctx.Err()
			}
			g := &gate{
				before: func(ctx context.Context, point string) error { return kill(ctx, "before "+point) },
				after: func(ctx context.Context, point string) error {
					if err := kill(ctx, "after "+point); err != nil || !undone || off.Load() || !makes(point) || !failures.isNew(point) {
						return err
					}
					return &fleet.Fault{Kind: fleet.Broken, Doing: "pass", Host: "a gate", Text: "for a test"}
				},
			}
			off.Store(true)
			s = newGatedSite(t, g)
			h, _ := s.host("esx-1")
			// The failures end a life early: the next one comes to where none was.
			for before := -1; points.number() > before; {
				before = points.number()
				off.Store(false)
				l := &life{site: s, strict: !undone, waiting: func(t fleet.Task) fleet.Task {
					return s.settled(t, func() bool { return killed.CompareAndSwap(true, false) })
				}}
				l.live()
				off.Store(true)
				if killed.CompareAndSwap(true, false) {
					s.stop()
					s.start()
				}
				l.tidy()
				s.nothingLeft(h)
			}
			t.Logf("it was killed at %d points, and failed at %d", points.number(), failures.number())
			if points.number() < 50 || undone && failures.number() < 6 {
				t.Errorf("it was killed at %d points alone, and failed at %d", points.number(), failures.number())
			}
		})
	}
}

// makes reports whether a point makes something on a host that can be undone.
func makes(point string) bool {
	_, call, ok := strings.Cut(point, ": ")
	return ok && slices.Contains([]string{"UploadVMDK", "ImageFromVM", "CreateDisk", "CreateVM", "AttachDisk", "AttachISO"}, call)
}

// TestFailsAnywhere lets each call of a host fail once in a life: refused for good;
// carried out, and said to have failed for good; and as if the answer was lost. In
// the last case the life goes on as if nothing had been; in the others what the verb
// did is undone, and everything can be deleted.
func TestFailsAnywhere(t *testing.T) {
	if esxtest.Race {
		t.Skip("with the race detector it takes minutes, and the goroutines are those of TestKilledAnywhere")
	}
	fault := func(k fleet.FaultKind) error {
		return &fleet.Fault{Kind: k, Doing: "pass", Host: "a gate", Text: "for a test"}
	}
	for name, c := range map[string]struct {
		kind   fleet.FaultKind
		done   bool
		strict bool
	}{
		"refused": {fleet.Broken, false, false},
		"failed":  {fleet.Broken, true, false},
		"lost":    {fleet.Unreachable, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			var armed atomic.Bool
			var points once
			fail := func(_ context.Context, point string) error {
				// One fault in each life, at a point where there was none yet.
				if _, _, call := strings.Cut(point, ": "); !call || strings.HasPrefix(point, "watch") || !armed.Load() || !points.isNew(point) {
					return nil
				}
				if armed.CompareAndSwap(true, false) {
					return fault(c.kind)
				}
				return nil
			}
			g := &gate{}
			if c.done {
				g.after = fail
			} else {
				g.before = fail
			}
			s := newGatedSite(t, g)
			h, _ := s.host("esx-1")
			for n := 0; ; n++ {
				if n > 60 {
					t.Fatal("there is always another point")
				}
				armed.Store(true)
				l := &life{site: s, strict: c.strict, waiting: func(t fleet.Task) fleet.Task { return s.settled(t, func() bool { return false }) }}
				l.live()
				spared := armed.Swap(false)
				l.tidy()
				s.nothingLeft(h)
				if t.Failed() {
					t.Fatalf("after the faults at %v", points.seen)
				}
				if spared {
					t.Logf("%d calls failed", n)
					if n < 8 {
						t.Errorf("%d calls failed alone", n)
					}
					break
				}
			}
		})
	}
}

// TestLostWhileMaking takes a host from the network while a VM, a disk, an image are
// made on it, longer than bootd waits: they are in ERROR and use nothing, and when
// the host is back nothing of them is on it.
func TestLostWhileMaking(t *testing.T) {
	var h *esxtest.Host
	var down atomic.Bool
	g := &gate{after: func(_ context.Context, point string) error {
		if down.Load() && makes(point) {
			h.Down()
			return &fleet.Fault{Kind: fleet.Unreachable, Doing: "pass", Host: "a gate", Text: "the answer was lost"}
		}
		return nil
	}}
	s := newGatedSite(t, g)
	h, id := s.host("esx-1")
	img := s.image(fleet.OnDemand)
	s.done(s.control.DeleteVM(s.ctx(), root, s.vm("first", img))) // the image is there
	s.until("the host is watched", func() bool { return h.Calls("WaitForUpdatesEx") > 0 })
	down.Store(true)
	vm := s.wait(s.control.CreateVM(s.ctx(), root, s.project, vmSpec("one", img)))
	down.Store(false)
	if vm.State != fleet.TaskError {
		t.Fatalf("%+v", vm)
	}
	s.vmIs(fleet.VMID(vm.Entity.ID), fleet.VMError)
	s.consistent()
	s.done(s.control.DeleteVM(s.ctx(), root, fleet.VMID(vm.Entity.ID)))
	if n := count(files(t, h), "vm-"); n != 1 {
		t.Errorf("%d VMs are on the host, want the one that cannot be deleted", n)
	}
	if err := h.Up(); err != nil {
		t.Fatal(err)
	}
	s.until("the host is back, and nothing of the VM on it", func() bool {
		x, err := s.control.Host(s.ctx(), root, id)
		return err == nil && x.Health.Reachable && count(files(t, h), "vm-") == 0
	})
	s.done(s.control.DeleteImage(s.ctx(), root, img))
	s.nothingLeft(h)
}

// L2, L3: many lives at once, on hosts that are slow; and at last nothing is left.
func TestLifeL2(t *testing.T) {
	s := newSite(t)
	var hosts []*esxtest.Host
	for i := range 3 {
		h, _ := s.host(fmt.Sprintf("esx-%d", i))
		h.Slow(5 * time.Millisecond)
		hosts = append(hosts, h)
	}
	const n = 15
	img := s.image(fleet.OnDemand)
	ids := s.many(n, func(i int) (fleet.Task, error) {
		return s.control.CreateVM(s.ctx(), root, s.project, vmSpec(fmt.Sprintf("vm-%d", i), img))
	})
	if got := s.used("vm.flavor.small"); got != fmt.Sprintf("%d COUNT", n) {
		t.Errorf("vm.flavor.small is used %s times", got)
	}
	s.consistent()
	for _, op := range []fleet.Operation{fleet.StartVM, fleet.StopVM} {
		s.many(n, func(i int) (fleet.Task, error) { return s.control.PowerVM(s.ctx(), root, fleet.VMID(ids[i]), op) })
	}
	s.many(n, func(i int) (fleet.Task, error) { return s.control.DeleteVM(s.ctx(), root, fleet.VMID(ids[i])) })
	s.done(s.control.DeleteImage(s.ctx(), root, img))
	s.nothingLeft(hosts...)
}

// many does something n times at once, all of which must succeed.
func (s *site) many(n int, f func(int) (fleet.Task, error)) []string {
	s.Helper()
	type ordered struct {
		t   fleet.Task
		err error
	}
	all := make([]ordered, n)
	ended := make(chan int, n)
	for i := range n {
		go func() {
			all[i].t, all[i].err = f(i)
			ended <- i
		}()
	}
	for range n {
		<-ended
	}
	out := make([]string, n)
	for i, o := range all {
		out[i] = s.done(o.t, o.err)
	}
	return out
}

// TestDeletionFailed: a VM that could not be deleted, and is used again, is not deleted
// later by itself.
func TestDeletionFailed(t *testing.T) {
	var broken atomic.Bool
	g := &gate{before: func(_ context.Context, point string) error {
		if strings.HasSuffix(point, ": DeleteVM") || strings.HasSuffix(point, ": DeleteDisk") || broken.Load() && strings.HasSuffix(point, "DELETE_IMAGE: DeleteImage") {
			return &fleet.Fault{Kind: fleet.Broken, Doing: "pass", Host: "a gate", Text: "for a test"}
		}
		return nil
	}}
	s := newGatedSite(t, g)
	h, _ := s.host("esx-1")
	vm, disk := s.vm("one", ""), s.disk("data")
	s.failed(s.control.DeleteVM(s.ctx(), root, vm))(fleet.DeleteVM, fleet.InternalError, "for a test")
	s.failed(s.control.DeleteDisk(s.ctx(), root, disk))(fleet.DeleteDisk, fleet.InternalError, "for a test")
	s.power(vm, fleet.StartVM)
	s.diskIs(disk, fleet.DiskError)
	broken.Store(true)
	for range 2 { // when the second image is gone, all else has been looked at since
		img := s.image(fleet.Eager)
		s.done(s.control.DeleteImage(s.ctx(), root, img))
		s.until("the image is gone from the host", func() bool { return count(files(t, h), "image-") == 0 })
	}
	s.vmIs(vm, fleet.VMStarted)
	if status, err := adapter(t, h).Status(s.ctx(), vm); err != nil || status.State != fleet.VMStarted {
		t.Errorf("%+v, %v", status, err)
	}
	s.consistent()
}

// L3: 36 VMs at once on 3 hosts, which take 12 each and no more: all are placed, and
// nothing is promised twice. With HOSTS=20 in the environment there are 400 on 20.
func TestLifeL3(t *testing.T) {
	nhosts, each := 3, 12
	if text := os.Getenv("HOSTS"); text != "" {
		var err error
		if nhosts, err = strconv.Atoi(text); err != nil || nhosts < 1 {
			t.Fatalf("HOSTS is %q, not a number", text)
		}
		each = 20
	}
	s := newSite(t)
	var hosts []*esxtest.Host
	for i := range nhosts {
		h, _ := s.host(fmt.Sprintf("esx-%d", i), func(o *esxtest.Options) { o.MemoryBytes = int64(each) << 30 })
		hosts = append(hosts, h)
	}
	n := each * nhosts
	begin := time.Now()
	ids := s.many(n, func(i int) (fleet.Task, error) {
		return s.control.CreateVM(s.ctx(), root, s.project, vmSpec(fmt.Sprintf("vm-%d", i), ""))
	})
	t.Logf("%d VMs made in %s", n, time.Since(begin).Round(time.Millisecond))
	for _, h := range hosts {
		if got := count(files(t, h), "vm-"); got != each {
			t.Errorf("a host for %d VMs has %d", each, got)
		}
	}
	s.consistent()
	s.failed(s.control.CreateVM(s.ctx(), root, s.project, vmSpec("more", "")))("RESERVE_RESOURCE", fleet.NotEnoughMemoryResource, fmt.Sprintf("%d hosts", nhosts))
	begin = time.Now()
	s.many(n, func(i int) (fleet.Task, error) { return s.control.DeleteVM(s.ctx(), root, fleet.VMID(ids[i])) })
	t.Logf("and deleted in %s", time.Since(begin).Round(time.Millisecond))
	all, err := s.control.VMs(s.ctx(), root, s.project, "more")
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	s.done(s.control.DeleteVM(s.ctx(), root, all[0].ID))
	s.nothingLeft(hosts...)
}
