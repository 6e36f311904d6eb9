package boot

// A ROM is a kind of firmware, by how it boots from the network.
type ROM string

// The kinds that bootd knows.
const (
	PXE         ROM = ""             // class PXEClient: a loader by TFTP
	HTTPBoot    ROM = "HTTP boot"    // class HTTPClient: a loader by HTTP
	UBoot       ROM = "U-Boot"       // looks for pxelinux.cfg on the TFTP server by itself
	RaspberryPi ROM = "Raspberry Pi" // fetches files of its own from the TFTP server
)

// Features are what a build of iPXE can do, as it says in DHCP option 175: bit n
// for sub-option n (iPXE's include/ipxe/features.h). Zero means that it says
// nothing.
type Features uint64

// The features that bootd's scripts need.
const (
	FeatureHTTP    Features = 1 << 19
	FeatureBzImage Features = 1 << 24 // Linux kernels on BIOS
	FeatureEFI     Features = 1 << 36 // EFI programs, which kernels are there
)

// RunsScripts reports whether iPXE with these features, started by firmware of
// architecture a, can do what bootd's scripts say. Those in network cards are
// sometimes cut down.
func (f Features) RunsScripts(a Arch) bool {
	need := FeatureHTTP | FeatureBzImage
	if a.EFI() {
		need = FeatureHTTP | FeatureEFI
	}
	return f == 0 || f&need == need
}

// A Booter is a program that asks what to boot, as far as its request shows.
type Booter struct {
	Client   Client
	Arch     Arch
	ROM      ROM      // of firmware
	Features Features // of iPXE
}

// loader is what firmware starts, and another file without which that is of no
// use.
type loader struct{ name, with string }

// GRUB as a profile's loader: a distribution's shim, which Microsoft has signed,
// and the GRUB behind it. Only UEFI on x64 and arm64 has it; elsewhere it is as if
// nothing was said.
const GRUBLoader = "grub"

// loaders lists, for each kind of firmware, the iPXE builds that can serve
// it, best first. snponly drives the network card through the firmware that
// has just used it, so it works wherever PXE did; ipxe brings its own drivers,
// which helps where the firmware's are broken or slow.
//
// Whether Secure Boot is on cannot be seen from here. A shim in front of iPXE
// does no harm where it is off, so one that is installed is used always. It
// finds what it is to start by its own name, without -shim and the
// architecture (github.com/ipxe/shim).
func loaders(a Arch, wish string) []loader {
	var dir, shim string
	switch a {
	case BIOS, HTTPBIOS:
		return []loader{{name: "undionly.kpxe"}, {name: "ipxe.pxe"}}
	case EFIX64, EFIBC, HTTPX64, HTTPBC:
		shim = "x64"
	case EFIIA32, HTTPIA32:
		dir = "i386/"
	case EFIARM64, HTTPARM64:
		dir, shim = "arm64/", "aa64"
	case EFIARM32, HTTPARM32:
		dir = "arm32/"
	default:
		return nil
	}
	if wish == GRUBLoader {
		list := loaders(a, "")
		if shim != "" {
			list = append([]loader{{dir + "shim" + shim + ".efi", dir + "grub" + shim + ".efi"}}, list...)
		}
		return list
	}
	builds := []string{"snponly", "ipxe"}
	if wish == "ipxe" {
		builds = []string{"ipxe", "snponly"}
	}
	var shimmed, plain []loader
	for _, b := range builds {
		file := dir + b + ".efi"
		plain = append(plain, loader{name: file})
		if shim != "" {
			shimmed = append(shimmed, loader{dir + b + "-shim" + shim + ".efi", file})
		}
	}
	switch {
	case shim == "":
		return plain
	case wish != "": // what was asked for, before a shim for the other one
		return []loader{shimmed[0], plain[0], shimmed[1], plain[1]}
	}
	return append(shimmed, plain...)
}

// LoaderFile names the iPXE build for firmware of architecture a, of those that
// have says are there, or the shim that starts it or GRUB. p may be nil. The name is
// the loader's path under the TFTP root and under /loader/ on HTTP. It reports
// false when there is none.
func LoaderFile(a Arch, p *Profile, have func(name string) bool) (string, bool) {
	wish := ""
	if p != nil {
		wish = p.Loader
	}
	for _, l := range loaders(a, wish) {
		if have(l.name) && (l.with == "" || have(l.with)) {
			return l.name, true
		}
	}
	return "", false
}

// pxelinux is the name under which U-Boot is told of a TFTP server with
// pxelinux.cfg, if there is such a file. Only its folder means something there,
// and without it U-Boot takes the root.
const pxelinux = "pxelinux.0"

// BootFile is what DHCP announces as the boot file to b: iPXE gets its first
// script, firmware that boots by HTTP the URL of a loader, firmware that boots
// by TFTP the loader's name there. iPXE that cannot run the script is given a
// loader, and so starts one that can. Firmware that fetches files of its own
// gets an empty name: it needs only to know the server.
//
// base is the root of bootd's own URLs, http://10.0.0.1 or
// http://10.0.0.1:8080. BootFile reports false when nothing can be announced, as
// for an unknown architecture or the running system.
func BootFile(b Booter, p *Profile, have func(name string) bool, base string) (string, bool) {
	script := base + "/boot.ipxe"
	switch b.Client {
	case IPXE:
		if b.Features.RunsScripts(b.Arch) {
			return script, true
		}
		name, ok := LoaderFile(b.Arch, p, have)
		switch {
		case !ok:
			return script, true // it may know more than it says
		case b.Features&FeatureHTTP != 0:
			return base + "/loader/" + name, true
		}
		return name, true
	case Firmware:
		return romFile(b, p, have, base)
	}
	return "", false
}

func romFile(b Booter, p *Profile, have func(name string) bool, base string) (string, bool) {
	switch b.ROM {
	case RaspberryPi:
		return "", true
	case UBoot:
		if have(pxelinux) {
			return pxelinux, true
		}
		return "", true
	}
	name, ok := LoaderFile(b.Arch, p, have)
	if ok && b.ROM == HTTPBoot {
		name = base + "/loader/" + name
	}
	return name, ok
}
