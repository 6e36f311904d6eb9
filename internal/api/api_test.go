package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/api"
	"bootd/internal/openapi/openapitest"
)

var (
	mac1  = boot.MAC{0x52, 0x54, 0, 0, 0, 1}
	mac2  = boot.MAC{0x52, 0x54, 0, 0, 0, 2}
	epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// A source is a list of events that grows, as the recorder's does.
type source struct {
	mu      sync.Mutex
	events  []api.Event
	changed chan struct{}
	readers int
	failure error // of Follow, when it has told the past
}

func newSource(events ...api.Event) *source {
	return &source{events: events, changed: make(chan struct{})}
}

func (s *source) add(e api.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *source) after(seq uint64) ([]api.Event, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []api.Event
	for _, e := range s.events {
		if e.Seq > seq {
			out = append(out, e)
		}
	}
	return out, s.changed
}

func (s *source) Past(seq uint64) []api.Event {
	out, _ := s.after(seq)
	return out
}

func (s *source) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers += n
}

func (s *source) Follow(ctx context.Context, seq uint64, f func(api.Event) error) error {
	s.count(1)
	defer s.count(-1)
	for {
		events, changed := s.after(seq)
		for _, e := range events {
			if err := f(e); err != nil {
				return err
			}
			seq = e.Seq
		}
		if s.failure != nil {
			return s.failure
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func event(seq uint64, mac boot.MAC, stage boot.Stage) api.Event {
	return api.Event{Seq: seq, Event: boot.Event{Time: epoch.Add(time.Duration(seq) * time.Second), MAC: mac, Stage: stage}}
}

var tl = boot.Timeline{ID: "00112233aabbccdd", MAC: mac1, Started: epoch, Steps: []boot.Step{{Stage: boot.Script, First: epoch, Last: epoch, Count: 1}}}

// config is an API whose server knows two machines; one was never seen.
func config(s *source) api.Config {
	return api.Config{
		Status: func() api.Status {
			return api.Status{Version: "1", Started: epoch, Problem: "bootd.yaml:3:1: no", Networks: []api.Network{}, Images: []api.Image{}}
		},
		Machines: func() []api.Machine {
			return []api.Machine{{Name: "node1", MAC: mac1, Stage: boot.Script, Boot: &tl}, {Name: "blade-{{.serial}}"}}
		},
		Boots: func(_ context.Context, mac boot.MAC) ([]boot.Timeline, error) {
			if mac != mac1 {
				return nil, errors.New("asked for " + mac.String())
			}
			return []boot.Timeline{tl}, nil
		},
		Leases: func() []api.Lease { return nil },
		Orders: &book{},
		Record: func(_ context.Context, e boot.Event) error {
			if e.Text == "fail" {
				return errors.New("the disk is full")
			}
			s.add(api.Event{Seq: uint64(len(s.events) + 1), Event: e})
			return nil
		},
		Past: s.Past, Follow: s.Follow,
		Log: slog.New(slog.DiscardHandler),
	}
}

func do(t *testing.T, h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body)))
	described(t).Answer(t, method, target, w.Code, w.Header(), w.Body.Bytes())
	return w
}

// described is the API as its document has it.
func described(t *testing.T) *openapitest.Document {
	t.Helper()
	text, err := api.Document("1")
	if err != nil {
		t.Fatal(err)
	}
	return openapitest.Load(t, text)
}

func TestAnswers(t *testing.T) {
	s := newSource()
	c := config(s)
	c.Swarms = &herd{err: &api.Problem{Title: "Service Unavailable", Status: 503, Detail: "the engine does not answer"}}
	h := api.New(c)
	const machine = `"name":"node1","mac":"52:54:00:00:00:01"`
	for _, tt := range []struct {
		method, target, body string
		status               int
		want                 string // part of the body
	}{
		{"GET", "/openapi.json", "", 200, `"openapi":"3.0.3"`},
		{"GET", "/v1/status", "", 200, `"problem":"bootd.yaml:3:1: no"`},
		{"GET", "/v1/machines", "", 200, machine},
		{"GET", "/v1/machines/node1", "", 200, machine},
		{"GET", "/v1/machines/NODE1", "", 200, machine},
		{"GET", "/v1/machines/52-54-00-00-00-01", "", 200, machine},
		{"GET", "/v1/machines/52:54:00:00:00:01/boots", "", 200, `[{"id":"00112233aabbccdd"`},
		{"GET", "/v1/machines/blade-%7B%7B.serial%7D%7D/boots", "", 200, "[]"},
		{"GET", "/v1/machines/node2", "", 404, "known: node1, blade-"},
		{"GET", "/v1/machines/00:00:00:00:00:00", "", 404, "there is no machine"},
		{"GET", "/v1/machines/52:54:00:00:00:02/boots", "", 404, "there is no machine"},
		{"GET", "/v1/leases", "", 200, "[]"},
		{"GET", "/v1/swarm/nodes", "", 503, "the engine does not answer"},
		{"GET", "/v2/status", "", 404, "there is no /v2/status here"},
		{"GET", "/", "", 404, "there is no / here"},
		{"POST", "/v1/status", "", 405, "only GET"},
		{"DELETE", "/v1/events", "", 405, "only GET, POST"},
		{"GET", "/v1/events?after=x", "", 400, "is not the number of an event"},
		{"GET", "/v1/events?follow=maybe", "", 400, "neither true nor false"},
		{"GET", "/v1/events?machine=node2", "", 404, "there is no machine"},
		{"GET", "/v1/events?machine=blade-%7B%7B.serial%7D%7D", "", 409, "has not been seen yet"},
		{"POST", "/v1/events", `{"stage":"power","mac":"52:54:00:00:00:01","time":"2026-03-01T12:00:00Z","boot":"ff","node":"n"}`, 204, ""},
		{"POST", "/v1/events", `{"stage":"power","mac":"52:54:00:00:00:01","time":"2026-03-01T12:00:00Z","text":"fail"}`, 500, "the disk is full"},
		{"POST", "/v1/events", `{"stage":"ready","mac":"52:54:00:00:00:01","time":"2026-03-01T12:00:00Z"}`, 400, "cannot be recorded from outside"},
		{"POST", "/v1/events", `{"stage":"power","time":"2026-03-01T12:00:00Z"}`, 400, "no mac"},
		{"POST", "/v1/events", `{"stage":"power","mac":"52:54:00:00:00:01"}`, 400, "no time"},
		{"POST", "/v1/events", `{"stage":"power","colour":"red"}`, 400, `unknown field \"colour\"`},
		{"POST", "/v1/events", `{"stage":"power"} {}`, 400, "something after"},
		{"POST", "/v1/events", `{"text":"` + strings.Repeat("x", 2<<20) + `"}`, 400, "too large"},
		{"POST", "/v1/events", ``, 400, "not an event"},
	} {
		t.Run(tt.method+tt.target, func(t *testing.T) {
			w := do(t, h, tt.method, tt.target, tt.body)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
				t.Fatalf("%d %s, want %d %s", w.Code, w.Body, tt.status, tt.want)
			}
			kind := w.Header().Get("Content-Type")
			switch {
			case tt.status == 204:
				if kind != "" || w.Body.Len() > 0 {
					t.Errorf("no content, but %q: %s", kind, w.Body)
				}
			case tt.status < 300 && kind != "application/json", tt.status >= 300 && kind != "application/problem+json":
				t.Errorf("content type %q", kind)
			case tt.status >= 300:
				var p api.Problem
				if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != tt.status || p.Title != http.StatusText(tt.status) {
					t.Errorf("%+v, %v", p, err)
				}
				if (tt.status == 405) != (w.Header().Get("Allow") != "") {
					t.Errorf("Allow: %q", w.Header().Get("Allow"))
				}
			}
		})
	}
	want := []api.Event{{Seq: 1, Event: boot.Event{Time: epoch, MAC: mac1, Stage: boot.Power}}}
	if diff := cmp.Diff(want, s.Past(0), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error("recorded:", diff)
	}
	t.Run("no swarm", func(t *testing.T) {
		c.Swarms = nil
		if w := do(t, api.New(c), "GET", "/v1/swarm/nodes", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "swarm: {}") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// TestErrorsAreLoggedOnce: what is not the caller's doing is in the log, what
// is, is not.
func TestErrorsAreLoggedOnce(t *testing.T) {
	var log strings.Builder
	c := config(newSource())
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	c.Boots = func(context.Context, boot.MAC) ([]boot.Timeline, error) { return nil, errors.New("no disk") }
	h := api.New(c)
	do(t, h, "GET", "/v1/machines/none", "")
	if log.Len() > 0 {
		t.Errorf("a caller's mistake was logged: %s", log.String())
	}
	do(t, h, "GET", "/v1/machines/node1/boots", "")
	if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), `err="no disk"`) {
		t.Errorf("log: %s", log.String())
	}
}

// FuzzRequests: whatever is asked, the answer is JSON, and an error is a problem
// of the same status.
func FuzzRequests(f *testing.F) {
	h := api.New(config(newSource(event(1, mac1, boot.Script))))
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		r, err := http.NewRequest(method, "http://bootd/", strings.NewReader(body))
		if err != nil {
			t.Skip()
		}
		r.URL.Path, r.URL.RawQuery = "/v1/"+path, query
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a stream that is followed ends at once
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(ctx))
		res := w.Result()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		switch kind := res.Header.Get("Content-Type"); {
		case res.StatusCode == 204, res.StatusCode/100 == 3, kind == "text/event-stream":
		case res.StatusCode == 200 && kind == "application/json" && json.Valid(b):
		case kind == "application/problem+json":
			var p api.Problem
			if err := json.Unmarshal(b, &p); err != nil || p.Status != res.StatusCode || p.Detail == "" {
				t.Errorf("%d: %s", res.StatusCode, b)
			}
		default:
			t.Errorf("%d %q: %s", res.StatusCode, kind, b)
		}
	})
}
