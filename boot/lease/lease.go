package lease

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bootd/boot"
)

// A State is what is true of an address.
type State uint8

// The states of an address. A bound or offered one that is past its time is
// free, but remembers who had it.
const (
	Offered  State = 1 + iota // held for a client that was offered it
	Bound                     // leased
	Released                  // given back; kept for the same client as long as others are free
	Declined                  // found in use by somebody else; left alone for a while
)

// String names the state.
func (s State) String() string {
	switch s {
	case Offered:
		return "offered"
	case Bound:
		return "bound"
	case Released:
		return "released"
	case Declined:
		return "declined"
	}
	return fmt.Sprintf("state %d", s)
}

// A Lease is an address and who has it.
type Lease struct {
	MAC     boot.MAC   `json:"mac"`
	Addr    netip.Addr `json:"addr"`
	Network string     `json:"network"`
	State   State      `json:"-"`
	Start   time.Time  `json:"start"`          // when this client first got it
	Expires time.Time  `json:"expires"`        // of the hold, the lease or the quarantine
	Host    string     `json:"host,omitempty"` // host name that the client sent

	// Fresh is set on an offer of an address that this client did not have
	// before. Somebody whom bootd does not know may use it.
	Fresh bool `json:"-"`
}

// Active reports whether nobody else may have the address at now.
func (l Lease) Active(now time.Time) bool { return l.State != Released && now.Before(l.Expires) }

// A Pool says which addresses of a network a client may have. It is a value
// made for one call.
type Pool struct {
	Network  string
	Ranges   []boot.Range
	Reserved func(netip.Addr) bool // is it kept for somebody, or not to be leased at all
	Own      netip.Addr            // the address reserved for this client; invalid: none
}

// Allows reports whether the client that p was made for may have a.
func (p Pool) Allows(a netip.Addr) bool {
	if a == p.Own && a.IsValid() {
		return true
	}
	return slices.ContainsFunc(p.Ranges, func(r boot.Range) bool { return r.Contains(a) }) && !p.Reserved(a)
}

var (
	// ErrTaken says that an address belongs to another client.
	ErrTaken = errors.New("the address belongs to another client")
	// ErrNotAllowed says that an address is outside what the client may have.
	ErrNotAllowed = errors.New("the address is not one of this client's network")
	// ErrExhausted says that no address is free. The error that wraps it
	// tells the network and how many addresses there are.
	ErrExhausted = errors.New("no address is free")
)
