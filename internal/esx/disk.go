package esx

import (
	"context"
	"io"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/esx/vmdk"
	"bootd/internal/fleet"
)

// bootDisk copies a VM's image to its boot disk.
func (h *Host) bootDisk(ctx context.Context, inv *inventory, d mo.Datastore, at place, b fleet.Build) error {
	there, err := h.whole(ctx, inv, d, at, bootFile)
	if err != nil || there {
		return err
	}
	if err := h.removeDisk(ctx, inv, at.file(bootPart)); err != nil {
		return err
	}
	if err := h.copyDisk(ctx, inv, imagePlace(b.Image.Datastore, b.Image.ID).file(diskFile), at.file(bootPart)); err != nil {
		return err
	}
	if b.BootDisk > 0 {
		if err := h.growDisk(ctx, inv, at.file(bootPart), b.BootDisk); err != nil {
			return err
		}
	}
	return h.moveDisk(ctx, inv, at.file(bootPart), at.file(bootFile))
}

// copyDisk copies a disk, thin. Only ESXi itself takes a form for the copy;
// vCenter refuses one.
func (h *Host) copyDisk(ctx context.Context, inv *inventory, from, to string) error {
	done, err := h.copies.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, err = h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
		r, err := methods.CopyVirtualDisk_Task(ctx, inv.vim, &types.CopyVirtualDisk_Task{This: *inv.vim.ServiceContent.VirtualDiskManager,
			SourceName: from, SourceDatacenter: &inv.datacenter, DestName: to, DestDatacenter: &inv.datacenter, DestSpec: thinCopy()})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
	return err
}

// thinCopy is the form that disks get.
func thinCopy() *types.VirtualDiskSpec {
	return &types.VirtualDiskSpec{DiskType: string(types.VirtualDiskTypeThin), AdapterType: string(types.VirtualDiskAdapterTypeLsiLogic)}
}

func (h *Host) moveDisk(ctx context.Context, inv *inventory, from, to string) error {
	_, err := h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
		r, err := methods.MoveVirtualDisk_Task(ctx, inv.vim, &types.MoveVirtualDisk_Task{This: *inv.vim.ServiceContent.VirtualDiskManager,
			SourceName: from, SourceDatacenter: &inv.datacenter, DestName: to, DestDatacenter: &inv.datacenter})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
	return err
}

// growDisk makes a disk larger, if it is smaller than that.
func (h *Host) growDisk(ctx context.Context, inv *inventory, path string, capacity int64) error {
	has, err := h.capacity(ctx, inv, path)
	if err != nil || has >= capacity {
		return err
	}
	_, err = h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
		lazy := false
		r, err := methods.ExtendVirtualDisk_Task(ctx, inv.vim, &types.ExtendVirtualDisk_Task{This: *inv.vim.ServiceContent.VirtualDiskManager,
			Name: path, Datacenter: &inv.datacenter, NewCapacityKb: (capacity + 1023) >> 10, EagerZero: &lazy})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
	return err
}

// capacity is how large a disk is, as its descriptor says.
func (h *Host) capacity(ctx context.Context, inv *inventory, path string) (int64, error) {
	var n int64
	err := h.fetch(ctx, inv, h.calls, path, func(r io.Reader, _ int64) error {
		text, err := io.ReadAll(io.LimitReader(r, 64<<10))
		if err != nil {
			return err
		}
		if n, err = vmdk.ReadDescriptor(string(text)); err != nil {
			return fail(fleet.Broken, "", "%s: %v", path, err)
		}
		return nil
	})
	return n, err
}

// CreateDisk makes an empty persistent disk, thin.
func (h *Host) CreateDisk(ctx context.Context, datastore string, id fleet.DiskID, capacity int64) error {
	return h.verb(ctx, "create", "disk "+string(id)+" on datastore "+datastore, func(ctx context.Context, inv *inventory) error {
		if err := checkID(id); err != nil {
			return err
		}
		d, err := h.datastore(ctx, inv, datastore)
		if err != nil {
			return err
		}
		at := diskPlace(datastore, id)
		there, err := h.whole(ctx, inv, d, at, diskFile)
		if err != nil || there {
			return err
		}
		if err := h.freshDir(ctx, inv, at); err != nil {
			return err
		}
		_, err = h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
			r, err := methods.CreateVirtualDisk_Task(ctx, inv.vim, &types.CreateVirtualDisk_Task{This: *inv.vim.ServiceContent.VirtualDiskManager,
				Name: at.file(partFile), Datacenter: &inv.datacenter, Spec: &types.FileBackedVirtualDiskSpec{VirtualDiskSpec: *thinCopy(), CapacityKb: (capacity + 1023) >> 10}})
			if err != nil {
				return types.ManagedObjectReference{}, err
			}
			return r.Returnval, nil
		})
		if err != nil {
			return err
		}
		return h.moveDisk(ctx, inv, at.file(partFile), at.file(diskFile))
	})
}

// DeleteDisk deletes a persistent disk; one that a VM has is in use.
func (h *Host) DeleteDisk(ctx context.Context, datastore string, id fleet.DiskID) error {
	return h.verb(ctx, "delete", "disk "+string(id)+" on datastore "+datastore, func(ctx context.Context, inv *inventory) error {
		if err := checkID(id); err != nil {
			return err
		}
		if _, err := h.datastore(ctx, inv, datastore); err != nil {
			return err
		}
		var host mo.HostSystem
		if err := inv.get(ctx, inv.host, []string{"vm"}, &host); err != nil {
			return err
		}
		if err := h.unused(ctx, inv, host.Vm, id); err != nil {
			return err
		}
		return h.remove(ctx, inv, diskPlace(datastore, id).String())
	})
}

// unused is nil if none of the VMs has a disk: the files of a VM that is off are
// not locked, and would be deleted under it.
func (h *Host) unused(ctx context.Context, inv *inventory, vms []types.ManagedObjectReference, id fleet.DiskID) error {
	if len(vms) == 0 {
		return nil
	}
	var list []mo.VirtualMachine
	if err := inv.pc.Retrieve(ctx, vms, []string{"name", "config.hardware"}, &list); err != nil {
		return err
	}
	for _, v := range list {
		if v.Config != nil && diskDevice(v.Config.Hardware.Device, id) != nil {
			return fail(fleet.InUse, "detach it first", "it is attached to VM %s", v.Name)
		}
	}
	return nil
}
