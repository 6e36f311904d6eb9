package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"bootd/boot"
)

// Config is what the API needs. All of it must be set where nothing else is
// said. The functions are called by several goroutines at once; those without
// an error answer from memory.
type Config struct {
	Status   func() Status
	Machines func() []Machine
	Boots    func(context.Context, boot.MAC) ([]boot.Timeline, error) // newest first
	Leases   func() []Lease
	Swarms   Swarms // nil: there is none
	Orders   Orders
	Power    Power
	Record   func(context.Context, boot.Event) error
	// Past returns the events after the one numbered seq that are still kept,
	// in order.
	Past func(seq uint64) []Event
	// Follow calls f with each event after the one numbered seq, those of the
	// past first, until ctx ends or f fails.
	Follow func(ctx context.Context, seq uint64, f func(Event) error) error
	Log    *slog.Logger
}

// maxBody bounds what a request may carry, in bytes.
const maxBody = 1 << 20

type api struct{ Config }

// A handler returns what is to be sent as JSON, or nil for no content. An error
// that is a [Problem] is what the caller sees.
type handler func(*http.Request) (any, error)

const eventsPath = "/v1/events"

// routes is everything there is, but for the stream of events.
func (a *api) routes() map[string]map[string]handler {
	return map[string]map[string]handler{
		documentPath:   {http.MethodGet: func(*http.Request) (any, error) { return Document(a.Status().Version) }},
		"/v1/status":   {http.MethodGet: func(*http.Request) (any, error) { return a.Status(), nil }},
		"/v1/machines": {http.MethodGet: func(*http.Request) (any, error) { return nonNil(a.Machines()), nil }},
		"/v1/machines/{id}": {
			http.MethodGet:    func(r *http.Request) (any, error) { return a.machine(r.PathValue("id")) },
			http.MethodDelete: a.forget,
		},
		"/v1/machines/{id}/boots":             {http.MethodGet: a.boots},
		"/v1/machines/{id}/approve":           {http.MethodPost: a.approve},
		"/v1/machines/{id}/next":              {http.MethodPut: a.next, http.MethodDelete: a.next},
		"/v1/machines/{id}/install":           {http.MethodPut: a.install, http.MethodDelete: a.install},
		"/v1/machines/{id}/power":             {http.MethodGet: a.powerState, http.MethodPost: a.switchPower},
		"/v1/leases":                          {http.MethodGet: func(*http.Request) (any, error) { return nonNil(a.Leases()), nil }},
		"/v1/leases/{addr}":                   {http.MethodDelete: a.release},
		"/v1/swarm/nodes":                     {http.MethodGet: a.nodes},
		"/v1/swarm/nodes/{node}":              {http.MethodDelete: a.removeNode},
		"/v1/swarm/nodes/{node}/availability": {http.MethodPut: a.setAvailability},
		"/v1/swarm/prune":                     {http.MethodPost: a.prune},
		"/v1/swarm/tokens/rotate":             {http.MethodPost: a.rotateTokens},
		"/v1/swarm/replace":                   {http.MethodPost: a.replaceSwarm},
		eventsPath:                            {http.MethodPost: a.record},
	}
}

// New returns the handler of all routes. Who may call it is for the listener to
// decide: see [Listen].
func New(c Config) http.Handler {
	a := &api{c}
	mux := http.NewServeMux()
	for path, methods := range a.routes() {
		allow := slices.Collect(maps.Keys(methods))
		if path == eventsPath {
			allow = append(allow, http.MethodGet)
		}
		slices.Sort(allow)
		mux.Handle(path, a.serve(methods, strings.Join(allow, ", ")))
	}
	mux.HandleFunc("GET "+eventsPath, a.events)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, problem(http.StatusNotFound, "there is no %s here", r.URL.Path))
	})
	return mux
}

// serve speaks HTTP for the handlers of one path, where the methods in allow
// are possible.
func (a *api) serve(methods map[string]handler, allow string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet // net/http leaves the body out
		}
		h := methods[method]
		if h == nil {
			w.Header().Set("Allow", allow)
			a.fail(w, r, problem(http.StatusMethodNotAllowed, "%s cannot be done to %s, only %s", r.Method, r.URL.Path, allow))
			return
		}
		v, err := h(r)
		switch {
		case err != nil:
			a.fail(w, r, err)
		case v == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			a.send(w, http.StatusOK, "application/json", v)
		}
	})
}

// send writes v as JSON.
func (a *api) send(w http.ResponseWriter, status int, contentType string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		a.Log.Error("cannot encode an answer", "err", err)
		status, contentType = http.StatusInternalServerError, problemType
		b = []byte(`{"title":"Internal Server Error","status":500,"detail":"bootd cannot encode its answer; its log says why"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a caller that is gone needs nothing
}

// problemType is the media type of errors (RFC 9457 section 3).
const problemType = "application/problem+json"

// fail sends an error. One that is not a Problem is not the caller's doing and
// is logged; the operator, who alone can call, is told it as well.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *Problem
	if !errors.As(err, &p) {
		if r.Context().Err() == nil {
			a.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		}
		p = problem(http.StatusInternalServerError, "%v", err)
	}
	a.send(w, p.Status, problemType, p)
}

// problem makes an error that the caller may see.
func problem(status int, format string, args ...any) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// nonNil makes an empty list [] rather than null.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// machine finds a machine by name or hardware address.
func (a *api) machine(id string) (Machine, error) {
	mac, err := boot.ParseMAC(id)
	isMAC := err == nil && !mac.IsZero()
	var names []string
	for _, m := range a.Machines() {
		if strings.EqualFold(m.Name, id) || isMAC && m.MAC == mac {
			return m, nil
		}
		names = append(names, m.Name)
	}
	known := "none are known yet"
	if len(names) > 10 {
		names = append(names[:10], "...")
	}
	if len(names) > 0 {
		known = "known: " + strings.Join(names, ", ")
	}
	return Machine{}, problem(http.StatusNotFound, "there is no machine %q; %s", id, known)
}

func (a *api) boots(r *http.Request) (any, error) {
	m, err := a.machine(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if m.MAC.IsZero() { // never seen
		return []boot.Timeline{}, nil
	}
	list, err := a.Boots(r.Context(), m.MAC)
	if err != nil {
		return nil, err
	}
	return nonNil(list), nil
}

// record lets the operator's tools note what bootd cannot see itself: that a
// machine was switched on.
func (a *api) record(r *http.Request) (any, error) {
	e, err := decode[boot.Event](r, "an event")
	if err != nil {
		return nil, err
	}
	switch {
	case e.Stage != boot.Power:
		return nil, problem(http.StatusBadRequest, "stage %q cannot be recorded from outside, only %q", e.Stage, boot.Power)
	case e.MAC.IsZero():
		return nil, problem(http.StatusBadRequest, "the event has no mac")
	case e.Time.IsZero():
		return nil, problem(http.StatusBadRequest, "the event has no time")
	}
	// What else an event can say is not for the outside to tell.
	return nil, a.Record(r.Context(), boot.Event{Time: e.Time, MAC: e.MAC, Stage: e.Stage, Text: e.Text})
}
