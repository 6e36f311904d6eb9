package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootd/internal/api"
)

func (a *app) leaseCommand() *cobra.Command {
	c := &cobra.Command{Use: "lease", Short: "the addresses that were given out",
		Long: `Lease commands are about the addresses that the server's DHCP has given to
machines.`}
	return group(c, a.leaseReleaseCommand(), &cobra.Command{
		Use: "list", Short: "who has which address",
		Long: `List shows every lease: offered, bound, released (kept for the same machine as long
as others are free), declined (somebody else uses the address) or expired.`,
		Example: "  bootd lease list",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := a.api().Leases(c.Context())
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(list)
			}
			rows := make([][]string, len(list))
			for i, l := range list {
				rows[i] = []string{l.Addr.String(), l.MAC.String(), l.Network, l.State, until(l.Expires, time.Now()), l.Host}
			}
			return a.table([]string{"ADDRESS", "MAC", "NETWORK", "STATE", "EXPIRES", "HOST"}, rows)
		},
	})
}

func (a *app) leaseReleaseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "release ADDRESS...", Short: "take addresses back",
		Long: `Release ends leases. A machine that still runs with such an address goes on using
it until it asks again: switch it off first. The address is kept for the same
machine as long as others are free.`,
		Example: "  bootd lease release 10.0.0.117",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("say which: bootd lease release 10.0.0.117")}
			}
			for _, s := range args {
				if _, err := netip.ParseAddr(s); err != nil {
					return usageError{fmt.Errorf("%q is not an address", s)}
				}
			}
			return nil
		},
		ValidArgsFunction: func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			list, _ := a.api().Leases(c.Context()) // without a server there is nothing to offer
			var addrs []string
			for _, l := range list {
				addrs = append(addrs, l.Addr.String())
			}
			return addrs, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			var failed error
			for _, s := range args {
				if err := a.api().Release(c.Context(), netip.MustParseAddr(s)); err != nil {
					failed = errors.Join(failed, err)
					continue
				}
				fmt.Fprintf(a.out, "%s is released\n", s)
			}
			return failed
		},
	}
}

func until(t, now time.Time) string {
	if t.Before(now) {
		return ago(t, now)
	}
	return "in " + short(t.Sub(now))
}

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var machine string
	c := &cobra.Command{
		Use:   "events",
		Short: "what has happened, and what happens",
		Long: `Events shows each step of each boot as the server noted it: the newest thousands,
and with --follow what comes from now on. With -o json or yaml each event is a
document of its own.`,
		Example: "  bootd events --follow\n  bootd events --machine node1 -o json",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.api().Events(c.Context(), machine, 0, follow, a.event)
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as events happen")
	c.Flags().StringVar(&machine, "machine", "", "only those of one machine, by `name` or hardware address")
	completeFlag(c, "machine", a.completeMachines)
	return c
}

// event writes one event as a line; as JSON, too.
func (a *app) event(e api.Event) error {
	if a.format == "json" {
		return a.jsonLine(e)
	}
	if e.Gap {
		fmt.Fprintln(a.err, "bootd: some events before this one are no longer kept")
	}
	parts := []string{e.Time.Format("15:04:05.000"), e.MAC.String(), fmt.Sprintf("%-8s", e.Stage)}
	if e.Client != "" {
		parts = append(parts, string(e.Client))
	}
	if e.Addr.IsValid() {
		parts = append(parts, e.Addr.String())
	}
	if e.Text != "" {
		parts = append(parts, e.Text)
	}
	if e.Bytes > 0 {
		parts = append(parts, size(e.Bytes)+" in "+short(e.Took))
	}
	_, err := fmt.Fprintln(a.out, strings.TrimRight(strings.Join(parts, "  "), " "))
	return err
}
