package power

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"bootd/boot"
)

// A Reason is what kind of failure an [Error] is.
type Reason string

// The reasons.
const (
	NoBMC       Reason = "no BMC"      // none is configured
	Setup       Reason = "setup"       // what is configured cannot be used: a password file, a certificate file
	Program     Reason = "program"     // ipmitool is missing
	DNS         Reason = "DNS"         // the name has no address
	Refused     Reason = "refused"     // nothing listens there
	NoAnswer    Reason = "no answer"   // or too late
	Certificate Reason = "certificate" // it is not the known one
	Login       Reason = "login"       // user or password are wrong
	Denied      Reason = "denied"      // the user may not do that
	Unsupported Reason = "unsupported" // the BMC cannot do that
	Stuck       Reason = "stuck"       // the order was taken, and nothing happened
	Other       Reason = "other"
)

// An Error says why an order for a machine failed.
type Error struct {
	Machine string
	BMC     string // "BMC https://10.1.0.11 (redfish)"; empty: there is none
	Reason  Reason
	Doing   string // "switch on", "switch off", ...
	Text    string // what failed: "refuses the connection"
	Remedy  string // may be empty
	Cause   error  // may be nil
}

// Error names the machine, the BMC, what failed and the remedy.
func (e *Error) Error() string {
	s := "cannot " + e.Doing + " " + e.Machine + ": "
	if e.BMC != "" {
		s += e.BMC + " "
	}
	s += e.Text
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// fault makes an error without the names, which [named] adds.
func fault(r Reason, text, remedy string) *Error {
	return &Error{Reason: r, Text: text, Remedy: remedy}
}

func reason(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return Other
}

// named makes err an [Error] about a machine.
func named(err error, t Target, a Action) error {
	var e *Error
	if !errors.As(err, &e) {
		e = fault(Other, "failed: "+err.Error(), "")
		e.Cause = err
	}
	out := *e
	out.Machine = t.Machine
	out.Doing = map[Action]string{On: "switch on", Off: "switch off", Shutdown: "shut down", Cycle: "power-cycle", status: "ask for the power of"}[a]
	if k := t.BMC.Kind; k == boot.Redfish || k == boot.IPMI {
		out.BMC = fmt.Sprintf("BMC %s (%s)", t.BMC.Addr, k)
	}
	return &out
}

// network tells of an error of the network or returns nil.
func network(err error, port string) *Error {
	var dns *net.DNSError
	var timeout net.Error
	var e *Error
	switch {
	case errors.As(err, &dns) && dns.IsTimeout:
		e = fault(DNS, fmt.Sprintf("is not found: no answer from DNS for %s", dns.Name), "is the DNS server up? write the address instead of the name")
	case errors.As(err, &dns):
		e = fault(DNS, fmt.Sprintf("is not found: DNS knows no %s", dns.Name), "correct the name, or write the address instead")
	case errors.Is(err, syscall.ECONNREFUSED):
		e = fault(Refused, "refuses the connection", "is the service switched on in the BMC, and is it at "+port+"?")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		e = fault(NoAnswer, "cannot be reached: "+sysText(err), "is its network port connected, and is there a route to it from here?")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e = fault(NoAnswer, "does not answer", "is the address right, does the BMC have power, and does no firewall hold back "+port+"?")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		e = fault(NoAnswer, "closed the connection before it answered", "try again; if it stays so, reset the BMC")
	default:
		return nil
	}
	e.Cause = err
	return e
}

// sysText is what the system says of an error, without the addresses.
func sysText(err error) string {
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		return sys.Err.Error()
	}
	var no syscall.Errno
	errors.As(err, &no)
	return cmp.Or(no.Error(), err.Error())
}
