package power

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/common"
	"github.com/stmcginnis/gofish/redfish"

	"bootd/boot"
)

// rf is a session with a BMC that speaks Redfish.
type rf struct {
	bmc    boot.BMC
	client *gofish.APIClient
	wire   *wire
	ctx    context.Context // of the order; gofish has it too
}

// openRedfish logs in: with a session, or, at a BMC that has none, with the
// password in each request.
func openRedfish(ctx context.Context, b boot.BMC) (controller, error) {
	password, err := readPassword(b.PasswordFile)
	if err != nil {
		return nil, err
	}
	w, err := newWire(b)
	if err != nil {
		return nil, err
	}
	config := gofish.ClientConfig{Endpoint: b.Addr, Username: b.User, Password: password, HTTPClient: w.client()}
	r := &rf{bmc: b, wire: w, ctx: ctx}
	r.client, err = gofish.ConnectContext(ctx, config)
	if err != nil && w.lacksSessions(err) {
		config.BasicAuth = true
		r.client, err = gofish.ConnectContext(ctx, config)
	}
	if err != nil {
		w.close()
		return nil, r.fault(err)
	}
	return r, nil
}

// close logs out, even when there is no time for anything else: a BMC has few
// sessions, and keeps those that are left open for half an hour.
func (r *rf) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), 5*time.Second)
	defer cancel()
	if s, err := r.client.GetSession(); err == nil && s.ID != "" {
		req, err := http.NewRequestWithContext(ctx, http.MethodDelete, r.bmc.Addr+s.ID, nil)
		if err == nil {
			req.Header.Set("X-Auth-Token", s.Token)
			if resp, err := r.wire.client().Do(req); err == nil {
				_ = resp.Body.Close()
			}
		}
	}
	r.wire.close()
}

// system is the machine, as it is now.
func (r *rf) system() (*redfish.ComputerSystem, error) {
	list, err := r.client.Service.Systems()
	if err != nil {
		return nil, r.fault(err)
	}
	var ids []string
	for _, s := range list {
		if s.ID == r.bmc.System || r.bmc.System == "" && len(list) == 1 {
			return s, nil
		}
		ids = append(ids, s.ID)
	}
	slices.Sort(ids)
	switch {
	case len(ids) == 0:
		return nil, fault(Unsupported, "shows no machine (its Systems are empty)", "may the user see it? is this the BMC of a chassis, not of a machine?")
	case r.bmc.System == "":
		return nil, fault(Setup, fmt.Sprintf("has %d machines: %s", len(ids), strings.Join(ids, ", ")), "add system: ID to power")
	}
	return nil, fault(Setup, fmt.Sprintf("has no machine %q, only %s", r.bmc.System, strings.Join(ids, ", ")), "correct system under power")
}

func (r *rf) state(context.Context) (State, error) {
	s, err := r.system()
	if err != nil {
		return Unknown, err
	}
	switch s.PowerState {
	case redfish.OnPowerState:
		return IsOn, nil
	case redfish.OffPowerState:
		return IsOff, nil
	}
	return Unknown, nil // PoweringOn, PoweringOff, Paused, null
}

// resets are the reset types that do an action, the best first (DSP2046,
// ResetType).
var resets = map[Action][]redfish.ResetType{
	On:       {redfish.OnResetType, redfish.ForceOnResetType, redfish.PushPowerButtonResetType},
	Off:      {redfish.ForceOffResetType},
	Shutdown: {redfish.GracefulShutdownResetType, redfish.PushPowerButtonResetType},
	Cycle:    {redfish.ForceRestartResetType, redfish.PowerCycleResetType},
}

func (r *rf) set(_ context.Context, a Action, was State) error {
	s, err := r.system()
	if err != nil {
		return err
	}
	if a == Cycle && was != IsOn {
		a = On
	}
	kind, ok := choose(resets[a], s.SupportedResetTypes)
	if !ok {
		var can []string
		for _, t := range s.SupportedResetTypes {
			can = append(can, string(t))
		}
		return fault(Unsupported, "cannot do that: it only offers "+strings.Join(can, ", "), "its firmware may need an update")
	}
	if err := s.Reset(kind); err != nil {
		return r.fault(err)
	}
	return nil
}

// choose is the first of wanted that is offered. A BMC that does not say what
// it offers is taken at its word when it is asked.
func choose(wanted, offered []redfish.ResetType) (redfish.ResetType, bool) {
	for _, t := range wanted {
		if len(offered) == 0 || slices.Contains(offered, t) {
			return t, true
		}
	}
	return "", false
}

func (r *rf) bootFrom(_ context.Context, d Device, persistent bool, f Firmware) error {
	s, err := r.system()
	if err != nil {
		return err
	}
	b := redfish.Boot{BootSourceOverrideEnabled: redfish.OnceBootSourceOverrideEnabled}
	if persistent {
		b.BootSourceOverrideEnabled = redfish.ContinuousBootSourceOverrideEnabled
	}
	b.BootSourceOverrideTarget = map[Device]redfish.BootSourceOverrideTarget{
		PXE: redfish.PxeBootSourceOverrideTarget, Disk: redfish.HddBootSourceOverrideTarget,
		BIOS: redfish.BiosSetupBootSourceOverrideTarget, HTTP: redfish.UefiHTTPBootSourceOverrideTarget,
	}[d]
	// A BMC that boots in the wrong mode is worse than one that is not told:
	// only what the machine itself has shown is said, and only to a BMC that
	// has a mode and stands on the other one.
	mode := map[Firmware]redfish.BootSourceOverrideMode{LegacyBIOS: redfish.LegacyBootSourceOverrideMode, UEFI: redfish.UEFIBootSourceOverrideMode}[f]
	if d == HTTP {
		mode = redfish.UEFIBootSourceOverrideMode
	}
	if now := s.Boot.BootSourceOverrideMode; now != "" && now != mode {
		b.BootSourceOverrideMode = mode
	}
	if err := s.SetBoot(b); err != nil {
		return r.fault(err)
	}
	return nil
}

// fault tells what an error of gofish means.
func (r *rf) fault(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	port := "TCP port 443"
	if u, bad := url.Parse(r.bmc.Addr); bad == nil {
		port = "TCP port " + cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	status, broken := r.wire.last()
	switch {
	case broken != nil:
		var cert *certificateError
		switch {
		case errors.As(broken, &cert):
			e = cert.fault(r.bmc.Fingerprint != "")
		case strings.Contains(broken.Error(), "server gave HTTP response to HTTPS client"), strings.Contains(broken.Error(), "first record does not look like a TLS handshake"):
			e = fault(Other, "answers without TLS", "is the port right? http:// and insecure: true would send the password in the clear")
		case strings.Contains(broken.Error(), "tls: "):
			e = fault(Other, "cannot agree on TLS: "+broken.Error(), "its firmware may need an update")
		default:
			e = network(broken, port)
		}
	case status >= 400:
		e = statusFault(status, err, r.bmc.User)
	}
	if e == nil {
		e = fault(Other, "does not answer as Redfish does: "+clip(err.Error()), "is the address that of the BMC's web server? its firmware may need an update")
	}
	e.Cause = err
	return e
}

// statusFault tells what an answer that is an error means.
func statusFault(status int, err error, user string) *Error {
	says := ""
	var api *common.Error
	if errors.As(err, &api) {
		says = said(api)
	}
	with := func(text string) string {
		if says == "" {
			return text
		}
		return text + ": " + says
	}
	switch status {
	case http.StatusUnauthorized:
		return fault(Login, fmt.Sprintf("does not take user %s and its password (401)", user), "correct user and password file; too many wrong tries may have locked the user for some minutes")
	case http.StatusForbidden:
		return fault(Denied, with(fmt.Sprintf("does not let user %s do that (403)", user)), "give the user the role Operator or Administrator")
	case http.StatusNotFound:
		return fault(Unsupported, with("has no such thing (404)"), "does it speak Redfish? otherwise use ipmi:")
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusConflict, http.StatusPreconditionFailed:
		return fault(Unsupported, with(fmt.Sprintf("refuses that (%d)", status)), "")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return fault(NoAnswer, with(fmt.Sprintf("is busy (%d)", status)), "try again in a minute; it may be starting, or have too many sessions")
	}
	return fault(Other, with(fmt.Sprintf("failed (%d)", status)), "its event log may say why")
}

// said is what a BMC says for people (DSP0266, error responses).
func said(e *common.Error) string {
	var parts []string
	for _, x := range e.ExtendedInfos {
		if m := strings.TrimSpace(x.Message); m != "" && !slices.Contains(parts, m) {
			parts = append(parts, m)
		}
	}
	if len(parts) == 0 && !strings.HasPrefix(strings.TrimSpace(e.Message), "<") { // a web page
		parts = append(parts, strings.TrimSpace(e.Message))
	}
	return clip(strings.TrimRight(strings.Join(parts, " "), "."))
}

// clip keeps what another machine says short and printable.
func clip(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return ' '
		}
		return c
	}, s)
	if r := []rune(s); len(r) > 300 {
		s = string(r[:297]) + "..."
	}
	return s
}

// wire is the connection to a BMC. It remembers what happened last, which
// gofish does not always pass on.
type wire struct {
	base *http.Transport
	mu   sync.Mutex
	code int
	err  error
}

// maxAnswer bounds what a BMC may answer, in bytes.
const maxAnswer = 8 << 20

func newWire(b boot.BMC) (*wire, error) {
	roots := (*x509.CertPool)(nil)
	if b.CAFile != "" {
		pem, err := os.ReadFile(b.CAFile)
		if err != nil {
			return nil, fault(Setup, "cannot be known: cannot read the CA file: "+err.Error(), "correct ca_file under power")
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
			return nil, fault(Setup, fmt.Sprintf("cannot be known: there is no certificate in %s", b.CAFile), "it must be PEM")
		}
	}
	u, err := url.Parse(b.Addr)
	if err != nil {
		return nil, fault(Setup, "has no usable address: "+err.Error(), "")
	}
	return &wire{base: &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 8 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 20 * time.Second,
		MaxIdleConnsPerHost:   1,
		TLSClientConfig: &tls.Config{
			// VerifyConnection below does it, so that the error has the fingerprint.
			InsecureSkipVerify: true,
			VerifyConnection:   func(s tls.ConnectionState) error { return verify(b, u.Hostname(), roots, s) },
		},
	}}, nil
}

// verify checks a BMC's certificate as the configuration says.
func verify(b boot.BMC, host string, roots *x509.CertPool, s tls.ConnectionState) error {
	leaf := s.PeerCertificates[0]
	sum := sha256.Sum256(leaf.Raw)
	print := hex.EncodeToString(sum[:])
	switch {
	case b.AnyCertificate():
		return nil
	case b.Fingerprint != "":
		if subtle.ConstantTimeCompare([]byte(print), []byte(b.Fingerprint)) != 1 {
			return &certificateError{print: print}
		}
		return nil
	}
	rest := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		rest.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, Intermediates: rest}); err != nil {
		return &certificateError{print, err}
	}
	return nil
}

// A certificateError is a certificate that is not the known one.
type certificateError struct {
	print string
	err   error // nil: the fingerprint differs
}

func (e *certificateError) Error() string { return "certificate " + e.print }

func (e *certificateError) fault(pinned bool) *Error {
	if pinned {
		return fault(Certificate, "has another certificate than the one that is pinned: "+e.print,
			"if it was renewed, put that into fingerprint; if not, somebody may be in between")
	}
	why := strings.TrimPrefix(e.err.Error(), "x509: ")
	return fault(Certificate, fmt.Sprintf("has a certificate that is not trusted (%s), with the fingerprint %s", why, e.print),
		"compare it with what the BMC itself shows, then add fingerprint: "+e.print+" to power; or ca_file, or insecure: true")
}

func (w *wire) client() *http.Client {
	return &http.Client{Transport: w, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		// The session's token goes along, so it stays with this BMC.
		if len(via) > 3 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// RoundTrip implements [http.RoundTripper].
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Close = false // gofish wants a connection, and a handshake, for each request
	resp, err := w.base.RoundTrip(req)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.code, w.err = 0, err
	if err != nil {
		return nil, err
	}
	w.code = resp.StatusCode
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// last is how the last request ended: with a status, or an error.
func (w *wire) last() (status int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.code, w.err
}

// lacksSessions reports whether an error of connecting says that the BMC has no
// sessions.
func (w *wire) lacksSessions(err error) bool {
	status, broken := w.last()
	if broken != nil {
		return false
	}
	return strings.Contains(err.Error(), "no target provided") ||
		status == http.StatusNotImplemented || status == http.StatusMethodNotAllowed
}

func (w *wire) close() { w.base.CloseIdleConnections() }
