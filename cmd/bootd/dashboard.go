package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"bootd/internal/api"
	"bootd/internal/config"
)

func (a *app) dashboardCommand() *cobra.Command {
	return &cobra.Command{
		Use: "dashboard", Short: "a link to the dashboard, for a browser",
		Long: `Dashboard prints a link that lets one browser in, within ten minutes; it stays
logged in for twelve hours. The server must have dashboard: {} in bootd.yaml, and
listens for it on this machine only: from another one, forward the port with ssh
first.

Without dashboard: {}, whoever may use bootd's socket can forward that instead, and
needs no link: ssh -L 8080:/run/bootd/bootd.sock HOST, then http://localhost:8080/.`,
		Example: "  bootd dashboard\n  bootd dashboard -o json",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.api().Dashboard(c.Context())
			var p *api.Problem
			if errors.As(err, &p) && p.Status == http.StatusConflict {
				return fmt.Errorf("%w; or forward the socket: ssh -L 8080:%s HOST, then http://localhost:8080/", err, config.Socket(a.dir))
			}
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(d)
			}
			u, err := url.Parse(d.URL)
			if err != nil {
				return fmt.Errorf("cannot read the link that the server gave: %w", err)
			}
			_, err = fmt.Fprintf(a.out, "%s\n\nGood for one browser, within ten minutes. From another computer, first:\n  ssh -L %s:%s HOST\n", d.URL, u.Port(), u.Host)
			return err
		},
	}
}
