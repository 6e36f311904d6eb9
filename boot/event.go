package boot

import (
	"net/netip"
	"time"
)

// A Stage is a step on a machine's way from power-on to a working node.
type Stage string

// The stages of a boot, in the order a machine passes them. Which of them a
// boot has depends on its profile: without a swarm it ends at Up.
const (
	Offered  Stage = "offered"  // an address (or, by proxy, a boot file) was offered
	Leased   Stage = "leased"   // the address was acknowledged
	Loader   Stage = "loader"   // iPXE was fetched
	Script   Stage = "script"   // iPXE fetched the machine's script
	Kernel   Stage = "kernel"   // the kernel was fetched
	Initrd   Stage = "initrd"   // the initramfs was fetched
	RootFS   Stage = "rootfs"   // the root file system was fetched
	Ignition Stage = "ignition" // the Ignition config was fetched
	Up       Stage = "up"       // the node reported that its system is up
	Engine   Stage = "engine"   // the node reported that its container engine answers
	Joined   Stage = "joined"   // the node joined the swarm
	Ready    Stage = "ready"    // the swarm shows the node as ready, labels set
)

// Things that happen beside the way.
const (
	Waiting Stage = "waiting" // asked for its script, and has no profile yet
	Refused Stage = "refused" // was denied something; Event.Text says what and why
	Failed  Stage = "failed"  // something broke; Event.Text says what
	Left    Stage = "left"    // the node left the swarm, shutting down
	Removed Stage = "removed" // bootd removed the node from the swarm
	Power   Stage = "power"   // the machine was switched on (known only to who pressed the button)
)

// A Client is the program that asked, as far as its request shows.
type Client string

// The clients that bootd tells apart.
const (
	Firmware  Client = "firmware"  // PXE or HTTP boot ROM
	IPXE      Client = "iPXE"      // iPXE, from ROM or as a loader
	GRUB      Client = "GRUB"      // GRUB, with the address that firmware got
	Initramfs Client = "initramfs" // the operating system's early user space
	System    Client = "system"    // the running operating system
)

// An Event is one thing that happened to one machine. Whoever sees it happen
// fills in what it knows; the recorder finds the machine by its address when
// the MAC is not known.
type Event struct {
	Time   time.Time     `json:"time"`
	MAC    MAC           `json:"mac,omitzero"`
	Boot   string        `json:"boot,omitempty"` // ID of the boot, set by the recorder
	Stage  Stage         `json:"stage"`
	Client Client        `json:"client,omitempty"`
	Addr   netip.Addr    `json:"addr,omitzero"`
	Text   string        `json:"text,omitempty"` // for people: "snponly.efi by TFTP"
	Bytes  int64         `json:"bytes,omitempty"`
	Took   time.Duration `json:"took,omitempty"` // nanoseconds; the transfer ended at Time
	Node   string        `json:"node,omitempty"` // swarm node ID
	// Run names the run of the loader that asked, as it says itself: the same
	// until the machine starts a loader again. Empty: it does not say.
	Run string `json:"run,omitempty"`

	// Inventory is what the request told of the machine, if anything.
	Inventory Inventory `json:"inventory,omitzero"`
}
