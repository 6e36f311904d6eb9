package wire

// A Cluster is a set of VMs that do something together. Clients before 1.1 call its
// workers slaves, and the SDK has its own spelling of the project: both are sent.
type Cluster struct {
	ID                 string            `json:"id"`
	Kind               string            `json:"kind"` // cluster
	SelfLink           string            `json:"selfLink"`
	Name               string            `json:"name"`
	Type               string            `json:"type"`  // SWARM, KUBERNETES, MESOS
	State              string            `json:"state"` // CREATING, RESIZING, READY, PENDING_DELETE, ERROR
	ProjectID          string            `json:"projectId"`
	ProjectIDOfSDK     string            `json:"projectID"`
	WorkerCount        int               `json:"workerCount"`
	SlaveCount         int               `json:"slaveCount"`
	MasterVMFlavorName string            `json:"masterVmFlavorName"`
	OtherVMFlavorName  string            `json:"otherVmFlavorName"`
	ImageID            string            `json:"imageId"`
	ErrorReason        string            `json:"errorReason,omitempty"`
	ExtendedProperties map[string]string `json:"extendedProperties"`
}

// A ClusterSpec asks for a cluster.
type ClusterSpec struct {
	Name                     string            `json:"name"`
	Type                     string            `json:"type"`
	VMFlavor                 string            `json:"vmFlavor,omitempty"`
	DiskFlavor               string            `json:"diskFlavor,omitempty"`
	VMNetworkID              string            `json:"vmNetworkId,omitempty"`
	WorkerCount              *int              `json:"workerCount,omitempty"`
	SlaveCount               *int              `json:"slaveCount,omitempty"` // in its place, before 1.1
	WorkerBatchExpansionSize int               `json:"workerBatchExpansionSize,omitempty"`
	SlaveBatchExpansionSize  int               `json:"slaveBatchExpansionSize,omitempty"`
	ExtendedProperties       map[string]string `json:"extendedProperties"`
}

// A ClusterResize asks for so many workers.
type ClusterResize struct {
	NewWorkerCount *int `json:"newWorkerCount,omitempty"`
	NewSlaveCount  *int `json:"newSlaveCount,omitempty"` // in its place, before 1.1
}
