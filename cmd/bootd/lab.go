package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootd/boot"
	"bootd/internal/client"
	"bootd/internal/lab"
)

const aboutLab = `A lab is a rack of diskless machines on one host, in a network of its own: QEMU
machines on a private bridge, a swarm manager's engine, and bootd. Profiles can
be tried there before real machines see them. It needs root.

  bootd lab install                 install QEMU and what else it needs
  bootd lab up [-c DIR]             network, engine and boot server
  bootd lab power on node1 node2    press the buttons
  bootd lab status
  bootd lab ssh node1
  bootd lab down                    remove every trace

Without -c it runs one of the configurations that come with it, whose copy may be
edited while the lab is up: demo, or classic, the five hosts of the old tutorials
(a manager, frontend01, frontend02, worker01, store). DIR needs a lab.yaml that
describes the machines.`

func (a *app) labCommand() *cobra.Command {
	c := &cobra.Command{Use: "lab", Short: "try it all on diskless QEMU machines on a private bridge", Long: aboutLab}
	var name string
	c.PersistentFlags().StringVar(&name, "name", "demo", "`name` of the lab; several can exist side by side")
	open := func() (lab.Lab, error) { return lab.New(name) }
	return group(c,
		a.labInstallCommand(),
		a.labImageCommand(),
		a.labUpCommand(open),
		a.labPowerCommand(open),
		a.labStatusCommand(open),
		a.labSSHCommand(open),
		a.labDownCommand(open),
		a.labDemoCommand(open),
	)
}

func (a *app) say(text string) { fmt.Fprintln(a.out, "==>", text) }

func (a *app) labInstallCommand() *cobra.Command {
	var tests bool
	c := &cobra.Command{
		Use: "install", Example: "  bootd lab install --tests",
		Short: "install the packages that a lab needs (Debian, Ubuntu)",
		Long: `Install runs apt-get for what is not there yet: QEMU, its firmware, iPXE, Docker
and what builds the live image.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			missing := lab.Missing(tests)
			if len(missing) == 0 {
				a.say("all packages are there")
				return nil
			}
			a.say("installing " + strings.Join(missing, " "))
			for _, args := range [][]string{
				{"update", "-q"},
				append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...),
			} {
				cmd := exec.CommandContext(c.Context(), "apt-get", args...)
				cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
				cmd.Stdout, cmd.Stderr = a.out, a.err
				if err := cmd.Run(); err != nil {
					return fmt.Errorf("cannot install packages: apt-get %s: %w", strings.Join(args, " "), err)
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&tests, "tests", false, "also what only the end-to-end tests need")
	return c
}

func (a *app) labImageCommand() *cobra.Command {
	var rebuild bool
	c := &cobra.Command{
		Use: "image", Example: "  bootd lab image",
		Short: "build the lab's live image, unless it is there already",
		Long: `Image makes a small live system from this distribution's own packages, which the
lab's machines boot. It takes about a minute and is kept.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			i, err := lab.BuildImage(c.Context(), lab.ImageOptions{Dir: lab.ImageDir, Rebuild: rebuild, Progress: a.say})
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(i)
			}
			_, err = fmt.Fprintf(a.out, "%s: %s, %s, %s\n", lab.ImageDir, i.Kernel, i.Initrd, i.RootFS)
			return err
		},
	}
	c.Flags().BoolVar(&rebuild, "rebuild", false, "build it even if it is there")
	return c
}

// server is the command line of the lab's boot server: this very program.
func server(_ lab.Lab, config string) []string {
	exe, err := os.Executable()
	if err != nil {
		exe = "bootd"
	}
	return []string{exe, "serve", "-c", config}
}

// labUp builds the image if an example's configuration needs it, and creates the
// lab.
func (a *app) labUp(ctx context.Context, l lab.Lab, dir, example, accel string) error {
	if dir == "" {
		if _, err := lab.BuildImage(ctx, lab.ImageOptions{Dir: lab.ImageDir, Progress: a.say}); err != nil {
			return err
		}
	}
	return l.Up(ctx, lab.Options{Config: dir, Example: example, Image: lab.ImageDir, Accel: accel, Engine: true, Server: server, Progress: a.say})
}

func (a *app) labUpCommand(open func() (lab.Lab, error)) *cobra.Command {
	var example, accel string
	c := &cobra.Command{
		Use:   "up",
		Short: "create the lab: network, engine and boot server",
		Long: `Up makes a network namespace with a bridge, a Docker engine for the swarm's
manager and the server in it. The machines are off until lab power switches them
on.`,
		Example: "  bootd lab up\n  bootd lab up --example classic\n  bootd lab up -c ./site",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := open()
			if err != nil {
				return err
			}
			dir := ""
			if c.Flags().Changed("config") {
				dir = a.dir
			}
			if err := a.labUp(c.Context(), l, dir, example, accel); err != nil {
				return err
			}
			s, err := l.Summary()
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "lab %s is up; its configuration is in %s\n", l.Name(), s.Config)
			fmt.Fprintf(a.out, "next: bootd lab power on MACHINE; bootd machine list --socket %s; docker -H %s node ls\n", l.Socket(), l.Engine())
			return nil
		},
	}
	c.Flags().StringVar(&example, "example", lab.Demo, "`name` of the configuration without -c: "+strings.Join(lab.Examples(), ", "))
	completeFlag(c, "example", cobra.FixedCompletions(lab.Examples(), cobra.ShellCompDirectiveNoFileComp))
	c.Flags().StringVar(&accel, "accel", lab.TCG, "tcg (emulation) or kvm")
	return c
}

func (a *app) labPowerCommand(open func() (lab.Lab, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "power on|off|cycle|press|status [MACHINE...]",
		Short: "press the machines' power buttons",
		Long: `On and off switch the power, as at the plug; cycle does both. Press is the
button at the front, which lets the system shut itself down. Without a MACHINE it
is done to all of them.`,
		Example:           "  bootd lab power on\n  bootd lab power press node1",
		ValidArgsFunction: completeLabMachines(open, 1, "on", "off", "cycle", "press", "status"),
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("say what to do: bootd lab power on|off|cycle|press|status [MACHINE...]")}
			}
			switch args[0] {
			case "on", "off", "cycle", "press", "status":
				return nil
			}
			return usageError{fmt.Errorf("unknown action %q; use on, off, cycle, press or status", args[0])}
		},
		RunE: func(c *cobra.Command, args []string) error {
			l, err := open()
			if err != nil {
				return err
			}
			if args[0] == "status" {
				return a.labStatus(l, args[1:])
			}
			return a.labPower(c.Context(), l, lab.Action(args[0]), args[1:])
		},
	}
}

// labPower does action to machines, or to all when none is named, and tells
// bootd when a machine was switched on, which it cannot know by itself.
func (a *app) labPower(ctx context.Context, l lab.Lab, action lab.Action, names []string) error {
	all, err := l.Status()
	if err != nil {
		return err
	}
	macs := map[string]boot.MAC{}
	on := map[string]bool{}
	for _, s := range all {
		macs[s.Name], on[s.Name] = s.MAC, s.On
	}
	if len(names) == 0 {
		for _, s := range all {
			names = append(names, s.Name)
		}
	}
	api := client.New(l.Socket())
	for _, name := range names {
		at, err := l.Power(ctx, name, action)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s: %s\n", name, action)
		if action == lab.Cycle || action == lab.On && !on[name] {
			e := boot.Event{Time: at, MAC: macs[name], Stage: boot.Power, Text: "switched on"}
			if err := api.Report(ctx, e); err != nil {
				fmt.Fprintf(a.err, "bootd: %s: the boot server does not know when it was switched on: %v\n", name, err)
			}
		}
	}
	return nil
}

func (a *app) labStatusCommand(open func() (lab.Lab, error)) *cobra.Command {
	return &cobra.Command{
		Use: "status", Example: "  bootd lab status\n  bootd lab status --name classic",
		Short: "show what runs in the lab",
		Long: `Status shows whether the lab's engine and server run, and of each machine whether
it is on and what it last wrote on its console.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			l, err := open()
			if err != nil {
				return err
			}
			return a.labStatus(l, nil)
		},
	}
}

func (a *app) labStatus(l lab.Lab, names []string) error {
	summary, err := l.Summary()
	if err != nil {
		return err
	}
	machines, err := l.Status()
	if err != nil {
		return err
	}
	want := map[string]bool{}
	for _, n := range names {
		want[n] = true
	}
	var rows [][]string
	var shown []lab.Status
	for _, m := range machines {
		if len(want) > 0 && !want[m.Name] {
			continue
		}
		power := "off"
		if m.On {
			power = "on " + ago(m.Since, time.Now())
		}
		rows = append(rows, []string{m.Name, m.MAC.String(), string(m.Firmware), fmt.Sprint(m.Memory, " MiB"), power, clip(m.Says, 60)})
		shown = append(shown, m)
	}
	if a.format == "json" {
		return a.json(map[string]any{"lab": l.Name(), "summary": summary, "machines": shown})
	}
	fmt.Fprintf(a.out, "lab %s, up since %s: engine %s, boot server %s\n", l.Name(),
		summary.Since.Format(time.DateTime), running(summary.Engine), running(summary.Server))
	return a.table([]string{"MACHINE", "MAC", "FIRMWARE", "MEMORY", "POWER", "CONSOLE"}, rows)
}

func running(b bool) string {
	if b {
		return "running"
	}
	return "not running"
}

func clip(s string, n int) string {
	r := []rune(strings.TrimSpace(s))
	if len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return string(r)
}

func (a *app) labSSHCommand(open func() (lab.Lab, error)) *cobra.Command {
	return &cobra.Command{
		Use:               "ssh MACHINE [COMMAND...]",
		Short:             "a shell on a machine of the lab, or a command there",
		Long:              `Ssh logs in with the key that the lab made for itself.`,
		Example:           "  bootd lab ssh node1\n  bootd lab ssh node1 docker info",
		ValidArgsFunction: completeLabMachines(open, 0),
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("name a machine: bootd lab ssh MACHINE [COMMAND...]")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			l, err := open()
			if err != nil {
				return err
			}
			argv, err := l.SSH(args[0], args[1:]...)
			if err != nil {
				return err
			}
			cmd := exec.CommandContext(c.Context(), argv[0], argv[1:]...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
			return cmd.Run()
		},
	}
}

// completeLabMachines offers words in the place of the first argument, if there
// are any, and the lab's machines: as the argument behind those, or as all of
// them.
func completeLabMachines(open func() (lab.Lab, error), from int, words ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) < from {
			return words, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		if l, err := open(); err == nil && (from > 0 || len(args) == 0) {
			machines, _ := l.Status() // of a lab that is not up there are none
			for _, m := range machines {
				if !slices.Contains(args, m.Name) {
					names = append(names, m.Name)
				}
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) labDownCommand(open func() (lab.Lab, error)) *cobra.Command {
	return &cobra.Command{
		Use: "down", Example: "  bootd lab down",
		Short: "remove every trace of the lab, but keep its live image",
		Long: `Down switches the machines off and removes the lab's processes, network, leases and
configuration.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := open()
			if err != nil {
				return err
			}
			if err := l.Down(c.Context()); err != nil {
				return err
			}
			a.say("lab " + l.Name() + " is gone")
			return nil
		},
	}
}
