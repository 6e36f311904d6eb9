package fleet

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// A Host is a hypervisor.
type Host struct {
	ID       HostID            `json:"id"`
	Address  string            `json:"address"` // IP address or name, of one host only; "host:443" is its HTTPS port
	Username string            `json:"username"`
	Password string            `json:"password"`
	Zone     ZoneID            `json:"zone,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Tags     []UsageTag        `json:"tags"`
	State    HostState         `json:"state"`
	// Fingerprint of its certificate that a person has accepted, as
	// "SHA256:" and hexadecimal digits.
	Fingerprint string     `json:"fingerprint,omitempty"`
	Health      HostHealth `json:"health"`
	Facts       HostFacts  `json:"facts"` // as it last said
}

// A UsageTag is what a host is for.
type UsageTag string

// The usage tags.
const (
	Management UsageTag = "MGMT"  // control plane; without CLOUD it takes no tenant's VMs
	Cloud      UsageTag = "CLOUD" // tenants' VMs
)

// HostHealth is whether a host answers, apart from its state, which is what
// people want of it.
type HostHealth struct {
	Reachable bool      `json:"reachable"`
	Since     time.Time `json:"since,omitzero"`
	Why       string    `json:"why,omitempty"` // it does not answer
}

// A HostState is what people want of a host.
type HostState string

// The states of hosts.
const (
	HostCreating       HostState = "CREATING"
	HostNotProvisioned HostState = "NOT_PROVISIONED" // registered, not connected
	HostReady          HostState = "READY"
	HostSuspended      HostState = "SUSPENDED"   // takes no new VMs; those that are there run on
	HostMaintenance    HostState = "MAINTENANCE" // has no VMs
	HostError          HostState = "ERROR"
	HostDeleted        HostState = "DELETED"
)

var hostEdges = edges[HostState]{
	HostCreating:       {HostNotProvisioned, HostReady, HostError, HostDeleted},
	HostNotProvisioned: {HostReady, HostError, HostDeleted},
	HostReady:          {HostSuspended, HostError},
	HostSuspended:      {HostReady, HostMaintenance, HostError},
	HostMaintenance:    {HostReady, HostNotProvisioned, HostError, HostDeleted},
	HostError:          {HostReady, HostNotProvisioned, HostDeleted},
	HostDeleted:        {},
}

var hostRules = []rule[HostState]{
	{SuspendHost, []HostState{HostReady, HostSuspended}, HostSuspended},
	{ResumeHost, []HostState{HostSuspended}, HostReady},
	{EnterMaintenance, []HostState{HostSuspended, HostMaintenance}, HostMaintenance},
	{ExitMaintenance, []HostState{HostMaintenance}, HostReady},
	{ProvisionHost, []HostState{HostCreating, HostNotProvisioned, HostError}, HostReady},
	{DeleteHost, []HostState{HostNotProvisioned, HostMaintenance, HostError}, HostDeleted},
}

// CanBecome reports whether a host may go from one state to another.
func (s HostState) CanBecome(to HostState) bool { return hostEdges.has(s, to) }

// After is the state that a verb leads to, or an error with code [StateError].
// For [EnterMaintenance] ask [Host.Empty] too.
func (h Host) After(op Operation) (HostState, error) {
	return after(hostRules, Ref{KindHost, string(h.ID)}, h.State, op)
}

// GoneAfter is how long a host must not have answered to be removed with what is
// on it: longer than it takes to start.
const GoneAfter = 10 * time.Minute

// Gone reports whether a host has not answered for [GoneAfter].
func (h Host) Gone(now time.Time) bool {
	return !h.Health.Reachable && !h.Health.Since.IsZero() && now.Sub(h.Health.Since) >= GoneAfter
}

// Removable is nil, or the error of [DeleteHost], with code [StateError]. A host
// that is gone need only be suspended: it cannot be emptied any more.
func (h Host) Removable(now time.Time) error {
	_, err := h.After(DeleteHost)
	if err == nil || h.State == HostSuspended && h.Gone(now) {
		return nil
	}
	refused := Refused(DeleteHost, Ref{KindHost, string(h.ID)}, string(h.State))
	switch {
	case h.State != HostReady && h.State != HostSuspended:
	case h.Health.Reachable || h.Health.Since.IsZero():
		refused.Message += "; suspend it, delete its VMs, and let it enter maintenance first"
	case h.Gone(now):
		refused.Message += "; it does not answer: suspend it, and delete it then with what is on it"
	default:
		refused.Message += fmt.Sprintf("; it has not answered since %s: after %s it can be deleted with what is on it, once it is suspended",
			h.Health.Since.UTC().Format(time.RFC3339), GoneAfter)
	}
	return refused
}

// Empty is nil, or the error for a host with so many VMs.
func (h Host) Empty(vms int) error {
	if vms == 0 {
		return nil
	}
	remedy := "delete them first"
	if !h.Health.Reachable {
		remedy = "it does not answer: delete it, and they are lost with it"
	}
	return Errorf(HostHasVMs, "Host #%s has %d VM(s) on it; %s", h.ID, vms, remedy)
}

// Takes reports whether a host may take tenants' VMs: ready, there for them,
// known to answer, not in a maintenance that somebody began on the host itself,
// and willing to change anything.
func (h Host) Takes() bool {
	return h.State == HostReady && h.Has(Cloud) && h.Health.Reachable && !h.Facts.Maintenance && !h.Facts.ReadOnly
}

// Has reports whether a host has a usage tag.
func (h Host) Has(t UsageTag) bool {
	for _, u := range h.Tags {
		if u == t {
			return true
		}
	}
	return false
}

// Check is nil, or tells what is wrong with what a client gave.
func (h Host) Check() error {
	var m Mistakes
	m.hostAddress("address", h.Address)
	m.Required("username", h.Username)
	m.Required("password", h.Password)
	if len(h.Tags) == 0 {
		m.Add("usageTags", "may not be null", "null")
	}
	for _, t := range h.Tags {
		OneOf(&m, "usageTags", t, Management, Cloud)
	}
	return m.Err()
}

// hostAddress is Address with a port that may follow.
func (m *Mistakes) hostAddress(path, s string) {
	if host, port, ok := strings.Cut(s, ":"); ok && !strings.Contains(port, ":") {
		if _, err := netip.ParseAddrPort("127.0.0.1:" + port); err == nil {
			s = host
		}
	} else if ap, err := netip.ParseAddrPort(s); err == nil {
		s = ap.Addr().String()
	}
	m.Address(path, s)
}

// AllowedDatastores is the metadata key that limits the datastores VMs go to:
// names, with commas.
const AllowedDatastores = "ALLOWED_DATASTORES"

// Allows reports whether VMs may go to a datastore, by its name on the host.
func (h Host) Allows(datastore string) bool {
	list := h.Metadata[AllowedDatastores]
	if strings.TrimSpace(list) == "" {
		return true
	}
	for _, d := range strings.Split(list, ",") {
		if d = strings.TrimSpace(d); d == "*" || d == datastore {
			return true
		}
	}
	return false
}

// A Datastore is where disks are. Several hosts may mount one; two hosts may
// call different ones the same.
type Datastore struct {
	ID       DatastoreID       `json:"id"`
	Type     DatastoreType     `json:"type"`
	Tags     []string          `json:"tags,omitempty"` // its type is one always
	Capacity int64             `json:"capacity"`       // bytes
	Free     int64             `json:"free"`
	Mounts   map[HostID]string `json:"mounts"`          // its name on each host
	Images   bool              `json:"images,omitzero"` // it holds images
}

// A DatastoreType is what a datastore is made of.
type DatastoreType string

// The types of datastores.
const (
	LocalVMFS  DatastoreType = "LOCAL_VMFS"
	SharedVMFS DatastoreType = "SHARED_VMFS"
	NFS3       DatastoreType = "NFS_3"
	NFS41      DatastoreType = "NFS_41"
	VSAN       DatastoreType = "VSAN"
	Other      DatastoreType = "OTHER"
)

// DatastoreIDOf is the ID of the datastore with a URL such as
// "ds:///vmfs/volumes/5e3.../", which is the same on all hosts that mount it.
func DatastoreIDOf(url string) DatastoreID {
	return DeriveID[DatastoreID]("datastore", strings.TrimRight(url, "/"))
}
