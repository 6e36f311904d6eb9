package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

func (a *app) vmCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "vm", Short: "virtual machines on the controller's hosts",
		Long: `VMs belong to a project, which pays for them, and are placed on a host with room. One
without a disk boots from the network, like a machine of the rack.`,
	},
		a.vmCreateCommand(), a.vmListCommand(), a.vmShowCommand(),
		a.vmSwitchCommand("start", "switch a VM on", "Start switches a VM on, or goes on with a suspended one.", "is on"),
		a.vmSwitchCommand("stop", "switch a VM off, at once", "Stop switches a VM off, as pulling its plug would. What runs in it is not asked.", "is off"),
		a.vmSwitchCommand("restart", "press a VM's reset button", "Restart has a VM begin anew, as a reset button would. What runs in it is not asked.", "begins anew"),
		a.vmSwitchCommand("suspend", "halt a VM, and keep its memory", "Suspend halts a VM that is on, and keeps its memory on the datastore.", "is suspended"),
		a.vmSwitchCommand("resume", "go on with a suspended VM", "Resume has a suspended VM go on where it was halted.", "is on"),
		a.vmDeleteCommand())
}

// vm finds a VM of a project by its name or ID.
func (a *app) vm(c *cobra.Command, f *projectFlags, given string) (entity, error) {
	p, err := a.projectOf(c.Context(), f)
	if err != nil {
		return entity{}, err
	}
	return a.named(c.Context(), "VM", at("/projects", p, "vms"), given)
}

// completeVMs offers the names of a project's VMs.
func (a *app) completeVMs(f *projectFlags) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		p, err := a.projectOf(c.Context(), f)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completeEntities(at("/projects", p, "vms"))(c, args, word)
	}
}

func (a *app) vmCreateCommand() *cobra.Command {
	in := photonwire.VMSpec{}
	var image, bootFlavor string
	var disks, subnets, environment []string
	c := &cobra.Command{
		Use: "create NAME", Short: "make a VM, which stays off",
		Long: `Create chooses a host with room and makes a VM there. With --diskless it has no disk
of its own and boots from the network, from bootd itself if that serves its network:
then it is booted like any machine, by its hardware address. With --image its boot
disk is a copy of an image.`,
		Example: `  bootd vm create node9 --flavor small --diskless --mac 00:50:56:00:00:09
  bootd vm create web-1 --flavor small --image fcos.vmdk --boot-disk plain --disk data=20:plain`,
		Args: exactly("NAME"),
	}
	project := a.addProject(c)
	c.Flags().StringVar(&in.Flavor, "flavor", "", "`name` of the flavor, which says how large it is")
	c.Flags().BoolVar(&in.Diskless, "diskless", false, "it boots from the network")
	c.Flags().StringVar(&image, "image", "", "`name` of the image that its boot disk is a copy of")
	c.Flags().StringVar(&bootFlavor, "boot-disk", "", "`flavor` of the boot disk")
	c.Flags().StringArrayVar(&disks, "disk", nil, "another disk of its own, as `NAME=GIGABYTES:FLAVOR`; may be repeated")
	c.Flags().StringArrayVar(&subnets, "subnet", nil, "`ID` of a subnet to be on; may be repeated; default: the default one")
	c.Flags().StringArrayVar(&in.MACAddresses, "mac", nil, "hardware `address` of its network card; may be repeated; default: one of VMware's")
	c.Flags().StringArrayVar(&in.Tags, "tag", nil, "`text` of 1 to 64 characters; may be repeated")
	c.Flags().StringArrayVar(&environment, "env", nil, "`KEY=VALUE` that its guest can read as guestinfo.KEY; may be repeated")
	completeFlag(c, "flavor", a.completeEntities("/flavors"))
	completeFlag(c, "image", a.completeEntities("/images"))
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		switch {
		case in.Flavor == "":
			return usageError{errors.New("say how large it is: --flavor NAME")}
		case in.Diskless == (image != ""):
			return usageError{errors.New("say either --diskless or --image NAME")}
		case (image != "") != (bootFlavor != ""):
			return usageError{errors.New("--image and --boot-disk FLAVOR belong together")}
		}
		in.Name, in.Subnets = args[0], subnets
		if in.Environment, err = pairs("env", environment); err != nil {
			return err
		}
		if image != "" {
			found, err := a.named(c.Context(), "image", "/images", image)
			if err != nil {
				return err
			}
			in.SourceImageID = found.ID
			in.AttachedDisks = []photonwire.DiskSpec{{Name: "boot", Kind: "ephemeral-disk", Flavor: bootFlavor, BootDisk: true}}
		}
		more, err := ownDisks(disks)
		if err != nil {
			return err
		}
		in.AttachedDisks = append(in.AttachedDisks, more...)
		p, err := a.projectOf(c.Context(), project)
		if err != nil {
			return err
		}
		task, err := a.api().Fleet().Do(c.Context(), at("/projects", p, "vms"), in)
		return a.done(c.Context(), task, err, "VM %s is made, and off: %s", in.Name, task.Entity.ID)
	}
	return c
}

// ownDisks reads NAME=GIGABYTES:FLAVOR.
func ownDisks(texts []string) ([]photonwire.DiskSpec, error) {
	var out []photonwire.DiskSpec
	for _, text := range texts {
		name, rest, ok := strings.Cut(text, "=")
		size, flavor, ok2 := strings.Cut(rest, ":")
		gb, err := strconv.ParseInt(size, 10, 64)
		if !ok || !ok2 || err != nil || gb < 1 || name == "" || flavor == "" {
			return nil, usageError{fmt.Errorf("--disk cannot be %q; write it as data=20:plain, the name, gigabytes, and the flavor", text)}
		}
		out = append(out, photonwire.DiskSpec{Name: name, Kind: "ephemeral-disk", Flavor: flavor, CapacityGB: gb})
	}
	return out, nil
}

// pairs reads KEY=VALUE.
func pairs(flag string, texts []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usageError{fmt.Errorf("--%s cannot be %q; write it as KEY=VALUE", flag, text)}
		}
		out[key] = value
	}
	return out, nil
}

func (a *app) vmListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "a project's VMs", Args: exactly(),
		Long:    `List shows a project's VMs: what each does, how large it is, and the host it is on.`,
		Example: "  bootd vm list\n  bootd vm list --project web -o json",
	}
	project := a.addProject(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		p, err := a.projectOf(c.Context(), project)
		if err != nil {
			return err
		}
		list, err := client.FleetList[photonwire.VM](c.Context(), a.api().Fleet(), at("/projects", p, "vms"))
		if err != nil {
			return err
		}
		if a.format == "json" {
			return a.json(list)
		}
		var rows [][]string
		for _, v := range list {
			rows = append(rows, []string{v.Name, v.ID, v.State, v.Flavor, v.Host})
		}
		return a.table([]string{"VM", "ID", "STATE", "FLAVOR", "HOST"}, rows)
	}
	return c
}

func (a *app) vmShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "show VM", Short: "one VM, with its disks and its networks", Example: "  bootd vm show web-1 --project web",
		Args: exactly("VM"),
		Long: `Show prints one VM, named by its name or ID. Its host is asked for the addresses of
its network cards, which it knows if something in the VM tells it.`,
	}
	project := a.addProject(c)
	c.ValidArgsFunction = a.completeVMs(project)
	c.RunE = func(c *cobra.Command, args []string) error {
		found, err := a.vm(c, project, args[0])
		if err != nil {
			return err
		}
		f := a.api().Fleet()
		v, err := client.FleetGet[photonwire.VM](c.Context(), f, at("/vms", found))
		if err != nil {
			return err
		}
		if a.format == "json" {
			return a.json(v)
		}
		rows := [][]string{{"id", v.ID}, {"state", v.State}, {"flavor", v.Flavor}, {"host", v.Host}, {"image", v.SourceImageID}, {"tags", strings.Join(v.Tags, ", ")}}
		for _, d := range v.AttachedDisks {
			rows = append(rows, []string{"disk", fmt.Sprintf("%s, %s, %d GB", d.Name, d.Kind, d.CapacityGB)})
		}
		for _, i := range v.AttachedISOs {
			rows = append(rows, []string{"cd", i.Name})
		}
		return a.table([]string{"VM", v.Name}, slices.Concat(rows, a.vmNetworks(c, f, found)))
	}
	return c
}

// vmNetworks are rows for a VM's network cards. What its host cannot tell now is left
// out: the rest is worth to be shown.
func (a *app) vmNetworks(c *cobra.Command, f client.Fleet, vm entity) [][]string {
	task, err := client.FleetGet[photonwire.Task](c.Context(), f, at("/vms", vm, "subnets"))
	if err == nil {
		task, err = f.Wait(c.Context(), task, func(photonwire.Task) {})
	}
	if err == nil {
		err = failure(task)
	}
	var got photonwire.Networks
	if err == nil {
		err = json.Unmarshal(task.ResourceProperties, &got)
	}
	if err != nil {
		return [][]string{{"networks", "not known: " + err.Error()}}
	}
	var rows [][]string
	for _, n := range got.NetworkConnections {
		rows = append(rows, []string{"network", strings.TrimSpace(n.Network + " " + n.MACAddress + " " + n.IPAddress)})
	}
	return rows
}

func (a *app) vmSwitchCommand(verb, short, long, said string) *cobra.Command {
	c := &cobra.Command{Use: verb + " VM", Short: short, Long: long, Example: "  bootd vm " + verb + " web-1", Args: exactly("VM")}
	project := a.addProject(c)
	c.ValidArgsFunction = a.completeVMs(project)
	c.RunE = func(c *cobra.Command, args []string) error {
		found, err := a.vm(c, project, args[0])
		if err != nil {
			return err
		}
		task, err := a.api().Fleet().Do(c.Context(), at("/vms", found, verb), nil)
		return a.done(c.Context(), task, err, "VM %s %s", found.Name, said)
	}
	return c
}

func (a *app) vmDeleteCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "delete VM", Short: "remove a VM that is off, with its own disks", Example: "  bootd vm delete web-1", Args: exactly("VM"),
		Long: `Delete removes a VM that is off from its host, with its own disks, and gives back what
it used of its project's limits. A VM in state ERROR is deleted like any other.`,
	}
	project := a.addProject(c)
	c.ValidArgsFunction = a.completeVMs(project)
	c.RunE = func(c *cobra.Command, args []string) error {
		found, err := a.vm(c, project, args[0])
		if err != nil {
			return err
		}
		task, err := a.api().Fleet().Delete(c.Context(), at("/vms", found))
		return a.done(c.Context(), task, err, "VM %s is deleted", found.Name)
	}
	return c
}
