package boot

import "fmt"

// An Arch is a client system architecture type, DHCP option 93 (RFC 4578
// section 2.1, with the numbers IANA has added since). It names the processor
// and the firmware together.
type Arch uint16

// The architectures that bootd knows a loader for.
const (
	BIOS      Arch = 0  // x86 BIOS; Raspberry Pi ROMs also say this
	EFIIA32   Arch = 6  // 32-bit x86 UEFI
	EFIX64    Arch = 7  // x64 UEFI
	EFIBC     Arch = 9  // EFI byte code; sent by many x64 UEFI firmwares
	EFIARM32  Arch = 10 // 32-bit ARM UEFI
	EFIARM64  Arch = 11 // 64-bit ARM UEFI
	HTTPIA32  Arch = 15 // 32-bit x86 UEFI, booting by HTTP
	HTTPX64   Arch = 16 // x64 UEFI, booting by HTTP
	HTTPBC    Arch = 17 // EFI byte code, booting by HTTP
	HTTPARM32 Arch = 18 // 32-bit ARM UEFI, booting by HTTP
	HTTPARM64 Arch = 19 // 64-bit ARM UEFI, booting by HTTP
	HTTPBIOS  Arch = 20 // x86 BIOS, booting by HTTP
	UBootARM  Arch = 21 // U-Boot on 32-bit ARM
	UBootA64  Arch = 22 // U-Boot on 64-bit ARM
	UBootHARM Arch = 23 // U-Boot on 32-bit ARM, booting by HTTP
	UBootHA64 Arch = 24 // U-Boot on 64-bit ARM, booting by HTTP
	PiROM     Arch = 41 // Raspberry Pi; most ROMs say BIOS
)

// CPU names the processor the way operating system images do: x86_64,
// aarch64, arm. 32-bit x86 firmware is counted as x86_64, since such firmware
// is mostly found on 64-bit processors; iPXE's script finds out for certain.
// It is empty when a is unknown.
func (a Arch) CPU() string {
	switch a {
	case BIOS, HTTPBIOS, EFIIA32, HTTPIA32, EFIX64, HTTPX64, EFIBC, HTTPBC:
		return "x86_64"
	case EFIARM64, HTTPARM64, UBootA64, UBootHA64, PiROM:
		return "aarch64"
	case EFIARM32, HTTPARM32, UBootARM, UBootHARM:
		return "arm"
	}
	return ""
}

// EFI reports whether the firmware is UEFI.
func (a Arch) EFI() bool {
	return a != BIOS && a != HTTPBIOS && !a.UBoot() && a != PiROM && a.CPU() != ""
}

// HTTP reports whether the firmware itself fetches its boot file by HTTP.
func (a Arch) HTTP() bool { return a >= HTTPIA32 && a <= HTTPBIOS }

// UBoot reports whether the firmware is U-Boot. It also boots as UEFI, and
// then says that.
func (a Arch) UBoot() bool { return a >= UBootARM && a <= UBootHA64 }

// String names the architecture for people.
func (a Arch) String() string {
	switch a {
	case BIOS:
		return "BIOS"
	case HTTPBIOS:
		return "BIOS HTTP"
	case EFIIA32:
		return "UEFI IA32"
	case EFIX64, EFIBC:
		return "UEFI x64"
	case EFIARM32:
		return "UEFI ARM32"
	case EFIARM64:
		return "UEFI ARM64"
	case HTTPIA32:
		return "UEFI HTTP IA32"
	case HTTPX64, HTTPBC:
		return "UEFI HTTP x64"
	case HTTPARM32:
		return "UEFI HTTP ARM32"
	case HTTPARM64:
		return "UEFI HTTP ARM64"
	case UBootARM, UBootHARM:
		return "U-Boot ARM32"
	case UBootA64, UBootHA64:
		return "U-Boot ARM64"
	case PiROM:
		return "Raspberry Pi"
	}
	return fmt.Sprintf("architecture %d", uint16(a))
}
