package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"bootd/boot"
)

const (
	// keepAlive is how often a silent stream says that it is still there, so
	// that a reader notices a server that is gone.
	keepAlive = 15 * time.Second
	// stuck is how long a reader may take nothing. It can go on later, where
	// it stopped.
	stuck = time.Minute
)

// events sends the events that are kept, as server-sent events (HTML standard,
// section 9.2). Query: after=N, or the header Last-Event-ID, begins after event
// N; machine=NAME or machine=MAC keeps one machine's; follow goes on as events
// happen.
func (a *api) events(w http.ResponseWriter, r *http.Request) {
	q, err := a.query(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	s := &stream{w: w, rc: http.NewResponseController(w), query: q}
	if q.follow {
		a.follow(r.Context(), s)
		return
	}
	for _, e := range a.Past(q.after) {
		if s.event(e) != nil {
			return
		}
	}
}

// follow sends events until the reader is gone or the server ends.
func (a *api) follow(ctx context.Context, s *stream) {
	if s.flush() != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan Event)
	var source sync.WaitGroup
	source.Go(func() {
		defer close(events)
		err := a.Follow(ctx, s.after, func(e Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil && ctx.Err() == nil {
			a.Log.Error("events cannot be followed", "err", err)
		}
	})
	defer source.Wait()
	defer cancel()
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		var err error
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			if err = s.event(e); err == nil {
				err = s.flush()
			}
		case <-tick.C:
			if err = s.write(": still here\n\n"); err == nil {
				err = s.flush()
			}
		}
		if err != nil {
			return // the reader is gone, and can go on where it stopped
		}
	}
}

// A query says which events are wanted.
type query struct {
	after  uint64
	only   boot.MAC // zero: all machines
	follow bool
}

func (a *api) query(r *http.Request) (query, error) {
	var q query
	v := r.URL.Query()
	after := v.Get("after")
	if after == "" {
		after = r.Header.Get("Last-Event-ID")
	}
	if after != "" {
		n, err := strconv.ParseUint(after, 10, 64)
		if err != nil {
			return q, problem(http.StatusBadRequest, "after=%q is not the number of an event", after)
		}
		q.after = n
	}
	if v.Has("follow") {
		f, err := strconv.ParseBool(v.Get("follow"))
		if err != nil && v.Get("follow") != "" {
			return q, problem(http.StatusBadRequest, "follow=%q is neither true nor false", v.Get("follow"))
		}
		q.follow = f || v.Get("follow") == ""
	}
	id := v.Get("machine")
	if id == "" {
		return q, nil
	}
	// A machine that is still to come can be followed by its address.
	if mac, err := boot.ParseMAC(id); err == nil && !mac.IsZero() {
		q.only = mac
		return q, nil
	}
	m, err := a.machine(id)
	if err != nil {
		return q, err
	}
	if m.MAC.IsZero() {
		return q, problem(http.StatusConflict, "machine %q has not been seen yet, and its entry does not tell its MAC, so its events cannot be told from others", id)
	}
	q.only = m.MAC
	return q, nil
}

// A stream writes events to one reader.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
	query
	gap bool // what was asked for is no longer kept in full
}

func (s *stream) event(e Event) error {
	// Numbers follow each other as long as the server runs.
	s.gap = s.gap || s.after != 0 && e.Seq != s.after+1
	s.after = e.Seq
	if !s.only.IsZero() && e.MAC != s.only {
		return nil
	}
	e.Gap = s.gap
	s.gap = false
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("cannot encode an event: %w", err)
	}
	return s.write(fmt.Sprintf("id: %d\ndata: %s\n\n", e.Seq, b))
}

func (s *stream) write(text string) error {
	// Not every ResponseWriter can set a deadline; then there is none.
	_ = s.rc.SetWriteDeadline(time.Now().Add(stuck))
	_, err := s.w.Write([]byte(text))
	return err
}

func (s *stream) flush() error { return s.rc.Flush() }
