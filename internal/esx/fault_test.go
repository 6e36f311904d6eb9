package esx_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/esx"
	"bootd/internal/esx/esxtest"
	"bootd/internal/fleet"
)

// shortLife has every verb that takes several calls.
func shortLife(t *testing.T) []step {
	iso := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("an ISO")), nil }
	do := func(name string, f func(context.Context, *esx.Host) error) step { return step{name: name, do: f} }
	return []step{
		do("upload image", func(ctx context.Context, h *esx.Host) error { return h.UploadImage(ctx, ds, theImage, image(t), nil) }),
		do("create disk", func(ctx context.Context, h *esx.Host) error { return h.CreateDisk(ctx, ds, theDisk, 3<<20) }),
		do("create VM", func(ctx context.Context, h *esx.Host) error { return h.CreateVM(ctx, build()) }),
		do("attach disk", func(ctx context.Context, h *esx.Host) error { return h.AttachDisk(ctx, theVM, ds, theDisk) }),
		do("attach ISO", func(ctx context.Context, h *esx.Host) error { return h.AttachISO(ctx, theVM, theISO, 6, iso) }),
		do("start", func(ctx context.Context, h *esx.Host) error { return h.Power(ctx, theVM, fleet.StartVM) }),
		do("detach ISO", func(ctx context.Context, h *esx.Host) error { return h.DetachISO(ctx, theVM) }),
		do("port group", func(ctx context.Context, h *esx.Host) error {
			return h.EnsurePortGroup(ctx, fleet.PortGroup{Name: "nested", Switch: "vSwitch0", Promiscuous: true})
		}),
		do("delete VM", func(ctx context.Context, h *esx.Host) error { return h.DeleteVM(ctx, theVM) }),
		do("delete disk", func(ctx context.Context, h *esx.Host) error { return h.DeleteDisk(ctx, ds, theDisk) }),
		do("delete image", func(ctx context.Context, h *esx.Host) error { return h.DeleteImage(ctx, ds, theImage) }),
		do("no port group", func(ctx context.Context, h *esx.Host) error { return h.RemovePortGroup(ctx, "nested") }),
	}
}

// TestInterruptedAnywhere interrupts every eleventh call, beginning with each of
// the first eleven, in each way. A verb that fails for it is begun again by
// somebody who knows nothing of the first, as after kill -9. In the end
// everything was done, and nothing is left.
func TestInterruptedAnywhere(t *testing.T) {
	const every = 11
	for name, how := range map[string]esxtest.Interruption{"refused": esxtest.Refused, "answer lost": esxtest.Lost, "broken off": esxtest.Aborted} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := simulate(t, esxtest.Options{})
			before := tree(t, s)
			for n := range every {
				s.Interrupt(n, every, how)
				live(t, s)
				if how != esxtest.Aborted && s.Interruptions() < 3 {
					t.Errorf("there were only %d interruptions", s.Interruptions())
				}
				s.Interrupt(0, 0, how)
				if diff := cmp.Diff(before, tree(t, s)); diff != "" {
					t.Fatalf("interrupted at call %d: something is left: %s", n, diff)
				}
			}
		})
	}
}

// live leads a VM through its life, and begins a verb again that was interrupted.
func live(t *testing.T, s *esxtest.Host) {
	t.Helper()
	h := connect(t, s)
	for _, step := range shortLife(t) {
		for try := 0; ; try++ {
			was := s.Interruptions()
			err := step.do(t.Context(), h)
			if err == nil {
				break
			}
			if s.Interruptions() == was || try == 20 {
				t.Fatalf("%s, after %d interruptions: %v", step.name, s.Interruptions()-was, err)
			}
			h.Close()
			h = connect(t, s)
		}
	}
	h.Close()
}

// TestCancelledAnywhere lets the caller go away during each verb, after longer
// and longer.
func TestCancelledAnywhere(t *testing.T) {
	t.Parallel()
	s := simulate(t, esxtest.Options{})
	s.Slow(2 * time.Millisecond)
	before := tree(t, s)
	h := connect(t, s)
	for _, step := range shortLife(t) {
		for d := time.Millisecond; ; d = d * 3 / 2 {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			err := step.do(ctx, h)
			ended := ctx.Err()
			cancel()
			if err == nil {
				break
			}
			if ended == nil && kind(err) != "in use" && kind(err) != "conflict" {
				t.Fatalf("%s after %s: %v", step.name, d, err)
			}
			if d > 10*time.Second {
				t.Fatalf("%s does not end within %s: %v", step.name, d, err)
			}
		}
	}
	if diff := cmp.Diff(before, tree(t, s)); diff != "" {
		t.Errorf("something is left: %s", diff)
	}
}

// TestSessionsEnd ends all sessions again and again while a VM lives.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	s := simulate(t, esxtest.Options{})
	h := connect(t, s)
	for i, step := range shortLife(t) {
		s.DropSessions()
		if err := step.do(t.Context(), h); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if n := s.Calls("Login"); n > i+2 {
			t.Fatalf("%s: logged in %d times", step.name, n)
		}
	}
	s.DropSessions()
	if _, err := h.Status(t.Context(), theVM); kind(err) != "not found" {
		t.Errorf("after the end of a session: %v", err)
	}
	if s.Calls("Login") < 5 {
		t.Errorf("logged in only %d times: were the sessions ended?", s.Calls("Login"))
	}
}

// TestHostRestarts takes the host away while it copies a disk.
func TestHostRestarts(t *testing.T) {
	t.Parallel()
	s := simulate(t, esxtest.Options{Datastores: 2})
	h := connect(t, s)
	must(t, h.UploadImage(t.Context(), ds, theImage, image(t), nil))
	s.CopyFor(300 * time.Millisecond)
	done := make(chan error, 1)
	go func() { done <- h.CopyImage(t.Context(), theImage, ds, "LocalDS_1") }()
	for s.Calls("CopyVirtualDisk_Task") < 2 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // the answer, with the task
	s.Down()
	time.Sleep(100 * time.Millisecond)
	must(t, s.Up())
	if err := <-done; err != nil {
		t.Errorf("a copy during which the host was away: %v", err)
	}
	s.Down()
	short := connect(t, s, func(c *esx.Config) { c.Patience = 10 * time.Millisecond; c.Timeout = time.Second })
	if err := short.Power(t.Context(), theVM, fleet.StartVM); kind(err) != "unreachable" || !strings.Contains(err.Error(), "is the host up") {
		t.Errorf("a host that is down: %v", err)
	}
}

func TestFullDatastore(t *testing.T) {
	s := simulate(t, esxtest.Options{})
	h := connect(t, s)
	before := tree(t, s)
	s.Fill(true)
	err := h.UploadImage(t.Context(), ds, theImage, image(t), nil)
	if kind(err) != "no space" || err.Error() != "cannot upload image "+string(theImage)+" on datastore LocalDS_0 on host "+s.Address()+": the datastore is full; free some, or use another datastore" {
		t.Errorf("uploading to a full datastore: %v", err)
	}
	s.Fill(false)
	must(t, h.UploadImage(t.Context(), ds, theImage, image(t), nil))
	s.Fill(true)
	if err := h.CreateVM(t.Context(), build()); kind(err) != "no space" || fleet.CodeOf(err) != fleet.NotEnoughDatastoreCapacity || !strings.Contains(err.Error(), "datastore LocalDS_0 is full") {
		t.Errorf("a VM on a full datastore: %v", err)
	}
	if err := h.CreateDisk(t.Context(), ds, theDisk, 1<<20); kind(err) != "no space" {
		t.Errorf("a disk on a full datastore: %v", err)
	}
	must(t, h.DeleteVM(t.Context(), theVM))
	must(t, h.DeleteDisk(t.Context(), ds, theDisk))
	must(t, h.DeleteImage(t.Context(), ds, theImage))
	if diff := cmp.Diff(before, tree(t, s)); diff != "" {
		t.Errorf("something is left: %s", diff)
	}
}

// TestBounds has many callers; the host sees few calls at once.
func TestBounds(t *testing.T) {
	t.Parallel()
	s := simulate(t, esxtest.Options{})
	h := connect(t, s, func(c *esx.Config) { c.Calls, c.Tasks, c.Copies = 3, 2, 1 })
	must(t, h.UploadImage(t.Context(), ds, theImage, image(t), nil))
	s.Slow(2 * time.Millisecond)
	var wg sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		wg.Go(func() {
			b := build()
			b.VM, b.Disks = id[fleet.VMID](fmt.Sprint("vm", i)), nil
			errs[i] = h.CreateVM(t.Context(), b)
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("VM %d: %v", i, err)
		}
	}
	if n := s.MostAtOnce(); n > 3 {
		t.Errorf("the host saw %d calls at once", n)
	}
	vms, err := h.VMs(t.Context())
	if err != nil || len(vms) != len(errs) {
		t.Errorf("%d VMs, %v", len(vms), err)
	}
}

// TestFaults lets the host answer with its faults, and looks at their kinds.
func TestFaults(t *testing.T) {
	s := simulate(t, esxtest.Options{})
	h := connect(t, s)
	b := build()
	b.Image, b.Disks = nil, nil
	must(t, h.CreateVM(t.Context(), b))
	for _, c := range []struct {
		fault types.BaseMethodFault
		want  string
	}{
		{&types.InsufficientMemoryResourcesFault{}, "no space"},
		{&types.InsufficientHostCpuCapacityFault{}, "no space"},
		{&types.FileLocked{FileFault: types.FileFault{File: "[a] b"}}, "in use"},
		{&types.TaskInProgress{}, "in use"},
		{&types.NoPermission{}, "bad credentials"},
		{&types.RestrictedVersion{}, "unsupported"},
		{&types.NotSupported{}, "unsupported"},
		{&types.InvalidState{}, "conflict"},
		{&types.InvalidPowerState{ExistingState: types.VirtualMachinePowerStateSuspended}, "conflict"},
		{&types.HostAccessRestrictedToManagementServer{}, "bad credentials"},
		{&types.FileNotFound{FileFault: types.FileFault{File: "[a] b"}}, "not found"},
		{&types.SystemErrorFault{Reason: "the moon"}, "failed"},
		{&types.InvalidDeviceBacking{}, "unsupported"},
	} {
		s.Fail("PowerOnVM_Task", 0, 1, c.fault)
		err := h.Power(t.Context(), theVM, fleet.StartVM)
		if kind(err) != c.want || !strings.HasPrefix(fmt.Sprint(err), "cannot start VM "+string(theVM)+" on host "+s.Address()+": ") {
			t.Errorf("%T: %q, %v; want %q", c.fault, kind(err), err, c.want)
		}
	}
	free := simulate(t, esxtest.Options{FreeLicense: true})
	if err := connect(t, free).CreateVM(t.Context(), b); kind(err) != "unsupported" || !strings.Contains(err.Error(), "license") {
		t.Errorf("a free license: %v", err)
	}
}

// TestWrongArguments never reach the host.
func TestWrongArguments(t *testing.T) {
	s := simulate(t, esxtest.Options{})
	h := connect(t, s)
	ctx := t.Context()
	must(t, h.Connect(ctx))
	before := tree(t, s)
	for name, err := range map[string]error{
		"image ID":    h.DeleteImage(ctx, ds, "../x"),
		"image ID 2":  h.DeleteImage(ctx, ds, ""),
		"datastore":   h.DeleteImage(ctx, "a] /vmfs", theImage),
		"datastore 2": h.DeleteImage(ctx, "", theImage),
		"no such":     h.DeleteImage(ctx, "other", theImage),
		"disk ID":     h.CreateDisk(ctx, ds, "x", 1<<20),
		"VM ID":       h.DeleteVM(ctx, "*"),
		"memory":      h.CreateVM(ctx, fleet.Build{VM: theVM, CPUs: 1, Memory: 1, Datastore: ds}),
		"power":       h.Power(ctx, theVM, "EXPLODE_VM"),
	} {
		if k := kind(err); k != "unsupported" && k != "not found" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, tree(t, s)); diff != "" {
		t.Errorf("something has changed: %s", diff)
	}
}
