package ipxe

import (
	"bytes"
	"fmt"
	"strings"

	"bootd/boot"
)

// Paths, by HTTP and by TFTP, of what GRUB asks for. The GRUB that Debian and
// Ubuntu sign for the network looks for the first one (its prefix is /grub).
const (
	grubFirst = "/grub/grub.cfg"
	grubAsks  = "/grub"
)

// GRUBFirst is the first script for GRUB, the same for all machines: it collects
// what SMBIOS says and asks for the machine's own, again and again. run names this
// run of it, as in [First].
//
// It is for the images that distributions sign (2.06 and later): no module can be
// loaded beyond those that are built in, smbios and regexp among them. Ubuntu's has
// http, Debian's has not, and before 2.12 only port 80 can be reached; the rest is
// fetched by TFTP. GRUB asks for a name as it is written, so spaces are encoded here,
// and a value with other characters that mean something in a URL is left out, or
// one that is long: a TFTP request has 512 bytes at most.
func GRUBFirst(base, run string) []byte {
	host := strings.TrimPrefix(base, "http://")
	host, _, port := strings.Cut(host, ":")
	var b bytes.Buffer
	fmt.Fprintf(&b, "echo 'bootd at %s, GRUB'\n", base)
	fmt.Fprintf(&b, "set from='(tftp,%s)'\n", host)
	if !port {
		fmt.Fprintf(&b, "if [ -e '(http,%[1]s)%[2]s' ]; then set from='(http,%[1]s)'; fi\n", host, grubFirst)
	}
	fmt.Fprintf(&b, "set ask=\"mac=${net_default_mac}&run=%s&cpu=${grub_cpu}&platform=${grub_platform}&buildarch=${grub_cpu}\"\n", run)
	b.WriteString(grubTell)
	// After ten minutes the network has changed perhaps, which firmware finds
	// out.
	fmt.Fprintf(&b, "for try in %s; do\n", strings.TrimSpace(strings.Repeat("1 2 3 4 5 6 7 8 9 10 ", 6)))
	fmt.Fprintf(&b, "source \"${from}%s?${ask}\"\n", grubAsks)
	b.WriteString("echo 'Next try in 10 seconds.'\nsleep 10\ndone\nreboot\n")
	return b.Bytes()
}

// grubTell adds what SMBIOS says to ${ask} (SMBIOS specification, sections 7.2 and
// 7.4). It has no text where a maker left one out, which smbios says on the console.
const grubTell = `function tell {
if smbios --type ${2} --get-${3} ${4} --set value; then
if regexp '^[A-Za-z0-9 .,:;/@+=()_-]+$' "${value}"; then
if regexp '^.{1,48}$' "${value}"; then
while regexp --set=1:before --set=2:after '^([^ ]*) (.*)$' "${value}"; do
set value="${before}%20${after}"
done
set ask="${ask}&${1}=${value}"
fi
fi
fi
}
tell uuid 1 uuid 8
tell manufacturer 1 string 4
tell product 1 string 5
tell serial 1 string 7
tell asset 3 string 8
`

// grubDialect is GRUB's, which fetches everything by HTTP or by TFTP.
type grubDialect struct{ http bool }

func (grubDialect) client() boot.Client               { return boot.GRUB }
func (d grubDialect) script(p Params) ([]byte, error) { return GRUBScript(p, d.http) }

func (grubDialect) localDisk(name, profile string, _ bool) []byte {
	return GRUBLocalDisk(name, profile)
}
func (grubDialect) wait(_ string, lines ...string) []byte      { return GRUBWait(lines...) }
func (grubDialect) reacquire(_ string, lines ...string) []byte { return GRUBReacquire(lines...) }

// GRUBLocalDisk starts what is on a disk for firmware that knows no better (UEFI
// specification, section 3.5.1.1); if nothing is, firmware goes on.
func GRUBLocalDisk(name, profile string) []byte {
	return append(GRUBWait(name+": profile "+profile+" boots from the local disk."), `set efi=/EFI/BOOT/BOOTX64.EFI
if [ "${grub_cpu}" = arm64 ]; then set efi=/EFI/BOOT/BOOTAA64.EFI; fi
if search --no-floppy --set=root --file "${efi}"; then
if chainloader "${efi}"; then boot; fi
fi
exit 1
`...)
}

// GRUBReacquire begins anew, after it has shown lines: GRUB keeps the address that
// firmware had.
func GRUBReacquire(lines ...string) []byte {
	return append(GRUBWait(lines...), "echo 'Restarting this machine in 30 seconds.'\nsleep 30\nreboot\n"...)
}

// GRUBWait shows lines. The first script asks again after it.
func GRUBWait(lines ...string) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&b, "echo %s\n", grubQuote(shown(l)))
	}
	return b.Bytes()
}

// shown is plain for other loaders than iPXE: a line that begins with a hyphen
// would be an option, and is indented.
func shown(s string) string {
	s = strings.TrimPrefix(plain(s), "-- ")
	if strings.HasPrefix(s, "-") {
		s = "  " + s
	}
	return s
}

// grubQuote makes a word of text: between single quotes nothing has a meaning.
func grubQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// GRUBScript is the script that boots an image by GRUB, with all files by HTTP or
// all by TFTP. The error says which of the profile's values cannot be carried to the
// kernel.
func GRUBScript(p Params, http bool) ([]byte, error) {
	initrds := initrdsOf(p)
	args, err := kernelArgs(p, nil) // what is loaded needs no names here
	if err != nil {
		return nil, fmt.Errorf("cannot boot profile %s: %w", p.Profile.Name, err)
	}
	words, err := grubArgs(args)
	if err != nil {
		return nil, fmt.Errorf("cannot boot profile %s by GRUB: %w", p.Profile.Name, err)
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(p.Base, "http://"), ":")
	file := func(u string) string {
		if http {
			return grubQuote("(http," + host + ")" + strings.TrimPrefix(u, p.Base))
		}
		return grubQuote("(tftp," + host + ")" + byTFTP(u, p.Base))
	}
	linux := "linux " + file(assetURL(p.Base, p.Image.Kernel))
	n := len("BOOT_IMAGE=") + len(linux)
	for _, w := range words {
		linux += " " + grubQuote(w)
		n += len(w) + 3
	}
	if n > maxCommandLine {
		return nil, fmt.Errorf("cannot boot profile %s by GRUB: its kernel command line has %d characters, %d are possible; shorten args", p.Profile.Name, n, maxCommandLine)
	}
	initrd := "initrd"
	for _, in := range initrds {
		initrd += " " + file(in.url)
	}
	b := bytes.NewBuffer(GRUBWait(fmt.Sprintf("%s: profile %s, image %s %s", p.Name, p.Profile.Name, p.Image.Name, p.Image.Version)))
	fmt.Fprintf(b, "if %s; then\n", linux)
	if len(initrds) > 0 {
		fmt.Fprintf(b, "if %s; then\nboot\nfi\n", initrd)
	} else {
		fmt.Fprintln(b, "boot")
	}
	fmt.Fprintln(b, "fi")
	b.Write(GRUBWait(p.Name + " did not boot. What is above says why."))
	return b.Bytes(), nil
}

// grubArgs turns the kernel's command line into words as GRUB takes them. It
// writes a word with a space in quotes, and a backslash before each quote, which
// the kernel does not understand: key="a b" has to become one word without them.
func grubArgs(args []string) ([]string, error) {
	var words []string
	open := false
	for _, a := range args {
		w, quotes := a, strings.Count(a, `"`)
		if strings.ContainsAny(a, `'\`) {
			return nil, fmt.Errorf(`args: %q has a ' or a \, which GRUB would change`, a)
		}
		w = strings.ReplaceAll(w, `"`, "")
		if open {
			words[len(words)-1] += " " + w
		} else {
			words = append(words, w)
		}
		open = open != (quotes%2 == 1)
	}
	if open {
		return nil, fmt.Errorf(`args: a " without another one`)
	}
	return words, nil
}
