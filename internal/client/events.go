package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"bootd/internal/api"
)

const (
	// again is how long to wait for a server that is gone.
	again = time.Second
	// silence is how long a stream may say nothing, not even that it is still
	// there, which the server does every 15 seconds.
	silence = time.Minute
	// maxEvent bounds the text of one event, in bytes.
	maxEvent = 1 << 20
)

// Events calls f with each event after the one numbered after, those of the
// past first. An empty machine means all; otherwise it is a name or hardware
// address. With follow it goes on until ctx ends, which is no error, or f fails;
// a server that goes away is waited for, and the first connection must succeed.
// Without follow it ends when the past has been told.
func (c *Client) Events(ctx context.Context, machine string, after uint64, follow bool, f func(api.Event) error) error {
	connected := false
	for {
		gone, err := c.stream(ctx, query(machine, after, follow), func(e api.Event) error {
			after = e.Seq
			return f(e)
		})
		connected = connected || gone
		switch {
		case ctx.Err() != nil && follow:
			return nil
		case err != nil && !gone && !(connected && errors.Is(err, ErrUnreachable)):
			return err
		case !follow:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
		}
	}
}

func query(machine string, after uint64, follow bool) string {
	q := url.Values{}
	if after != 0 {
		q.Set("after", fmt.Sprint(after))
	}
	if machine != "" {
		q.Set("machine", machine)
	}
	if follow {
		q.Set("follow", "true")
	}
	return q.Encode()
}

// stream reads events until the stream ends. It reports whether it ended by
// itself or by its connection, rather than by f or by what came.
func (c *Client) stream(ctx context.Context, q string, f func(api.Event) error) (gone bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.request(ctx, http.MethodGet, "/v1/events?"+q, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	dead := time.AfterFunc(silence, cancel)
	defer dead.Stop()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		dead.Reset(silence)
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e api.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return false, fmt.Errorf("bootd at %s sent an event that cannot be read: %w", c.socket, err)
		}
		if err := f(e); err != nil {
			return false, err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return false, fmt.Errorf("bootd at %s sent an event that cannot be read: %w", c.socket, lines.Err())
	}
	if lines.Err() != nil {
		return true, fmt.Errorf("%w (%w): it went away while it told its events", ErrUnreachable, lines.Err())
	}
	return true, nil
}
