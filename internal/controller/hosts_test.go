package controller_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bootd/internal/controller"
	"bootd/internal/esx/esxtest"
	"bootd/internal/fleet"
)

// H2 to H5: what is wrong with a host is told at once, all of it.
func TestHostsH2(t *testing.T) {
	c, _ := open(t)
	_, err := c.CreateHost(t.Context(), root, controller.HostSpec{Address: "a b"})
	for _, text := range []string{"is invalid IP or Domain Address", "username may not be null (was null)", "password may not be null (was null)", "usageTags may not be null (was null)"} {
		fails(t, err, fleet.InvalidEntity, text)
	}
	_, err = c.CreateHost(t.Context(), root, controller.HostSpec{Address: "10.0.0.1", Username: "root", Password: "x", Tags: []fleet.UsageTag{"CLOUDY"}})
	fails(t, err, fleet.InvalidEntity, `usageTags must match "MGMT|CLOUD"`)
}

// H6, H7: zones that a host cannot be in; Z7: it is put into one once.
func TestHostsH6(t *testing.T) {
	s := newSite(t)
	h := s.esxi("esx-1")
	spec := hostSpec(h)
	spec.Zone = "nowhere"
	_, err := s.control.CreateHost(s.ctx(), root, spec)
	fails(t, err, fleet.AvailabilityZoneNotFound, "AvailabilityZone nowhere not found")
	zone := fleet.ZoneID(must(t)(s.control.CreateZone(s.ctx(), root, "east")))
	spec.Zone = zone
	id := fleet.HostID(s.done(s.control.CreateHost(s.ctx(), root, spec)))
	_, err = s.control.SetHostZone(s.ctx(), root, id, zone)
	fails(t, err, fleet.HostAvailabilityZoneAlreadySet, "Host "+string(id)+" is already part of Availability Zone "+string(zone))

	must(t)(s.control.DeleteZone(s.ctx(), root, zone))
	if z, err := s.control.Zone(s.ctx(), zone); err != nil || z.State != fleet.ZonePendingDelete {
		t.Errorf("a zone with a host is %s, %v after it was deleted", z.State, err)
	}
	other := hostSpec(s.esxi("esx-2"))
	other.Zone = zone
	_, err = s.control.CreateHost(s.ctx(), root, other)
	fails(t, err, fleet.InvalidAvailabilityZoneState, "is in state PENDING_DELETE")
	s.retire(id)
	_, err = s.control.Zone(s.ctx(), zone)
	fails(t, err, fleet.AvailabilityZoneNotFound, "not found")
}

// retire takes a host out of service and deletes it.
func (s *site) retire(id fleet.HostID) {
	s.Helper()
	s.done(s.control.SuspendHost(s.ctx(), root, id))
	s.done(s.control.EnterMaintenance(s.ctx(), root, id))
	s.done(s.control.DeleteHost(s.ctx(), root, id))
}

// H9: wrong credentials are told by the task, and the host can be deleted and
// registered again.
func TestHostsH9(t *testing.T) {
	s := newSite(t)
	h := s.esxi("esx-1")
	spec := hostSpec(h)
	spec.Password = "wrong"
	id := fleet.HostID(s.failed(s.control.CreateHost(s.ctx(), root, spec))("CREATE_HOST", fleet.InvalidLoginCredentials, "Invalid Username or Password"))
	s.hostIs(id, fleet.HostError)
	_, err := s.control.CreateHost(s.ctx(), root, hostSpec(h))
	fails(t, err, fleet.DuplicateHost, "Host with IP "+h.Address()+" already registered.")
	s.done(s.control.DeleteHost(s.ctx(), root, id))
	s.done(s.control.CreateHost(s.ctx(), root, hostSpec(h)))
	// The same machine, at another address.
	again := hostSpec(h)
	again.Address = strings.Replace(h.Address(), "127.0.0.1", "localhost", 1)
	s.failed(s.control.CreateHost(s.ctx(), root, again))("CREATE_HOST", fleet.DuplicateHost, "by its hardware's UUID")
}

// A host that does not answer, or shows another certificate, is in ERROR; provisioned
// again when it answers, it is ready.
func TestHostsProvision(t *testing.T) {
	s := newSite(t)
	h := s.esxi("esx-1")
	h.Down()
	id := fleet.HostID(s.failed(s.control.CreateHost(s.ctx(), root, hostSpec(h)))("CREATE_HOST", fleet.InternalError, "on host "+h.Address()+": it "))
	s.hostIs(id, fleet.HostError)
	if err := h.Up(); err != nil {
		t.Fatal(err)
	}
	s.done(s.control.ProvisionHost(s.ctx(), root, id))
	s.hostIs(id, fleet.HostReady)

	wrong := hostSpec(s.esxi("esx-2"))
	wrong.Fingerprint = h.Fingerprint()
	s.failed(s.control.CreateHost(s.ctx(), root, wrong))("CREATE_HOST", fleet.InternalError, "certificate")
	// Without a fingerprint the one that it shows is taken, and told.
	third := s.esxi("esx-3")
	open := hostSpec(third)
	open.Fingerprint = ""
	done := s.wait(s.control.CreateHost(s.ctx(), root, open))
	got, err := s.control.Host(s.ctx(), root, fleet.HostID(done.Entity.ID))
	plain := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, ":", "")) }
	if err != nil || got.State != fleet.HostReady || plain(got.Fingerprint) != plain(third.Fingerprint()) || done.Steps[0].Options["fingerprint"] != got.Fingerprint {
		t.Errorf("%+v, %v; %+v", got, err, done.Steps)
	}
}

// A host is provisioned twice: it is ready after the first time, and the second, which
// fails, changes nothing of that.
func TestHostsProvisionedTwice(t *testing.T) {
	hold := make(chan struct{}, 1)
	var held atomic.Bool
	g := &gate{before: func(ctx context.Context, point string) error {
		if held.Load() && point == "PROVISION_HOST/CREATE_HOST" {
			select {
			case <-hold:
			case <-ctx.Done():
			}
		}
		return nil
	}}
	s := newGatedSite(t, g)
	h := s.esxi("esx-1")
	h.Down()
	id := fleet.HostID(s.failed(s.control.CreateHost(s.ctx(), root, hostSpec(h)))("CREATE_HOST", fleet.InternalError, "on host "+h.Address()+": it "))
	if err := h.Up(); err != nil {
		t.Fatal(err)
	}
	held.Store(true)
	first, err1 := s.control.ProvisionHost(s.ctx(), root, id)
	second, err2 := s.control.ProvisionHost(s.ctx(), root, id)
	hold <- struct{}{}
	s.done(first, err1)
	vm := s.vm("one", "")
	h.Down()
	close(hold)
	s.failed(second, err2)("CREATE_HOST", fleet.StateError, "Invalid operation PROVISION_HOST for host/"+string(id)+" in state READY")
	s.hostIs(id, fleet.HostReady)
	if err := h.Up(); err != nil {
		t.Fatal(err)
	}
	s.power(vm, fleet.StartVM)
	_, err := s.control.DeleteHost(s.ctx(), root, id)
	fails(t, err, fleet.StateError, "in state READY")
	s.consistent()
}

// H10 to H16: every verb on a host that is not there.
func TestHostsH10(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	_, err := c.Host(ctx, root, "x")
	fails(t, err, fleet.HostNotFound, "Host #x not found")
	_, err = c.HostVMs(ctx, root, "x")
	fails(t, err, fleet.HostNotFound, "Host #x not found")
	for _, verb := range []func() (fleet.Task, error){
		func() (fleet.Task, error) { return c.DeleteHost(ctx, root, "x") },
		func() (fleet.Task, error) { return c.SuspendHost(ctx, root, "x") },
		func() (fleet.Task, error) { return c.ResumeHost(ctx, root, "x") },
		func() (fleet.Task, error) { return c.EnterMaintenance(ctx, root, "x") },
		func() (fleet.Task, error) { return c.ExitMaintenance(ctx, root, "x") },
		func() (fleet.Task, error) { return c.ProvisionHost(ctx, root, "x") },
		func() (fleet.Task, error) { return c.SetHostZone(ctx, root, "x", "z") },
	} {
		_, err := verb()
		fails(t, err, fleet.HostNotFound, "Host #x not found")
	}
	user := controller.Principal{Name: "user", Role: controller.ProjectUser}
	_, err = c.SuspendHost(ctx, user, "x")
	fails(t, err, fleet.AccessForbidden, "Access forbidden")
	_, err = c.Hosts(ctx, user)
	fails(t, err, fleet.AccessForbidden, "Access forbidden")
}

// H17: a host that was created is READY, answers, and has said what it is; its
// password is in nothing that is shown.
func TestHostsH17(t *testing.T) {
	s := newSite(t)
	h := s.esxi("esx-1")
	spec := hostSpec(h)
	spec.Password = "secret"
	spec.Metadata = map[string]string{"rack": "7"}
	task := s.wait(s.control.CreateHost(s.ctx(), root, spec))
	id := fleet.HostID(task.Entity.ID)
	s.until("it has been watched", func() bool { return h.Calls("WaitForUpdatesEx") > 0 })
	got, err := s.control.Host(s.ctx(), root, id)
	if err != nil || got.State != fleet.HostReady || !got.Health.Reachable || got.Facts.Version != "8.0.3" || got.Metadata["rack"] != "7" {
		t.Errorf("%+v, %v", got, err)
	}
	all, err1 := s.control.Hosts(s.ctx(), root)
	stores, err2 := s.control.Datastores(s.ctx(), root, "")
	log, err3 := s.control.Audit(s.ctx(), root, time.Time{})
	shown, err4 := json.Marshal([]any{task, got, all, stores, log})
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(string(shown), "secret") {
		t.Errorf("the password is shown: %s", shown)
	}
	if len(all) != 1 || len(stores) != 1 || stores[0].Mounts[id] != "LocalDS_0" || !slices.Contains(stores[0].Tags, string(stores[0].Type)) {
		t.Errorf("%+v, %+v", all, stores)
	}
}

// H18: taken out of service and registered again, without and with VMs.
func TestHostsH18(t *testing.T) {
	s := newSite(t)
	h, id := s.host("esx-1")
	img := s.image(fleet.Eager)
	s.retire(id)
	if stores, err := s.control.Datastores(s.ctx(), root, ""); err != nil || len(stores) > 0 {
		t.Errorf("%+v, %v", stores, err)
	}
	if left := files(t, h); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	id = fleet.HostID(s.done(s.control.CreateHost(s.ctx(), root, hostSpec(h))))
	s.failed(s.control.CreateVM(s.ctx(), root, s.project, vmSpec("early", img)))("RESERVE_RESOURCE", fleet.NoSuchResource, "1 host: 1 in maintenance")
	y := adapter(t, h)
	if err := y.ExitMaintenance(s.ctx()); err != nil {
		t.Fatal(err)
	}
	s.until("the host is told to be out of maintenance", func() bool {
		x, err := s.control.Host(s.ctx(), root, id)
		return err == nil && !x.Facts.Maintenance
	})
	vm := s.vm("one", img)
	s.done(s.control.SuspendHost(s.ctx(), root, id))
	_, err := s.control.DeleteHost(s.ctx(), root, id)
	fails(t, err, fleet.StateError, "Invalid operation DELETE_HOST for host/"+string(id)+" in state SUSPENDED")
	s.vmIs(vm, fleet.VMStopped)
	s.done(s.control.DeleteVM(s.ctx(), root, vm))
	s.done(s.control.EnterMaintenance(s.ctx(), root, id))
	s.done(s.control.DeleteHost(s.ctx(), root, id))
	s.consistent()
}

// H19 to H21, H23 to H25: which modes lead to which; what is refused changes nothing.
func TestHostsH19(t *testing.T) {
	s := newSite(t)
	_, id := s.host("esx-1")
	type verb struct {
		name string
		do   func() (fleet.Task, error)
	}
	suspend := verb{"SUSPEND_HOST", func() (fleet.Task, error) { return s.control.SuspendHost(s.ctx(), root, id) }}
	resume := verb{"RESUME_HOST", func() (fleet.Task, error) { return s.control.ResumeHost(s.ctx(), root, id) }}
	enter := verb{"ENTER_MAINTENANCE_MODE", func() (fleet.Task, error) { return s.control.EnterMaintenance(s.ctx(), root, id) }}
	exit := verb{"EXIT_MAINTENANCE_MODE", func() (fleet.Task, error) { return s.control.ExitMaintenance(s.ctx(), root, id) }}
	for _, c := range []struct {
		verb
		ok bool
		is fleet.HostState
	}{
		{resume, false, fleet.HostReady},
		{exit, false, fleet.HostReady},
		{enter, false, fleet.HostReady},
		{suspend, true, fleet.HostSuspended},
		{suspend, true, fleet.HostSuspended},
		{exit, false, fleet.HostSuspended},
		{resume, true, fleet.HostReady},
		{suspend, true, fleet.HostSuspended},
		{enter, true, fleet.HostMaintenance},
		{enter, true, fleet.HostMaintenance},
		{suspend, false, fleet.HostMaintenance},
		{resume, false, fleet.HostMaintenance},
		{exit, true, fleet.HostReady},
	} {
		task, err := c.do()
		if !c.ok {
			fails(t, err, fleet.StateError, "Invalid operation "+c.name+" for host/"+string(id)+" in state "+string(c.is))
		} else {
			s.done(task, err)
		}
		s.hostIs(id, c.is)
	}
}

// H22: a host with VMs enters no maintenance, and keeps its state; suspended, it
// takes no more, and those that are there can be used.
func TestHostsH22(t *testing.T) {
	s := newSite(t)
	_, id := s.host("esx-1")
	vm := s.vm("one", "")
	_, err := s.control.EnterMaintenance(s.ctx(), root, id)
	fails(t, err, fleet.StateError, "in state READY")
	s.done(s.control.SuspendHost(s.ctx(), root, id))
	_, err = s.control.EnterMaintenance(s.ctx(), root, id)
	fails(t, err, fleet.HostHasVMs, "Host #"+string(id)+" has 1 VM(s) on it")
	s.hostIs(id, fleet.HostSuspended)
	s.power(vm, fleet.StartVM)
	s.failed(s.control.CreateVM(s.ctx(), root, s.project, vmSpec("two", "")))("RESERVE_RESOURCE", fleet.NoSuchResource, "1 host: 1 suspended")
	if all, err := s.control.HostVMs(s.ctx(), root, id); err != nil || len(all) != 1 || all[0].ID != vm {
		t.Errorf("%+v, %v", all, err)
	}
	s.consistent()
}

// H26: a host that was for tenants is registered again for management alone.
func TestHostsH26(t *testing.T) {
	s := newSite(t)
	h, id := s.host("esx-1")
	s.done(s.control.SuspendHost(s.ctx(), root, id))
	s.done(s.control.ResumeHost(s.ctx(), root, id))
	s.retire(id)
	if err := adapter(t, h).ExitMaintenance(s.ctx()); err != nil {
		t.Fatal(err)
	}
	spec := hostSpec(h)
	spec.Tags = []fleet.UsageTag{fleet.Management}
	again := fleet.HostID(s.done(s.control.CreateHost(s.ctx(), root, spec)))
	if x, err := s.control.Host(s.ctx(), root, again); err != nil || again == id || x.State != fleet.HostReady || x.Has(fleet.Cloud) || !x.Has(fleet.Management) {
		t.Errorf("%+v, %v", x, err)
	}
}

// H27: a host that is not for tenants refuses a VM by host affinity.
func TestHostsH27(t *testing.T) {
	s := newSite(t)
	spec := hostSpec(s.esxi("esx-1"))
	spec.Tags = []fleet.UsageTag{fleet.Management}
	s.done(s.control.CreateHost(s.ctx(), root, spec))
	want := vmSpec("one", "")
	want.Affinities = []fleet.Ref{{Kind: fleet.KindHost, ID: spec.Address}}
	_, err := s.control.CreateVM(s.ctx(), root, s.project, want)
	fails(t, err, fleet.InvalidEntity, "it takes no VMs")
	s.failed(s.control.CreateVM(s.ctx(), root, s.project, vmSpec("two", "")))("RESERVE_RESOURCE", fleet.NoSuchResource, "1 host: 1 not tagged CLOUD")
}

// A host that does not answer gets no VMs; what is deleted meanwhile goes from it
// when it is back, and what its VMs did meanwhile is told.
func TestHostsLost(t *testing.T) {
	s := newSite(t)
	h, id := s.host("esx-1")
	img := s.image(fleet.Eager)
	kept, gone := s.vm("kept", img), s.vm("gone", img)
	s.power(kept, fleet.StartVM)
	disk := fleet.DiskID(s.done(s.control.CreateDisk(s.ctx(), root, s.project, fleet.PersistentDiskSpec{Name: "data", Kind: "persistent-disk", Flavor: "keep", Capacity: 1 << 30})))
	s.until("the host is watched", func() bool { return h.Calls("WaitForUpdatesEx") > 0 })
	h.Down()
	reachable := func(want bool) func() bool {
		return func() bool {
			x, err := s.control.Host(s.ctx(), root, id)
			return err == nil && x.Health.Reachable == want
		}
	}
	s.until("the host is told to be lost", reachable(false))
	s.failed(s.control.CreateVM(s.ctx(), root, s.project, vmSpec("new", img)))("RESERVE_RESOURCE", fleet.NoSuchResource, "1 host: 1 not reachable")
	s.done(s.control.DeleteVM(s.ctx(), root, gone))
	s.done(s.control.DeleteDisk(s.ctx(), root, disk))
	if err := h.Up(); err != nil {
		t.Fatal(err)
	}
	s.until("the host is told to be back", reachable(true))
	s.until("what was deleted is gone from the host", func() bool {
		f := files(t, h)
		return count(f, "vm-") == 1 && count(f, "disk-") == 0
	})
	s.vmIs(kept, fleet.VMStarted)
	s.failed(s.control.DeleteVM(s.ctx(), root, kept))("DELETE_VM", fleet.InvalidVMState, "not powered off")
}

// untilTold waits until a host's watch has told of a VM's state. The simulator loses
// an event now and then; a new connection begins with all that there is.
func (s *site) untilTold(h *esxtest.Host, id fleet.VMID, want fleet.VMState) {
	s.Helper()
	next := time.Now().Add(5 * time.Second)
	s.until("the VM is told to be "+string(want), func() bool {
		if time.Now().After(next) {
			next = time.Now().Add(5 * time.Second)
			if err := h.CutConnections(); err != nil {
				s.Fatal(err)
			}
		}
		return s.getVM(id).State == want
	})
}

// What somebody does on the host itself is told: a VM that was switched off, and one
// that was deleted.
func TestHostsWatched(t *testing.T) {
	s := newSite(t)
	h, _ := s.host("esx-1")
	vm := s.vm("one", "")
	s.power(vm, fleet.StartVM)
	y := adapter(t, h)
	if err := y.Power(s.ctx(), vm, fleet.StopVM); err != nil {
		t.Fatal(err)
	}
	s.untilTold(h, vm, fleet.VMStopped)
	if err := y.DeleteVM(s.ctx(), vm); err != nil {
		t.Fatal(err)
	}
	s.untilTold(h, vm, fleet.VMError)
	if v := s.getVM(vm); v.Fault != "its host does not have it any more" {
		t.Errorf("fault %q", v.Fault)
	}
	s.done(s.control.DeleteVM(s.ctx(), root, vm))
	s.consistent()
}

// A license that forbids changes is told by who tries one; the VM can be deleted all
// the same.
func TestHostsFreeLicense(t *testing.T) {
	s := newSite(t)
	s.host("esx-1", func(o *esxtest.Options) { o.FreeLicense = true })
	id := fleet.VMID(s.failed(s.control.CreateVM(s.ctx(), root, s.project, vmSpec("one", "")))("CREATE_VM", fleet.InvalidOperation, "does not allow changes"))
	s.done(s.control.DeleteVM(s.ctx(), root, id))
	s.consistent()
}
