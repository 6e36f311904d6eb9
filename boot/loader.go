package boot

// loaders lists, for each kind of firmware, the iPXE builds that can serve
// it, best first. snponly drives the network card through the firmware that
// has just used it, so it works wherever PXE did; ipxe brings its own drivers,
// which helps where the firmware's are broken or slow.
func loaders(a Arch, wish string) []string {
	var dir string
	switch a {
	case BIOS, HTTPBIOS:
		return []string{"undionly.kpxe", "ipxe.pxe"}
	case EFIX64, EFIBC, HTTPX64, HTTPBC:
	case EFIIA32, HTTPIA32:
		dir = "i386/"
	case EFIARM64, HTTPARM64:
		dir = "arm64/"
	case EFIARM32, HTTPARM32:
		dir = "arm32/"
	default:
		return nil
	}
	if wish == "ipxe" {
		return []string{dir + "ipxe.efi", dir + "snponly.efi"}
	}
	return []string{dir + "snponly.efi", dir + "ipxe.efi"}
}

// LoaderFile names the iPXE build for firmware of architecture a, of those that
// have says are there. p may be nil. The name is the loader's path under the
// TFTP root and under /loader/ on HTTP. It reports false when there is none.
func LoaderFile(a Arch, p *Profile, have func(name string) bool) (string, bool) {
	wish := ""
	if p != nil {
		wish = p.Loader
	}
	for _, name := range loaders(a, wish) {
		if have(name) {
			return name, true
		}
	}
	return "", false
}

// BootFile is what DHCP announces as the boot file to a client of
// architecture a: iPXE gets its first script, firmware that boots by HTTP the
// URL of a loader, firmware that boots by TFTP the loader's name there. base is
// the root of bootd's own URLs, http://10.0.0.1 or http://10.0.0.1:8080. It
// reports false when nothing can be announced, as for an unknown architecture
// or the running system.
func BootFile(a Arch, c Client, p *Profile, have func(name string) bool, base string) (string, bool) {
	switch c {
	case IPXE:
		return base + "/boot.ipxe", true
	case Firmware:
		name, ok := LoaderFile(a, p, have)
		if ok && a.HTTP() {
			name = base + "/loader/" + name
		}
		return name, ok
	}
	return "", false
}
