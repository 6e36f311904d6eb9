package main

import (
	"github.com/spf13/cobra"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

var flavorKinds = []string{"vm", "ephemeral-disk", "persistent-disk"}

func (a *app) flavorCommand() *cobra.Command {
	return group(&cobra.Command{Use: "flavor", Short: "what VMs and disks cost, and how large VMs are",
		Long: `A flavor is a size that VMs or disks come in, and what each one of it costs of the
resource ticket of its project.`},
		a.flavorCreateCommand(), a.flavorListCommand(), a.flavorShowCommand(), a.flavorDeleteCommand())
}

func addKind(c *cobra.Command, kind *string, what string) {
	c.Flags().StringVar(kind, "kind", *kind, "`kind` "+what+": vm, ephemeral-disk or persistent-disk")
	completeFlag(c, "kind", cobra.FixedCompletions(flavorKinds, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) flavorCreateCommand() *cobra.Command {
	in := photonwire.FlavorSpec{Kind: "vm"}
	var cost []string
	c := &cobra.Command{
		Use: "create NAME", Short: "make a flavor",
		Long: `Create makes a flavor. A VM's must say vm.cpu and vm.memory, which are how large
the VM is; whatever else it costs counts against the limits of projects. With a
cost like storage.SHARED_VMFS a disk goes only to datastores with that tag.`,
		Example: "  bootd flavor create small --kind vm --cost vm.cpu=1 --cost vm.memory=2GB\n  bootd flavor create fast --kind persistent-disk --cost storage.VSAN=1",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) (err error) {
			in.Name = args[0]
			if err := oneOf("kind", in.Kind, flavorKinds...); err != nil {
				return err
			}
			if in.Cost, err = amounts("cost", cost); err != nil {
				return err
			}
			task, err := a.api().Fleet().Do(c.Context(), "/flavors", in)
			return a.done(c.Context(), task, err, "flavor %s for a %s is made: %s", in.Name, in.Kind, task.Entity.ID)
		},
	}
	addKind(c, &in.Kind, "of what it is for")
	c.Flags().StringArrayVar(&cost, "cost", nil, "`KEY=NUMBER` with a unit or without; may be repeated")
	return c
}

func (a *app) flavorListCommand() *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use: "list", Short: "the flavors",
		Long: `List shows all flavors, with what one VM or disk of each costs.`, Args: exactly(), Example: "  bootd flavor list\n  bootd flavor list --kind vm",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := oneOf("kind", kind, flavorKinds...); err != nil {
				return err
			}
			list, err := client.FleetList[photonwire.Flavor](c.Context(), a.api().Fleet(), "/flavors", "kind", kind)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(list)
			}
			var rows [][]string
			for _, f := range list {
				rows = append(rows, []string{f.Name, f.Kind, f.ID, f.State, written(f.Cost)})
			}
			return a.table([]string{"FLAVOR", "KIND", "ID", "STATE", "COST"}, rows)
		},
	}
	addKind(c, &kind, "to list")
	return c
}

func (a *app) flavorShowCommand() *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use: "show FLAVOR", Short: "one flavor",
		Long: `Show prints one flavor, named by its name or ID.`, Example: "  bootd flavor show small --kind vm",
		Args: exactly("FLAVOR"), ValidArgsFunction: a.completeEntities("/flavors"),
		RunE: func(c *cobra.Command, args []string) error {
			found, err := a.named(c.Context(), "flavor", "/flavors", args[0], "kind", kind)
			if err != nil {
				return err
			}
			f, err := client.FleetGet[photonwire.Flavor](c.Context(), a.api().Fleet(), at("/flavors", found))
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(f)
			}
			return a.table([]string{"FLAVOR", f.Name}, [][]string{{"id", f.ID}, {"kind", f.Kind}, {"state", f.State}, {"cost", written(f.Cost)}})
		},
	}
	addKind(c, &kind, "of it, if several have the name")
	return c
}

func (a *app) flavorDeleteCommand() *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use: "delete FLAVOR", Short: "remove a flavor",
		Long: `Delete removes a flavor. One that VMs or disks still have goes when the last of
them is gone.`, Example: "  bootd flavor delete small --kind vm",
		Args: exactly("FLAVOR"), ValidArgsFunction: a.completeEntities("/flavors"),
		RunE: func(c *cobra.Command, args []string) error {
			found, err := a.named(c.Context(), "flavor", "/flavors", args[0], "kind", kind)
			if err != nil {
				return err
			}
			task, err := a.api().Fleet().Delete(c.Context(), at("/flavors", found))
			return a.done(c.Context(), task, err, "flavor %s is deleted", found.Name)
		},
	}
	addKind(c, &kind, "of it, if several have the name")
	return c
}
