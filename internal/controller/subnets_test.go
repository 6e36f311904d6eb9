package controller_test

import (
	"slices"
	"testing"

	"bootd/internal/controller"
	"bootd/internal/fleet"
)

// N1 to N14: subnets.
func TestSubnetsN1(t *testing.T) {
	s := newSite(t)
	s.host("esx-1", portGroups("blue", "green"))
	if groups, err := s.control.PortGroups(s.ctx()); err != nil || !slices.Equal(groups, []string{"VM Network", "blue", "green"}) {
		t.Fatalf("%v, %v", groups, err)
	}
	spec := func(name string, groups ...string) controller.SubnetSpec {
		return controller.SubnetSpec{Name: name, Description: "for tests", PortGroups: groups}
	}
	task, err := s.control.CreateSubnet(s.ctx(), root, spec("net", "VM Network"))
	id := fleet.SubnetID(must(t)(task, err))
	got, err := s.control.Subnet(s.ctx(), id)
	if err != nil || got.State != fleet.SubnetReady || got.Description != "for tests" || !slices.Equal(got.PortGroups, []string{"VM Network"}) || got.Default || task.Operation != "CREATE_NETWORK" {
		t.Errorf("%+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		spec controller.SubnetSpec
		code fleet.Code
		text string
	}{
		"N2 no name":        {spec("", "VM Network"), fleet.InvalidEntity, "name may not be null"},
		"N3 wrong name":     {spec("1", "VM Network"), fleet.InvalidEntity, "must match"},
		"N4 no port groups": {spec("net"), fleet.InvalidEntity, "portGroups size must be between"},
		"N10 unknown group": {spec("net", "nowhere"), fleet.PortGroupsDoNotExist, "Port group nowhere does not exist on any host."},
		"N11 in use":        {spec("net", "VM Network"), fleet.PortGroupAlreadyAddedToSubnet, "Port group VM Network is already added to subnet " + string(id)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.control.CreateSubnet(s.ctx(), root, c.spec)
			fails(t, err, c.code, c.text)
		})
	}
	// N5: the same name twice.
	other := fleet.SubnetID(must(t)(s.control.CreateSubnet(s.ctx(), root, spec("net", "green"))))
	if all, err := s.control.Subnets(s.ctx(), "net"); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	// N8: other port groups; those that it had are free then.
	_, err = s.control.SetPortGroups(s.ctx(), root, other, []string{"VM Network"})
	fails(t, err, fleet.PortGroupAlreadyAddedToSubnet, "already added to subnet "+string(id))
	must(t)(s.control.SetPortGroups(s.ctx(), root, id, []string{"blue"}))
	must(t)(s.control.SetPortGroups(s.ctx(), root, other, []string{"VM Network", "green"}))
	if got, err := s.control.Subnet(s.ctx(), other); err != nil || len(got.PortGroups) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	// N9: unknown.
	for _, verb := range []func() (fleet.Task, error){
		func() (fleet.Task, error) { return s.control.DeleteSubnet(s.ctx(), root, "x") },
		func() (fleet.Task, error) { return s.control.SetPortGroups(s.ctx(), root, "x", []string{"blue"}) },
		func() (fleet.Task, error) { return s.control.SetDefaultSubnet(s.ctx(), root, "x") },
	} {
		_, err := verb()
		fails(t, err, fleet.NetworkNotFound, "Network x not found")
	}
	// N12 to N14: the default is one at a time, and may be set again.
	isDefault := func(id fleet.SubnetID) bool {
		n, err := s.control.Subnet(s.ctx(), id)
		return err == nil && n.Default
	}
	for _, next := range []fleet.SubnetID{id, other, other} {
		must(t)(s.control.SetDefaultSubnet(s.ctx(), root, next))
		if isDefault(id) != (next == id) || isDefault(other) != (next == other) {
			t.Errorf("%s was made the default, and is not it alone", next)
		}
	}
	// N6: deleted; N7: one with VMs goes with the last of them.
	must(t)(s.control.DeleteSubnet(s.ctx(), root, id))
	_, err = s.control.Subnet(s.ctx(), id)
	fails(t, err, fleet.NetworkNotFound, "not found")
	vm := s.vm("one", "") // in the default one
	if v := s.getVM(vm); len(v.NICs) != 1 || v.NICs[0].Subnet != other || v.NICs[0].PortGroup != "VM Network" {
		t.Errorf("%+v", v.NICs)
	}
	must(t)(s.control.DeleteSubnet(s.ctx(), root, other))
	_, err = s.control.DeleteSubnet(s.ctx(), root, other)
	fails(t, err, fleet.InvalidNetworkState, "is in state PENDING_DELETE")
	want := vmSpec("two", "")
	want.Subnets = []fleet.SubnetID{other}
	_, err = s.control.CreateVM(s.ctx(), root, s.project, want)
	fails(t, err, fleet.InvalidNetworkState, "is in state PENDING_DELETE")
	s.done(s.control.DeleteVM(s.ctx(), root, vm))
	_, err = s.control.Subnet(s.ctx(), other)
	fails(t, err, fleet.NetworkNotFound, "not found")
	must(t)(s.control.CreateSubnet(s.ctx(), root, spec("again", "VM Network", "blue")))
	_, err = s.control.CreateSubnet(s.ctx(), controller.Principal{Role: controller.ProjectUser}, spec("net", "green"))
	fails(t, err, fleet.AccessForbidden, "")
}
