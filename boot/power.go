package boot

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// A PowerKind is a way to switch a machine on and off.
type PowerKind string

// The ways to switch machines.
const (
	Redfish PowerKind = "redfish" // a management controller (BMC) that speaks Redfish (DMTF DSP0266)
	IPMI    PowerKind = "ipmi"    // one that speaks IPMI 2.0 over LAN (RMCP+)
	WOL     PowerKind = "wol"     // no controller: a magic packet, which can only switch on
	NoPower PowerKind = "none"    // somebody has to press the button
)

// A BMC says how a machine is switched on and off. Addr may be a template (see
// [ParsePowerAddr]), so that one entry is right for many machines. It holds
// no secret, only the names of files that do.
type BMC struct {
	Kind PowerKind // empty: not known, for what only holds defaults
	// Addr is a URL for Redfish (https://10.1.0.11), HOST or HOST:PORT for
	// IPMI, and not used for WOL.
	Addr         string
	User         string
	PasswordFile string // the password, or for WOL the six bytes of SecureOn
	// Redfish. At most one of Insecure (true), Fingerprint and CAFile is set;
	// none of them: the certificate must be signed by one that the system trusts.
	Insecure    *bool
	Fingerprint string // SHA-256 of its certificate, 64 lower-case hexadecimal digits
	CAFile      string // PEM
	System      string // ID of the machine where a controller has several
	// CipherSuite is of IPMI 2.0 (table 22-20): 3 or 17; 0: what the BMC takes.
	CipherSuite int
	// WOL. Interface is where the packet is sent; empty: where the machine's
	// network is. Broadcast is where to; invalid: 255.255.255.255.
	Interface string
	Broadcast netip.Addr
}

// AnyCertificate reports whether the BMC's certificate is not looked at.
func (b BMC) AnyCertificate() bool { return b.Insecure != nil && *b.Insecure }

// PowerKeys are the keys that the template of an address may use.
func PowerKeys() []string { return append([]string{"name"}, NameKeys()...) }

// Extend returns b with what over says laid over it, key by key. What is only
// meant for one kind, or for one address, goes with it: a certificate's
// fingerprint does not hold for another address.
func (b BMC) Extend(over BMC) BMC {
	if over.Kind != "" && (over.Kind != b.Kind || over.Addr != b.Addr) {
		kept := BMC{User: b.User, PasswordFile: b.PasswordFile, Insecure: b.Insecure, CAFile: b.CAFile, CipherSuite: b.CipherSuite}
		if over.Kind == WOL || b.Kind == WOL || over.Kind == NoPower {
			kept = BMC{} // one password is not the other
		}
		b = kept
		b.Kind, b.Addr = over.Kind, over.Addr
	}
	set := func(dst *string, v string) {
		if v != "" {
			*dst = v
		}
	}
	set(&b.User, over.User)
	set(&b.PasswordFile, over.PasswordFile)
	set(&b.System, over.System)
	set(&b.Interface, over.Interface)
	if over.Insecure != nil || over.Fingerprint != "" || over.CAFile != "" {
		b.Insecure, b.Fingerprint, b.CAFile = over.Insecure, over.Fingerprint, over.CAFile
	}
	if over.CipherSuite != 0 {
		b.CipherSuite = over.CipherSuite
	}
	if over.Broadcast.IsValid() {
		b.Broadcast = over.Broadcast
	}
	return b
}

// ParsePowerAddr checks the address of a management controller of a kind,
// trying out what is a template. Templates are those of [ParseName], with the
// key name (the machine's host name) besides.
func ParsePowerAddr(kind PowerKind, addr string) error {
	t, err := powerTemplate(addr)
	if err != nil {
		return err
	}
	_, err = renderPower(kind, t, map[string]string{
		"name": "node1", "serial": "serial123456", "mac": "52-54-00-12-34-56", "uuid": "00112233-4455-6677-8899-aabbccddeeff",
		"asset": "asset1234567", "product": "product12345", "manufacturer": "manufacturer",
	})
	return err
}

func powerTemplate(addr string) (*template.Template, error) {
	t, err := template.New("power").Option("missingkey=error").Parse(addr)
	if err != nil {
		return nil, fmt.Errorf("%q: %s", addr, strings.TrimPrefix(err.Error(), "template: power:1: "))
	}
	keys, err := nameKeys(t)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", addr, err)
	}
	for _, k := range keys {
		if !slices.Contains(PowerKeys(), k) {
			return nil, fmt.Errorf("%q: there is no %q; only %s can be used here", addr, k, strings.Join(PowerKeys(), ", "))
		}
	}
	return t, nil
}

// renderPower fills in a template and checks what comes out.
func renderPower(kind PowerKind, t *template.Template, values map[string]string) (string, error) {
	var b strings.Builder
	if err := t.Execute(&b, values); err != nil {
		return "", fmt.Errorf("%q cannot be made: %w", t.Root.String(), cause(err))
	}
	addr := b.String()
	if kind == IPMI {
		host, port := addr, "623"
		if h, p, err := net.SplitHostPort(addr); err == nil {
			host, port = h, p
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || !validHost(host) {
			return "", fmt.Errorf("%q is not the address of a BMC; write it as 10.1.0.11, bmc1.example.com or 10.1.0.11:623", addr)
		}
		return net.JoinHostPort(host, port), nil
	}
	u, err := url.Parse(addr)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || !validHost(u.Hostname()):
		return "", fmt.Errorf("%q is not the address of a BMC; write it as https://10.1.0.11", addr)
	case u.User != nil:
		return "", fmt.Errorf("the address of the BMC at %s holds a user or password; use the keys user and password_file", u.Host)
	case strings.Trim(u.Path, "/") != "" && strings.Trim(u.Path, "/") != "redfish/v1" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q has something after the host; Redfish is always at /redfish/v1, so write %s://%s", addr, u.Scheme, u.Host)
	}
	return u.Scheme + "://" + u.Host, nil
}

// validHost reports whether s is an IP address or a host name.
func validHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return len(s) <= 253 && hostName.MatchString(strings.ToLower(s))
}

// Render returns b for one machine, with its address filled in: for Redfish a
// URL without a path, for IPMI HOST:PORT. What the machine has not told is an
// error.
func (b BMC) Render(name string, inv Inventory) (BMC, error) {
	if b.Kind != Redfish && b.Kind != IPMI {
		return b, nil
	}
	t, err := powerTemplate(b.Addr)
	if err != nil {
		return BMC{}, err
	}
	values := map[string]string{"name": name, "serial": label(inv.Serial), "uuid": label(inv.UUID), "asset": label(inv.Asset),
		"product": label(inv.Product), "manufacturer": label(inv.Manufacturer)}
	if !inv.MAC.IsZero() {
		values["mac"] = inv.MAC.Hyphens()
	}
	keys, err := nameKeys(t)
	if err != nil {
		return BMC{}, err
	}
	for _, k := range keys {
		if values[k] == "" {
			return BMC{}, fmt.Errorf("%q needs the %s, which the machine has not told", b.Addr, k)
		}
	}
	b.Addr, err = renderPower(b.Kind, t, values)
	return b, err
}
