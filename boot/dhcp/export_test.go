package dhcp

import "bootd/boot"

// Overheard is overheard.
func Overheard(frame []byte, own boot.MAC) (Another, bool) { return overheard(frame, own) }
