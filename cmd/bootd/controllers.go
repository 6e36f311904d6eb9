package main

import (
	"strings"

	"github.com/spf13/cobra"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

// theDeployment is the path of bootd itself, as Photon Controller's clients see
// it.
const theDeployment = "/deployments/default-deployment"

func (a *app) controllerCommand() *cobra.Command {
	var background bool
	pause := &cobra.Command{
		Use: "pause", Short: "take no changes, until it is resumed", Args: exactly(),
		Long: `Pause makes the controller refuse every change, over restarts of bootd too; looking
is possible. With --background people can change things, and only what the controller
does by itself stops.`,
		Example: "  bootd controller pause\n  bootd controller pause --background",
		RunE: func(c *cobra.Command, _ []string) error {
			verb, now := "pause_system", "the controller takes no changes until it is resumed"
			if background {
				verb, now = "pause_background_tasks", "the controller does nothing by itself until it is resumed"
			}
			task, err := a.api().Fleet().Do(c.Context(), theDeployment+"/"+verb, nil)
			return a.done(c.Context(), task, err, "%s", now)
		},
	}
	pause.Flags().BoolVar(&background, "background", false, "only what it does by itself")
	return group(&cobra.Command{Use: "controller", Short: "the controller of hosts, VMs and clusters",
		Long: `Controller commands are about the part of the server that has Photon Controller's
API: hosts, images, VMs and clusters of tenants. controller: {} in bootd.yaml
switches it on.`},
		a.controllerShowCommand(),
		pause,
		&cobra.Command{
			Use: "resume", Short: "take changes again",
			Long: `Resume ends a pause, of people's changes and of what the controller does by itself.`, Example: "  bootd controller resume", Args: exactly(),
			RunE: func(c *cobra.Command, _ []string) error {
				task, err := a.api().Fleet().Do(c.Context(), theDeployment+"/resume_system", nil)
				return a.done(c.Context(), task, err, "the controller takes changes")
			},
		},
	)
}

func (a *app) controllerShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "where it is reached, and its certificate", Args: exactly(),
		Long: `Show prints what the tools of Photon Controller need: the address, and the
fingerprints of the certificate that photon target set asks to accept.`,
		Example: "  bootd controller show\n  bootd controller show -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			f := a.api().Fleet()
			e, err := client.FleetGet[photonwire.Endpoint](c.Context(), f, "/endpoint")
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(e)
			}
			d, err := client.FleetGet[photonwire.Deployment](c.Context(), f, theDeployment)
			if err != nil {
				return err
			}
			if e.Address == "" {
				return a.table([]string{"CONTROLLER", "on bootd's socket only; for photon, configure listen"}, [][]string{{"state", d.State}})
			}
			cert := e.Certificate
			return a.table([]string{"CONTROLLER", "https://" + e.Address}, [][]string{
				{"state", d.State}, {"auth", e.Auth}, {"names", strings.Join(cert.Names, ", ")}, {"valid until", clock(cert.NotAfter)},
				{"SHA-256", cert.SHA256}, {"SHA-1", cert.SHA1}, {"MD5", cert.MD5},
			})
		},
	}
}
