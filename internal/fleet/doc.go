// Package fleet holds the nouns of the controller, and the rules about them
// that need nothing but the nouns: tenants with their quota, flavors, images,
// hosts with their datastores, VMs, disks, subnets, clusters, tasks. They are
// Photon Controller's, so that its API and its clients fit.
//
// Everything is a plain value or a pure function: no clock, no randomness, no
// I/O, no goroutine. Values may be shared as long as nobody changes them; those
// that contain maps or slices are copied by whoever changes one.
//
// # Identity and state
//
// An ID is a UUID with a type of its own, so that a host cannot be passed for
// a VM ([NewID], [DeriveID]). What exists outside (a VM on a host, a directory
// on a datastore) is named after its ID, so that a step that is repeated finds
// what it did before it was killed.
//
// States change as their tables say. For each kind of state, CanBecome tells
// which may follow which: whoever writes a record must not write another. For
// the verbs of the API, After tells in which states one is allowed and which
// state it leads to; an error has the code and the text that Photon's clients
// know. Every entity can be deleted out of ERROR.
//
// # Quota
//
// An [Amount] is exact: no sum of costs ever differs from what was charged.
// [Quota.Charge] and [Quota.Release] return a new quota or an error, and change
// nothing. They belong into the transaction that makes or removes what is
// charged.
//
// # Errors
//
// An [Error] is what a client is told, with one of Photon's codes. It says
// nothing that a tenant must not know. A [Fault] is what a hypervisor's
// adapter found; the controller acts upon its kind and decides what of it is
// told to whom. [Fault.Code] is a translation to begin with.
//
// # What the controller needs of a hypervisor
//
// A proposal. The interfaces are declared by their consumer, internal/controller;
// internal/esx has concrete methods of these shapes on one host, so that an
// interface that looks a host up ([HostID] to Host) is the only glue needed.
// All of them may be repeated after a crash: what is so already is success.
//
//	Facts(ctx) (HostFacts, error)                      what there is and what is used
//	Watch(ctx, func(Update) error) error               a snapshot, then every change; resyncs by itself
//	EnterMaintenance(ctx) error, ExitMaintenance(ctx) error
//	EnsurePortGroup(ctx, PortGroup) error, RemovePortGroup(ctx, name) error
//
// Datastores are named as on the host. Open is called once for each try.
//
//	UploadImage(ctx, datastore, ImageID, disk, progress) error    disk: an opened VMDK
//	CopyImage(ctx, ImageID, from, to) error                       between datastores of the host
//	FetchImage(ctx, ImageID, otherHost, from, to, progress) error from another host, through here
//	ImageFromVM(ctx, VMID, datastore, ImageID) error
//	HasImage(ctx, datastore, ImageID) (bool, error), DeleteImage(ctx, datastore, ImageID) error
//	Contents(ctx, datastore) (images, disks, VMs; error)          by their names, for collecting
//
//	CreateDisk(ctx, datastore, DiskID, bytes) error, DeleteDisk(ctx, datastore, DiskID) error
//
//	CreateVM(ctx, Build) error                         powered off; from an image or diskless
//	DeleteVM(ctx, VMID) error                          in any state, with its ephemeral disks; persistent ones are detached
//	Power(ctx, VMID, Operation) error                  START_VM, STOP_VM, RESTART_VM, SUSPEND_VM, RESUME_VM
//	Shutdown(ctx, VMID, grace) error                   by its system, then hard
//	AttachDisk(ctx, VMID, datastore, DiskID) error, DetachDisk(ctx, VMID, DiskID) error
//	AttachISO(ctx, VMID, ISOID, size, open) error, DetachISO(ctx, VMID) error
//	SetMetadata(ctx, VMID, notes, keys) error
//	Status(ctx, VMID) (VMStatus, error), VMs(ctx) ([]VMStatus, error)
//	Ticket(ctx, VMID) (ConsoleTicket, error)
//
// Errors of all of them are [Fault]s, or those of ctx.
package fleet
