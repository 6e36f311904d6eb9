package web

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"bootd/boot"
)

// Config is what the dashboard needs. All of it must be set.
type Config struct {
	State  State
	Events Events
	Orders Orders
	Now    func() time.Time
	Log    *slog.Logger
}

// State tells how things are. Its methods are called by several goroutines at
// once; those without an error answer from memory.
type State interface {
	Status() Status
	// Machines are those that are configured or have been seen, by name.
	Machines() []Machine
	// Detail says more of a machine of Machines.
	Detail(context.Context, Machine) (Detail, error)
	Leases() []Lease
	// Nodes are the nodes of all swarms. That there is no swarm is no error.
	Nodes(context.Context) ([]Node, error)
}

// Events tells what has happened and what happens.
type Events interface {
	// Past are the events after number seq that are kept, in order.
	Past(seq uint64) []Event
	// Follow calls f with each event after the one numbered seq, those of the
	// past first, until ctx ends or f fails.
	Follow(ctx context.Context, seq uint64, f func(Event) error) error
}

// Orders gives orders. What it returns is told to the operator: in short what
// was done, or an error that says what to do instead, which is a [Refusal] if
// that is not bootd's fault.
type Orders interface {
	Machine(context.Context, Machine, Order) (string, error)
	// Power tells whether a machine is on, for who is about to switch it.
	Power(context.Context, Machine) (string, error)
	Node(ctx context.Context, swarm, id string, o Order) (string, error)
	Release(context.Context, netip.Addr) error
}

// An Order is what is to be done, and what its verb needs beside.
type Order struct {
	Verb    Verb
	Profile string // of Approve and Next; empty with Next: takes the order back
	Name    string // of Approve: host name; empty: from the address
	Power   string // of Power: on, off, shutdown, cycle
	Reason  string // of Drain and Pause
}

// A Verb says what can be done to something.
type Verb string

// The verbs of machines, then those of nodes.
const (
	Approve   Verb = "approve"
	Next      Verb = "next"
	Reinstall Verb = "reinstall"
	Keep      Verb = "keep" // takes Reinstall back
	Power     Verb = "power"
	Forget    Verb = "forget"

	Drain    Verb = "drain"
	Pause    Verb = "pause"
	Activate Verb = "activate"
	Remove   Verb = "remove"
)

// A Refusal is an error that the operator can do something about.
type Refusal struct {
	Status int // of HTTP, 400 to 599
	Text   string
}

// Error makes a Refusal an error.
func (r *Refusal) Error() string { return r.Text }

// A Status is how the server is.
type Status struct {
	Version  string
	Started  time.Time
	Dir      string   // of the configuration
	Profiles []string // names, in order
	Networks []Network
	Images   []Image
	Swarms   []Swarm
	// Mistakes are what is wrong with the configuration as it is on disk, when
	// an older one is in force; Problem says the same where it is not about a
	// line.
	Mistakes []Mistake
	Problem  string
}

// A Network is a network that is served.
type Network struct {
	boot.Network
	Others []string // DHCP servers beside bootd, where there should be none
}

// An Image is an image that profiles name.
type Image struct {
	Name    string
	Version string // empty: it is not there
}

// A Swarm is how a swarm is.
type Swarm struct {
	Name, Phase, Text, Host string
	Notices                 []string // what is not as it should be
}

// A Mistake is something wrong in the configuration.
type Mistake struct {
	Origin        boot.Origin
	Message, Hint string
	Line          string // the text of the line
}

// Text is the line of a mistake, cut at its place.
func (m Mistake) Text() struct{ Before, At, After string } {
	r := []rune(m.Line)
	at := min(max(m.Origin.Column-1, 0), len(r))
	end := at
	for end < len(r) && !strings.ContainsRune(" \t:,]}", r[end]) {
		end++
	}
	if end == at && at < len(r) {
		end++
	}
	return struct{ Before, At, After string }{string(r[:at]), string(r[at:end]), string(r[end:])}
}

// A Machine is a machine that is configured or has been seen.
type Machine struct {
	Name      string
	MAC       boot.MAC // zero: an entry whose machine has never been seen
	Profile   string   // empty: it has none and waits
	Entry     string   // file:line:column; empty: no entry matches it
	Addr      netip.Addr
	Inventory boot.Inventory
	First     time.Time // when it was seen; zero: never
	Last      time.Time
	Boot      *boot.Timeline // the latest; nil: none
	Problem   string         // why it is not known what it boots; empty: it is
	Ordered   Ordered
}

// Ordered is what operators have ordered for a machine, beyond the files.
type Ordered struct {
	Approved bool
	Next     string // profile of its next boot; empty: none
	Held     string // availability of its node: drain or pause
	Reason   string // of Held
	Install  bool   // its disk is to be installed anew
}

// A Detail is what the page of one machine says beyond the list.
type Detail struct {
	Values []Value         // effective, at its next boot
	Boots  []boot.Timeline // newest first
	// Given is what Values was when its latest boot got its script; nil when
	// that is not known.
	Given []Value
	// Installs says that its image is one that is installed on a disk.
	Installs bool
}

// A Value is one effective setting, and where it was written. Sum tells two
// texts apart of which Value shows the beginning only.
type Value struct {
	boot.Value
	Sum string
}

// A Lease is an address and who has it.
type Lease struct {
	MAC     boot.MAC
	Addr    netip.Addr
	Network string
	State   string // offered, bound, released, declined, expired
	Expires time.Time
	Host    string
}

// A Node is a node of a swarm.
type Node struct {
	Swarm, ID, Hostname string
	Machine             string // empty: not one that bootd booted
	Role                string
	Leader, Self        bool   // Self: of the engine that bootd talks to
	State               string // ready, down, ...
	Availability        string // active, pause, drain
	Labels              map[string]string
	Tasks               int
	Engine, Addr        string
	Since               time.Time
	Why                 string // it has this availability, if somebody ordered it
}

// An Event is an event and its number.
type Event struct {
	Seq uint64
	boot.Event
}
