package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"bootd/boot"
	"bootd/internal/api"
	"bootd/internal/client"
)

// powerAtOnce is how many machines are switched at a time. The rest of a rack
// does not have to wait for a BMC that is slow.
const powerAtOnce = 32

// A powerOrder is what the command line says.
type powerOrder struct {
	action     string // status, or what api.PowerOrder takes
	all        bool
	selector   string
	boot       string
	persistent bool
	soft       bool
	yes        bool
}

// A chosen machine: how it is called, and how the server is asked for it.
type chosen struct{ name, id string }

// powerResult is a machine and how its order ended.
type powerResult struct {
	api.PowerState
	Error   string `json:"error,omitempty"`
	Skipped bool   `json:"skipped,omitempty"` // one of many, and it has no BMC
	err     error
}

func (a *app) powerCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "power", Short: "switch machines on and off",
		Long: `Power switches machines through their BMCs (Redfish, IPMI), or on by wake-on-LAN,
as power: in bootd.yaml, the profile or the machine's entry says. The server
does it, and keeps the passwords to itself. Machines are named one by one, by
--selector, or with --all; of those, machines without a BMC are left out.`,
	}
	return group(c,
		a.powerAction("on", "switch machines on", `On switches machines on, by their BMCs or by wake-on-LAN. One that is on stays as it
is. With --boot it boots from another device than usual, this once or from now on.`),
		a.powerAction("off", "switch machines off, at once or (--soft) by asking their systems", `Off is as pulling the plug: a node's tasks start elsewhere only when the swarm has
missed it. With --soft the system shuts down, and its node is drained first.`),
		a.powerAction("cycle", "switch machines off and on again; on, if they are off", `Cycle makes machines boot anew: as pulling the plug and putting it in again. For a
node, bootd swarm drain before that moves its tasks without a gap.`),
		a.powerAction("status", "whether machines are on", `Status asks the BMCs of machines, several at a time. It fails when one of them does
not answer.`),
	)
}

func (a *app) powerAction(action, short, long string) *cobra.Command {
	o := powerOrder{action: action}
	c := &cobra.Command{
		Use: action + " [MACHINE...]", Short: short, Long: long,
		Example: "  bootd machine power " + action + " node1 node2\n  bootd machine power " + action + " --selector profile=worker,product='ProLiant*'",
		RunE:    func(c *cobra.Command, args []string) error { return a.power(c.Context(), o, args) },
		ValidArgsFunction: func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			names, how := a.completeMachines(c, nil, word)
			return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) }), how
		},
	}
	f := c.Flags()
	f.BoolVar(&o.all, "all", false, "all machines that have a BMC")
	f.StringVar(&o.selector, "selector", "", "machines by `key=pattern,...`: name, profile, stage, serial, manufacturer, product, asset")
	switch action {
	case "on", "cycle":
		f.StringVar(&o.boot, "boot", "", "boot from this `device` next: pxe, disk, bios (its setup) or http")
		f.BoolVar(&o.persistent, "persistent", false, "from now on, not only next")
		completeFlag(c, "boot", cobra.FixedCompletions([]string{"pxe", "disk", "bios", "http"}, cobra.ShellCompDirectiveNoFileComp))
	case "off":
		f.BoolVar(&o.soft, "soft", false, "ask the system to shut down, so that a node is drained first; it may take its time")
	}
	if action == "off" || action == "cycle" {
		f.BoolVarP(&o.yes, "yes", "y", false, "do not ask first")
	}
	return c
}

func (o *powerOrder) check(args []string) error {
	if err := oneOf("boot", o.boot, "pxe", "disk", "bios", "http"); err != nil {
		return err
	}
	ways := 0
	for _, b := range []bool{o.all, o.selector != "", len(args) > 0} {
		if b {
			ways++
		}
	}
	switch {
	case ways == 0:
		return usageError{fmt.Errorf("which machine? Name some, or say --selector or --all; see bootd machine power %s --help", o.action)}
	case ways > 1:
		return usageError{errors.New("name machines, or say --selector, or --all: one of the three")}
	case o.persistent && o.boot == "":
		return usageError{errors.New("--persistent is said of --boot, which is missing")}
	}
	return nil
}

// power carries out one of the commands.
func (a *app) power(ctx context.Context, o powerOrder, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	server := a.api()
	var machines []chosen
	for _, name := range args {
		if c := (chosen{name, name}); !slices.Contains(machines, c) {
			machines = append(machines, c)
		}
	}
	if len(args) == 0 {
		list, err := server.Machines(ctx)
		if err != nil {
			return err
		}
		if machines, err = selectMachines(list, o.selector); err != nil {
			return err
		}
	}
	if err := a.confirm(ctx, o, machines); err != nil {
		return err
	}
	results := switchAll(ctx, server, o, machines, len(args) == 0)
	if ctx.Err() != nil && len(machines) == 1 {
		return ctx.Err()
	}
	return a.powerResults(o, results)
}

// selectMachines lists the machines that a selector means: all, if it is empty.
func selectMachines(list []api.Machine, selector string) ([]chosen, error) {
	var by boot.Selector
	own := map[string]string{}
	for term := range strings.SplitSeq(selector, ",") {
		if selector == "" {
			break
		}
		key, pattern, ok := strings.Cut(strings.TrimSpace(term), "=")
		if !ok || pattern == "" {
			return nil, usageError{fmt.Errorf("--selector %q is not key=pattern,..., such as profile=worker", term)}
		}
		switch key {
		case "serial":
			by.Serial = pattern
		case "manufacturer":
			by.Manufacturer = pattern
		case "product":
			by.Product = pattern
		case "asset":
			by.Asset = pattern
		case "name", "profile", "stage":
			if _, err := path.Match(pattern, ""); err != nil {
				return nil, usageError{fmt.Errorf("--selector %q: %w", term, err)}
			}
			own[key] = pattern
		default:
			return nil, usageError{fmt.Errorf("--selector knows no %q, only name, profile, stage, serial, manufacturer, product, asset", key)}
		}
	}
	var out []chosen
	for _, m := range list {
		ok := by.Matches(m.Inventory)
		for key, value := range map[string]string{"name": m.Name, "profile": m.Profile, "stage": string(m.Stage)} {
			if p := own[key]; p != "" {
				matches, _ := path.Match(strings.ToLower(p), strings.ToLower(value)) // the pattern is right: see above
				ok = ok && matches
			}
		}
		if !ok {
			continue
		}
		// Two machines may have one name while the files are being changed.
		c := chosen{m.Name, m.Name}
		if !m.MAC.IsZero() {
			c.id = m.MAC.String()
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("no machine matches; see bootd machine list")
	}
	return out, nil
}

// confirm asks a person, and nobody else, before machines lose their power.
func (a *app) confirm(ctx context.Context, o powerOrder, machines []chosen) error {
	f, ok := a.in.(*os.File)
	if o.yes || o.action != "off" && o.action != "cycle" || !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return nil // a script
	}
	return ask(ctx, a, fmt.Sprintf("Switch %s %s?", several(machines), map[string]string{"off": "off", "cycle": "off and on"}[o.action]))
}

// several names a few things, or counts many.
func several(machines []chosen) string {
	var names []string
	for _, m := range machines {
		names = append(names, m.name)
	}
	if len(names) <= 5 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%d machines (%s, ...)", len(names), strings.Join(names[:4], ", "))
}

// ask wants a yes.
func ask(ctx context.Context, a *app, question string) error {
	fmt.Fprint(a.err, question+" [y/N] ")
	answer := make(chan string, 1)
	go func() { // reading a terminal cannot be interrupted; the process ends soon
		line, _ := bufio.NewReader(a.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case s := <-answer:
		if s == "y" || s == "yes" {
			return nil
		}
	}
	return errors.New("nothing was switched")
}

// switchAll carries out an order for many machines, each by itself.
func switchAll(ctx context.Context, c *client.Client, o powerOrder, machines []chosen, many bool) []powerResult {
	results := make([]powerResult, len(machines))
	var group errgroup.Group
	group.SetLimit(powerAtOnce)
	for i, m := range machines {
		group.Go(func() error {
			r := &results[i]
			if ctx.Err() != nil {
				r.err = ctx.Err()
			} else if o.action == "status" {
				r.PowerState, r.err = c.Power(ctx, m.id)
			} else {
				action := o.action
				if o.soft {
					action = "shutdown"
				}
				r.PowerState, r.err = c.Switch(ctx, m.id, api.PowerOrder{Action: action, Boot: o.boot, Persistent: o.persistent})
			}
			if r.err != nil || r.Machine == "" {
				r.Machine, r.State = m.name, "unknown"
			}
			var p *api.Problem
			if many && errors.As(r.err, &p) && p.Title == api.NoBMC {
				r.err, r.Skipped, r.Kind, r.Text = nil, true, boot.NoPower, "left out: no power: is configured for it"
			}
			if r.err != nil {
				r.Error = r.err.Error()
			}
			return nil
		})
	}
	_ = group.Wait() // each result has its own error
	return results
}

// powerResults shows how the orders ended. The error names those that failed.
func (a *app) powerResults(o powerOrder, results []powerResult) error {
	var failed []string
	var last error
	for _, r := range results {
		if r.err != nil {
			failed, last = append(failed, r.Machine), r.err
		}
		if errors.Is(r.err, client.ErrUnreachable) {
			return r.err // so did all others
		}
	}
	if a.format == "json" {
		if err := a.json(results); err != nil {
			return err
		}
	} else if len(results) > 1 || last == nil {
		rows := make([][]string, len(results))
		for i, r := range results {
			note := r.Text
			if r.err != nil {
				note = r.Error
			} else if !r.Changed && note == "" && o.action != "status" {
				note = "it was " + r.State + " already"
			}
			rows[i] = []string{r.Machine, r.State, r.Was, strings.TrimSpace(string(r.Kind) + " " + r.BMC), note}
		}
		if err := a.table([]string{"MACHINE", "POWER", "WAS", "BY", "NOTE"}, rows); err != nil {
			return err
		}
	}
	switch {
	case len(failed) == 0:
		return nil
	case len(results) == 1:
		return last
	}
	return fmt.Errorf("%d of %d machines failed: %s", len(failed), len(results), strings.Join(failed, ", "))
}
