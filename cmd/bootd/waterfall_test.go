package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
)

// power is when the machines of these tests are switched on.
var power = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// drawn makes a boot of events, each so many seconds after power.
func drawn(name string, last byte, arch boot.Arch, events ...boot.Event) boot.Timeline {
	t := boot.Timeline{MAC: boot.MAC{0x52, 0x54, 0, 0, 0, last}, Name: name, Expect: boot.Ready}
	for _, e := range events {
		if e.Client == boot.Firmware {
			e.Inventory = boot.Inventory{Arch: arch, ArchKnown: true}
		}
		t.Apply(e)
	}
	return t
}

func after(seconds float64, s boot.Stage, c boot.Client) boot.Event {
	return boot.Event{Time: power.Add(time.Duration(seconds * float64(time.Second))), Stage: s, Client: c}
}

func transfer(seconds, took float64, s boot.Stage, c boot.Client, bytes int64) boot.Event {
	e := after(seconds, s, c)
	e.Took, e.Bytes = time.Duration(took*float64(time.Second)), bytes
	return e
}

// leased adds the address that bootd gave.
func leasedAt(seconds float64, s boot.Stage, c boot.Client, addr string) boot.Event {
	e := after(seconds, s, c)
	if err := e.Addr.UnmarshalText([]byte(addr)); err != nil {
		panic(err)
	}
	return e
}

func bios() boot.Timeline {
	return drawn("node1", 1, boot.Arch(0),
		after(0, boot.Power, ""),
		leasedAt(3, boot.Offered, boot.Firmware, "10.0.0.11"), leasedAt(4, boot.Leased, boot.Firmware, "10.0.0.11"),
		transfer(6, 1, boot.Loader, boot.Firmware, 70_000),
		leasedAt(8, boot.Offered, boot.IPXE, "10.0.0.11"), leasedAt(8.5, boot.Leased, boot.IPXE, "10.0.0.11"),
		after(9, boot.Script, boot.IPXE),
		transfer(11, 2, boot.Kernel, boot.IPXE, 16<<20), transfer(16, 5, boot.Initrd, boot.IPXE, 90<<20),
		transfer(40, 12, boot.RootFS, boot.Initramfs, 700<<20), after(42, boot.Ignition, boot.Initramfs),
		after(58, boot.Up, boot.System), after(63, boot.Engine, boot.System), after(66, boot.Joined, boot.System), after(67, boot.Ready, ""))
}

func uefi() boot.Timeline {
	return drawn("blade-cz3000x1", 2, boot.Arch(7),
		after(1, boot.Power, ""),
		leasedAt(20, boot.Offered, boot.Firmware, "10.0.0.12"), leasedAt(24, boot.Leased, boot.Firmware, "10.0.0.12"),
		transfer(26, 1, boot.Loader, boot.Firmware, 250_000),
		leasedAt(28, boot.Offered, boot.IPXE, "10.0.0.12"), leasedAt(28.5, boot.Leased, boot.IPXE, "10.0.0.12"),
		after(29, boot.Script, boot.IPXE),
		transfer(30, 1, boot.Kernel, boot.IPXE, 16<<20), transfer(33, 3, boot.Initrd, boot.IPXE, 90<<20),
		transfer(50, 9, boot.RootFS, boot.Initramfs, 700<<20), after(51, boot.Ignition, boot.Initramfs),
		after(64, boot.Up, boot.System), after(69, boot.Engine, boot.System), after(71.5, boot.Joined, boot.System), after(72, boot.Ready, ""))
}

// cut is what of a boot has happened so many seconds after power.
func cut(t boot.Timeline, seconds float64) boot.Timeline {
	t.Steps = slices.DeleteFunc(t.Steps, func(s boot.Step) bool {
		return s.First.After(power.Add(time.Duration(seconds * float64(time.Second))))
	})
	return t
}

// stuck has fetched its loader and is silent since.
func stuck() boot.Timeline {
	return drawn("", 3, boot.Arch(7),
		leasedAt(18, boot.Offered, boot.Firmware, "10.0.0.13"), leasedAt(22, boot.Leased, boot.Firmware, "10.0.0.13"),
		transfer(24, 1, boot.Loader, boot.Firmware, 250_000))
}

func TestWaterfall(t *testing.T) {
	tests := []struct {
		name  string
		w     waterfall
		boots []boot.Timeline
		now   float64 // seconds after power
	}{
		{"done", waterfall{width: 100}, []boot.Timeline{bios(), uefi()}, 600},
		{"under-way", waterfall{width: 100}, []boot.Timeline{cut(bios(), 30), cut(uefi(), 30)}, 30},
		{"waits", waterfall{width: 100}, []boot.Timeline{uefi(), stuck()}, 90},
		{"just-begun", waterfall{width: 100}, []boot.Timeline{drawn("node1", 1, boot.Arch(0), after(0, boot.Power, ""))}, 0},
		{"narrow", waterfall{width: 40}, []boot.Timeline{bios(), uefi()}, 600},
		{"colour", waterfall{width: 80, colour: true}, []boot.Timeline{bios()}, 600},
		{"wrapped", waterfall{width: 60}, []boot.Timeline{uefi(), stuck()}, 90},
		{"none", waterfall{width: 80}, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lines := tt.w.lines(tt.boots, power.Add(time.Duration(tt.now*float64(time.Second))))
			got := strings.Join(lines, "\n") + "\n"
			golden := filepath.Join("testdata", "waterfall", tt.name+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("picture (-want +got):\n%s", d)
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(colouring.ReplaceAllString(l, "")); n > tt.w.width {
					t.Errorf("a line of %d columns on a terminal of %d: %s", n, tt.w.width, l)
				}
			}
		})
	}
}
