package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"bootd/boot"
	"bootd/internal/api"
)

// ErrUnreachable is in the error of every method when no bootd answers.
var ErrUnreachable = errors.New("bootd is not running")

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
	return get[api.Status](ctx, c, "/v1/status")
}

// Machines lists the machines that are configured or have been seen.
func (c *Client) Machines(ctx context.Context) ([]api.Machine, error) {
	return get[[]api.Machine](ctx, c, "/v1/machines")
}

// Machine returns the machine with a name or hardware address.
func (c *Client) Machine(ctx context.Context, id string) (api.Machine, error) {
	return get[api.Machine](ctx, c, machinePath(id))
}

// Boots lists the boots of a machine that are remembered, newest first.
func (c *Client) Boots(ctx context.Context, id string) ([]boot.Timeline, error) {
	return get[[]boot.Timeline](ctx, c, machinePath(id, "boots"))
}

// Leases lists the leases.
func (c *Client) Leases(ctx context.Context) ([]api.Lease, error) {
	return get[[]api.Lease](ctx, c, "/v1/leases")
}

// SwarmNodes lists the nodes of a swarm; of all when swarm is empty.
func (c *Client) SwarmNodes(ctx context.Context, swarm string) ([]api.Node, error) {
	return get[[]api.Node](ctx, c, "/v1/swarm/nodes"+params("swarm", swarm))
}

// SetAvailability drains, pauses or activates a node. In this and the methods
// below swarm may be empty: see [api.Swarms].
func (c *Client) SetAvailability(ctx context.Context, swarm, node string, in api.Availability) (api.Node, error) {
	return call[api.Node](ctx, c, http.MethodPut, "/v1/swarm/nodes/"+url.PathEscape(node)+"/availability"+params("swarm", swarm), in)
}

// RemoveNode makes a swarm forget a node.
func (c *Client) RemoveNode(ctx context.Context, swarm, node string, force bool) (api.Removal, error) {
	return call[api.Removal](ctx, c, http.MethodDelete, "/v1/swarm/nodes/"+url.PathEscape(node)+params("swarm", swarm, "force", truth(force)), nil)
}

// Prune removes the nodes of a swarm that are down; with dryRun it only tells
// which.
func (c *Client) Prune(ctx context.Context, swarm string, dryRun bool) ([]api.Removal, error) {
	return call[[]api.Removal](ctx, c, http.MethodPost, "/v1/swarm/prune"+params("swarm", swarm, "dry_run", truth(dryRun)), nil)
}

// RotateTokens makes the join tokens of a swarm invalid.
func (c *Client) RotateTokens(ctx context.Context, swarm string) error {
	return c.do(ctx, http.MethodPost, "/v1/swarm/tokens/rotate"+params("swarm", swarm), nil)
}

// ReplaceSwarm gives up a swarm that is lost.
func (c *Client) ReplaceSwarm(ctx context.Context, swarm string) (api.Replaced, error) {
	return call[api.Replaced](ctx, c, http.MethodPost, "/v1/swarm/replace"+params("swarm", swarm), nil)
}

func truth(b bool) string {
	if b {
		return "true"
	}
	return ""
}

// params makes the end of a URL from names and values; empty ones are left out.
func params(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

// Approve lets an unknown machine boot.
func (c *Client) Approve(ctx context.Context, id string, in api.Approval) error {
	return c.do(ctx, http.MethodPost, machinePath(id, "approve"), in)
}

// Next orders another profile for a machine's next boot; nil takes the order
// back.
func (c *Client) Next(ctx context.Context, id string, in *api.Next) error {
	if in == nil {
		return c.do(ctx, http.MethodDelete, machinePath(id, "next"), nil)
	}
	return c.do(ctx, http.MethodPut, machinePath(id, "next"), in)
}

// Install orders that a machine's disk is installed anew at its next boot, or
// takes that back.
func (c *Client) Install(ctx context.Context, id string, wanted bool) error {
	method := http.MethodPut
	if !wanted {
		method = http.MethodDelete
	}
	return c.do(ctx, method, machinePath(id, "install"), nil)
}

// Forget drops what is known of a machine.
func (c *Client) Forget(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, machinePath(id), nil)
}

// Release takes an address back from who has it.
func (c *Client) Release(ctx context.Context, addr netip.Addr) error {
	return c.do(ctx, http.MethodDelete, "/v1/leases/"+addr.String(), nil)
}

func machinePath(id string, more ...string) string {
	return "/v1/machines/" + strings.Join(append([]string{url.PathEscape(id)}, more...), "/")
}

// Report records what bootd cannot see itself: that a machine was switched on
// (stage power, with its MAC and the time).
func (c *Client) Report(ctx context.Context, e boot.Event) error {
	return c.do(ctx, http.MethodPost, "/v1/events", e)
}

// do sends a request whose answer says nothing.
func (c *Client) do(ctx context.Context, method, path string, in any) error {
	resp, err := c.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// get fetches a value.
func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, nil)
}

// call sends a request and returns its answer.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (v T, err error) {
	resp, err := c.request(ctx, method, path, in)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return v, fmt.Errorf("cannot read the answer of bootd at %s: %w", c.socket, err)
	}
	return v, nil
}

// maxProblem bounds an error's text, in bytes.
const maxProblem = 1 << 16

// request sends a request. An answer that is an error is returned as a
// [api.Problem].
func (c *Client) request(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("cannot encode a request to bootd: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://bootd"+path, body)
	if err != nil {
		return nil, fmt.Errorf("cannot make a request to bootd: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	p := &api.Problem{Title: resp.Status, Status: resp.StatusCode}
	_ = json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(p) // what is no problem shows its status
	return nil, p
}

// explain makes of an error of net/http what the person who typed a command can
// do something about.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" {
		return fmt.Errorf("%w (%w): it went away before it had answered; see its log", ErrUnreachable, err)
	}
	cause := op.Err
	if sys := (*os.SyscallError)(nil); errors.As(cause, &sys) {
		cause = sys.Err // the text names the call already
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("cannot connect to bootd at %s: %w; be root, or in the group that owns it", c.socket, cause)
	}
	return fmt.Errorf("%w (cannot connect to %s: %w); start it with `bootd serve`, or name another socket with --socket",
		ErrUnreachable, c.socket, cause)
}
