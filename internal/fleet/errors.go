package fleet

import (
	"errors"
	"fmt"
	"maps"
)

// A Code is what went wrong, in Photon Controller's words, which scripts match.
type Code string

// The codes that bootd gives. Their spelling is Photon's, "Unfullfillable" too.
const (
	InternalError                  Code = "InternalError"
	TooManyRequests                Code = "TooManyRequests"
	OutOfThreadPoolWorker          Code = "OutOfThreadPoolWorker"
	MissingAuthToken               Code = "MissingAuthToken"
	InvalidAuthToken               Code = "InvalidAuthToken"
	ExpiredAuthToken               Code = "ExpiredAuthToken"
	MalformedAuthToken             Code = "MalformedAuthToken"
	AccessForbidden                Code = "AccessForbidden"
	SystemPaused                   Code = "SystemPaused"
	NotFound                       Code = "NotFound" // tenants, projects, tasks
	VMNotFound                     Code = "VmNotFound"
	DiskNotFound                   Code = "DiskNotFound"
	ImageNotFound                  Code = "ImageNotFound"
	FlavorNotFound                 Code = "FlavorNotFound"
	ResourceTicketNotFound         Code = "ResourceTicketNotFound"
	HostNotFound                   Code = "HostNotFound"
	DatastoreNotFound              Code = "DatastoreNotFound"
	NetworkNotFound                Code = "NetworkNotFound"
	PortGroupNotFound              Code = "PortGroupNotFound"
	AvailabilityZoneNotFound       Code = "AvailabilityZoneNotFound"
	ClusterNotFound                Code = "ClusterNotFound"
	ClusterTypeNotConfigured       Code = "ClusterTypeNotConfigured"
	DeploymentNotFound             Code = "DeploymentNotFound"
	PageExpired                    Code = "PageExpired"
	QuotaError                     Code = "QuotaError"
	StateError                     Code = "StateError"
	PlaceVMError                   Code = "PlaceVmError"
	InvalidFlavor                  Code = "InvalidFlavor"
	InvalidFlavorSpecification     Code = "InvalidFlavorSpecification"
	InvalidFlavorState             Code = "InvalidFlavorState"
	InvalidAvailabilityZoneState   Code = "InvalidAvailabilityZoneState"
	ISOAlreadyAttached             Code = "IsoAlreadyAttached"
	NoISOAttached                  Code = "NoIsoAttached"
	ISOUploadError                 Code = "IsoUploadError"
	ContainerNotEmpty              Code = "ContainerNotEmpty"
	ConcurrentTask                 Code = "ConcurrentTask"
	NameTaken                      Code = "NameTaken"
	InvalidEntity                  Code = "InvalidEntity"
	InvalidJSON                    Code = "InvalidJson"
	InsufficientCapacity           Code = "InsufficientCapacity"
	NoSuchResource                 Code = "NoSuchResource"
	NoConstraintMatchingDatastore  Code = "NoConstraintMatchingDatastore"
	NotEnoughCPUResource           Code = "NotEnoughCpuResource"
	NotEnoughMemoryResource        Code = "NotEnoughMemoryResource"
	NotEnoughDatastoreCapacity     Code = "NotEnoughDatastoreCapacity"
	UnfulfillableAffinities        Code = "UnfullfillableAffinities"
	UnfulfillableDiskAffinities    Code = "UnfullfillableDiskAffinities"
	InvalidVMState                 Code = "InvalidVmState"
	InvalidHostState               Code = "InvalidHostState"
	InvalidOVA                     Code = "InvalidOva"
	InvalidVMDKFormat              Code = "InvalidVmdkFormat"
	InvalidOperation               Code = "InvalidOperation"
	ImageUploadError               Code = "ImageUploadError"
	UnsupportedImageFileType       Code = "UnsupportedImageFileType"
	UnsupportedDiskController      Code = "UnsupportedDiskController"
	InvalidImageState              Code = "InvalidImageState"
	InvalidImageDatastoreSet       Code = "InvalidImageDatastoreSet"
	InvalidResourceTicketSubdivide Code = "InvalidResourceTicketSubdivide"
	SpecInvalid                    Code = "SpecInvalid"
	HostHasVMs                     Code = "HostHasVms"
	HostAvailabilityZoneAlreadySet Code = "HostAvailabilityZoneAlreadySet"
	DuplicateHost                  Code = "DuplicateHost"
	InvalidLoginCredentials        Code = "InvalidLoginCredentials"
	IPAddressInUse                 Code = "IpAddressInUse"
	PersistentDiskAttached         Code = "PersistentDiskAttached"
	InvalidQueryParams             Code = "InvalidQueryParams"
	InvalidPageSize                Code = "InvalidPageSize"
	InvalidAuthConfig              Code = "InvalidAuthConfig"
	InvalidSecurityGroupFormat     Code = "InvalidSecurityGroupFormat"
	SecurityGroupsAlreadyInherited Code = "SecurityGroupsAlreadyInherited"
	InvalidNetworkState            Code = "InvalidNetworkState"
	PortGroupAlreadyAddedToSubnet  Code = "PortGroupAlreadyAddedToSubnet"
	PortGroupsDoNotExist           Code = "PortGroupsDoNotExist"
	ClusterTypeAlreadyConfigured   Code = "ClusterTypeAlreadyConfigured"
)

// Status is the HTTP status that goes with a code. Those not listed are the
// client's mistakes: 400.
func (c Code) Status() int {
	switch c {
	case InternalError:
		return 500
	case OutOfThreadPoolWorker:
		return 503
	case TooManyRequests:
		return 429
	case MissingAuthToken, InvalidAuthToken, ExpiredAuthToken:
		return 401
	case AccessForbidden, SystemPaused:
		return 403
	case NotFound, VMNotFound, DiskNotFound, ImageNotFound, FlavorNotFound, ResourceTicketNotFound, HostNotFound,
		DatastoreNotFound, NetworkNotFound, PortGroupNotFound, AvailabilityZoneNotFound, ClusterNotFound,
		ClusterTypeNotConfigured, DeploymentNotFound, PageExpired:
		return 404
	}
	return 400
}

// An Error is what a client is told. It is kept as it is in the steps of tasks.
type Error struct {
	Code    Code              `json:"code"`
	Message string            `json:"message"`
	Data    map[string]string `json:"data,omitempty"`
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// With returns the error with one more datum.
func (e *Error) With(key, value string) *Error {
	out := *e
	if out.Data = maps.Clone(e.Data); out.Data == nil {
		out.Data = map[string]string{}
	}
	out.Data[key] = value
	return &out
}

// Errorf makes an [Error].
func Errorf(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

// CodeOf is the code of the [Error] or [Fault] in err; InternalError where there
// is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	var f *Fault
	if errors.As(err, &f) {
		return f.Code()
	}
	return InternalError
}

// UnknownEntity is the error for an ID that nothing has.
func UnknownEntity(r Ref) *Error {
	switch r.Kind {
	case KindTenant:
		return Errorf(NotFound, "Tenant %s not found", r.ID)
	case KindProject:
		return Errorf(NotFound, "Project %s not found", r.ID)
	case KindTask:
		return Errorf(NotFound, "Task %s not found", r.ID)
	case KindResourceTicket:
		return Errorf(ResourceTicketNotFound, "Resource ticket %s not found", r.ID)
	case KindFlavor:
		return Errorf(FlavorNotFound, "Flavor %s not found", r.ID)
	case KindImage:
		return Errorf(ImageNotFound, "Image id '%s' not found", r.ID)
	case KindHost:
		return Errorf(HostNotFound, "Host #%s not found", r.ID)
	case KindDatastore:
		return Errorf(DatastoreNotFound, "Datastore #%s not found", r.ID)
	case KindVM:
		return Errorf(VMNotFound, "VM %s not found", r.ID)
	case KindPersistentDisk, KindEphemeralDisk:
		return Errorf(DiskNotFound, "Disk %s#%s not found", r.Kind, r.ID)
	case KindSubnet:
		return Errorf(NetworkNotFound, "Network %s not found", r.ID)
	case KindPortGroup:
		return Errorf(PortGroupNotFound, "PortGroup %s not found", r.ID)
	case KindCluster:
		return Errorf(ClusterNotFound, "Cluster with id %s not found", r.ID)
	case KindZone:
		return Errorf(AvailabilityZoneNotFound, "AvailabilityZone %s not found", r.ID)
	case KindDeployment:
		return Errorf(DeploymentNotFound, "Deployment #%s not found", r.ID)
	}
	return Errorf(NotFound, "%s %s not found", r.Kind, r.ID)
}

// Taken is the error for a name that another one has.
func Taken(k Kind, name string) *Error {
	words := map[Kind]string{KindTenant: "Tenant", KindProject: "Project", KindResourceTicket: "Resource Ticket", KindFlavor: "Flavor"}
	word, ok := words[k]
	if !ok {
		word = string(k)
	}
	return Errorf(NameTaken, "%s name '%s' already taken", word, name)
}
