package esx_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bootd/internal/esx/esxtest"
	"bootd/internal/fleet"
)

// TestPowerIsReal has a machine of QEMU behind a VM: what the guest sees is what
// was asked for, and what becomes of the machine the host tells.
func TestPowerIsReal(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a machine")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("there is no qemu-system-x86_64")
	}
	t.Parallel()
	q := &esxtest.QEMU{Dir: t.TempDir(), Memory: 64}
	t.Cleanup(q.Close)
	s := simulate(t, esxtest.Options{Backend: q})
	h := connect(t, s)
	w := watch(t, h)
	b := build()
	b.Image, b.Disks, b.BootDisk = nil, nil, 0
	must(t, h.CreateVM(t.Context(), b))
	must(t, h.Power(t.Context(), theVM, fleet.StartVM))
	ref := refOf(t, s)
	pid := q.PID(ref)
	if pid == 0 {
		t.Fatal("no machine runs")
	}
	// The ROM of the network card tells its address.
	console := q.Console("worker-1 " + string(theVM)[:8])
	text := ""
	for range 400 {
		out, err := os.ReadFile(console)
		must(t, err)
		if text = string(out); strings.Contains(text, theMAC.String()) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !strings.Contains(text, theMAC.String()) {
		t.Errorf("the machine does not have the address %s: %q", theMAC, text)
	}
	w.until(t, "that it runs", func() bool { return w.vms[theVM].State == fleet.VMStarted })
	must(t, h.Power(t.Context(), theVM, fleet.RestartVM))
	if again := q.PID(ref); again == 0 || again == pid {
		t.Errorf("after a restart process %d runs, before it was %d", again, pid)
	}
	p, err := os.FindProcess(q.PID(ref))
	must(t, err)
	must(t, p.Kill())
	w.until(t, "that it has ended", func() bool { return w.vms[theVM].State == fleet.VMStopped })
	must(t, h.Power(t.Context(), theVM, fleet.StartVM))
	must(t, h.DeleteVM(t.Context(), theVM))
	if q.PID(ref) != 0 {
		t.Error("a machine runs on whose VM is deleted")
	}
}
