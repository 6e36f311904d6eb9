package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bootd/internal/api"
	"bootd/internal/config"
)

// orderCommands are the verbs that tell the server something about single
// machines.
func (a *app) orderCommands() []*cobra.Command {
	return []*cobra.Command{a.approveCommand(), a.nextCommand(), a.reinstallCommand(), a.forgetCommand()}
}

func (a *app) approveCommand() *cobra.Command {
	var in api.Approval
	c := &cobra.Command{
		Use: "approve MACHINE", Short: "let a machine boot that no entry matches",
		Long: `Approve gives a machine that waits a profile and a name, at once: it asks again
every few seconds. The server remembers it; an entry that is written into
machines/*.yaml later on stands above it.`,
		Example: "  bootd machine approve 52:54:00:00:00:07 --profile worker --name node7",
		Args:    exactly("MACHINE"), ValidArgsFunction: a.completeMachines,
		RunE: func(c *cobra.Command, args []string) error {
			if in.Profile == "" {
				return usageError{errors.New("say what it is to be: --profile PROFILE")}
			}
			if err := a.api().Approve(c.Context(), args[0], in); err != nil {
				return err
			}
			return a.ordered(c.Context(), args[0], "%s boots with profile %s\n", in.Profile)
		},
	}
	c.Flags().StringVarP(&in.Profile, "profile", "p", "", "`profile` that it gets")
	c.Flags().StringVar(&in.Name, "name", "", "host `name` (default: from its hardware address)")
	completeFlag(c, "profile", a.completeProfiles)
	return c
}

func (a *app) nextCommand() *cobra.Command {
	var in api.Next
	var cancel bool
	c := &cobra.Command{
		Use: "next MACHINE", Short: "another profile for the next boot only",
		Long: `Next lets a machine boot another profile once. The boot after that is as the files
say again.`,
		Example: "  bootd machine next node1 --profile rescue\n  bootd machine next node1 --cancel",
		Args:    exactly("MACHINE"), ValidArgsFunction: a.completeMachines,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case cancel == (in.Profile != ""):
				return usageError{errors.New("say either --profile PROFILE or --cancel")}
			case cancel:
				if err := a.api().Next(c.Context(), args[0], nil); err != nil {
					return err
				}
				return a.ordered(c.Context(), args[0], "%s boots as ever\n")
			}
			if err := a.api().Next(c.Context(), args[0], &in); err != nil {
				return err
			}
			return a.ordered(c.Context(), args[0], "%s gets profile %s at its next boot, and its own again at the one after\n", in.Profile)
		},
	}
	c.Flags().StringVarP(&in.Profile, "profile", "p", "", "`profile` of the next boot")
	c.Flags().BoolVar(&cancel, "cancel", false, "take the order back")
	completeFlag(c, "profile", a.completeProfiles)
	return c
}

func (a *app) reinstallCommand() *cobra.Command {
	var cancel bool
	c := &cobra.Command{
		Use: "reinstall MACHINE", Short: "install the system on its disk anew, at its next boot",
		Long: `Reinstall is for machines whose image is installed on their disk, as ESXi is. They
boot from it until this is ordered, and again when the installation has
reported success. What is on the disk is lost.`,
		Example: "  bootd machine reinstall esx1\n  bootd machine reinstall esx1 --cancel",
		Args:    exactly("MACHINE"), ValidArgsFunction: a.completeMachines,
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.api().Install(c.Context(), args[0], !cancel); err != nil {
				return err
			}
			if cancel {
				return a.ordered(c.Context(), args[0], "%s keeps what is on its disk\n")
			}
			return a.ordered(c.Context(), args[0], "%s is installed anew at its next boot\n")
		},
	}
	c.Flags().BoolVar(&cancel, "cancel", false, "take the order back")
	return c
}

func (a *app) forgetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "forget MACHINE", Short: "drop all that is known of a machine",
		Long: `Forget drops a machine's boots, its lease and what was ordered for it. An entry in
machines/*.yaml is not touched. A machine that comes again is a new one.`,
		Example: "  bootd machine forget 52:54:00:00:00:07",
		Args:    exactly("MACHINE"), ValidArgsFunction: a.completeMachines,
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.api().Forget(c.Context(), args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.out, "%s is forgotten\n", args[0])
			return err
		},
	}
}

// ordered tells what was ordered: a sentence about the machine, or with -o json
// the machine itself.
func (a *app) ordered(ctx context.Context, id, format string, args ...any) error {
	m, err := a.api().Machine(ctx, id)
	var unknown *api.Problem
	switch {
	case errors.As(err, &unknown): // approved before it was ever seen
		m.Name = id
	case err != nil:
		return err
	}
	if a.format == "json" {
		return a.json(m)
	}
	_, err = fmt.Fprintf(a.out, format, append([]any{m.Name}, args...)...)
	return err
}

func (a *app) completeProfiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	cfg, err := config.Load(a.dir)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return profileNames(cfg), cobra.ShellCompDirectiveNoFileComp
}

// ordersOf writes what was ordered for a machine, a line each.
func ordersOf(o *api.Ordered) []string {
	if o == nil {
		return nil
	}
	var out []string
	if a := o.Approved; a != nil {
		out = append(out, "approved as "+a.Name+" with profile "+a.Profile)
	}
	switch {
	case o.NextBoot != "":
		out = append(out, "profile "+o.Next+" for boot "+o.NextBoot+" only")
	case o.Next != "":
		out = append(out, "profile "+o.Next+" at its next boot only")
	}
	if o.Held != "" {
		line := "its node's availability is kept at " + o.Held
		if o.Reason != "" {
			line += ": " + o.Reason
		}
		out = append(out, line)
	}
	if o.Install {
		out = append(out, "its disk is installed anew at its next boot")
	}
	return out
}
