package esx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"syscall"

	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/fleet"
)

// fail makes a fault that the package found out itself; verb adds the names.
func fail(k fleet.FaultKind, remedy, text string, args ...any) *fleet.Fault {
	return &fleet.Fault{Kind: k, Text: fmt.Sprintf(text, args...), Remedy: remedy}
}

// methodFault is the fault in an error that a host has answered with; nil where
// there is none.
func methodFault(err error) types.BaseMethodFault {
	var task *taskError
	if errors.As(err, &task) {
		return task.fault
	}
	var f types.AnyType
	if soap.IsSoapFault(err) {
		f = soap.ToSoapFault(err).VimFault()
	} else if soap.IsVimFault(err) {
		f = soap.ToVimFault(err)
	}
	if m, ok := f.(types.BaseMethodFault); ok {
		return m
	}
	if f == nil {
		return nil
	}
	// Decoded faults are values; their methods are those of pointers.
	p := reflect.New(reflect.TypeOf(f))
	p.Elem().Set(reflect.ValueOf(f))
	m, _ := p.Interface().(types.BaseMethodFault)
	return m
}

// is reports whether a host has answered with a fault of type F.
func is[F any](err error) bool {
	_, ok := any(methodFault(err)).(*F)
	return ok
}

// taskError is the error that a task ended with.
type taskError struct {
	fault   types.BaseMethodFault
	message string
}

func (e *taskError) Error() string { return text(e.fault, e.message) }

// text is what a host says of a fault, or, when it says nothing, its type.
func text(f types.BaseMethodFault, message string) string {
	if s, ok := f.(*types.SystemErrorFault); ok && s.Reason != "" {
		message = s.Reason
	}
	if f != nil && message == "" {
		for _, m := range f.GetMethodFault().FaultMessage {
			if m.Message != "" {
				message = m.Message
				break
			}
		}
	}
	if message == "" && f != nil {
		message = reflect.TypeOf(f).Elem().Name()
	}
	return strings.TrimRight(message, ".\n ")
}

// fault gives an error its kind and its names. It returns nil for nil, and the
// context's error once ctx has ended.
func (h *Host) fault(ctx context.Context, doing, object string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var out fleet.Fault
	var f *fleet.Fault
	switch m := methodFault(err); {
	case errors.As(err, &f):
		out = *f
	case m != nil:
		out = *answered(m, err)
	default:
		out = *network(err)
	}
	if out.Host == "" {
		out.Doing, out.Object, out.Host = doing, object, h.config.Address
	}
	if out.Cause == nil && f == nil {
		out.Cause = err
	}
	return &out
}

// message is what the host itself said in words.
func message(err error) string {
	var task *taskError
	if errors.As(err, &task) {
		return task.message
	}
	if soap.IsSoapFault(err) {
		return soap.ToSoapFault(err).String
	}
	return ""
}

// answered sorts the faults that a host answers with.
func answered(m types.BaseMethodFault, err error) *fleet.Fault {
	said := text(m, message(err))
	if f := answeredFile(m); f != nil {
		return f
	}
	switch x := m.(type) {
	case *types.InvalidLogin:
		return fail(fleet.BadCredentials, "register the host again with the right ones; after five wrong ones ESXi locks the account for 15 minutes", "user name or password are wrong")
	case *types.RestrictedVersion:
		return fail(fleet.Unsupported, "the free license only reads: give the host an evaluation or a paid one", "its license does not allow changes through the API")
	case *types.NotAuthenticated:
		return fail(fleet.Unreachable, "try again", "its session ended while it was used")
	case types.BaseNoPermission:
		return fail(fleet.BadCredentials, "give the user the role Administrator, or use root", "the user may not do that")
	case *types.HostAccessRestrictedToManagementServer:
		return fail(fleet.BadCredentials, "take it out of lockdown mode, or out of its vCenter", "only its vCenter may log in: it is in lockdown mode")
	case *types.ManagedObjectNotFound, *types.NotFound:
		return fail(fleet.Missing, "", "it is not there")
	case types.BaseInsufficientResourcesFault:
		return fail(fleet.NoSpace, "stop or move VMs, or use another host", "the host has not enough processor or memory left (%s)", said)
	case types.BaseResourceInUse, *types.TaskInProgress, *types.ConcurrentAccess:
		return fail(fleet.InUse, "try again in a minute", "something else works on it (%s)", said)
	case *types.InvalidPowerState:
		return fail(fleet.Conflict, "", "it is %s", powerWords[x.ExistingState])
	case *types.ToolsUnavailable:
		return fail(fleet.Unsupported, "install open-vm-tools in it, or switch it off hard", "VMware Tools do not run in it")
	case types.BaseInvalidState, *types.AlreadyExists, *types.DuplicateName, *types.AlreadyBeingManaged:
		return fail(fleet.Conflict, "", "its state does not allow that (%s)", said)
	case *types.NotSupported, *types.MethodNotFound, *types.NotImplemented, types.BaseVirtualHardwareCompatibilityIssue, types.BaseVmConfigFault, *types.UnsupportedGuest:
		return fail(fleet.Unsupported, "", "the host cannot do that (%s)", said)
	}
	return fail(fleet.Broken, "the host's own log says more: /var/log/hostd.log", "it says: %s", said)
}

// answeredFile sorts the faults about files; nil for others.
func answeredFile(m types.BaseMethodFault) *fleet.Fault {
	switch x := m.(type) {
	case *types.NoDiskSpace:
		return fail(fleet.NoSpace, "free some, or use another datastore", "datastore %s is full", x.Datastore)
	case *types.InsufficientStorageSpace, *types.InsufficientDisks:
		return fail(fleet.NoSpace, "free some, or use another datastore", "the datastore is full")
	case *types.FileNotFound:
		return fail(fleet.Missing, "", "%s is not there", x.File)
	case types.BaseInvalidDatastore:
		return fail(fleet.Missing, "", "there is no datastore %s", x.GetInvalidDatastore().Name)
	case *types.FileLocked:
		return fail(fleet.InUse, "stop the VM that uses it, or wait for the copy that does", "%s is in use", x.File)
	case *types.FileAlreadyExists:
		return fail(fleet.Conflict, "", "%s is there already", x.File)
	case *types.FileTooLarge, *types.FileNotWritable:
		return fail(fleet.Unsupported, "", "the datastore does not take %s", m.(types.BaseFileFault).GetFileFault().File)
	}
	return nil
}

var powerWords = map[types.VirtualMachinePowerState]string{
	types.VirtualMachinePowerStatePoweredOn:  "on",
	types.VirtualMachinePowerStatePoweredOff: "off",
	types.VirtualMachinePowerStateSuspended:  "suspended",
}

// network sorts the errors that are not answers.
func network(err error) *fleet.Fault {
	var u *untrusted
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &u):
		f := fail(fleet.Untrusted, "compare it with the one on the host's console (Support information), and register the host with it", "%s", u)
		if u.known {
			f.Remedy = "if the host was installed again or has got a new certificate, accept that; else something stands between"
		}
		f.Fingerprint = u.shown
		return f
	case errors.As(err, &dns):
		return fail(fleet.Unreachable, "correct the name, or use the address", "DNS does not know %s", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fail(fleet.Unreachable, "is the host up, and is hostd running?", "it refuses the connection")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fail(fleet.Unreachable, "is its management network connected, and is there a route to it from here?", "it cannot be reached")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fail(fleet.Unreachable, "is the host up, and does no firewall hold back TCP port 443?", "it does not answer")
	case lost(err):
		return fail(fleet.Unreachable, "it may be restarting", "it closed the connection before it answered")
	}
	return fail(fleet.Unreachable, "", "%v", err)
}

// lost reports whether a connection ended in the middle.
func lost(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}
