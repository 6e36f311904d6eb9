package ipxe

import (
	"bytes"
	"fmt"
	"strings"

	"bootd/boot"
)

// pxelinuxFolder is where U-Boot looks for what it is to do, as pxelinux does,
// under several names. Its file is the one that is called by the card: 01 is
// Ethernet.
const pxelinuxFolder = "/pxelinux.cfg/01-"

// extlinuxDialect is U-Boot's: the configuration of syslinux, as far as U-Boot
// understands it (doc/README.pxe there). It asks once; when that leads to nothing
// it goes on with the next of its boot_targets.
type extlinuxDialect struct{}

func (extlinuxDialect) client() boot.Client             { return boot.Firmware }
func (extlinuxDialect) script(p Params) ([]byte, error) { return Extlinux(p) }

func (extlinuxDialect) localDisk(name, profile string, _ bool) []byte {
	return extlinuxSay(name + ": profile " + profile + " boots from the local disk.")
}
func (extlinuxDialect) wait(_ string, lines ...string) []byte      { return extlinuxSay(lines...) }
func (extlinuxDialect) reacquire(_ string, lines ...string) []byte { return extlinuxSay(lines...) }

// extlinuxSay shows a line. U-Boot does so with what it is about to boot, and finds
// then that there is no kernel.
func extlinuxSay(lines ...string) []byte {
	var b bytes.Buffer
	for _, l := range lines[1:] {
		fmt.Fprintf(&b, "# %s\n", shown(l))
	}
	fmt.Fprintf(&b, "PROMPT 0\nDEFAULT bootd\nLABEL bootd\nMENU LABEL %s\n", shown(lines[0]))
	return b.Bytes()
}

// Extlinux is what makes U-Boot boot an image, with all files by TFTP. The error
// says which of the profile's values it cannot carry to the kernel.
func Extlinux(p Params) ([]byte, error) {
	cannot := func(format string, args ...any) ([]byte, error) {
		return nil, fmt.Errorf("cannot boot profile %s by U-Boot: %w", p.Profile.Name, fmt.Errorf(format, args...))
	}
	initrds := initrdsOf(p)
	switch {
	case p.Profile.Delivery == boot.ByInitrd && p.Image.Family != boot.Linux:
		return cannot("it loads one initrd only, so the Ignition config cannot be another one; say delivery: url")
	case len(initrds) > 1:
		return cannot("it loads one initrd only, and image %s has %d", p.Image.Name, len(initrds))
	}
	args, err := kernelArgs(p, nil)
	if err != nil {
		return cannot("%w", err)
	}
	line := strings.Join(args, " ")
	if strings.ContainsAny(line, `$\`) {
		return cannot(`args: it would change a $ or a \`)
	}
	if len(line) > maxCommandLine {
		return cannot("its kernel command line has %d characters, %d are possible; shorten args", len(line), maxCommandLine)
	}
	file := func(u string) string { return byTFTP(u, p.Base)[1:] }
	var b bytes.Buffer
	fmt.Fprintf(&b, "PROMPT 0\nDEFAULT bootd\nLABEL bootd\nMENU LABEL %s\n",
		shown(fmt.Sprintf("%s: profile %s, image %s %s", p.Name, p.Profile.Name, p.Image.Name, p.Image.Version)))
	fmt.Fprintf(&b, "KERNEL %s\n", file(assetURL(p.Base, p.Image.Kernel)))
	for _, in := range initrds {
		fmt.Fprintf(&b, "INITRD %s\n", file(in.url))
	}
	fmt.Fprintf(&b, "APPEND %s\n", line)
	return b.Bytes(), nil
}
