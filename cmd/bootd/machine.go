package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootd/boot"
	"bootd/internal/api"
	"bootd/internal/client"
	"bootd/internal/config"
)

// api is the client for the server: at the socket that was named, or the one
// that the configuration says, mistakes or not.
func (a *app) api() *client.Client {
	return client.New(cmp.Or(a.socket, config.Socket(a.dir)))
}

func (a *app) machineCommand() *cobra.Command {
	c := &cobra.Command{Use: "machine", Short: "the machines and their boots",
		Long: `A machine is known by an entry in machines/*.yaml, or because it asked for
something. These commands show what each one does, and order what is to happen to
it.`}
	group(c, a.orderCommands()...)
	group(c, a.powerCommand())
	return group(c,
		&cobra.Command{
			Use: "list", Short: "where each machine is",
			Long: `List shows every machine, the stage that its latest boot has reached, since when,
and what it waits for. With -o wide also the entry that it has, and what it says
of itself.`,
			Example: "  bootd machine list\n  bootd machine list --watch\n  bootd machine list -o wide",
			Args:    exactly(),
			RunE: func(c *cobra.Command, _ []string) error {
				list, err := a.api().Machines(c.Context())
				if err != nil {
					return err
				}
				if a.format == "json" {
					return a.json(list)
				}
				return a.machines(list, time.Now())
			},
		},
		&cobra.Command{
			Use: "show MACHINE", Short: "a machine, and its latest boot step by step",
			Long: `Show prints all that is known of a machine, named by its name or hardware address:
what it got when, by which way, and what is missing to go on.`,
			Example: "  bootd machine show node1\n  bootd machine show 52:54:00:00:00:01",
			Args:    exactly("MACHINE"), ValidArgsFunction: a.completeMachines,
			RunE: func(c *cobra.Command, args []string) error {
				m, err := a.api().Machine(c.Context(), args[0])
				if err != nil {
					return err
				}
				if a.format == "json" {
					return a.json(m)
				}
				return a.machine(m)
			},
		},
		&cobra.Command{
			Use: "explain MACHINE", Short: "every effective value of a machine, and the line it was written on",
			Example: "  bootd machine explain node1",
			Long: `Explain reads the configuration directory, not the running server, so it shows
what the machine would get at its next boot. What the server has learned of the
machine (its serial number) is used if the server answers.`,
			Args: exactly("MACHINE"), ValidArgsFunction: a.completeMachines,
			RunE: func(c *cobra.Command, args []string) error {
				cfg, err := config.Load(a.dir)
				if err != nil {
					return err
				}
				assigned, err := a.find(c, cfg, args[0])
				if err != nil {
					return err
				}
				values := assigned.Explain()
				if a.format == "json" {
					return a.json(values)
				}
				rows := make([][]string, len(values))
				for i, v := range values {
					rows[i] = []string{v.Key, clip(v.Value, 60), v.Origin.String()}
				}
				return a.table([]string{"KEY", "VALUE", "FROM"}, rows)
			},
		},
	)
}

func (a *app) completeMachines(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	if list, err := a.api().Machines(c.Context()); err == nil {
		for _, m := range list {
			names = append(names, m.Name)
		}
	} else if cfg, err := config.Load(a.dir); err == nil {
		for _, m := range cfg.Catalog.Machines {
			if len(m.Match.MAC) > 0 { // others get their names when they are seen
				names = append(names, m.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// find says what a machine, named by host name or hardware address, gets by
// the configuration.
func (a *app) find(c *cobra.Command, cfg *config.Config, id string) (boot.Assignment, error) {
	var inv boot.Inventory
	if m, err := a.api().Machine(c.Context(), id); err == nil {
		inv = m.Inventory
	}
	if mac, err := boot.ParseMAC(id); err == nil {
		inv.MAC = mac
	}
	var names []string
	for _, m := range cfg.Catalog.Machines {
		names = append(names, m.Name)
		if m.Name == id && len(m.Match.MAC) > 0 {
			inv.MAC = m.Match.MAC[0]
			inv.Addr = m.IP
		}
	}
	if inv.MAC.IsZero() {
		return boot.Assignment{}, fmt.Errorf("%s has no machine %q; it has %s. A machine that is named by a pattern can be explained when the server has seen it", cfg.Dir, id, strings.Join(names, ", "))
	}
	if !inv.Addr.IsValid() && len(cfg.Catalog.Networks) == 1 {
		inv.Addr = cfg.Catalog.Networks[0].Subnet.Addr()
	}
	return cfg.Catalog.Assign(inv)
}

func (a *app) machines(list []api.Machine, now time.Time) error {
	rows := make([][]string, len(list))
	for i, m := range list {
		mac := ""
		if !m.MAC.IsZero() {
			mac = m.MAC.String()
		}
		ip := ""
		if m.Addr.IsValid() {
			ip = m.Addr.String()
		}
		stage := string(m.Stage)
		if stage == "" {
			stage = "never seen"
		}
		waits, inv := m.Waits, m.Inventory
		if !a.wide {
			waits = clip(waits, 70)
		}
		arch := ""
		if inv.ArchKnown {
			arch = inv.Arch.String()
		}
		rows[i] = []string{m.Name, mac, ip, m.Profile, stage, ago(m.Since, now), waits,
			m.Entry, arch, inv.Manufacturer, inv.Product, inv.Serial, ago(m.FirstSeen, now)}
	}
	return a.wideTable(7, []string{"MACHINE", "MAC", "ADDRESS", "PROFILE", "STAGE", "SINCE", "WAITS",
		"ENTRY", "FIRMWARE", "MANUFACTURER", "PRODUCT", "SERIAL", "FIRST SEEN"}, rows)
}

func (a *app) machine(m api.Machine) error {
	fmt.Fprintf(a.out, "%s  %s\n", m.Name, m.MAC)
	for _, f := range [][2]string{
		{"profile", m.Profile}, {"entry", m.Entry}, {"waits", m.Waits}, {"serial", m.Inventory.Serial},
		{"manufacturer", m.Inventory.Manufacturer}, {"product", m.Inventory.Product}, {"uuid", m.Inventory.UUID},
	} {
		if f[1] != "" {
			fmt.Fprintf(a.out, "  %-13s %s\n", f[0], f[1])
		}
	}
	for _, line := range ordersOf(m.Ordered) {
		fmt.Fprintf(a.out, "  %-13s %s\n", "ordered", line)
	}
	if m.Boot == nil {
		_, err := fmt.Fprintln(a.out, "  it has not been seen yet")
		return err
	}
	fmt.Fprintf(a.out, "\nboot %s, begun %s\n", m.Boot.ID, m.Boot.Started.Format(time.DateTime))
	rows := make([][]string, len(m.Boot.Steps))
	for i, s := range m.Boot.Steps {
		count := ""
		if s.Count > 1 {
			count = fmt.Sprintf("%d times", s.Count)
		}
		rows[i] = []string{"+" + short(s.First.Sub(m.Boot.Started)), string(s.Stage), detail(s), count}
	}
	return a.table([]string{"TIME", "STAGE", "WHAT", ""}, rows)
}
