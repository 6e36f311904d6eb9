package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// An Action is what can be done to a machine's power.
type Action string

// The actions.
const (
	On    Action = "on"
	Off   Action = "off"   // the plug is pulled
	Cycle Action = "cycle" // off and on
	Press Action = "press" // the power button: the system shuts itself down
)

// Power does something to a machine's power. It returns when it was done; for
// a machine that is switched on, that is when its boot began. Switching a
// machine on that is on changes nothing and returns when that was done; a
// machine that is off stays off.
func (l Lab) Power(ctx context.Context, machine string, a Action) (time.Time, error) {
	unlock, err := l.lock()
	if err != nil {
		return time.Time{}, err
	}
	defer unlock()
	s, err := l.load()
	if err != nil {
		return time.Time{}, err
	}
	c, err := LoadConfig(s.Config) // each time: machines may be added to a running lab
	if err != nil {
		return time.Time{}, err
	}
	m, err := c.Machine(machine)
	if err != nil {
		return time.Time{}, err
	}
	switch a {
	case On:
		return l.powerOn(ctx, s, m)
	case Off:
		return time.Now(), l.powerOff(ctx, s, m)
	case Cycle:
		if err := l.powerOff(ctx, s, m); err != nil {
			return time.Time{}, err
		}
		return l.powerOn(ctx, s, m)
	case Press:
		if p := s.Machines[m.Name]; p == nil || !p.Process.alive() {
			return time.Time{}, fmt.Errorf("cannot press the power button of machine %s: it is off", m.Name)
		}
		if err := qmp(ctx, l.run(m.Name+".qmp"), "system_powerdown"); err != nil {
			return time.Time{}, fmt.Errorf("cannot press the power button of machine %s: %w", m.Name, err)
		}
		return time.Now(), nil
	}
	return time.Time{}, fmt.Errorf("cannot %s machine %s: use on, off, cycle or press", a, machine)
}

func (l Lab) powerOn(ctx context.Context, s *state, m Machine) (time.Time, error) {
	if p := s.Machines[m.Name]; p != nil && p.Process.alive() {
		return p.On, nil
	}
	h := hardware{
		accel:   s.Accel,
		tap:     tapName(m),
		console: l.Console(m.Name),
		qmp:     l.run(m.Name + ".qmp"),
		vars:    l.run(m.Name + ".vars"),
	}
	if err := l.prepare(m, h); err != nil {
		return time.Time{}, fmt.Errorf("cannot power on machine %s: %w", m.Name, err)
	}
	on := time.Now()
	p, err := l.start(ctx, command{
		argv:  m.arguments(h),
		log:   l.run(m.Name + ".qemu.log"),
		ready: func(ctx context.Context) bool { return connects(ctx, h.qmp) },
		limit: 20 * time.Second,
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot power on machine %s: %w", m.Name, err)
	}
	s.Machines[m.Name] = &powered{p, on}
	return on, l.save(s)
}

// prepare makes what the machine's QEMU needs. The console of its boot before
// is kept under another name.
func (l Lab) prepare(m Machine, h hardware) error {
	if err := l.Tap(h.tap); err != nil {
		return err
	}
	if err := os.Remove(h.qmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(h.console, h.console+".before"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if m.Firmware == BIOS {
		return nil
	}
	_, fresh := m.Firmware.ovmf()
	vars, err := os.ReadFile(fresh)
	if err != nil {
		return fmt.Errorf("cannot find the UEFI firmware (package ovmf): %w", err)
	}
	return os.WriteFile(h.vars, vars, 0o600)
}

func (l Lab) powerOff(ctx context.Context, s *state, m Machine) error {
	p := s.Machines[m.Name]
	if p == nil || !p.Process.alive() {
		return nil
	}
	if err := stop(ctx, 2*time.Second, p.Process); err != nil {
		return fmt.Errorf("cannot power off machine %s: %w", m.Name, err)
	}
	return nil
}

// tapName fits in the 15 characters that an interface name may have.
func tapName(m Machine) string { return fmt.Sprintf("tap%x", m.MAC[:]) }

// A Status is a machine's, as found now.
type Status struct {
	Machine
	On    bool
	Since time.Time // when it was last powered on; zero: never
	PID   int       // of its QEMU, when on
	Says  string    // the last line on its console
}

// Status describes the machines, in the order of lab.yaml.
func (l Lab) Status() ([]Status, error) {
	s, err := l.load()
	if err != nil {
		return nil, err
	}
	c, err := LoadConfig(s.Config)
	if err != nil {
		return nil, err
	}
	var list []Status
	for _, m := range c.Machines {
		st := Status{Machine: m, Says: lastLine(l.Console(m.Name))}
		if p := s.Machines[m.Name]; p != nil {
			st.Since = p.On
			if p.Process.alive() {
				st.On, st.PID = true, p.Process.PID
			}
		}
		list = append(list, st)
	}
	return list, nil
}

// A Summary is what runs in a lab beside its machines.
type Summary struct {
	Since          time.Time
	Config         string // configuration directory
	Engine, Server bool   // whether each runs
}

// Summary tells what runs in the lab.
func (l Lab) Summary() (Summary, error) {
	s, err := l.load()
	if err != nil {
		return Summary{}, err
	}
	return Summary{s.Since, s.Config, s.Engine.alive(), s.Server.alive()}, nil
}

// List names the labs that are up or have left traces, in order.
func List() ([]string, error) {
	seen := map[string]bool{}
	for _, dir := range []string{runRoot, stateRoot} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot list labs: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() {
				seen[e.Name()] = true
			}
		}
	}
	var names []string
	for n := range seen {
		names = append(names, n)
	}
	slices.SortFunc(names, cmp.Compare)
	return names, nil
}

// SSH is the command line of a shell on a machine, or of a command there.
func (l Lab) SSH(machine string, command ...string) ([]string, error) {
	s, err := l.load()
	if err != nil {
		return nil, err
	}
	c, err := LoadConfig(s.Config)
	if err != nil {
		return nil, err
	}
	m, err := c.Machine(machine)
	if err != nil {
		return nil, err
	}
	addr, err := l.neighbour(m.MAC)
	if err != nil {
		return nil, err
	}
	if !addr.IsValid() {
		return nil, fmt.Errorf("cannot reach machine %s: it has not yet shown an address on the network", machine)
	}
	return append([]string{
		"ip", "netns", "exec", l.Netns(),
		"ssh", "-i", l.Key(), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
		// A diskless machine has another host key after each boot.
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"core@" + addr.String(),
	}, command...), nil
}
