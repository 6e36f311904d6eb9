package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"

	"bootd/boot"
)

// Orders are what operators can say about single machines without writing it
// into the files. Errors that the caller can do something about are [Problem]s.
type Orders interface {
	// Approve lets a machine boot that no entry matches.
	Approve(context.Context, Machine, Approval) error
	// Next gives a machine another profile for its next boot only; an empty
	// one takes the order back.
	Next(context.Context, Machine, Next) error
	// Install orders that the system on a machine's disk is installed anew at
	// its next boot, or takes that back.
	Install(ctx context.Context, m Machine, wanted bool) error
	// Forget drops all that is known of a machine: its orders, its boots and
	// its lease. It is a stranger when it comes again.
	Forget(context.Context, Machine) error
	// Release takes an address back from who has it.
	Release(context.Context, netip.Addr) error
}

// An Approval says what an unknown machine is to be.
type Approval struct {
	Name    string `json:"name"` // host name; empty: from its address
	Profile string `json:"profile"`
}

// Next is a profile for one boot.
type Next struct {
	Profile string `json:"profile"`
}

func (a *api) approve(r *http.Request) (any, error) {
	m, err := a.machineOrMAC(r)
	if err != nil {
		return nil, err
	}
	in, err := decode[Approval](r, "an approval, as {\"profile\": \"worker\"}")
	if err != nil {
		return nil, err
	}
	return nil, a.Orders.Approve(r.Context(), m, in)
}

func (a *api) next(r *http.Request) (any, error) {
	m, err := a.machineOrMAC(r)
	if err != nil {
		return nil, err
	}
	if r.Method == http.MethodDelete {
		return nil, a.Orders.Next(r.Context(), m, Next{})
	}
	in, err := decode[Next](r, "an order for the next boot, as {\"profile\": \"rescue\"}")
	if err != nil {
		return nil, err
	}
	if in.Profile == "" {
		return nil, problem(http.StatusBadRequest, "the order for the next boot names no profile")
	}
	return nil, a.Orders.Next(r.Context(), m, in)
}

func (a *api) install(r *http.Request) (any, error) {
	m, err := a.machineOrMAC(r)
	if err != nil {
		return nil, err
	}
	return nil, a.Orders.Install(r.Context(), m, r.Method != http.MethodDelete)
}

func (a *api) forget(r *http.Request) (any, error) {
	m, err := a.machine(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return nil, a.Orders.Forget(r.Context(), m)
}

func (a *api) release(r *http.Request) (any, error) {
	addr, err := netip.ParseAddr(r.PathValue("addr"))
	if err != nil {
		return nil, problem(http.StatusBadRequest, "%q is not an address", r.PathValue("addr"))
	}
	return nil, a.Orders.Release(r.Context(), addr)
}

// machineOrMAC finds the machine of a request. One that is named by its
// hardware address need not be known yet.
func (a *api) machineOrMAC(r *http.Request) (Machine, error) {
	id := r.PathValue("id")
	m, err := a.machine(id)
	if err == nil {
		return m, nil
	}
	if mac, bad := boot.ParseMAC(id); bad == nil && !mac.IsZero() {
		return Machine{MAC: mac}, nil
	}
	return Machine{}, err
}

// decode reads a request's body, strictly; what is for the error.
func decode[T any](r *http.Request, what string) (T, error) {
	var v T
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, problem(http.StatusBadRequest, "the body is not %s: %v", what, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, problem(http.StatusBadRequest, "there is something after the end of the body, which is to be %s", what)
	}
	return v, nil
}
