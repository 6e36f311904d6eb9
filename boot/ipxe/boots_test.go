package ipxe_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"bootd/boot"
)

// memory is a recorder that forgets everything when it ends: otherwise it does
// what the real one does.
type memory struct {
	mu     sync.Mutex
	boots  map[boot.MAC]*boot.Timeline
	invs   map[boot.MAC]boot.Inventory
	next   int
	broken bool   // Commit fails
	before func() // called before a Commit; nil: not
}

func newMemory() *memory {
	return &memory{boots: map[boot.MAC]*boot.Timeline{}, invs: map[boot.MAC]boot.Inventory{}}
}

func (m *memory) Current(mac boot.MAC) (boot.Timeline, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshotLocked(mac)
}

func (m *memory) snapshotLocked(mac boot.MAC) (boot.Timeline, bool) {
	tl, ok := m.boots[mac]
	if !ok {
		return boot.Timeline{}, false
	}
	c := *tl
	c.Steps = slices.Clone(tl.Steps)
	return c, true
}

func (m *memory) ByAddr(a netip.Addr) (boot.Timeline, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshotLocked(m.macLocked(a))
}

func (m *memory) macLocked(a netip.Addr) boot.MAC {
	for mac, tl := range m.boots {
		if tl.Addr == a {
			return mac
		}
	}
	return boot.MAC{}
}

func (m *memory) Inventory(mac boot.MAC) boot.Inventory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.invs[mac]
}

func (m *memory) Record(e boot.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.addLocked(e)
}

func (m *memory) Commit(ctx context.Context, e boot.Event) (boot.Timeline, error) {
	if m.before != nil {
		m.before()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken {
		return boot.Timeline{}, errors.New("cannot write: no space left on device")
	}
	tl, _ := m.snapshotLocked(m.addLocked(e))
	return tl, ctx.Err()
}

// addLocked puts an event into the boot it belongs to. A boot begins when the
// firmware asks for an address.
func (m *memory) addLocked(e boot.Event) boot.MAC {
	mac := e.MAC
	if mac.IsZero() {
		mac = m.macLocked(e.Addr)
	}
	if mac.IsZero() {
		return mac // nobody we know
	}
	tl := m.boots[mac]
	if tl == nil || e.Stage == boot.Offered {
		m.next++
		tl = &boot.Timeline{ID: fmt.Sprint("boot", m.next), MAC: mac, Started: e.Time}
		m.boots[mac] = tl
	}
	m.invs[mac] = m.invs[mac].Merge(e.Inventory)
	tl.Apply(e)
	return mac
}

// stages are those of a machine's current boot.
func (m *memory) stages(mac boot.MAC) []boot.Stage {
	tl, _ := m.Current(mac)
	var l []boot.Stage
	for _, s := range tl.Steps {
		l = append(l, s.Stage)
	}
	return l
}

// text is what the current boot says about a stage.
func (m *memory) text(mac boot.MAC, stage boot.Stage) string {
	tl, _ := m.Current(mac)
	for _, s := range tl.Steps {
		if s.Stage == stage {
			return s.Text
		}
	}
	return ""
}
