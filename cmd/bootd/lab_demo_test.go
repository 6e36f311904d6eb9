package main

import (
	"testing"
	"time"

	"bootd/boot"
)

// TestHangs: a machine hangs when it has its initramfs and that is not heard of
// for minutes, and not when it fetches something, or is further.
func TestHangs(t *testing.T) {
	loaded := drawn("node1", 1, boot.BIOS, leasedAt(0, boot.Leased, boot.IPXE, "10.0.0.11"), after(1, boot.Script, boot.IPXE),
		after(2, boot.Kernel, boot.IPXE), after(3, boot.Initrd, boot.IPXE))
	fetching := drawn("node1", 1, boot.BIOS, leasedAt(0, boot.Leased, boot.IPXE, "10.0.0.11"), after(1, boot.Script, boot.IPXE), after(2, boot.Kernel, boot.IPXE))
	further := drawn("node1", 1, boot.BIOS, leasedAt(0, boot.Leased, boot.IPXE, "10.0.0.11"), after(1, boot.Script, boot.IPXE),
		after(2, boot.Kernel, boot.IPXE), after(3, boot.Initrd, boot.IPXE), leasedAt(5, boot.Leased, boot.Initramfs, "10.0.0.11"))
	for _, tt := range []struct {
		name  string
		boot  boot.Timeline
		after time.Duration
		want  bool
	}{
		{"loaded just now", loaded, time.Minute, false},
		{"loaded long ago", loaded, 3 * time.Minute, true},
		{"still fetching", fetching, time.Hour, false},
		{"further", further, time.Hour, false},
	} {
		if got := hangs(tt.boot, tt.boot.Started.Add(tt.after)); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}
