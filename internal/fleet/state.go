package fleet

import "slices"

// An Operation is what a task or a step does, in Photon's words.
type Operation string

// The operations that depend upon a state. Others exist (CREATE_TENANT,
// RESERVE_RESOURCE); tasks take any text.
const (
	StartVM       Operation = "START_VM"
	StopVM        Operation = "STOP_VM"
	RestartVM     Operation = "RESTART_VM"
	SuspendVM     Operation = "SUSPEND_VM"
	ResumeVM      Operation = "RESUME_VM"
	DeleteVM      Operation = "DELETE_VM"
	AttachISO     Operation = "ATTACH_ISO"
	DetachISO     Operation = "DETACH_ISO"
	CreateVMImage Operation = "CREATE_VM_IMAGE"
	GetMKSTicket  Operation = "GET_MKS_TICKET"

	AttachDisk Operation = "ATTACH_DISK"
	DetachDisk Operation = "DETACH_DISK"
	DeleteDisk Operation = "DELETE_DISK"

	SuspendHost      Operation = "SUSPEND_HOST"
	ResumeHost       Operation = "RESUME_HOST"
	EnterMaintenance Operation = "ENTER_MAINTENANCE_MODE"
	ExitMaintenance  Operation = "EXIT_MAINTENANCE_MODE"
	ProvisionHost    Operation = "PROVISION_HOST"
	DeleteHost       Operation = "DELETE_HOST"

	DeleteImage   Operation = "DELETE_IMAGE"
	DeleteFlavor  Operation = "DELETE_FLAVOR"
	DeleteNetwork Operation = "DELETE_NETWORK"
	DeleteZone    Operation = "DELETE_AVAILABILITYZONE"

	ResizeCluster   Operation = "RESIZE_CLUSTER"
	DeleteCluster   Operation = "DELETE_CLUSTER"
	MaintainCluster Operation = "TRIGGER_CLUSTER_MAINTENANCE"

	PauseSystem          Operation = "PAUSE_SYSTEM"
	PauseBackgroundTasks Operation = "PAUSE_BACKGROUND_TASKS"
	ResumeSystem         Operation = "RESUME_SYSTEM"
)

// edges says which states may follow which. A state may always follow itself.
type edges[S ~string] map[S][]S

func (e edges[S]) has(from, to S) bool {
	if _, known := e[from]; !known {
		return false
	}
	return from == to || slices.Contains(e[from], to)
}

// A rule says that an operation is allowed in some states, and leads to one
// when it has succeeded.
type rule[S ~string] struct {
	op   Operation
	from []S
	to   S // "": it stays what it was
}

// after applies the rules to what r is in. An operation without a rule is
// refused.
func after[S ~string](rules []rule[S], r Ref, from S, op Operation) (S, error) {
	for _, x := range rules {
		if x.op != op || !slices.Contains(x.from, from) {
			continue
		}
		if x.to == "" {
			return from, nil
		}
		return x.to, nil
	}
	return from, Refused(op, r, string(from))
}

// Refused is the error for an operation that a state does not allow.
func Refused(op Operation, r Ref, state string) *Error {
	return Errorf(StateError, "Invalid operation %s for %s in state %s", op, r, state)
}
