package wire

// A VM runs on a host, on behalf of a project.
type VM struct {
	ID            string            `json:"id"`
	Kind          string            `json:"kind"` // vm
	SelfLink      string            `json:"selfLink"`
	Name          string            `json:"name"`
	Flavor        string            `json:"flavor"` // its name
	State         string            `json:"state"`  // CREATING, STARTED, SUSPENDED, STOPPED, ERROR
	Cost          []QuotaLine       `json:"cost"`
	Tags          []string          `json:"tags"`
	Metadata      map[string]string `json:"metadata"`
	SourceImageID string            `json:"sourceImageId,omitempty"`
	Host          string            `json:"host,omitempty"`      // address
	Datastore     string            `json:"datastore,omitempty"` // ID
	AttachedDisks []AttachedDisk    `json:"attachedDisks"`
	AttachedISOs  []AttachedISO     `json:"attachedIsos"`
}

// An AttachedDisk is a disk of a VM.
type AttachedDisk struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Kind       string `json:"kind"` // ephemeral-disk, persistent-disk
	Flavor     string `json:"flavor"`
	State      string `json:"state"` // ATTACHED
	CapacityGB int64  `json:"capacityGb"`
	BootDisk   bool   `json:"bootDisk"`
}

// An AttachedISO is a CD image in a VM's drive.
type AttachedISO struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Kind string `json:"kind"` // iso
	Size int64  `json:"size"` // bytes
}

// Networks are the result of the task that asks for a VM's networks.
type Networks struct {
	NetworkConnections []Connection `json:"networkConnections"`
}

// A Connection is a network card of a VM.
type Connection struct {
	Network     string `json:"network"` // ID of the subnet, or name of the port group
	MACAddress  string `json:"macAddress"`
	IPAddress   string `json:"ipAddress"`
	Netmask     string `json:"netmask"`
	IsConnected string `json:"isConnected"` // True, False, Unknown
}
