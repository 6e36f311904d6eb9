package power

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/bmc-toolbox/bmclib/v2/providers/ipmitool"

	"bootd/boot"
)

// maxIPMIPassword is the longest password of IPMI 2.0 (section 22.30).
const maxIPMIPassword = 20

// ipmi is a BMC that is talked to with the program ipmitool, one run of it for
// each question: there is no session to keep.
type ipmi struct {
	conn  *ipmitool.Conn
	first string // what logging in told of the power; empty: it has been used
}

// openIPMI looks whether a BMC is there, and logs in once.
func (s *Switches) openIPMI(ctx context.Context, b boot.BMC) (controller, error) {
	password, err := readPassword(b.PasswordFile)
	if err != nil {
		return nil, err
	}
	if len(password) > maxIPMIPassword {
		return nil, fault(Setup, fmt.Sprintf("cannot be logged in to: the password in %s has %d bytes, and IPMI takes %d", b.PasswordFile, len(password), maxIPMIPassword), "set a shorter one")
	}
	host, port, err := net.SplitHostPort(b.Addr)
	if err != nil {
		return nil, fault(Setup, "has no usable address: "+err.Error(), "")
	}
	// The program cannot tell a host that is off from a wrong password in good
	// time; this can.
	if err := probeIPMI(ctx, b.Addr); err != nil {
		return nil, err
	}
	suites := []int{b.CipherSuite}
	if b.CipherSuite == 0 {
		suites = []int{17, 3} // HMAC-SHA256, then what every BMC once had
	}
	for i, suite := range suites {
		options := []ipmitool.Option{ipmitool.WithPort(port), ipmitool.WithCipherSuite(strconv.Itoa(suite))}
		if s.config.IPMITool != "" {
			options = append(options, ipmitool.WithIpmitoolPath(s.config.IPMITool))
		}
		// The library joins host and port without brackets.
		if strings.Contains(host, ":") {
			host = "[" + strings.Trim(host, "[]") + "]"
		}
		conn, err := ipmitool.New(host, b.User, password, options...)
		if err != nil {
			return nil, fault(Program, "needs the program ipmitool, which is not here", "install it (apt install ipmitool), or use redfish: if the BMC speaks it")
		}
		first, err := conn.PowerStateGet(ctx)
		switch {
		case err == nil:
			return &ipmi{conn, first}, nil
		case i+1 < len(suites) && noSuite(err.Error()) && ctx.Err() == nil:
			continue
		}
		return nil, ipmiFault(ctx, err, b.User)
	}
	return nil, fault(Unsupported, "takes no cipher suite that is safe", "")
}

func (c *ipmi) close() {}

func (c *ipmi) state(ctx context.Context) (State, error) {
	text := c.first
	if c.first = ""; text == "" {
		var err error
		if text, err = c.conn.PowerStateGet(ctx); err != nil {
			return Unknown, ipmiFault(ctx, err, "")
		}
	}
	switch text = strings.ToLower(text); {
	case strings.Contains(text, "power is on"):
		return IsOn, nil
	case strings.Contains(text, "power is off"):
		return IsOff, nil
	}
	return Unknown, nil
}

func (c *ipmi) set(ctx context.Context, a Action, was State) error {
	word := string(a)
	switch {
	case a == Cycle && was != IsOn:
		word = "on" // a machine that is off cannot be cycled
	case a == Shutdown:
		word = "soft"
	}
	_, err := c.conn.PowerSet(ctx, word)
	if err != nil {
		return ipmiFault(ctx, err, "")
	}
	return nil
}

func (c *ipmi) bootFrom(ctx context.Context, d Device, persistent bool, f Firmware) error {
	if d == HTTP {
		return fault(Unsupported, "cannot be told to boot by HTTP: IPMI has no word for that", "use redfish: if the BMC speaks it, or --boot pxe")
	}
	if _, err := c.conn.BootDeviceSet(ctx, string(d), persistent, f == UEFI); err != nil {
		return ipmiFault(ctx, err, "")
	}
	return nil
}

func noSuite(text string) bool {
	return strings.Contains(text, "no matching cipher suite") || strings.Contains(text, "invalid authentication algorithm") ||
		strings.Contains(text, "invalid integrity algorithm") || strings.Contains(text, "no cipher suite match")
}

// ipmiFault tells what ipmitool's words mean.
func ipmiFault(ctx context.Context, err error, user string) *Error {
	text := strings.ToLower(err.Error())
	who := ""
	if user != "" {
		who = " " + user
	}
	var e *Error
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	switch {
	case ctx.Err() != nil:
		e = fault(NoAnswer, "does not answer any more", "try again; if it stays so, reset the BMC")
	case noSuite(text):
		e = fault(Unsupported, "takes none of the cipher suites 17 and 3", "allow one of them in the BMC; with 3 only, cipher_suite: 3 saves a try")
	case has("unauthorized name", "invalid user name"):
		e = fault(Login, "knows no user"+who+" for IPMI over LAN", "correct user, or let it log in by LAN in the BMC's settings")
	case has("hmac is invalid", "invalid password", "incorrect password", "rakp 2", "rakp 4"):
		e = fault(Login, "does not take the password of its user"+who, "correct the password file; many BMCs have one password for the web and another for IPMI")
	case has("level exceeds limit", "invalid role", "unauthorized role", "set session privilege level"):
		e = fault(Denied, "does not let its user"+who+" be administrator", "give the user the privilege ADMINISTRATOR for the LAN channel")
	case has("insufficient privilege"):
		e = fault(Denied, "does not let its user do that", "give the user the privilege OPERATOR or more for the LAN channel")
	case has("insufficient resources", "node busy", "out of sessions"):
		e = fault(NoAnswer, "has no session free", "close others, or try again in a minute")
	case has("invalid command", "not supported", "invalid data field", "parameter out of range", "not supported in present state"):
		e = fault(Unsupported, "cannot do that: "+lastLine(err.Error()), "")
	case has("unable to establish"): // it says no more of a wrong password either
		e = fault(Login, fmt.Sprintf("is there, but lets user%s make no session", who),
			"correct user and password file (many BMCs have one password for the web and another for IPMI), and allow the user IPMI over LAN as administrator; a BMC that takes old ciphers only needs cipher_suite: 3")
	default:
		e = fault(Other, "failed: "+lastLine(err.Error()), "")
	}
	e.Cause = err
	return e
}

// lastLine is the last thing that ipmitool says, without how it ended.
func lastLine(s string) string {
	last := ""
	for l := range strings.Lines(s) {
		l, _, _ = strings.Cut(strings.TrimSpace(l), ": exit status")
		if l != "" && !strings.HasPrefix(l, "exit status") {
			last = l
		}
	}
	return clip(last)
}

// authCapabilities is the question that every BMC answers without a session:
// Get Channel Authentication Capabilities (IPMI 2.0 section 22.13) in an RMCP
// packet of IPMI 1.5 (section 13.6).
var authCapabilities = []byte{
	0x06, 0x00, 0xff, 0x07, // RMCP, no acknowledgement, class IPMI
	0x00, 0, 0, 0, 0, 0, 0, 0, 0, 9, // no authentication, sequence, session, length
	0x20, 0x18, 0xc8, // to the BMC, application, checksum
	0x81, 0x00, 0x38, 0x8e, 0x04, 0xb5, // from remote software, command, this channel with 2.0 data, administrator, checksum
}

// probeIPMI looks whether something answers to IPMI.
func probeIPMI(ctx context.Context, addr string) error {
	const tries, patience = 4, 1500 * time.Millisecond
	_, port, _ := net.SplitHostPort(addr)
	port = "UDP port " + port
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", addr)
	if err != nil {
		return cmpErr(network(err, port), err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 512)
	for range tries {
		if _, err := conn.Write(authCapabilities); err != nil {
			return cmpErr(network(err, port), err)
		}
		if ctx.Err() == nil {
			_ = conn.SetReadDeadline(time.Now().Add(patience)) // a failure shows at the read
		}
		n, err := conn.Read(buf)
		switch {
		case err == nil && n > 4 && buf[0] == 0x06 && bytes.Equal(buf[2:4], authCapabilities[2:4]):
			return nil
		case err == nil:
			return fault(Other, "answers, but not with IPMI", "is the address right, and is it the BMC's own?")
		}
		var timeout net.Error
		if ctx.Err() != nil || !errors.As(err, &timeout) || !timeout.Timeout() {
			return cmpErr(network(err, port), err)
		}
	}
	return network(context.DeadlineExceeded, port)
}

// cmpErr is e, or err when there is none.
func cmpErr(e *Error, err error) error {
	if e != nil {
		return e
	}
	return err
}
