package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bootd/boot"
	"bootd/internal/api"
	"bootd/internal/client"
	"bootd/internal/config"
	"bootd/internal/doctor"
	"bootd/internal/swarm"
)

func (a *app) doctorCommand() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:   "doctor",
		Short: "find out why machines do not boot: what is wrong on this machine",
		Long: `Doctor looks at all that the server needs of this machine, whether the server
runs or not: the configuration, interfaces and their addresses, ports that others
have, the firewall, other DHCP servers, loaders, images, Docker, the clock, the
disk. Each finding comes with what helps. It changes nothing. As root it can see
more.

Exit status: 0 nothing is wrong, or only warnings; 1 something is; 3 the
configuration has mistakes.`,
		Example: "  sudo bootd doctor\n  sudo bootd doctor -c ./site -o json",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			x := &examination{app: a, wait: wait, root: os.Geteuid() == 0}
			err := x.all(c.Context())
			if c.Context().Err() != nil {
				return c.Context().Err()
			}
			if e := a.findings(x.found); e != nil || err != nil {
				return cmp.Or(e, err)
			}
			if doctor.Worst(x.found) == doctor.Fault {
				return errors.New("something is wrong on this machine")
			}
			return nil
		},
	}
	c.Flags().DurationVar(&wait, "wait", 4*time.Second, "how long to listen for other DHCP servers")
	return c
}

// findings writes what was found; for people, remedies are below what they are
// for.
func (a *app) findings(list []doctor.Finding) error {
	if a.format == "json" {
		return a.json(list)
	}
	var rows [][]string
	for _, f := range list {
		lines := strings.Split(f.Text, "\n")
		if f.Remedy != "" {
			lines = append(lines, "-> "+f.Remedy)
		}
		rows = append(rows, []string{string(f.Level), f.Check, lines[0]})
		for _, more := range lines[1:] {
			rows = append(rows, []string{" ", " ", more})
		}
	}
	return a.table([]string{"LEVEL", "CHECK", "FINDING"}, rows)
}

// An examination is one run of the doctor.
type examination struct {
	*app
	wait time.Duration
	root bool

	cfg    *config.Config
	server *api.Status // nil: it does not answer
	hidden bool        // the caller may not ask the server
	found  []doctor.Finding
}

func (x *examination) say(check string, level doctor.Level, remedy, format string, args ...any) {
	x.found = append(x.found, doctor.Finding{Check: check, Level: level, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

// all examines everything. The error is about the configuration, without which
// little can be looked at, and has been shown as a finding as well.
func (x *examination) all(ctx context.Context) error {
	err := x.configuration()
	x.answers(ctx)
	if x.cfg != nil {
		x.networks(ctx)
		x.firewall(ctx)
		x.otherServers(ctx)
		x.loaders()
		x.images()
		x.docker(ctx)
		x.disk()
	}
	x.clock()
	return err
}

func (x *examination) configuration() error {
	if err := readable(x.dir); err != nil {
		x.say("configuration", doctor.Unknown, asOperator, "%v", err)
		return errors.New("without the configuration little can be looked at")
	}
	cfg, err := config.Load(x.dir)
	if err == nil {
		x.cfg = cfg
		err = checkProfiles(cfg)
	}
	var mistakes config.Mistakes
	switch {
	case errors.As(err, &mistakes):
		x.say("configuration", doctor.Fault, "mend it; bootd check shows it again", "%v", mistakes)
		return told{err}
	case err != nil:
		x.say("configuration", doctor.Fault, "", "%v", err)
		return nil
	}
	if unread := unreadable(x.dir); unread != "" {
		x.say("configuration", doctor.Fault, fmt.Sprintf("chgrp -R %[1]s %[2]s && chmod -R g+rX %[2]s", serverUser, x.dir), "the server's user %s cannot read %s", serverUser, unread)
		return nil
	}
	x.say("configuration", doctor.OK, "", "%s: %d network(s), %d profile(s), %d machine entry(s)",
		x.dir, len(cfg.Catalog.Networks), len(cfg.Catalog.Profiles), len(cfg.Catalog.Machines))
	return nil
}

// asOperator helps those who may not see enough.
const asOperator = "run it as root, or as a member of the group " + serverUser

// readable is the error of a configuration that is not for the caller to read.
func readable(dir string) error {
	f, err := os.Open(filepath.Join(dir, "bootd.yaml"))
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("cannot read the configuration: %w", err)
	}
	return nil // what else is wrong is found when it is loaded
}

// serverUser is who the systemd unit runs the server as.
const serverUser = "bootd"

// unreadable is a file of a configuration that the server's user cannot read,
// if there is that user; empty: none.
func unreadable(dir string) string {
	u, err := user.Lookup(serverUser)
	if err != nil || dir != defaultDir {
		return "" // it is run in another way
	}
	groups, _ := u.GroupIds() // none: only what everybody may
	found := ""
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it is not the caller's to see, either
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		want := fs.FileMode(0o4)
		if e.IsDir() {
			want = 0o5
		}
		mode := info.Mode().Perm()
		switch {
		case strconv.Itoa(int(st.Uid)) == u.Uid:
			mode >>= 6
		case slices.Contains(groups, strconv.Itoa(int(st.Gid))):
			mode >>= 3
		}
		if mode&want != want && e.Type()&fs.ModeSymlink == 0 {
			found = path
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// answers asks the server how it is.
func (x *examination) answers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := x.api().Status(ctx)
	switch {
	case err == nil:
		x.server = &s
		x.say("server", doctor.OK, "", "bootd %s runs, process %d", s.Version, s.PID)
	case errors.Is(err, client.ErrUnreachable):
		x.say("server", doctor.Warning, "systemctl start bootd, or bootd serve", "%v", err)
	case errors.Is(err, fs.ErrPermission):
		x.hidden = true
		x.say("server", doctor.Unknown, asOperator, "%v", err)
	default:
		x.say("server", doctor.Fault, "journalctl -u bootd", "%v", err)
	}
}

func (x *examination) loaders() {
	found := findLoaders(x.cfg)
	hidden := false
	for _, e := range found.Skipped() {
		level, remedy := doctor.Warning, "put it right, or take it away"
		if errors.Is(e, fs.ErrPermission) {
			hidden, level, remedy = true, doctor.Unknown, asOperator
		}
		x.say("loaders", level, remedy, "left out: %v", e)
	}
	var there, missing []string
	for _, f := range []struct {
		arch boot.Arch
		name string
	}{{boot.BIOS, "BIOS"}, {boot.EFIX64, "UEFI x64"}} {
		if name, ok := boot.LoaderFile(f.arch, nil, found.Has); ok {
			there = append(there, f.name+": "+name)
		} else {
			missing = append(missing, f.name)
		}
	}
	const remedy = "apt-get install ipxe, or put iPXE builds into a directory and name it in bootd.yaml: loaders: DIRECTORY"
	switch {
	case hidden && len(missing) > 0: // it may be where the caller cannot look
	case len(there) == 0:
		x.say("loaders", doctor.Fault, remedy, "no build of iPXE was found; only machines with iPXE in their ROM boot")
	case len(missing) > 0:
		x.say("loaders", doctor.Warning, remedy, "no build of iPXE for %s was found", strings.Join(missing, " and "))
	default:
		x.say("loaders", doctor.OK, "", "%s", strings.Join(there, ", "))
	}
	for _, l := range withoutGRUB(x.cfg, found) {
		x.say("loaders", doctor.Warning, l.Remedy, "%s", l)
	}
}

func (x *examination) images() {
	names := imageNames(x.cfg)
	if len(names) == 0 {
		return
	}
	there := map[string]boot.Image{}
	// A store that is not there is not made here.
	_, err := os.Stat(filepath.Join(x.cfg.StateDir, "assets"))
	if errors.Is(err, fs.ErrPermission) {
		x.say("images", doctor.Unknown, asOperator, "%v", err)
		return
	}
	if err == nil {
		s, err := openAssets(x.cfg)
		if err == nil {
			there, err = s.Images()
		}
		if err != nil {
			x.say("images", doctor.Unknown, asOperator, "%v", err)
			if len(there) == 0 {
				return
			}
		}
	}
	for _, name := range names {
		if i, ok := there[name]; ok {
			x.say("images", doctor.OK, "", "%s %s", name, i.Version)
			continue
		}
		remedy := "bootd asset fetch " + name
		if strings.HasPrefix(name, string(boot.ESXi)+"/") {
			remedy = "bootd asset import " + name + " FILE.iso"
		}
		x.say("images", doctor.Fault, remedy, "%s is not in the store, so machines of the profiles that name it do not boot", name)
	}
}

func (x *examination) docker(ctx context.Context) {
	for _, d := range x.cfg.Swarms {
		check := "swarm " + d.Name
		if x.server != nil {
			i := slices.IndexFunc(x.server.Swarms, func(s api.Swarm) bool { return s.Name == d.Name })
			if i >= 0 {
				x.keptSwarm(check, x.server.Swarms[i])
				continue
			}
		}
		bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
		info, err := swarm.Ask(bounded, d.Host, (*swarm.TLS)(d.TLS), loginTo(d.SSH))
		cancel()
		remedy := ""
		if path, local := strings.CutPrefix(d.Host, "unix://"); local {
			remedy = "systemctl start docker; and whoever runs the server has to be in the group that " + path + " belongs to"
		}
		switch {
		case err != nil:
			x.say(check, doctor.Fault, remedy, "the engine at %s cannot be asked: %v", d.Host, err)
		case info.State == swarm.Inactive:
			x.say(check, doctor.OK, "", "engine %s at %s, in no swarm yet: the server makes one", info.Version, d.Host)
		case info.State == swarm.Member && info.Manager:
			x.say(check, doctor.OK, "", "engine %s at %s, a manager", info.Version, d.Host)
		case info.State == swarm.Member:
			x.say(check, doctor.Fault, "name a manager's engine as its host, or let this one leave: docker swarm leave", "engine %s at %s is a worker of a swarm", info.Version, d.Host)
		default:
			x.say(check, doctor.Fault, "docker info shows more", "engine %s at %s is %s %s", info.Version, d.Host, info.State, info.Error)
		}
	}
}

// keptSwarm says what the server says of a swarm.
func (x *examination) keptSwarm(check string, s api.Swarm) {
	switch swarm.Phase(s.Phase) {
	case swarm.Ready:
		x.say(check, doctor.OK, "", "managed on %s", s.Host)
	case swarm.Lost:
		x.say(check, doctor.Fault, "bootd status says what helps", "%s", s.Text)
	default:
		x.say(check, doctor.Fault, "", "%s: %s", s.Phase, s.Text)
	}
	for _, n := range s.Notices {
		x.say(check, doctor.Warning, "", "%s", n)
	}
}

func (x *examination) disk() {
	d, err := doctor.ReadDisk(x.cfg.StateDir)
	if err != nil {
		x.say("disk", doctor.Unknown, "run it as root", "%v", err)
		return
	}
	x.found = append(x.found, d.Findings()...)
}

func (x *examination) clock() {
	c, err := doctor.ReadClock(buildTime())
	if err != nil {
		x.say("clock", doctor.Unknown, "", "%v", err)
		return
	}
	x.found = append(x.found, c.Finding())
}
