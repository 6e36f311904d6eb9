package wire

// A Deployment is the server itself; there is one.
type Deployment struct {
	ID                      string                 `json:"id"`
	Kind                    string                 `json:"kind"` // deployment
	SelfLink                string                 `json:"selfLink"`
	State                   string                 `json:"state"`
	ImageDatastores         []string               `json:"imageDatastores"`
	UseImageDatastoreForVMs bool                   `json:"useImageDatastoreForVms"`
	Auth                    DeploymentAuth         `json:"auth"`
	Stats                   Stats                  `json:"stats"`
	NetworkConfiguration    NetworkConfiguration   `json:"networkConfiguration"`
	LoadBalancerEnabled     bool                   `json:"loadBalancerEnabled"`
	MigrationStatus         MigrationStatus        `json:"migrationStatus"`
	ClusterConfigurations   []ClusterConfiguration `json:"clusterConfigurations"`
}

// DeploymentAuth says whether a token is needed, and whom all tenants inherit.
type DeploymentAuth struct {
	Enabled        bool     `json:"enabled"`
	SecurityGroups []string `json:"securityGroups"`
}

// Stats says whether the server sends statistics somewhere. It does not: they are
// fetched from it.
type Stats struct {
	Enabled bool `json:"enabled"`
}

// NetworkConfiguration says whether networks are virtual.
type NetworkConfiguration struct {
	SDNEnabled bool `json:"sdnEnabled"`
}

// MigrationStatus is how far an upgrade from another deployment is. There is
// none.
type MigrationStatus struct {
	CompletedDataMigrationCycles int `json:"completedDataMigrationCycles"`
	DataMigrationCycleProgress   int `json:"dataMigrationCycleProgress"`
	DataMigrationCycleSize       int `json:"dataMigrationCycleSize"`
	VIBsUploaded                 int `json:"vibsUploaded"`
	VIBsUploading                int `json:"vibsUploading"`
}

// A ClusterConfiguration is a type of clusters that is enabled.
type ClusterConfiguration struct {
	ID      string `json:"id,omitempty"`
	Kind    string `json:"kind,omitempty"` // clusterConfig
	Type    string `json:"type"`
	ImageID string `json:"imageId,omitempty"`
}
