package esx

import (
	"context"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/fleet"
)

// EnsurePortGroup makes a port group of a standard switch as it is given: it is
// added, or changed where it differs. The switch must be there.
func (h *Host) EnsurePortGroup(ctx context.Context, g fleet.PortGroup) error {
	return h.verb(ctx, "set up", "port group "+g.Name, func(ctx context.Context, inv *inventory) error {
		system, info, err := h.network(ctx, inv)
		if err != nil {
			return err
		}
		if !hasSwitch(info, g.Switch) {
			return fail(fleet.Missing, "", "there is no standard switch %s", g.Switch)
		}
		spec := types.HostPortGroupSpec{Name: g.Name, VlanId: int32(g.VLAN), VswitchName: g.Switch, Policy: types.HostNetworkPolicy{
			Security: &types.HostNetworkSecurityPolicy{AllowPromiscuous: &g.Promiscuous, MacChanges: &g.MACChanges, ForgedTransmits: &g.ForgedTransmits}}}
		for _, have := range portGroups(info.Portgroup) {
			if have == g {
				return nil
			}
			if have.Name == g.Name {
				_, err := methods.UpdatePortGroup(ctx, inv.vim, &types.UpdatePortGroup{This: system, PgName: g.Name, Portgrp: spec})
				return err
			}
		}
		_, err = methods.AddPortGroup(ctx, inv.vim, &types.AddPortGroup{This: system, Portgrp: spec})
		return err
	})
}

// RemovePortGroup removes a port group; one that is not there is removed.
func (h *Host) RemovePortGroup(ctx context.Context, name string) error {
	return h.verb(ctx, "remove", "port group "+name, func(ctx context.Context, inv *inventory) error {
		system, info, err := h.network(ctx, inv)
		if err != nil {
			return err
		}
		for _, g := range portGroups(info.Portgroup) {
			if g.Name == name {
				_, err := methods.RemovePortGroup(ctx, inv.vim, &types.RemovePortGroup{This: system, PgName: name})
				return err
			}
		}
		return nil
	})
}

// EnsureSwitch makes a standard switch without a network card, for networks
// inside the host; one that is there stays as it is.
func (h *Host) EnsureSwitch(ctx context.Context, name string) error {
	return h.verb(ctx, "set up", "switch "+name, func(ctx context.Context, inv *inventory) error {
		system, info, err := h.network(ctx, inv)
		if err != nil || hasSwitch(info, name) {
			return err
		}
		_, err = methods.AddVirtualSwitch(ctx, inv.vim, &types.AddVirtualSwitch{This: system, VswitchName: name, Spec: &types.HostVirtualSwitchSpec{NumPorts: 128}})
		return err
	})
}

func (h *Host) network(ctx context.Context, inv *inventory) (types.ManagedObjectReference, types.HostNetworkInfo, error) {
	ref := inv.manager.ConfigManager.NetworkSystem
	if ref == nil {
		return types.ManagedObjectReference{}, types.HostNetworkInfo{}, fail(fleet.Unsupported, "", "it has no standard switches")
	}
	var n mo.HostNetworkSystem
	if err := inv.get(ctx, *ref, []string{"networkInfo"}, &n); err != nil {
		return *ref, types.HostNetworkInfo{}, err
	}
	if n.NetworkInfo == nil {
		return *ref, types.HostNetworkInfo{}, nil
	}
	return *ref, *n.NetworkInfo, nil
}

func hasSwitch(info types.HostNetworkInfo, name string) bool {
	for _, s := range info.Vswitch {
		if s.Name == name {
			return true
		}
	}
	return false
}

// EnterMaintenance puts the host into maintenance mode. VMs that are on are a
// conflict: standalone, a host can only wait for them to be switched off.
func (h *Host) EnterMaintenance(ctx context.Context) error {
	return h.verb(ctx, "enter maintenance mode", "", func(ctx context.Context, inv *inventory) error {
		var host mo.HostSystem
		if err := inv.get(ctx, inv.host, []string{"runtime.inMaintenanceMode", "vm"}, &host); err != nil || host.Runtime.InMaintenanceMode {
			return err
		}
		if err := h.allOff(ctx, inv, host.Vm); err != nil {
			return err
		}
		_, err := h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
			r, err := methods.EnterMaintenanceMode_Task(ctx, inv.vim, &types.EnterMaintenanceMode_Task{This: inv.host, Timeout: int32(max(1, h.config.Patience/time.Second))})
			if err != nil {
				return types.ManagedObjectReference{}, err
			}
			return r.Returnval, nil
		})
		if is[types.Timedout](err) {
			return fail(fleet.Conflict, "stop the VMs that are on", "it did not come to rest within %s", h.config.Patience)
		}
		return err
	})
}

func (h *Host) allOff(ctx context.Context, inv *inventory, vms []types.ManagedObjectReference) error {
	if len(vms) == 0 {
		return nil
	}
	var list []mo.VirtualMachine
	if err := inv.pc.Retrieve(ctx, vms, []string{"name", "runtime.powerState"}, &list); err != nil {
		return err
	}
	on, name := 0, ""
	for _, v := range list {
		if v.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
			on, name = on+1, v.Name
		}
	}
	if on > 0 {
		return fail(fleet.Conflict, "stop them", "%d VM(s) are on, %s among them", on, name)
	}
	return nil
}

// ExitMaintenance ends maintenance mode.
func (h *Host) ExitMaintenance(ctx context.Context) error {
	return h.verb(ctx, "exit maintenance mode", "", func(ctx context.Context, inv *inventory) error {
		var host mo.HostSystem
		if err := inv.get(ctx, inv.host, []string{"runtime.inMaintenanceMode"}, &host); err != nil || !host.Runtime.InMaintenanceMode {
			return err
		}
		_, err := h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
			r, err := methods.ExitMaintenanceMode_Task(ctx, inv.vim, &types.ExitMaintenanceMode_Task{This: inv.host})
			if err != nil {
				return types.ManagedObjectReference{}, err
			}
			return r.Returnval, nil
		})
		return err
	})
}
