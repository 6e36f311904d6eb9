package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

func (a *app) hostCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "host", Short: "the ESXi hosts that VMs run on",
		Long: `A host is an ESXi that bootd runs VMs on. Nothing is installed there: bootd uses its
own API, with a user and a password that it never shows.`,
	},
		a.hostCreateCommand(),
		a.hostListCommand(),
		a.hostShowCommand(),
		a.hostVerb("suspend", "suspend", "let a host take no new VMs", "The VMs that a suspended host has run on.", "host %s takes no new VMs"),
		a.hostVerb("resume", "resume", "let a host take VMs again", "A host that was not suspended stays as it is.", "host %s takes VMs"),
		a.hostVerb("enter-maintenance", "enter_maintenance", "take an empty host out of service",
			"The host must have been suspended, and have no VMs.", "host %s is in maintenance"),
		a.hostVerb("exit-maintenance", "exit_maintenance", "take a host back into service",
			"The host takes VMs again.", "host %s takes VMs"),
		a.hostDeleteCommand(),
	)
}

func (a *app) hostCreateCommand() *cobra.Command {
	in := photonwire.HostSpec{UsageTags: []string{"CLOUD"}, Metadata: map[string]string{}}
	var password string
	c := &cobra.Command{
		Use: "create ADDRESS", Short: "register an ESXi host",
		Long: `Create connects to a host, and registers it. Its certificate is accepted as it is now,
and no other from then on, unless --fingerprint says which it must be. The password is
the first line of a file, or of the standard input if that is -.`,
		Example: "  bootd host create 10.0.0.21 --password-file esx.pass\n  bootd host create esx2.example.org --username bootd --password-file - < esx.pass",
		Args:    exactly("ADDRESS"),
		RunE: func(c *cobra.Command, args []string) error {
			in.Address = args[0]
			var err error
			if in.Password, err = a.passwordFrom(password); err != nil {
				return err
			}
			task, err := a.api().Fleet().Do(c.Context(), theDeployment+"/hosts", in)
			return a.done(c.Context(), task, err, "host %s is registered: %s", in.Address, task.Entity.ID)
		},
	}
	c.Flags().StringVar(&in.Username, "username", "root", "`name` to log in with")
	c.Flags().StringVar(&password, "password-file", "", "`file` with the password")
	c.Flags().StringSliceVar(&in.UsageTags, "tag", in.UsageTags, "`tag`: CLOUD for hosts of VMs, MGMT for others; may be repeated")
	c.Flags().StringVar(&in.Fingerprint, "fingerprint", "", "`SHA256:...` of its certificate")
	c.Flags().StringToStringVar(&in.Metadata, "metadata", in.Metadata, "`KEY=VALUE` such as ALLOWED_DATASTORES=ds1; may be repeated")
	return c
}

// passwordFrom reads the first line of a file.
func (a *app) passwordFrom(path string) (string, error) {
	if path == "" {
		return "", usageError{errors.New("say where the password is: --password-file FILE, or - for the standard input")}
	}
	in := a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("cannot read the password: %w", err)
		}
		defer f.Close()
		in = f
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("cannot read the password: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", fmt.Errorf("cannot read the password: the first line of %s is empty", path)
	}
	return line, nil
}

// completeHosts offers the addresses of hosts.
func (a *app) completeHosts(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var addresses []string
	if len(args) == 0 {
		all, _ := client.FleetList[photonwire.Host](c.Context(), a.api().Fleet(), theDeployment+"/hosts") // without a server there is nothing to offer
		for _, h := range all {
			addresses = append(addresses, h.Address)
		}
	}
	return addresses, cobra.ShellCompDirectiveNoFileComp
}

// host finds a host by its address or ID.
func (a *app) host(c *cobra.Command, given string) (entity, error) {
	all, err := client.FleetList[photonwire.Host](c.Context(), a.api().Fleet(), theDeployment+"/hosts")
	if err != nil {
		return entity{}, err
	}
	var known []string
	for _, h := range all {
		if h.ID == given || strings.EqualFold(h.Address, given) {
			return entity{ID: h.ID, Name: h.Address, Kind: h.Kind}, nil
		}
		known = append(known, h.Address)
	}
	if len(known) == 0 {
		return entity{}, fmt.Errorf("there is no host %q; there is none at all", given)
	}
	return entity{}, fmt.Errorf("there is no host %q; there are %s", given, strings.Join(known, ", "))
}

func (a *app) hostListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "the hosts, and how they are", Args: exactly(), Example: "  bootd host list\n  bootd host list -o json",
		Long: `List shows the hosts with the state that people want of them, and of those that do
not answer, why.`,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := client.FleetList[photonwire.Host](c.Context(), a.api().Fleet(), theDeployment+"/hosts")
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(list)
			}
			var rows [][]string
			for _, h := range list {
				rows = append(rows, []string{h.Address, h.ID, h.State, strings.Join(h.UsageTags, ","), h.ESXVersion, h.Unreachable})
			}
			return a.table([]string{"HOST", "ID", "STATE", "TAGS", "VERSION", "UNREACHABLE"}, rows)
		},
	}
}

func (a *app) hostShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show HOST", Short: "one host", Example: "  bootd host show 10.0.0.21", Args: exactly("HOST"),
		Long:              `Show prints one host, named by its address or ID, with its datastores and certificate.`,
		ValidArgsFunction: a.completeHosts,
		RunE: func(c *cobra.Command, args []string) error {
			found, err := a.host(c, args[0])
			if err != nil {
				return err
			}
			h, err := client.FleetGet[photonwire.Host](c.Context(), a.api().Fleet(), at("/hosts", found))
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(h)
			}
			var stores []string
			for _, d := range h.Datastores {
				stores = append(stores, d.MountPoint)
			}
			return a.table([]string{"HOST", h.Address}, [][]string{{"id", h.ID}, {"state", h.State}, {"unreachable", h.Unreachable}, {"username", h.Username},
				{"tags", strings.Join(h.UsageTags, ",")}, {"version", h.ESXVersion}, {"datastores", strings.Join(stores, ",")}, {"certificate", h.Fingerprint}})
		},
	}
}

// hostVerb is a command that brings a host into another state.
func (a *app) hostVerb(name, verb, short, long, done string) *cobra.Command {
	return &cobra.Command{
		Use: name + " HOST", Short: short, Long: long, Example: "  bootd host " + name + " 10.0.0.21", Args: exactly("HOST"),
		ValidArgsFunction: a.completeHosts,
		RunE: func(c *cobra.Command, args []string) error {
			found, err := a.host(c, args[0])
			if err != nil {
				return err
			}
			task, err := a.api().Fleet().Do(c.Context(), at("/hosts", found, verb), nil)
			return a.done(c.Context(), task, err, done, found.Name)
		},
	}
}

func (a *app) hostDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete HOST", Short: "forget a host that is in maintenance, or in error", Example: "  bootd host delete 10.0.0.21", Args: exactly("HOST"),
		Long:              `Delete forgets a host. Its VMs, if it is in error and has some, are in error from then on.`,
		ValidArgsFunction: a.completeHosts,
		RunE: func(c *cobra.Command, args []string) error {
			found, err := a.host(c, args[0])
			if err != nil {
				return err
			}
			task, err := a.api().Fleet().Delete(c.Context(), at("/hosts", found))
			return a.done(c.Context(), task, err, "host %s is forgotten", found.Name)
		},
	}
}
