package esxtest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/esx/vmdk"
)

// File is where a file of a datastore is in the simulator's directories.
func (h *Host) File(path string) (string, bool) {
	name, rest, ok := strings.Cut(strings.TrimPrefix(path, "["), "]")
	if !ok || !strings.HasPrefix(path, "[") {
		return "", false
	}
	for _, e := range h.model.Map().All("Datastore") {
		if ds := e.(*simulator.Datastore); ds.Name == name {
			return filepath.Join(ds.Info.GetDatastoreInfo().Url, filepath.Join("/", strings.TrimSpace(rest))), true
		}
	}
	return "", false
}

// store writes a file that is uploaded. Its directory must be there, as on a
// real host.
func (h *Host) store(path string, r io.Reader, size int64) error {
	file, ok := h.File(path)
	if !ok {
		return os.ErrNotExist
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	if err == nil && size >= 0 && n != size {
		err = errShort
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// locked is the fault for a path under which files are that a VM that is on
// uses; nil if there are none.
func (h *Host) locked(ctx *simulator.Context, path string) types.BaseMethodFault {
	for _, e := range ctx.Map.All("VirtualMachine") {
		vm, ok := e.(*simulator.VirtualMachine)
		if !ok {
			continue
		}
		used := false
		ctx.WithLock(vm, func() {
			if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
				return
			}
			for _, f := range diskFiles(vm) {
				used = used || f == path || strings.HasPrefix(f, path+"/")
			}
		})
		if used {
			return &types.FileLocked{FileFault: types.FileFault{File: path}}
		}
	}
	return nil
}

func diskFiles(vm *simulator.VirtualMachine) []string {
	var out []string
	for _, d := range vm.Config.Hardware.Device {
		if x, ok := d.(*types.VirtualDisk); ok {
			if b, ok := x.Backing.(types.BaseVirtualDeviceFileBackingInfo); ok {
				out = append(out, b.GetVirtualDeviceFileBackingInfo().FileName)
			}
		}
	}
	return out
}

// disks manages disks that have content.
type disks struct {
	*simulator.VirtualDiskManager
	h *Host
}

// MO is for the simulator.
func (d *disks) MO() mo.VirtualDiskManager { return d.VirtualDiskManager.VirtualDiskManager }

func (d *disks) task(ctx *simulator.Context, name string, f func() types.BaseMethodFault) types.ManagedObjectReference {
	return simulator.CreateTask(d.VirtualDiskManager, name, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) { return nil, f() }).Run(ctx)
}

func flatOf(file string) string { return strings.TrimSuffix(file, ".vmdk") + "-flat.vmdk" }

func notFound(path string) types.BaseMethodFault {
	return &types.FileNotFound{FileFault: types.FileFault{File: path}}
}

// target is where a new disk goes, if it may.
func (d *disks) target(path string, force *bool) (string, types.BaseMethodFault) {
	file, ok := d.h.File(path)
	if !ok {
		return "", &types.InvalidDatastorePath{DatastorePath: path}
	}
	if _, err := os.Stat(filepath.Dir(file)); err != nil {
		return "", notFound(path)
	}
	if _, err := os.Stat(file); err == nil && (force == nil || !*force) {
		return "", &types.FileAlreadyExists{FileFault: types.FileFault{File: path}}
	}
	if d.h.isFull() {
		return "", &types.NoDiskSpace{FileFault: types.FileFault{File: path}, Datastore: strings.Trim(strings.SplitN(path, "]", 2)[0], "[")}
	}
	return file, nil
}

func broken(path string, err error) types.BaseMethodFault {
	f := &types.CannotCreateFile{FileFault: types.FileFault{File: path}}
	f.FaultMessage = []types.LocalizableMessage{{Message: err.Error()}}
	return f
}

// write makes a disk: its content, then what describes it.
func write(file string, capacity int64, content func(*os.File) error) error {
	f, err := os.Create(flatOf(file))
	if err != nil {
		return err
	}
	err = f.Truncate(capacity)
	if err == nil {
		err = content(f)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(vmdk.Descriptor(filepath.Base(flatOf(file)), "lsilogic", capacity)), 0o600)
}

// CreateVirtualDiskTask makes an empty disk.
func (d *disks) CreateVirtualDiskTask(ctx *simulator.Context, req *types.CreateVirtualDisk_Task) soap.HasFault {
	return &methods.CreateVirtualDisk_TaskBody{Res: &types.CreateVirtualDisk_TaskResponse{Returnval: d.task(ctx, "createVirtualDisk", func() types.BaseMethodFault {
		file, fault := d.target(req.Name, nil)
		if fault != nil {
			return fault
		}
		spec, ok := req.Spec.(*types.FileBackedVirtualDiskSpec)
		if !ok || spec.CapacityKb <= 0 {
			return &types.InvalidArgument{InvalidProperty: "spec"}
		}
		if err := write(file, spec.CapacityKb<<10, func(*os.File) error { return nil }); err != nil {
			return broken(req.Name, err)
		}
		return nil
	})}}
}

// CopyVirtualDiskTask copies a disk, and converts monolithicSparse while it does.
func (d *disks) CopyVirtualDiskTask(ctx *simulator.Context, req *types.CopyVirtualDisk_Task) soap.HasFault {
	return &methods.CopyVirtualDisk_TaskBody{Res: &types.CopyVirtualDisk_TaskResponse{Returnval: d.task(ctx, "copyVirtualDisk", func() types.BaseMethodFault {
		from, ok := d.h.File(req.SourceName)
		if !ok {
			return &types.InvalidDatastorePath{DatastorePath: req.SourceName}
		}
		if _, err := os.Stat(from); err != nil {
			return notFound(req.SourceName)
		}
		if f := d.h.locked(ctx, req.SourceName); f != nil {
			return f
		}
		to, fault := d.target(req.DestName, req.Force)
		if fault != nil {
			return fault
		}
		if t := d.h.copyTime(); t > 0 {
			time.Sleep(t)
		}
		if err := copyDisk(from, to); err != nil {
			return broken(req.DestName, err)
		}
		return nil
	})}}
}

func copyDisk(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return err
	}
	if d, err := vmdk.Open(f, i.Size()); err == nil {
		if d.Type != "monolithicSparse" {
			return &os.PathError{Op: "convert", Path: from, Err: os.ErrInvalid} // "Unsupported or invalid disk type"
		}
		return write(to, d.Capacity, func(w *os.File) error { return d.WriteRaw(&holes{f: w}) })
	}
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return err
	}
	capacity, err := vmdk.ReadDescriptor(string(text))
	if err != nil {
		return err
	}
	return write(to, capacity, func(w *os.File) error {
		r, err := os.Open(flatOf(from))
		if err != nil {
			return err
		}
		_, err = io.Copy(&holes{f: w}, r)
		if e := r.Close(); err == nil {
			err = e
		}
		return err
	})
}

// holes writes a file of a size, and leaves zeros out.
type holes struct {
	f  *os.File
	at int64
}

func (h *holes) Write(b []byte) (int, error) {
	for _, x := range b {
		if x != 0 {
			if _, err := h.f.WriteAt(b, h.at); err != nil {
				return 0, err
			}
			break
		}
	}
	h.at += int64(len(b))
	return len(b), nil
}

// ExtendVirtualDiskTask makes a disk larger.
func (d *disks) ExtendVirtualDiskTask(ctx *simulator.Context, req *types.ExtendVirtualDisk_Task) soap.HasFault {
	return &methods.ExtendVirtualDisk_TaskBody{Res: &types.ExtendVirtualDisk_TaskResponse{Returnval: d.task(ctx, "extendVirtualDisk", func() types.BaseMethodFault {
		file, ok := d.h.File(req.Name)
		if !ok {
			return &types.InvalidDatastorePath{DatastorePath: req.Name}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return notFound(req.Name)
		}
		has, err := vmdk.ReadDescriptor(string(text))
		if err != nil {
			return broken(req.Name, err)
		}
		want := req.NewCapacityKb << 10
		if want <= has {
			return &types.InvalidArgument{InvalidProperty: "newCapacityKb"}
		}
		if d.h.isFull() {
			return &types.NoDiskSpace{FileFault: types.FileFault{File: req.Name}}
		}
		if err := os.Truncate(flatOf(file), want); err != nil {
			return broken(req.Name, err)
		}
		if err := os.WriteFile(file, []byte(vmdk.Descriptor(filepath.Base(flatOf(file)), "lsilogic", want)), 0o600); err != nil {
			return broken(req.Name, err)
		}
		return nil
	})}}
}

// MoveVirtualDiskTask gives a disk another name.
func (d *disks) MoveVirtualDiskTask(ctx *simulator.Context, req *types.MoveVirtualDisk_Task) soap.HasFault {
	return &methods.MoveVirtualDisk_TaskBody{Res: &types.MoveVirtualDisk_TaskResponse{Returnval: d.task(ctx, "moveVirtualDisk", func() types.BaseMethodFault {
		from, ok := d.h.File(req.SourceName)
		if !ok {
			return &types.InvalidDatastorePath{DatastorePath: req.SourceName}
		}
		text, err := os.ReadFile(from)
		if err != nil {
			return notFound(req.SourceName)
		}
		to, fault := d.target(req.DestName, req.Force)
		if fault != nil {
			return fault
		}
		capacity, err := vmdk.ReadDescriptor(string(text))
		if err == nil {
			err = os.Rename(flatOf(from), flatOf(to))
		}
		if err == nil {
			err = os.WriteFile(to, []byte(vmdk.Descriptor(filepath.Base(flatOf(to)), "lsilogic", capacity)), 0o600)
		}
		if err == nil {
			err = os.Remove(from)
		}
		if err != nil {
			return broken(req.DestName, err)
		}
		return nil
	})}}
}

// stat tells whether a file of a datastore is there.
func (h *Host) stat(path string) (os.FileInfo, bool) {
	file, ok := h.File(path)
	if !ok {
		return nil, false
	}
	i, err := os.Stat(file)
	return i, err == nil
}

// Tree are the paths of all files on the datastores, with "[name] " before
// them, for tests that look whether anything was left.
func (h *Host) Tree() ([]string, error) {
	var out []string
	for _, e := range h.model.Map().All("Datastore") {
		ds := e.(*simulator.Datastore)
		root := ds.Info.GetDatastoreInfo().Url
		err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if p != root && errors.Is(err, fs.ErrNotExist) {
				return nil // it was deleted just now
			}
			if err != nil || p == root {
				return err
			}
			rel, err := filepath.Rel(root, p)
			if d.IsDir() {
				rel += "/"
			}
			out = append(out, "["+ds.Name+"] "+filepath.ToSlash(rel))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
