package boot

// Loading reports whether, in the boot t, the loader has its address and nothing
// that comes after it has been heard yet: whoever asks from that address then is
// the loader. iPXE gets an address of its own; GRUB goes on with that of the
// firmware, and U-Boot is the firmware. Once the initramfs or the system has shown itself it can be any
// program of a running machine, or of a container behind its address.
//
// It can be told only where bootd gives the addresses.
func (t *Timeline) Loading(by Client) bool {
	if by == GRUB {
		by = Firmware
	}
	loader := false
	for _, s := range t.Steps {
		switch {
		case s.Client == Initramfs, s.Client == System, Order(s.Stage) >= Order(Up):
			return false
		case s.Stage == Leased && s.Client == by:
			loader = true
		}
	}
	return loader
}
