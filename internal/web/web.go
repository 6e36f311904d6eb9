package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"
)

//go:embed pages static
var files embed.FS

// policy holds the browser to what bootd itself has sent.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// maxForm bounds what a form may carry, in bytes.
const maxForm = 1 << 16

// A dashboard answers for the pages.
type dashboard struct {
	Config
	pages  map[string]*template.Template // by file name, each with the layout
	static http.Handler
}

// A page is what the layout shows of every page.
type page struct {
	Title   string
	Section string // path of the entry in the navigation that is current
	Live    string // what /live says that concerns the page: a MAC, * for all, or nothing
	Now     time.Time
	Said    string // what the order before has done
	Status  Status
	Waiting int // machines that wait for somebody to decide
	Body    any
	file    string // its template
	status  int    // of HTTP; 0: 200
}

// New returns the handler of all pages. Who may call it is for the listener to
// decide: see the package comment.
func New(c Config) (http.Handler, error) {
	stamp, err := stampOf(files, "static")
	if err != nil {
		return nil, err
	}
	d := &dashboard{Config: c, pages: map[string]*template.Template{}}
	layout, err := template.New("layout.html").Funcs(functions(stamp)).ParseFS(files, "pages/layout.html", "pages/parts.html")
	if err != nil {
		return nil, fmt.Errorf("cannot read the dashboard's layout: %w", err)
	}
	for _, name := range []string{"overview", "machines", "machine", "networks", "swarm", "events", "confirm", "error"} {
		t, err := layout.Clone()
		if err == nil {
			t, err = t.ParseFS(files, "pages/"+name+".html")
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the dashboard's page %s: %w", name, err)
		}
		d.pages[name] = t
	}
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(*http.Request) (*page, error){
		"GET /{$}":           d.overview,
		"GET /machines":      d.machineList,
		"GET /machines/{id}": d.machine,
		"GET /networks":      d.networks,
		"GET /swarm":         d.swarm,
		"GET /events":        d.events,
		"GET /":              d.nothing,
	} {
		mux.Handle(pattern, d.serve(h))
	}
	mux.HandleFunc("GET /machines/{id}/story", d.story)
	mux.HandleFunc("GET /live", d.live)
	mux.Handle("GET /static/", d.assets(stamp))
	for pattern, f := range map[string]func(*http.Request) (*question, error){
		"/machines/{id}/do/{verb}":     d.askMachine,
		"/swarm/{swarm}/{node}/{verb}": d.askNode,
		"/leases/{addr}/release":       d.askLease,
	} {
		mux.HandleFunc("GET "+pattern, d.ask(f))
		mux.HandleFunc("POST "+pattern, d.do(f))
	}
	return secure(http.NewCrossOriginProtection().Handler(mux)), nil
}

// secure sets the headers that every answer has.
func secure(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		set := w.Header().Set
		set("Content-Security-Policy", policy)
		set("X-Content-Type-Options", "nosniff")
		set("Referrer-Policy", "same-origin")
		set("Cross-Origin-Opener-Policy", "same-origin")
		set("Cross-Origin-Resource-Policy", "same-origin")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		h.ServeHTTP(w, r)
	})
}

// Local refuses browsers that ask for this machine by a name that another site
// may have given to its address (DNS rebinding), and what other sites make them
// order: they are to ask for an address, or localhost. It is for h on a socket
// whose permissions are its only guard, which ssh can forward to a browser.
// Programs that are no browsers may ask for any name.
func Local(h http.Handler) http.Handler {
	h = http.NewCrossOriginProtection().Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil && host != "localhost" && browser(r) {
			http.Error(w, fmt.Sprintf("bootd's dashboard is not at %q; use http://localhost and the port that you have forwarded", r.Host), http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// browser reports whether a request looks like a browser's. All of them send
// the first header, and most of them the others.
func browser(r *http.Request) bool {
	return strings.HasPrefix(r.UserAgent(), "Mozilla/") || r.Header.Get("Sec-Fetch-Site") != "" || r.Header.Get("Origin") != ""
}

// serve sends the page that f makes.
func (d *dashboard) serve(f func(*http.Request) (*page, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := f(r)
		if err != nil {
			p = d.failed(r, err)
		}
		d.send(w, r, p)
	})
}

// failed is the page of an error. One that is not a Refusal is logged; the
// operator is told it as well.
func (d *dashboard) failed(r *http.Request, err error) *page {
	status := d.statusOf(r, err)
	return &page{Title: http.StatusText(status), Body: err.Error(), file: "error", status: status}
}

// statusOf is the status of HTTP that goes with an error, which is logged if it
// is not the caller's.
func (d *dashboard) statusOf(r *http.Request, err error) int {
	var refusal *Refusal
	if errors.As(err, &refusal) && refusal.Status >= 400 && refusal.Status < 600 {
		return refusal.Status
	}
	if r.Context().Err() == nil {
		d.Log.Error("a page cannot be shown", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	return http.StatusInternalServerError
}

func (d *dashboard) nothing(r *http.Request) (*page, error) {
	return nil, &Refusal{http.StatusNotFound, "There is no page " + r.URL.Path + "."}
}

// send completes a page and sends it.
func (d *dashboard) send(w http.ResponseWriter, r *http.Request, p *page) {
	p.Now, p.Status = d.Now(), d.State.Status()
	for _, m := range d.State.Machines() {
		if m.undecided() {
			p.Waiting++
		}
	}
	p.Said = said(w, r)
	var b bytes.Buffer
	if err := d.pages[p.file].ExecuteTemplate(&b, "layout.html", p); err != nil {
		d.Log.Error("a page cannot be shown", "path", r.URL.Path, "err", err)
		http.Error(w, "bootd cannot make this page; its log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if p.status != 0 {
		w.WriteHeader(p.status)
	}
	_, _ = w.Write(b.Bytes()) // a reader that is gone needs nothing
}

// saidCookie carries what an order has done to the page that is shown next.
const saidCookie = "bootd_said"

// say keeps a text for the next page that this browser asks for.
func say(w http.ResponseWriter, text string) {
	http.SetCookie(w, &http.Cookie{Name: saidCookie, Value: base64.RawURLEncoding.EncodeToString([]byte(text)), Path: "/",
		MaxAge: 30, HttpOnly: true, SameSite: http.SameSiteStrictMode})
}

// said is what say has kept, once.
func said(w http.ResponseWriter, r *http.Request) string {
	c, err := r.Cookie(saidCookie)
	if err != nil {
		return ""
	}
	http.SetCookie(w, &http.Cookie{Name: saidCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	b, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return ""
	}
	return string(b)
}

// stampOf makes a short digest of the files below a directory.
func stampOf(f fs.FS, dir string) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(f, dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := fs.ReadFile(f, p)
		h.Write(b)
		return err
	})
	return hex.EncodeToString(h.Sum(nil))[:12], err
}

// assets serves what pages refer to. With the stamp of this build in the URL it
// may be kept for ever.
func (d *dashboard) assets(stamp string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		b, err := files.ReadFile(name)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		if r.URL.Query().Get("v") == stamp {
			w.Header().Set("Cache-Control", "max-age=31536000, immutable")
		}
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(b))
	})
}
