package ipxe

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"bootd/boot"
)

// maxField bounds what is kept of a text that a machine says of itself; SMBIOS
// strings have 64 characters at most.
const maxField = 128

// parseInventory reads the query of /ipxe, as [First] has iPXE send it. Only the
// MAC must be there. Builds before November 2021 decode what they had encoded
// before they send it, so a product called A&mac=B arrives as two fields: the
// first of a name counts, and the MAC comes first.
func parseInventory(query string) (boot.Inventory, error) {
	f := parseQuery(query)
	mac, err := boot.ParseMAC(f["mac"])
	if err != nil {
		return boot.Inventory{}, fmt.Errorf("cannot read mac: %w", err)
	}
	if mac.IsZero() || mac[0]&1 != 0 {
		return boot.Inventory{}, fmt.Errorf("cannot read mac: %s is not the address of a network card", mac)
	}
	inv := boot.Inventory{
		MAC:          mac,
		UUID:         parseUUID(f["uuid"]),
		Serial:       clean(f["serial"], maxField),
		Manufacturer: clean(f["manufacturer"], maxField),
		Product:      clean(f["product"], maxField),
		Asset:        clean(f["asset"], maxField),
		CPU:          cpuName(f["cpu"]),
	}
	inv.Arch, inv.ArchKnown = archOf(f["platform"], f["buildarch"])
	if mb, err := strconv.Atoi(f["mem"]); err == nil && mb > 0 && mb < 1<<31 {
		inv.MemoryMB = mb
	}
	return inv, nil
}

// newRun names a run of a loader.
func newRun() string { return rand.Text()[:runLength] }

// runLength is the length of a run's name, and the most that one may have.
const runLength = 13

// parseRun reads which run of its loader asks; empty if that is no name that
// bootd gave.
func parseRun(query string) string {
	run := parseQuery(query)["run"]
	bad := func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') }
	if len(run) > runLength || strings.ContainsFunc(run, bad) {
		return ""
	}
	return run
}

// parseQuery splits a query. A plus sign is a plus sign: iPXE does not encode the
// way forms do.
func parseQuery(query string) map[string]string {
	f := make(map[string]string)
	for pair := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(pair, "=")
		if d, err := url.PathUnescape(v); err == nil {
			v = d
		}
		if _, ok := f[k]; !ok {
			f[k] = v
		}
	}
	return f
}

// clean cleans a text that a machine says of itself, and shortens it to most
// bytes. SMBIOS has control characters, alphabets in unknown encodings and
// trailing spaces.
func clean(s string, most int) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < most; i++ {
		if c := s[i]; c >= ' ' && c <= '~' {
			b.WriteByte(c)
		} else {
			b.WriteByte('?')
		}
	}
	return strings.TrimSpace(b.String())
}

// parseUUID returns a UUID in lower case, or nothing.
func parseUUID(s string) string {
	if len(s) != 36 {
		return ""
	}
	s = strings.ToLower(s)
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return ""
			}
		default:
			if !strings.Contains("0123456789abcdef", s[i:i+1]) {
				return ""
			}
		}
	}
	return s
}

// cpuName turns iPXE's name of a processor into that of images.
func cpuName(s string) string {
	switch s {
	case "x86_64", "i386":
		return s
	case "arm64":
		return "aarch64"
	case "arm32":
		return "arm"
	}
	return ""
}

// archOf tells the architecture from what iPXE says of its own build.
func archOf(platform, buildarch string) (boot.Arch, bool) {
	switch platform + " " + buildarch {
	case "pcbios i386", "pcbios x86_64":
		return boot.BIOS, true
	case "efi x86_64":
		return boot.EFIX64, true
	case "efi i386":
		return boot.EFIIA32, true
	case "efi arm64":
		return boot.EFIARM64, true
	case "efi arm32":
		return boot.EFIARM32, true
	}
	return 0, false
}
