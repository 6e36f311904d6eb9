package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// A Hypervisor is one host, as its adapter has it. What is so already is success,
// so that every call can be repeated after a crash. Errors are [fleet.Fault]s, or
// those of the context. Datastores are named as on the host.
type Hypervisor interface {
	Rig
	ImageKeeper
	DiskKeeper
	Machines
	Drives
	Console
}

// A Rig is the host itself.
type Rig interface {
	Facts(context.Context) (fleet.HostFacts, error)
	// Watch tells of a snapshot and then of every change, until ctx ends.
	Watch(context.Context, func(fleet.Update) error) error
	EnterMaintenance(context.Context) error
	ExitMaintenance(context.Context) error
	Close()
}

// An ImageKeeper keeps images on datastores.
type ImageKeeper interface {
	// UploadVMDK makes an image of a VMDK in a file.
	UploadVMDK(ctx context.Context, datastore string, id fleet.ImageID, r io.ReaderAt, size int64, progress func(done, total int64)) error
	CopyImage(ctx context.Context, id fleet.ImageID, from, to string) error
	// ImageFromVM makes an image of the boot disk of a VM that is off.
	ImageFromVM(ctx context.Context, vm fleet.VMID, datastore string, id fleet.ImageID) error
	// ReadImage reads an image as a raw disk.
	ReadImage(ctx context.Context, datastore string, id fleet.ImageID, read func(r io.Reader, size int64) error) error
	DeleteImage(ctx context.Context, datastore string, id fleet.ImageID) error
}

// A DiskKeeper keeps persistent disks on datastores.
type DiskKeeper interface {
	CreateDisk(ctx context.Context, datastore string, id fleet.DiskID, capacity int64) error
	DeleteDisk(ctx context.Context, datastore string, id fleet.DiskID) error
}

// Machines are the VMs of a host.
type Machines interface {
	// CreateVM makes a VM that is off.
	CreateVM(context.Context, fleet.Build) error
	// DeleteVM deletes a VM in any state, with its own disks.
	DeleteVM(context.Context, fleet.VMID) error
	Power(context.Context, fleet.VMID, fleet.Operation) error
	Status(context.Context, fleet.VMID) (fleet.VMStatus, error)
}

// Drives are what VMs have disks and CD images in.
type Drives interface {
	AttachDisk(ctx context.Context, vm fleet.VMID, datastore string, disk fleet.DiskID) error
	DetachDisk(ctx context.Context, vm fleet.VMID, disk fleet.DiskID) error
	AttachISO(ctx context.Context, vm fleet.VMID, iso fleet.ISOID, size int64, open func() (io.ReadCloser, error)) error
	DetachISO(ctx context.Context, vm fleet.VMID) error
}

// A Console opens screens of VMs.
type Console interface {
	Ticket(context.Context, fleet.VMID) (fleet.ConsoleTicket, error)
}

// A Spool keeps what clients have uploaded: of images, as long as they are there,
// of CD images, until they are on a host. IDs are those of images and CD images.
type Spool interface {
	Intake
	// Open opens a file that was received or imported. One that is not there is
	// an error that wraps fs.ErrNotExist.
	Open(id string) (*os.File, error)
	// Remove removes a file; one that is not there is removed.
	Remove(id string) error
	// IDs are those of all files.
	IDs() ([]string, error)
}

// An Intake is how files come into a spool. They are on stable storage when a
// method returns.
type Intake interface {
	// Receive keeps what is read, as it is.
	Receive(ctx context.Context, id string, r io.Reader) (size int64, err error)
	// Import makes a VMDK of an image that was received as VMDK or OVA. What is
	// neither is a [fleet.Error].
	Import(ctx context.Context, id fleet.ImageID) (fleet.ImageDisk, error)
	// ImportRaw makes a VMDK of a raw disk.
	ImportRaw(ctx context.Context, id fleet.ImageID, r io.Reader, size int64) (fleet.ImageDisk, error)
}

// A secret is what must be known to reach a host and is never shown.
type secret struct {
	Password string `json:"password"`
}

var secrets = store.Kind[secret]{Name: "host-secret"} // by host ID

// hypervisors are the hosts that are connected.
type hypervisors struct {
	mu  sync.Mutex
	all map[fleet.HostID]connection
}

type connection struct {
	Hypervisor
	address, username, password, fingerprint string
}

// hypervisor is the adapter of a host, as its record says it is to be reached.
func (c *Controller) hypervisor(ctx context.Context, id fleet.HostID) (Hypervisor, error) {
	var h fleet.Host
	var s secret
	err := c.store.View(ctx, func(tx *store.Tx) (err error) {
		if h, err = get(tx, hosts, fleet.KindHost, string(id)); err != nil {
			return err
		}
		s, err = store.Get(tx, secrets, string(id))
		return err
	})
	if err != nil {
		return nil, err
	}
	h.Password = s.Password
	return c.connect(h)
}

func (c *Controller) connect(h fleet.Host) (Hypervisor, error) {
	if c.options.Connect == nil {
		return nil, errors.New("cannot reach any host: this bootd has no adapter for hypervisors")
	}
	c.connected.mu.Lock()
	was, ok := c.connected.all[h.ID]
	if ok && was.address == h.Address && was.username == h.Username && was.password == h.Password && was.fingerprint == h.Fingerprint {
		c.connected.mu.Unlock()
		return was.Hypervisor, nil
	}
	now, err := c.options.Connect(h)
	if err == nil {
		c.connected.all[h.ID] = connection{now, h.Address, h.Username, h.Password, h.Fingerprint}
	}
	c.connected.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("cannot use host %s: %w", h.Address, err)
	}
	if ok {
		was.Close()
	}
	return now, nil
}

// disconnect forgets a host.
func (c *Controller) disconnect(id fleet.HostID) {
	c.connected.mu.Lock()
	was, ok := c.connected.all[id]
	delete(c.connected.all, id)
	c.connected.mu.Unlock()
	if ok {
		was.Close()
	}
}

// passing makes an error one that a step is tried again for.
type passing struct{ error }

// Passing says so.
func (passing) Passing() bool { return true }

// Unwrap returns the error.
func (p passing) Unwrap() error { return p.error }

// short bounds what is done beside a task, so that a host that hangs holds up
// nothing else.
const short = time.Minute
