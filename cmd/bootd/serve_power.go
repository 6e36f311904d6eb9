package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"bootd/boot"
	"bootd/internal/api"
	bmc "bootd/internal/power"
	"bootd/internal/timeline"
)

// buttons switches machines for operators: it finds out how, and notes on their
// timelines that they were switched on.
type buttons struct {
	live     *live
	record   *timeline.Recorder
	switches *bmc.Switches
	log      *slog.Logger
}

func newButtons(l *live, record *timeline.Recorder, log *slog.Logger) *buttons {
	return &buttons{l, record, bmc.New(bmc.Config{}), log}
}

// State implements [api.Power].
func (b *buttons) State(ctx context.Context, m api.Machine) (api.PowerState, error) {
	t, err := b.target(m)
	if err != nil {
		return api.PowerState{}, err
	}
	s := b.about(t)
	switch t.BMC.Kind {
	case boot.NoPower:
		s.Text = "no power: is configured for it"
		return s, nil
	case boot.WOL:
		s.Text = "wake-on-LAN only switches on"
		return s, nil
	}
	now, err := b.switches.Status(ctx, t)
	if err != nil {
		return s, problem(err)
	}
	s.State = string(now)
	return s, nil
}

// Switch implements [api.Power].
func (b *buttons) Switch(ctx context.Context, m api.Machine, o api.PowerOrder) (api.PowerState, error) {
	t, err := b.target(m)
	if err != nil {
		return api.PowerState{}, err
	}
	out, err := b.switches.Do(ctx, t, bmc.Order{Action: bmc.Action(o.Action), Boot: bmc.Device(o.Boot), Persistent: o.Persistent})
	if out.Changed {
		b.log.Info("machine switched", "machine", t.Machine, "mac", t.MAC, "action", o.Action, "boot", o.Boot, "was", out.Was)
	}
	// Also when the machine did not follow in time: if it does, it is known why.
	if out.Changed && (o.Action == "on" || o.Action == "cycle") && !t.MAC.IsZero() {
		e := boot.Event{Time: out.At, MAC: t.MAC, Stage: boot.Power, Text: fmt.Sprintf("%s by %s", map[string]string{"on": "switched on", "cycle": "power-cycled"}[o.Action], t.BMC.Kind)}
		// The machine is on, whether or not its operator still waits.
		if _, bad := b.record.Commit(context.WithoutCancel(ctx), e); bad != nil && err == nil {
			err = fmt.Errorf("%s was switched, but that cannot be noted: %w", t.Machine, bad)
		}
	}
	if err != nil {
		return api.PowerState{}, problem(err)
	}
	s := b.about(t)
	s.State, s.Was, s.Changed, s.Text = string(out.Now), string(out.Was), out.Changed, out.Text
	return s, nil
}

// about says of a machine what does not need its BMC.
func (b *buttons) about(t bmc.Target) api.PowerState {
	s := api.PowerState{Machine: t.Machine, MAC: t.MAC, State: string(bmc.Unknown), Kind: t.BMC.Kind}
	if t.BMC.Kind == boot.Redfish || t.BMC.Kind == boot.IPMI {
		s.BMC = t.BMC.Addr
	}
	return s
}

// problem is an error of switching as the operator sees it.
func problem(err error) error {
	var e *bmc.Error
	if !errors.As(err, &e) {
		return err
	}
	p := &api.Problem{Title: "Bad Gateway", Status: http.StatusBadGateway, Detail: e.Error()}
	switch e.Reason {
	case bmc.NoBMC:
		p.Title, p.Status = api.NoBMC, http.StatusConflict
	case bmc.Unsupported, bmc.Setup, bmc.Program:
		p.Title, p.Status = "Conflict", http.StatusConflict
	case bmc.NoAnswer, bmc.Stuck:
		p.Title, p.Status = "Gateway Timeout", http.StatusGatewayTimeout
	}
	return p
}

// target finds out how a machine is switched.
func (b *buttons) target(m api.Machine) (bmc.Target, error) {
	c := b.live.catalog()
	inv := boot.Inventory{MAC: m.MAC}.Merge(m.Inventory)
	for _, e := range c.Machines {
		if e.Origin.String() == m.Entry && m.Inventory == (boot.Inventory{}) {
			inv = inv.Merge(expected(e)) // it has never been seen
		}
	}
	a, err := c.Assign(inv)
	if err != nil {
		return bmc.Target{}, conflict("%v", err)
	}
	t := bmc.Target{Machine: cmp.Or(m.Name, a.Name), MAC: inv.MAC, BMC: boot.BMC{Kind: boot.NoPower}}
	switch {
	case a.Machine == nil && m.Entry != "":
		return t, conflict("%s has not been seen yet, so it is not known which machine that is; name it by mac:, uuid: or serial: in its entry at %s", t.Machine, m.Entry)
	case a.Profile == nil || a.Profile.Power == nil || a.Profile.Power.Kind == "":
		return t, nil
	}
	if t.BMC, err = a.Profile.Power.Render(a.Name, inv); err != nil {
		return t, conflict("the address of the BMC of %s: %v", t.Machine, err)
	}
	if inv.ArchKnown {
		t.Firmware = bmc.LegacyBIOS
		if inv.Arch.EFI() {
			t.Firmware = bmc.UEFI
		}
	}
	if t.BMC.Kind == boot.WOL && t.BMC.Interface == "" && !t.BMC.Broadcast.IsValid() {
		n := a.Network
		if n == nil && len(c.Networks) == 1 {
			n = &c.Networks[0]
		}
		if n == nil {
			return t, conflict("it is not known on which network %s is; add wol: {interface: NAME} to its power", t.Machine)
		}
		t.BMC.Interface = n.Interface
	}
	return t, nil
}

// expected is what a machine will tell that only its entry is for.
func expected(e *boot.Machine) boot.Inventory {
	inv := boot.Inventory{UUID: e.Match.UUID, Addr: e.IP}
	if len(e.Match.MAC) > 0 {
		inv.MAC = e.Match.MAC[0]
	}
	for _, f := range []struct {
		dst  *string
		text string
	}{{&inv.Serial, e.Match.Serial}, {&inv.Manufacturer, e.Match.Manufacturer}, {&inv.Product, e.Match.Product}, {&inv.Asset, e.Match.Asset}} {
		if !strings.ContainsAny(f.text, "*?") {
			*f.dst = f.text
		}
	}
	return inv
}
