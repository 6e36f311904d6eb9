package wire

import "encoding/json"

// A QuotaLine is an amount of something: a cost, a limit or what is used. Units
// are GB, MB, KB, B and COUNT.
type QuotaLine struct {
	Key   string      `json:"key"`
	Value json.Number `json:"value"`
	Unit  string      `json:"unit"`
}

// A Named is an entity within another one.
type Named struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// A SecurityGroup is who may use something.
type SecurityGroup struct {
	Name      string `json:"name"`
	Inherited bool   `json:"inherited"`
}

// A Tenant owns resource tickets and projects.
type Tenant struct {
	ID              string          `json:"id"`
	Kind            string          `json:"kind"` // tenant
	SelfLink        string          `json:"selfLink"`
	Name            string          `json:"name"`
	Tags            []string        `json:"tags"`
	ResourceTickets []Named         `json:"resourceTickets"`
	Projects        []Named         `json:"projects"`
	SecurityGroups  []SecurityGroup `json:"securityGroups"`
}

// A TenantSpec asks for a tenant.
type TenantSpec struct {
	Name           string   `json:"name"`
	SecurityGroups []string `json:"securityGroups,omitempty"`
}

// A ResourceTicket is what a tenant may use.
type ResourceTicket struct {
	ID       string      `json:"id"`
	Kind     string      `json:"kind"` // resource-ticket
	SelfLink string      `json:"selfLink"`
	Name     string      `json:"name"`
	Tags     []string    `json:"tags"`
	TenantID string      `json:"tenantId"`
	Limits   []QuotaLine `json:"limits"`
	Usage    []QuotaLine `json:"usage"`
}

// A ResourceTicketSpec asks for a resource ticket, or for a part of one with this
// name.
type ResourceTicketSpec struct {
	Name   string      `json:"name"`
	Limits []QuotaLine `json:"limits"`
}

// A Project is where VMs, disks and clusters are.
type Project struct {
	ID             string          `json:"id"`
	Kind           string          `json:"kind"` // project
	SelfLink       string          `json:"selfLink"`
	Name           string          `json:"name"`
	Tags           []string        `json:"tags"`
	ResourceTicket ProjectTicket   `json:"resourceTicket"`
	SecurityGroups []SecurityGroup `json:"securityGroups"`
}

// A ProjectTicket is the part of a resource ticket that a project has.
type ProjectTicket struct {
	TenantTicketID   string      `json:"tenantTicketId"`
	TenantTicketName string      `json:"tenantTicketName"`
	Limits           []QuotaLine `json:"limits"`
	Usage            []QuotaLine `json:"usage"`
}

// A ProjectSpec asks for a project.
type ProjectSpec struct {
	Name           string              `json:"name"`
	ResourceTicket *ResourceTicketSpec `json:"resourceTicket"`
	SecurityGroups []string            `json:"securityGroups,omitempty"`
}

// A Flavor is what a VM or a disk costs.
type Flavor struct {
	ID       string      `json:"id"`
	Kind     string      `json:"kind"` // vm, ephemeral-disk, persistent-disk
	SelfLink string      `json:"selfLink"`
	Name     string      `json:"name"`
	Tags     []string    `json:"tags"`
	State    string      `json:"state"`
	Cost     []QuotaLine `json:"cost"`
}

// A FlavorSpec asks for a flavor.
type FlavorSpec struct {
	Name string      `json:"name"`
	Kind string      `json:"kind"`
	Cost []QuotaLine `json:"cost"`
}
