package esx_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bootd/internal/esx/esxtest"
	"bootd/internal/esx/vmdk"
	"bootd/internal/fleet"
)

// machines returns a backend that starts machines, where that can be done.
func machines(t *testing.T) *esxtest.QEMU {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts a machine")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("there is no qemu-system-x86_64")
	}
	q := &esxtest.QEMU{Dir: t.TempDir(), Memory: 64}
	t.Cleanup(q.Close)
	return q
}

// says waits until a VM has written something to its serial port.
func says(t *testing.T, q *esxtest.QEMU, want string) {
	t.Helper()
	text := ""
	for range 2400 {
		out, err := os.ReadFile(q.Console("worker-1 " + string(theVM)[:8]))
		must(t, err)
		if text = string(out); strings.Contains(text, want) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("the machine does not say %q, but %q", want, text)
}

// TestImageBoots uploads an image and starts a VM with a disk made of it.
func TestImageBoots(t *testing.T) {
	q := machines(t)
	t.Parallel()
	raw := make([]byte, 1<<20)
	copy(raw, []byte{
		0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
		0xbe, 0x40, 0x7c, 0xba, 0xf8, 0x03, // mov si, 0x7c40; mov dx, 0x3f8
		0xac, 0x84, 0xc0, 0x74, 0x03, // next: lodsb; test al, al; jz end
		0xee, 0xeb, 0xf8, // out dx, al; jmp next
		0xf4, 0xeb, 0xfd, // end: hlt; jmp end
	})
	copy(raw[0x40:], "booted from an image\n")
	raw[510], raw[511] = 0x55, 0xaa
	var packed bytes.Buffer
	must(t, vmdk.WriteStream(&packed, bytes.NewReader(raw), int64(len(raw)), "lsilogic"))
	d, err := vmdk.Open(bytes.NewReader(packed.Bytes()), int64(packed.Len()))
	must(t, err)
	h := connect(t, simulate(t, esxtest.Options{Backend: q}))
	must(t, h.UploadImage(t.Context(), ds, theImage, d, nil))
	b := build()
	b.NetworkFirst = false
	must(t, h.CreateVM(t.Context(), b))
	must(t, h.Power(t.Context(), theVM, fleet.StartVM))
	says(t, q, "booted from an image")
	must(t, h.DeleteVM(t.Context(), theVM))
}

// TestPowerIsReal has a machine of QEMU behind a VM: what the guest sees is what
// was asked for, and what becomes of the machine the host tells.
func TestPowerIsReal(t *testing.T) {
	q := machines(t)
	t.Parallel()
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
	says(t, q, theMAC.String()) // the ROM of the network card does
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
