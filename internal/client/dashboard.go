package client

import (
	"context"
	"net/http"
)

// A Dashboard is where the server's pages are.
type Dashboard struct {
	URL string `json:"url"` // lets one browser in, within ten minutes
}

// Dashboard asks for a way into the dashboard. It is an [api.Problem] that it has
// no port.
func (c *Client) Dashboard(ctx context.Context) (Dashboard, error) {
	return call[Dashboard](ctx, c, http.MethodPost, "/v1/dashboard", nil)
}
