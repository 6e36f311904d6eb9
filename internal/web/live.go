package web

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// keepAlive is how often a silent stream says that it is still there.
	keepAlive = 15 * time.Second
	// stuck is how long a reader may take nothing; a browser comes again.
	stuck = time.Minute
	// gather is how long events are gathered into one message: a rack that is
	// switched on must not keep its readers busy.
	gather = 100 * time.Millisecond
)

// live tells as server-sent events which machines something has happened to; the
// script decides whether that concerns its page.
func (d *dashboard) live(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64)
	if err != nil { // a page that was just made
		after = d.latest()
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	// Not every ResponseWriter can set deadlines; then there are none.
	_ = rc.SetReadDeadline(time.Time{})
	send := func(text string) error {
		_ = rc.SetWriteDeadline(time.Now().Add(stuck))
		if _, err := w.Write([]byte(text)); err != nil {
			return err
		}
		return rc.Flush()
	}
	if send(": hello\n\n") != nil {
		return
	}
	d.follow(r.Context(), after, send)
}

// latest is the number of the latest event; 0: there is none.
func (d *dashboard) latest() uint64 {
	if past := d.Events.Past(0); len(past) > 0 {
		return past[len(past)-1].Seq
	}
	return 0
}

// follow sends what happens until the reader is gone or the server ends.
func (d *dashboard) follow(ctx context.Context, after uint64, send func(string) error) {
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan Event)
	var source sync.WaitGroup
	source.Go(func() {
		defer close(events)
		err := d.Events.Follow(ctx, after, func(e Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil && ctx.Err() == nil {
			d.Log.Error("events cannot be followed", "err", err)
		}
	})
	defer source.Wait()
	defer cancel()
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			text, more := message(e, events)
			if send(text) != nil || !more {
				return
			}
		case <-tick.C:
			if send(": still here\n\n") != nil {
				return
			}
		}
	}
}

// message tells of an event and of those that come soon after it. It reports
// false when no more can come.
func message(first Event, events <-chan Event) (text string, more bool) {
	macs, last := map[string]bool{first.MAC.String(): true}, first.Seq
	done := time.After(gather)
	more = true
	for more {
		var e Event
		select {
		case e, more = <-events:
			if more {
				macs[e.MAC.String()], last = true, e.Seq
			}
			continue
		case <-done:
		}
		break
	}
	names := "*"
	if len(macs) <= 50 { // a reader looks for its own only
		names = strings.Join(slices.Sorted(maps.Keys(macs)), " ")
	}
	return fmt.Sprintf("id: %d\ndata: %s\n\n", last, names), more
}
