package fleet

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	"bootd/boot"
)

// A VM runs on a host, on behalf of a project.
type VM struct {
	ID          VMID              `json:"id"`
	Project     ProjectID         `json:"project"`
	Name        string            `json:"name"` // others may have it too
	Flavor      FlavorID          `json:"flavor"`
	FlavorName  string            `json:"flavorName"`
	State       VMState           `json:"state"`
	Cost        Amounts           `json:"cost"` // what was charged for it, with its ephemeral disks
	CPUs        int               `json:"cpus"`
	Memory      int64             `json:"memory"` // bytes
	Tags        []string          `json:"tags,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Environment map[string]string `json:"environment,omitempty"`
	Image       ImageID           `json:"image,omitempty"` // empty: diskless, it boots from the network
	Host        HostID            `json:"host,omitempty"`  // empty: none is chosen yet
	Datastore   DatastoreID       `json:"datastore,omitempty"`
	Disks       []VMDisk          `json:"disks,omitempty"` // the boot disk first
	ISO         *ISO              `json:"iso,omitempty"`
	NICs        []NIC             `json:"nics,omitempty"`
	Affinities  []Ref             `json:"affinities,omitempty"`
	Cluster     ClusterID         `json:"cluster,omitempty"`
	Node        NodeType          `json:"node,omitempty"` // in its cluster
	Fault       string            `json:"fault,omitempty"`
}

// A VMDisk is a disk of a VM: an ephemeral one, which goes with it, or a
// persistent one that is attached.
type VMDisk struct {
	ID       DiskID `json:"id"`
	Name     string `json:"name"`
	Kind     Kind   `json:"kind"`
	Flavor   string `json:"flavor"` // name
	Capacity int64  `json:"capacity"`
	Boot     bool   `json:"boot,omitzero"`
}

// An ISO is a CD image that is in a VM's drive.
type ISO struct {
	ID   ISOID  `json:"id"`
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// A NIC is a network card of a VM.
type NIC struct {
	Subnet    SubnetID `json:"subnet,omitempty"`
	PortGroup string   `json:"portGroup"`
	MAC       boot.MAC `json:"mac"`
}

// A VMState is what a VM is doing.
type VMState string

// The states of VMs.
const (
	VMCreating  VMState = "CREATING"
	VMStarted   VMState = "STARTED"
	VMSuspended VMState = "SUSPENDED"
	VMStopped   VMState = "STOPPED"
	VMError     VMState = "ERROR"
	VMDeleted   VMState = "DELETED"
)

var vmEdges = edges[VMState]{
	VMCreating:  {VMStopped, VMError, VMDeleted},
	VMStopped:   {VMStarted, VMError, VMDeleted},
	VMStarted:   {VMStopped, VMSuspended, VMError},
	VMSuspended: {VMStarted, VMStopped, VMError, VMDeleted},
	// A host that was lost and comes back tells what its VMs really do.
	VMError:   {VMStarted, VMSuspended, VMStopped, VMDeleted},
	VMDeleted: {},
}

var vmRules = []rule[VMState]{
	{StartVM, []VMState{VMStopped, VMStarted, VMSuspended}, VMStarted},
	{ResumeVM, []VMState{VMStopped, VMStarted, VMSuspended}, VMStarted}, // Photon's agent knew one call for both
	{StopVM, []VMState{VMStopped, VMStarted, VMSuspended}, VMStopped},
	{RestartVM, []VMState{VMStarted}, VMStarted},
	{SuspendVM, []VMState{VMStarted, VMSuspended}, VMSuspended},
	{DeleteVM, []VMState{VMStopped, VMSuspended, VMError, VMCreating}, VMDeleted},
	{AttachDisk, []VMState{VMStopped, VMStarted}, ""},
	{DetachDisk, []VMState{VMStopped, VMStarted}, ""},
	{AttachISO, []VMState{VMStopped, VMStarted}, ""},
	{DetachISO, []VMState{VMStopped, VMStarted}, ""},
	{CreateVMImage, []VMState{VMStopped, VMSuspended}, ""},
	{GetMKSTicket, []VMState{VMStarted}, ""},
}

// CanBecome reports whether a VM may go from one state to another.
func (s VMState) CanBecome(to VMState) bool { return vmEdges.has(s, to) }

// After is the state that a verb leads to, or the error of the verb in this
// state, with the code that Photon gives. Photon refuses power verbs in their
// task, not when they are asked for.
func (v VM) After(op Operation) (VMState, error) {
	to, err := after(vmRules, Ref{KindVM, string(v.ID)}, v.State, op)
	if err == nil {
		return to, nil
	}
	switch {
	case v.State == VMError && (op == AttachDisk || op == DetachDisk):
		err = UnknownEntity(Ref{KindVM, string(v.ID)})
	case v.State == VMSuspended && (op == AttachDisk || op == DetachDisk):
		err = Errorf(InvalidVMState, "Vm in suspended state")
	case op == DeleteVM && v.State == VMStarted:
		err = Errorf(InvalidVMState, "VM %s not powered off; stop it first", v.ID)
	case op == GetMKSTicket:
		err = Errorf(InvalidVMState, "Get Mks Ticket is not allowed on vm that is not powered on.")
	default:
		err = Errorf(InvalidVMState, "Invalid operation %s for vm/%s in state %s", op, v.ID, v.State)
	}
	return v.State, err
}

// Deletable is nil, or the error of a persistent disk that is attached still.
// What the state says is [VM.After]'s.
func (v VM) Deletable() error {
	for _, d := range v.Disks {
		if d.Kind == KindPersistentDisk {
			return Errorf(PersistentDiskAttached, "Disk %s#%s is attached to VM#%s", d.Kind, d.ID, v.ID)
		}
	}
	return nil
}

// BootDisk is the disk that it boots from, if it has one.
func (v VM) BootDisk() (VMDisk, bool) {
	i := slices.IndexFunc(v.Disks, func(d VMDisk) bool { return d.Boot })
	if i < 0 {
		return VMDisk{}, false
	}
	return v.Disks[i], true
}

// DeriveMAC is a hardware address for a VM's NIC: of those that VMware leaves
// to administrators, 00:50:56:00:00:00 to 00:50:56:3f:ff:ff. There are four
// million, so two VMs may get one: whoever commits it looks first whether it is
// taken, and tries the next attempt.
func DeriveMAC(vm VMID, nic, attempt int) boot.MAC {
	h := sha1.Sum([]byte(string(vm) + "/" + strconv.Itoa(nic) + "/" + strconv.Itoa(attempt)))
	x := binary.BigEndian.Uint32(h[:4]) & 0x3fffff
	return boot.MAC{0x00, 0x50, 0x56, byte(x >> 16), byte(x >> 8), byte(x)}
}

// A VMSpec is what a client asks for.
type VMSpec struct {
	Name        string
	Flavor      string  // name
	Image       ImageID // empty only if Diskless is
	Diskless    bool    // bootd's own: without image and boot disk, it boots from the network
	Disks       []DiskSpec
	Affinities  []Ref
	Tags        []string
	Environment map[string]string
	Subnets     []SubnetID // none: the default one
	MACs        []boot.MAC // bootd's own: of the NICs, where they are to be known ones
}

// A DiskSpec is a disk of a VM that a client asks for.
type DiskSpec struct {
	Name     string
	Kind     Kind   // "ephemeral" is ephemeral-disk
	Flavor   string // name
	Capacity int64  // bytes; of the boot disk it comes from the image
	Boot     bool
}

// Check is nil, or tells what is wrong with what a client gave, as far as that
// alone tells.
func (s VMSpec) Check() error {
	var m Mistakes
	m.Name("name", s.Name)
	m.Required("flavor", s.Flavor)
	for i, d := range s.Disks {
		d.check(&m, "attachedDisks["+strconv.Itoa(i)+"]")
	}
	for i, t := range s.Tags {
		m.Tag("tags["+strconv.Itoa(i)+"]", t)
	}
	for i, a := range s.Affinities {
		at := "affinities[" + strconv.Itoa(i) + "]"
		m.Required(at+".id", a.ID)
		OneOf(&m, at+".kind", a.Kind, KindVM, KindPersistentDisk, KindEphemeralDisk, "disk", KindHost, KindDatastore, KindPortGroup, AffinityZone)
	}
	if err := m.Err(); err != nil {
		return err
	}
	if err := s.checkBoot(); err != nil {
		return err
	}
	return s.checkAffinities()
}

func (d DiskSpec) check(m *Mistakes, at string) {
	m.Name(at+".name", d.Name)
	m.Required(at+".flavor", d.Flavor)
	if d.Kind != KindEphemeralDisk && d.Kind != "ephemeral" {
		m.Add(at+".kind", `must match "ephemeral-disk|ephemeral"`, orNull(string(d.Kind)))
	}
	if !d.Boot && d.Capacity < 1<<30 {
		m.Add(at+".capacityGb", "must be greater than or equal to 1", d.Capacity>>30)
	}
}

func orNull(s string) string {
	if s == "" {
		return "null"
	}
	return s
}

func (s VMSpec) checkBoot() error {
	boots := 0
	for _, d := range s.Disks {
		if d.Boot {
			boots++
		}
	}
	switch {
	case s.Diskless && s.Image != "":
		return Errorf(InvalidEntity, "A diskless VM has no image")
	case s.Diskless && boots > 0:
		return Errorf(InvalidEntity, "A diskless VM has no boot disk")
	case s.Diskless:
		return nil
	case s.Image == "":
		return Errorf(InvalidEntity, "No sourceImageId specified in VM create request")
	case boots != 1:
		return Errorf(InvalidEntity, "One and only one disk must be a boot disk (there are %d)", boots)
	}
	return nil
}

func (s VMSpec) checkAffinities() error {
	n := map[Kind]int{}
	for _, a := range s.Affinities {
		n[a.Kind]++
	}
	disks := n["disk"] + n[KindPersistentDisk] + n[KindEphemeralDisk]
	switch {
	case n[KindVM] > 0:
		return Errorf(InvalidEntity, "A VM cannot have an affinity to a vm")
	case n[KindHost] > 1:
		return Errorf(InvalidEntity, "A VM can only be affixed on one host, however %d hosts were specified.", n[KindHost])
	case n[KindDatastore] > 1:
		return Errorf(InvalidEntity, "A VM can only be affixed on one datastore, however %d datastores were specified.", n[KindDatastore])
	case n[AffinityZone] > 1:
		return Errorf(InvalidEntity, "A VM can only be associated to one availabilityZone, however %d availabilityZones were specified.", n[AffinityZone])
	case disks > 0 && n[KindHost]+n[KindDatastore] > 0:
		return Errorf(InvalidEntity, "A VM cannot have affinities to disks and to a host or a datastore at once")
	}
	return nil
}

// clusterTags tell where in a cluster a VM is, as clients look for it.
func (v VM) clusterTags() []string {
	if v.Cluster == "" {
		return nil
	}
	return []string{"cluster:" + string(v.Cluster), fmt.Sprintf("cluster:%s:%s", v.Cluster, v.Node)}
}

// AllTags are its own tags and those that tell its cluster and what it is
// there, which the CLI reads.
func (v VM) AllTags() []string {
	return append(slices.Clone(v.Tags), v.clusterTags()...)
}
