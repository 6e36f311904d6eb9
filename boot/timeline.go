package boot

import (
	"net/netip"
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
