package esx_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/esx"
	"bootd/internal/esx/esxtest"
	"bootd/internal/fleet"
)

// A watcher keeps what it is told, as the controller does.
type watcher struct {
	updates chan fleet.Update
	vms     map[fleet.VMID]fleet.VMStatus
	facts   fleet.HostFacts
	lost    int
	snaps   int
	ended   chan error
}

func watch(t *testing.T, h *esx.Host) *watcher {
	t.Helper()
	w := &watcher{updates: make(chan fleet.Update, 100), vms: map[fleet.VMID]fleet.VMStatus{}, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		w.ended <- h.Watch(ctx, func(u fleet.Update) error { w.updates <- u; return nil })
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-w.ended:
			if err != nil {
				t.Errorf("the watch ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the watch does not end")
		}
	})
	return w
}

func (w *watcher) apply(u fleet.Update) {
	if u.Snapshot {
		w.snaps++
		clear(w.vms)
	}
	if u.Lost != nil {
		w.lost++
	}
	if u.Facts != nil {
		w.facts = *u.Facts
	}
	for _, v := range u.VMs {
		w.vms[v.VM] = v
	}
	for _, id := range u.Gone {
		delete(w.vms, id)
	}
}

// until waits until what is known is so.
func (w *watcher) until(t *testing.T, what string, so func() bool) {
	t.Helper()
	late := time.After(15 * time.Second)
	for !so() {
		select {
		case u := <-w.updates:
			w.apply(u)
		case <-late:
			t.Fatalf("%s is not told; known are %+v, %d snapshots, %d times lost", what, w.vms, w.snaps, w.lost)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	s := simulate(t, esxtest.Options{})
	h := connect(t, s)
	b := build()
	b.Image, b.Disks = nil, nil
	must(t, h.CreateVM(t.Context(), b))
	w := watch(t, h)
	w.until(t, "the snapshot", func() bool { return w.snaps == 1 })
	if len(w.vms) != 1 || w.vms[theVM].State != fleet.VMStopped || w.facts.Name != "esx-1" {
		t.Fatalf("the snapshot has %+v and %+v", w.vms, w.facts)
	}
	must(t, h.Power(t.Context(), theVM, fleet.StartVM))
	w.until(t, "the start", func() bool { return w.vms[theVM].State == fleet.VMStarted })
	ref := refOf(t, s)
	s.SetGuest(ref, map[string][]string{theMAC.String(): {"10.0.0.7", "fe80::250:56ff:fe01:203"}})
	w.until(t, "the address", func() bool {
		v := w.vms[theVM]
		return v.Tools && len(v.NICs) == 1 && slices.Equal(v.NICs[0].Addrs, []netip.Prefix{netip.MustParsePrefix("10.0.0.7/24")}) && v.NICs[0].MAC == theMAC
	})
	s.Died(ref)
	w.until(t, "that it switched itself off", func() bool { v := w.vms[theVM]; return v.State == fleet.VMStopped && v.NICs[0].Addrs == nil })
	other := build()
	other.VM, other.Image, other.Disks = id[fleet.VMID]("other"), nil, nil
	must(t, h.CreateVM(t.Context(), other))
	w.until(t, "another VM", func() bool { return len(w.vms) == 2 })
	must(t, h.DeleteVM(t.Context(), theVM))
	w.until(t, "that it is deleted", func() bool { _, there := w.vms[theVM]; return !there && len(w.vms) == 1 })
	must(t, h.DeleteVM(t.Context(), other.VM))
	w.until(t, "that the other is deleted", func() bool { return len(w.vms) == 0 })
	must(t, h.EnterMaintenance(t.Context()))
	w.until(t, "maintenance", func() bool { return w.facts.Maintenance })
	must(t, h.ExitMaintenance(t.Context()))
	w.until(t, "the end of maintenance", func() bool { return !w.facts.Maintenance })
	if w.snaps != 1 || w.lost != 0 {
		t.Errorf("%d snapshots, %d times lost", w.snaps, w.lost)
	}
}

func refOf(t *testing.T, s *esxtest.Host) types.ManagedObjectReference {
	t.Helper()
	return s.Registry().Any("VirtualMachine").Reference()
}

// TestWatchResyncs changes things while nobody can see it.
func TestWatchResyncs(t *testing.T) {
	t.Parallel()
	s := simulate(t, esxtest.Options{})
	h := connect(t, s)
	b := build()
	b.Image, b.Disks = nil, nil
	must(t, h.CreateVM(t.Context(), b))
	must(t, h.Power(t.Context(), theVM, fleet.StartVM))
	w := watch(t, h)
	w.until(t, "the snapshot", func() bool { return w.snaps == 1 })

	waiting(t, s, 2) // the first was answered with the snapshot
	must(t, s.CutConnections())
	w.until(t, "a snapshot after a cut", func() bool { return w.snaps == 2 })
	waiting(t, s, 4)
	s.DropSessions()
	must(t, s.CutConnections())
	w.until(t, "a snapshot after the end of the session", func() bool { return w.snaps == 3 })
	if w.lost != 0 {
		t.Errorf("the host was said to be lost %d times, but answered at once", w.lost)
	}

	waiting(t, s, 6)
	s.Down()
	w.until(t, "that the host is lost", func() bool { return w.lost == 1 })
	s.Died(refOf(t, s))
	must(t, s.Up())
	w.until(t, "a snapshot after an outage", func() bool { return w.snaps == 4 })
	if w.vms[theVM].State != fleet.VMStopped || w.lost != 1 {
		t.Errorf("after the outage it is %s; lost %d times", w.vms[theVM].State, w.lost)
	}
}

// waiting waits until the host holds back an answer: it was asked for changes so
// often.
func waiting(t *testing.T, s *esxtest.Host, calls int) {
	t.Helper()
	for range 3000 {
		if s.Calls("WaitForUpdatesEx") >= calls {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("the host was asked for changes %d times", s.Calls("WaitForUpdatesEx"))
}

func TestWatchEndsWithItsReader(t *testing.T) {
	s := simulate(t, esxtest.Options{})
	enough := errors.New("enough")
	if err := connect(t, s).Watch(t.Context(), func(fleet.Update) error { return enough }); err != enough {
		t.Errorf("it ended with %v", err)
	}
}

func TestMaintenance(t *testing.T) {
	s := simulate(t, esxtest.Options{})
	h := connect(t, s)
	b := build()
	b.Image, b.Disks = nil, nil
	must(t, h.CreateVM(t.Context(), b))
	must(t, h.Power(t.Context(), theVM, fleet.StartVM))
	if err := h.EnterMaintenance(t.Context()); kind(err) != "conflict" {
		t.Errorf("maintenance with a VM that is on: %v", err)
	}
	must(t, h.Power(t.Context(), theVM, fleet.StopVM))
	for range 2 {
		must(t, h.EnterMaintenance(t.Context()))
	}
	if err := h.Power(t.Context(), theVM, fleet.StartVM); kind(err) != "conflict" {
		t.Errorf("starting a VM in maintenance: %v", err)
	}
	for range 2 {
		must(t, h.ExitMaintenance(t.Context()))
	}
	must(t, h.Power(t.Context(), theVM, fleet.StartVM))
}

func TestPortGroups(t *testing.T) {
	s := simulate(t, esxtest.Options{})
	h := connect(t, s)
	ctx := t.Context()
	must(t, h.EnsureSwitch(ctx, "bootd-inside"))
	must(t, h.EnsureSwitch(ctx, "bootd-inside"))
	want := fleet.PortGroup{Name: "nested", Switch: "bootd-inside", VLAN: 7}
	for range 2 {
		for _, change := range []func(){func() {}, func() { want.Promiscuous, want.ForgedTransmits, want.MACChanges = true, true, true }, func() { want.VLAN = 0 }} {
			change()
			must(t, h.EnsurePortGroup(ctx, want))
			f, err := h.Facts(ctx)
			must(t, err)
			if !slices.Contains(f.PortGroups, want) {
				t.Errorf("it has %+v, want %+v", f.PortGroups, want)
			}
		}
	}
	if n := s.Calls("UpdatePortGroup"); n != 2 {
		t.Errorf("it was changed %d times", n)
	}
	must(t, h.RemovePortGroup(ctx, "nested"))
	must(t, h.RemovePortGroup(ctx, "nested"))
	if err := h.EnsurePortGroup(ctx, fleet.PortGroup{Name: "x", Switch: "vSwitch9"}); kind(err) != "not found" {
		t.Errorf("a switch that is not there: %v", err)
	}
}

// TestImagesTravel copies an image to another host, and makes one of a VM.
func TestImagesTravel(t *testing.T) {
	t.Parallel()
	a, b := simulate(t, esxtest.Options{}), simulate(t, esxtest.Options{})
	ha, hb := connect(t, a), connect(t, b)
	ctx := t.Context()
	var sent, total int64
	must(t, ha.UploadImage(ctx, ds, theImage, image(t), func(d, n int64) { sent, total = d, n }))
	if sent != total || total == 0 || total > 1<<20 {
		t.Errorf("%d of %d bytes were sent, for 1 MiB with holes", sent, total)
	}
	sent = 0
	must(t, hb.FetchImage(ctx, theImage, ha, ds, ds, func(d, n int64) { sent, total = d, n }))
	sameContent(t, b, "[LocalDS_0] bootd-image-"+string(theImage)+"/disk-flat.vmdk", rawDisk())
	if sent != 1<<20 || total != sent {
		t.Errorf("%d of %d bytes were sent", sent, total)
	}
	if err := hb.FetchImage(ctx, id[fleet.ImageID]("none"), ha, ds, ds, nil); kind(err) != "not found" {
		t.Errorf("an image that is not there: %v", err)
	}
	must(t, ha.CreateVM(ctx, build()))
	mine := id[fleet.ImageID]("mine")
	must(t, ha.Power(ctx, theVM, fleet.StartVM))
	if err := ha.ImageFromVM(ctx, theVM, ds, mine); kind(err) != "conflict" {
		t.Errorf("an image of a VM that is on: %v", err)
	}
	must(t, ha.Power(ctx, theVM, fleet.StopVM))
	must(t, ha.ImageFromVM(ctx, theVM, ds, mine))
	sameContent(t, a, "[LocalDS_0] bootd-image-"+string(mine)+"/disk-flat.vmdk", append(rawDisk(), make([]byte, 1<<20)...))
	c, err := ha.Contents(ctx, ds)
	must(t, err)
	slices.Sort(c.Images)
	want := []fleet.ImageID{mine, theImage}
	slices.Sort(want)
	if !slices.Equal(c.Images, want) || !slices.Equal(c.VMs, []fleet.VMID{theVM}) || len(c.Disks) != 0 {
		t.Errorf("the datastore has %+v", c)
	}
}
