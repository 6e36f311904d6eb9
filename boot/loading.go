package boot

// Loading reports whether, in the boot t, iPXE has its address and nothing that
// comes after it has been heard yet: whoever asks from that address then is the
// loader. Once the initramfs or the system has shown itself it can be any
// program of a running machine, or of a container behind its address.
//
// It can be told only where bootd gives the addresses.
func (t *Timeline) Loading() bool {
	loader := false
	for _, s := range t.Steps {
		switch {
		case s.Client == Initramfs, s.Client == System, Order(s.Stage) >= Order(Up):
			return false
		case s.Stage == Leased && s.Client == IPXE:
			loader = true
		}
	}
	return loader
}
