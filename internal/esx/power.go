package esx

import (
	"context"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/fleet"
)

// Power carries out one of START_VM, RESUME_VM, STOP_VM, SUSPEND_VM and
// RESTART_VM. A VM that is as it is to become is left alone; only a restart is
// done each time.
func (h *Host) Power(ctx context.Context, id fleet.VMID, op fleet.Operation) error {
	doing := map[fleet.Operation]string{fleet.StartVM: "start", fleet.ResumeVM: "resume", fleet.StopVM: "stop", fleet.SuspendVM: "suspend", fleet.RestartVM: "restart"}[op]
	if doing == "" {
		doing = "switch"
	}
	return h.verb(ctx, doing, vmText(id), func(ctx context.Context, inv *inventory) error {
		m, err := h.find(ctx, inv, id)
		if err != nil {
			return err
		}
		switch op {
		case fleet.StartVM, fleet.ResumeVM:
			return h.powerOn(ctx, inv, m)
		case fleet.StopVM:
			return h.powerOff(ctx, inv, m)
		case fleet.SuspendVM:
			return h.suspend(ctx, inv, m)
		case fleet.RestartVM:
			return h.restart(ctx, inv, m)
		}
		return fail(fleet.Unsupported, "", "%s is no power operation", op)
	})
}

// Shutdown asks the system in a VM to end, and switches the VM off when it is
// still on after grace, or if nothing in it can be asked.
func (h *Host) Shutdown(ctx context.Context, id fleet.VMID, grace time.Duration) error {
	return h.verb(ctx, "shut down", vmText(id), func(ctx context.Context, inv *inventory) error {
		m, err := h.find(ctx, inv, id)
		if err != nil {
			return err
		}
		if m.power() == types.VirtualMachinePowerStatePoweredOn {
			_, err := methods.ShutdownGuest(ctx, inv.vim, &types.ShutdownGuest{This: m.Self})
			if err == nil {
				err = h.waitOff(ctx, inv, id, grace)
			}
			if err == nil || ctx.Err() != nil {
				return err
			}
		}
		if m, err = h.find(ctx, inv, id); err != nil {
			return err
		}
		return h.powerOff(ctx, inv, m)
	})
}

// waitOff waits until a VM is off; it is an error if it is still on after grace.
func (h *Host) waitOff(ctx context.Context, inv *inventory, id fleet.VMID, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	pause := 50 * time.Millisecond
	for {
		m, err := h.find(ctx, inv, id)
		if err != nil || m.power() == types.VirtualMachinePowerStatePoweredOff {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		}
	}
}

func (h *Host) powerOn(ctx context.Context, inv *inventory, m machine) error {
	return h.become(ctx, inv, m, types.VirtualMachinePowerStatePoweredOn, func() (types.ManagedObjectReference, error) {
		r, err := methods.PowerOnVM_Task(ctx, inv.vim, &types.PowerOnVM_Task{This: m.Self})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
}

func (h *Host) powerOff(ctx context.Context, inv *inventory, m machine) error {
	return h.become(ctx, inv, m, types.VirtualMachinePowerStatePoweredOff, func() (types.ManagedObjectReference, error) {
		r, err := methods.PowerOffVM_Task(ctx, inv.vim, &types.PowerOffVM_Task{This: m.Self})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
}

func (h *Host) suspend(ctx context.Context, inv *inventory, m machine) error {
	return h.become(ctx, inv, m, types.VirtualMachinePowerStateSuspended, func() (types.ManagedObjectReference, error) {
		r, err := methods.SuspendVM_Task(ctx, inv.vim, &types.SuspendVM_Task{This: m.Self})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
}

func (h *Host) restart(ctx context.Context, inv *inventory, m machine) error {
	_, err := h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
		r, err := methods.ResetVM_Task(ctx, inv.vim, &types.ResetVM_Task{This: m.Self})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
	return err
}

// become brings a VM into a state, if it is in another. That somebody else was
// faster is success.
func (h *Host) become(ctx context.Context, inv *inventory, m machine, want types.VirtualMachinePowerState, start func() (types.ManagedObjectReference, error)) error {
	if m.power() == want {
		return nil
	}
	_, err := h.run(ctx, inv, start)
	if f, ok := methodFault(err).(*types.InvalidPowerState); ok && f.ExistingState == want {
		return nil
	}
	return err
}
