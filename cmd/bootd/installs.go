package main

import (
	"context"
	"time"

	"bootd/boot"
	"bootd/internal/override"
)

// installs is what boot/ipxe needs to know of the systems on machines' disks: it
// is kept with the orders for them.
type installs struct{ *override.Overrides }

// State implements [ipxe.Installs].
func (i installs) State(mac boot.MAC) boot.InstallState {
	in := i.Get(mac).Install
	if in == nil {
		return boot.InstallState{}
	}
	return boot.InstallState{Ordered: !in.Wanted.IsZero(), Boot: in.Boot}
}

// Done implements [ipxe.Installs].
func (i installs) Done(ctx context.Context, mac boot.MAC, bootID string) error {
	_, err := i.Change(ctx, mac, func(v *override.Override) error {
		// The system may say it once more than its installer, and an order
		// that came in between is not carried out yet.
		if v.Install != nil && v.Install.Boot == bootID {
			return nil
		}
		v.Install = &override.Install{Done: time.Now(), Boot: bootID}
		return nil
	})
	return err
}
