package photon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

// Config is what the API needs. All of it must be set where nothing else is
// said.
type Config struct {
	Controller *controller.Controller
	// Authenticate tells who asks, or returns a [fleet.Error] with one of the codes
	// for tokens.
	Authenticate func(*http.Request) (controller.Principal, error)
	// Tokens says that Authenticate wants one.
	Tokens bool
	// LenientFlavors takes flavors as servers before 1.1 did: see
	// [fleet.Flavor.Check].
	LenientFlavors  bool
	Version, Commit string // of the program; Commit may be empty
	// Endpoint is where everyone reaches the API.
	Endpoint func() wire.Endpoint
	Log      *slog.Logger
}

// inFlight is how many requests are answered at a time. More are refused, rather
// than kept waiting for what they would only make slower.
const inFlight = 512

type server struct {
	Config
	slots chan struct{}
}

// A handler returns what is answered, or an error.
type handler func(*call) (reply, error)

// A reply is a status and what is sent as JSON.
type reply struct {
	status int
	body   any
}

func ok(v any) reply { return reply{http.StatusOK, v} }

// A call is a request being answered.
type call struct {
	*http.Request
	w     http.ResponseWriter
	by    controller.Principal
	query url.Values // of the page, if the request is for one
	at    position
	id    string // of the request
	log   *slog.Logger
}

func (c *call) ctx() context.Context { return c.Request.Context() }

// link is the absolute URL of a path on this server, as the client calls it.
func (c *call) link(parts ...string) string {
	scheme := "http"
	if c.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.Host + "/" + strings.Join(parts, "/")
}

// A route is what can be done with a path. Reading is for everybody who may read;
// what is neither GET nor free changes something.
type routes map[string]map[string]handler

// free are the paths that everyone may call, with a token or without.
var free = map[string]bool{"/auth": true, "/available": true, documentPath: true}

// unpaused are the last parts of paths that work while the system is paused.
var unpaused = map[string]bool{"pause_system": true, "pause_background_tasks": true, "resume_system": true}

// New returns the handler of all routes.
func New(c Config) http.Handler {
	s := &server{c, make(chan struct{}, inFlight)}
	mux := http.NewServeMux()
	for pattern, methods := range s.routes() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, methods) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.serve(w, r, map[string]handler{r.Method: func(c *call) (reply, error) {
			return reply{}, fleet.Errorf(fleet.NotFound, "There is no %s here", c.URL.Path)
		}})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The SDK asks for /resource-tickets//ID; the mux would answer with a
		// redirection, which clients do not follow when they change something.
		clean := *r.URL
		clean.Path, clean.RawPath = path.Clean("/"+r.URL.Path), ""
		r2 := *r
		r2.URL = &clean
		mux.ServeHTTP(w, &r2)
	})
}

// serve speaks HTTP for the handlers of one path.
func (s *server) serve(w http.ResponseWriter, r *http.Request, methods map[string]handler) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	c := &call{Request: r, w: w, id: hex.EncodeToString(random[:8])}
	c.log = s.Log.With("request", c.id)
	w.Header().Set("REQUEST-ID", c.id)
	w.Header().Set("X-API-VERSION", apiVersion)
	w.Header().Set("Cache-Control", "no-store")
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.fail(c, fleet.Errorf(fleet.OutOfThreadPoolWorker, "%d requests are being answered already; try again", inFlight))
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // net/http leaves the body out
	}
	answer, err := s.answer(c, methods, method)
	if err != nil {
		s.fail(c, err)
		return
	}
	s.send(c, answer)
}

// answer calls the handler for a method, once it is known who asks and that it
// may be done now.
func (s *server) answer(c *call, methods map[string]handler, method string) (_ reply, err error) {
	if !free[c.URL.Path] {
		if c.by, err = s.Authenticate(c.Request); err != nil {
			return reply{}, err
		}
	}
	h := methods[method]
	if h == nil {
		allow := slices.Sorted(maps.Keys(methods))
		c.w.Header().Set("Allow", strings.Join(allow, ", "))
		return reply{http.StatusMethodNotAllowed, wire.Error{Code: string(fleet.InvalidOperation), Data: map[string]string{},
			Message: c.Method + " cannot be done to " + c.URL.Path + ", only " + strings.Join(allow, ", ")}}, nil
	}
	if method != http.MethodGet && !unpaused[path.Base(c.URL.Path)] {
		if err := s.Controller.Changes(c.ctx()); err != nil {
			return reply{}, err
		}
	}
	if c.query, c.at, err = pageOf(c.URL); err != nil {
		return reply{}, err
	}
	return h(c)
}

// routes is everything there is.
func (s *server) routes() routes {
	all := routes{}
	for _, some := range []routes{s.systemRoutes(), s.tenantRoutes(), s.flavorRoutes(), s.taskRoutes(), s.deploymentRoutes(), s.hostRoutes(), s.imageRoutes(), s.vmRoutes(), s.vmVerbRoutes(), s.clusterRoutes()} {
		for path, methods := range some {
			if all[path] == nil {
				all[path] = map[string]handler{}
			}
			maps.Copy(all[path], methods)
		}
	}
	return all
}

// Roots are the first parts of all paths, in order.
func Roots() []string {
	var out []string
	for pattern := range (&server{}).routes() {
		root, _, _ := strings.Cut(pattern[1:], "/")
		out = append(out, root)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Off is the handler in the place of a controller that is not there: why is in
// each of its errors.
func Off(why string) http.Handler {
	s := &server{Config: Config{Log: slog.New(slog.DiscardHandler)}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(&call{Request: r, w: w, log: s.Log}, fleet.Errorf(fleet.NotFound, "%s", why))
	})
}
