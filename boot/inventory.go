package boot

import "net/netip"

// An Inventory is what a machine has told of itself so far. DHCP fills in
// MAC, UUID and Arch; iPXE adds what SMBIOS says. Empty fields are unknown.
type Inventory struct {
	MAC          MAC        `json:"mac,omitzero"`
	UUID         string     `json:"uuid,omitempty"` // SMBIOS, lower case: 77000000-0000-4000-8000-525400770010
	Serial       string     `json:"serial,omitempty"`
	Manufacturer string     `json:"manufacturer,omitempty"`
	Product      string     `json:"product,omitempty"`
	Asset        string     `json:"asset,omitempty"`
	Arch         Arch       `json:"arch"`
	ArchKnown    bool       `json:"arch_known,omitempty"` // Arch was told (0 is a real architecture)
	CPU          string     `json:"cpu,omitempty"`        // x86_64, aarch64: as iPXE found it
	MemoryMB     int        `json:"memory_mb,omitempty"`
	Addr         netip.Addr `json:"addr,omitzero"` // the address it uses now
}

// Merge returns inv with every known field of newer laid over it.
func (inv Inventory) Merge(newer Inventory) Inventory {
	set := func(dst *string, s string) {
		if s != "" {
			*dst = s
		}
	}
	if !newer.MAC.IsZero() {
		inv.MAC = newer.MAC
	}
	set(&inv.UUID, newer.UUID)
	set(&inv.Serial, newer.Serial)
	set(&inv.Manufacturer, newer.Manufacturer)
	set(&inv.Product, newer.Product)
	set(&inv.Asset, newer.Asset)
	set(&inv.CPU, newer.CPU)
	if newer.ArchKnown {
		inv.Arch, inv.ArchKnown = newer.Arch, true
	}
	if newer.MemoryMB != 0 {
		inv.MemoryMB = newer.MemoryMB
	}
	if newer.Addr.IsValid() {
		inv.Addr = newer.Addr
	}
	return inv
}
