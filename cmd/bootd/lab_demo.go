package main

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootd/boot"
	"bootd/internal/client"
	"bootd/internal/lab"
)

func (a *app) labDemoCommand(open func() (lab.Lab, error)) *cobra.Command {
	var down bool
	var accel string
	var limit time.Duration
	c := &cobra.Command{
		Use: "demo", Example: "  bootd lab demo",
		Short: "power on three diskless machines and see them in the swarm",
		Long: `Demo creates the lab, powers its machines on, shows their boots as they grow, and
ends with the swarm's node list. On a terminal the lab then stays until Ctrl-C,
which removes every trace of it; elsewhere until "bootd lab down".`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := open()
			if err != nil {
				return err
			}
			dir := ""
			if c.Flags().Changed("config") {
				dir = a.dir
			}
			return a.demo(c.Context(), l, dir, accel, limit, down)
		},
	}
	c.Flags().BoolVar(&down, "down", false, "remove the lab at the end")
	c.Flags().StringVar(&accel, "accel", lab.TCG, "tcg (emulation) or kvm")
	c.Flags().DurationVar(&limit, "timeout", 15*time.Minute, "give up after this `time`")
	return c
}

// demo is the whole of it. Whatever ends it early on a terminal removes the
// lab; left alone, the lab stays to be looked at.
func (a *app) demo(ctx context.Context, l lab.Lab, dir, accel string, limit time.Duration, down bool) (err error) {
	if err := l.Down(ctx); err != nil { // an earlier demo's
		return err
	}
	if err := a.labUp(ctx, l, dir, lab.Demo, accel); err != nil {
		return err
	}
	_, interactive := terminal(a.out)
	defer func() {
		if err == nil && interactive && !down {
			a.say("the lab stays until Ctrl-C; in another terminal try:")
			fmt.Fprintf(a.out, "      docker -H %s node ls\n      sudo bin/bootd lab ssh node1\n      sudo bin/bootd lab power press node2\n      sudo bin/bootd machine list --socket %s\n", l.Engine(), l.Socket())
			<-ctx.Done()
		}
		if down || interactive {
			a.say("removing the lab")
			if e := l.Down(context.WithoutCancel(ctx)); err == nil {
				err = e
			}
			return
		}
		fmt.Fprintf(a.out, "\nThe lab is still up; remove it with: make demo-down\n")
	}()
	a.say("power on")
	if err := a.labPower(ctx, l, lab.On, nil); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	again := map[string]bool{}
	boots, err := a.watchBoots(wait, client.New(l.Socket()), func(t boot.Timeline) error {
		if again[t.Name] || !hangs(t, time.Now()) {
			return nil
		}
		again[t.Name] = true
		fmt.Fprintf(a.err, "%s hangs between its firmware and its kernel, as emulated machines do once in a while: it is switched off and on\n", t.Name)
		_, err := l.Power(wait, t.Name, lab.Cycle)
		return err
	})
	if err != nil {
		return fmt.Errorf("not all machines became ready: %w; see %s and %s", err, l.ServerLog(), l.Console("MACHINE"))
	}
	return a.showSwarm(ctx, l, boots)
}

// hangs reports whether a machine has had its kernel and initramfs for minutes,
// and nothing was heard of them.
func hangs(t boot.Timeline, now time.Time) bool {
	const handover = 2 * time.Minute // the initramfs asks for an address within seconds
	loaded, last := false, t.Started
	for _, s := range t.Steps {
		if s.Client == boot.Initramfs || s.Client == boot.System {
			return false
		}
		loaded = loaded || s.Stage == boot.Initrd
		if s.Last.After(last) {
			last = s.Last
		}
	}
	return loaded && now.Sub(last) > handover
}

// watchBoots draws the boots until all of them are done, and returns them. On
// a terminal the picture is redrawn in place; elsewhere each new step is a line.
// Each boot is shown to each as well.
func (a *app) watchBoots(ctx context.Context, api *client.Client, each func(boot.Timeline) error) ([]boot.Timeline, error) {
	columns, tty := terminal(a.out)
	w := waterfall{width: columns, colour: tty}
	out := bufio.NewWriter(a.out)
	shown := 0
	told := map[string]bool{}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		boots, err := currentBoots(ctx, api)
		if err != nil {
			return nil, err
		}
		for _, t := range boots {
			if err := each(t); err != nil {
				return nil, err
			}
		}
		if tty {
			if shown > 0 {
				fmt.Fprintf(out, "\x1b[%dA\x1b[J", shown)
			}
			lines := w.lines(boots, time.Now())
			for _, l := range lines {
				fmt.Fprintln(out, l)
			}
			shown = len(lines)
		} else {
			tellSteps(out, boots, told)
		}
		if err := out.Flush(); err != nil {
			return nil, err
		}
		if allDone(boots) {
			if !tty {
				for _, l := range w.lines(boots, time.Now()) {
					fmt.Fprintln(a.out, l)
				}
			}
			return boots, nil
		}
		select {
		case <-ctx.Done():
			return boots, fmt.Errorf("%w after %s", ctx.Err(), states(boots))
		case <-tick.C:
		}
	}
}

// currentBoots asks for the boots of the configured machines, in their order.
func currentBoots(ctx context.Context, api *client.Client) ([]boot.Timeline, error) {
	machines, err := api.Machines(ctx)
	if err != nil {
		return nil, err
	}
	var boots []boot.Timeline
	for _, m := range machines {
		if m.Boot != nil {
			t := *m.Boot
			t.Name = m.Name // until its script is given out, the boot does not have it
			boots = append(boots, t)
		}
	}
	return boots, nil
}

func allDone(boots []boot.Timeline) bool {
	for _, t := range boots {
		if !t.Done() {
			return false
		}
	}
	return len(boots) > 0
}

func states(boots []boot.Timeline) string {
	var parts []string
	for _, t := range boots {
		parts = append(parts, fmt.Sprintf("%s: %s", label(t), t.Stage()))
	}
	return strings.Join(parts, ", ")
}

// tellSteps writes the steps that have not been told yet, one a line.
func tellSteps(out *bufio.Writer, boots []boot.Timeline, told map[string]bool) {
	for _, t := range boots {
		for _, s := range t.Steps {
			key := fmt.Sprint(t.ID, s.Stage, s.Client, s.Text)
			if told[key] {
				continue
			}
			told[key] = true
			name := t.Name
			if name == "" {
				name = t.MAC.String()
			}
			fmt.Fprintf(out, "%-8s %8s  %-9s %s\n", name, "+"+short(s.Last.Sub(t.Started)), s.Stage, detail(s))
		}
	}
}

// detail puts what a step is about in one line.
func detail(s boot.Step) string {
	parts := []string{}
	if s.Client != "" {
		parts = append(parts, string(s.Client))
	}
	if s.Text != "" {
		parts = append(parts, s.Text)
	}
	if s.Bytes > 0 {
		parts = append(parts, size(s.Bytes))
	}
	if s.Took > 0 {
		parts = append(parts, "in "+short(s.Took))
	}
	return strings.Join(parts, ", ")
}

// showSwarm ends the demo with what it was for.
func (a *app) showSwarm(ctx context.Context, l lab.Lab, boots []boot.Timeline) error {
	fmt.Fprintln(a.out)
	if err := a.durations(boots); err != nil {
		return err
	}
	run := func(args ...string) error {
		fmt.Fprintln(a.out, "\n$ docker "+strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, "docker", append([]string{"-H", l.Engine()}, args...)...)
		cmd.Stdout, cmd.Stderr = a.out, a.err
		return cmd.Run()
	}
	if err := run("node", "ls"); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "\n$ bootd swarm nodes")
	nodes, err := client.New(l.Socket()).SwarmNodes(ctx, "")
	if err != nil {
		return err
	}
	return a.swarmNodes(nodes)
}

// durations is the table of how long each stage of each boot took.
func (a *app) durations(boots []boot.Timeline) error {
	header := []string{"STAGE"}
	spans := make([]map[string]time.Duration, len(boots))
	for i, t := range boots {
		header = append(header, strings.ToUpper(label(t)))
		spans[i] = map[string]time.Duration{}
		for _, s := range t.Durations() {
			spans[i][s.Name] += s.To.Sub(s.From)
		}
	}
	var rows [][]string
	for _, name := range boot.SpanNames() {
		row, used := []string{name}, false
		for i := range boots {
			cell := ""
			if d, ok := spans[i][name]; ok {
				cell, used = short(d), true
			}
			row = append(row, cell)
		}
		if used {
			rows = append(rows, row)
		}
	}
	total := []string{"power-on to ready"}
	for _, t := range boots {
		total = append(total, short(t.Steps[len(t.Steps)-1].Last.Sub(t.Started)))
	}
	return a.table(header, append(rows, total))
}
