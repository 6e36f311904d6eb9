// Package powertest is a BMC for tests that speaks Redfish: a server that keeps
// to the specification (DSP0266) and is strict about it in what it takes, with
// the machine's power behind it. It is safe for concurrent use.
package powertest

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"
)

// A BMC is a management controller with one or more machines. Set its fields
// before the first request.
type BMC struct {
	User, Password string
	Systems        []string      // IDs; default "1"
	Resets         []string      // reset types that are offered; nil: not told, all are taken
	Targets        []string      // boot targets that are taken; nil: Pxe, Hdd, BiosSetup, UefiHttp
	NoSessions     bool          // only HTTP Basic authentication
	ReadOnly       bool          // the user may only look
	Delay          time.Duration // how long the machine takes to follow
	Deaf           bool          // orders are taken, and nothing happens

	mu       sync.Mutex
	machines map[string]*machine
	sessions map[string]string // token to ID
	count    int
	orders   []string
}

type machine struct {
	on      bool
	change  time.Time // when it becomes what is wanted
	wanted  bool
	version int
	enabled string
	target  string
	mode    string
}

// Start serves b with TLS and a certificate that nobody has signed.
func (b *BMC) Start() *httptest.Server {
	b.prepare()
	return httptest.NewTLSServer(b)
}

// StartPlain serves b without TLS.
func (b *BMC) StartPlain() *httptest.Server {
	b.prepare()
	return httptest.NewServer(b)
}

func (b *BMC) prepare() {
	if len(b.Systems) == 0 {
		b.Systems = []string{"1"}
	}
	if b.Targets == nil {
		b.Targets = []string{"Pxe", "Hdd", "BiosSetup", "UefiHttp"}
	}
	b.machines, b.sessions = map[string]*machine{}, map[string]string{}
	for _, id := range b.Systems {
		b.machines[id] = &machine{enabled: "Disabled", target: "None", mode: "Legacy"}
	}
}

// Set switches a machine by its button.
func (b *BMC) Set(id string, on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.machines[id].on, b.machines[id].wanted = on, on
}

// On reports whether a machine is on.
func (b *BMC) On(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.machines[id].now()
}

// Boot tells the boot override of a machine: "Once Pxe Legacy".
func (b *BMC) Boot(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.machines[id]
	return m.enabled + " " + m.target + " " + m.mode
}

// Seen lists what was ordered: "1 ForceOff".
func (b *BMC) Seen() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.orders)
}

// Open counts the sessions that nobody has closed.
func (b *BMC) Open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sessions)
}

func (m *machine) now() bool {
	if !m.change.IsZero() && !time.Now().Before(m.change) {
		m.on, m.change = m.wanted, time.Time{}
	}
	return m.on
}

type object = map[string]any

func link(path string) object { return object{"@odata.id": path} }

const sessionsPath = "/redfish/v1/SessionService/Sessions"

// ServeHTTP implements [http.Handler].
func (b *BMC) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.Header().Set("OData-Version", "4.0")
	w.Header().Set("Cache-Control", "no-cache")
	path := strings.TrimSuffix(r.URL.Path, "/")
	switch {
	case path == "/redfish/v1" && r.Method == http.MethodGet: // without authentication (section 13.3.1)
		b.root(w)
		return
	case path == sessionsPath && r.Method == http.MethodPost && !b.NoSessions:
		b.login(w, r)
		return
	}
	if !b.known(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="BMC"`)
		fail(w, http.StatusUnauthorized, "Base.1.8.NoValidSession", "There is no valid session established with the implementation.")
		return
	}
	system, action := "", ""
	if rest, ok := strings.CutPrefix(path, "/redfish/v1/Systems/"); ok {
		system, action, _ = strings.Cut(rest, "/")
	}
	m := b.machines[system]
	switch {
	case path == "/redfish/v1/Systems" && r.Method == http.MethodGet:
		var members []object
		for _, id := range b.Systems {
			members = append(members, link("/redfish/v1/Systems/"+id))
		}
		reply(w, http.StatusOK, object{"@odata.id": path, "@odata.type": "#ComputerSystemCollection.ComputerSystemCollection",
			"Name": "Systems", "Members": members, "Members@odata.count": len(members)})
	case m != nil && action == "" && r.Method == http.MethodGet:
		b.show(w, system, m)
	case m != nil && action == "" && r.Method == http.MethodPatch:
		b.patch(w, r, m)
	case m != nil && action == "Actions/ComputerSystem.Reset" && r.Method == http.MethodPost:
		b.reset(w, r, system, m)
	case strings.HasPrefix(path, sessionsPath+"/") && r.Method == http.MethodDelete:
		b.logout(w, strings.TrimPrefix(path, sessionsPath+"/"))
	default:
		fail(w, http.StatusNotFound, "Base.1.8.ResourceMissingAtURI", "The resource at the URI "+path+" was not found.")
	}
}

func (b *BMC) root(w http.ResponseWriter) {
	root := object{"@odata.id": "/redfish/v1/", "@odata.type": "#ServiceRoot.v1_9_0.ServiceRoot", "Id": "RootService",
		"Name": "Root Service", "RedfishVersion": "1.11.0", "UUID": "92384634-2938-2342-8820-489239905423",
		"Systems": link("/redfish/v1/Systems"), "Links": object{}}
	if !b.NoSessions {
		root["SessionService"] = link("/redfish/v1/SessionService")
		root["Links"] = object{"Sessions": link(sessionsPath)}
	}
	reply(w, http.StatusOK, root)
}

func (b *BMC) known(r *http.Request) bool {
	if token := r.Header.Get("X-Auth-Token"); token != "" {
		return b.sessions[token] != ""
	}
	user, password, ok := r.BasicAuth()
	return ok && user == b.User && password == b.Password
}

func (b *BMC) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ UserName, Password string }
	if !body(w, r, &in) {
		return
	}
	if in.UserName != b.User || in.Password != b.Password {
		fail(w, http.StatusUnauthorized, "Base.1.8.ResourceAtUriUnauthorized", "While accessing the resource the service received an authorization error.")
		return
	}
	b.count++
	id, token := fmt.Sprint(b.count), fmt.Sprintf("token-%d", b.count)
	b.sessions[token] = id
	w.Header().Set("X-Auth-Token", token)
	w.Header().Set("Location", sessionsPath+"/"+id)
	reply(w, http.StatusCreated, object{"@odata.id": sessionsPath + "/" + id, "@odata.type": "#Session.v1_3_0.Session", "Id": id, "Name": "Session", "UserName": in.UserName})
}

func (b *BMC) logout(w http.ResponseWriter, id string) {
	for token, s := range b.sessions {
		if s == id {
			delete(b.sessions, token)
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	fail(w, http.StatusNotFound, "Base.1.8.ResourceMissingAtURI", "There is no such session.")
}

func (b *BMC) show(w http.ResponseWriter, id string, m *machine) {
	path := "/redfish/v1/Systems/" + id
	state := "Off"
	if m.now() {
		state = "On"
	}
	if !m.change.IsZero() {
		state = map[bool]string{true: "PoweringOn", false: "PoweringOff"}[m.wanted]
	}
	action := object{"target": path + "/Actions/ComputerSystem.Reset"}
	if b.Resets != nil {
		action["ResetType@Redfish.AllowableValues"] = b.Resets
	}
	w.Header().Set("ETag", m.etag())
	reply(w, http.StatusOK, object{"@odata.id": path, "@odata.type": "#ComputerSystem.v1_13_0.ComputerSystem", "@odata.etag": m.etag(),
		"Id": id, "Name": "System " + id, "PowerState": state,
		"Boot": object{"BootSourceOverrideEnabled": m.enabled, "BootSourceOverrideTarget": m.target, "BootSourceOverrideMode": m.mode,
			"BootSourceOverrideTarget@Redfish.AllowableValues": b.Targets},
		"Actions": object{"#ComputerSystem.Reset": action}})
}

func (m *machine) etag() string { return fmt.Sprintf(`W/"%d"`, m.version) }

func (b *BMC) patch(w http.ResponseWriter, r *http.Request, m *machine) {
	var in struct {
		Boot struct{ BootSourceOverrideEnabled, BootSourceOverrideTarget, BootSourceOverrideMode string }
	}
	if !body(w, r, &in) || !b.may(w) {
		return
	}
	if tag := r.Header.Get("If-Match"); tag != "" && tag != m.etag() {
		fail(w, http.StatusPreconditionFailed, "Base.1.8.PreconditionFailed", "The ETag supplied did not match the ETag required to change this resource.")
		return
	}
	for _, v := range []struct {
		key, value string
		allowed    []string
	}{
		{"BootSourceOverrideEnabled", in.Boot.BootSourceOverrideEnabled, []string{"Once", "Continuous", "Disabled"}},
		{"BootSourceOverrideTarget", in.Boot.BootSourceOverrideTarget, b.Targets},
		{"BootSourceOverrideMode", in.Boot.BootSourceOverrideMode, []string{"", "Legacy", "UEFI"}},
	} {
		if !slices.Contains(v.allowed, v.value) {
			fail(w, http.StatusBadRequest, "Base.1.8.PropertyValueNotInList", fmt.Sprintf("The value '%s' for the property %s is not in the list of acceptable values.", v.value, v.key))
			return
		}
	}
	m.enabled, m.target = in.Boot.BootSourceOverrideEnabled, in.Boot.BootSourceOverrideTarget
	if in.Boot.BootSourceOverrideMode != "" {
		m.mode = in.Boot.BootSourceOverrideMode
	}
	m.version++
	w.WriteHeader(http.StatusNoContent)
}

func (b *BMC) reset(w http.ResponseWriter, r *http.Request, id string, m *machine) {
	var in struct{ ResetType string }
	if !body(w, r, &in) || !b.may(w) {
		return
	}
	all := []string{"On", "ForceOn", "ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle", "PushPowerButton"}
	if b.Resets != nil {
		all = b.Resets
	}
	on := m.now()
	switch {
	case !slices.Contains(all, in.ResetType):
		fail(w, http.StatusBadRequest, "Base.1.8.ActionParameterNotSupported", fmt.Sprintf("The value '%s' for the parameter ResetType is not supported.", in.ResetType))
		return
	case on && strings.HasSuffix(in.ResetType, "On"), !on && (strings.Contains(in.ResetType, "Off") || strings.Contains(in.ResetType, "Restart") || strings.HasPrefix(in.ResetType, "Graceful")):
		fail(w, http.StatusConflict, "Base.1.8.ActionNotSupported", "The requested operation is not possible in the current power state.")
		return
	}
	b.orders = append(b.orders, id+" "+in.ResetType)
	if !b.Deaf {
		m.wanted = !on || strings.Contains(in.ResetType, "Restart") || in.ResetType == "PowerCycle"
		m.change = time.Now().Add(b.Delay)
		m.version++
	}
	w.WriteHeader(http.StatusNoContent)
}

// may reports whether the user may change something.
func (b *BMC) may(w http.ResponseWriter) bool {
	if b.ReadOnly {
		fail(w, http.StatusForbidden, "Base.1.8.InsufficientPrivilege", "There are insufficient privileges for the account or credentials associated with the current session to perform the requested operation.")
	}
	return !b.ReadOnly
}

// body reads a request's JSON, with the header and the keys that there must be.
func body(w http.ResponseWriter, r *http.Request, v any) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	d := json.NewDecoder(io.LimitReader(r.Body, 1<<16))
	d.DisallowUnknownFields()
	if err == nil && kind == "application/json" {
		if err = d.Decode(v); err == nil {
			return true
		}
	}
	fail(w, http.StatusBadRequest, "Base.1.8.MalformedJSON", fmt.Sprintf("The request body is not what it must be (%s, %v).", kind, err))
	return false
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a test's client that is gone is seen there
}

// fail answers with an error (section 8.6).
func fail(w http.ResponseWriter, status int, id, message string) {
	reply(w, status, object{"error": object{"code": "Base.1.8.GeneralError", "message": "A general error has occurred. See Resolution for information on how to resolve the error, or @Message.ExtendedInfo if Resolution is not provided.",
		"@Message.ExtendedInfo": []object{{"@odata.type": "#Message.v1_1_1.Message", "MessageId": id, "Message": message, "Severity": "Critical", "Resolution": "None."}}}})
}
