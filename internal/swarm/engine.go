package swarm

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"time"

	"bootd/boot"
)

// An Engine is a Docker engine as far as this package needs one.
type Engine interface {
	Membership
	Registry
	Networking
	Operations
}

// Membership is the engine's own place in a swarm. Methods can be called
// concurrently.
type Membership interface {
	// Info tells what the engine is at the moment. When it cannot be reached
	// that is an error; that it is in no swarm is not.
	Info(ctx context.Context) (Info, error)
	// Init makes a new swarm with this engine as its first manager. It is an
	// [ErrMember] when the engine is in a swarm after all.
	Init(ctx context.Context, o Init) error
	// Watch calls changed when it has begun to watch and after every change of
	// a node, until ctx ends or the engine goes away; it returns why.
	Watch(ctx context.Context, changed func()) error
}

// A Registry is the list of a swarm's nodes, which only a manager has.
type Registry interface {
	// Nodes lists all nodes.
	Nodes(ctx context.Context) ([]Node, error)
	// Tasks counts the running tasks by node ID.
	Tasks(ctx context.Context) (map[string]int, error)
	// SetNode replaces what is wanted of a node. It is an [ErrConflict] when
	// the node has changed since the version was read.
	SetNode(ctx context.Context, id string, version uint64, s Spec) error
	// RemoveNode forgets a node that is not ready and not a manager. It is an
	// [ErrNoNode] when there is none.
	RemoveNode(ctx context.Context, id string) error
}

// What an Engine's errors can be asked for.
var (
	ErrMember   = errors.New("the engine is in a swarm already")
	ErrConflict = errors.New("the node was changed by somebody else")
	ErrNoNode   = errors.New("the swarm has no such node")
	ErrNoLeader = errors.New("the swarm has no leader: more than half of its managers are lost")
)

// Info is what an engine tells of itself.
type Info struct {
	State   LocalState
	Error   string // in the engine's own words, when State is Error
	Manager bool   // it can be asked about nodes

	Node    string    // its own node ID
	Addr    string    // where nodes join: 10.0.0.1:2377
	Version string    // of the engine: 20.10.24
	Time    time.Time // the engine's clock; zero if it does not tell

	// Of the swarm, when it is a manager.
	Swarm        string // ID
	Tokens       map[boot.Role]string
	TokensMade   time.Time // as far as is known; by the swarm's clock
	AddressPools []netip.Prefix
	DataPathPort uint16 // UDP
}

// manages reports whether the engine can take nodes into its swarm.
func (i Info) manages() bool {
	return i.State == Member && i.Manager && i.Addr != "" && i.Tokens[boot.Worker] != "" && i.Tokens[boot.Manager] != ""
}

// A LocalState is what an engine says of its own membership.
type LocalState string

// The states of an engine's membership.
const (
	Inactive LocalState = "inactive" // in no swarm
	Pending  LocalState = "pending"  // starting or joining
	Member   LocalState = "active"
	Locked   LocalState = "locked" // waits for the key that unlocks its data
	Error    LocalState = "error"
)

// Init is how a swarm is made. What it holds cannot be changed afterwards.
type Init struct {
	Advertise    string // address or interface; empty: the engine decides
	Availability Availability
	AddressPools []netip.Prefix // for overlay networks; empty: 10.0.0.0/8
	DataPathPort uint16         // UDP; 0: 4789
}

// A NodeState is what the swarm's managers think of a node.
type NodeState string

// The states of a node. A node that is silent for three heartbeats, 15
// seconds, is down.
const (
	NodeReady        NodeState = "ready"
	NodeDown         NodeState = "down"
	NodeUnknown      NodeState = "unknown" // a new leader has not heard of it yet
	NodeDisconnected NodeState = "disconnected"
)

// An Availability says whether a node takes tasks.
type Availability string

// The availabilities of a node.
const (
	Active Availability = "active"
	Pause  Availability = "pause" // keeps its tasks, takes no new ones
	Drain  Availability = "drain" // its tasks are moved away
)

// A Spec is what is wanted of a node.
type Spec struct {
	Name         string // an annotation that Docker shows nowhere, kept as it is
	Labels       map[string]string
	Availability Availability
	Role         boot.Role
}

func (s Spec) equal(t Spec) bool {
	return s.Name == t.Name && s.Availability == t.Availability && s.Role == t.Role && maps.Equal(s.Labels, t.Labels)
}

// A Node is a node of the swarm as its managers see it. Times are by the
// swarm's clock.
type Node struct {
	ID       string
	Version  uint64 // goes up with every change
	Hostname string // what the node calls itself; proves nothing
	State    NodeState
	// DownSince is when the node was last changed in any way, if it is down:
	// it has been down at least since then.
	DownSince time.Time
	Created   time.Time // when it joined
	// Seen is when bootd first saw it, which no clock of a leader can change. It
	// is not the engine that says so.
	Seen time.Time
	// RoleSince is when bootd saw its role change; zero: it has not, as long as
	// bootd has seen it.
	RoleSince time.Time
	Addr      string // where the managers see it
	Engine    string // version

	Manager   bool // takes part in the managers' consensus; Role is what it is to be
	Reachable bool // as a manager
	Leader    bool

	Spec
}
