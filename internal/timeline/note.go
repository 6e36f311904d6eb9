package timeline

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"bootd/boot"
)

// note applies an event to the machine and the boot that it belongs to, and
// tells it to readers. What is to be committed is written at once, whosever it
// is, and returned as it is then.
func (r *Recorder) note(e boot.Event, commit bool) boot.Timeline {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	t, name, isNew := r.noteLocked(&e, commit)
	if isNew && r.log.Enabled(context.Background(), slog.LevelInfo) {
		// Outside of the lock: who reads the log may be slow.
		r.log.Info("boot step", attrs(e, name, t.Started)...)
	}
	return t
}

// attrs are what the log says of an event, without what is not known.
func attrs(e boot.Event, name string, started time.Time) []any {
	out := []any{"stage", e.Stage, "machine", cmp.Or(name, "-"), "mac", e.MAC}
	if e.Client != "" {
		out = append(out, "client", e.Client)
	}
	if e.Addr.IsValid() {
		out = append(out, "addr", e.Addr)
	}
	if e.Text != "" {
		out = append(out, "text", e.Text)
	}
	if e.Bytes > 0 {
		out = append(out, "bytes", e.Bytes)
	}
	if e.Took > 0 {
		out = append(out, "took", e.Took.Round(time.Millisecond))
	}
	return append(out, "after", e.Time.Sub(started).Round(time.Millisecond))
}

// noteLocked is note under the lock. It completes the event, and reports the
// machine's name and whether the event is a new step of its boot. The steps of
// the boot are left out of what is not committed.
func (r *Recorder) noteLocked(e *boot.Event, commit bool) (t boot.Timeline, name string, isNew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.MAC.IsZero() && e.Addr.IsValid() {
		e.MAC = r.byAddr[e.Addr]
	}
	if !e.MAC.IsZero() {
		m := r.machineLocked(e, commit)
		if m == nil {
			r.tellLocked(e)
			return t, "", false
		}
		if k := r.bootOfLocked(m, e); k != nil {
			e.Boot = k.ID
			steps := len(k.Steps)
			k.Apply(*e)
			isNew = len(k.Steps) > steps
			if t = k.Timeline; commit {
				t = k.Clone()
			} else {
				t.Steps = nil
			}
			if d := dueIf(commit || isNew && m.Name != ""); k.due < d {
				r.bootSoonLocked(bootKey{e.MAC, k.ID}, d == atOnce)
				k.due = d
			}
		}
		// No boot is of use without its machine.
		if d := dueIf(commit || m.Name != "" && !m.stored); m.due < d {
			r.soonLocked(e.MAC, d == atOnce)
			m.due = d
		}
		name = m.Name
	}
	r.tellLocked(e)
	return t, name, isNew
}

// bootOfLocked returns the boot that an event belongs to, a new one if it
// begins one, or nil.
func (r *Recorder) bootOfLocked(m *machine, e *boot.Event) *kept {
	if e.Boot != "" {
		// What belongs to an older boot is not put into a later one.
		return r.bootLocked(e.MAC, e.Boot)
	}
	if e.Node != "" {
		// A machine is another node at every boot. That the old one was removed
		// is often told when the new one is there.
		for _, k := range slices.Backward(m.boots) {
			if k.Node == e.Node {
				return k
			}
		}
	}
	k := m.current()
	var t *boot.Timeline
	if k != nil {
		t = &k.Timeline
	}
	if t.Begins(*e) {
		return r.beginLocked(m, e)
	}
	return k
}

// machineLocked finds or makes the machine of an event, with what the event
// tells of it. It returns nil when that is not to be kept.
func (r *Recorder) machineLocked(e *boot.Event, commit bool) *machine {
	m := r.machines[e.MAC]
	if m == nil {
		passing := !commit && (e.Client == boot.System || e.Client == boot.Initramfs)
		if passing && r.crowdedLocked(e.Time) {
			return nil
		}
		r.makeRoomLocked(false)
		// One that was forgotten just now may be in the store still.
		_, forgotten := r.dirty[e.MAC]
		m = &machine{record: record{First: e.Time}, stored: forgotten}
		r.machines[e.MAC] = m
		r.strangers++
	}
	if m.Last.Before(e.Time) {
		m.Last = e.Time
	}
	inv := e.Inventory
	inv.MAC = e.MAC
	// The address is the event's: what it tells of the machine may be older.
	inv.Addr = netip.Addr{}
	if e.Addr.IsValid() {
		inv.Addr = e.Addr
		if old := m.Inventory.Addr; old != e.Addr && r.byAddr[old] == e.MAC {
			delete(r.byAddr, old)
		}
		r.byAddr[e.Addr] = e.MAC
	}
	if told := m.Inventory.Merge(inv); told != m.Inventory {
		m.Inventory = told
		r.soonLocked(e.MAC, m.Name != "")
	}
	return m
}

// beginLocked begins a new boot.
func (r *Recorder) beginLocked(m *machine, e *boot.Event) *kept {
	if p, ok := r.pending[e.MAC]; ok {
		delete(r.pending, e.MAC)
		r.nameLocked(e.MAC, m, p.assigned)
	}
	var id [8]byte
	rand.Read(id[:]) // never fails (documented)
	k := &kept{Timeline: boot.Timeline{ID: hex.EncodeToString(id[:]), MAC: e.MAC, Name: m.Name, Profile: m.Profile, Expect: m.Expect,
		Started: e.Time, Arch: m.Inventory.Arch, Addr: m.Inventory.Addr}}
	if last := m.current(); last != nil {
		k.Number = last.Number + 1
	}
	m.boots = append(m.boots, k)
	r.trim(m)
	return k
}

// crowdedLocked reports whether there are so many strangers, all of them seen
// lately, that none of them is to be forgotten for a machine that does not
// boot: it only has an address, which the leases tell. Where thousands of those
// renew their leases, every one would push out another, and with them what is
// about to boot.
func (r *Recorder) crowdedLocked(now time.Time) bool {
	if r.strangers < keepStrangers {
		return false
	}
	if since := now.Sub(r.lookedForRoom); since.Abs() < lookForRoom {
		return true
	}
	r.lookedForRoom = now
	for mac, m := range r.machines {
		if m.Name == "" && now.Sub(m.Last) > keepCrowded {
			r.forgetLocked(mac)
		}
	}
	return r.strangers >= keepStrangers
}

// makeRoomLocked makes room for one more stranger, or for one more machine with
// a name: those are forgotten that were seen longest ago.
func (r *Recorder) makeRoomLocked(named bool) {
	have, most := r.strangers, keepStrangers
	if named {
		have, most = len(r.machines)-r.strangers, keepNamed
	}
	if have < most {
		return
	}
	// With what they are sorted by, which is looked up once for each.
	type aged struct {
		mac  boot.MAC
		last time.Time
	}
	list := make([]aged, 0, have)
	for mac, m := range r.machines {
		if (m.Name != "") == named {
			list = append(list, aged{mac, m.Last})
		}
	}
	slices.SortFunc(list, func(a, b aged) int { return a.last.Compare(b.last) })
	// A part of them at once, so that a flood does not sort for every packet.
	part := list[:min(most/8, len(list))]
	for _, x := range part {
		r.forgetLocked(x.mac)
	}
	r.log.Warn("there are too many machines; those seen longest ago are forgotten", "forgotten", len(part), "named", named)
}

// forgetUnseen forgets the machines that nobody has seen for long.
func (r *Recorder) forgetUnseen(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for mac, m := range r.machines {
		if now.Sub(m.Last) > keepUnseen {
			r.forgetLocked(mac)
		}
	}
}

// forgetLocked forgets a machine and its boots.
func (r *Recorder) forgetLocked(mac boot.MAC) {
	m := r.machines[mac]
	if m.Name == "" {
		r.strangers--
	}
	if r.byAddr[m.Inventory.Addr] == mac {
		delete(r.byAddr, m.Inventory.Addr)
	}
	delete(r.machines, mac)
	for _, k := range m.boots {
		if key := (bootKey{mac, k.ID}); m.stored {
			r.bootSoonLocked(key, true)
		} else {
			delete(r.dirtyBoot, key)
		}
	}
	if m.stored {
		r.soonLocked(mac, true)
	} else {
		delete(r.dirty, mac)
	}
}
