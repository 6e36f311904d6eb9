// Package power switches machines on and off: through their management
// controllers (BMCs) by Redfish and IPMI, and by wake-on-LAN. It also tells a
// BMC from which device its machine is to boot next.
//
// It owns how BMCs are talked to, and what is wrong when that does not work:
// every error is an [Error], which names the BMC, what failed and the remedy.
// Passwords are read from their files for each order and go nowhere else: into
// no error, no log, no argument of a program.
//
// [Switches] may be used by several goroutines at once. Orders for one BMC wait
// for each other, since many allow few sessions; those for others do not. It
// does not know which machines there are, and records nothing.
package power

import (
	"context"
	"fmt"
	"sync"
	"time"

	"bootd/boot"
)

// An Action is what is done to a machine's power.
type Action string

// The actions.
const (
	On       Action = "on"
	Off      Action = "off"      // at once, as by holding the button
	Shutdown Action = "shutdown" // by asking its system, which may take its time or refuse
	Cycle    Action = "cycle"    // off and on again; on, if it was off
	status   Action = "status"   // only for errors
)

// A Device is what a machine boots from.
type Device string

// The devices that a BMC can be told of.
const (
	PXE  Device = "pxe"
	Disk Device = "disk"
	BIOS Device = "bios" // the firmware's setup
	HTTP Device = "http" // UEFI HTTP boot; only Redfish knows it
)

// A Firmware is how a machine boots, which some BMCs want to hear.
type Firmware string

// The kinds of firmware.
const (
	UnknownFirmware Firmware = ""
	LegacyBIOS      Firmware = "bios"
	UEFI            Firmware = "uefi"
)

// A State is whether a machine is on.
type State string

// The states.
const (
	IsOn    State = "on"
	IsOff   State = "off"
	Unknown State = "unknown" // nobody can tell: the BMC is changing it, or there is none
)

// A Target is a machine and how it is switched.
type Target struct {
	Machine  string   // for errors
	MAC      boot.MAC // for WOL
	BMC      boot.BMC // rendered: see [boot.BMC.Render]
	Firmware Firmware
}

// An Order is what is to be done to a machine.
type Order struct {
	Action     Action
	Boot       Device // from which it boots next; empty: as ever
	Persistent bool   // Boot is for all its boots from now on
}

// An Outcome is what an order did.
type Outcome struct {
	Was     State
	Now     State     // as the BMC shows it, or, where none can tell, as ordered
	Changed bool      // something was switched
	At      time.Time // when that was ordered; zero: nothing was
	Text    string
}

// A Config holds what [New] needs.
type Config struct {
	// Timeout bounds one order, including the wait for the machine to become
	// what was ordered. Default 45 s.
	Timeout time.Duration
	// Settle bounds that wait alone. Default 20 s.
	Settle time.Duration
	// IPMITool is the program ipmitool; empty: looked for in the path.
	IPMITool string
}

// Switches carries out orders.
type Switches struct {
	config Config
	mu     sync.Mutex
	busy   map[string]*turn // by address of the BMC
}

// A turn lets one order after the other use a BMC.
type turn struct {
	held    chan struct{}
	waiting int // including the one that holds it
}

// New returns Switches. Nothing is connected yet.
func New(c Config) *Switches {
	if c.Timeout <= 0 {
		c.Timeout = 45 * time.Second
	}
	if c.Settle <= 0 {
		c.Settle = 20 * time.Second
	}
	return &Switches{config: c, busy: map[string]*turn{}}
}

// A controller is a BMC that is connected.
type controller interface {
	state(context.Context) (State, error)
	// set begins an action; the machine may take its time. Whether it was on
	// is known to be as was.
	set(ctx context.Context, a Action, was State) error
	bootFrom(ctx context.Context, d Device, persistent bool, f Firmware) error
	close()
}

// Status asks whether a machine is on.
func (s *Switches) Status(ctx context.Context, t Target) (State, error) {
	now := Unknown
	err := s.with(ctx, t, status, func(ctx context.Context, c controller) (err error) {
		now, err = c.state(ctx)
		return err
	})
	return now, err
}

// Do carries out an order. It returns when the BMC shows the machine as
// ordered; after a shutdown, when the BMC has taken the order.
func (s *Switches) Do(ctx context.Context, t Target, o Order) (Outcome, error) {
	var out Outcome
	if t.BMC.Kind == boot.WOL {
		return s.wake(ctx, t, o)
	}
	err := s.with(ctx, t, o.Action, func(ctx context.Context, c controller) (err error) {
		out, err = s.carryOut(ctx, c, t, o)
		return err
	})
	return out, err
}

func (s *Switches) carryOut(ctx context.Context, c controller, t Target, o Order) (Outcome, error) {
	was, err := c.state(ctx)
	if err != nil {
		return Outcome{}, err
	}
	out := Outcome{Was: was, Now: was}
	if o.Boot != "" {
		if err := c.bootFrom(ctx, o.Boot, o.Persistent, t.Firmware); err != nil {
			return out, err
		}
		out.Text = "boots next from " + string(o.Boot)
		if o.Persistent {
			out.Text = "boots from " + string(o.Boot) + " from now on"
		}
	}
	want := IsOn
	if o.Action == Off || o.Action == Shutdown {
		want = IsOff
	}
	if was == want && o.Action != Cycle {
		if o.Boot != "" && want == IsOn {
			out.Text += "; it is on already, so that takes a cycle"
		}
		return out, nil
	}
	at := time.Now()
	if err := c.set(ctx, o.Action, was); err != nil {
		return out, err
	}
	out.Changed, out.At = true, at
	if o.Action == Shutdown {
		return out, nil // when its system obeys nobody knows
	}
	if o.Action == Cycle && was == IsOn {
		// Until it is on again: who switches it off in between would see it
		// off, and then it comes.
		if out.Now, err = s.dip(ctx, c); err != nil || out.Now == IsOn {
			return out, err
		}
	}
	out.Now, err = s.settle(ctx, c, want)
	return out, err
}

// dip watches a machine that was cycled for as long as it should take to go off.
// Some BMCs never show it.
func (s *Switches) dip(ctx context.Context, c controller) (State, error) {
	end := time.Now().Add(min(2*time.Second, s.config.Settle))
	for {
		now, err := c.state(ctx)
		if err != nil || now != IsOn || time.Now().After(end) {
			return now, err
		}
		select {
		case <-ctx.Done():
			return now, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// settle waits until the BMC shows a state.
func (s *Switches) settle(ctx context.Context, c controller, want State) (State, error) {
	wait, cancel := context.WithTimeout(ctx, s.config.Settle)
	defer cancel()
	pause := 200 * time.Millisecond
	for {
		now, err := c.state(ctx)
		if err != nil || now == want {
			return now, err
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return now, ctx.Err()
			}
			return now, fault(Stuck, fmt.Sprintf("took the order, but shows the machine as %s after %s", now, s.config.Settle),
				"its event log may say why: power supply, chassis, a fault; ask again with `bootd machine power status`")
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		}
	}
}

// with connects to a BMC and calls f, one caller per BMC at a time. The error is
// an [Error], or that of ctx.
func (s *Switches) with(ctx context.Context, t Target, a Action, f func(context.Context, controller) error) error {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	err := func() error {
		open, err := s.opener(t, a)
		if err != nil {
			return err
		}
		done, err := s.turn(ctx, t.BMC.Addr)
		if err != nil {
			return err
		}
		defer done()
		c, err := open(ctx)
		if err != nil {
			return err
		}
		defer c.close()
		return f(ctx, c)
	}()
	switch {
	case err == nil:
		return nil
	case outer.Err() != nil:
		return outer.Err()
	case ctx.Err() != nil && reason(err) == Other:
		err = fault(NoAnswer, fmt.Sprintf("did not finish within %s", s.config.Timeout), "it may be overloaded or hang: try again, or reset the BMC")
	}
	return named(err, t, a)
}

// opener chooses how to talk to a BMC.
func (s *Switches) opener(t Target, a Action) (func(context.Context) (controller, error), error) {
	switch t.BMC.Kind {
	case boot.Redfish:
		return func(ctx context.Context) (controller, error) { return openRedfish(ctx, t.BMC) }, nil
	case boot.IPMI:
		return func(ctx context.Context) (controller, error) { return s.openIPMI(ctx, t.BMC) }, nil
	case boot.WOL:
		return nil, fault(Unsupported, fmt.Sprintf("wake-on-LAN cannot do %s, it can only switch on", a),
			"press the button, shut it down on its console, or configure a BMC")
	}
	return nil, fault(NoBMC, "it is not known how",
		"press the button; or write power: {redfish: https://ADDRESS, user: NAME, password_file: FILE}, or ipmi: or wol:, into its entry, its profile or bootd.yaml")
}

// turn waits until no other order uses the BMC at an address.
func (s *Switches) turn(ctx context.Context, addr string) (done func(), err error) {
	s.mu.Lock()
	q := s.busy[addr]
	if q == nil {
		q = &turn{held: make(chan struct{}, 1)}
		s.busy[addr] = q
	}
	q.waiting++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if q.waiting--; q.waiting == 0 {
			delete(s.busy, addr)
		}
	}
	select {
	case q.held <- struct{}{}:
		return func() { <-q.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fault(NoAnswer, "is still busy with an earlier order", "try again in a minute")
	}
}
