package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"bootd/boot"
)

// keepAlive is how often a silent stream says that it is still there, so that
// a reader notices a server that is gone.
const keepAlive = 15 * time.Second

// events streams events as they happen (HTML standard, server-sent events).
// Query: after=N or the header Last-Event-ID goes on after event N, and
// machine=NAME or machine=MAC keeps one machine's.
func (a *api) events(w http.ResponseWriter, r *http.Request) {
	after, err := position(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	var only boot.MAC
	if id := r.URL.Query().Get("machine"); id != "" {
		m, err := a.machine(id)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		only = m.MAC
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.Flush() // a reader that is gone shows at the next write

	events := make(chan Event)
	ctx := r.Context()
	ended := make(chan error, 1)
	go func() {
		defer close(events)
		ended <- a.Follow(ctx, after, func(e Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	defer func() {
		for range events { // until Follow has seen that the reader is gone
		}
		<-ended
	}()
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			if !only.IsZero() && e.MAC != only {
				continue
			}
			b, err := json.Marshal(e)
			if err != nil {
				a.Log.Error("cannot encode an event", "err", err)
				continue
			}
			if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.Seq, b); err != nil {
				return
			}
		case <-tick.C:
			if _, err := fmt.Fprint(w, ": still here\n\n"); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
	}
}

func position(r *http.Request) (uint64, error) {
	s := r.Header.Get("Last-Event-ID")
	if q := r.URL.Query().Get("after"); q != "" {
		s = q
	}
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, problem(http.StatusBadRequest, "after=%q is not the number of an event", s)
	}
	return n, nil
}
