package wire

// A Host is a hypervisor. Its password is never sent.
type Host struct {
	ID               string            `json:"id"`
	Kind             string            `json:"kind"` // host
	SelfLink         string            `json:"selfLink"`
	Address          string            `json:"address"`
	Username         string            `json:"username"`
	AvailabilityZone string            `json:"availabilityZone,omitempty"` // ID
	Metadata         map[string]string `json:"metadata"`
	UsageTags        []string          `json:"usageTags"` // MGMT, CLOUD
	ESXVersion       string            `json:"esxVersion,omitempty"`
	State            string            `json:"state"`
	Datastores       []HostDatastore   `json:"datastores"`
	// What Photon Controller does not tell.
	Unreachable string `json:"unreachable,omitempty"` // why; empty: it answers
	Fingerprint string `json:"fingerprint,omitempty"` // of its certificate: SHA256:...
}

// A HostDatastore is a datastore of a host.
type HostDatastore struct {
	DatastoreID    string `json:"datastoreId"`
	MountPoint     string `json:"mountPoint"` // its name on the host
	ImageDatastore bool   `json:"imageDatastore"`
}

// A HostSpec asks for a host to be registered.
type HostSpec struct {
	Address          string            `json:"address"`
	Username         string            `json:"username"`
	Password         string            `json:"password"`
	UsageTags        []string          `json:"usageTags"`
	AvailabilityZone string            `json:"availabilityZone,omitempty"`
	Metadata         map[string]string `json:"metadata,omitempty"`
	// Fingerprint is of the certificate that the host must have; Photon Controller
	// has no such thing. Empty: the one that it shows first.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// An Image is a disk that VMs are copied from.
type Image struct {
	ID                  string         `json:"id"`
	Kind                string         `json:"kind"` // image
	SelfLink            string         `json:"selfLink"`
	Name                string         `json:"name"`
	Tags                []string       `json:"tags"`
	State               string         `json:"state"`
	Size                int64          `json:"size"`                // bytes
	ReplicationType     string         `json:"replicationType"`     // EAGER, ON_DEMAND
	ReplicationProgress string         `json:"replicationProgress"` // 50%
	SeedingProgress     string         `json:"seedingProgress"`
	Settings            []ImageSetting `json:"settings"`
}

// An ImageSetting is a part of a VM's configuration that comes with an image.
type ImageSetting struct {
	Name         string `json:"name"`
	DefaultValue string `json:"defaultValue"`
}
