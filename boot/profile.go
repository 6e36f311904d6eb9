package boot

// A Profile says what a machine boots and what it becomes. A profile that
// extends another is merged with it when the configuration is loaded, so what
// is held here is always the whole.
type Profile struct {
	Name    string
	Image   string   // name of an image; empty: boot from the local disk
	Loader  string   // for UEFI: the iPXE builds snponly and ipxe, or [GRUBLoader]; empty: the default
	Console []string // console= arguments, in order: ttyS0,115200n8
	Args    []string // further kernel arguments

	// Delivery is how the Ignition config reaches the machine.
	Delivery Delivery

	SSHKeys []string   // for the user core
	Files   []File     // by path, each path once
	Units   []Unit     // by name, each name once
	Butane  []Fragment // merged in this order, later ones win
	Swarm   *Member    // nil: the machine joins no swarm
	Host    *Host      // how ESXi is installed, for images of that family; nil: with all defaults
	Power   *BMC       // how it is switched on and off; nil: by hand

	// Origins says where each value was written, keyed by its place:
	// "image", "console", "args.0", "ssh_keys.1", "files./etc/motd",
	// "units.hello.service", "butane.0", "swarm.role", "swarm.labels.tier".
	Origins map[string]Origin
}

// A Delivery is a way to hand an Ignition config to a machine.
type Delivery string

// The ways of delivery.
const (
	ByURL    Delivery = "url"    // ignition.config.url on the kernel's command line; the default
	ByInitrd Delivery = "initrd" // a cpio archive after the initramfs, for machines that cannot fetch
)

// A File is written to the node. Exactly one of Contents and Source is set.
type File struct {
	Path     string `json:"path"`
	Contents string `json:"contents,omitempty"` // the text itself
	Source   string `json:"source,omitempty"`   // a URL
	SHA256   string `json:"sha256,omitempty"`   // of what Source gives
	Mode     int    `json:"mode,omitempty"`     // permission bits; 0 means 0644
	User     string `json:"user,omitempty"`
	Group    string `json:"group,omitempty"`
}

// A Unit is a systemd unit on the node.
type Unit struct {
	Name     string            `json:"name"`
	Enabled  *bool             `json:"enabled,omitempty"`
	Mask     bool              `json:"mask,omitempty"`
	Contents string            `json:"contents,omitempty"`
	DropIns  map[string]string `json:"dropins,omitempty"` // file name to text
}

// A Fragment is a piece of Butane that somebody wrote into a profile.
type Fragment struct {
	Text string // the Butane document
	// Origin is where Text begins: Line is the file's line that holds the
	// first line of Text, Column the column of its first character, so that
	// a mistake inside can be shown where it was written.
	Origin Origin
}

// A Member is a machine's place in a Docker Swarm.
type Member struct {
	Swarm        string            // which swarm; empty: the only one
	Role         Role              // worker when empty
	Labels       map[string]string // node labels
	Availability string            // active (when empty), pause or drain
}

// A Role is a node's role in a swarm.
type Role string

// The roles of a node.
const (
	Worker  Role = "worker"
	Manager Role = "manager"
)
