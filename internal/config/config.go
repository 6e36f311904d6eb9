package config

import (
	"crypto/sha256"
	"log/slog"
	"net/netip"

	"bootd/boot"
)

// A Config is a whole configuration, checked.
type Config struct {
	Dir string // where it was read from

	// Catalog says what machines boot. Its Images are empty: which versions
	// are there is known to the asset store.
	Catalog *boot.Catalog

	StateDir string        // default /var/lib/bootd
	HTTPPort int           // of what machines fetch; default 80
	TFTPPort int           // default 69
	TFTPRoot string        // directory of further files for TFTP; empty: none
	Loaders  string        // directory of iPXE builds that go before the system's; empty: none
	Images   []ImageSource // where images come from, beside the built-in names
	Swarm    *Swarm        // nil: bootd manages no swarm
	Socket   string        // of the API; default /run/bootd/bootd.sock
	Metrics  string        // address that Prometheus reads from, as 127.0.0.1:9177; empty: only the socket
	LogLevel slog.Level    // default info
	LogJSON  bool          // default false: text

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

// A Swarm is the Docker Swarm that bootd manages.
type Swarm struct {
	Name         string         // default "default"
	Host         string         // Docker engine of a manager; default unix:///var/run/docker.sock
	Advertise    string         // address or interface that the manager tells others; empty: bootd's address on its first network
	Availability string         // of the manager itself: active (default), pause, drain
	AddressPools []netip.Prefix // for overlay networks; only used when the swarm is created
	DataPathPort int            // VXLAN's UDP port, 1024-49151; 0: Docker's default; only used when the swarm is created
	Origin       boot.Origin
}
