package ipxe

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"bootd/boot"
)

// What a renderer says when it cannot give a config, besides failing.
var (
	// ErrNotYet: not now, but probably soon, as when the swarm has no token to
	// give yet. The machine asks again.
	ErrNotYet = errors.New("not ready yet")
	// ErrTooOld: the machine's Ignition cannot read what its profile needs.
	ErrTooOld = errors.New("this version of Ignition is too old")
)

// Boots is the record of what machines do.
type Boots interface {
	// Current returns the machine's latest boot.
	Current(boot.MAC) (boot.Timeline, bool)
	// ByAddr returns the latest boot of the machine that has the address.
	ByAddr(netip.Addr) (boot.Timeline, bool)
	// Inventory is what is known of the machine.
	Inventory(boot.MAC) boot.Inventory
	// Record notes an event at some time soon.
	Record(boot.Event)
	// Commit notes an event on stable storage, and returns the boot that it
	// belongs to.
	Commit(context.Context, boot.Event) (boot.Timeline, error)
}

// Files are the iPXE builds, by the names that [boot.LoaderFile] gives them.
// The error for an unknown name wraps [fs.ErrNotExist].
type Files interface {
	Open(name string) (*os.File, error)
}

// A RenderRequest asks for the config of one machine.
type RenderRequest struct {
	Assignment boot.Assignment
	Accept     string // of the HTTP request: Ignition says there which versions it reads
	ReportURL  string // where the machine reports during this boot
	Wrap       bool   // as a cpio archive
}

// Config is what a [Handler] needs. All of it must be set where nothing else is
// said.
type Config struct {
	// Assign decides what a machine boots. Nothing may change by it: who asks
	// need not be the machine.
	Assign func(boot.Inventory) (boot.Assignment, error)
	// AssignNext decides it for a script, of the boot with an ID; empty: one
	// that begins with it. Nil: Assign does.
	AssignNext func(inv boot.Inventory, bootID string) (boot.Assignment, error)
	// Assigned is told what a machine with a profile gets, once it is known to
	// be the machine that asks. Nil: nobody is told.
	Assigned func(boot.Assignment)
	// Image returns the image of that name for a processor (x86_64, aarch64).
	Image func(name, cpu string) (boot.Image, bool)
	// Render makes an Ignition config. Its errors may wrap [ErrNotYet] and
	// [ErrTooOld].
	Render func(context.Context, RenderRequest) ([]byte, error)
	// Joining makes what a node asks its engine to join with, as JSON. Its
	// errors may wrap [ErrNotYet]. Nil: there is no swarm.
	Joining func(context.Context, boot.Assignment) ([]byte, error)
	// Leaving is told that a node is about to leave its swarm, which is on
	// record, and returns when its tasks run elsewhere. The error says what does
	// not. Nil: nobody is told.
	Leaving func(context.Context, boot.Timeline) error
	Boots   Boots
	// Installs is for images that are installed on a disk. Nil: none is.
	Installs Installs
	// Holder tells which machine holds an address that bootd leases, or held
	// it last: iPXE does not renew. On networks where bootd gives the
	// addresses, a script is then given to no other machine. Nil: not checked.
	Holder func(netip.Addr) (boot.MAC, bool)
	// Leased reports whether a machine has an address from bootd: then it does
	// not ask for its script from another network. Nil: not checked.
	Leased  func(boot.MAC) bool
	Tickets *boot.Tickets
	// TicketLife is how long after its script a machine gets its config; 0: 15
	// minutes. Kernel and root file system are fetched in between.
	TicketLife time.Duration
	Loaders    Files
	Assets     http.Handler // serves /assets/
	Log        *slog.Logger
}

const defaultTicketLife = 15 * time.Minute

// A Handler answers machines. See the package comment for its paths.
type Handler struct {
	Config
	refused refusals
}

// New returns a handler.
func New(c Config) *Handler {
	if c.TicketLife == 0 {
		c.TicketLife = defaultTicketLife
	}
	return &Handler{Config: c}
}

// Content types of answers.
const (
	typeJSON     = "application/json"
	typeText     = "text/plain; charset=utf-8"
	typeIgnition = "application/vnd.coreos.ignition+json"
	typeData     = "application/octet-stream"
	typeEFI      = "application/efi"
)

// An answer is what a machine gets, before it is HTTP.
type answer struct {
	status int
	kind   string // content type
	body   []byte // nil for HEAD where the body would cost something
	allow  string // of 405: the methods that are possible
	retry  time.Duration
	// sent is called when the client has the whole body. Answers to HEAD have
	// none.
	sent func(took time.Duration)
}

func text(status int, s string) answer {
	return answer{status: status, kind: typeText, body: []byte(s + "\n")}
}

func script200(b []byte) answer { return answer{status: http.StatusOK, kind: typeText, body: b} }

// A request is an HTTP request as far as it matters here.
type request struct {
	*http.Request
	addr netip.Addr // of the client
	base string     // root of links
	run  string     // of the loader that asks, for a script
	to   dialect    // of the loader that asks
	head bool
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	q := request{Request: r, addr: clientAddr(r), base: baseURL(r), head: r.Method == http.MethodHead, to: ipxeDialect{}}
	if r.ContentLength != 0 {
		// Only reports have a body, and a short one. Who sends it slowly, or
		// sends one elsewhere, would hold the connection. Not every
		// ResponseWriter can set a deadline.
		_ = http.NewResponseController(w).SetReadDeadline(start.Add(headerTimeout))
		w.Header().Set("Connection", "close")
	}
	if h.stream(w, q) {
		return
	}
	a := h.answer(w, q)
	h.write(w, q, a, start)
}

// stream serves what is too large to be an answer in memory.
func (h *Handler) stream(w http.ResponseWriter, q request) bool {
	if q.Method != http.MethodGet && !q.head {
		return false
	}
	if strings.HasPrefix(q.URL.Path, "/assets/") {
		h.Assets.ServeHTTP(w, q.Request)
		return true
	}
	if name, ok := strings.CutPrefix(q.URL.Path, "/loader/"); ok {
		return h.serveLoader(w, q, name)
	}
	return false
}

// answer finds who is responsible for a path.
func (h *Handler) answer(w http.ResponseWriter, q request) answer {
	get := q.Method == http.MethodGet || q.head
	methods := "GET, HEAD"
	var serve func() answer
	path := q.URL.Path
	name, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case path == "/boot.ipxe":
		serve = func() answer { return script200(First(q.base, newRun())) }
	case path == "/ipxe":
		serve = func() answer { return h.askedScript(q) }
	case path == grubFirst:
		serve = func() answer { return script200(GRUBFirst(q.base, newRun())) }
	case path == grubAsks:
		q.to = grubDialect{http: true}
		serve = func() answer { return h.askedScript(q) }
	case name == "ignition":
		serve = func() answer { return h.config(q, rest, false) }
	case name == "initrd":
		ticket, file, _ := strings.Cut(rest, "/")
		if file == "config.cpio" {
			serve = func() answer { return h.config(q, ticket, true) }
		}
	case name == "esxi":
		ticket, file, _ := strings.Cut(rest, "/")
		if file == bootCfgFile || file == kickstartFile || file == pxelinuxFile {
			serve = func() answer { return h.esxiFile(q, ticket, file) }
		}
	case name == "join":
		serve = func() answer { return h.join(q, rest) }
	case name == "report":
		methods, get = "POST", q.Method == http.MethodPost
		serve = func() answer { return h.report(w, q, rest) }
	case name == "loader", name == "assets":
		if !get { // everything else has been streamed, or is not there
			serve = func() answer { return answer{} }
		}
	}
	switch {
	case serve == nil:
		return text(http.StatusNotFound, "not found: "+plain(path))
	case !get:
		a := text(http.StatusMethodNotAllowed, "only "+methods+" is possible here")
		a.allow = methods
		return a
	case q.base == "":
		return text(http.StatusInternalServerError, "bootd cannot tell at which address it was reached")
	case !q.addr.IsValid():
		return text(http.StatusBadRequest, "bootd cannot tell who asks")
	}
	return serve()
}

// write sends an answer and tells about it.
func (h *Handler) write(w http.ResponseWriter, q request, a answer, start time.Time) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	if a.allow != "" {
		header.Set("Allow", a.allow)
	}
	if a.retry > 0 {
		header.Set("Retry-After", strconv.Itoa(int(a.retry/time.Second)))
	}
	if a.kind != "" {
		header.Set("Content-Type", a.kind)
		header.Set("X-Content-Type-Options", "nosniff")
	}
	if a.body != nil {
		header.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	var err error
	if !q.head && a.body != nil {
		_, err = w.Write(a.body)
	}
	took := time.Since(start)
	h.access(q, a.status, int64(len(a.body)), took)
	if err == nil && a.sent != nil {
		a.sent(took)
	}
}

// access writes the access log. Tickets are left out of it.
func (h *Handler) access(q request, status int, n int64, took time.Duration) {
	if !h.Log.Enabled(q.Context(), slog.LevelDebug) {
		return
	}
	path := q.URL.Path
	for _, secret := range []string{"/ignition/", "/initrd/", "/esxi/", "/join/", "/report/"} {
		if strings.HasPrefix(path, secret) {
			path = secret
		}
	}
	h.Log.Debug("HTTP request", "addr", q.addr, "method", q.Method, "path", path,
		"status", status, "bytes", n, "took", took)
}

// clientAddr is the address that asks; invalid if it cannot be told.
func clientAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// baseURL is the root of links for a client: the address and port that it
// reached. It is empty if that cannot be told.
func baseURL(r *http.Request) string {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	tcp, ok := local.(*net.TCPAddr)
	if !ok {
		return ""
	}
	ap := tcp.AddrPort()
	return BaseURL(netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()))
}

// BaseURL is the root of bootd's URLs at an address: http://10.0.0.1, or
// http://10.0.0.1:8080 when the port is not 80.
func BaseURL(server netip.AddrPort) string {
	host := server.Addr().String()
	if server.Addr().Is6() {
		host = "[" + host + "]"
	}
	if server.Port() != 80 {
		host += ":" + strconv.Itoa(int(server.Port()))
	}
	return "http://" + host
}
