package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"bootd/boot"
)

// Config is what the API needs. A nil function means that there is no such
// thing, and its route answers 404.
type Config struct {
	Status   func() Status
	Machines func() []Machine
	Boots    func(context.Context, boot.MAC) ([]boot.Timeline, error) // newest first
	Leases   func() []Lease
	Nodes    func(context.Context) ([]Node, error)
	Record   func(context.Context, boot.Event) error
	// Follow calls f with each event after the one numbered seq, those of the
	// past first, until ctx ends or f fails.
	Follow func(ctx context.Context, seq uint64, f func(Event) error) error
	Log    *slog.Logger
}

// maxBody bounds what a request may carry.
const maxBody = 1 << 20

// New returns the handler of all routes.
func New(c Config) http.Handler {
	mux := http.NewServeMux()
	a := &api{c}
	get(a, mux, "GET /v1/status", func(*http.Request) (any, error) { return c.Status(), nil })
	get(a, mux, "GET /v1/machines", func(*http.Request) (any, error) { return nonNil(c.Machines()), nil })
	get(a, mux, "GET /v1/machines/{id}", func(r *http.Request) (any, error) { return a.machine(r.PathValue("id")) })
	get(a, mux, "GET /v1/machines/{id}/boots", a.boots)
	get(a, mux, "GET /v1/leases", func(*http.Request) (any, error) { return nonNil(c.Leases()), nil })
	get(a, mux, "GET /v1/swarm/nodes", a.nodes)
	get(a, mux, "POST /v1/events", a.record)
	mux.HandleFunc("GET /v1/events", a.events)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, problem(http.StatusNotFound, "there is no %s %s here", r.Method, r.URL.Path))
	})
	return mux
}

type api struct{ Config }

// nonNil makes an empty list [] rather than null.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// problem makes an error that the caller may see.
func problem(status int, format string, args ...any) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// get adds a route whose handler returns what is to be sent as JSON, or nil
// for no content.
func get(a *api, mux *http.ServeMux, pattern string, f func(*http.Request) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if v == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		a.send(w, http.StatusOK, "application/json", v)
	})
}

func (a *api) send(w http.ResponseWriter, status int, contentType string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		a.Log.Error("cannot encode an answer", "err", err)
		status, b = http.StatusInternalServerError, []byte(`{"title":"Internal Server Error","status":500}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a caller that is gone needs nothing
}

// fail sends an error. One that is not a Problem is ours: it is logged, and
// the caller is told no more than that.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *Problem
	if !errors.As(err, &p) {
		a.Log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		p = problem(http.StatusInternalServerError, "%v", err)
	}
	a.send(w, p.Status, "application/problem+json", p)
}

// machine finds a machine by name or hardware address.
func (a *api) machine(id string) (Machine, error) {
	mac, err := boot.ParseMAC(id)
	var names []string
	for _, m := range a.Machines() {
		if m.Name == id || err == nil && m.MAC == mac {
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
	if m.MAC.IsZero() {
		return []boot.Timeline{}, nil
	}
	list, err := a.Boots(r.Context(), m.MAC)
	return nonNil(list), err
}

func (a *api) nodes(r *http.Request) (any, error) {
	if a.Nodes == nil {
		return nil, problem(http.StatusNotFound, "bootd manages no swarm; add swarm: {} to bootd.yaml")
	}
	list, err := a.Nodes(r.Context())
	return nonNil(list), err
}

// record lets the operator's tools note what bootd cannot see itself: that a
// machine was switched on.
func (a *api) record(r *http.Request) (any, error) {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	d.DisallowUnknownFields()
	var e boot.Event
	if err := d.Decode(&e); err != nil {
		return nil, problem(http.StatusBadRequest, "the body is not an event: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, problem(http.StatusBadRequest, "there is more than one event in the body")
	}
	switch {
	case e.Stage != boot.Power:
		return nil, problem(http.StatusBadRequest, "stage %q cannot be recorded from outside, only %q", e.Stage, boot.Power)
	case e.MAC.IsZero():
		return nil, problem(http.StatusBadRequest, "the event has no mac")
	case e.Time.IsZero():
		return nil, problem(http.StatusBadRequest, "the event has no time")
	}
	return nil, a.Record(r.Context(), e)
}
