package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootd/internal/api"
)

func (a *app) swarmCommand() *cobra.Command {
	c := &cobra.Command{Use: "swarm", Short: "the Docker Swarm of the machines",
		Long: `Swarm commands are about the nodes of the swarms that bootd keeps, as swarm: in
bootd.yaml says. If there are several, --swarm says which.`}
	var name string
	c.PersistentFlags().StringVar(&name, "swarm", "", "`name` of the swarm, if there are several")
	completeFlag(c, "swarm", a.completeSwarms)
	return group(c,
		a.swarmNodesCommand(&name),
		a.drainCommand(&name),
		a.activateCommand(&name),
		a.removeNodeCommand(&name),
		a.pruneCommand(&name),
		a.replaceCommand(&name),
		group(&cobra.Command{Use: "token", Short: "the secrets that nodes join with",
			Long: `A machine gets the token of its role when it boots; it is never shown.`}, a.rotateCommand(&name)),
	)
}

func (a *app) swarmNodesCommand(swarm *string) *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "the nodes, and which machine each one is",
		Long: `Nodes shows every node as the swarm's managers see it, and why it has its role and
availability, if somebody ordered it. With -o wide also its engine and address.`, Args: exactly(),
		Example: "  bootd swarm nodes\n  bootd swarm nodes --watch\n  bootd swarm nodes -o wide",
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := a.api().SwarmNodes(c.Context(), *swarm)
			if err != nil {
				return err
			}
			return a.swarmNodes(list)
		},
	}
}

func (a *app) swarmNodes(list []api.Node) error {
	if a.format == "json" {
		return a.json(list)
	}
	several := slices.ContainsFunc(list, func(n api.Node) bool { return n.Swarm != list[0].Swarm })
	head := []string{"NODE", "MACHINE", "ID", "STATE", "AVAILABILITY", "ROLE", "LABELS", "TASKS", "SINCE", "WHY", "ENGINE", "ADDRESS"}
	narrow := 10
	if several {
		narrow++
		head = append([]string{"SWARM"}, head...)
	}
	now := time.Now()
	rows := make([][]string, len(list))
	for i, n := range list {
		role := string(n.Role)
		if n.Leader {
			role += " (leader)"
		}
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
			labels = append(labels, k+"="+n.Labels[k])
		}
		rows[i] = []string{n.Hostname, n.Machine, n.ID, n.State, n.Availability, role, strings.Join(labels, ","), fmt.Sprint(n.Tasks),
			ago(n.Since, now), n.Why, n.Engine, n.Addr}
		if several {
			rows[i] = append([]string{n.Swarm}, rows[i]...)
		}
	}
	return a.wideTable(narrow, head, rows)
}

func (a *app) drainCommand(swarm *string) *cobra.Command {
	var in api.Availability
	var pause, leave bool
	var limit time.Duration
	c := &cobra.Command{
		Use: "drain NODE", Short: "move a node's tasks away, and keep new ones off it",
		Long: `Drain takes a node out of service, named by its machine, its host name, or the
beginning of its ID. It waits until the node's tasks have ended. A machine of
bootd's stays drained when it boots again, until it is activated.`,
		Example: "  bootd swarm drain node1 --reason 'a new fan'\n  bootd swarm drain node1 --pause\n  bootd swarm drain node1 --no-wait",
		Args:    exactly("NODE"), ValidArgsFunction: a.completeNodes(swarm),
		RunE: func(c *cobra.Command, args []string) error {
			in.Availability = "drain"
			if pause {
				in.Availability = "pause"
			}
			n, err := a.api().SetAvailability(c.Context(), *swarm, args[0], in)
			if err != nil {
				return err
			}
			if !pause && !leave {
				if n, err = a.drained(c.Context(), n, limit); err != nil {
					return err
				}
			}
			if a.format == "json" {
				return a.json(n)
			}
			what := "is drained"
			switch {
			case pause:
				what = "keeps its tasks and gets no new ones"
			case leave:
				what = fmt.Sprintf("is being drained of %d task(s)", n.Tasks)
			}
			_, err = fmt.Fprintf(a.out, "%s %s\n", n.Hostname, what)
			return err
		},
	}
	c.Flags().StringVar(&in.Reason, "reason", "", "`text` that the nodes show")
	c.Flags().BoolVar(&pause, "pause", false, "only keep new tasks off it")
	c.Flags().BoolVar(&leave, "no-wait", false, "do not wait for its tasks to end")
	c.Flags().DurationVar(&limit, "timeout", 10*time.Minute, "give up waiting after this `time`")
	return c
}

// drained waits until a node has no tasks, and says what it waits for.
func (a *app) drained(ctx context.Context, n api.Node, limit time.Duration) (api.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	said := -1
	for {
		list, err := a.api().SwarmNodes(ctx, n.Swarm)
		if err == nil {
			i := slices.IndexFunc(list, func(o api.Node) bool { return o.ID == n.ID })
			if i < 0 {
				return n, nil // it has left: it has no tasks any more
			}
			n = list[i]
			if n.Tasks == 0 {
				return n, nil
			}
			if n.Tasks != said {
				fmt.Fprintf(a.err, "waiting for %d task(s) on %s to end\n", n.Tasks, n.Hostname)
				said = n.Tasks
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return n, fmt.Errorf("%s still has %d task(s) after %s; it stays drained: docker node ps %s shows them", n.Hostname, n.Tasks, limit, n.ID)
			}
			return n, ctx.Err()
		}
	}
}

func (a *app) activateCommand(swarm *string) *cobra.Command {
	return &cobra.Command{
		Use: "activate NODE", Short: "let a drained or paused node take tasks again",
		Long:    `Activate ends a drain or a pause, also for the machine's boots to come.`,
		Example: "  bootd swarm activate node1",
		Args:    exactly("NODE"), ValidArgsFunction: a.completeNodes(swarm),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.api().SetAvailability(c.Context(), *swarm, args[0], api.Availability{Availability: "active"})
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(n)
			}
			_, err = fmt.Fprintf(a.out, "%s takes tasks again\n", n.Hostname)
			return err
		},
	}
}

func (a *app) removeNodeCommand(swarm *string) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "remove NODE", Short: "make the swarm forget a node",
		Long: `Remove is for nodes that bootd does not remove by itself: strangers that are down.
A node that is ready is refused; shut its machine down instead. A manager is
demoted first, and refused when the others could not decide without it.`,
		Example: "  bootd swarm remove old-host",
		Args:    exactly("NODE"), ValidArgsFunction: a.completeNodes(swarm),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.api().RemoveNode(c.Context(), *swarm, args[0], force)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(r)
			}
			_, err = fmt.Fprintf(a.out, "%s (%s) is removed: %s\n", r.Hostname, r.ID, r.Why)
			return err
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also if it is ready; its tasks are started elsewhere")
	return c
}

func (a *app) pruneCommand(swarm *string) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use: "prune", Short: "remove the nodes that are down, without waiting",
		Long: `Prune removes the nodes of bootd's machines that are down, at once and not only
after the grace period, and says which nodes it keeps and why.`,
		Example: "  bootd swarm prune --dry-run\n  bootd swarm prune",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := a.api().Prune(c.Context(), *swarm, dry)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(list)
			}
			if len(list) == 0 {
				_, err := fmt.Fprintln(a.out, "no node is down")
				return err
			}
			rows := make([][]string, len(list))
			for i, r := range list {
				what := "removed"
				switch {
				case r.Kept:
					what = "kept"
				case dry:
					what = "would be removed"
				}
				rows[i] = []string{r.Hostname, r.Machine, r.ID, what, r.Why}
			}
			return a.table([]string{"NODE", "MACHINE", "ID", "WHAT", "WHY"}, rows)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	return c
}

func (a *app) rotateCommand(swarm *string) *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "make the tokens invalid that nodes join with",
		Long: `Rotate gives the swarm new join tokens. Nodes that are in it stay in it, and
machines that are just booting get the new ones by themselves.`,
		Example: "  bootd swarm token rotate",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.api().RotateTokens(c.Context(), *swarm); err != nil {
				return err
			}
			_, err := fmt.Fprintln(a.out, "the tokens have been rotated")
			return err
		},
	}
}

func (a *app) replaceCommand(swarm *string) *cobra.Command {
	return &cobra.Command{
		Use: "replace", Short: "give up a swarm that is lost, for a new one",
		Long: `Replace is for a swarm whose managers are gone for good: its engine is in no swarm
any more, or manages another one. bootd then keeps the one that the engine
manages, or makes a new one. The services, networks and secrets of the lost one
are gone; its machines join the new one when they boot. A swarm that is not lost
is refused.`,
		Example: "  bootd swarm replace",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.api().ReplaceSwarm(c.Context(), *swarm)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(r)
			}
			_, err = fmt.Fprintf(a.out, "swarm %s (%s) is given up; power-cycle its machines and they join the new one\n", r.Swarm, r.Was)
			return err
		},
	}
}

// completeNodes offers the nodes' host names.
func (a *app) completeNodes(swarm *string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if len(args) == 0 {
			list, _ := a.api().SwarmNodes(c.Context(), *swarm) // without a server there is nothing to offer
			for _, n := range list {
				names = append(names, n.Hostname)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeSwarms(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if s, err := a.api().Status(c.Context()); err == nil {
		for _, w := range s.Swarms {
			names = append(names, w.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
