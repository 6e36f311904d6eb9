package fleet

import "errors"

// A FaultKind is what kind of failure a [Fault] is: what the controller can do
// about it depends on nothing else.
type FaultKind string

// The kinds of faults.
const (
	Missing        FaultKind = "not found"       // the host, the VM, the file is not there
	InUse          FaultKind = "in use"          // something holds it; it may succeed later
	NoSpace        FaultKind = "no space"        // datastore or memory is full; another host may do
	BadCredentials FaultKind = "bad credentials" // user or password are wrong, or may not do that
	Untrusted      FaultKind = "untrusted"       // the certificate is not the known one, or none is known yet
	Unreachable    FaultKind = "unreachable"     // nobody knows whether it was done; ask again
	Unsupported    FaultKind = "unsupported"     // the host can never do that: license, version, shape
	Conflict       FaultKind = "conflict"        // its state does not allow it: power state, maintenance
	Broken         FaultKind = "failed"          // the host says that it failed, for a reason of its own
)

// A Fault is why an adapter could not do what it was asked to.
type Fault struct {
	Kind   FaultKind
	Doing  string // "create", "power on", "copy"; after "cannot"
	Object string // "VM 4711", "[datastore1] x.vmdk"; may be empty
	Host   string // the address, as it was registered
	Text   string // what happened: "the datastore is full"
	Remedy string // what a person can do; may be empty
	Cause  error  // may be nil

	// Fingerprint is that of the certificate the host has shown, as
	// "SHA256:" and hexadecimal digits, when Kind is [Untrusted].
	Fingerprint string
}

// Error names the object, the host, what happened and the remedy.
func (f *Fault) Error() string {
	s := "cannot " + f.Doing
	if f.Object != "" {
		s += " " + f.Object
	}
	s += " on host " + f.Host + ": " + f.Text
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return s
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Cause }

// Passing reports whether the same call may succeed later without anybody
// having done anything.
func (f *Fault) Passing() bool { return f.Kind == Unreachable || f.Kind == InUse }

// Code is Photon's code for a fault.
func (f *Fault) Code() Code {
	switch f.Kind {
	case NoSpace:
		return NotEnoughDatastoreCapacity
	case BadCredentials:
		return InvalidLoginCredentials
	case Missing:
		return NoSuchResource
	case Unsupported:
		return InvalidOperation
	}
	return InternalError
}

// IsFault reports whether err is a [Fault] of a kind.
func IsFault(err error, k FaultKind) bool {
	var f *Fault
	return errors.As(err, &f) && f.Kind == k
}
