// Package client asks a running bootd, for the command line.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"bootd/boot"
	"bootd/internal/api"
)

// ErrUnreachable is in the error of every method when no bootd answers.
var ErrUnreachable = errors.New("bootd does not answer")

// A Client talks to the bootd at one socket. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client for the socket at a path. Nothing is connected yet.
func New(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Status tells how the server is.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	var v api.Status
	return v, c.do(ctx, http.MethodGet, "/v1/status", nil, &v)
}

// Machines lists the machines that are configured or have been seen.
func (c *Client) Machines(ctx context.Context) ([]api.Machine, error) {
	var v []api.Machine
	return v, c.do(ctx, http.MethodGet, "/v1/machines", nil, &v)
}

// Machine returns the machine with a name or hardware address.
func (c *Client) Machine(ctx context.Context, id string) (api.Machine, error) {
	var v api.Machine
	return v, c.do(ctx, http.MethodGet, "/v1/machines/"+url.PathEscape(id), nil, &v)
}

// Boots lists the boots of a machine that are remembered, newest first.
func (c *Client) Boots(ctx context.Context, id string) ([]boot.Timeline, error) {
	var v []boot.Timeline
	return v, c.do(ctx, http.MethodGet, "/v1/machines/"+url.PathEscape(id)+"/boots", nil, &v)
}

// Leases lists the leases.
func (c *Client) Leases(ctx context.Context) ([]api.Lease, error) {
	var v []api.Lease
	return v, c.do(ctx, http.MethodGet, "/v1/leases", nil, &v)
}

// SwarmNodes lists the nodes of the swarm.
func (c *Client) SwarmNodes(ctx context.Context) ([]api.Node, error) {
	var v []api.Node
	return v, c.do(ctx, http.MethodGet, "/v1/swarm/nodes", nil, &v)
}

// Report records what bootd cannot see itself: that a machine was switched on.
func (c *Client) Report(ctx context.Context, e boot.Event) error {
	return c.do(ctx, http.MethodPost, "/v1/events", e, nil)
}

// Events calls f with each event after the one numbered after, those of the
// past first. An empty machine means all. With follow it goes on until ctx ends
// or f fails, also over restarts of the server; without, it ends when nothing
// has come for a moment.
func (c *Client) Events(ctx context.Context, machine string, after uint64, follow bool, f func(api.Event) error) error {
	for {
		err := c.stream(ctx, machine, &after, follow, f)
		switch {
		case ctx.Err() != nil:
			return nil
		case !follow || !errors.Is(err, ErrUnreachable) && !errors.Is(err, io.ErrUnexpectedEOF):
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
		after = 0 // a new server counts anew
	}
}

// quiet is how long nothing comes when the past has been told.
const quiet = 300 * time.Millisecond

func (c *Client) stream(ctx context.Context, machine string, after *uint64, follow bool, f func(api.Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := errors.New("all told")
	idle := time.AfterFunc(time.Hour, func() { cancel(done) })
	defer idle.Stop()
	q := url.Values{"after": {fmt.Sprint(*after)}}
	if machine != "" {
		q.Set("machine", machine)
	}
	resp, err := c.request(ctx, http.MethodGet, "/v1/events?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !follow {
		idle.Reset(quiet)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e api.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("bootd at %s sent an event that cannot be read: %w", c.socket, err)
		}
		if err := f(e); err != nil {
			return err
		}
		*after = e.Seq
		if !follow {
			idle.Reset(quiet)
		}
	}
	if errors.Is(context.Cause(ctx), done) {
		return nil
	}
	return io.ErrUnexpectedEOF
}

// do sends a request and decodes the answer into out, which may be nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("cannot read the answer of bootd at %s: %w", c.socket, err)
	}
	return nil
}

func (c *Client) request(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://bootd"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var cause *net.OpError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return nil, fmt.Errorf("%w at %s (%v); start it with `bootd serve`, or name another socket with --socket", ErrUnreachable, c.socket, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	p := &api.Problem{Title: resp.Status, Status: resp.StatusCode}
	_ = json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(p) // what is not a problem shows its status
	return nil, p
}
