package timeline

import (
	"context"
	"fmt"

	"bootd/boot"
)

// Forget drops all that is known of a machine, and returns when that is on
// stable storage. It is a stranger when it is seen again.
func (r *Recorder) Forget(ctx context.Context, mac boot.MAC) error {
	r.mu.Lock()
	if r.machines[mac] != nil {
		r.forgetLocked(mac)
	}
	delete(r.pending, mac)
	r.mu.Unlock()
	if err := r.write(ctx, soon); err != nil {
		r.poke() // it is forgotten, and still to be written
		return fmt.Errorf("cannot forget %s for good: %w", mac, err)
	}
	return nil
}
