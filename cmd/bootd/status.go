package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/internal/api"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "how the server is",
		Long: `Status shows in one screen what the server does: its networks and their leases,
where the machines stand and which of them wait, images and swarms, and all that is
not as it should be, with what helps. Where there is no server, bootd doctor tells
more.`,
		Example: "  bootd status\n  bootd status --watch\n  bootd status -o json",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.api().Status(c.Context())
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(s)
			}
			machines, err := a.api().Machines(c.Context())
			if err != nil {
				return err
			}
			leases, err := a.api().Leases(c.Context())
			if err != nil {
				return err
			}
			a.status(s, machines, leases, time.Now())
			return nil
		},
	}
}

// status writes how the server is, for people.
func (a *app) status(s api.Status, machines []api.Machine, leases []api.Lease, now time.Time) {
	fmt.Fprintf(a.out, "bootd %s, process %d, up %s, configuration %s\n", s.Version, s.PID, short(now.Sub(s.Started)), s.Config)
	fmt.Fprintf(a.out, "%d profile(s), %d machine entry(s)\n", s.Profiles, s.Machines)
	for _, n := range s.Networks {
		fmt.Fprintf(a.out, "network %s: %s on %s, %s%s\n", n.Name, n.Subnet, n.Interface, n.Mode, inUse(n, leases))
		for _, o := range n.Others {
			fmt.Fprintln(a.out, "  -", rival(o))
		}
		for _, f := range n.Floods {
			from := dhcp.Flood{Relay: f.Relay, Port: f.Port}.Source()
			fmt.Fprintf(a.out, "  - new machines from %s ask for addresses and do not take them, since %s: %d request(s) not answered, %d address(es) held; look there for who makes hardware addresses up\n",
				from, f.Since.Format(time.DateTime), f.Dropped, f.Held)
		}
	}
	if len(machines) > 0 {
		fmt.Fprintf(a.out, "machines: %s\n", stages(machines))
	}
	for _, m := range waiting(machines) {
		fmt.Fprintf(a.out, "  - %s, %s %s: %s\n", m.Name, m.Stage, ago(m.Since, now), m.Waits)
	}
	for _, i := range s.Images {
		v := i.Version
		if v == "" {
			v = "missing; see `bootd asset fetch --help`"
		}
		fmt.Fprintf(a.out, "image %s: %s\n", i.Name, v)
	}
	for _, w := range s.Swarms {
		fmt.Fprintln(a.out, strings.TrimSpace(fmt.Sprintf("swarm %s on %s: %s %s", w.Name, w.Host, w.Phase, w.Text)))
		for _, n := range w.Notices {
			fmt.Fprintln(a.out, "  -", n)
		}
	}
	if s.Problem != "" {
		fmt.Fprintf(a.out, "\nThe configuration on disk has mistakes; an older one is in force:\n%s\n", s.Problem)
	}
}

// inUse says how many machines have addresses of a network that bootd gives.
func inUse(n api.Network, leases []api.Lease) string {
	if n.Mode != boot.Authoritative {
		return ""
	}
	bound := 0
	for _, l := range leases {
		if l.Network == n.Name && l.State == "bound" {
			bound++
		}
	}
	return fmt.Sprintf(", %d address(es) leased", bound)
}

// stages counts the machines by how far they are, those that are ready first and
// then by how common that is.
func stages(machines []api.Machine) string {
	count := map[string]int{}
	var names []string
	for _, m := range machines {
		name := string(m.Stage)
		if name == "" {
			name = "never seen"
		}
		if count[name]++; count[name] == 1 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(x, y string) int {
		switch {
		case x == string(boot.Ready):
			return -1
		case y == string(boot.Ready):
			return 1
		case count[x] != count[y]:
			return count[y] - count[x]
		}
		return strings.Compare(x, y)
	})
	for i, n := range names {
		names[i] = fmt.Sprintf("%d %s", count[n], n)
	}
	return strings.Join(names, ", ")
}

// maxWaiting is how many machines that wait are named.
const maxWaiting = 10

// waiting lists the machines that wait for something, those first that have
// done so for the shortest time: what happens now is at the top.
func waiting(machines []api.Machine) []api.Machine {
	var out []api.Machine
	for _, m := range machines {
		if m.Waits != "" && m.Stage != "" {
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(x, y api.Machine) int { return y.Since.Compare(x.Since) })
	return out[:min(len(out), maxWaiting)]
}

// rival says what a DHCP server does that should not be there, and what can be
// done about it.
func rival(o api.OtherServer) string {
	what := "answers machines that boot"
	if o.Offers.IsValid() {
		what = "gives addresses, such as " + o.Offers.String()
	}
	return fmt.Sprintf("another DHCP server, %s (%s), %s: stop it, or leave the addresses to it (mode: proxy)", o.Addr, o.MAC, what)
}
