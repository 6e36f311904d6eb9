package fleet

import "strings"

// A Tenant owns resource tickets and projects.
type Tenant struct {
	ID             TenantID        `json:"id"`
	Name           string          `json:"name"` // of one tenant only
	Tags           []string        `json:"tags,omitempty"`
	SecurityGroups []SecurityGroup `json:"securityGroups,omitempty"`
}

// A SecurityGroup says who may use a tenant or a project.
type SecurityGroup struct {
	Name      string `json:"name"`
	Inherited bool   `json:"inherited"` // from what is above: it stays when the own ones are set
}

// A ResourceTicket is what a tenant may use in all; projects carve their quota
// out of one.
type ResourceTicket struct {
	ID     TicketID `json:"id"`
	Tenant TenantID `json:"tenant"`
	Name   string   `json:"name"` // of one ticket of the tenant only
	Tags   []string `json:"tags,omitempty"`
	Quota  Quota    `json:"quota"`
}

// A Project is where VMs, disks and clusters are.
type Project struct {
	ID             ProjectID       `json:"id"`
	Tenant         TenantID        `json:"tenant"`
	Ticket         TicketID        `json:"ticket"` // of the tenant, which Quota was carved out of
	Name           string          `json:"name"`   // of one project of the tenant only
	Tags           []string        `json:"tags,omitempty"`
	Quota          Quota           `json:"quota"`
	SecurityGroups []SecurityGroup `json:"securityGroups,omitempty"`
}

// Check is nil, or tells what is wrong with what a client gave.
func (t Tenant) Check() error {
	var m Mistakes
	m.Name("name", t.Name)
	return m.Err()
}

// Check is nil, or tells what is wrong with what a client gave.
func (t ResourceTicket) Check() error {
	var m Mistakes
	m.Name("name", t.Name)
	m.Limits("limits", t.Quota.Limits)
	return m.Err()
}

// Check is nil, or tells what is wrong with what a client gave; that wanted can
// be carved out of the ticket [Quota.Carve] tells.
func (p Project) Check(wanted Amounts) error {
	var m Mistakes
	m.Name("name", p.Name)
	m.Limits("resourceTicket.limits", wanted)
	return m.Err()
}

// NotEmpty is the error for a tenant with projects, or a project with what is
// named.
func NotEmpty(r Ref, what string) *Error {
	return Errorf(ContainerNotEmpty, "Container not empty: %s: %s (%s)", r.Kind, r.ID, what)
}

// CheckGroups is nil, or tells which of some names is not that of a security
// group: a domain, a backslash, a name.
func CheckGroups(names []string) error {
	for _, n := range names {
		domain, group, ok := strings.Cut(n, `\`)
		if !ok || domain == "" || group == "" || strings.Contains(group, `\`) {
			return Errorf(InvalidSecurityGroupFormat, `The security group %q is not written as DOMAIN\GROUP`, n)
		}
	}
	return nil
}

// Groups are own security groups, given by name, after those inherited from
// above. Again are the names among own that are inherited anyway: a warning
// with code [SecurityGroupsAlreadyInherited].
func Groups(above []SecurityGroup, own []string) (all []SecurityGroup, again []string) {
	seen := map[string]bool{}
	for _, g := range above {
		if !seen[g.Name] {
			seen[g.Name] = true
			all = append(all, SecurityGroup{g.Name, true})
		}
	}
	inherited := len(all)
	for _, n := range own {
		switch {
		case !seen[n]:
			seen[n] = true
			all = append(all, SecurityGroup{n, false})
		case containsGroup(all[:inherited], n):
			again = append(again, n)
		}
	}
	return all, again
}

func containsGroup(groups []SecurityGroup, name string) bool {
	for _, g := range groups {
		if g.Name == name {
			return true
		}
	}
	return false
}

// An AvailabilityZone is a set of hosts that may fail together.
type AvailabilityZone struct {
	ID    ZoneID    `json:"id"`
	Name  string    `json:"name"` // others may have it too
	State ZoneState `json:"state"`
}

// A ZoneState is the life of a zone.
type ZoneState string

// The states of zones.
const (
	ZoneCreating      ZoneState = "CREATING"
	ZoneReady         ZoneState = "READY"
	ZonePendingDelete ZoneState = "PENDING_DELETE" // hosts are in it still
	ZoneError         ZoneState = "ERROR"
	ZoneDeleted       ZoneState = "DELETED"
)

var zoneEdges = edges[ZoneState]{
	ZoneCreating:      {ZoneReady, ZoneError},
	ZoneReady:         {ZonePendingDelete, ZoneDeleted, ZoneError},
	ZonePendingDelete: {ZoneDeleted, ZoneError},
	ZoneError:         {ZonePendingDelete, ZoneDeleted},
	ZoneDeleted:       {},
}

// CanBecome reports whether a zone may go from one state to another.
func (s ZoneState) CanBecome(to ZoneState) bool { return zoneEdges.has(s, to) }

// Deletable is nil, or the error of deleting the zone.
func (z AvailabilityZone) Deletable() error { return z.usable(ZoneReady, ZoneError) }

// Usable is nil, or the error of putting a host or a VM into the zone.
func (z AvailabilityZone) Usable() error { return z.usable(ZoneReady) }

func (z AvailabilityZone) usable(in ...ZoneState) error {
	for _, s := range in {
		if z.State == s {
			return nil
		}
	}
	return Errorf(InvalidAvailabilityZoneState, "AvailabilityZone %s is in state %s", z.ID, z.State)
}

// Check is nil, or tells what is wrong with what a client gave.
func (z AvailabilityZone) Check() error {
	var m Mistakes
	m.Name("name", z.Name)
	return m.Err()
}
