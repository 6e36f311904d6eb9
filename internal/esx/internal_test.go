package esx

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/fleet"
)

func TestPaths(t *testing.T) {
	vm, disk := fleet.DeriveID[fleet.VMID]("t", "vm"), fleet.DeriveID[fleet.DiskID]("t", "disk")
	for path, want := range map[string]place{
		vmPlace("ds 1", vm).file("x.vmx"):   {"ds 1", vmPrefix + string(vm)},
		"[ds] a/b/c.vmdk":                   {"ds", "a/b"},
		"[ds] c.vmdk":                       {"ds", ""},
		"[] /vmfs/volumes/ds/a/c.vmdk":      {"", "/vmfs/volumes/ds/a"},
		diskPlace("d", disk).file("y.vmdk"): {"d", diskPrefix + string(disk)},
	} {
		if got, _, ok := parsePath(path); !ok || got != want {
			t.Errorf("%s is in %+v, want %+v", path, got, want)
		}
	}
	for path, want := range map[string]fleet.VMID{
		vmPlace("ds", vm).file("x.vmx"):                vm,
		"[ds] " + vmPrefix + "1/x.vmx":                 "",
		"[ds] other/x.vmx":                             "",
		"x.vmx":                                        "",
		"[ds] " + vmPrefix + string(vm) + "/sub/x.vmx": "",
	} {
		if got, _, ok := vmOf(path); ok != (want != "") || ok && got != want {
			t.Errorf("%s is VM %s, %v", path, got, ok)
		}
	}
	for path, want := range map[string]fleet.DiskID{
		diskPlace("ds", disk).file(diskFile):  disk,
		vmPlace("ds", vm).file(ownDisk(disk)): disk,
		vmPlace("ds", vm).file(bootFile):      "",
		"[ds] disk-x.vmdk":                    "",
		"":                                    "",
	} {
		if got := diskOf(path); got != want {
			t.Errorf("%s is disk %q, want %q", path, got, want)
		}
	}
	for name, ok := range map[string]bool{"datastore1": true, "my nfs (1)": true, "": false, "a]": false, "a/b": false, "[x": false} {
		if (checkDatastore(name) == nil) != ok {
			t.Errorf("datastore %q: %v", name, !ok)
		}
	}
}

func TestAddressesOfGuests(t *testing.T) {
	for s, want := range map[string][]string{
		"":                               nil,
		"10.0.0.7":                       {"10.0.0.7/32"},
		"10.0.0.7/24,fd00::7/64":         {"10.0.0.7/24", "fd00::7/64"},
		"fe80::1, 127.0.0.1 169.254.1.1": nil,
		"nonsense 10.0.0.300 0.0.0.0":    nil,
		"10.0.0.7 10.0.0.7":              {"10.0.0.7/32"},
		"fd00::1%eth0":                   {"fd00::1/128"},
	} {
		var got []string
		for _, p := range parseAddrs(s) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q is %v, want %v", s, got, want)
		}
	}
}

func TestFingerprints(t *testing.T) {
	for s, n := range map[string]int{
		"9A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D": 20,
		"sha-1:9a0b0c0d0e0f101112131415161718191a1b1c1d":              20,
		"SHA256:9a0b0c0d0e0f101112131415161718191a1b1c1d":             0,
		"SHA256:":  0,
		"":         0,
		"password": 0,
	} {
		b, err := parsePin(s)
		if len(b) != n || (err == nil) != (n > 0) {
			t.Errorf("%q: %d bytes, %v", s, len(b), err)
		}
	}
}

func TestLicenses(t *testing.T) {
	feature := func(k string) types.KeyAnyValue {
		return types.KeyAnyValue{Key: "feature", Value: types.KeyValue{Key: k}}
	}
	for name, c := range map[string]struct {
		list []types.LicenseManagerLicenseInfo
		want bool
	}{
		"none":       {nil, false},
		"evaluation": {[]types.LicenseManagerLicenseInfo{{EditionKey: "eval"}}, false},
		"free":       {[]types.LicenseManagerLicenseInfo{{EditionKey: "esxBasic", Properties: []types.KeyAnyValue{feature("vsmp:8")}}}, true},
		"paid":       {[]types.LicenseManagerLicenseInfo{{EditionKey: "esx.standard", Properties: []types.KeyAnyValue{feature("vsmp:128"), feature("vimapi")}}}, false},
	} {
		if _, got := license(c.list); got != c.want {
			t.Errorf("%s: read only is %v", name, got)
		}
	}
}

func TestDatastoreTypes(t *testing.T) {
	local, shared := true, false
	for want, d := range map[fleet.DatastoreType]mo.Datastore{
		fleet.LocalVMFS:  {Summary: types.DatastoreSummary{Type: "VMFS"}, Info: &types.VmfsDatastoreInfo{Vmfs: &types.HostVmfsVolume{Local: &local}}},
		fleet.SharedVMFS: {Summary: types.DatastoreSummary{Type: "VMFS"}, Info: &types.VmfsDatastoreInfo{Vmfs: &types.HostVmfsVolume{Local: &shared}}},
		fleet.NFS3:       {Summary: types.DatastoreSummary{Type: "NFS"}},
		fleet.NFS41:      {Summary: types.DatastoreSummary{Type: "NFS41"}},
		fleet.VSAN:       {Summary: types.DatastoreSummary{Type: "vsan"}},
		fleet.Other:      {Summary: types.DatastoreSummary{Type: "OTHER"}},
	} {
		if got := datastoreType(d); got != want {
			t.Errorf("%s is %s", want, got)
		}
	}
}

// TestPartsOfProperties has a host tell of a device alone: the VM is read again,
// not changed blindly.
func TestPartsOfProperties(t *testing.T) {
	ref := types.ManagedObjectReference{Type: "VirtualMachine", Value: "1"}
	vm := fleet.DeriveID[fleet.VMID]("t", "vm")
	w := &watched{vms: map[types.ManagedObjectReference]*mo.VirtualMachine{}, ids: map[types.ManagedObjectReference]fleet.VMID{}, sent: map[fleet.VMID]fleet.VMStatus{},
		changed: map[types.ManagedObjectReference]bool{}}
	tell := func(kind types.ObjectUpdateKind, changes ...types.PropertyChange) fleet.Update {
		w.apply(&types.UpdateSet{FilterSet: []types.PropertyFilterUpdate{{ObjectSet: []types.ObjectUpdate{{Kind: kind, Obj: ref, ChangeSet: changes}}}}})
		var u fleet.Update
		w.difference(&u)
		return u
	}
	whole := func(name string, v any) types.PropertyChange {
		return types.PropertyChange{Name: name, Op: types.PropertyChangeOpAssign, Val: v}
	}
	enter := []types.PropertyChange{whole("config.files.vmPathName", vmPlace("ds", vm).file("x.vmx")), whole("runtime.powerState", types.VirtualMachinePowerStatePoweredOff)}
	if u := tell(types.ObjectUpdateKindEnter, enter...); len(u.VMs) != 1 || u.VMs[0].State != fleet.VMStopped {
		t.Fatalf("a new VM: %+v", u)
	}
	if u := tell(types.ObjectUpdateKindEnter, enter...); len(u.VMs) != 0 {
		t.Errorf("it was told again: %+v", u)
	}
	if tell(types.ObjectUpdateKindModify, whole("config.hardware.device[4000].connectable.connected", true)); !slices.Equal(w.stale, []types.ManagedObjectReference{ref}) {
		t.Errorf("to be read again are %v", w.stale)
	}
	if u := tell(types.ObjectUpdateKindModify, whole("guest.ipAddress", nil)); len(u.Gone)+len(u.VMs) != 0 {
		t.Errorf("an address that is not there: %+v", u)
	}
	if u := tell(types.ObjectUpdateKindLeave); cmp.Diff([]fleet.VMID{vm}, u.Gone) != "" {
		t.Errorf("after it left: %+v", u)
	}
	if u := tell(types.ObjectUpdateKindModify, whole("runtime.powerState", types.VirtualMachinePowerStatePoweredOn)); len(u.VMs)+len(u.Gone) != 0 {
		t.Errorf("a change of what is gone: %+v", u)
	}
}

func TestStatusOfGuestWithoutTools(t *testing.T) {
	v := mo.VirtualMachine{Runtime: types.VirtualMachineRuntimeInfo{PowerState: types.VirtualMachinePowerStatePoweredOn}, Config: &types.VirtualMachineConfigInfo{
		ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: addressKey, Value: "10.0.0.9/24"}},
		Hardware:    types.VirtualHardware{Device: []types.BaseVirtualDevice{nic(fleet.NIC{PortGroup: "p"}, 4000)}}}}
	s := vmStatus("v", v)
	if len(s.NICs) != 1 || !slices.Equal(s.NICs[0].Addrs, []netip.Prefix{netip.MustParsePrefix("10.0.0.9/24")}) || !s.NICs[0].MAC.IsZero() {
		t.Errorf("%+v", s)
	}
	v.Runtime.ConnectionState = types.VirtualMachineConnectionStateInaccessible
	if s := vmStatus("v", v); s.State != fleet.VMError {
		t.Errorf("a VM whose files cannot be reached is %s", s.State)
	}
}
