package swarm

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bootd/boot"
)

// DefaultHost is where the local engine listens.
const DefaultHost = "unix:///var/run/docker.sock"

// DefaultGrace is how long a node may be down before it is removed. A node
// that has been removed cannot come back without booting again, so it is
// longer than a switch takes to restart.
const DefaultGrace = 5 * time.Minute

// Config is what a [Swarm] is to be.
type Config struct {
	Name string // among several; for logs
	// Host is where the manager's engine is: unix:///path, tcp://address:port or
	// ssh://user@address; empty: DefaultHost.
	Host string
	TLS  *TLS // for tcp://; nil: none
	SSH  *SSH // for ssh://

	// Init is how the swarm is made if the engine is in none. Its
	// availability, unless empty, is also kept later.
	Init  Init
	Grace time.Duration // see [Policy]; 0: DefaultGrace; not used with Settings
	// Settings tells what can change while the swarm is kept, as of now. Nil:
	// Grace and Init say it.
	Settings func() Settings

	// Memory remembers which swarm is kept. Nil: nobody does, and whichever swarm
	// the engine manages is kept.
	Memory Memory

	// Machines lists the machines that are to be in this swarm, as of now.
	// Called often, also concurrently; its result is not changed.
	Machines func() []Machine
	// Networks lists the overlay networks that are to be there, as of now. Those
	// that bootd made and that are not listed any more are removed. It reports
	// false when that is not known, because this swarm itself is not declared
	// any more: networks are left alone then, as they are if Networks is nil.
	// Like Machines in other respects.
	Networks func() ([]Network, bool)
	// Record is told when a machine's node becomes ready and when one is
	// removed. Called by Run, one call after the other. An event of a removal
	// is lost if the process is killed between the removal and the call; one
	// of readiness is told again by the next process, until Machine.Ready
	// shows that it has arrived.
	Record func(boot.Event)
	Log    *slog.Logger
}

// Settings are what can change while a swarm is kept.
type Settings struct {
	Grace        time.Duration // see [Policy]; 0: DefaultGrace
	DrainTimeout time.Duration // 0: DefaultDrainTimeout
	// Availability of the engine's own node; empty: as it is.
	Availability Availability
	// RemoveStrangers has nodes that bootd did not boot removed as well, once
	// they are down for longer than Grace.
	RemoveStrangers bool
	// Nodes is what is wanted of nodes that bootd did not boot, by host name.
	Nodes map[string]Wish
	// Managers is how many there should be; 0: as the machines say.
	Managers int
	Rotation Rotation // of the join tokens
}

// A Wish is what is wanted of a node that bootd did not boot.
type Wish struct {
	Labels       map[string]string
	Availability Availability // empty: as it is
}

// ErrNotReady is in the error of [Swarm.Join] and [Swarm.Nodes] while there is
// no swarm to speak of: asking again later may help.
var ErrNotReady = errors.New("the swarm is not ready")

// JoinInfo is what a machine needs to join.
type JoinInfo struct {
	Addr  string `json:"addr"`  // of a manager: 10.0.0.1:2377
	Token string `json:"token"` // a secret
}

// String leaves out the token, so that it gets into no log by mistake.
func (j JoinInfo) String() string { return j.Addr }

// A Phase is how far a [Swarm] is.
type Phase string

// The phases of a Swarm.
const (
	Waiting Phase = "waiting" // for something that Status.Text names
	Lost    Phase = "lost"    // another swarm is there, or none; Status.Text says what helps
	Ready   Phase = "ready"
)

// Status is how a [Swarm] is at the moment.
type Status struct {
	Name    string    `json:"name,omitempty"`
	Host    string    `json:"host"`
	Phase   Phase     `json:"phase"`
	Text    string    `json:"text,omitempty"` // what is wrong and what helps; empty when all is well
	Since   time.Time `json:"since"`          // of Phase and Text
	Swarm   string    `json:"swarm,omitempty"`
	Node    string    `json:"node,omitempty"` // the engine's own
	Addr    string    `json:"addr,omitempty"` // where machines join
	Engine  string    `json:"engine,omitempty"`
	Notices []string  `json:"notices,omitempty"` // nodes that are left as they are, and why
}

// A verdict says what to do about an engine: make a swarm, go on (phase is
// Ready), or wait for what text says.
type verdict struct {
	makeSwarm bool
	phase     Phase
	text      string
}

// judge says what to do about an engine. kept is the swarm that it managed when
// it was last seen to; empty: none. denies is for how long it has been saying
// that it is in no swarm.
func judge(i Info, host, kept string, denies time.Duration) verdict {
	wait := func(format string, args ...any) verdict {
		return verdict{phase: Waiting, text: fmt.Sprintf(format, args...)}
	}
	lost := func(format string, args ...any) verdict {
		return verdict{phase: Lost, text: fmt.Sprintf(format, args...)}
	}
	switch {
	case i.State == Inactive && kept == "":
		return verdict{makeSwarm: true, phase: Waiting}
	case i.State == Inactive && denies < denial:
		return wait("the engine at %s says that it is in no swarm: it is stopping or starting, or swarm %s is lost", host, kept)
	case i.State == Inactive:
		return lost("swarm %s is lost: the engine at %s, which managed it, is in no swarm any more. "+
			"If another of its managers is there, name that one's engine in swarm.host, or have this one join it (docker swarm join). "+
			"Otherwise its services, networks and secrets are gone: bootd swarm replace makes a new one", kept, host)
	case i.State == Pending:
		return wait("the engine at %s is still starting its part of the swarm", host)
	case i.State == Locked:
		return wait("the swarm's data on the engine at %s is locked: unlock it (docker swarm unlock)", host)
	case i.State == Error:
		return wait("the engine at %s cannot take part in its swarm: %s: "+
			"repair it, or give the swarm up (docker swarm leave --force, then bootd swarm replace)", host, i.Error)
	case i.State != Member:
		return wait("the engine at %s says that its swarm is %q, which is not known here", host, i.State)
	case !i.Manager:
		return wait("the engine at %s is a worker of another swarm: "+
			"name a manager of that swarm in swarm.host, promote this node there (docker node promote), "+
			"or take it out (docker swarm leave)", host)
	case kept != "" && i.Swarm != "" && i.Swarm != kept:
		return lost("the engine at %s manages swarm %s, and not %s any more, which was kept until now. "+
			"If that one's managers are there, name one's engine in swarm.host; to keep this one from now on: bootd swarm replace", host, i.Swarm, kept)
	}
	return verdict{phase: Ready}
}

// explain says what an engine's error means and what helps.
func explain(err error, host string) string {
	text := fmt.Sprintf("the engine at %s does not answer as it should: %s", host, err)
	says := func(s string) bool { return strings.Contains(strings.ToLower(err.Error()), s) }
	path, local := strings.CutPrefix(host, "unix://")
	var access *accessError
	switch {
	case errors.As(err, &access):
		return fmt.Sprintf("cannot reach the engine at %s: %s", host, access)
	case refusedTLS(err):
		return ownCertificate(host)
	case says("http request to an https server"):
		return fmt.Sprintf("the engine at %s speaks TLS only: set tls.ca, tls.cert and tls.key", host)
	case errors.Is(err, ErrNoLeader):
		return fmt.Sprintf("%s: start them again, or make this one the only one (docker swarm init --force-new-cluster)", err)
	case says("permission denied"):
		return fmt.Sprintf("bootd may not open %s: add its user to the group that owns the socket (usually docker)", path)
	case local && (says("no such file") || says("cannot connect") || says("refused")):
		return fmt.Sprintf("no Docker engine at %s: install it (docker.io) or start it (systemctl start docker)", host)
	case says("cannot connect") || says("refused") || says("deadline") || says("timeout"):
		return text + ": is it running, and does it listen there?"
	case says("advertise"):
		return fmt.Sprintf("cannot make a swarm on the engine at %s: %s: set swarm.advertise to the address that machines reach it at", host, err)
	}
	return text
}

// fixed lists what differs between configuration and swarm and cannot be
// changed while the swarm exists.
func fixed(want Init, have Info) []string {
	var out []string
	differ := func(key, want, have string) {
		out = append(out, fmt.Sprintf("%s is %s in the configuration and %s in the swarm; it is set when a swarm is made and cannot be changed", key, want, have))
	}
	if a, err := netip.ParseAddr(want.Advertise); err == nil {
		if have, err := netip.ParseAddrPort(have.Addr); err == nil && have.Addr() != a {
			differ("swarm.advertise", a.String(), have.Addr().String())
		}
	}
	if want.DataPathPort != 0 && have.DataPathPort != 0 && want.DataPathPort != have.DataPathPort {
		differ("swarm.data_path_port", fmt.Sprint(want.DataPathPort), fmt.Sprint(have.DataPathPort))
	}
	if len(want.AddressPools) > 0 && len(have.AddressPools) > 0 && !slices.Equal(want.AddressPools, have.AddressPools) {
		differ("swarm.address_pools", fmt.Sprint(want.AddressPools), fmt.Sprint(have.AddressPools))
	}
	return out
}
