package esxtest

import (
	"fmt"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// A Backend really runs VMs.
type Backend interface {
	// PowerOn starts a VM. An error is the fault of the task.
	PowerOn(h *Host, m Machine) error
	// PowerOff ends it: it was switched off, suspended, reset or shut down.
	PowerOff(h *Host, m Machine) error
	// Destroyed says that a VM is gone.
	Destroyed(h *Host, ref types.ManagedObjectReference)
}

// A Machine is what a [Backend] sees of a VM.
type Machine struct {
	Ref         types.ManagedObjectReference
	Name, UUID  string
	MACs        []string
	Networks    []string
	MemoryMB    int32
	CPUs        int32
	Firmware    string
	NestedHV    bool
	Disks       []string // paths on datastores
	ISO         string
	BootOrder   []string // "net", "disk"
	ExtraConfig map[string]string
}

// describe flattens a VM whose lock is held.
func describe(vm *simulator.VirtualMachine) Machine {
	m := Machine{Ref: vm.Self, Name: vm.Config.Name, UUID: vm.Config.Uuid, MemoryMB: vm.Config.Hardware.MemoryMB, CPUs: vm.Config.Hardware.NumCPU,
		Firmware: vm.Config.Firmware, NestedHV: vm.Config.NestedHVEnabled != nil && *vm.Config.NestedHVEnabled, Disks: diskFiles(vm), ExtraConfig: map[string]string{}}
	for _, d := range vm.Config.Hardware.Device {
		switch x := d.(type) {
		case types.BaseVirtualEthernetCard:
			e := x.GetVirtualEthernetCard()
			m.MACs = append(m.MACs, strings.ToLower(e.MacAddress))
			name := ""
			if b, ok := e.Backing.(*types.VirtualEthernetCardNetworkBackingInfo); ok {
				name = b.DeviceName
			}
			m.Networks = append(m.Networks, name)
		case *types.VirtualCdrom:
			if b, ok := x.Backing.(*types.VirtualCdromIsoBackingInfo); ok {
				m.ISO = b.FileName
			}
		}
	}
	if vm.Config.BootOptions != nil {
		for _, b := range vm.Config.BootOptions.BootOrder {
			switch b.(type) {
			case *types.VirtualMachineBootOptionsBootableEthernetDevice:
				m.BootOrder = append(m.BootOrder, "net")
			case *types.VirtualMachineBootOptionsBootableDiskDevice:
				m.BootOrder = append(m.BootOrder, "disk")
			}
		}
	}
	for _, o := range vm.Config.ExtraConfig {
		v := o.GetOptionValue()
		m.ExtraConfig[v.Key] = fmt.Sprint(v.Value)
	}
	return m
}

// machine is a VM whose power is a backend's, and that is as strict as ESXi's.
type machine struct {
	*simulator.VirtualMachine
	h *Host
}

func (m *machine) task(ctx *simulator.Context, name string, f func() types.BaseMethodFault) types.ManagedObjectReference {
	return simulator.CreateTask(m.VirtualMachine, name, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) { return nil, f() }).Run(ctx)
}

// outcome waits for a task of the simulator's, and is its fault.
func outcome(ctx *simulator.Context, ref types.ManagedObjectReference) types.BaseMethodFault {
	t := ctx.Map.Get(ref).(*simulator.Task)
	t.Wait()
	if t.Info.Error != nil {
		return t.Info.Error.Fault
	}
	return nil
}

func (m *machine) isOn() bool { return m.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn }

func (m *machine) wrongState(want types.VirtualMachinePowerState) types.BaseMethodFault {
	return &types.InvalidPowerState{RequestedState: want, ExistingState: m.Runtime.PowerState}
}

func (m *machine) start() types.BaseMethodFault {
	if m.h.options.Backend == nil {
		return nil
	}
	if err := m.h.options.Backend.PowerOn(m.h, describe(m.VirtualMachine)); err != nil {
		return &types.SystemErrorFault{Reason: err.Error()}
	}
	return nil
}

func (m *machine) stop() types.BaseMethodFault {
	if m.h.options.Backend == nil || !m.isOn() {
		return nil
	}
	if err := m.h.options.Backend.PowerOff(m.h, describe(m.VirtualMachine)); err != nil {
		return &types.SystemErrorFault{Reason: err.Error()}
	}
	return nil
}

// PowerOnVMTask starts it. Disks must be there, and not in use elsewhere.
func (m *machine) PowerOnVMTask(ctx *simulator.Context, req *types.PowerOnVM_Task) soap.HasFault {
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: m.task(ctx, "powerOn", func() types.BaseMethodFault {
		if m.isOn() {
			return m.wrongState(types.VirtualMachinePowerStatePoweredOn)
		}
		for _, f := range diskFiles(m.VirtualMachine) {
			if fault := m.usedElsewhere(ctx, f); fault != nil {
				return fault
			}
		}
		if f := m.start(); f != nil {
			return f
		}
		if f := outcome(ctx, m.VirtualMachine.PowerOnVMTask(ctx, req).(*methods.PowerOnVM_TaskBody).Res.Returnval); f != nil {
			_ = m.stop()
			return f
		}
		return nil
	})}}
}

func (m *machine) usedElsewhere(ctx *simulator.Context, file string) types.BaseMethodFault {
	for _, e := range ctx.Map.All("VirtualMachine") {
		vm, ok := e.(*simulator.VirtualMachine)
		if !ok || vm.Self == m.Self {
			continue
		}
		for _, f := range diskFiles(vm) {
			if f == file && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
				return &types.FileLocked{FileFault: types.FileFault{File: file}}
			}
		}
	}
	return nil
}

// PowerOffVMTask ends it.
func (m *machine) PowerOffVMTask(ctx *simulator.Context, req *types.PowerOffVM_Task) soap.HasFault {
	return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: m.task(ctx, "powerOff", func() types.BaseMethodFault {
		if f := m.stop(); f != nil {
			return f
		}
		f := outcome(ctx, m.VirtualMachine.PowerOffVMTask(ctx, req).(*methods.PowerOffVM_TaskBody).Res.Returnval)
		m.forgetGuest(ctx)
		return f
	})}}
}

// SuspendVMTask suspends it.
func (m *machine) SuspendVMTask(ctx *simulator.Context, req *types.SuspendVM_Task) soap.HasFault {
	return &methods.SuspendVM_TaskBody{Res: &types.SuspendVM_TaskResponse{Returnval: m.task(ctx, "suspend", func() types.BaseMethodFault {
		if f := m.stop(); f != nil {
			return f
		}
		return outcome(ctx, m.VirtualMachine.SuspendVMTask(ctx, req).(*methods.SuspendVM_TaskBody).Res.Returnval)
	})}}
}

// ResetVMTask restarts it; it is on all the time, as on a real host.
func (m *machine) ResetVMTask(ctx *simulator.Context, _ *types.ResetVM_Task) soap.HasFault {
	return &methods.ResetVM_TaskBody{Res: &types.ResetVM_TaskResponse{Returnval: m.task(ctx, "reset", func() types.BaseMethodFault {
		if !m.isOn() {
			return m.wrongState(types.VirtualMachinePowerStatePoweredOn)
		}
		if f := m.stop(); f != nil {
			return f
		}
		return m.start()
	})}}
}

// ShutdownGuest asks VMware Tools, where they run.
func (m *machine) ShutdownGuest(ctx *simulator.Context, req *types.ShutdownGuest) soap.HasFault {
	if !m.isOn() {
		return &methods.ShutdownGuestBody{Fault_: simulator.Fault("", m.wrongState(types.VirtualMachinePowerStatePoweredOn))}
	}
	if m.Guest == nil || m.Guest.ToolsRunningStatus != string(types.VirtualMachineToolsRunningStatusGuestToolsRunning) {
		return &methods.ShutdownGuestBody{Fault_: simulator.Fault("", &types.ToolsUnavailable{})}
	}
	if f := m.stop(); f != nil {
		return &methods.ShutdownGuestBody{Fault_: simulator.Fault("", f)}
	}
	return m.VirtualMachine.ShutdownGuest(ctx, req)
}

// ReconfigVMTask refuses what cannot be changed while the VM is on.
func (m *machine) ReconfigVMTask(ctx *simulator.Context, req *types.ReconfigVM_Task) soap.HasFault {
	s := req.Spec
	if m.isOn() && (s.NestedHVEnabled != nil || s.Firmware != "" || s.GuestId != "" || s.MemoryMB != 0 || s.NumCPUs != 0 || addsIDE(s)) {
		return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: m.task(ctx, "reconfigVm", func() types.BaseMethodFault {
			return m.wrongState(types.VirtualMachinePowerStatePoweredOff)
		})}}
	}
	for _, c := range s.DeviceChange {
		if f := m.diskThere(c.GetVirtualDeviceConfigSpec()); f != nil {
			return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: m.task(ctx, "reconfigVm", func() types.BaseMethodFault { return f })}}
		}
	}
	return m.VirtualMachine.ReconfigVMTask(ctx, req)
}

// diskThere is the fault for a disk to be added whose file is not there.
func (m *machine) diskThere(s *types.VirtualDeviceConfigSpec) types.BaseMethodFault {
	d, ok := s.Device.(*types.VirtualDisk)
	if !ok || s.Operation != types.VirtualDeviceConfigSpecOperationAdd || s.FileOperation != "" {
		return nil
	}
	b, ok := d.Backing.(types.BaseVirtualDeviceFileBackingInfo)
	if !ok {
		return nil
	}
	if _, there := m.h.stat(b.GetVirtualDeviceFileBackingInfo().FileName); !there {
		return notFound(b.GetVirtualDeviceFileBackingInfo().FileName)
	}
	return nil
}

func addsIDE(s types.VirtualMachineConfigSpec) bool {
	for _, c := range s.DeviceChange {
		if x := c.GetVirtualDeviceConfigSpec(); x.Operation == types.VirtualDeviceConfigSpecOperationAdd {
			switch x.Device.(type) {
			case *types.VirtualCdrom, *types.VirtualIDEController:
				return true
			}
		}
	}
	return false
}

// AcquireTicket opens the screen.
func (m *machine) AcquireTicket(_ *simulator.Context, req *types.AcquireTicket) soap.HasFault {
	if !m.isOn() {
		return &methods.AcquireTicketBody{Fault_: simulator.Fault("", m.wrongState(types.VirtualMachinePowerStatePoweredOn))}
	}
	return &methods.AcquireTicketBody{Res: &types.AcquireTicketResponse{Returnval: types.VirtualMachineTicket{
		Ticket: "52c1f7c1-2b3e-8d26-96d3-" + m.Self.Value + req.TicketType, CfgFile: m.Config.Files.VmPathName, Port: 902, SslThumbprint: m.h.SHA1()}}}
}

func (m *machine) forgetGuest(ctx *simulator.Context) { forgetGuest(ctx, m.VirtualMachine) }

func forgetGuest(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	ctx.Update(vm, []types.PropertyChange{
		{Name: "guest.toolsRunningStatus", Val: string(types.VirtualMachineToolsRunningStatusGuestToolsNotRunning)},
		{Name: "guest.net", Val: []types.GuestNicInfo{}},
		{Name: "guest.ipAddress", Val: ""},
	})
}

// SetGuest publishes what VMware Tools in a VM report: addresses by MAC.
func (h *Host) SetGuest(ref types.ManagedObjectReference, addrs map[string][]string) {
	vm, ok := h.model.Map().Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return
	}
	ctx := h.Context()
	ctx.WithLock(vm, func() {
		var nics []types.GuestNicInfo
		first := ""
		for _, d := range vm.Config.Hardware.Device {
			b, ok := d.(types.BaseVirtualEthernetCard)
			if !ok {
				continue
			}
			e := b.GetVirtualEthernetCard()
			ips := addrs[strings.ToLower(e.MacAddress)]
			if len(ips) > 0 && first == "" {
				first = ips[0]
			}
			g := types.GuestNicInfo{MacAddress: e.MacAddress, IpAddress: ips, Connected: true, DeviceConfigId: e.Key, IpConfig: &types.NetIpConfigInfo{}}
			for _, ip := range ips {
				g.IpConfig.IpAddress = append(g.IpConfig.IpAddress, types.NetIpConfigInfoIpAddress{IpAddress: ip, PrefixLength: 24, State: "preferred"})
			}
			nics = append(nics, g)
		}
		ctx.Update(vm, []types.PropertyChange{
			{Name: "guest.toolsRunningStatus", Val: string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)},
			{Name: "guest.net", Val: nics},
			{Name: "guest.ipAddress", Val: first},
		})
	})
}

// Died says that a VM has switched itself off.
func (h *Host) Died(ref types.ManagedObjectReference) {
	vm, ok := h.model.Map().Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return
	}
	ctx := h.Context()
	ctx.WithLock(vm, func() {
		ctx.Update(vm, []types.PropertyChange{
			{Name: "runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff},
			{Name: "summary.runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff},
		})
		forgetGuest(ctx, vm)
	})
}

// system is the host, which has no maintenance mode while VMs are on.
type system struct {
	*simulator.HostSystem
	h *Host
}

// EnterMaintenanceModeTask waits in vain for VMs that are on; else it tells who
// watches, which the simulator's does not.
func (s *system) EnterMaintenanceModeTask(ctx *simulator.Context, req *types.EnterMaintenanceMode_Task) soap.HasFault {
	t := simulator.CreateTask(s.HostSystem, "enterMaintenanceMode", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		for _, ref := range s.Vm {
			vm, ok := ctx.Map.Get(ref).(*simulator.VirtualMachine)
			if ok && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
				time.Sleep(time.Duration(req.Timeout) * time.Second)
				return nil, &types.Timedout{}
			}
		}
		s.maintain(ctx, true)
		return nil, nil
	})
	return &methods.EnterMaintenanceMode_TaskBody{Res: &types.EnterMaintenanceMode_TaskResponse{Returnval: t.Run(ctx)}}
}

// ExitMaintenanceModeTask ends it.
func (s *system) ExitMaintenanceModeTask(ctx *simulator.Context, _ *types.ExitMaintenanceMode_Task) soap.HasFault {
	t := simulator.CreateTask(s.HostSystem, "exitMaintenanceMode", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		s.maintain(ctx, false)
		return nil, nil
	})
	return &methods.ExitMaintenanceMode_TaskBody{Res: &types.ExitMaintenanceMode_TaskResponse{Returnval: t.Run(ctx)}}
}

func (s *system) maintain(ctx *simulator.Context, on bool) {
	ctx.Update(s.HostSystem, []types.PropertyChange{{Name: "runtime.inMaintenanceMode", Val: on}})
}

// networks can be changed.
type networks struct{ *simulator.HostNetworkSystem }

// UpdatePortGroup changes a port group, but for its name.
func (n *networks) UpdatePortGroup(_ *simulator.Context, req *types.UpdatePortGroup) soap.HasFault {
	for i := range n.NetworkInfo.Portgroup {
		g := &n.NetworkInfo.Portgroup[i]
		if g.Spec.Name != req.PgName {
			continue
		}
		if req.Portgrp.Name != req.PgName {
			return &methods.UpdatePortGroupBody{Fault_: simulator.Fault("", &types.NotSupported{})}
		}
		g.Spec, g.ComputedPolicy = req.Portgrp, req.Portgrp.Policy
		return &methods.UpdatePortGroupBody{Res: &types.UpdatePortGroupResponse{}}
	}
	return &methods.UpdatePortGroupBody{Fault_: simulator.Fault("", &types.NotFound{})}
}

// AddPortGroup adds one, and computes its policy.
func (n *networks) AddPortGroup(ctx *simulator.Context, req *types.AddPortGroup) soap.HasFault {
	res := n.HostNetworkSystem.AddPortGroup(ctx, req)
	for i := range n.NetworkInfo.Portgroup {
		if g := &n.NetworkInfo.Portgroup[i]; g.Spec.Name == req.Portgrp.Name && res.Fault() == nil {
			g.ComputedPolicy = req.Portgrp.Policy
		}
	}
	return res
}
