// Command bootd boots diskless machines over the network and turns them into
// a container cluster. It is the server (bootd serve) and the tool that
// operators use against it, in one binary.
//
// This package holds what only a program may do: flags, the environment, the
// terminal, the exit status, and the wiring of the parts. Each file is one
// noun of the command line; serve.go builds the server.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bootd/internal/client"
	"bootd/internal/config"
)

// The exit statuses of every command.
const (
	exitOK          = 0
	exitFailed      = 1 // it was tried and did not work
	exitUsage       = 2 // the command line is wrong
	exitConfig      = 3 // the configuration has mistakes
	exitUnreachable = 4 // bootd serve does not answer
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{in: stdin, out: stdout, err: stderr}
	root := a.command()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	return a.explain(err)
}

// An app is one invocation of the program: where it reads and writes, and the
// flags that all commands share.
type app struct {
	in       io.Reader
	out, err io.Writer

	dir    string // configuration directory
	socket string // of the API; empty: as the configuration says
	format string // table or json; with these:
	wide   bool   // a table with all its columns
	yaml   bool   // YAML in the place of JSON
}

const about = `bootd turns diskless machines into a running container cluster.

A machine is switched on; bootd gives it an address, a loader, a kernel and its
configuration; the machine joins the swarm. Start with:

  bootd check                      is the configuration right?
  bootd profile render worker      what would a machine get?
  bootd serve                      answer machines
  bootd machine list               where is each of them?
  bootd doctor                     why does nothing boot?

Exit status: 0 done, 1 failed, 2 wrong usage, 3 the configuration has
mistakes, 4 the server does not answer.`

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "bootd",
		Short:         "boot diskless machines into a container cluster",
		Long:          about,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	f := root.PersistentFlags()
	f.StringVarP(&a.dir, "config", "c", defaultDir, "configuration `directory`")
	f.StringVar(&a.socket, "socket", "", "`path` of the server's socket (default: as configured)")
	var output string
	f.StringVarP(&output, "output", "o", "table", "`format` of the output: table, wide, json or yaml")
	completeFlag(root, "output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	completeFlag(root, "config", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.choose(output) }
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	root.SetHelpCommand(helpCommand())
	root.CompletionOptions.DisableDefaultCmd = true // ours says more
	group(root,
		a.initCommand(),
		a.serveCommand(),
		a.checkCommand(),
		a.profileCommand(),
		a.machineCommand(),
		a.assetCommand(),
		a.leaseCommand(),
		a.eventsCommand(),
		a.swarmCommand(),
		a.controllerCommand(),
		a.tenantCommand(),
		a.ticketCommand(),
		a.projectCommand(),
		a.flavorCommand(),
		a.hostCommand(),
		a.imageCommand(),
		a.vmCommand(),
		a.clusterCommand(),
		a.taskCommand(),
		a.auditCommand(),
		a.statusCommand(),
		a.doctorCommand(),
		a.dashboardCommand(),
		a.labCommand(),
		a.versionCommand(),
		a.completionCommand(),
		a.manCommand(),
		a.openAPICommand(),
		a.monitoringCommand(),
	)
	a.addWatch(root)
	return root
}

// defaultDir is where the configuration is if nobody says otherwise.
const defaultDir = "/etc/bootd"

// A usageError is a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// explain writes err for a person and returns the exit status it deserves.
func (a *app) explain(err error) int {
	var usage usageError
	var mistakes config.Mistakes
	switch {
	case errors.Is(err, context.Canceled):
		return exitFailed // interrupted: who did it knows
	case errors.As(err, &mistakes):
		if shown := (told{}); !errors.As(err, &shown) {
			fmt.Fprintln(a.err, mistakes.Error())
		}
		return exitConfig
	case errors.As(err, &usage):
		fmt.Fprintln(a.err, "bootd:", err)
		return exitUsage
	case errors.Is(err, client.ErrUnreachable):
		fmt.Fprintln(a.err, "bootd:", err)
		return exitUnreachable
	}
	fmt.Fprintln(a.err, "bootd:", err)
	return exitFailed
}

// version is set by the linker for releases.
var version = ""

// A build says which program this is.
type build struct {
	Version string `json:"version"`
	Go      string `json:"go,omitempty"`
	Commit  string `json:"commit,omitempty"`
}

func thisBuild() build {
	b := build{Version: version}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	b.Version = cmp.Or(b.Version, info.Main.Version, "(devel)")
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Commit = s.Value
		}
	}
	return b
}

// buildTime is when the source was committed; zero: unknown.
func buildTime() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				t, _ := time.Parse(time.RFC3339, s.Value) // zero, too
				return t
			}
		}
	}
	return time.Time{}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Example: "  bootd version\n  bootd version -o json",
		Short: "print the version",
		Long: `Version prints which build of bootd this is, by which Go it was made, and from
which commit.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			if a.format == "json" {
				return a.json(b)
			}
			_, err := fmt.Fprintln(a.out, strings.Join(strings.Fields("bootd "+b.Version+" "+b.Go+" "+b.Commit), " "))
			return err
		},
	}
}
