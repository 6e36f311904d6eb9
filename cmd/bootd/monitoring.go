package main

import (
	"io"

	"github.com/spf13/cobra"

	"bootd/internal/metrics"
)

func (a *app) monitoringCommand() *cobra.Command {
	c := &cobra.Command{Use: "monitoring", Short: "a dashboard for Grafana, and alerts for Prometheus",
		Long: `What bootd measures is at /metrics of the server's socket, and at metrics: {listen:
ADDRESS} for Prometheus. These commands print what to make of it.`}
	text := func(use, short, long, example, text string) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Long: long, Example: example, Args: exactly(),
			RunE: func(*cobra.Command, []string) error {
				_, err := io.WriteString(a.out, text)
				return err
			}}
	}
	return group(c,
		text("dashboard", "a dashboard for Grafana", `Dashboard prints the JSON that Grafana imports: machines and how long they take to
boot, leases, swarms, and what is not as it should be.`, "  bootd monitoring dashboard > bootd.json", metrics.Dashboard()),
		text("alerts", "rules for Prometheus", `Alerts prints a file of rules for Prometheus: what somebody should look at, each with
what helps.`, "  bootd monitoring alerts > /etc/prometheus/rules/bootd.yaml", metrics.Alerts()),
	)
}
