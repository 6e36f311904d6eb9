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

// maxSteps bounds what a hostile or confused machine can add to one timeline.
const maxSteps = 200

// order is the way from power-on to a working node.
var order = []Stage{Power, Offered, Leased, Loader, Script, Kernel, Initrd, RootFS, Ignition, Up, Engine, Joined, Ready}

// Order returns the place of a stage on the way, from 0, or -1 for what
// happens beside it.
func Order(s Stage) int { return slices.Index(order, s) }

// reached reports whether t has a step of one of the stages from s on.
func (t *Timeline) reached(s Stage) bool {
	return slices.ContainsFunc(t.Steps, func(x Step) bool { return Order(x.Stage) >= Order(s) })
}

// has reports whether t has a step of a stage by a client.
func (t *Timeline) has(s Stage, c Client) bool {
	return slices.ContainsFunc(t.Steps, func(x Step) bool { return x.Stage == s && x.Client == c })
}

// early is how far apart the press of the button and the first packet may be
// noted and still be one boot: who pressed it may tell later than the machine.
const early = 10 * time.Second

// Begins reports whether e is the start of a new boot of the machine whose
// latest one is t; t may be nil. A boot begins with the power button, and with
// the first request of a program that does not run again later on in a boot.
// What firmware and iPXE repeat when nobody answers begins nothing.
func (t *Timeline) Begins(e Event) bool {
	if t == nil {
		// What a node reports does not begin a boot: its beginning was not seen.
		return Order(e.Stage) >= 0 && Order(e.Stage) <= Order(Ignition) || e.Stage == Waiting
	}
	switch {
	case e.Stage == Power:
		apart := e.Time.Sub(t.Started).Abs()
		return t.has(Power, "") || t.reached(Loader) || apart > early
	case e.Stage == Offered && e.Client == Firmware:
		return t.reached(Loader) || t.has(Offered, IPXE)
	case e.Stage == Offered && e.Client == IPXE:
		return t.reached(Kernel) || t.reached(Script) && !t.has(Waiting, "")
	case e.Stage == Script:
		return t.reached(Kernel)
	}
	return false
}

// Apply notes an event of this boot. Repeats are folded into the step that
// they repeat.
func (t *Timeline) Apply(e Event) {
	if e.Addr.IsValid() {
		t.Addr = e.Addr
	}
	if e.Inventory.ArchKnown && (e.Client == Firmware || e.Client == IPXE) {
		t.Arch = e.Inventory.Arch
	}
	if e.Node != "" {
		t.Node = e.Node
	}
	if e.Stage == Power {
		t.Started = e.Time
	} else if e.Time.Before(t.Started) {
		t.Started = e.Time
	}
	for i := range t.Steps {
		s := &t.Steps[i]
		if s.Stage == e.Stage && s.Client == e.Client && s.Text == e.Text {
			s.repeat(e)
			return
		}
	}
	if len(t.Steps) >= maxSteps {
		t.Steps[maxSteps-1].repeat(e)
		return
	}
	s := Step{Stage: e.Stage, Client: e.Client, Text: e.Text, First: e.Time, Last: e.Time, Count: 1, Bytes: e.Bytes, Took: e.Took}
	i := len(t.Steps)
	for i > 0 && t.Steps[i-1].First.After(s.First) {
		i--
	}
	t.Steps = slices.Insert(t.Steps, i, s)
}

// repeat folds an event into s.
func (s *Step) repeat(e Event) {
	s.Count++
	if e.Time.After(s.Last) {
		s.Last = e.Time
	}
	if e.Bytes > s.Bytes {
		s.Bytes = e.Bytes
	}
	if e.Took > s.Took {
		s.Took = e.Took
	}
}

// Clone returns a copy that shares no memory with t.
func (t Timeline) Clone() Timeline {
	t.Steps = slices.Clone(t.Steps)
	return t
}

// Stage is the furthest stage on the way that was reached; Waiting when the
// machine has nothing to boot yet; empty when there is none.
func (t Timeline) Stage() Stage {
	far := -1
	waiting := false
	for _, s := range t.Steps {
		far = max(far, Order(s.Stage))
		waiting = waiting || s.Stage == Waiting
	}
	switch {
	case waiting && far < Order(Kernel):
		return Waiting
	case far < 0:
		return ""
	}
	return order[far]
}

// Done reports whether the boot has come as far as its profile leads.
func (t Timeline) Done() bool { return t.Expect != "" && t.reached(t.Expect) }

// at is when a stage was first reached.
func (t *Timeline) at(s Stage) (time.Time, bool) {
	for _, x := range t.Steps {
		if x.Stage == s {
			return x.First, true
		}
	}
	return time.Time{}, false
}

// A Missing step is what a boot waits for.
type Missing struct {
	Next     Stage
	Since    time.Time     // when the step before it was done
	Patience time.Duration // how long it may take without anything being wrong
	Reason   string        // what is likely wrong if it takes longer, and what helps
}

// Missing says what should happen next in a boot that is not done. It reports
// false when it is done, or when nothing is expected of it.
func (t Timeline) Missing(now time.Time) (Missing, bool) {
	if t.Done() || len(t.Steps) == 0 {
		return Missing{}, false
	}
	m := t.missing()
	for _, s := range t.Steps {
		if Order(s.Stage) >= 0 && s.Last.After(m.Since) && (s.Stage != Leased || s.Client != System) {
			m.Since = s.Last
		}
	}
	if m.Since.IsZero() {
		m.Since = t.Started
	}
	return m, m.Next != ""
}

func (t *Timeline) missing() Missing {
	switch t.Stage() {
	case Power:
		return Missing{Offered, time.Time{}, 30 * time.Second,
			"nothing has been heard of it: is network boot enabled in its firmware, is it on this network, is its cable in?"}
	case Waiting:
		return Missing{Kernel, time.Time{}, 0, "it has no profile: write an entry for it in machines/*.yaml"}
	case Offered:
		return Missing{Leased, time.Time{}, 20 * time.Second,
			"it did not take the address: another DHCP server was faster, or the offer does not reach it"}
	case Leased:
		return t.afterLease()
	case Loader:
		if t.has(Leased, IPXE) {
			return Missing{Script, time.Time{}, 20 * time.Second, "iPXE has an address but fetched no script: is HTTP to this server blocked (TCP, see `bootd status` for the port)?"}
		}
		return Missing{Script, time.Time{}, 40 * time.Second,
			"the loader runs but does not ask for an address: its driver does not fit this network card; try loader: ipxe, or loader: snponly if that is set"}
	case Script:
		return Missing{Kernel, time.Time{}, 20 * time.Second, "it has its script but fetched no kernel; look at its console"}
	case Kernel:
		return Missing{Initrd, time.Time{}, 60 * time.Second, "the kernel was fetched but no initramfs; look at its console"}
	case Initrd:
		return t.afterInitrd()
	case RootFS:
		return Missing{Ignition, time.Time{}, 60 * time.Second, "the root file system is there, but no Ignition config was fetched; look at its console"}
	case Ignition:
		return Missing{Up, time.Time{}, 3 * time.Minute, "the Ignition config was fetched, but the system does not report: Ignition failed, or the system cannot reach this server; look at its console"}
	case Up:
		return Missing{Engine, time.Time{}, 2 * time.Minute, "the system is up, but Docker does not answer there: journalctl -u docker on the node"}
	case Engine:
		return Missing{Joined, time.Time{}, time.Minute, "Docker runs but does not join: TCP port 2377 and UDP 7946 of the manager must be reachable from the node; journalctl -u bootd-swarm there"}
	case Joined:
		return Missing{Ready, time.Time{}, time.Minute, "the node has joined, but the swarm does not show it ready; docker node ls, and `bootd status`"}
	}
	return Missing{}
}

func (t *Timeline) afterLease() Missing {
	switch {
	case t.has(Leased, IPXE):
		return Missing{Script, time.Time{}, 20 * time.Second,
			"iPXE has an address but fetched no script: is HTTP to this server blocked (TCP)?"}
	case t.has(Leased, Firmware):
		return Missing{Loader, time.Time{}, 30 * time.Second,
			"it has an address but fetched no loader: is TFTP to this server blocked (UDP port 69), or is no loader there for its firmware (bootd asset loaders)?"}
	}
	return Missing{Script, time.Time{}, time.Minute,
		"it asked for an address only: it has booted from something else; enable network boot in its firmware, before its disks"}
}

func (t *Timeline) afterInitrd() Missing {
	reason := "the kernel does not get as far as its root file system: the initramfs may lack a driver for the network card, or the machine has too little memory (2 GiB for Fedora CoreOS); look at its console"
	if t.has(Leased, Initramfs) || t.has(Leased, System) {
		reason = "the initramfs has an address, but fetched neither root file system nor config; look at its console"
	}
	return Missing{RootFS, time.Time{}, 2 * time.Minute, reason}
}

// A Span is a part of a boot, between two stages.
type Span struct {
	Name     string
	From, To time.Time
	Bytes    int64 // transferred at its end
}

// spans are the parts of a boot and what ends each of them.
var spans = []struct {
	name  string
	ended func(*Timeline) (Step, bool)
}{
	{"firmware", func(t *Timeline) (Step, bool) { return t.firmware() }},
	{"loader", stepOf(Loader)},
	{"iPXE", stepOf(Script)},
	{"kernel", stepOf(Kernel)},
	{"initrd", stepOf(Initrd)},
	{"initramfs", func(t *Timeline) (Step, bool) { return t.rootfsBegun() }},
	{"rootfs", stepOf(RootFS)},
	{"Ignition", stepOf(Ignition)},
	{"system", stepOf(Up)},
	{"engine", stepOf(Engine)},
	{"join", stepOf(Joined)},
	{"ready", stepOf(Ready)},
}

// SpanNames are the names of all spans, in the order of a boot.
func SpanNames() []string {
	var names []string
	for _, s := range spans {
		names = append(names, s.name)
	}
	return names
}

func stepOf(s Stage) func(*Timeline) (Step, bool) {
	return func(t *Timeline) (Step, bool) {
		i := slices.IndexFunc(t.Steps, func(x Step) bool { return x.Stage == s })
		if i < 0 {
			return Step{}, false
		}
		return t.Steps[i], true
	}
}

// firmware ends when the loader's transfer begins, or, with iPXE in ROM, at
// its first request.
func (t *Timeline) firmware() (Step, bool) {
	for _, x := range t.Steps {
		switch {
		case x.Stage == Loader:
			x.First, x.Bytes = x.First.Add(-x.Took), 0
			return x, true
		case x.Client == IPXE && (x.Stage == Offered || x.Stage == Leased):
			return x, true
		}
	}
	return Step{}, false
}

// rootfsBegun is the beginning of the transfer of the root file system.
func (t *Timeline) rootfsBegun() (Step, bool) {
	x, ok := stepOf(RootFS)(t)
	x.First, x.Bytes = x.First.Add(-x.Took), 0
	return x, ok
}

// Durations splits the boot by its stages, from its beginning to the last one
// that was reached. Spans follow each other without gaps; a stage that was not
// seen belongs to the span after it.
func (t Timeline) Durations() []Span {
	var out []Span
	from := t.Started
	for _, s := range spans {
		step, ok := s.ended(&t)
		if !ok || step.First.Before(from) {
			continue
		}
		out = append(out, Span{s.name, from, step.First, step.Bytes})
		from = step.First
	}
	return out
}
