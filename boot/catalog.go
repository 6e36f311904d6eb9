package boot

// A Catalog is everything that decides what machines boot. It is immutable:
// whoever changes something builds a new one and swaps it.
type Catalog struct {
	Networks []Network
	Profiles map[string]*Profile
	Machines []*Machine // in the order they were written
	Images   map[string]Image

	// Unknown is the profile of machines that no entry matches. When it is
	// empty they wait, and boot as soon as an entry for them is written.
	Unknown string
}

// An Assignment is what one machine gets.
type Assignment struct {
	Inventory Inventory
	Machine   *Machine // nil: no entry matches
	Name      string   // host name; for a machine without an entry, from its MAC
	Profile   *Profile // effective, with the machine's own keys merged in; nil: none, the machine waits
	Network   *Network // by Inventory.Addr; nil: not known
}
