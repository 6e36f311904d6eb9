package controller_test

import (
	"context"
	"io"
	"sync"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/task"
)

// A gate is where tests come between a controller and its hosts, and between the
// steps of tasks. Each is a point with a name: "CREATE_VM/1 CREATE_VM",
// "CREATE_VM/1 CREATE_VM: CreateVM".
type gate struct {
	// Before is asked before a step or a call of a host; with an error that is not
	// carried out, and the error is its own.
	before func(ctx context.Context, point string) error
	// After is asked when it was carried out without an error.
	after func(ctx context.Context, point string) error
}

func (g *gate) pass(ctx context.Context, point string, f func() error) error {
	if g == nil {
		return f()
	}
	if g.before != nil {
		if err := g.before(ctx, point); err != nil {
			return err
		}
	}
	if err := f(); err != nil || g.after == nil {
		return err
	}
	return g.after(ctx, point)
}

// stepKey has, in a context, the name of the step that it is for.
type stepKey struct{}

// gated are plans whose steps go through the gate.
func (g *gate) gated(plans []task.Plan) []task.Plan {
	through := func(point string, f func(context.Context, *task.Call) error) func(context.Context, *task.Call) error {
		if f == nil {
			return nil
		}
		return func(ctx context.Context, c *task.Call) error {
			ctx = context.WithValue(ctx, stepKey{}, point)
			return g.pass(ctx, point, func() error { return f(ctx, c) })
		}
	}
	for _, p := range plans {
		for i, s := range p.Steps {
			point := string(p.Operation) + "/" + string(s.Operation)
			p.Steps[i].Do, p.Steps[i].Undo = through(point, s.Do), through("undo "+point, s.Undo)
		}
	}
	return plans
}

// guarded is a host whose calls go through the gate.
type guarded struct {
	controller.Hypervisor
	g *gate
}

func (h guarded) call(ctx context.Context, name string, f func() error) error {
	step, _ := ctx.Value(stepKey{}).(string)
	if step == "" {
		step = "watch"
	}
	return h.g.pass(ctx, step+": "+name, f)
}

func (h guarded) Facts(ctx context.Context) (out fleet.HostFacts, err error) {
	err = h.call(ctx, "Facts", func() (err error) { out, err = h.Hypervisor.Facts(ctx); return err })
	return out, err
}

func (h guarded) EnterMaintenance(ctx context.Context) error {
	return h.call(ctx, "EnterMaintenance", func() error { return h.Hypervisor.EnterMaintenance(ctx) })
}

func (h guarded) ExitMaintenance(ctx context.Context) error {
	return h.call(ctx, "ExitMaintenance", func() error { return h.Hypervisor.ExitMaintenance(ctx) })
}

func (h guarded) UploadVMDK(ctx context.Context, datastore string, id fleet.ImageID, r io.ReaderAt, size int64, progress func(done, total int64)) error {
	return h.call(ctx, "UploadVMDK", func() error { return h.Hypervisor.UploadVMDK(ctx, datastore, id, r, size, progress) })
}

func (h guarded) CopyImage(ctx context.Context, id fleet.ImageID, from, to string) error {
	return h.call(ctx, "CopyImage", func() error { return h.Hypervisor.CopyImage(ctx, id, from, to) })
}

func (h guarded) ImageFromVM(ctx context.Context, vm fleet.VMID, datastore string, id fleet.ImageID) error {
	return h.call(ctx, "ImageFromVM", func() error { return h.Hypervisor.ImageFromVM(ctx, vm, datastore, id) })
}

func (h guarded) ReadImage(ctx context.Context, datastore string, id fleet.ImageID, read func(io.Reader, int64) error) error {
	return h.call(ctx, "ReadImage", func() error { return h.Hypervisor.ReadImage(ctx, datastore, id, read) })
}

func (h guarded) DeleteImage(ctx context.Context, datastore string, id fleet.ImageID) error {
	return h.call(ctx, "DeleteImage", func() error { return h.Hypervisor.DeleteImage(ctx, datastore, id) })
}

func (h guarded) CreateDisk(ctx context.Context, datastore string, id fleet.DiskID, capacity int64) error {
	return h.call(ctx, "CreateDisk", func() error { return h.Hypervisor.CreateDisk(ctx, datastore, id, capacity) })
}

func (h guarded) DeleteDisk(ctx context.Context, datastore string, id fleet.DiskID) error {
	return h.call(ctx, "DeleteDisk", func() error { return h.Hypervisor.DeleteDisk(ctx, datastore, id) })
}

func (h guarded) CreateVM(ctx context.Context, b fleet.Build) error {
	return h.call(ctx, "CreateVM", func() error { return h.Hypervisor.CreateVM(ctx, b) })
}

func (h guarded) DeleteVM(ctx context.Context, id fleet.VMID) error {
	return h.call(ctx, "DeleteVM", func() error { return h.Hypervisor.DeleteVM(ctx, id) })
}

func (h guarded) Power(ctx context.Context, id fleet.VMID, op fleet.Operation) error {
	return h.call(ctx, "Power", func() error { return h.Hypervisor.Power(ctx, id, op) })
}

func (h guarded) Status(ctx context.Context, id fleet.VMID) (out fleet.VMStatus, err error) {
	err = h.call(ctx, "Status", func() (err error) { out, err = h.Hypervisor.Status(ctx, id); return err })
	return out, err
}

func (h guarded) AttachDisk(ctx context.Context, vm fleet.VMID, datastore string, disk fleet.DiskID) error {
	return h.call(ctx, "AttachDisk", func() error { return h.Hypervisor.AttachDisk(ctx, vm, datastore, disk) })
}

func (h guarded) DetachDisk(ctx context.Context, vm fleet.VMID, disk fleet.DiskID) error {
	return h.call(ctx, "DetachDisk", func() error { return h.Hypervisor.DetachDisk(ctx, vm, disk) })
}

func (h guarded) AttachISO(ctx context.Context, vm fleet.VMID, iso fleet.ISOID, size int64, open func() (io.ReadCloser, error)) error {
	return h.call(ctx, "AttachISO", func() error { return h.Hypervisor.AttachISO(ctx, vm, iso, size, open) })
}

func (h guarded) DetachISO(ctx context.Context, vm fleet.VMID) error {
	return h.call(ctx, "DetachISO", func() error { return h.Hypervisor.DetachISO(ctx, vm) })
}

func (h guarded) Ticket(ctx context.Context, id fleet.VMID) (out fleet.ConsoleTicket, err error) {
	err = h.call(ctx, "Ticket", func() (err error) { out, err = h.Hypervisor.Ticket(ctx, id); return err })
	return out, err
}

// once is a set of points, each of which is new one time.
type once struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (o *once) isNew(point string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil {
		o.seen = map[string]bool{}
	}
	was := o.seen[point]
	o.seen[point] = true
	return !was
}

func (o *once) number() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.seen)
}
