package wire

// A VMSpec asks for a VM.
type VMSpec struct {
	Name          string            `json:"name"`
	Flavor        string            `json:"flavor"`
	SourceImageID string            `json:"sourceImageId,omitempty"`
	AttachedDisks []DiskSpec        `json:"attachedDisks,omitempty"`
	Affinities    []Entity          `json:"affinities,omitempty"`
	Tags          []string          `json:"tags,omitempty"`
	Environment   map[string]string `json:"environment,omitempty"`
	Subnets       []string          `json:"subnets,omitempty"`
	Networks      []string          `json:"networks,omitempty"` // subnets, before 1.0

	// bootd's own: a VM without an image, which boots from the network, and the
	// hardware addresses of its network cards, where they are to be known ones.
	Diskless     bool     `json:"diskless,omitempty"`
	MACAddresses []string `json:"macAddresses,omitempty"`
}

// A DiskSpec is a disk of a VM that is asked for.
type DiskSpec struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	Flavor     string `json:"flavor"`
	CapacityGB int64  `json:"capacityGb,omitempty"`
	BootDisk   bool   `json:"bootDisk"`
}

// A DiskOperation is what attach_disk and detach_disk are about.
type DiskOperation struct {
	DiskID string `json:"diskId"`
}

// An Operation is a verb on a VM, as in the first version.
type Operation struct {
	Operation string `json:"operation"` // START_VM
}

// Metadata is what people keep with a VM.
type Metadata struct {
	Metadata map[string]string `json:"metadata"`
}

// A Tag is one that is added.
type Tag struct {
	Value string `json:"value"`
}

// An ImageSpec asks for an image of a VM.
type ImageSpec struct {
	Name            string `json:"name"`
	ReplicationType string `json:"replicationType"` // EAGER or ON_DEMAND
}
