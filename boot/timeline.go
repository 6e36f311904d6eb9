package boot

import (
	"net/netip"
	"slices"
	"time"
)

// A Timeline is the record of one boot of one machine, from the first packet
// of its firmware to the next power-on.
type Timeline struct {
	ID      string     `json:"id"` // random, unique for ever
	MAC     MAC        `json:"mac"`
	Name    string     `json:"name,omitempty"`    // host name as assigned in this boot
	Profile string     `json:"profile,omitempty"` // as assigned in this boot
	Addr    netip.Addr `json:"addr,omitzero"`
	Arch    Arch       `json:"arch"`
	Started time.Time  `json:"started"`
	Steps   []Step     `json:"steps"`          // in the order of their first event
	Node    string     `json:"node,omitempty"` // swarm node ID
	Run     string     `json:"run,omitempty"`  // of its loader, see [Event.Run]
	// Expect is the last stage that this boot's profile leads to.
	Expect Stage `json:"expect,omitempty"`
}

// A Step is one stage of a boot. Repeats (a retransmitted DISCOVER, a second
// range of one file) are folded into the first.
type Step struct {
	Stage  Stage         `json:"stage"`
	Client Client        `json:"client,omitempty"`
	Text   string        `json:"text,omitempty"`
	First  time.Time     `json:"first"` // when its first event happened
	Last   time.Time     `json:"last"`
	Count  int           `json:"count"` // events folded into it
	Bytes  int64         `json:"bytes,omitempty"`
	Took   time.Duration `json:"took,omitempty"` // nanoseconds
}

// What a hostile or confused machine can add to one timeline is bounded: steps
// in all, and steps of one stage that differ in their text only. Beyond that
// they are folded together, except that a stage on the way always gets its
// first step.
const (
	maxSteps = 200
	maxAlike = 8
)

// order is the way from power-on to a working node.
var order = []Stage{Power, Offered, Leased, Loader, Script, Kernel, Initrd, RootFS, Ignition, Kickstart, Installed, Up, Engine, Joined, Ready}

// Order returns the place of a stage on the way, from 0, or -1 for what
// happens beside it.
func Order(s Stage) int { return slices.Index(order, s) }

// reached reports whether t has a step of one of the stages from s on.
func (t *Timeline) reached(s Stage) bool {
	return slices.ContainsFunc(t.Steps, func(x Step) bool { return Order(x.Stage) >= Order(s) })
}

// hasStage reports whether t has a step of a stage.
func (t *Timeline) hasStage(s Stage) bool {
	return slices.ContainsFunc(t.Steps, func(x Step) bool { return x.Stage == s })
}

// has reports whether t has a step of a stage by a client.
func (t *Timeline) has(s Stage, c Client) bool {
	return slices.ContainsFunc(t.Steps, func(x Step) bool { return x.Stage == s && x.Client == c })
}

// Apply notes an event of this boot. Repeats are folded into the step that
// they repeat. Steps stay in the order of their first event, whatever the order
// that events come in.
func (t *Timeline) Apply(e Event) {
	if e.Addr.IsValid() && e.Stage != Refused {
		t.Addr = e.Addr
	}
	if e.Inventory.ArchKnown && (e.Client == Firmware || e.Client == IPXE) {
		t.Arch = e.Inventory.Arch
	}
	// That a node was removed is told when the machine may have another one
	// already: it gets a new one at every boot.
	if e.Node != "" && Order(e.Stage) >= 0 {
		t.Node = e.Node
	}
	if e.Run != "" {
		t.Run = e.Run
	}
	if t.Started.IsZero() || e.Time.Before(t.Started) {
		t.Started = e.Time
	}
	i := t.alike(e)
	if i < 0 && len(t.Steps) >= maxSteps && (Order(e.Stage) < 0 || t.hasStage(e.Stage)) {
		return
	}
	s := Step{Stage: e.Stage, Client: e.Client, Text: e.Text, First: e.Time, Last: e.Time}
	if i >= 0 {
		s = t.Steps[i]
		t.Steps = slices.Delete(t.Steps, i, i+1)
	}
	s.add(e)
	i = len(t.Steps)
	for i > 0 && t.Steps[i-1].First.After(s.First) {
		i--
	}
	t.Steps = slices.Insert(t.Steps, i, s)
}

// alike finds the step that an event repeats, or, when there are many that
// differ little, the latest of those; -1 if there is none.
func (t *Timeline) alike(e Event) int {
	n, latest := 0, -1
	for i, s := range t.Steps {
		if s.Stage != e.Stage || s.Client != e.Client {
			continue
		}
		if s.Text == e.Text {
			return i
		}
		n, latest = n+1, i
	}
	if n < maxAlike {
		return -1
	}
	return latest
}

// add folds an event into s.
func (s *Step) add(e Event) {
	s.Count++
	if e.Time.Before(s.First) {
		s.First = e.Time
	}
	if e.Time.After(s.Last) {
		s.Last = e.Time
	}
	s.Bytes = max(s.Bytes, e.Bytes)
	s.Took = max(s.Took, e.Took)
}

// Clone returns a copy that shares no memory with t.
func (t Timeline) Clone() Timeline {
	t.Steps = slices.Clone(t.Steps)
	return t
}

// Stage is the furthest stage on the way that was reached; Waiting when the
// machine was last told that it has nothing to boot yet; empty when there is
// none.
func (t Timeline) Stage() Stage {
	far := -1
	var waits, script time.Time
	for _, s := range t.Steps {
		far = max(far, Order(s.Stage))
		switch {
		case s.Stage == Waiting && s.Last.After(waits):
			waits = s.Last
		case s.Stage == Script && s.Last.After(script):
			script = s.Last
		}
	}
	switch {
	case far < Order(Kernel) && waits.After(script):
		return Waiting
	case far < 0:
		return ""
	}
	return order[far]
}

// Done reports whether the boot has come as far as its profile leads.
func (t Timeline) Done() bool { return Order(t.Expect) >= 0 && t.reached(t.Expect) }
