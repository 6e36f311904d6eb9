package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

func (a *app) imageCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "image", Short: "disks that VMs are copied from",
		Long: `An image is a disk of which VMs have copies. It is uploaded once, and copied to the
datastores of the hosts. What machines boot over the network are assets: see bootd asset.`,
	},
		a.imageCreateCommand(), a.imageListCommand(), a.imageShowCommand(), a.imageDeleteCommand())
}

func (a *app) imageCreateCommand() *cobra.Command {
	var name string
	var onDemand bool
	c := &cobra.Command{
		Use: "create FILE", Short: "upload a stream-optimized VMDK, or an OVA of one",
		Long: `Create uploads a disk as qemu-img makes it (-O vmdk -o subformat=streamOptimized), or an
appliance with one. It is ready when all datastores that VMs may be on have a copy.`,
		Example: "  bootd image create swarm.vmdk\n  bootd image create fedora-coreos-vmware.x86_64.ova --name fcos --on-demand",
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("cannot upload the image: %w", err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return fmt.Errorf("cannot upload the image: %w", err)
			}
			if name == "" {
				name = filepath.Base(args[0])
			}
			replication := "EAGER"
			if onDemand {
				replication = "ON_DEMAND"
			}
			bar := newUpload(a.err, name, info.Size())
			task, err := a.api().Fleet().Upload(c.Context(), name, replication, bar.reader(f))
			bar.close()
			return a.done(c.Context(), task, err, "image %s is ready: %s", name, task.Entity.ID)
		},
	}
	c.Flags().StringVar(&name, "name", "", "`name` of the image (default: the file's)")
	c.Flags().BoolVar(&onDemand, "on-demand", false, "copy it to a datastore when a VM needs it there, not to all at once")
	return c
}

func (a *app) imageListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "the images, and how far they are copied", Args: exactly(), Example: "  bootd image list\n  bootd image list -o json",
		Long: `List shows the images, and what share of the datastores that should have a copy has one.`,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := client.FleetList[photonwire.Image](c.Context(), a.api().Fleet(), "/images")
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(list)
			}
			var rows [][]string
			for _, i := range list {
				rows = append(rows, []string{i.Name, i.ID, i.State, size(i.Size), strings.ToLower(i.ReplicationType), i.ReplicationProgress})
			}
			return a.table([]string{"IMAGE", "ID", "STATE", "SIZE", "REPLICATION", "COPIED"}, rows)
		},
	}
}

func (a *app) imageShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show IMAGE", Short: "one image", Example: "  bootd image show fcos", Args: exactly("IMAGE"), ValidArgsFunction: a.completeEntities("/images"),
		Long: `Show prints one image, named by its name or ID.`,
		RunE: func(c *cobra.Command, args []string) error {
			found, err := a.named(c.Context(), "image", "/images", args[0])
			if err != nil {
				return err
			}
			i, err := client.FleetGet[photonwire.Image](c.Context(), a.api().Fleet(), at("/images", found))
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(i)
			}
			rows := [][]string{{"id", i.ID}, {"state", i.State}, {"size", size(i.Size)}, {"replication", strings.ToLower(i.ReplicationType)}, {"copied", i.ReplicationProgress}}
			for _, v := range i.Settings {
				rows = append(rows, []string{v.Name, v.DefaultValue})
			}
			return a.table([]string{"IMAGE", i.Name}, rows)
		},
	}
}

func (a *app) imageDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete IMAGE", Short: "delete an image: at once, or with its last VM", Example: "  bootd image delete fcos", Args: exactly("IMAGE"),
		Long:              `Delete keeps an image that VMs or clusters use until the last of them is gone.`,
		ValidArgsFunction: a.completeEntities("/images"),
		RunE: func(c *cobra.Command, args []string) error {
			found, err := a.named(c.Context(), "image", "/images", args[0])
			if err != nil {
				return err
			}
			task, err := a.api().Fleet().Delete(c.Context(), at("/images", found))
			return a.done(c.Context(), task, err, "image %s is deleted", found.Name)
		},
	}
}
