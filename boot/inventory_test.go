package boot_test

import (
	"net/netip"
	"reflect"
	"testing"

	"bootd/boot"
)

// TestInventoryMerge sets each field in turn: what is newly told replaces what
// was known, and what is not told takes nothing away.
func TestInventoryMerge(t *testing.T) {
	known := boot.Inventory{
		MAC: boot.MAC{2, 0, 0, 0, 0, 1}, UUID: "u", Serial: "s", Manufacturer: "m", Product: "p", Asset: "a",
		Arch: boot.EFIX64, ArchKnown: true, CPU: "x86_64", MemoryMB: 1024, Addr: netip.MustParseAddr("10.0.0.1"),
	}
	if got := known.Merge(boot.Inventory{}); got != known {
		t.Errorf("nothing was told, and it became %+v", got)
	}
	if got := (boot.Inventory{}).Merge(known); got != known {
		t.Errorf("everything was told, and it became %+v", got)
	}
	other := reflect.ValueOf(boot.Inventory{
		MAC: boot.MAC{2, 0, 0, 0, 0, 2}, UUID: "U", Serial: "S", Manufacturer: "M", Product: "P", Asset: "A",
		Arch: boot.BIOS, ArchKnown: true, CPU: "aarch64", MemoryMB: 2048, Addr: netip.MustParseAddr("10.0.0.2"),
	})
	for i := range other.NumField() {
		name := other.Type().Field(i).Name
		told, want := boot.Inventory{}, known
		reflect.ValueOf(&told).Elem().Field(i).Set(other.Field(i))
		switch name {
		case "Arch": // of no meaning without ArchKnown
		case "ArchKnown": // and BIOS, which is 0, is an architecture
			want.Arch = boot.BIOS
		default:
			reflect.ValueOf(&want).Elem().Field(i).Set(other.Field(i))
		}
		if got := known.Merge(told); got != want {
			t.Errorf("%s was told:\n%+v\nwant\n%+v", name, got, want)
		}
	}
}
