package controller

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"

	"bootd/boot"
	"bootd/internal/fleet"
	"bootd/internal/place"
	"bootd/internal/store"
)

const (
	createVM        fleet.Operation = "CREATE_VM"
	reserveResource fleet.Operation = "RESERVE_RESOURCE"
	addTag          fleet.Operation = "ADD_TAG"
	setMetadata     fleet.Operation = "SET_METADATA"
	getNetworks     fleet.Operation = "GET_NETWORKS"
)

var (
	vms        = store.Kind[vm]{Name: "vm"}
	projectVMs = store.Kind[fleet.VMID]{Name: "project-vm"} // by project ID/VM ID
)

// A vm is a VM and what was taken for it. What is charged and what is reserved is
// given back in the transaction that notes that it is not any more, so exactly once.
type vm struct {
	fleet.VM
	Need     place.Request    `json:"need"`
	Flavors  []fleet.FlavorID `json:"flavors"`           // that count it as a user, its disks' too
	Charged  bool             `json:"charged,omitzero"`  // its cost, to its project
	Reserved bool             `json:"reserved,omitzero"` // on its host and its datastore
	Lost     bool             `json:"lost,omitzero"`     // in ERROR for what its host says; that may change
	// Holds are the persistent disks that nobody else can have: those of Disks, those
	// that are to be attached, and those of which a failure has left open whether they
	// are attached.
	Holds []fleet.DiskID `json:"holds,omitempty"`
}

// lives reports whether a VM is what its host says it is: it was made, and no
// failure of bootd's own is to be kept.
func (v vm) lives() bool {
	switch v.State {
	case fleet.VMStarted, fleet.VMStopped, fleet.VMSuspended:
		return true
	}
	return v.State == fleet.VMError && v.Lost
}

// vmFor reads a VM for somebody who may change it.
func (c *Controller) vmFor(tx *store.Tx, by Principal, id fleet.VMID) (vm, fleet.Project, error) {
	v, err := get(tx, vms, fleet.KindVM, string(id))
	if err != nil {
		if by.Role == Guest {
			err = by.forbidden()
		}
		return v, fleet.Project{}, err
	}
	p, err := get(tx, projects, fleet.KindProject, string(v.Project))
	if err == nil {
		err = by.uses(p)
	}
	return v, p, err
}

// VM returns a VM to those who may use its project.
func (c *Controller) VM(ctx context.Context, by Principal, id fleet.VMID) (v fleet.VM, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) error {
		x, _, err := c.vmFor(tx, by, id)
		if err == nil {
			v = x.VM
		}
		return err
	})
	return v, err
}

// VMs lists the VMs of a project by name; with a name, those.
func (c *Controller) VMs(ctx context.Context, by Principal, project fleet.ProjectID, name string) ([]fleet.VM, error) {
	p, err := c.Project(ctx, by, project)
	if err == nil {
		err = by.uses(p)
	}
	if err != nil {
		return nil, err
	}
	return c.listed(ctx, projectVMs, string(project)+"/", name)
}

// listed reads the VMs that an index has.
func (c *Controller) listed(ctx context.Context, index store.Kind[fleet.VMID], begin, name string) ([]fleet.VM, error) {
	all, err := store.List(ctx, c.store, index, begin)
	if all == nil {
		return nil, err
	}
	var ids []fleet.VMID
	for _, key := range sorted(all) {
		ids = append(ids, all[key])
	}
	return c.vmsNamed(ctx, ids, name)
}

// vmsNamed reads VMs, by name; with a name, those.
func (c *Controller) vmsNamed(ctx context.Context, ids []fleet.VMID, name string) ([]fleet.VM, error) {
	out := []fleet.VM{}
	for _, id := range ids {
		v, err := find(ctx, c, vms, fleet.KindVM, string(id))
		switch {
		case fleet.CodeOf(err) == fleet.VMNotFound: // it has just gone
		case err != nil:
			return nil, err
		case name == "" || v.Name == name:
			out = append(out, v.VM)
		}
	}
	slices.SortStableFunc(out, func(a, b fleet.VM) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// CreateVM makes a VM in a project. Its task chooses a host and makes the VM there,
// powered off; if it fails, the VM is in ERROR, uses no quota, and can be deleted.
func (c *Controller) CreateVM(ctx context.Context, by Principal, project fleet.ProjectID, s fleet.VMSpec) (fleet.Task, error) {
	if err := s.Check(); err != nil {
		return fleet.Task{}, err
	}
	if len(s.Disks) > maxDisks || len(s.Subnets) > maxNICs {
		return fleet.Task{}, fleet.Errorf(fleet.InvalidEntity, "A VM has at most %d disks and %d networks", maxDisks, maxNICs)
	}
	id := newID[fleet.VMID]()
	return c.changeInTurn(ctx, by, func(tx *store.Tx) (change, error) {
		p, err := get(tx, projects, fleet.KindProject, string(project))
		if err != nil {
			return change{}, err
		}
		if err := by.uses(p); err != nil {
			return change{}, err
		}
		v := vm{VM: fleet.VM{ID: id, Project: project, Name: s.Name, State: fleet.VMCreating, Tags: s.Tags, Environment: s.Environment,
			Image: s.Image, Affinities: s.Affinities}}
		if err := plan(tx, &v, s); err != nil {
			return change{}, err
		}
		if p.Quota, err = p.Quota.Charge(v.Cost); err != nil {
			return change{}, err
		}
		v.Charged = true
		if _, err := use(tx, ref(fleet.KindProject, project), 1); err != nil {
			return change{}, err
		}
		return change{operation: createVM, entity: ref(fleet.KindVM, id), tenant: p.Tenant, project: project, name: v.Name, queued: true},
			errors.Join(store.Put(tx, projects, string(project), p), store.Put(tx, projectVMs, string(project)+"/"+string(id), id), store.Put(tx, vms, string(id), v))
	})
}

// What a VM has at most: what fits on one SCSI controller, and what vSphere allows.
const (
	maxDisks = 15
	maxNICs  = 10
)

// plan finds out what a VM consists of and needs, and counts it as a user of that.
func plan(tx *store.Tx, v *vm, s fleet.VMSpec) error {
	f, err := useFlavor(tx, s.Flavor, fleet.KindVM)
	if err != nil {
		return err
	}
	v.Flavor, v.FlavorName, v.Flavors = f.ID, f.Name, []fleet.FlavorID{f.ID}
	v.CPUs, v.Memory, v.Cost = f.CPUs(), f.Memory(), f.Charged(0)
	v.Need = place.Request{CPUs: v.CPUs, Memory: v.Memory, Image: v.Image}
	var boot int64
	if v.Image != "" {
		i, err := useImage(tx, v.Image)
		if err != nil {
			return err
		}
		boot = i.Capacity
	}
	if err := planDisks(tx, v, s.Disks, boot); err != nil {
		return err
	}
	if err := planAffinities(tx, v, s.Affinities); err != nil {
		return err
	}
	return planNICs(tx, v, s)
}

// planDisks adds the VM's own disks, the boot disk first. That has the size of the
// image.
func planDisks(tx *store.Tx, v *vm, disks []fleet.DiskSpec, boot int64) error {
	for i, d := range disks {
		f, err := useFlavor(tx, d.Flavor, fleet.KindEphemeralDisk)
		if err != nil {
			return err
		}
		if d.Boot {
			d.Capacity = boot
		}
		v.Flavors = append(v.Flavors, f.ID)
		if v.Cost, err = v.Cost.Plus(f.Charged(d.Capacity)); err != nil {
			return fleet.Errorf(fleet.InvalidFlavorSpecification, "The flavors cannot be added: %v", err)
		}
		v.Need.Storage += d.Capacity
		v.Need.DatastoreTags = append(v.Need.DatastoreTags, f.DatastoreTags()...)
		x := fleet.VMDisk{ID: fleet.DeriveID[fleet.DiskID](string(v.ID), "disk "+strconv.Itoa(i)), Name: d.Name, Kind: fleet.KindEphemeralDisk,
			Flavor: f.Name, Capacity: d.Capacity, Boot: d.Boot}
		if d.Boot {
			v.Disks = slices.Insert(v.Disks, 0, x)
		} else {
			v.Disks = append(v.Disks, x)
		}
	}
	return nil
}

// planAffinities turns what a VM is to be near to into what it needs.
func planAffinities(tx *store.Tx, v *vm, list []fleet.Ref) error {
	for _, a := range list {
		switch a.Kind {
		case fleet.KindHost:
			h, err := hostAt(tx, a.ID)
			if err != nil {
				return err
			}
			if !h.Has(fleet.Cloud) {
				return fleet.Errorf(fleet.InvalidEntity, "Host %s is not tagged %s: it takes no VMs", a.ID, fleet.Cloud)
			}
			v.Need.Host = h.ID
		case fleet.KindDatastore:
			if _, err := get(tx, datastores, fleet.KindDatastore, a.ID); err != nil {
				return err
			}
			v.Need.Datastore = fleet.DatastoreID(a.ID)
		case fleet.AffinityZone:
			z, err := get(tx, zones, fleet.KindZone, a.ID)
			if err != nil {
				return err
			}
			if err := z.Usable(); err != nil {
				return err
			}
			v.Need.Zone = z.ID
		case fleet.KindPortGroup:
			v.Need.PortGroups = append(v.Need.PortGroups, a.ID)
		default:
			if err := nearDisk(tx, v, a.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// nearDisk puts a VM on the datastore of a persistent disk.
func nearDisk(tx *store.Tx, v *vm, id string) error {
	d, err := get(tx, disks, fleet.KindPersistentDisk, id)
	switch {
	case err != nil:
		return err
	case d.Project != v.Project:
		return fleet.UnknownEntity(ref(fleet.KindPersistentDisk, fleet.DiskID(id)))
	case d.Datastore == "":
		return fleet.Errorf(fleet.UnfulfillableDiskAffinities, "Disk %s is in state %s and on no datastore", id, d.State)
	case v.Need.Datastore != "" && v.Need.Datastore != d.Datastore:
		return fleet.Errorf(fleet.UnfulfillableDiskAffinities, "The disks that the VM is to be near to are on different datastores")
	}
	v.Need.Datastore = d.Datastore
	return nil
}

// hostAt is the host with an address.
func hostAt(tx *store.Tx, address string) (fleet.Host, error) {
	id, err := orZero(tx, names, nameKey(fleet.KindHost, "", address))
	if err != nil {
		return fleet.Host{}, err
	}
	if id == "" {
		id = address // which is known by no host, or an ID
	}
	return get(tx, hosts, fleet.KindHost, id)
}

// defaultPortGroup is what ESXi has for VMs when it is new. VMs are on it when they
// ask for no subnet and there is no default one, as Photon's were.
const defaultPortGroup = "VM Network"

// planNICs adds the network cards, each with an address that no other VM has.
func planNICs(tx *store.Tx, v *vm, s fleet.VMSpec) error {
	wanted := s.Subnets
	if len(wanted) == 0 {
		d, err := orZero(tx, defaultSubnet, theDefault)
		if err != nil {
			return err
		}
		if d != "" && len(v.Need.PortGroups) == 0 {
			wanted = []fleet.SubnetID{d}
		}
	}
	for _, id := range wanted {
		n, err := get(tx, subnets, fleet.KindSubnet, string(id))
		if err != nil {
			return err
		}
		if err := n.Usable(); err != nil {
			return err
		}
		if _, err := use(tx, ref(fleet.KindSubnet, id), 1); err != nil {
			return err
		}
		v.Need.Networks = append(v.Need.Networks, n.PortGroups)
		v.NICs = append(v.NICs, fleet.NIC{Subnet: id})
	}
	if len(wanted) == 0 {
		groups := v.Need.PortGroups
		if len(groups) == 0 {
			groups = []string{defaultPortGroup}
			v.Need.PortGroups = groups
		}
		for _, g := range groups {
			v.NICs = append(v.NICs, fleet.NIC{PortGroup: g})
		}
	}
	for i := range v.NICs {
		mac := boot.MAC{}
		if i < len(s.MACs) {
			mac = s.MACs[i]
		}
		if err := takeMAC(tx, v, i, mac); err != nil {
			return err
		}
	}
	return nil
}

const kindMAC fleet.Kind = "mac" // among the names that are not given twice

func takeMAC(tx *store.Tx, v *vm, nic int, wanted boot.MAC) error {
	for try := range 100 {
		mac := wanted
		if mac.IsZero() {
			mac = fleet.DeriveMAC(v.ID, nic, try)
		}
		err := take(tx, kindMAC, "", mac.String(), string(v.ID))
		if err == nil {
			v.NICs[nic].MAC = mac
			return nil
		}
		if fleet.CodeOf(err) != fleet.NameTaken {
			return err
		}
		if !wanted.IsZero() {
			return fleet.Errorf(fleet.InvalidEntity, "Another VM has the hardware address %s", mac)
		}
	}
	return errors.New("cannot find a hardware address that no VM has")
}

// DeleteVM deletes a VM that is not running, with its own disks.
func (c *Controller) DeleteVM(ctx context.Context, by Principal, id fleet.VMID) (fleet.Task, error) {
	return c.order(ctx, by, id, fleet.DeleteVM, func(v vm) (any, error) { return nil, v.Deletable() })
}

// PowerVM carries out one of START_VM, STOP_VM, RESTART_VM, SUSPEND_VM and
// RESUME_VM. Whether the VM's state allows it is found out by the task.
func (c *Controller) PowerVM(ctx context.Context, by Principal, id fleet.VMID, op fleet.Operation) (fleet.Task, error) {
	if !slices.Contains(powerOperations, op) {
		return fleet.Task{}, fleet.Errorf(fleet.InvalidOperation, "%s is no power operation", op)
	}
	return c.order(ctx, by, id, op, noArgument)
}

var powerOperations = []fleet.Operation{fleet.StartVM, fleet.StopVM, fleet.RestartVM, fleet.SuspendVM, fleet.ResumeVM}

func noArgument(vm) (any, error) { return nil, nil }

// VMNetworks asks a VM's host for the addresses of its network cards. The task's
// result is {"networkConnections": [{"network", "macAddress", "ipAddress",
// "netmask", "isConnected"}]}.
func (c *Controller) VMNetworks(ctx context.Context, by Principal, id fleet.VMID) (fleet.Task, error) {
	return c.order(ctx, by, id, getNetworks, noArgument)
}

// MKSTicket opens the screen of a VM that is on. The task's result is {"port",
// "cfgFile", "ticket", "sslThumbprint", "host"}.
func (c *Controller) MKSTicket(ctx context.Context, by Principal, id fleet.VMID) (fleet.Task, error) {
	return c.order(ctx, by, id, fleet.GetMKSTicket, func(v vm) (any, error) {
		_, err := v.After(fleet.GetMKSTicket)
		return nil, err
	})
}

// order orders a task on a VM. f tells what is wrong with that at once, and what the
// task has to know.
func (c *Controller) order(ctx context.Context, by Principal, id fleet.VMID, op fleet.Operation, f func(vm) (argument any, err error)) (fleet.Task, error) {
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		v, p, err := c.vmFor(tx, by, id)
		if err != nil {
			return change{}, err
		}
		argument, err := f(v)
		return change{operation: op, entity: ref(fleet.KindVM, id), tenant: p.Tenant, project: p.ID, name: v.Name, queued: true, argument: argument,
			reads: op == getNetworks}, err
	})
}

// SetVMMetadata replaces what people keep with a VM.
func (c *Controller) SetVMMetadata(ctx context.Context, by Principal, id fleet.VMID, m map[string]string) (fleet.Task, error) {
	return c.describe(ctx, by, id, setMetadata, func(v *vm) { v.Metadata = maps.Clone(m) })
}

// AddVMTag adds a tag of 1 to 64 characters; one that is there stays.
func (c *Controller) AddVMTag(ctx context.Context, by Principal, id fleet.VMID, tag string) (fleet.Task, error) {
	var m fleet.Mistakes
	if m.Tag("value", tag); m.Err() != nil {
		return fleet.Task{}, m.Err()
	}
	return c.describe(ctx, by, id, addTag, func(v *vm) {
		if !slices.Contains(v.Tags, tag) {
			v.Tags = append(v.Tags, tag)
		}
	})
}

func (c *Controller) describe(ctx context.Context, by Principal, id fleet.VMID, op fleet.Operation, f func(*vm)) (fleet.Task, error) {
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		v, p, err := c.vmFor(tx, by, id)
		if err != nil {
			return change{}, err
		}
		f(&v)
		return change{operation: op, entity: ref(fleet.KindVM, id), tenant: p.Tenant, project: p.ID, name: v.Name}, store.Put(tx, vms, string(id), v)
	})
}
