package fleet

import (
	"maps"
	"strings"
)

// A Flavor is what a VM or a disk costs; a VM's also says how large it is.
type Flavor struct {
	ID    FlavorID    `json:"id"`
	Name  string      `json:"name"` // of one flavor of the kind only
	Kind  Kind        `json:"kind"` // vm, ephemeral-disk or persistent-disk
	Cost  Amounts     `json:"cost"`
	Tags  []string    `json:"tags,omitempty"`
	State FlavorState `json:"state"`
}

// Keys of costs that mean something.
const (
	CostCPU    = "vm.cpu"    // COUNT, of processors
	CostMemory = "vm.memory" // bytes
	// CostStorage begins keys that ask for datastores with a tag: with
	// "storage.SHARED_VMFS" a disk goes only to those.
	CostStorage = "storage."
)

// A FlavorState is the life of a flavor.
type FlavorState string

// The states of flavors.
const (
	FlavorCreating      FlavorState = "CREATING"
	FlavorReady         FlavorState = "READY"
	FlavorPendingDelete FlavorState = "PENDING_DELETE" // its last user deletes it
	FlavorError         FlavorState = "ERROR"
	FlavorDeleted       FlavorState = "DELETED"
)

var flavorEdges = edges[FlavorState]{
	FlavorCreating:      {FlavorReady, FlavorError},
	FlavorReady:         {FlavorPendingDelete, FlavorDeleted, FlavorError},
	FlavorPendingDelete: {FlavorDeleted, FlavorError},
	FlavorError:         {FlavorPendingDelete, FlavorDeleted},
	FlavorDeleted:       {},
}

// CanBecome reports whether a flavor may go from one state to another.
func (s FlavorState) CanBecome(to FlavorState) bool { return flavorEdges.has(s, to) }

// Usable is nil, or the error of making something of the flavor.
func (f Flavor) Usable() error {
	if f.State == FlavorReady {
		return nil
	}
	return Errorf(InvalidFlavorState, "Flavor %s is in invalid state %s", f.Name, f.State)
}

// Deletable is nil, or the error of deleting the flavor.
func (f Flavor) Deletable() error {
	if f.State == FlavorReady || f.State == FlavorError {
		return nil
	}
	return Errorf(InvalidFlavorState, "Flavor %s is in invalid state %s", f.Name, f.State)
}

// NoSuchFlavor is the error of making something of a flavor that is not there.
func NoSuchFlavor(name string, k Kind) *Error {
	return Errorf(InvalidFlavor, "Flavor %s is not found for kind %s", name, k)
}

// Check is nil, or tells what is wrong with what a client gave. Strict also
// asks that a VM's flavor says how large the VM is, and that a disk's leaves
// its size to the disk, as Photon Controller does since 1.1; without it,
// [Flavor.CPUs] and [Flavor.Memory] have defaults.
func (f Flavor) Check(strict bool) error {
	var m Mistakes
	m.Name("name", f.Name)
	OneOf(&m, "kind", f.Kind, KindPersistentDisk, KindEphemeralDisk, KindVM)
	m.Limits("cost", f.Cost)
	if err := m.Err(); err != nil {
		return err
	}
	if f.Kind == KindVM {
		return f.checkVM(strict)
	}
	if k := string(f.Kind) + ".capacity"; strict {
		if _, ok := f.Cost[k]; ok {
			return Errorf(InvalidFlavorSpecification, "Flavor %s must not have %s: it comes from the disk's size", f.Name, k)
		}
	}
	return nil
}

func (f Flavor) checkVM(strict bool) error {
	cpu, hasCPU := f.Cost[CostCPU]
	memory, hasMemory := f.Cost[CostMemory]
	switch {
	case strict && !hasCPU:
		return Errorf(InvalidFlavorSpecification, "Flavor %s has no %s", f.Name, CostCPU)
	case strict && !hasMemory:
		return Errorf(InvalidFlavorSpecification, "Flavor %s has no %s", f.Name, CostMemory)
	case hasCPU && (cpu.unit != Count || cpu.part != 0 || cpu.whole < 1 || cpu.whole > maxCPUs):
		return Errorf(InvalidFlavorSpecification, "Flavor %s: %s must be a whole number from 1 to %d COUNT, not %s", f.Name, CostCPU, maxCPUs, cpu)
	case hasMemory && (memory.unit == Count || memory.whole < minMemory || memory.whole > maxMemory):
		return Errorf(InvalidFlavorSpecification, "Flavor %s: %s must be from 4 MB to 24 TB in B, KB, MB or GB, not %s", f.Name, CostMemory, memory)
	}
	return nil
}

// What ESXi allows a VM at most (hardware version 20), and at least.
const (
	maxCPUs   = 768
	minMemory = 4 << 20
	maxMemory = 24 << 40
)

// CPUs is how many processors a VM has; 1 where it is not said.
func (f Flavor) CPUs() int { return max(1, int(f.Cost[CostCPU].whole)) }

// Memory is how much a VM has, in bytes: a multiple of 4 MB, as hypervisors
// want it, 1 GB where it is not said.
func (f Flavor) Memory() int64 {
	b := f.Cost[CostMemory].whole
	if b == 0 {
		return 1 << 30
	}
	return (b + minMemory - 1) / minMemory * minMemory
}

// DatastoreTags are the tags that a disk of the flavor needs its datastore to
// have, in order.
func (f Flavor) DatastoreTags() []string {
	var out []string
	for _, k := range f.Cost.Keys() {
		if tag, ok := strings.CutPrefix(k, CostStorage); ok && tag != "" {
			out = append(out, tag)
		}
	}
	return out
}

// Charged is what one VM or disk of the flavor costs: what the flavor says, one
// of the kind, one of the flavor, and, for a disk, its capacity in bytes.
func (f Flavor) Charged(capacity int64) Amounts {
	out := maps.Clone(f.Cost)
	if out == nil {
		out = Amounts{}
	}
	one := Amount{whole: 1, unit: Count}
	for _, k := range []string{string(f.Kind), string(f.Kind) + ".flavor." + f.Name} {
		if _, ok := out[k]; !ok {
			out[k] = one
		}
	}
	if f.Kind != KindVM && capacity > 0 {
		out[string(f.Kind)+".capacity"] = Amount{whole: capacity, unit: Gigabytes}
	}
	return out
}

// Names of the flavors that clusters have when nothing is said.
const (
	ClusterMasterVM = "cluster-master-vm"
	ClusterOtherVM  = "cluster-other-vm"
	ClusterVMDisk   = "cluster-vm-disk"
)

// ClusterFlavors are the flavors that clusters have when nothing is said, as Photon
// Controller made them when it was installed. They have no IDs yet.
func ClusterFlavors() ([]Flavor, error) {
	var out []Flavor
	for _, f := range []struct {
		name         string
		kind         Kind
		cpus, memory int64
	}{{ClusterMasterVM, KindVM, 4, 8}, {ClusterOtherVM, KindVM, 1, 4}, {ClusterVMDisk, KindEphemeralDisk, 0, 0}} {
		cost := Amounts{}
		counts := map[string]int64{string(f.kind): 1, string(f.kind) + ".cost": 1, string(f.kind) + ".flavor." + f.name: 1}
		if f.cpus > 0 {
			counts[CostCPU] = f.cpus
			a, err := NewAmount(f.memory, Gigabytes)
			if err != nil {
				return nil, err
			}
			cost[CostMemory] = a
		}
		for key, n := range counts {
			a, err := NewAmount(n, Count)
			if err != nil {
				return nil, err
			}
			cost[key] = a
		}
		out = append(out, Flavor{Name: f.name, Kind: f.kind, Cost: cost, State: FlavorReady})
	}
	return out, nil
}
