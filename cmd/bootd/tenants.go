package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

func (a *app) tenantCommand() *cobra.Command {
	return group(&cobra.Command{Use: "tenant", Short: "who shares the hosts",
		Long: `A tenant is somebody who has projects of their own on the hosts. What all of them
together may use is in the tenant's resource tickets.`},
		a.tenantCreateCommand(),
		a.tenantListCommand(),
		a.tenantShowCommand(),
		a.tenantGroupsCommand(),
		&cobra.Command{
			Use: "delete TENANT", Short: "remove a tenant without projects, with its resource tickets",
			Long:    `Delete refuses a tenant that still has projects.`,
			Example: "  bootd tenant delete acme",
			Args:    exactly("TENANT"), ValidArgsFunction: a.completeEntities("/tenants"),
			RunE: func(c *cobra.Command, args []string) error {
				t, err := a.named(c.Context(), "tenant", "/tenants", args[0])
				if err != nil {
					return err
				}
				task, err := a.api().Fleet().Delete(c.Context(), at("/tenants", t))
				return a.done(c.Context(), task, err, "tenant %s is deleted", t.Name)
			},
		},
	)
}

func (a *app) tenantCreateCommand() *cobra.Command {
	var in photonwire.TenantSpec
	c := &cobra.Command{
		Use: "create NAME", Short: "make a tenant",
		Long: `Create makes a tenant. It may use nothing until it has a resource ticket, and
works in projects that are carved out of one.`,
		Example: "  bootd tenant create acme\n  bootd tenant create acme --group 'corp\\acme'",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			in.Name = args[0]
			task, err := a.api().Fleet().Do(c.Context(), "/tenants", in)
			return a.done(c.Context(), task, err, "tenant %s is made: %s", in.Name, task.Entity.ID)
		},
	}
	c.Flags().StringArrayVar(&in.SecurityGroups, "group", nil, "security `group` as DOMAIN\\GROUP; may be repeated")
	return c
}

func (a *app) tenantListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "the tenants, and what they have",
		Long: `List shows the tenants, with their resource tickets and projects.`, Args: exactly(),
		Example: "  bootd tenant list\n  bootd tenant list -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := client.FleetList[photonwire.Tenant](c.Context(), a.api().Fleet(), "/tenants")
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(list)
			}
			var rows [][]string
			for _, t := range list {
				rows = append(rows, []string{t.Name, t.ID, called(t.ResourceTickets), called(t.Projects)})
			}
			return a.table([]string{"TENANT", "ID", "TICKETS", "PROJECTS"}, rows)
		},
	}
}

func called(list []photonwire.Named) string {
	var out []string
	for _, n := range list {
		out = append(out, n.Name)
	}
	return strings.Join(out, ",")
}

func groupNames(list []photonwire.SecurityGroup) string {
	var out []string
	for _, g := range list {
		if g.Inherited {
			g.Name += " (inherited)"
		}
		out = append(out, g.Name)
	}
	return strings.Join(out, ", ")
}

func (a *app) tenantShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show TENANT", Short: "one tenant",
		Long: `Show prints one tenant, named by its name or ID.`, Example: "  bootd tenant show acme",
		Args: exactly("TENANT"), ValidArgsFunction: a.completeEntities("/tenants"),
		RunE: func(c *cobra.Command, args []string) error {
			found, err := a.named(c.Context(), "tenant", "/tenants", args[0])
			if err != nil {
				return err
			}
			t, err := client.FleetGet[photonwire.Tenant](c.Context(), a.api().Fleet(), at("/tenants", found))
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(t)
			}
			return a.table([]string{"TENANT", t.Name}, [][]string{
				{"id", t.ID}, {"tickets", called(t.ResourceTickets)}, {"projects", called(t.Projects)}, {"groups", groupNames(t.SecurityGroups)},
			})
		},
	}
}

func (a *app) tenantGroupsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set-groups TENANT [GROUP...]", Short: "replace a tenant's own security groups",
		Long: `Set-groups names the groups whose members may work in the tenant's projects.
Without a GROUP it has none of its own any more.`,
		Example: "  bootd tenant set-groups acme 'corp\\acme' 'corp\\ops'\n  bootd tenant set-groups acme",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("TENANT is missing: %s; see %s --help", c.UseLine(), c.CommandPath())}
			}
			return nil
		},
		ValidArgsFunction: a.completeEntities("/tenants"),
		RunE: func(c *cobra.Command, args []string) error {
			t, err := a.named(c.Context(), "tenant", "/tenants", args[0])
			if err != nil {
				return err
			}
			task, err := a.api().Fleet().Do(c.Context(), at("/tenants", t, "set_security_groups"), photonwire.Items{Items: append([]string{}, args[1:]...)})
			return a.done(c.Context(), task, err, "tenant %s has %d security group(s) of its own", t.Name, len(args)-1)
		},
	}
}

func (a *app) ticketCommand() *cobra.Command {
	return group(&cobra.Command{Use: "resource-ticket", Short: "what a tenant may use",
		Long: `A resource ticket is a list of limits, such as vm.memory=512GB, that a tenant's
projects share.`},
		a.ticketCreateCommand(), a.ticketListCommand(), a.ticketShowCommand())
}

func (a *app) ticketCreateCommand() *cobra.Command {
	var limits []string
	c := &cobra.Command{
		Use: "create NAME", Short: "give a tenant something that it may use",
		Long:    `Create makes a resource ticket with at least one limit.`,
		Example: "  bootd resource-ticket create gold --tenant acme --limit vm=100 --limit vm.memory=512GB",
		Args:    exactly("NAME"),
	}
	tenant := a.addTenant(c)
	c.Flags().StringArrayVar(&limits, "limit", nil, "`KEY=NUMBER` with a unit or without; may be repeated")
	c.RunE = func(c *cobra.Command, args []string) error {
		in := photonwire.ResourceTicketSpec{Name: args[0]}
		var err error
		if in.Limits, err = amounts("limit", limits); err != nil {
			return err
		}
		t, err := a.tenant(c.Context(), tenant)
		if err != nil {
			return err
		}
		task, err := a.api().Fleet().Do(c.Context(), at("/tenants", t, "resource-tickets"), in)
		return a.done(c.Context(), task, err, "tenant %s may use %s: resource ticket %s", t.Name, written(in.Limits), in.Name)
	}
	return c
}

func (a *app) ticketListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "a tenant's resource tickets, and how much of them projects have",
		Long: `List shows a tenant's resource tickets, and how much of each limit has been given
to projects.`, Args: exactly(),
		Example: "  bootd resource-ticket list --tenant acme",
	}
	tenant := a.addTenant(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		t, err := a.tenant(c.Context(), tenant)
		if err != nil {
			return err
		}
		list, err := client.FleetList[photonwire.ResourceTicket](c.Context(), a.api().Fleet(), at("/tenants", t, "resource-tickets"))
		if err != nil {
			return err
		}
		if a.format == "json" {
			return a.json(list)
		}
		var rows [][]string
		for _, r := range list {
			rows = append(rows, []string{r.Name, r.ID, usage(r.Limits, r.Usage)})
		}
		return a.table([]string{"TICKET", "ID", "USED"}, rows)
	}
	return c
}

func (a *app) ticketShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "show TICKET", Short: "one resource ticket",
		Long: `Show prints one resource ticket, named by its name or ID, with each of its limits.`, Example: "  bootd resource-ticket show gold --tenant acme",
		Args: exactly("TICKET"),
	}
	tenant := a.addTenant(c)
	c.ValidArgsFunction = a.completeOfTenant(tenant, "resource-tickets")
	c.RunE = func(c *cobra.Command, args []string) error {
		t, err := a.tenant(c.Context(), tenant)
		if err != nil {
			return err
		}
		found, err := a.named(c.Context(), "resource ticket", at("/tenants", t, "resource-tickets"), args[0])
		if err != nil {
			return err
		}
		r, err := client.FleetGet[photonwire.ResourceTicket](c.Context(), a.api().Fleet(), at("/resource-tickets", found))
		if err != nil {
			return err
		}
		if a.format == "json" {
			return a.json(r)
		}
		return a.table([]string{"TICKET", r.Name}, append([][]string{{"id", r.ID}, {"tenant", t.Name}}, used(r.Limits, r.Usage)...))
	}
	return c
}

// used is a row for each limit.
func used(limits, usage []photonwire.QuotaLine) [][]string {
	by := map[string]photonwire.QuotaLine{}
	for _, u := range usage {
		by[u.Key] = u
	}
	var rows [][]string
	for _, l := range limits {
		rows = append(rows, []string{l.Key, fmt.Sprintf("%s of %s %s", by[l.Key].Value, l.Value, strings.ToLower(strings.TrimPrefix(l.Unit, "COUNT")))})
	}
	return rows
}
