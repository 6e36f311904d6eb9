package esx

import (
	"context"
	"io"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/fleet"
)

// AttachDisk attaches a persistent disk, by the name of its datastore on the
// host, to a VM that is off or running. One that is attached already stays so.
func (h *Host) AttachDisk(ctx context.Context, id fleet.VMID, datastore string, disk fleet.DiskID) error {
	return h.verb(ctx, "attach disk "+string(disk)+" to", vmText(id), func(ctx context.Context, inv *inventory) error {
		if err := checkID(disk); err != nil {
			return err
		}
		d, err := h.datastore(ctx, inv, datastore)
		if err != nil {
			return err
		}
		m, err := h.find(ctx, inv, id)
		if err != nil {
			return err
		}
		if diskDevice(m.devices(), disk) != nil {
			return nil
		}
		c, unit, err := freeUnit(m.devices())
		if err != nil {
			return err
		}
		dev := attached(diskPlace(datastore, disk).file(diskFile), d.Self, c, unit)
		return h.reconfigure(ctx, inv, m, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
			&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: dev}}})
	})
}

// attached is a disk whose file is there, at a unit of a controller.
func attached(path string, datastore types.ManagedObjectReference, controller, unit int32) *types.VirtualDisk {
	d := disk(path, datastore, unit, 0)
	d.ControllerKey = controller
	return d
}

// DetachDisk detaches a disk from a VM; its files stay. One that is not attached
// is detached.
func (h *Host) DetachDisk(ctx context.Context, id fleet.VMID, disk fleet.DiskID) error {
	return h.verb(ctx, "detach disk "+string(disk)+" from", vmText(id), func(ctx context.Context, inv *inventory) error {
		m, err := h.find(ctx, inv, id)
		if err != nil {
			return err
		}
		dev := diskDevice(m.devices(), disk)
		if dev == nil {
			return nil
		}
		return h.reconfigure(ctx, inv, m, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
			&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: dev}}})
	})
}

// diskDevice is the device that a disk is; nil if it is not attached.
func diskDevice(devices object.VirtualDeviceList, id fleet.DiskID) types.BaseVirtualDevice {
	for _, d := range devices {
		if file, ok := backingFile(d); ok && isDisk(d) && diskOf(file) == id {
			return d
		}
	}
	return nil
}

// freeUnit finds a place for one more disk on a SCSI controller: 15 fit on one,
// and unit 7 is the controller itself.
func freeUnit(devices object.VirtualDeviceList) (controller, unit int32, err error) {
	for _, d := range devices {
		c, ok := d.(types.BaseVirtualSCSIController)
		if !ok {
			continue
		}
		key := c.GetVirtualSCSIController().Key
		used := map[int32]bool{7: true}
		for _, x := range devices {
			if v := x.GetVirtualDevice(); v.ControllerKey == key && v.UnitNumber != nil {
				used[*v.UnitNumber] = true
			}
		}
		for u := range int32(16) {
			if !used[u] {
				return key, u, nil
			}
		}
	}
	return 0, 0, fail(fleet.Unsupported, "detach one", "it has as many disks as it can have")
}

// AttachISO uploads a CD image into the VM's directory and puts it into the
// drive in the place of what is there. Open is called for each try.
func (h *Host) AttachISO(ctx context.Context, id fleet.VMID, iso fleet.ISOID, size int64, open func() (io.ReadCloser, error)) error {
	return h.verb(ctx, "attach a CD image to", vmText(id), func(ctx context.Context, inv *inventory) error {
		if err := checkID(iso); err != nil {
			return err
		}
		m, err := h.find(ctx, inv, id)
		if err != nil {
			return err
		}
		drive, err := cdrom(m.devices())
		if err != nil {
			return err
		}
		path := m.place.file(isoFile(iso))
		if b, ok := drive.Backing.(*types.VirtualCdromIsoBackingInfo); ok && b.FileName == path {
			return nil // it is put in only when it is whole
		}
		if err := h.put(ctx, inv, path, size, open); err != nil {
			return err
		}
		drive.Backing = &types.VirtualCdromIsoBackingInfo{VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: path}}
		return h.changeCD(ctx, inv, m, drive, true)
	})
}

// DetachISO takes out what is in a VM's drive, and deletes the CD images in its
// directory. An empty drive stays empty.
func (h *Host) DetachISO(ctx context.Context, id fleet.VMID) error {
	return h.verb(ctx, "detach the CD image of", vmText(id), func(ctx context.Context, inv *inventory) error {
		m, err := h.find(ctx, inv, id)
		if err != nil {
			return err
		}
		drive, err := cdrom(m.devices())
		if err != nil {
			return err
		}
		if _, in := drive.Backing.(*types.VirtualCdromIsoBackingInfo); in {
			drive.Backing = &types.VirtualCdromRemotePassthroughBackingInfo{}
			if err := h.changeCD(ctx, inv, m, drive, false); err != nil {
				return err
			}
		}
		d, err := h.datastore(ctx, inv, m.place.datastore)
		if err != nil {
			return err
		}
		files, err := h.list(ctx, inv, d, m.place.dir, isoPrefix+"*.iso")
		if err != nil {
			return err
		}
		for name := range files {
			if err := h.remove(ctx, inv, m.place.file(name)); err != nil {
				return err
			}
		}
		return nil
	})
}

const isoPrefix = "cd-"

func isoFile(id fleet.ISOID) string { return isoPrefix + string(id) + ".iso" }

func (h *Host) changeCD(ctx context.Context, inv *inventory, m machine, drive *types.VirtualCdrom, in bool) error {
	drive.Connectable = &types.VirtualDeviceConnectInfo{AllowGuestControl: true, StartConnected: in,
		Connected: in && m.power() == types.VirtualMachinePowerStatePoweredOn}
	return h.reconfigure(ctx, inv, m, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: drive}}})
}

// cdrom is a copy of a VM's drive.
func cdrom(devices object.VirtualDeviceList) (*types.VirtualCdrom, error) {
	for _, d := range devices {
		if c, ok := d.(*types.VirtualCdrom); ok {
			out := *c
			return &out, nil
		}
	}
	return nil, fail(fleet.Unsupported, "somebody has removed it: create the VM again", "it has no CD drive")
}
