package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

func (a *app) taskCommand() *cobra.Command {
	return group(&cobra.Command{Use: "task", Short: "what the controller does and has done",
		Long: `A task is one change that somebody asked the controller for, with the steps that
it takes.`}, a.taskListCommand(), a.taskShowCommand())
}

func (a *app) taskListCommand() *cobra.Command {
	var state, of string
	states := []string{"QUEUED", "STARTED", "ERROR", "COMPLETED"}
	c := &cobra.Command{
		Use: "list", Short: "the tasks of the last days",
		Long: `List shows the controller's tasks, the newest first: what was asked of which
entity, and how it ended.`, Args: exactly(),
		Example: "  bootd task list\n  bootd task list --state ERROR\n  bootd task list --of vm/9d2f...",
		RunE: func(c *cobra.Command, _ []string) error {
			state = strings.ToUpper(state)
			if err := oneOf("state", state, states...); err != nil {
				return err
			}
			kind, id, ok := strings.Cut(of, "/")
			if of != "" && (!ok || kind == "" || id == "") {
				return usageError{fmt.Errorf("--of cannot be %q; write it as KIND/ID, such as vm/9d2f0c1e", of)}
			}
			list, err := client.FleetList[photonwire.Task](c.Context(), a.api().Fleet(), "/tasks", "state", state, "entityKind", kind, "entityId", id)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(list)
			}
			var rows [][]string
			for _, t := range list {
				why := ""
				if err := failure(t); err != nil {
					why = err.Error()
				}
				rows = append(rows, []string{clock(t.QueuedTime), t.Operation, t.State, t.Entity.Kind + "/" + t.Entity.ID, t.ID, why})
			}
			return a.table([]string{"ASKED", "OPERATION", "STATE", "ENTITY", "ID", "WHY"}, rows)
		},
	}
	c.Flags().StringVar(&state, "state", "", "only those in this `state`: queued, started, error or completed")
	completeFlag(c, "state", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().StringVar(&of, "of", "", "only those of one thing, as `KIND/ID`")
	return c
}

func (a *app) taskShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "one task, and its steps",
		Long: `Show prints a task with each of its steps, and of one that failed the reason.`, Example: "  bootd task show 5b0c...", Args: exactly("ID"),
		ValidArgsFunction: a.completeTasks,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := client.FleetGet[photonwire.Task](c.Context(), a.api().Fleet(), "/tasks/"+url.PathEscape(args[0]))
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(t)
			}
			rows := [][]string{
				{"id", t.ID}, {"entity", t.Entity.Kind + "/" + t.Entity.ID}, {"state", t.State},
				{"asked", clock(t.QueuedTime)}, {"began", clock(t.StartedTime)}, {"ended", clock(t.EndTime)},
			}
			for _, s := range t.Steps {
				text := s.State
				for _, e := range append(s.Errors, s.Warnings...) {
					text += ": " + e.Error()
				}
				rows = append(rows, []string{fmt.Sprintf("step %d", s.Sequence+1), s.Operation + " " + text})
			}
			return a.table([]string{"TASK", t.Operation}, rows)
		},
	}
}

// completeTasks offers the IDs of tasks, with what they are about.
func (a *app) completeTasks(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	if len(args) == 0 {
		list, _ := client.FleetList[photonwire.Task](c.Context(), a.api().Fleet(), "/tasks") // without a server there is nothing to offer
		for _, t := range list {
			ids = append(ids, cobra.CompletionWithDesc(t.ID, t.Operation+" "+t.State))
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) auditCommand() *cobra.Command {
	var since time.Duration
	c := &cobra.Command{
		Use: "audit", Short: "who changed what", Args: exactly(),
		Long:    "Audit shows every change that was made through the controller, by whom and when.",
		Example: "  bootd audit\n  bootd audit --since 1h -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			from := ""
			if since > 0 {
				from = fmt.Sprint(time.Now().Add(-since).UnixMilli())
			}
			list, err := client.FleetList[photonwire.Audited](c.Context(), a.api().Fleet(), "/audit", "since", from)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(list)
			}
			var rows [][]string
			for _, l := range list {
				rows = append(rows, []string{clock(l.Time), l.By, l.Role, l.Operation, l.Name, l.Entity.Kind + "/" + l.Entity.ID})
			}
			return a.table([]string{"TIME", "WHO", "ROLE", "OPERATION", "NAME", "ENTITY"}, rows)
		},
	}
	c.Flags().DurationVar(&since, "since", 0, "only what was changed in this `time`, such as 1h; default: all")
	return c
}
