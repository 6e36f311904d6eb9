package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"bootd/boot"
)

// Power switches machines on and off. Errors that the caller can do something
// about are [Problem]s.
type Power interface {
	// State tells whether a machine is on. That nobody can tell, because it
	// has no BMC, is no error.
	State(context.Context, Machine) (PowerState, error)
	// Switch carries out an order. It returns when the machine is as ordered.
	Switch(context.Context, Machine, PowerOrder) (PowerState, error)
}

// NoBMC is the title of the [Problem] that a machine can only be switched by
// hand.
const NoBMC = "No BMC"

// A PowerOrder is what is to be done to a machine's power.
type PowerOrder struct {
	Action     string `json:"action"`               // on, off, shutdown, cycle
	Boot       string `json:"boot,omitempty"`       // what it boots from next: pxe, disk, bios, http; empty: as ever
	Persistent bool   `json:"persistent,omitempty"` // Boot is for all its boots from now on
}

// What an order can say.
var (
	powerActions = []string{"on", "off", "shutdown", "cycle"}
	bootDevices  = []string{"pxe", "disk", "bios", "http"}
)

// A PowerState is whether a machine is on, and what an order has done to it.
type PowerState struct {
	Machine string         `json:"machine"`
	MAC     boot.MAC       `json:"mac,omitzero"`
	State   string         `json:"state"` // on, off, unknown
	Kind    boot.PowerKind `json:"kind"`  // how it is switched; none: by hand
	BMC     string         `json:"bmc,omitempty"`
	Was     string         `json:"was,omitempty"` // before the order
	Changed bool           `json:"changed"`       // something was switched
	Text    string         `json:"text,omitempty"`
}

func (a *api) powerState(r *http.Request) (any, error) {
	m, err := a.machine(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return a.Power.State(r.Context(), m)
}

func (a *api) switchPower(r *http.Request) (any, error) {
	m, err := a.machine(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	o, err := decode[PowerOrder](r, `an order, as {"action": "on"}`)
	if err != nil {
		return nil, err
	}
	switch {
	case !slices.Contains(powerActions, o.Action):
		return nil, problem(http.StatusBadRequest, "action cannot be %q, only %s", o.Action, strings.Join(powerActions, ", "))
	case o.Boot != "" && !slices.Contains(bootDevices, o.Boot):
		return nil, problem(http.StatusBadRequest, "boot cannot be %q, only %s", o.Boot, strings.Join(bootDevices, ", "))
	case o.Boot != "" && o.Action != "on" && o.Action != "cycle":
		return nil, problem(http.StatusBadRequest, "boot goes with the actions on and cycle, not with %s", o.Action)
	case o.Persistent && o.Boot == "":
		return nil, problem(http.StatusBadRequest, "persistent is said of boot, which is missing")
	}
	return a.Power.Switch(r.Context(), m, o)
}
