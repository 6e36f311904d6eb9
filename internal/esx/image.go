package esx

import (
	"context"
	"io"
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/esx/vmdk"
	"bootd/internal/fleet"
)

// A Progress is told how many bytes of how many have been sent. It is called
// often, by one goroutine.
type Progress func(done, total int64)

// UploadImage makes a VMDK an image on a datastore. The host gets only what is
// written of the disk, as monolithicSparse, and converts that to its own form,
// thin, when it copies it; a streamOptimized file by itself it cannot use. An
// image that is there stays as it is.
func (h *Host) UploadImage(ctx context.Context, datastore string, id fleet.ImageID, d *vmdk.Disk, p Progress) error {
	return h.makeImage(ctx, datastore, id, "upload", func(ctx context.Context, inv *inventory, at place) error {
		s, err := d.Sparse()
		if err != nil {
			return fail(fleet.Unsupported, "convert it with `qemu-img convert -O vmdk -o subformat=streamOptimized`", "%v", err)
		}
		open := func() (io.ReadCloser, error) {
			r, w := io.Pipe()
			go func() { w.CloseWithError(s.Write(&progress{w: w, total: s.Size, tell: p}, uploadFile)) }()
			return r, nil
		}
		if err := h.put(ctx, inv, at.file(uploadFile), s.Size, open); err != nil {
			return err
		}
		return h.copyDisk(ctx, inv, at.file(uploadFile), at.file(partFile))
	})
}

// UploadVMDK is [Host.UploadImage] of a VMDK in a file of a size.
func (h *Host) UploadVMDK(ctx context.Context, datastore string, id fleet.ImageID, r io.ReaderAt, size int64, p func(done, total int64)) error {
	d, err := vmdk.Open(r, size)
	if err != nil {
		return h.fault(ctx, "upload", "image "+string(id), fail(fleet.Unsupported, "convert it with `qemu-img convert -O vmdk -o subformat=streamOptimized`", "%v", err))
	}
	return h.UploadImage(ctx, datastore, id, d, p)
}

// progress tells how much has passed. Closing the pipe ends its writer, so no
// goroutine stays when an upload breaks off.
type progress struct {
	w           io.Writer
	done, total int64
	tell        Progress
}

func (p *progress) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.done += int64(n)
	if p.tell != nil {
		p.tell(p.done, p.total)
	}
	return n, err
}

// CopyImage copies an image from one datastore of the host to another.
func (h *Host) CopyImage(ctx context.Context, id fleet.ImageID, from, to string) error {
	return h.makeImage(ctx, to, id, "copy", func(ctx context.Context, inv *inventory, at place) error {
		if err := checkDatastore(from); err != nil {
			return err
		}
		return h.copyDisk(ctx, inv, imagePlace(from, id).file(diskFile), at.file(partFile))
	})
}

// ImageFromVM makes an image of the boot disk of a VM that is off.
func (h *Host) ImageFromVM(ctx context.Context, vm fleet.VMID, datastore string, id fleet.ImageID) error {
	return h.makeImage(ctx, datastore, id, "make", func(ctx context.Context, inv *inventory, at place) error {
		m, err := h.find(ctx, inv, vm)
		if err != nil {
			return err
		}
		if m.power() == types.VirtualMachinePowerStatePoweredOn {
			return fail(fleet.Conflict, "stop it", "VM %s is on", vm)
		}
		for _, d := range m.devices() {
			if file, ok := backingFile(d); ok && isDisk(d) && file == m.place.file(bootFile) {
				return h.copyDisk(ctx, inv, file, at.file(partFile))
			}
		}
		return fail(fleet.Unsupported, "", "VM %s has no boot disk", vm)
	})
}

// FetchImage copies an image from another host. It passes through here, as a raw
// disk: ESXi hosts do not give each other files. Where the VMDK it was uploaded
// from is still at hand, uploading that again sends less.
func (h *Host) FetchImage(ctx context.Context, id fleet.ImageID, from *Host, fromDatastore, to string, p Progress) error {
	return h.makeImage(ctx, to, id, "fetch", func(ctx context.Context, inv *inventory, at place) error {
		if err := checkDatastore(fromDatastore); err != nil {
			return err
		}
		source := imagePlace(fromDatastore, id)
		return from.verb(ctx, "read", source.file(diskFile), func(ctx context.Context, there *inventory) error {
			return from.fetch(ctx, there, from.reads, source.file(flat(diskFile)), func(r io.Reader, size int64) error {
				if size <= 0 {
					return fail(fleet.Broken, "", "it does not say how large %s is", source.file(flat(diskFile)))
				}
				return h.verb(ctx, "fetch", "image "+string(id), func(ctx context.Context, inv *inventory) error {
					return h.putRaw(ctx, inv, at, r, size, p)
				})
			})
		})
	})
}

// ReadImage reads an image, as a raw disk of a size, to keep it elsewhere.
func (h *Host) ReadImage(ctx context.Context, datastore string, id fleet.ImageID, read func(r io.Reader, size int64) error) error {
	return h.verb(ctx, "read", "image "+string(id)+" on datastore "+datastore, func(ctx context.Context, inv *inventory) error {
		if err := checkID(id); err != nil {
			return err
		}
		if err := checkDatastore(datastore); err != nil {
			return err
		}
		return h.fetch(ctx, inv, h.reads, imagePlace(datastore, id).file(flat(diskFile)), read)
	})
}

// putRaw writes a raw disk and the descriptor that makes one of it.
func (h *Host) putRaw(ctx context.Context, inv *inventory, at place, r io.Reader, size int64, p Progress) error {
	once := r
	err := h.put(ctx, inv, at.file(flat(uploadFile)), size, func() (io.ReadCloser, error) {
		if once == nil {
			return nil, fail(fleet.Unreachable, "try again", "its session ended while the disk was sent")
		}
		defer func() { once = nil }()
		return io.NopCloser(&reading{r: once, total: size, tell: p}), nil
	})
	if err != nil {
		return err
	}
	text := vmdk.Descriptor(flat(uploadFile), "lsilogic", size)
	if err := h.put(ctx, inv, at.file(uploadFile), int64(len(text)), func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }); err != nil {
		return err
	}
	return h.copyDisk(ctx, inv, at.file(uploadFile), at.file(partFile))
}

type reading struct {
	r           io.Reader
	done, total int64
	tell        Progress
}

func (p *reading) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.done += int64(n)
	if p.tell != nil && n > 0 {
		p.tell(p.done, p.total)
	}
	return n, err
}

// flat is the file with the content of a disk, beside its descriptor.
func flat(file string) string { return strings.TrimSuffix(file, ".vmdk") + "-flat.vmdk" }

// makeImage makes the directory of an image, lets f make the disk under the name
// of what is not whole yet, and gives it its name.
func (h *Host) makeImage(ctx context.Context, datastore string, id fleet.ImageID, doing string, f func(context.Context, *inventory, place) error) error {
	return h.verb(ctx, doing, "image "+string(id)+" on datastore "+datastore, func(ctx context.Context, inv *inventory) error {
		if err := checkID(id); err != nil {
			return err
		}
		d, err := h.datastore(ctx, inv, datastore)
		if err != nil {
			return err
		}
		at := imagePlace(datastore, id)
		there, err := h.whole(ctx, inv, d, at, diskFile)
		if err != nil {
			return err
		}
		if there { // but what it was made of may be left
			return h.removeDisk(ctx, inv, at.file(uploadFile))
		}
		if err := h.freshDir(ctx, inv, at); err != nil {
			return err
		}
		if err := f(ctx, inv, at); err != nil {
			return err
		}
		if err := h.moveDisk(ctx, inv, at.file(partFile), at.file(diskFile)); err != nil {
			return err
		}
		return h.removeDisk(ctx, inv, at.file(uploadFile))
	})
}

// whole reports whether a disk is in a directory, under the name that it gets
// when it is whole.
func (h *Host) whole(ctx context.Context, inv *inventory, d mo.Datastore, at place, file string) (bool, error) {
	files, err := h.list(ctx, inv, d, at.dir, file)
	if err != nil {
		return false, err
	}
	_, there := files[file]
	return there, nil
}

// HasImage reports whether an image is on a datastore, whole.
func (h *Host) HasImage(ctx context.Context, datastore string, id fleet.ImageID) (bool, error) {
	there := false
	err := h.verb(ctx, "look for", "image "+string(id), func(ctx context.Context, inv *inventory) error {
		if err := checkID(id); err != nil {
			return err
		}
		d, err := h.datastore(ctx, inv, datastore)
		if err != nil {
			return err
		}
		there, err = h.whole(ctx, inv, d, imagePlace(datastore, id), diskFile)
		return err
	})
	return there, err
}

// DeleteImage deletes an image, whole or not, from a datastore. VMs that were
// made of it have copies of their own.
func (h *Host) DeleteImage(ctx context.Context, datastore string, id fleet.ImageID) error {
	return h.verb(ctx, "delete", "image "+string(id)+" on datastore "+datastore, func(ctx context.Context, inv *inventory) error {
		if err := checkID(id); err != nil {
			return err
		}
		if _, err := h.datastore(ctx, inv, datastore); err != nil {
			return err
		}
		return h.remove(ctx, inv, imagePlace(datastore, id).String())
	})
}

// Contents are what bootd has made on a datastore, whole or not.
type Contents struct {
	Images []fleet.ImageID
	Disks  []fleet.DiskID
	VMs    []fleet.VMID
}

// Contents lists what bootd has made on a datastore, by the names of the
// directories, so that what nobody knows of any more can be found.
func (h *Host) Contents(ctx context.Context, datastore string) (Contents, error) {
	var out Contents
	err := h.verb(ctx, "list", "datastore "+datastore, func(ctx context.Context, inv *inventory) error {
		d, err := h.datastore(ctx, inv, datastore)
		if err != nil {
			return err
		}
		files, err := h.list(ctx, inv, d, "", "bootd-*")
		if err != nil {
			return err
		}
		for name := range files {
			out.add(name)
		}
		return nil
	})
	return out, err
}

func (c *Contents) add(dir string) {
	if id, ok := strings.CutPrefix(dir, imagePrefix); ok && fleet.IsUUID(id) {
		c.Images = append(c.Images, fleet.ImageID(id))
	} else if id, ok := strings.CutPrefix(dir, diskPrefix); ok && fleet.IsUUID(id) {
		c.Disks = append(c.Disks, fleet.DiskID(id))
	} else if id, ok := strings.CutPrefix(dir, vmPrefix); ok && fleet.IsUUID(id) {
		c.VMs = append(c.VMs, fleet.VMID(id))
	}
}
