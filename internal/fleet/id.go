package fleet

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
)

// IDs are distinct types so that a host cannot be passed for a VM. Each is a
// UUID in lower case, but for a [DeploymentID], and a [DatastoreID], which is
// derived from what the datastore is.
type (
	TenantID     string
	TicketID     string
	ProjectID    string
	FlavorID     string
	ImageID      string
	HostID       string
	DatastoreID  string
	VMID         string
	DiskID       string
	ISOID        string
	SubnetID     string
	ClusterID    string
	ZoneID       string
	TaskID       string
	DeploymentID string
)

// DefaultDeployment is the one deployment that there is.
const DefaultDeployment DeploymentID = "default-deployment"

// NewID makes an ID of 16 random bytes: a UUID of version 4 (RFC 9562, 5.4).
func NewID[T ~string](random [16]byte) T {
	return T(uuid(random, 4))
}

// DeriveID makes the ID that always belongs to name among those made for
// parent: a UUID of version 5 (RFC 9562, 5.5) with the parent's text in the
// place of the name space. A step that makes several entities derives their IDs
// from its task, so that it finds them when it is repeated.
func DeriveID[T ~string](parent, name string) T {
	h := sha1.New()
	fmt.Fprintf(h, "%d:%s%s", len(parent), parent, name)
	return T(uuid([16]byte(h.Sum(nil)), 5))
}

func uuid(b [16]byte, version byte) string {
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
	x := hex.EncodeToString(b[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// IsUUID reports whether s has the form of IDs. Whatever comes from outside and
// becomes part of a path on a datastore must pass it.
func IsUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') {
			return false
		} else if !dash && !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// A Kind is what sort of thing an entity is, as tasks name it.
type Kind string

// The kinds.
const (
	KindTenant         Kind = "tenant"
	KindResourceTicket Kind = "resource-ticket"
	KindProject        Kind = "project"
	KindFlavor         Kind = "flavor"
	KindImage          Kind = "image"
	KindHost           Kind = "host"
	KindDatastore      Kind = "datastore"
	KindVM             Kind = "vm"
	KindPersistentDisk Kind = "persistent-disk"
	KindEphemeralDisk  Kind = "ephemeral-disk"
	KindISO            Kind = "iso"
	KindSubnet         Kind = "subnet"
	KindCluster        Kind = "cluster"
	KindZone           Kind = "availability-zone"
	KindTask           Kind = "task"
	KindDeployment     Kind = "deployment"
	KindPortGroup      Kind = "portGroup"        // only in affinities
	AffinityZone       Kind = "availabilityZone" // KindZone, in affinities
)

// A Ref names an entity of any kind.
type Ref struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"`
}

// String is kind/ID, as Photon's messages have it.
func (r Ref) String() string { return string(r.Kind) + "/" + r.ID }
