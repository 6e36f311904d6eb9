package controller_test

import (
	"testing"

	"bootd/internal/controller"
	"bootd/internal/fleet"
)

// Z1 to Z5: create, get, list, delete; unknown ones; the same name twice.
func TestZonesZ1(t *testing.T) {
	c, _ := open(t)
	ctx := t.Context()
	task, err := c.CreateZone(ctx, root, "east")
	id := fleet.ZoneID(must(t)(task, err))
	if task.Operation != "CREATE_AVAILABILITYZONE" {
		t.Errorf("%+v", task)
	}
	if z, err := c.Zone(ctx, id); err != nil || z.Name != "east" || z.State != fleet.ZoneReady {
		t.Errorf("%+v, %v", z, err)
	}
	must(t)(c.CreateZone(ctx, root, "east"))
	if all, err := c.Zones(ctx, "east"); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	must(t)(c.DeleteZone(ctx, root, id))
	_, err = c.Zone(ctx, id)
	fails(t, err, fleet.AvailabilityZoneNotFound, "AvailabilityZone "+string(id)+" not found")
	_, err = c.DeleteZone(ctx, root, id)
	fails(t, err, fleet.AvailabilityZoneNotFound, "not found")
	_, err = c.CreateZone(ctx, root, "1")
	fails(t, err, fleet.InvalidEntity, "must match")
	_, err = c.CreateZone(ctx, controller.Principal{Role: controller.TenantAdmin, Tenant: "x"}, "west")
	fails(t, err, fleet.AccessForbidden, "")
}

// Z6: VMs with an affinity to a zone are on its hosts.
func TestZonesZ6(t *testing.T) {
	s := newSite(t)
	east := fleet.ZoneID(must(t)(s.control.CreateZone(s.ctx(), root, "east")))
	west := fleet.ZoneID(must(t)(s.control.CreateZone(s.ctx(), root, "west")))
	s.host("esx-1")
	_, id := s.host("esx-2")
	must(t)(s.control.SetHostZone(s.ctx(), root, id, east))
	spec := vmSpec("one", "")
	spec.Affinities = []fleet.Ref{{Kind: fleet.AffinityZone, ID: string(east)}}
	for range 3 {
		vm := fleet.VMID(s.done(s.control.CreateVM(s.ctx(), root, s.project, spec)))
		if v := s.getVM(vm); v.Host != id {
			t.Errorf("it is on %s, not on the zone's host %s", v.Host, id)
		}
	}
	spec.Affinities[0].ID = string(west)
	s.failed(s.control.CreateVM(s.ctx(), root, s.project, spec))("RESERVE_RESOURCE", fleet.UnfulfillableAffinities, "2 hosts: 2 not in zone "+string(west))
	spec.Affinities[0].ID = "nowhere"
	_, err := s.control.CreateVM(s.ctx(), root, s.project, spec)
	fails(t, err, fleet.AvailabilityZoneNotFound, "not found")
	s.consistent()
}
