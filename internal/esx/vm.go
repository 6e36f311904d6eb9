package esx

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/boot"
	"bootd/internal/fleet"
)

// A machine is a VM that bootd has made, as it was found on the host.
type machine struct {
	mo.VirtualMachine
	place place // of its files
}

func (m machine) devices() object.VirtualDeviceList {
	if m.Config == nil {
		return nil
	}
	return m.Config.Hardware.Device
}

func (m machine) power() types.VirtualMachinePowerState { return m.Runtime.PowerState }

var machineProperties = []string{"config.files.vmPathName", "runtime.powerState", "runtime.connectionState", "guest.net", "guest.ipAddress", "guest.toolsRunningStatus",
	"config.hardware"}

// find looks a VM up. BIOS UUIDs are its IDs, but a VM that somebody has copied
// has the same one: what counts is where its files are.
func (h *Host) find(ctx context.Context, inv *inventory, id fleet.VMID, more ...string) (machine, error) {
	if err := checkID(id); err != nil {
		return machine{}, err
	}
	res, err := methods.FindAllByUuid(ctx, inv.vim, &types.FindAllByUuid{This: *inv.vim.ServiceContent.SearchIndex, Uuid: string(id), VmSearch: true})
	if err != nil {
		return machine{}, err
	}
	for _, ref := range res.Returnval {
		m := machine{}
		err := inv.get(ctx, ref, append(slices.Clone(machineProperties), more...), &m.VirtualMachine)
		if is[types.ManagedObjectNotFound](err) {
			continue // it has just gone
		}
		if err != nil {
			return m, err
		}
		if m.Config == nil {
			continue
		}
		if is, p, ok := vmOf(m.Config.Files.VmPathName); ok && is == id {
			m.place = p
			return m, nil
		}
	}
	return machine{}, fail(fleet.Missing, "", "the host does not have it")
}

func vmText(id fleet.VMID) string { return "VM " + string(id) }

// CreateVM makes a VM, powered off. One that is there already stays as it is,
// whatever it looks like.
func (h *Host) CreateVM(ctx context.Context, b fleet.Build) error {
	return h.verb(ctx, "create", vmText(b.VM), func(ctx context.Context, inv *inventory) error {
		if err := checkBuild(b); err != nil {
			return err
		}
		if _, err := h.find(ctx, inv, b.VM); !fleet.IsFault(err, fleet.Missing) {
			if err != nil {
				return err
			}
			return h.networkFirst(ctx, inv, b)
		}
		d, err := h.datastore(ctx, inv, b.Datastore)
		if err != nil {
			return err
		}
		at := vmPlace(b.Datastore, b.VM)
		if err := h.makeDir(ctx, inv, at); err != nil {
			return err
		}
		if b.Image != nil {
			if err := h.bootDisk(ctx, inv, d, at, b); err != nil {
				return err
			}
		}
		if err := h.register(ctx, inv, d, at, b); err != nil {
			return err
		}
		return h.networkFirst(ctx, inv, b)
	})
}

// networkFirst has a VM boot from the network, and from its disks only then, if
// that is wanted. It takes a step of its own: devices have keys only when they
// are there.
func (h *Host) networkFirst(ctx context.Context, inv *inventory, b fleet.Build) error {
	if !b.NetworkFirst {
		return nil
	}
	m, err := h.find(ctx, inv, b.VM, "config.bootOptions")
	if err != nil || m.Config.BootOptions != nil && len(m.Config.BootOptions.BootOrder) > 0 {
		return err
	}
	o := bootOptions()
	for _, d := range m.devices() {
		if _, ok := d.(types.BaseVirtualEthernetCard); ok {
			o.BootOrder = append(o.BootOrder, &types.VirtualMachineBootOptionsBootableEthernetDevice{DeviceKey: d.GetVirtualDevice().Key})
		}
	}
	for _, d := range m.devices() {
		if isDisk(d) {
			o.BootOrder = append(o.BootOrder, &types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: d.GetVirtualDevice().Key})
		}
	}
	return h.reconfigure(ctx, inv, m, types.VirtualMachineConfigSpec{BootOptions: o})
}

// bootOptions let a machine that finds nothing to boot try again: what it boots
// from may come up later than itself.
func bootOptions() *types.VirtualMachineBootOptions {
	retry := true
	return &types.VirtualMachineBootOptions{BootRetryEnabled: &retry, BootRetryDelay: 10_000}
}

func checkBuild(b fleet.Build) error {
	if b.Image != nil {
		if err := checkID(b.Image.ID); err != nil {
			return err
		}
		if err := checkDatastore(b.Image.Datastore); err != nil {
			return err
		}
	}
	for _, d := range b.Disks {
		if err := checkID(d.ID); err != nil {
			return err
		}
		if d.Capacity <= 0 {
			return fail(fleet.Unsupported, "", "disk %s has %d bytes", d.ID, d.Capacity)
		}
	}
	if b.CPUs < 1 || b.Memory < 4<<20 || b.Memory%(4<<20) != 0 {
		return fail(fleet.Unsupported, "", "%d processors and %d bytes of memory cannot be had: there must be one, and a multiple of 4 MB", b.CPUs, b.Memory)
	}
	return nil
}

// register makes the VM of the files at a place. An earlier try may have left
// files of its own, or may still be at it.
func (h *Host) register(ctx context.Context, inv *inventory, d mo.Datastore, at place, b fleet.Build) error {
	spec := configSpec(d, at, b)
	for try := 0; ; try++ {
		_, err := h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
			r, err := methods.CreateVM_Task(ctx, inv.vim, &types.CreateVM_Task{This: inv.vmFolder, Config: spec, Pool: inv.pool, Host: &inv.host})
			if err != nil {
				return types.ManagedObjectReference{}, err
			}
			return r.Returnval, nil
		})
		exists := is[types.FileAlreadyExists](err) || is[types.AlreadyExists](err) || is[types.DuplicateName](err)
		if err == nil || !exists || try > 0 {
			return err
		}
		// The try that left the files may be the one that succeeds.
		for range 5 {
			if _, err := h.find(ctx, inv, b.VM); !fleet.IsFault(err, fleet.Missing) {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(h.config.Patience / 200):
			}
		}
		if err := h.clear(ctx, inv, d, at); err != nil {
			return err
		}
	}
}

// clear deletes what is in a VM's directory but for its boot disk. A host does
// not list the file with the content of a disk beside the one that describes it.
func (h *Host) clear(ctx context.Context, inv *inventory, d mo.Datastore, at place) error {
	files, err := h.list(ctx, inv, d, at.dir, "*")
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name == bootFile || name == flat(bootFile) {
			continue
		}
		remove := h.remove
		if strings.HasSuffix(name, ".vmdk") {
			remove = h.removeDisk
		}
		if err := remove(ctx, inv, at.file(name)); err != nil {
			return err
		}
	}
	return nil
}

// configSpec is the VM as the API wants it.
func configSpec(d mo.Datastore, at place, b fleet.Build) types.VirtualMachineConfigSpec {
	name := b.Name
	if name == "" {
		name = string(b.VM)
	}
	spec := types.VirtualMachineConfigSpec{
		// ESXi wants names to differ, people need not.
		Name: name + " " + string(b.VM)[:8], Annotation: b.Notes, Uuid: string(b.VM), InstanceUuid: string(b.VM),
		GuestId: cmp.Or(b.Guest, string(types.VirtualMachineGuestOsIdentifierOtherLinux64Guest)),
		Files:   &types.VirtualMachineFileInfo{VmPathName: at.file(string(b.VM) + ".vmx")},
		NumCPUs: int32(b.CPUs), MemoryMB: b.Memory >> 20,
		Firmware:     string(cmp.Or(b.Firmware, fleet.BIOS)),
		BootOptions:  bootOptions(),
		DeviceChange: deviceSpecs(d, at, b),
	}
	if b.NestedHV {
		spec.NestedHVEnabled = &b.NestedHV
	}
	for _, k := range slices.Sorted(maps.Keys(b.GuestInfo)) {
		spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: k, Value: b.GuestInfo[k]})
	}
	return spec
}

// Keys of devices in a spec are negative, and replaced by the host.
const (
	scsiKey  = -100
	ideKey   = -200
	cdromKey = -201
)

func deviceSpecs(d mo.Datastore, at place, b fleet.Build) []types.BaseVirtualDeviceConfigSpec {
	add := func(dev types.BaseVirtualDevice, file types.VirtualDeviceConfigSpecFileOperation) types.BaseVirtualDeviceConfigSpec {
		return &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: file, Device: dev}
	}
	out := []types.BaseVirtualDeviceConfigSpec{add(scsi(b.Controller), "")}
	unit := int32(0)
	if b.Image != nil {
		out = append(out, add(disk(at.file(bootFile), d.Self, unit, 0), ""))
		unit++
	}
	for _, x := range b.Disks {
		if unit == 7 { // the controller itself
			unit++
		}
		out = append(out, add(disk(at.file(ownDisk(x.ID)), d.Self, unit, x.Capacity), types.VirtualDeviceConfigSpecFileOperationCreate))
		unit++
	}
	// A drive that is there from the beginning: IDE cannot be added to a VM that
	// runs, but a CD can be put in.
	out = append(out, add(&types.VirtualIDEController{VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: ideKey}}}, ""))
	out = append(out, add(&types.VirtualCdrom{VirtualDevice: types.VirtualDevice{Key: cdromKey, ControllerKey: ideKey, UnitNumber: new(int32),
		Backing:     &types.VirtualCdromRemotePassthroughBackingInfo{},
		Connectable: &types.VirtualDeviceConnectInfo{AllowGuestControl: true}}}, ""))
	for i, n := range b.NICs {
		out = append(out, add(nic(n, int32(-300-i)), ""))
	}
	return out
}

func scsi(kind string) types.BaseVirtualDevice {
	c := types.VirtualSCSIController{SharedBus: types.VirtualSCSISharingNoSharing, VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: scsiKey}}}
	switch kind {
	case "lsilogic":
		return &types.VirtualLsiLogicController{VirtualSCSIController: c}
	case "lsisas1068", "lsilogic-sas":
		return &types.VirtualLsiLogicSASController{VirtualSCSIController: c}
	case "buslogic":
		return &types.VirtualBusLogicController{VirtualSCSIController: c}
	}
	return &types.ParaVirtualSCSIController{VirtualSCSIController: c}
}

func disk(path string, datastore types.ManagedObjectReference, unit int32, capacity int64) *types.VirtualDisk {
	thin := true
	d := &types.VirtualDisk{VirtualDevice: types.VirtualDevice{Key: -400 - unit, ControllerKey: scsiKey, UnitNumber: &unit,
		Backing: &types.VirtualDiskFlatVer2BackingInfo{DiskMode: string(types.VirtualDiskModePersistent), ThinProvisioned: &thin,
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: path, Datastore: &datastore}}}}
	if capacity > 0 {
		d.CapacityInBytes, d.CapacityInKB = capacity, (capacity+1023)>>10
	}
	return d
}

func nic(n fleet.NIC, key int32) types.BaseVirtualDevice {
	card := types.VirtualEthernetCard{VirtualDevice: types.VirtualDevice{Key: key,
		Backing:     &types.VirtualEthernetCardNetworkBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: n.PortGroup}},
		Connectable: &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true}}}
	card.AddressType = string(types.VirtualEthernetCardMacTypeGenerated)
	if !n.MAC.IsZero() {
		card.AddressType, card.MacAddress = string(types.VirtualEthernetCardMacTypeManual), n.MAC.String()
	}
	return &types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: card}}
}

// DeleteVM deletes a VM with its own disks and whatever else is in its
// directories, in any state: one that runs is switched off. Persistent disks
// are detached. A VM that is not there is deleted.
func (h *Host) DeleteVM(ctx context.Context, id fleet.VMID) error {
	return h.verb(ctx, "delete", vmText(id), func(ctx context.Context, inv *inventory) error {
		m, err := h.find(ctx, inv, id)
		switch {
		case err == nil:
			if err := h.destroy(ctx, inv, m); err != nil {
				return err
			}
		case !fleet.IsFault(err, fleet.Missing):
			return err
		}
		all, err := h.datastores(ctx, inv)
		if err != nil {
			return err
		}
		for name, d := range all {
			if !d.Summary.Accessible {
				continue
			}
			if err := h.remove(ctx, inv, vmPlace(name, id).String()); err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *Host) destroy(ctx context.Context, inv *inventory, m machine) error {
	if m.power() != types.VirtualMachinePowerStatePoweredOff {
		if err := h.powerOff(ctx, inv, m); err != nil {
			return err
		}
	}
	// Destroying a VM deletes every disk it has, the persistent ones too.
	var foreign []types.BaseVirtualDeviceConfigSpec
	for _, d := range m.devices() {
		if file, ok := backingFile(d); ok && isDisk(d) {
			if p, _, ok := parsePath(file); !ok || p != m.place {
				foreign = append(foreign, &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: d})
			}
		}
	}
	if len(foreign) > 0 {
		if err := h.reconfigure(ctx, inv, m, types.VirtualMachineConfigSpec{DeviceChange: foreign}); err != nil {
			return err
		}
	}
	_, err := h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
		r, err := methods.Destroy_Task(ctx, inv.vim, &types.Destroy_Task{This: m.Self})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
	if is[types.ManagedObjectNotFound](err) {
		return nil
	}
	return err
}

func (h *Host) reconfigure(ctx context.Context, inv *inventory, m machine, spec types.VirtualMachineConfigSpec) error {
	_, err := h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
		r, err := methods.ReconfigVM_Task(ctx, inv.vim, &types.ReconfigVM_Task{This: m.Self, Spec: spec})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
	return err
}

func isDisk(d types.BaseVirtualDevice) bool {
	_, ok := d.(*types.VirtualDisk)
	return ok
}

// backingFile is the file that a device has.
func backingFile(d types.BaseVirtualDevice) (string, bool) {
	b, ok := d.GetVirtualDevice().Backing.(types.BaseVirtualDeviceFileBackingInfo)
	if !ok {
		return "", false
	}
	return b.GetVirtualDeviceFileBackingInfo().FileName, true
}

// SetMetadata sets notes and keys of a VM's configuration, "guestinfo.*" among
// them; an empty value deletes a key.
func (h *Host) SetMetadata(ctx context.Context, id fleet.VMID, notes *string, keys map[string]string) error {
	return h.verb(ctx, "describe", vmText(id), func(ctx context.Context, inv *inventory) error {
		m, err := h.find(ctx, inv, id)
		if err != nil {
			return err
		}
		spec := types.VirtualMachineConfigSpec{}
		if notes != nil {
			spec.Annotation = *notes
		}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: k, Value: keys[k]})
		}
		return h.reconfigure(ctx, inv, m, spec)
	})
}

// Ticket opens the screen of a VM that runs, once.
func (h *Host) Ticket(ctx context.Context, id fleet.VMID) (fleet.ConsoleTicket, error) {
	var out fleet.ConsoleTicket
	err := h.verb(ctx, "open the console of", vmText(id), func(ctx context.Context, inv *inventory) error {
		m, err := h.find(ctx, inv, id)
		if err != nil {
			return err
		}
		if m.power() != types.VirtualMachinePowerStatePoweredOn {
			return fail(fleet.Conflict, "start it", "it is %s", powerWords[m.power()])
		}
		r, err := methods.AcquireTicket(ctx, inv.vim, &types.AcquireTicket{This: m.Self, TicketType: string(types.VirtualMachineTicketTypeMks)})
		if err != nil {
			return err
		}
		t := r.Returnval
		out = fleet.ConsoleTicket{Ticket: t.Ticket, Host: t.Host, Port: int(t.Port), ConfigFile: t.CfgFile, SSLThumbprint: t.SslThumbprint}
		if out.Port == 0 {
			out.Port = 902
		}
		return nil
	})
	return out, err
}

// Status is what the host says of a VM now.
func (h *Host) Status(ctx context.Context, id fleet.VMID) (fleet.VMStatus, error) {
	var out fleet.VMStatus
	err := h.verb(ctx, "look at", vmText(id), func(ctx context.Context, inv *inventory) error {
		m, err := h.find(ctx, inv, id, "config.extraConfig")
		if err != nil {
			return err
		}
		out = vmStatus(id, m.VirtualMachine)
		return nil
	})
	return out, err
}

// VMs are all that bootd has made on the host.
func (h *Host) VMs(ctx context.Context) ([]fleet.VMStatus, error) {
	var out []fleet.VMStatus
	err := h.verb(ctx, "list", "the VMs", func(ctx context.Context, inv *inventory) error {
		var host mo.HostSystem
		if err := inv.get(ctx, inv.host, []string{"vm"}, &host); err != nil || len(host.Vm) == 0 {
			return err
		}
		var list []mo.VirtualMachine
		if err := inv.pc.Retrieve(ctx, host.Vm, machineProperties, &list); err != nil {
			return err
		}
		for _, v := range list {
			if v.Config == nil {
				continue
			}
			if id, _, ok := vmOf(v.Config.Files.VmPathName); ok {
				out = append(out, vmStatus(id, v))
			}
		}
		slices.SortFunc(out, func(a, b fleet.VMStatus) int { return strings.Compare(string(a.VM), string(b.VM)) })
		return nil
	})
	return out, err
}

func macOf(s string) boot.MAC {
	m, err := boot.ParseMAC(s)
	if err != nil {
		return boot.MAC{}
	}
	return m
}
