package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"bootd/internal/api"
)

// Power tells whether a machine is on.
func (c *Client) Power(ctx context.Context, id string) (api.PowerState, error) {
	return c.power(ctx, http.MethodGet, id, nil)
}

// Switch switches a machine, and returns when it is as ordered.
func (c *Client) Switch(ctx context.Context, id string, o api.PowerOrder) (api.PowerState, error) {
	return c.power(ctx, http.MethodPost, id, o)
}

func (c *Client) power(ctx context.Context, method, id string, in any) (s api.PowerState, err error) {
	resp, err := c.request(ctx, method, machinePath(id, "power"), in)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("cannot read the answer of bootd at %s: %w", c.socket, err)
	}
	return s, nil
}
