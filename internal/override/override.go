// Package override keeps what operators have ordered for single machines, beyond
// what the configuration files say: that an unknown machine may boot, and as
// what; which profile it gets at its next boot only; that its node takes no
// work; that its disk is to be installed anew.
//
// Orders are few, and asked for at every boot: they are kept in memory and in
// the store. Methods may be called from any goroutine. When [Overrides.Change]
// returns nil, the order is on stable storage. The package does not carry
// orders out; it only remembers them.
package override

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"bootd/boot"
	"bootd/internal/store"
)

// An Override is what was ordered for one machine.
type Override struct {
	MAC      boot.MAC  `json:"mac"`
	Approved *Approval `json:"approved,omitempty"`
	Next     *Next     `json:"next,omitempty"`
	Held     *Hold     `json:"held,omitempty"`
	Install  *Install  `json:"install,omitempty"`
}

// An Approval lets a machine boot that no entry in the files matches.
type Approval struct {
	Name    string    `json:"name"` // host name
	Profile string    `json:"profile"`
	At      time.Time `json:"at"`
}

// Next is a profile for one boot only: the next one, or the one that has
// begun with it.
type Next struct {
	Profile string    `json:"profile"`
	At      time.Time `json:"at"`
	Boot    string    `json:"boot,omitempty"` // ID of the boot that uses it; empty: none yet
}

// A Hold keeps the availability of a machine's node in its swarm, over its
// boots, until it is lifted.
type Hold struct {
	Availability string    `json:"availability"` // drain or pause
	Reason       string    `json:"reason,omitempty"`
	At           time.Time `json:"at"`
}

// Install tells whether the system on a machine's disk is to be installed, for
// images that are.
type Install struct {
	Wanted time.Time `json:"wanted,omitzero"` // when it was ordered; zero: it is not wanted
	Done   time.Time `json:"done,omitzero"`   // when it last succeeded
	Boot   string    `json:"boot,omitempty"`  // ID of the boot that did; empty: none
}

func (o *Override) isZero() bool {
	return o.Approved == nil && o.Next == nil && o.Held == nil && o.Install == nil
}

// clone copies o, so that neither copy's changes are seen in the other.
func (o Override) clone() Override {
	o.Approved, o.Next, o.Held, o.Install = clone(o.Approved), clone(o.Next), clone(o.Held), clone(o.Install)
	return o
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

var kind = store.Kind[Override]{Name: "override"} // by MAC

// Overrides are all orders.
type Overrides struct {
	store *store.Store

	changing chan struct{} // holds one while somebody changes
	mu       sync.Mutex
	all      map[boot.MAC]Override
}

// Load reads the orders from a store. Those that cannot be read are left out
// and logged.
func Load(ctx context.Context, st *store.Store, log *slog.Logger) (*Overrides, error) {
	stored, err := store.List(ctx, st, kind, "")
	if stored == nil {
		return nil, fmt.Errorf("cannot read the operators' orders: %w", err)
	}
	if err != nil {
		log.Error("some orders for machines are forgotten", "err", err)
	}
	o := &Overrides{store: st, changing: make(chan struct{}, 1), all: map[boot.MAC]Override{}}
	for _, v := range stored {
		o.all[v.MAC] = v
	}
	return o, nil
}

// Get returns what was ordered for a machine; nothing is a zero Override with
// its MAC.
func (o *Overrides) Get(mac boot.MAC) Override {
	o.mu.Lock()
	defer o.mu.Unlock()
	v, ok := o.all[mac]
	if !ok {
		return Override{MAC: mac}
	}
	return v.clone()
}

// All lists the machines with orders by MAC.
func (o *Overrides) All() []Override {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]Override, 0, len(o.all))
	for _, v := range o.all {
		out = append(out, v.clone())
	}
	slices.SortFunc(out, func(a, b Override) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return out
}

// Change changes a machine's orders. f gets them as they are, and may be called
// again when another process has changed them meanwhile; its error is returned
// and nothing changes.
func (o *Overrides) Change(ctx context.Context, mac boot.MAC, f func(*Override) error) (Override, error) {
	select {
	case <-ctx.Done():
		return Override{}, ctx.Err()
	case o.changing <- struct{}{}:
		defer func() { <-o.changing }()
	}
	var next Override
	// Who ordered it may be gone before the store has answered; what is then in
	// force must be what is stored.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := o.store.Update(ctx, func(tx *store.Tx) error {
		var err error
		next, err = store.Get(tx, kind, mac.String())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		next.MAC = mac
		if err := f(&next); err != nil {
			return err
		}
		next.MAC = mac
		if next.isZero() {
			store.Delete(tx, kind, mac.String())
			return nil
		}
		return store.Put(tx, kind, mac.String(), next)
	})
	if err != nil {
		return Override{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if next.isZero() {
		delete(o.all, mac)
	} else {
		o.all[mac] = next.clone()
	}
	return next.clone(), nil
}

// NextProfile is the one that was ordered for the boot that is about to begin,
// or for the boot with an ID, if that asks again; empty: none.
func (o Override) NextProfile(bootID string) string {
	if n := o.Next; n != nil && n.Boot == "" {
		return n.Profile
	}
	return o.Profile(bootID)
}

// Profile is the one that the boot with an ID was ordered to have; empty: none.
func (o Override) Profile(bootID string) string {
	if n := o.Next; n != nil && n.Boot == bootID && bootID != "" {
		return n.Profile
	}
	return ""
}

// Began notes that a boot has got its script: an order for the next boot is
// now this boot's, and one that another boot had is over.
func (o *Overrides) Began(ctx context.Context, mac boot.MAC, bootID string) error {
	n := o.Get(mac).Next
	if n == nil || n.Boot == bootID {
		return nil
	}
	_, err := o.Change(ctx, mac, func(v *Override) error {
		switch {
		case v.Next == nil:
		case v.Next.Boot == "":
			v.Next.Boot = bootID
		case v.Next.Boot != bootID:
			v.Next = nil
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot note that the order for the next boot of %s is carried out: %w", mac, err)
	}
	return nil
}
