package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bootd/boot"
	"bootd/internal/api"
)

// lines are the IDs and marks of a stream, in short.
func lines(body string) string {
	var out []string
	for l := range strings.Lines(body) {
		l = strings.TrimSpace(l)
		switch {
		case strings.HasPrefix(l, "id: "):
			out = append(out, l[4:])
		case strings.Contains(l, `"gap":true`):
			out = append(out, "gap")
		case strings.HasPrefix(l, ":"):
			out = append(out, "alive")
		}
	}
	return strings.Join(out, " ")
}

func TestPastEvents(t *testing.T) {
	h := api.New(config(newSource(event(5, mac1, boot.Offered), event(6, mac2, boot.Offered), event(7, mac1, boot.Leased), event(8, mac2, boot.Leased))))
	for _, tt := range []struct{ query, last, want string }{
		{"", "", "5 6 7 8"},
		{"?after=6", "", "7 8"},
		{"", "6", "7 8"},
		{"?after=7", "5", "8"},
		{"?after=8", "", ""},
		{"?after=4", "", "5 6 7 8"},
		{"?after=3", "", "5 gap 6 7 8"}, // 4 is forgotten
		{"?machine=node1", "", "5 7"},
		{"?machine=52:54:00:00:00:02", "", "6 8"},
		{"?machine=52:54:00:00:00:02&after=3", "", "6 gap 8"},
		{"?machine=52:54:00:00:00:99", "", ""}, // not seen yet
		{"?follow=false", "", "5 6 7 8"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/events"+tt.query, nil)
		if tt.last != "" {
			r.Header.Set("Last-Event-ID", tt.last)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := lines(w.Body.String()); w.Code != 200 || got != tt.want || w.Header().Get("Content-Type") != "text/event-stream" {
			t.Errorf("%s %s: %d %s, want %s", tt.query, tt.last, w.Code, got, tt.want)
		}
	}
	if w := do(t, h, "HEAD", "/v1/events?follow", ""); w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("HEAD: %d %s", w.Code, w.Body)
	}
}

// TestFollowEvents: past, present, silence; and when the reader is gone, nothing
// is left running (which synctest checks).
func TestFollowEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(event(1, mac1, boot.Offered))
		h := api.New(config(s))
		ctx, cancel := context.WithCancel(t.Context())
		w := httptest.NewRecorder()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/v1/events?follow&machine=node1", nil))
		}()
		synctest.Wait()
		s.add(event(2, mac1, boot.Leased))
		s.add(event(3, mac2, boot.Leased))
		synctest.Wait()
		time.Sleep(31 * time.Second)
		s.add(event(4, mac1, boot.Script))
		synctest.Wait()
		cancel()
		<-ended
		if got, want := lines(w.Body.String()), "1 2 alive alive 4"; got != want || !w.Flushed {
			t.Errorf("got %s, want %s", got, want)
		}
		if s.readers != 0 {
			t.Errorf("%d still follow", s.readers)
		}
	})
}

// A broken writer is a reader that is gone, while the request does not show it.
type broken struct{ *httptest.ResponseRecorder }

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestReaderGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := api.New(config(s))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			h.ServeHTTP(broken{httptest.NewRecorder()}, httptest.NewRequestWithContext(t.Context(), "GET", "/v1/events?follow", nil))
		}()
		synctest.Wait()
		for i := range uint64(3) {
			s.add(event(i+1, mac1, boot.Offered))
		}
		<-ended // a deadlock here fails the test
		if s.readers != 0 {
			t.Errorf("%d still follow", s.readers)
		}
	})
}

func TestSourceFails(t *testing.T) {
	var log strings.Builder
	s := newSource(event(1, mac1, boot.Offered))
	s.failure = errors.New("the record is closed")
	c := config(s)
	c.Log = logTo(&log)
	w := do(t, api.New(c), http.MethodGet, "/v1/events?follow=true", "")
	if lines(w.Body.String()) != "1" || !strings.Contains(log.String(), "the record is closed") {
		t.Errorf("stream %q, log %q", w.Body, log.String())
	}
}
