package api

import (
	"net/netip"
	"time"

	"bootd/boot"
)

// A Status is how the server is.
type Status struct {
	Version  string    `json:"version"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	Config   string    `json:"config"` // directory
	Networks []Network `json:"networks"`
	Profiles int       `json:"profiles"`
	Machines int       `json:"machines"` // entries in the configuration
	Images   []Image   `json:"images"`   // that profiles name
	Swarms   []Swarm   `json:"swarms,omitempty"`
	// Problem is what is wrong with the configuration as it is on disk, when
	// an older one is in force.
	Problem string `json:"problem,omitempty"`
}

// A Network is a network that is served.
type Network struct {
	Name      string       `json:"name"`
	Interface string       `json:"interface"`
	Mode      boot.Mode    `json:"mode"`
	Subnet    netip.Prefix `json:"subnet"`
	// Others are DHCP servers beside bootd, where there should be none.
	Others []OtherServer `json:"others,omitempty"`
	// Floods are where more new machines ask for addresses than take them.
	Floods []Flood `json:"floods,omitempty"`
}

// A Flood is one place from which come more new machines than take the
// addresses that they are offered. It is told of until ten minutes after the
// last of them.
type Flood struct {
	Relay   netip.Addr `json:"relay,omitzero"` // the agent; unset: it comes from the network's own wire
	Port    string     `json:"port,omitempty"` // of the agent, as that says
	Held    int        `json:"held"`           // addresses kept for them now
	Dropped uint64     `json:"dropped"`        // requests that were not answered
	Since   time.Time  `json:"since"`
	Last    time.Time  `json:"last"`
}

// An OtherServer is a DHCP server that is not bootd.
type OtherServer struct {
	Addr   netip.Addr `json:"addr"`
	MAC    boot.MAC   `json:"mac"`
	Offers netip.Addr `json:"offers,omitzero"` // an address that it gave; unset: it is only about booting
	Since  time.Time  `json:"since"`
	Last   time.Time  `json:"last"`
}

// An Image is an image that a profile names, and whether it is there.
type Image struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // empty: not in the store
}

// A Swarm is how a swarm is.
type Swarm struct {
	Name    string   `json:"name"`
	Phase   string   `json:"phase"`
	Text    string   `json:"text,omitempty"` // what it waits for, and the remedy
	ID      string   `json:"id,omitempty"`
	Host    string   `json:"host"`              // of the engine that bootd talks to
	Notices []string `json:"notices,omitempty"` // what is not as it should be
}

// A Machine is a machine that is configured or has been seen.
type Machine struct {
	Name      string         `json:"name"`
	MAC       boot.MAC       `json:"mac,omitzero"` // unset: an entry whose machine has never been seen
	Profile   string         `json:"profile,omitempty"`
	Entry     string         `json:"entry,omitempty"` // file:line:column; empty: no entry matches it
	Stage     boot.Stage     `json:"stage,omitempty"`
	Since     time.Time      `json:"since,omitzero"` // of Stage
	Addr      netip.Addr     `json:"addr,omitzero"`
	Waits     string         `json:"waits,omitempty"` // what should come next and why it may not
	Inventory boot.Inventory `json:"inventory,omitzero"`
	FirstSeen time.Time      `json:"first_seen,omitzero"`
	LastSeen  time.Time      `json:"last_seen,omitzero"`
	Boot      *boot.Timeline `json:"boot,omitempty"` // the latest
	Ordered   *Ordered       `json:"ordered,omitempty"`
}

// Ordered is what operators have ordered for a machine, beyond the files.
type Ordered struct {
	Approved *Approval `json:"approved,omitempty"`
	Next     string    `json:"next,omitempty"`      // profile of its next boot only
	NextBoot string    `json:"next_boot,omitempty"` // the boot that uses it, when it has begun
	Held     string    `json:"held,omitempty"`      // availability of its node: drain or pause
	Reason   string    `json:"reason,omitempty"`    // of Held
	Install  bool      `json:"install,omitempty"`   // its disk is to be installed anew
}

// A Lease is an address and who has it.
type Lease struct {
	MAC     boot.MAC   `json:"mac"`
	Addr    netip.Addr `json:"addr"`
	Network string     `json:"network"`
	State   string     `json:"state"` // offered, bound, released, declined, expired
	Expires time.Time  `json:"expires"`
	Host    string     `json:"host,omitempty"`
}

// Replaced is a lost swarm that was given up.
type Replaced struct {
	Swarm string `json:"swarm"` // name
	Was   string `json:"was"`   // ID
}

// A Node is a node of a swarm.
type Node struct {
	Swarm        string            `json:"swarm"`
	Machine      string            `json:"machine,omitempty"` // empty: not one that bootd booted
	MAC          boot.MAC          `json:"mac,omitzero"`      // of the machine
	ID           string            `json:"id"`
	Hostname     string            `json:"hostname"`
	Role         boot.Role         `json:"role"`
	Leader       bool              `json:"leader,omitempty"`
	Self         bool              `json:"self,omitempty"` // of the engine that bootd talks to
	State        string            `json:"state"`
	Availability string            `json:"availability"`
	Labels       map[string]string `json:"labels,omitempty"`
	Tasks        int               `json:"tasks"`
	Engine       string            `json:"engine"`
	Addr         string            `json:"addr"`
	Since        time.Time         `json:"since"`
	Why          string            `json:"why,omitempty"` // it has this availability or role, if somebody ordered it
}

// An Event is an event and its number, by which a reader can go on where it
// stopped.
type Event struct {
	Seq uint64 `json:"seq"`
	// Gap is set when events before this one, which the reader would have got,
	// are no longer kept; after a restart of the server, when there may be such.
	Gap bool `json:"gap,omitempty"`
	boot.Event
}

// A Problem is an error as its caller sees it (RFC 9457).
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Error makes a Problem an error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}
