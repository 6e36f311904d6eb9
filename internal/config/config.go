package config

import (
	"crypto/sha256"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"bootd/boot"
)

// A Config is a whole configuration, checked.
type Config struct {
	Dir string // where it was read from

	// Catalog says what machines boot. Its Images are empty: which versions
	// are there is known to the asset store.
	Catalog *boot.Catalog

	StateDir   string        // default /var/lib/bootd
	HTTPPort   int           // of what machines fetch; default 80
	TFTPPort   int           // default 69
	TFTPRoot   string        // directory of further files for TFTP; empty: none
	Loaders    string        // directory of iPXE builds that go before the system's; empty: none
	Images     []ImageSource // where images come from, beside the built-in names
	Swarms     []Swarm       // that bootd manages, each with a name of its own
	Socket     string        // of the API; default /run/bootd/bootd.sock
	Metrics    string        // address that Prometheus reads from, as 127.0.0.1:9177; empty: only the socket
	Dashboard  string        // address that browsers reach it at, as 127.0.0.1:8080, port 0: any that is free; empty: only the socket
	Controller *Controller   // Photon Controller's API; nil: off
	LogLevel   slog.Level    // default info
	LogJSON    bool          // default false: text

	sum [sha256.Size]byte // of all that was read
}

// An ImageSource says where an image comes from: a local directory, URLs with
// digests, or a mirror of Fedora's or Flatcar's servers.
type ImageSource struct {
	Name     string
	Family   boot.Family // empty: found in the file names of Path
	CPU      string      // x86_64, aarch64; empty: found in the files, or x86_64
	Version  string      // empty: found or made from the digests
	Path     string      // local directory
	Kernel   *Remote     // instead of Path
	Initrds  []Remote
	RootFS   *Remote
	Mirror   string // base URL, for fedora-coreos/... and flatcar/...
	Insecure bool   // do without signatures
	Origin   boot.Origin
}

// A Remote is a file at a URL, with the digest that it must have.
type Remote struct{ URL, SHA256, Signature string }

// A Swarm is a Docker Swarm that bootd manages.
type Swarm struct {
	Name         string         // default "default"
	Host         string         // Docker engine of a manager; default unix:///var/run/docker.sock
	TLS          *TLS           // for tcp://; nil: none
	SSH          *SSH           // set exactly for ssh://
	Advertise    string         // address or interface that the manager tells others; empty: chosen when bootd starts
	Availability string         // of the manager itself: active (default), pause, drain
	AddressPools []netip.Prefix // for overlay networks; only used when the swarm is created
	DataPathPort int            // VXLAN's UDP port, 1024-49151; 0: Docker's default; only used when the swarm is created

	Managers        int           // how many there should be, an odd number; 0: as the profiles say
	Grace           time.Duration // how long a node may be down before it is removed; default 5 min
	DrainTimeout    time.Duration // how long a node that shuts down waits for its tasks to move; default 1 min
	Rotation        Rotation      // of the join tokens
	RemoveStrangers bool          // remove nodes that bootd did not boot as well, once they are down for longer than Grace
	Networks        []Overlay     // in the order of the file, names differ
	Nodes           map[string]Node
	Origin          boot.Origin
}

// Equal reports whether two swarms are declared alike, wherever that is written.
func (s Swarm) Equal(o Swarm) bool {
	return reflect.DeepEqual(s.placeless(), o.placeless())
}

// placeless is s without what it says of files and lines.
func (s Swarm) placeless() Swarm {
	s.Origin = boot.Origin{}
	s.Networks = slices.Clone(s.Networks)
	for i := range s.Networks {
		s.Networks[i].Origin = boot.Origin{}
	}
	s.Nodes = maps.Clone(s.Nodes)
	for name, n := range s.Nodes {
		n.Origin = boot.Origin{}
		s.Nodes[name] = n
	}
	return s
}

// A TLS says how an engine is proven to be the right one, and bootd to it.
// Paths are absolute, or below [Config.Dir].
type TLS struct {
	CA         string // certificates that the engine's is signed by; empty: the system's
	Cert, Key  string // bootd's own; both or none
	ServerName string // in the engine's certificate; empty: the name in the host
}

// An SSH says how bootd logs in where an engine is. Paths are absolute, or below
// [Config.Dir].
type SSH struct {
	Key        string // private key; empty: what an agent has
	KnownHosts string // the servers' own keys
}

// A Rotation says when join tokens are replaced; the zero value: never.
type Rotation struct {
	AfterJoins bool          // after each wave of joins
	Age        time.Duration // 0: not by age
}

// An Overlay is a network of a swarm that containers use.
type Overlay struct {
	Name       string
	Subnets    []Subnet // none: Docker takes one from the address pools
	Encrypted  bool
	Attachable bool // by containers that belong to no service
	Internal   bool // without a way out
	MTU        int  // 0: Docker's default
	Options    map[string]string
	Labels     map[string]string
	Origin     boot.Origin
}

// A Subnet is one of the subnets of an Overlay.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr   // zero: Docker chooses
	Range   netip.Prefix // where containers get addresses from; zero: all of Prefix
}

// A Node is what is wanted of a node that bootd did not boot, such as the
// manager's own. Swarm.Nodes has them by host name.
type Node struct {
	Labels       map[string]string
	Availability string // empty: left as it is
	Origin       boot.Origin
}

// SwarmOf finds the swarm that a machine is to join.
func (c *Config) SwarmOf(m *boot.Member) (Swarm, bool) {
	for _, s := range c.Swarms {
		if m != nil && (s.Name == m.Swarm || m.Swarm == "" && len(c.Swarms) == 1) {
			return s, true
		}
	}
	return Swarm{}, false
}
