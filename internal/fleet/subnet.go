package fleet

import "slices"

// A Subnet is a network that VMs are put into: port groups by their names,
// which any number of hosts may have. Photon called it network before 1.0.
type Subnet struct {
	ID          SubnetID    `json:"id"`
	Name        string      `json:"name"` // others may have it too
	Description string      `json:"description,omitempty"`
	State       SubnetState `json:"state"`
	PortGroups  []string    `json:"portGroups"`
	Tags        []string    `json:"tags,omitempty"`
	Default     bool        `json:"default,omitzero"` // for VMs that ask for none
}

// A SubnetState is the life of a subnet.
type SubnetState string

// The states of subnets.
const (
	SubnetCreating      SubnetState = "CREATING"
	SubnetReady         SubnetState = "READY"
	SubnetPendingDelete SubnetState = "PENDING_DELETE" // VMs are in it still
	SubnetError         SubnetState = "ERROR"
	SubnetDeleted       SubnetState = "DELETED"
)

var subnetEdges = edges[SubnetState]{
	SubnetCreating:      {SubnetReady, SubnetError},
	SubnetReady:         {SubnetPendingDelete, SubnetDeleted, SubnetError},
	SubnetPendingDelete: {SubnetDeleted, SubnetError},
	SubnetError:         {SubnetPendingDelete, SubnetDeleted},
	SubnetDeleted:       {},
}

// CanBecome reports whether a subnet may go from one state to another.
func (s SubnetState) CanBecome(to SubnetState) bool { return subnetEdges.has(s, to) }

// Deletable is nil, or the error of deleting the subnet.
func (s Subnet) Deletable() error { return s.in(SubnetReady, SubnetError) }

// Usable is nil, or the error of putting a VM into the subnet.
func (s Subnet) Usable() error { return s.in(SubnetReady) }

func (s Subnet) in(states ...SubnetState) error {
	if slices.Contains(states, s.State) {
		return nil
	}
	return Errorf(InvalidNetworkState, "Network %s is in state %s", s.ID, s.State)
}

// Check is nil, or tells what is wrong with what a client gave.
func (s Subnet) Check() error {
	var m Mistakes
	m.SubnetName("name", s.Name)
	if len(s.PortGroups) == 0 {
		m.Add("portGroups", "size must be between 1 and 2147483647", "[]")
	}
	for i, p := range s.PortGroups {
		if p == "" || slices.Index(s.PortGroups, p) != i {
			m.Add("portGroups", "must be different names", s.PortGroups)
			break
		}
	}
	return m.Err()
}

// CheckPortGroups is nil, or the error for port groups that no host has, or
// that another subnet has already.
func (s Subnet) CheckPortGroups(onHosts []string, subnets []Subnet) error {
	for _, p := range s.PortGroups {
		if !slices.Contains(onHosts, p) {
			return Errorf(PortGroupsDoNotExist, "Port group %s does not exist on any host.", p)
		}
		for _, o := range subnets {
			if o.ID != s.ID && o.State != SubnetDeleted && slices.Contains(o.PortGroups, p) {
				return Errorf(PortGroupAlreadyAddedToSubnet, "Port group %s is already added to subnet %s", p, o.ID)
			}
		}
	}
	return nil
}
