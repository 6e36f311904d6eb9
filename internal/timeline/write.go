package timeline

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"bootd/boot"
	"bootd/internal/store"
)

const (
	// gather is how long changes are gathered before they are written.
	gather = 50 * time.Millisecond
	// patience is how long changes wait that need not be written at once.
	patience = 5 * time.Second
	// strangersAtOnce is how many strangers are written then, so that made-up
	// machines do not fill the disk.
	strangersAtOnce = 256
	// look is how often machines are looked for that nobody has seen for long.
	look = time.Hour
	// again is how long to wait after a write that failed.
	again = time.Second
	// lastWrite is how long the end may wait for the store.
	lastWrite = 5 * time.Second
	// batch is how many records are written in one transaction, at most.
	batch = 100
)

// An amount is how much of what has changed is to be written.
type amount int

const (
	soon       amount = iota // what is not to wait
	later                    // and what may wait, but not all strangers
	everything               // because there is no later
)

// Run writes what is recorded, until ctx ends; then it writes the rest.
func (r *Recorder) Run(ctx context.Context) error {
	tick := time.NewTicker(patience)
	defer tick.Stop()
	looked := time.Now()
	wait := gather
	for {
		much := soon
		select {
		case <-ctx.Done():
			return r.writeRest(ctx)
		case <-r.wake:
		case now := <-tick.C:
			much = later
			if now.Sub(looked) > look {
				looked = now
				r.forgetUnseen(now)
			}
		}
		select {
		case <-ctx.Done():
			return r.writeRest(ctx)
		case <-time.After(wait):
		}
		wait = gather
		if err := r.write(ctx, much); err != nil && ctx.Err() == nil {
			r.log.Error("boots cannot be recorded; it will be tried again", "err", err)
			wait = again
			r.poke()
		}
	}
}

func (r *Recorder) writeRest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	return r.write(ctx, everything)
}

// poke tells Run that there is something to be written.
func (r *Recorder) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// A change is a record that is to be put or removed.
type change struct {
	mac    boot.MAC
	boot   bootKey // zero: it is the machine
	atOnce bool
	put    func(*store.Tx) error
}

// write writes what has changed when it is called, or longer ago.
// What cannot be written is kept for the next time. While somebody else writes
// it waits: what he took may be what the caller has just noted.
func (r *Recorder) write(ctx context.Context, much amount) error {
	select {
	case r.writing <- struct{}{}:
		defer func() { <-r.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	todo := r.take(much)
	for part := range slices.Chunk(todo, batch) {
		if err := r.writePart(ctx, part); err != nil {
			r.putBack(todo) // some may be written twice, which does no harm
			return err
		}
	}
	return nil
}

// writePart writes a part of what has changed, in as few transactions as the
// store allows.
func (r *Recorder) writePart(ctx context.Context, part []change) error {
	err := r.store.Update(ctx, func(tx *store.Tx) error {
		for _, c := range part {
			if err := c.put(tx); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case !errors.Is(err, store.ErrTooLarge):
		return err
	case len(part) == 1:
		// It would keep all others from being written, for ever.
		r.log.Error("a boot is not stored", "mac", cmp.Or(part[0].mac, part[0].boot.mac), "err", err)
		return nil
	}
	half := len(part) / 2
	if err := r.writePart(ctx, part[:half]); err != nil {
		return err
	}
	return r.writePart(ctx, part[half:])
}

// take takes what has changed, as it is now: machines first, so that no boot is
// stored without its machine.
func (r *Recorder) take(much amount) []change {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []change
	strangers := map[boot.MAC]bool{} // that are written this time, though they can wait
	for mac, atOnce := range r.dirty {
		m := r.machines[mac]
		if !atOnce && much != everything && m != nil {
			if much == soon || m.Name == "" && len(strangers) >= strangersAtOnce {
				continue
			}
			if m.Name == "" {
				strangers[mac] = true
			}
		}
		delete(r.dirty, mac)
		out = append(out, r.machineChangeLocked(mac, m, atOnce))
	}
	for k, atOnce := range r.dirtyBoot {
		m := r.machines[k.mac]
		if !atOnce && much != everything && m != nil && (much == soon || m.Name == "" && !strangers[k.mac]) {
			continue
		}
		delete(r.dirtyBoot, k)
		out = append(out, r.bootChangeLocked(k, atOnce))
	}
	return out
}

func (r *Recorder) machineChangeLocked(mac boot.MAC, m *machine, atOnce bool) change {
	c := change{mac: mac, atOnce: atOnce}
	if m == nil {
		c.put = func(tx *store.Tx) error { store.Delete(tx, machines, mac.String()); return nil }
		return c
	}
	m.stored, m.due = true, notDue
	rec := m.record
	c.put = func(tx *store.Tx) error { return store.Put(tx, machines, mac.String(), rec) }
	return c
}

func (r *Recorder) bootChangeLocked(k bootKey, atOnce bool) change {
	c := change{boot: k, atOnce: atOnce}
	if t := r.bootLocked(k.mac, k.id); t != nil {
		t.due = notDue
		value := kept{Number: t.Number, Timeline: t.Clone()}
		c.put = func(tx *store.Tx) error { return store.Put(tx, boots, k.String(), value) }
	} else {
		c.put = func(tx *store.Tx) error { store.Delete(tx, boots, k.String()); return nil }
	}
	return c
}

func (r *Recorder) putBack(list []change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range list {
		if c.boot == (bootKey{}) {
			r.soonLocked(c.mac, c.atOnce)
		} else {
			r.bootSoonLocked(c.boot, c.atOnce)
		}
	}
}

func (r *Recorder) bootLocked(mac boot.MAC, id string) *kept {
	m := r.machines[mac]
	if m == nil {
		return nil
	}
	i := slices.IndexFunc(m.boots, func(t *kept) bool { return t.ID == id })
	if i < 0 {
		return nil
	}
	return m.boots[i]
}
