package fleet

import (
	"net/netip"
	"time"

	"bootd/boot"
)

// HostFacts are what a host says of itself. Sizes are in bytes.
type HostFacts struct {
	UUID        string           `json:"uuid,omitempty"` // of the hardware; who a host is, whatever its address
	Name        string           `json:"name,omitempty"`
	Vendor      string           `json:"vendor,omitempty"`
	Model       string           `json:"model,omitempty"`
	Version     string           `json:"version,omitempty"` // of ESXi: "8.0.3"
	Build       string           `json:"build,omitempty"`
	Cores       int              `json:"cores,omitempty"`
	Threads     int              `json:"threads,omitempty"`
	MHz         int              `json:"mhz,omitempty"` // of a core
	Memory      int64            `json:"memory,omitempty"`
	CPUUsedMHz  int              `json:"cpuUsedMHz,omitempty"`
	MemoryUsed  int64            `json:"memoryUsed,omitempty"`
	Booted      time.Time        `json:"booted,omitzero"`
	Maintenance bool             `json:"maintenance,omitzero"`
	NestedHV    bool             `json:"nestedHV,omitzero"`   // VMs may be hypervisors
	ReadOnly    bool             `json:"readOnly,omitzero"`   // its license forbids changes through the API
	License     string           `json:"license,omitempty"`   // its name
	ManagedBy   string           `json:"managedBy,omitempty"` // address of the vCenter that owns it: leave it alone
	Datastores  []DatastoreFacts `json:"datastores,omitempty"`
	PortGroups  []PortGroup      `json:"portGroups,omitempty"`
	Ports       []Port           `json:"ports,omitempty"`
}

// DatastoreFacts are what a host says of a datastore.
type DatastoreFacts struct {
	ID         DatastoreID   `json:"id"`
	Name       string        `json:"name"` // on this host
	Type       DatastoreType `json:"type"`
	URL        string        `json:"url"`
	Capacity   int64         `json:"capacity"`
	Free       int64         `json:"free"`
	Accessible bool          `json:"accessible,omitzero"`
	ReadOnly   bool          `json:"readOnly,omitzero"`
}

// A PortGroup of a standard switch is what NICs of VMs are connected to.
type PortGroup struct {
	Name            string `json:"name"`
	Switch          string `json:"switch"`
	VLAN            int    `json:"vlan,omitempty"` // 4095: all
	Promiscuous     bool   `json:"promiscuous,omitzero"`
	MACChanges      bool   `json:"macChanges,omitzero"`
	ForgedTransmits bool   `json:"forgedTransmits,omitzero"`
}

// A Port is a network card of the host itself.
type Port struct {
	Name string   `json:"name"` // vmnic0
	MAC  boot.MAC `json:"mac"`
	Mbps int      `json:"mbps,omitempty"` // 0: no link
}

// A Build is how a host makes a VM.
type Build struct {
	VM        VMID
	Name      string // for people who look at the host
	Notes     string
	CPUs      int
	Memory    int64       // bytes; a multiple of 4 MB
	Datastore string      // its files are here, by the name on the host
	Image     *ImageCopy  // its boot disk is a copy of this; nil: it has none
	BootDisk  int64       // grow the copy to so many bytes; less than it has: leave it
	Disks     []BuildDisk // made empty, and deleted with the VM
	NICs      []NIC       // without MAC: the host chooses
	// GuestInfo are keys of the VM's configuration, such as
	// "guestinfo.ignition.config.data". A value should have at most 60 KiB:
	// compress it (".encoding": "gzip+base64"), or point to a URL.
	GuestInfo    map[string]string
	Firmware     VMFirmware // empty: BIOS
	NetworkFirst bool       // it boots from the network even when its disk can be booted
	NestedHV     bool       // it may be a hypervisor itself
	Controller   string     // of its disks, as an image says: "lsilogic"; empty: pvscsi
	Guest        string     // vSphere's guest ID; empty: other Linux, 64 bits
}

// An ImageCopy is an image on a datastore, by the name on the host.
type ImageCopy struct {
	ID        ImageID
	Datastore string
}

// A BuildDisk is a disk that is made with its VM.
type BuildDisk struct {
	ID       DiskID
	Capacity int64 // bytes
}

// A VMFirmware is how a VM starts.
type VMFirmware string

// The kinds of firmware.
const (
	BIOS VMFirmware = "bios"
	EFI  VMFirmware = "efi"
)

// VMStatus is what a host says of a VM that bootd made.
type VMStatus struct {
	VM     VMID
	State  VMState // VMStarted, VMStopped, VMSuspended; VMError: the host cannot read its files
	Tools  bool    // VMware Tools run in it
	NICs   []NICStatus
	Disks  []DiskID // that are attached, the persistent ones too
	ISO    string   // the path of what is in its drive; empty: nothing
	CPUs   int
	Memory int64 // bytes
}

// NICStatus is what a host says of a NIC. Addresses are known only where
// VMware Tools, or guestinfo, tell them.
type NICStatus struct {
	PortGroup string
	MAC       boot.MAC
	Connected bool
	Addrs     []netip.Prefix
}

// An Update is what changed on a host.
type Update struct {
	// Snapshot says that VMs are all there are: what is not among them is gone.
	// It is so at the beginning and after the host was out of reach.
	Snapshot bool
	VMs      []VMStatus
	Gone     []VMID
	// Facts are set when something of them has changed, and in a snapshot.
	Facts *HostFacts
	// Lost is set, alone, when the host stopped to answer. The next update is
	// a snapshot.
	Lost *Fault
}

// A ConsoleTicket opens a VM's screen once, for a VMware Remote Console.
type ConsoleTicket struct {
	Ticket        string
	Host          string // empty: the address of the host
	Port          int
	ConfigFile    string // the VM's, on the host
	SSLThumbprint string
}
