package timeline

import (
	"cmp"
	"context"
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
	// keepNamed is how many of the others are kept. Where unknown machines have
	// a profile too, made-up ones get here.
	keepNamed = 16_384
	// keepCrowded is how long a stranger is kept then that nobody sees, when
	// machines come that only pass by.
	keepCrowded = time.Hour
	// lookForRoom is how often such strangers are looked for.
	lookForRoom = time.Minute
	// keepUnseen is how long a machine that nobody sees is kept.
	keepUnseen = 90 * 24 * time.Hour
	// keepPending is how many assignments are kept for machines that are about
	// to begin their first boot.
	keepPending = 256
	// keepEvents is how many events are kept for those who ask later.
	keepEvents = 10_000
)

// A Seen is a machine that was seen on a network.
type Seen struct {
	MAC           boot.MAC
	Inventory     boot.Inventory
	First, Last   time.Time
	Name, Profile string         // as it was last assigned; empty: never
	Current       *boot.Timeline // its latest boot; nil: none
}

// A Numbered event has a number that grows with every event, over restarts as
// well: whoever asks for what came after a number need not know of restarts.
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

// A kept boot is what is stored of a boot. Number is its place among the boots
// of its machine: clocks may be set back, so when it began does not tell which
// of two boots is the later one.
type kept struct {
	Number int `json:"number"`
	boot.Timeline
	due due
}

var (
	machines = store.Kind[record]{Name: "machine"} // by MAC
	boots    = store.Kind[kept]{Name: "boot"}      // by MAC and ID
)

type machine struct {
	record
	boots  []*kept // oldest first
	stored bool    // something of it may be in the store
	due    due
}

// A due value says how soon something is to be written. What is noted of it in
// a machine or boot saves looking that up with every event.
type due int

const (
	notDue due = iota
	inTime     // with the next of those that can wait
	atOnce
)

func dueIf(now bool) due {
	if now {
		return atOnce
	}
	return inTime
}

// An assigned value is what a machine was given.
type assigned struct {
	name, profile string
	expect        boot.Stage
}

// A pending value is what a machine was given that has not begun to boot.
type pending struct {
	assigned
	since uint64 // counts assignments
}

func (m *machine) current() *kept {
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

	mu            sync.Mutex // guards all below
	machines      map[boot.MAC]*machine
	byAddr        map[netip.Addr]boot.MAC
	strangers     int
	lookedForRoom time.Time         // when strangers were last looked for that could be forgotten
	dirty         map[boot.MAC]bool // machines to be written, and whether at once
	dirtyBoot     map[bootKey]bool  // boots, likewise; those that are gone are to be removed
	pending       map[boot.MAC]pending
	assignments   uint64     // that have been pending
	events        []Numbered // a ring, once it is full
	oldest        int        // where it begins then
	seq           uint64
	readers       map[chan struct{}]bool

	wake    chan struct{} // holds one when there is something to be written
	writing chan struct{} // holds one while somebody writes
}

// New returns a recorder with what the store remembers.
func New(ctx context.Context, st *store.Store, log *slog.Logger) (*Recorder, error) {
	r := &Recorder{store: st, log: log, machines: map[boot.MAC]*machine{}, byAddr: map[netip.Addr]boot.MAC{},
		dirty: map[boot.MAC]bool{}, dirtyBoot: map[bootKey]bool{}, pending: map[boot.MAC]pending{}, readers: map[chan struct{}]bool{},
		seq: uint64(time.Now().UnixMicro()), wake: make(chan struct{}, 1), writing: make(chan struct{}, 1)}
	if err := r.loadMachines(ctx); err != nil {
		return nil, err
	}
	if err := r.loadBoots(ctx); err != nil {
		return nil, err
	}
	if len(r.dirtyBoot) > 0 {
		r.poke()
	}
	return r, nil
}

func (r *Recorder) loadMachines(ctx context.Context) error {
	stored, err := store.List(ctx, r.store, machines, "")
	if stored == nil {
		return fmt.Errorf("cannot read the machines: %w", err)
	}
	if err != nil {
		r.log.Error("some machines are forgotten", "err", err)
	}
	for id, rec := range stored {
		mac, err := boot.ParseMAC(id)
		if err != nil {
			r.log.Error("a machine is forgotten", "err", err)
			continue
		}
		r.machines[mac] = &machine{record: rec, stored: true}
		if rec.Name == "" {
			r.strangers++
		}
		// An address may have had several machines; it is the last one's.
		addr := rec.Inventory.Addr
		if other := r.machines[r.byAddr[addr]]; addr.IsValid() && (other == nil || other.Last.Before(rec.Last)) {
			r.byAddr[addr] = mac
		}
	}
	return nil
}

// loadBoots reads the boots. Those that a kill kept from being removed are
// removed now.
func (r *Recorder) loadBoots(ctx context.Context) error {
	past, err := store.List(ctx, r.store, boots, "")
	if past == nil {
		return fmt.Errorf("cannot read the boots: %w", err)
	}
	if err != nil {
		r.log.Error("some boots are forgotten", "err", err)
	}
	for _, k := range past {
		if m := r.machines[k.MAC]; m != nil {
			m.boots = append(m.boots, &k)
		} else {
			r.bootSoonLocked(bootKey{k.MAC, k.ID}, true)
		}
	}
	for _, m := range r.machines {
		slices.SortFunc(m.boots, func(a, b *kept) int { return cmp.Compare(a.Number, b.Number) })
		r.trim(m)
	}
	return nil
}

// soonLocked has a machine written, at once or with the next of those that can
// wait.
func (r *Recorder) soonLocked(mac boot.MAC, atOnce bool) { r.dirty[mac] = r.dirty[mac] || atOnce }

// bootSoonLocked has a boot written, or removed if it is gone.
func (r *Recorder) bootSoonLocked(k bootKey, atOnce bool) {
	r.dirtyBoot[k] = r.dirtyBoot[k] || atOnce
}

// trim forgets all but the latest boots of a machine.
func (r *Recorder) trim(m *machine) {
	for len(m.boots) > keepBoots {
		r.bootSoonLocked(bootKey{m.boots[0].MAC, m.boots[0].ID}, true)
		m.boots = m.boots[1:]
	}
}

// String names the recorder in messages.
func (r *Recorder) String() string { return "record of boots" }

// Record notes an event. It never waits for the disk. A new step of a machine
// that was assigned something is written within a fraction of a second; repeats,
// and what strangers do, within seconds.
func (r *Recorder) Record(e boot.Event) {
	r.note(e, false)
	r.poke()
}

// Commit notes an event and returns when it and all that its machine did before
// are on stable storage, with the boot that it belongs to.
func (r *Recorder) Commit(ctx context.Context, e boot.Event) (boot.Timeline, error) {
	t := r.note(e, true)
	if err := r.write(ctx, soon); err != nil {
		r.poke() // it is noted, and still to be written
		return boot.Timeline{}, fmt.Errorf("cannot record stage %s of %s: %w", e.Stage, e.MAC, err)
	}
	return t, nil
}

// Assigned notes what a machine was given for its present boot, and how far
// that leads. Of a machine that has not booted it is noted when its first boot
// begins. A boot whose system is up already is over with: what is assigned then
// is for the next one.
func (r *Recorder) Assigned(mac boot.MAC, name, profile string, expect boot.Stage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := assigned{name, profile, expect}
	m := r.machines[mac]
	if m == nil || m.current() == nil {
		r.expectLocked(mac, a)
		return
	}
	changed := r.nameLocked(mac, m, a)
	t := m.current()
	if (assigned{t.Name, t.Profile, t.Expect}) != a && (t.Name == "" || boot.Order(t.Stage()) < boot.Order(boot.Up)) {
		t.Name, t.Profile, t.Expect = name, profile, expect
		r.bootSoonLocked(bootKey{mac, t.ID}, true)
		changed = true
	}
	if changed {
		r.poke()
	}
}

// expectLocked keeps what a machine was given until it begins to boot. Beyond
// keepPending the one that has waited longest gives way.
func (r *Recorder) expectLocked(mac boot.MAC, a assigned) {
	if _, again := r.pending[mac]; !again && len(r.pending) >= keepPending {
		var oldest boot.MAC
		first := ^uint64(0)
		for other, w := range r.pending {
			if w.since < first {
				oldest, first = other, w.since
			}
		}
		delete(r.pending, oldest)
	}
	r.assignments++
	r.pending[mac] = pending{a, r.assignments}
}

// nameLocked notes what a machine was given last, and reports whether that is
// something else than before.
func (r *Recorder) nameLocked(mac boot.MAC, m *machine, a assigned) bool {
	if (assigned{m.Name, m.Profile, m.Expect}) == a {
		return false
	}
	switch {
	case m.Name == "" && a.name != "":
		r.makeRoomLocked(true)
		r.strangers--
	case m.Name != "" && a.name == "":
		r.strangers++
	}
	m.Name, m.Profile, m.Expect = a.name, a.profile, a.expect
	r.soonLocked(mac, true)
	return true
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
