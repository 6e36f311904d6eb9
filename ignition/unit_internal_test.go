package ignition

import (
	"strings"
	"testing"
	"time"
)

// A node waits for bootd as long as bootd may take, and systemd as long as both.
func TestLeaveTimeout(t *testing.T) {
	for leave, want := range map[time.Duration][]string{
		0:                {"BOOTD_LEAVE_SECONDS=75\n", "TimeoutStopSec=90\n"},
		10 * time.Minute: {"BOOTD_LEAVE_SECONDS=615\n", "TimeoutStopSec=630\n"},
	} {
		unit := Join{Leave: leave}.unit()
		for _, w := range want {
			if !strings.Contains(unit, w) {
				t.Errorf("%s: no %q in\n%s", leave, w, unit)
			}
		}
	}
}
