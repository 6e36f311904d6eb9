package timeline_test

import (
	"net/netip"
	"testing"

	"bootd/boot"
	"bootd/internal/timeline"
)

func TestForget(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	r := recorder(t, s)
	addr := netip.MustParseAddr("10.0.0.11")
	known, other := boot.MAC{2, 0, 0, 0, 0, 1}, boot.MAC{2, 0, 0, 0, 0, 2}
	for _, mac := range []boot.MAC{known, other} {
		r.Assigned(mac, "node", "worker", boot.Ready)
		commit(t, r, at(1, mac, boot.Leased, boot.Firmware, addr))
	}
	check := func(r *timeline.Recorder) {
		t.Helper()
		if _, ok := r.Current(known); ok {
			t.Error("its boot is remembered")
		}
		if _, ok := r.Current(other); !ok {
			t.Error("another machine is forgotten too")
		}
		if machines, boots := stored(t, s); len(machines) != 1 || len(boots) != 1 {
			t.Errorf("stored: machines %v, boots %v", machines, boots)
		}
	}
	for range 2 { // what is not known is forgotten already
		if err := r.Forget(t.Context(), known); err != nil {
			t.Fatal(err)
		}
		check(r)
	}
	check(recorder(t, s))
	commit(t, r, at(2, known, boot.Offered, boot.Firmware, addr))
	if now, _ := r.Current(known); now.Name != "" || len(now.Steps) != 1 {
		t.Errorf("it is no stranger when it comes again: %+v", now)
	}
}
