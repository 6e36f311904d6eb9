package timeline

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"bootd/boot"
	"bootd/internal/store"
)

const (
	// keepBoots is how many boots of a machine are kept.
	keepBoots = 10
	// keepStrangers is how many machines are kept that never were assigned
	// anything. Beyond it those are forgotten that were seen longest ago, so
	// that made-up addresses do not fill the memory.
	keepStrangers = 4096
	// keepEvents is how many events are kept for those who ask later.
	keepEvents = 10_000
	// gather is how long changes are gathered before they are written.
	gather = 50 * time.Millisecond
)

// A Seen is a machine that was seen on a network.
type Seen struct {
	MAC           boot.MAC
	Inventory     boot.Inventory
	First, Last   time.Time
	Name, Profile string         // as it was last assigned; empty: never
	Current       *boot.Timeline // its latest boot; nil: none
}

// A Numbered event is the Seq-th since the recorder was made.
type Numbered struct {
	Seq uint64
	boot.Event
}

// A record is what is stored of a machine.
type record struct {
	Inventory boot.Inventory `json:"inventory"`
	First     time.Time      `json:"first"`
	Last      time.Time      `json:"last"`
	Name      string         `json:"name,omitempty"`
	Profile   string         `json:"profile,omitempty"`
	Expect    boot.Stage     `json:"expect,omitempty"`
}

var (
	machines = store.Kind[record]{Name: "machine"}     // by MAC
	boots    = store.Kind[boot.Timeline]{Name: "boot"} // by MAC and ID
)

type machine struct {
	record
	boots []*boot.Timeline // oldest first
}

func (m *machine) current() *boot.Timeline {
	if len(m.boots) == 0 {
		return nil
	}
	return m.boots[len(m.boots)-1]
}

type bootKey struct {
	mac boot.MAC
	id  string
}

func (k bootKey) String() string { return k.mac.String() + "/" + k.id }

// A Recorder keeps the record.
type Recorder struct {
	store *store.Store
	log   *slog.Logger

	mu        sync.Mutex // guards all below
	machines  map[boot.MAC]*machine
	byAddr    map[netip.Addr]boot.MAC
	strangers int
	dirty     map[boot.MAC]bool // machines to be written
	dirtyBoot map[bootKey]bool  // boots to be written; those that are gone, to be removed
	events    []Numbered
	seq       uint64
	readers   map[chan Numbered]bool

	wake    chan struct{}
	writing sync.Mutex // one write at a time
}

// New returns a recorder with what the store remembers.
func New(ctx context.Context, st *store.Store, log *slog.Logger) (*Recorder, error) {
	r := &Recorder{store: st, log: log, machines: map[boot.MAC]*machine{}, byAddr: map[netip.Addr]boot.MAC{},
		dirty: map[boot.MAC]bool{}, dirtyBoot: map[bootKey]bool{}, readers: map[chan Numbered]bool{}, wake: make(chan struct{}, 1)}
	stored, err := store.List(ctx, st, machines, "")
	if stored == nil {
		return nil, fmt.Errorf("cannot read the machines: %w", err)
	}
	if err != nil {
		log.Error("some machines are forgotten", "err", err)
	}
	for id, rec := range stored {
		mac, err := boot.ParseMAC(id)
		if err != nil {
			log.Error("a machine is forgotten", "err", err)
			continue
		}
		r.machines[mac] = &machine{record: rec}
		if rec.Name == "" {
			r.strangers++
		}
		if rec.Inventory.Addr.IsValid() {
			r.byAddr[rec.Inventory.Addr] = mac
		}
	}
	past, err := store.List(ctx, st, boots, "")
	if past == nil {
		return nil, fmt.Errorf("cannot read the boots: %w", err)
	}
	if err != nil {
		log.Error("some boots are forgotten", "err", err)
	}
	for _, t := range past {
		if m := r.machines[t.MAC]; m != nil {
			m.boots = append(m.boots, &t)
		}
	}
	for _, m := range r.machines {
		slices.SortFunc(m.boots, func(a, b *boot.Timeline) int { return a.Started.Compare(b.Started) })
	}
	return r, nil
}

// String names the recorder in messages.
func (r *Recorder) String() string { return "record of boots" }

// Run writes what is recorded, until ctx ends; then it writes the rest.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return r.write(last)
		case <-r.wake:
		}
		select {
		case <-ctx.Done():
		case <-time.After(gather):
		}
		if err := r.write(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("boots cannot be recorded; they will be tried again", "err", err)
			time.AfterFunc(time.Second, r.poke)
		}
	}
}

func (r *Recorder) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// batch is how many records are written in one transaction.
const batch = 100

// write writes everything that has changed. What cannot be written is kept
// for the next time.
func (r *Recorder) write(ctx context.Context) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	for {
		macs, keys, puts := r.take()
		if len(puts) == 0 {
			return nil
		}
		err := r.store.Update(ctx, func(tx *store.Tx) error {
			for _, put := range puts {
				if err := put(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			r.mu.Lock()
			for _, mac := range macs {
				r.dirty[mac] = true
			}
			for _, k := range keys {
				r.dirtyBoot[k] = true
			}
			r.mu.Unlock()
			return err
		}
	}
}

// take takes some of what has changed, as it is now.
func (r *Recorder) take() (macs []boot.MAC, keys []bootKey, puts []func(*store.Tx) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for mac := range r.dirty {
		if len(puts) == batch {
			return
		}
		delete(r.dirty, mac)
		macs = append(macs, mac)
		if m := r.machines[mac]; m != nil {
			rec := m.record
			puts = append(puts, func(tx *store.Tx) error { return store.Put(tx, machines, mac.String(), rec) })
		} else {
			puts = append(puts, func(tx *store.Tx) error { store.Delete(tx, machines, mac.String()); return nil })
		}
	}
	for k := range r.dirtyBoot {
		if len(puts) == batch {
			return
		}
		delete(r.dirtyBoot, k)
		keys = append(keys, k)
		if t := r.bootLocked(k.mac, k.id); t != nil {
			c := t.Clone()
			puts = append(puts, func(tx *store.Tx) error { return store.Put(tx, boots, k.String(), c) })
		} else {
			puts = append(puts, func(tx *store.Tx) error { store.Delete(tx, boots, k.String()); return nil })
		}
	}
	return
}

func (r *Recorder) bootLocked(mac boot.MAC, id string) *boot.Timeline {
	m := r.machines[mac]
	if m == nil {
		return nil
	}
	for _, t := range m.boots {
		if t.ID == id {
			return t
		}
	}
	return nil
}

// Record notes an event. It never waits for the disk; what it notes is lost
// only if the process is killed in the same moment.
func (r *Recorder) Record(e boot.Event) {
	r.note(e)
	r.poke()
}

// Commit notes an event and returns when it and all before it are on stable
// storage, with the boot that it belongs to.
func (r *Recorder) Commit(ctx context.Context, e boot.Event) (boot.Timeline, error) {
	t := r.note(e)
	if err := r.write(ctx); err != nil {
		r.poke()
		return boot.Timeline{}, fmt.Errorf("cannot record that %s reached %s: %w", e.MAC, e.Stage, err)
	}
	return t, nil
}

// note applies an event to the machine and the boot that it belongs to, and
// tells it to readers. It returns the boot as it is then.
func (r *Recorder) note(e boot.Event) boot.Timeline {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if e.MAC.IsZero() && e.Addr.IsValid() {
		e.MAC = r.byAddr[e.Addr]
	}
	var t *boot.Timeline
	if !e.MAC.IsZero() {
		t = r.applyLocked(&e)
	}
	r.tellLocked(e)
	if t == nil {
		return boot.Timeline{}
	}
	return t.Clone()
}

func (r *Recorder) applyLocked(e *boot.Event) *boot.Timeline {
	m := r.machineLocked(*e)
	r.dirty[e.MAC] = true
	t := m.current()
	switch {
	case e.Boot != "" && (t == nil || t.ID != e.Boot):
		// What belongs to an older boot is not put into a later one.
		t = r.bootLocked(e.MAC, e.Boot)
	case e.Boot == "" && t.Begins(*e):
		t = r.beginLocked(m, *e)
	}
	if t == nil {
		return nil
	}
	e.Boot = t.ID
	steps := len(t.Steps)
	t.Apply(*e)
	r.dirtyBoot[bootKey{e.MAC, t.ID}] = true
	if len(t.Steps) > steps {
		r.log.Info(string(e.Stage), "machine", cmp.Or(m.Name, "-"), "mac", e.MAC, "by", e.Client, "addr", e.Addr, "what", e.Text,
			"bytes", e.Bytes, "took", e.Took.Round(time.Millisecond), "after", e.Time.Sub(t.Started).Round(time.Millisecond))
	}
	return t
}

// machineLocked finds or makes the machine of an event, with what the event
// tells of it.
func (r *Recorder) machineLocked(e boot.Event) *machine {
	m := r.machines[e.MAC]
	if m == nil {
		r.forgetStrangersLocked()
		m = &machine{record: record{First: e.Time}}
		r.machines[e.MAC] = m
		r.strangers++
	}
	m.Last = e.Time
	inv := e.Inventory
	inv.MAC = e.MAC
	if e.Addr.IsValid() {
		inv.Addr = e.Addr
		if old := m.Inventory.Addr; old != e.Addr && r.byAddr[old] == e.MAC {
			delete(r.byAddr, old)
		}
		r.byAddr[e.Addr] = e.MAC
	}
	m.Inventory = m.Inventory.Merge(inv)
	return m
}

// beginLocked begins a new boot.
func (r *Recorder) beginLocked(m *machine, e boot.Event) *boot.Timeline {
	var id [8]byte
	rand.Read(id[:])
	t := &boot.Timeline{ID: hex.EncodeToString(id[:]), MAC: e.MAC, Name: m.Name, Profile: m.Profile, Expect: m.Expect,
		Started: e.Time, Arch: m.Inventory.Arch, Addr: m.Inventory.Addr}
	m.boots = append(m.boots, t)
	for len(m.boots) > keepBoots {
		r.dirtyBoot[bootKey{e.MAC, m.boots[0].ID}] = true
		m.boots = m.boots[1:]
	}
	return t
}

// forgetStrangersLocked makes room for a new machine.
func (r *Recorder) forgetStrangersLocked() {
	if r.strangers < keepStrangers {
		return
	}
	var list []boot.MAC
	for mac, m := range r.machines {
		if m.Name == "" {
			list = append(list, mac)
		}
	}
	slices.SortFunc(list, func(a, b boot.MAC) int { return r.machines[a].Last.Compare(r.machines[b].Last) })
	// A part of them at once, so that a flood does not sort for every packet.
	for _, mac := range list[:keepStrangers/8] {
		m := r.machines[mac]
		for _, t := range m.boots {
			r.dirtyBoot[bootKey{mac, t.ID}] = true
		}
		if r.byAddr[m.Inventory.Addr] == mac {
			delete(r.byAddr, m.Inventory.Addr)
		}
		delete(r.machines, mac)
		r.dirty[mac] = true
		r.strangers--
	}
	r.log.Warn("many unknown machines; those seen longest ago are forgotten", "forgotten", keepStrangers/8)
}

// Assigned notes what a machine was given for its present boot, and how far
// that leads.
func (r *Recorder) Assigned(mac boot.MAC, name, profile string, expect boot.Stage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.machines[mac]
	if m == nil {
		return
	}
	t := m.current()
	if m.Name == name && m.Profile == profile && m.Expect == expect && (t == nil || t.Name == name && t.Profile == profile && t.Expect == expect) {
		return
	}
	if m.Name == "" && name != "" {
		r.strangers--
	}
	m.Name, m.Profile, m.Expect = name, profile, expect
	r.dirty[mac] = true
	if t != nil {
		t.Name, t.Profile, t.Expect = name, profile, expect
		r.dirtyBoot[bootKey{mac, t.ID}] = true
	}
}

// Current returns the machine's latest boot.
func (r *Recorder) Current(mac boot.MAC) (boot.Timeline, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.machines[mac]; m != nil && m.current() != nil {
		return m.current().Clone(), true
	}
	return boot.Timeline{}, false
}

// ByAddr returns the latest boot of the machine that has an address, or had it
// last.
func (r *Recorder) ByAddr(addr netip.Addr) (boot.Timeline, bool) {
	r.mu.Lock()
	mac, ok := r.byAddr[addr]
	r.mu.Unlock()
	if !ok {
		return boot.Timeline{}, false
	}
	return r.Current(mac)
}

// Inventory is what a machine has told of itself.
func (r *Recorder) Inventory(mac boot.MAC) boot.Inventory {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.machines[mac]; m != nil {
		return m.Inventory
	}
	return boot.Inventory{}
}

// Machines lists the machines that were seen, by hardware address.
func (r *Recorder) Machines() []Seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Seen, 0, len(r.machines))
	for mac, m := range r.machines {
		s := Seen{MAC: mac, Inventory: m.Inventory, First: m.First, Last: m.Last, Name: m.Name, Profile: m.Profile}
		if t := m.current(); t != nil {
			c := t.Clone()
			s.Current = &c
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Seen) int { return strings.Compare(string(a.MAC[:]), string(b.MAC[:])) })
	return out
}

// Boots lists the boots of a machine that are kept, newest first.
func (r *Recorder) Boots(_ context.Context, mac boot.MAC) ([]boot.Timeline, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.machines[mac]
	if m == nil {
		return nil, nil
	}
	var out []boot.Timeline
	for _, t := range slices.Backward(m.boots) {
		out = append(out, t.Clone())
	}
	return out, nil
}

// tellLocked numbers an event, keeps it and hands it to readers. One that does
// not keep up is dropped: its channel is closed.
func (r *Recorder) tellLocked(e boot.Event) {
	r.seq++
	n := Numbered{r.seq, e}
	if len(r.events) >= keepEvents+keepEvents/4 {
		r.events = slices.Clone(r.events[len(r.events)-keepEvents:])
	}
	r.events = append(r.events, n)
	for c := range r.readers {
		select {
		case c <- n:
		default:
			delete(r.readers, c)
			close(c)
		}
	}
}

// Subscribe returns a channel of the events from now on, and a function that
// ends it. The channel is closed when the reader has fallen buffer events
// behind; what it missed is in Since.
func (r *Recorder) Subscribe(buffer int) (events <-chan Numbered, cancel func()) {
	c := make(chan Numbered, buffer)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readers[c] = true
	return c, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.readers[c] {
			delete(r.readers, c)
			close(c)
		}
	}
}

// Since returns the events after number seq, as far as they are kept.
func (r *Recorder) Since(seq uint64) []Numbered {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.events)
	for i > 0 && r.events[i-1].Seq > seq {
		i--
	}
	return slices.Clone(r.events[i:])
}
