package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

func (a *app) projectCommand() *cobra.Command {
	return group(&cobra.Command{Use: "project", Short: "where a tenant's VMs, disks and clusters are",
		Long: `A project is a part of a tenant's resource ticket, with the VMs, disks and clusters
that use it.`},
		a.projectCreateCommand(), a.projectListCommand(), a.projectShowCommand(), a.projectDeleteCommand())
}

func (a *app) projectCreateCommand() *cobra.Command {
	var ticket string
	var limits, groups []string
	var percent int
	c := &cobra.Command{
		Use: "create NAME", Short: "carve a project out of a tenant's resource ticket",
		Long: `Create gives a project a part of what its tenant may use: a limit for each key of
the resource ticket, or the same percentage of all of them.`,
		Example: "  bootd project create web --ticket gold --limit vm=10 --limit vm.memory=64GB\n  bootd project create db --tenant acme --ticket gold --percent 25",
		Args:    exactly("NAME"),
	}
	tenant := a.addTenant(c)
	c.Flags().StringVar(&ticket, "ticket", "", "`name` of the tenant's resource ticket")
	c.Flags().StringArrayVar(&limits, "limit", nil, "`KEY=NUMBER` with a unit or without; may be repeated")
	c.Flags().IntVar(&percent, "percent", 0, "in the place of limits: the `share` of each of the ticket's")
	c.Flags().StringArrayVar(&groups, "group", nil, "security `group` as DOMAIN\\GROUP; may be repeated")
	c.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case ticket == "":
			return usageError{errors.New("say which resource ticket it is a part of: --ticket NAME")}
		case (percent != 0) == (len(limits) > 0):
			return usageError{errors.New("say either --limit, for each key of the ticket, or --percent")}
		case percent != 0:
			limits = []string{fmt.Sprintf("subdivide.percent=%d", percent)}
		}
		lines, err := amounts("limit", limits)
		if err != nil {
			return err
		}
		t, err := a.tenant(c.Context(), tenant)
		if err != nil {
			return err
		}
		task, err := a.api().Fleet().Do(c.Context(), at("/tenants", t, "projects"), photonwire.ProjectSpec{
			Name: args[0], ResourceTicket: &photonwire.ResourceTicketSpec{Name: ticket, Limits: lines}, SecurityGroups: groups,
		})
		return a.done(c.Context(), task, err, "project %s of tenant %s is made: %s", args[0], t.Name, task.Entity.ID)
	}
	return c
}

func (a *app) projectListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "a tenant's projects, and what they use",
		Long: `List shows a tenant's projects, and how much of its limits each one uses.`, Args: exactly(),
		Example: "  bootd project list --tenant acme",
	}
	tenant := a.addTenant(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		t, err := a.tenant(c.Context(), tenant)
		if err != nil {
			return err
		}
		list, err := client.FleetList[photonwire.Project](c.Context(), a.api().Fleet(), at("/tenants", t, "projects"))
		if err != nil {
			return err
		}
		if a.format == "json" {
			return a.json(list)
		}
		var rows [][]string
		for _, p := range list {
			rows = append(rows, []string{p.Name, p.ID, p.ResourceTicket.TenantTicketName, usage(p.ResourceTicket.Limits, p.ResourceTicket.Usage)})
		}
		return a.table([]string{"PROJECT", "ID", "TICKET", "USED"}, rows)
	}
	return c
}

// project finds a tenant's project by its name or ID.
func (a *app) project(c *cobra.Command, tenant *tenantFlag, given string) (entity, error) {
	t, err := a.tenant(c.Context(), tenant)
	if err != nil {
		return entity{}, err
	}
	return a.named(c.Context(), "project", at("/tenants", t, "projects"), given)
}

func (a *app) projectShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "show PROJECT", Short: "one project",
		Long: `Show prints one project, named by its name or ID, with each of its limits.`, Example: "  bootd project show web --tenant acme",
		Args: exactly("PROJECT"),
	}
	tenant := a.addTenant(c)
	c.ValidArgsFunction = a.completeOfTenant(tenant, "projects")
	c.RunE = func(c *cobra.Command, args []string) error {
		found, err := a.project(c, tenant, args[0])
		if err != nil {
			return err
		}
		p, err := client.FleetGet[photonwire.Project](c.Context(), a.api().Fleet(), at("/projects", found))
		if err != nil {
			return err
		}
		if a.format == "json" {
			return a.json(p)
		}
		return a.table([]string{"PROJECT", p.Name}, append([][]string{
			{"id", p.ID}, {"ticket", p.ResourceTicket.TenantTicketName}, {"groups", groupNames(p.SecurityGroups)},
		}, used(p.ResourceTicket.Limits, p.ResourceTicket.Usage)...))
	}
	return c
}

func (a *app) projectDeleteCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "delete PROJECT", Short: "remove an empty project",
		Long: `Delete removes a project that has no VMs, disks or clusters, and gives its limits
back to the resource ticket.`, Example: "  bootd project delete web --tenant acme",
		Args: exactly("PROJECT"),
	}
	tenant := a.addTenant(c)
	c.ValidArgsFunction = a.completeOfTenant(tenant, "projects")
	c.RunE = func(c *cobra.Command, args []string) error {
		found, err := a.project(c, tenant, args[0])
		if err != nil {
			return err
		}
		task, err := a.api().Fleet().Delete(c.Context(), at("/projects", found))
		return a.done(c.Context(), task, err, "project %s is deleted", found.Name)
	}
	return c
}
