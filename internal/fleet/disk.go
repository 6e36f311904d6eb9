package fleet

import "strconv"

// A Disk is a persistent disk: it outlives the VMs that it is attached to.
type Disk struct {
	ID         DiskID      `json:"id"`
	Project    ProjectID   `json:"project"`
	Name       string      `json:"name"` // others may have it too
	Flavor     FlavorID    `json:"flavor"`
	FlavorName string      `json:"flavorName"`
	State      DiskState   `json:"state"`
	Cost       Amounts     `json:"cost"`
	Capacity   int64       `json:"capacity"` // bytes
	Datastore  DatastoreID `json:"datastore,omitempty"`
	Tags       []string    `json:"tags,omitempty"`
	VM         VMID        `json:"vm,omitempty"` // that it is attached to
	Fault      string      `json:"fault,omitempty"`
}

// A DiskState is the life of a persistent disk.
type DiskState string

// The states of disks.
const (
	DiskCreating DiskState = "CREATING"
	DiskDetached DiskState = "DETACHED"
	DiskAttached DiskState = "ATTACHED"
	DiskError    DiskState = "ERROR"
	DiskDeleted  DiskState = "DELETED"
)

var diskEdges = edges[DiskState]{
	DiskCreating: {DiskDetached, DiskError, DiskDeleted},
	DiskDetached: {DiskAttached, DiskError, DiskDeleted},
	DiskAttached: {DiskDetached, DiskError},
	DiskError:    {DiskDetached, DiskDeleted},
	DiskDeleted:  {},
}

var diskRules = []rule[DiskState]{
	{AttachDisk, []DiskState{DiskDetached}, DiskAttached},
	{DetachDisk, []DiskState{DiskAttached}, DiskDetached},
	{DeleteDisk, []DiskState{DiskCreating, DiskDetached, DiskError}, DiskDeleted},
}

// CanBecome reports whether a disk may go from one state to another.
func (s DiskState) CanBecome(to DiskState) bool { return diskEdges.has(s, to) }

// After is the state that a verb leads to, or an error with code [StateError].
// Detaching what is not attached Photon refuses in the task, with code
// InternalError.
func (d Disk) After(op Operation) (DiskState, error) {
	return after(diskRules, Ref{KindPersistentDisk, string(d.ID)}, d.State, op)
}

// A PersistentDiskSpec is a persistent disk that a client asks for.
type PersistentDiskSpec struct {
	Name       string
	Kind       Kind   // "persistent" is persistent-disk
	Flavor     string // name
	Capacity   int64  // bytes
	Affinities []Ref  // VMs, to be near to
	Tags       []string
}

// Check is nil, or tells what is wrong with what a client gave.
func (s PersistentDiskSpec) Check() error {
	var m Mistakes
	m.Name("name", s.Name)
	m.Required("flavor", s.Flavor)
	if s.Kind != KindPersistentDisk && s.Kind != "persistent" {
		m.Add("kind", `must match "persistent-disk|persistent"`, orNull(string(s.Kind)))
	}
	if s.Capacity < 1<<30 {
		m.Add("capacityGb", "must be greater than or equal to 1", s.Capacity>>30)
	}
	for i, t := range s.Tags {
		m.Tag("tags["+strconv.Itoa(i)+"]", t)
	}
	for i, a := range s.Affinities {
		m.Required("affinities["+strconv.Itoa(i)+"].id", a.ID)
	}
	if err := m.Err(); err != nil {
		return err
	}
	for _, a := range s.Affinities {
		if a.Kind != KindVM {
			return Errorf(InvalidEntity, "Create disk can only take locality kind of vm, not %s", orNull(string(a.Kind)))
		}
	}
	return nil
}
