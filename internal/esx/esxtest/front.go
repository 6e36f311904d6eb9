package esxtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/soap"
)

// A front is what the network sees of a host. The simulator behind it knows
// nothing of outages, and its state survives them.
type front struct {
	h       *Host
	address string
	turn    sync.Mutex // held while the simulator works, if it is to do one thing at a time

	mu      sync.Mutex
	server  *http.Server // nil: down
	cookies map[string]bool
	delay   time.Duration
	lose    map[string]int // answers to these calls get lost, so many
	calls   map[string]int // since the beginning
	waiting int            // calls that are being answered, but for those that wait for changes
	most    int            // of them at once
	until   int            // calls that change something until one is interrupted; 0: none will be
	every   int
	how     Interruption

	interruptions int
}

// An Interruption is what becomes of a call.
type Interruption int

// The interruptions.
const (
	Refused Interruption = iota // it fails, and nothing is done
	Lost                        // it is carried out, and the answer gets lost
	Aborted                     // uploads alone: the connection breaks in the middle
)

// Interrupt lets n calls or uploads pass that change something, interrupts the
// next one, and then each that comes every so many later; 0: none.
func (h *Host) Interrupt(n, every int, how Interruption) {
	h.front.mu.Lock()
	defer h.front.mu.Unlock()
	h.front.until, h.front.every, h.front.how, h.front.interruptions = n+1, every, how, 0
}

// Interruptions is how many have come since they were ordered.
func (h *Host) Interruptions() int {
	h.front.mu.Lock()
	defer h.front.mu.Unlock()
	return h.front.interruptions
}

// reading are calls that change nothing outside the session.
var reading = map[string]bool{
	"": true, "RetrieveServiceContent": true, "Login": true, "Logout": true, "RetrieveProperties": true, "RetrievePropertiesEx": true, "FindAllByUuid": true,
	"CreatePropertyCollector": true, "DestroyPropertyCollector": true, "CreateContainerView": true, "DestroyView": true, "CreateFilter": true,
	"WaitForUpdatesEx": true, "SearchDatastore_Task": true, "CancelTask": true,
}

// interrupted reports whether and how this call is interrupted.
func (f *front) interrupted(method string) (Interruption, bool) {
	if reading[method] {
		return 0, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until == 0 || f.how == Aborted && method != "PUT" {
		return 0, false
	}
	if f.until--; f.until > 0 {
		return 0, false
	}
	f.until = f.every
	f.interruptions++
	return f.how, true
}

func newFront(h *Host, listen string) (*front, error) {
	f := &front{h: h, address: listen, cookies: map[string]bool{}, lose: map[string]int{}, calls: map[string]int{}}
	return f, f.up()
}

func (f *front) up() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server != nil {
		return nil
	}
	l, err := net.Listen("tcp", f.address)
	if err != nil {
		return err
	}
	f.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	f.server = &http.Server{Handler: f, ErrorLog: log.New(io.Discard, "", 0), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		BaseContext: func(net.Listener) context.Context { return ctx }}
	f.server.RegisterOnShutdown(cancel)
	s := f.server
	go func() {
		defer cancel()
		// It ends with ErrServerClosed, when it is taken down.
		_ = s.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{f.h.cert}, NextProtos: []string{"http/1.1"}}))
	}()
	return nil
}

func (f *front) down() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server != nil {
		_ = f.server.Close() // what the connections say does not matter
		f.server = nil
	}
}

// Down takes the host from the network, with all connections.
func (h *Host) Down() { h.front.down() }

// Up brings it back, at the same port. As after a restart its sessions have
// ended.
func (h *Host) Up() error {
	h.DropSessions()
	return h.front.up()
}

// DropSessions ends all sessions: their next calls are not authenticated.
func (h *Host) DropSessions() {
	h.front.mu.Lock()
	defer h.front.mu.Unlock()
	clear(h.front.cookies)
}

// CutConnections closes all connections; sessions stay.
func (h *Host) CutConnections() error {
	h.front.down()
	return h.front.up()
}

// Slow makes every answer late.
func (h *Host) Slow(d time.Duration) {
	h.front.mu.Lock()
	defer h.front.mu.Unlock()
	h.front.delay = d
}

// LoseAnswers lets the next n calls of a method be carried out, and closes the
// connection in the place of an answer.
func (h *Host) LoseAnswers(method string, n int) {
	h.front.mu.Lock()
	defer h.front.mu.Unlock()
	h.front.lose[method] = n
}

// Calls is how often a method was called; "PUT" is for files that were sent.
func (h *Host) Calls(method string) int {
	h.front.mu.Lock()
	defer h.front.mu.Unlock()
	return h.front.calls[method]
}

// MostAtOnce is how many calls were answered at the same time.
func (h *Host) MostAtOnce() int {
	h.front.mu.Lock()
	defer h.front.mu.Unlock()
	return h.front.most
}

// ServeHTTP serves files to who has a session, and passes calls on.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	known := f.session(r)
	if !known {
		r.Header.Del("Cookie")
	}
	if strings.HasPrefix(r.URL.Path, "/folder/") {
		f.serveFile(w, r, known)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	method := methodOf(body)
	lose, done := f.begin(method)
	defer done()
	how, now := f.interrupted(method)
	if now && how == Refused {
		http.Error(w, "interrupted", http.StatusServiceUnavailable)
		return
	}
	rec := f.serve(r, body, method)
	if r.Context().Err() != nil {
		return
	}
	if now {
		// The simulator takes no care of a call that comes again while the task of
		// the first still runs: it loses devices, and crashes.
		f.h.settle()
	}
	if lose || now {
		panic(http.ErrAbortHandler)
	}
	f.remember(rec.header)
	for k, v := range rec.header {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.status)
	_, _ = w.Write(rec.body.Bytes()) // the client may be gone
}

func (f *front) session(r *http.Request) bool {
	c, err := r.Cookie(soap.SessionCookieName)
	if err != nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cookies[c.Value]
}

func (f *front) begin(method string) (lose bool, done func()) {
	f.mu.Lock()
	f.calls[method]++
	if f.lose[method] > 0 {
		f.lose[method]--
		lose = true
	}
	delay := f.delay
	if method == "WaitForUpdatesEx" {
		f.mu.Unlock()
		return lose, func() {}
	}
	f.waiting++
	f.most = max(f.most, f.waiting)
	f.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay)
	}
	return lose, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.waiting--
	}
}

func (f *front) remember(h http.Header) {
	for _, c := range (&http.Response{Header: h}).Cookies() {
		if c.Name == soap.SessionCookieName {
			f.mu.Lock()
			f.cookies[c.Value] = true
			f.mu.Unlock()
		}
	}
}

// serveFile gives and takes files of datastores. The simulator does so for
// anybody, and never runs out of space.
func (f *front) serveFile(w http.ResponseWriter, r *http.Request, known bool) {
	if !known {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(w, "not logged in", http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodPut && f.h.isFull() {
		http.Error(w, "write failed: No space left on device", http.StatusInternalServerError)
		return
	}
	path := "[" + r.URL.Query().Get("dsName") + "] " + strings.TrimPrefix(r.URL.Path, "/folder/")
	if r.Method != http.MethodPut {
		if f.h.options.Serial {
			f.turn.Lock()
			defer f.turn.Unlock()
		}
		f.h.model.Service.ServeMux.ServeHTTP(w, r)
		return
	}
	f.mu.Lock()
	f.calls[r.Method]++
	f.mu.Unlock()
	body := io.Reader(r.Body)
	how, now := f.interrupted("PUT")
	switch {
	case now && how == Refused:
		http.Error(w, "interrupted", http.StatusServiceUnavailable)
		return
	case now && how == Aborted:
		body = io.LimitReader(body, r.ContentLength/2)
	}
	err := f.h.store(path, body, r.ContentLength)
	if now {
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// methodOf is the name of the call in a SOAP envelope.
func methodOf(body []byte) string {
	_, rest, ok := bytes.Cut(body, []byte("Body>"))
	if !ok {
		if _, rest, ok = bytes.Cut(body, []byte("Body")); !ok {
			return ""
		}
	}
	_, rest, _ = bytes.Cut(rest, []byte("<"))
	end := bytes.IndexAny(rest, " />")
	if end < 0 {
		return ""
	}
	name := string(rest[:end])
	if _, local, ok := strings.Cut(name, ":"); ok {
		return local
	}
	return name
}

// A recorder keeps an answer until it is known whether it gets lost.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

var errShort = errors.New("the upload ended too early")
