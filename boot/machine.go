package boot

import "net/netip"

// A Machine is a rule that names one machine, or a pattern that names many.
type Machine struct {
	// Name is the host name, or a template of one over the inventory (see
	// [ParseName]): blade-{{.serial}}.
	Name    string
	Match   Selector
	Profile string // name of a profile
	// IP is the address that is kept for the machine; invalid: it gets one from
	// the range. With an entry by UUID or serial the machine gets it once it has
	// told those; with one by MAC, from its first packet on.
	IP netip.Addr
	// Options are further DHCP options, by code, each once. They come before
	// those of its network.
	Options []Option
	// Override holds the profile keys that the machine's own entry sets.
	Override Profile
	Origin   Origin            // of the entry
	Origins  map[string]Origin // of its keys: "name", "match.serial", "profile", "ip"
}

// A Selector says which machines a rule is for. Every field that is set must
// match. Serial, Manufacturer, Product and Asset are patterns in which *
// stands for any text and ? for one character; case does not matter.
type Selector struct {
	MAC          []MAC // any of them
	UUID         string
	Serial       string
	Manufacturer string
	Product      string
	Asset        string
	Subnet       netip.Prefix
	Arch         string // bios, uefi, x86_64, aarch64
}
