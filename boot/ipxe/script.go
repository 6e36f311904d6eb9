package ipxe

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"bootd/boot"
)

// maxCommandLine is what an x86 kernel takes (COMMAND_LINE_SIZE is 2048, with
// the zero at the end); arm64 has the same. More is cut off without a word.
const maxCommandLine = 2047

// pause waits for ten seconds. A key ends it early, and Ctrl-B opens a shell. The
// text is short because iPXE wipes it out with backspaces.
const pause = "prompt --key 0x02 --timeout 10000 Next try in 10 seconds, Ctrl-B for a shell && shell ||\n"

// Params say what a machine boots, and how.
type Params struct {
	Base    string // root of bootd's URLs: http://10.0.0.1
	Name    string // host name, for people
	MAC     boot.MAC
	Image   boot.Image
	Profile *boot.Profile // Console, Args and Delivery are used
	Ticket  string        // for the Ignition config; a URL-safe text
}

// Script is the script that boots an image. The error says which of the
// profile's values cannot be carried to the kernel.
func Script(p Params) ([]byte, error) {
	initrds := initrdsOf(p)
	args, err := kernelArgs(p, initrds)
	if err != nil {
		return nil, fmt.Errorf("cannot boot profile %s: %w", p.Profile.Name, err)
	}
	kernel := assetURL(p.Base, p.Image.Kernel)
	line := strings.Join(args, " ")
	// Under UEFI, iPXE puts the file's name before the arguments.
	if n := len(p.Image.Kernel.Name) + 1 + len(line); n > maxCommandLine {
		return nil, fmt.Errorf("cannot boot profile %s: its kernel command line has %d characters, %d are possible; shorten args", p.Profile.Name, n, maxCommandLine)
	}
	var b bytes.Buffer
	say(&b, "%s: profile %s, image %s %s", p.Name, p.Profile.Name, p.Image.Name, p.Image.Version)
	// An earlier attempt's files would be taken for initrds (bzimage.c takes
	// every image but the kernel).
	fmt.Fprintln(&b, "imgfree ||")
	fmt.Fprintf(&b, "kernel %s %s || goto failed\n", kernel, line)
	for _, in := range initrds {
		fmt.Fprintf(&b, "initrd --name %s %s || goto failed\n", in.name, in.url)
	}
	fmt.Fprintln(&b, "boot || goto failed")
	fmt.Fprintln(&b, ":failed")
	say(&b, "%s did not boot. What is above says why.", p.Name)
	fmt.Fprintln(&b, "imgfree ||")
	return again(&b, p.Base), nil
}

// LocalDisk is the script of a machine that boots from its own disk.
func LocalDisk(name, profile string, efi bool) []byte {
	var b bytes.Buffer
	say(&b, "%s: profile %s boots from the local disk.", name, profile)
	if !efi {
		fmt.Fprintln(&b, "sanboot --no-describe --drive 0x80 ||")
	}
	// UEFI goes on with the next boot option when this one has failed, and
	// stops when it has succeeded (UEFI specification, section 3.1.1).
	fmt.Fprintln(&b, "exit 1")
	return script(b.Bytes())
}

// Wait is the script of a machine that cannot boot yet: it shows lines and asks
// again after ten seconds.
func Wait(base string, lines ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, "echo")
	for _, l := range lines {
		say(&b, "%s", l)
	}
	return again(&b, base)
}

// Reacquire is the script of a machine that has to ask for its address again,
// after ten seconds: it shows lines, and begins anew.
func Reacquire(base string, lines ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, "echo")
	for _, l := range lines {
		say(&b, "%s", l)
	}
	b.WriteString("set try:int32 0\n" +
		":again\n" +
		pause +
		"inc try\n" +
		"iseq ${try} 60 && reboot ||\n" +
		"ifclose\n" + // all cards; what is not closed keeps its address
		"dhcp && chain --replace --autofree --timeout 30000 " + base + "/boot.ipxe || goto again\n")
	return script(b.Bytes())
}

// First is the first script, the same for all machines. The card through which
// it came is asked for first, because it has an address; then each card in turn
// gets one. dhcp waits for the link (15 seconds; iflinkwait became a command in
// 2021 only). A card is closed again before the next one, so that the request
// leaves by the card whose MAC it names.
//
// run becomes iPXE's own setting of that name, unless it has one from before:
// settings last until the machine starts a loader again. It says so with each
// request (see [boot.Event.Run]).
//
// A 32-bit iPXE (all BIOS builds) runs on 64-bit processors too, so the processor
// is asked. URLs are absolute, since old builds take the colons of a MAC in a
// relative one for those after a scheme.
func First(base, run string) []byte {
	ask := func(card string) string {
		return "chain --replace --autofree --timeout 30000 " + base + "/ipxe?mac=${" + card + "/mac}" +
			"&uuid=${uuid}&serial=${serial:uristring}&manufacturer=${manufacturer:uristring}" +
			"&product=${product:uristring}&asset=${asset:uristring}" +
			"&run=${run}&cpu=${cpu}&platform=${platform}&buildarch=${buildarch}&mem=${memsize} ||\n"
	}
	return script([]byte(`echo
echo bootd at ` + base + `, iPXE ${version}, ${platform} ${buildarch}
isset ${run} || set run ` + run + `
set cpu ${buildarch}
iseq ${buildarch} i386 && cpuid --ext 29 && set cpu x86_64 ||
set try:int32 0
set n:int32 0
isset ${netX/ip} || goto card
` + ask("netX") + `:card
isset ${net${n}/mac} || goto pause
dhcp net${n} || goto next
` + ask("net${n}") + `:next
ifclose net${n} ||
inc n
goto card
:pause
inc try
iseq ${try} 30 && goto restart ||
echo bootd does not answer.
` + pause + `set n:int32 0
goto card
:restart
echo bootd did not answer ${try} times. Restarting this machine.
sleep 10
reboot
`))
}

// again ends a script that was not the last: it begins from the start until the
// first script comes. After ten minutes without it, the network has changed
// perhaps, which firmware finds out.
func again(b *bytes.Buffer, base string) []byte {
	b.WriteString("set try:int32 0\n" +
		":again\n" +
		pause +
		"inc try\n" +
		"iseq ${try} 60 && reboot ||\n" +
		"chain --replace --autofree --timeout 30000 " + base + "/boot.ipxe || goto again\n")
	return script(b.Bytes())
}

func script(body []byte) []byte { return append([]byte("#!ipxe\n"), body...) }

// say adds a line that shows text.
func say(b *bytes.Buffer, format string, args ...any) {
	fmt.Fprintf(b, "echo %s\n", plain(fmt.Sprintf(format, args...)))
}

// plain replaces whatever could mean something to iPXE, or to a terminal.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" .,:;/@+=()[]{}'\"!*<>~^%_?-", r):
			return r
		}
		return '?'
	}, s)
	l := strings.Fields(s)
	for i, w := range l {
		if w == ";" {
			l[i] = ","
		}
	}
	// A first word with a hyphen would be an option of echo; one hyphen pair
	// ends the options, and is not shown.
	if len(l) > 0 && l[0][0] == '-' {
		l = slices.Insert(l, 0, "--")
	}
	return strings.Join(l, " ")
}

// An initrd is one that iPXE loads: by the name that UEFI kernels ask for.
type initrd struct{ name, url string }

func initrdsOf(p Params) []initrd {
	var l []initrd
	for i, f := range p.Image.Initrds {
		name := "main"
		if i > 0 {
			name = fmt.Sprintf("main%d", i+1)
		}
		l = append(l, initrd{name, assetURL(p.Base, f)})
	}
	if p.Profile.Delivery == boot.ByInitrd && p.Image.Family != boot.Linux {
		l = append(l, initrd{"config", p.Base + "/initrd/" + p.Ticket + "/config.cpio"})
	}
	return l
}

// assetURL is where a file of an image is fetched from.
func assetURL(base string, f boot.ImageFile) string {
	return base + "/assets/sha256/" + f.SHA256 + "/" + url.PathEscape(f.Name)
}

// kernelArgs returns the kernel's command line in words.
func kernelArgs(p Params, initrds []initrd) ([]string, error) {
	var args []string
	for _, in := range initrds {
		args = append(args, "initrd="+in.name)
	}
	family, err := familyArgs(p)
	if err != nil {
		return nil, err
	}
	args = append(args, family...)
	// The card that bootd was reached through; 01 is Ethernet.
	args = append(args, "BOOTIF=01-"+p.MAC.Hyphens())
	for _, c := range p.Profile.Console {
		w, err := words("console="+c, "console")
		if err != nil {
			return nil, err
		}
		args = append(args, w...)
	}
	for _, a := range p.Profile.Args {
		w, err := words(a, "args")
		if err != nil {
			return nil, err
		}
		args = append(args, w...)
	}
	return args, nil
}

// familyArgs are the arguments by which an image finds its root file system and
// its Ignition config.
func familyArgs(p Params) ([]string, error) {
	var args []string
	switch p.Image.Family {
	case boot.FedoraCoreOS:
		if p.Image.RootFS != nil {
			args = append(args, "coreos.live.rootfs_url="+assetURL(p.Base, *p.Image.RootFS))
		}
		args = append(args, "ignition.firstboot", "ignition.platform.id=metal")
	case boot.Flatcar:
		args = append(args, "flatcar.first_boot=1")
	case boot.Linux:
		return nil, nil
	default:
		return nil, fmt.Errorf("image %s is of the family %q, which is not known", p.Image.Name, p.Image.Family)
	}
	if p.Profile.Delivery != boot.ByInitrd {
		args = append(args, "ignition.config.url="+p.Base+"/ignition/"+p.Ticket)
	}
	return args, nil
}

// words splits a kernel argument as iPXE does, and refuses what would not
// arrive as it is.
func words(arg, key string) ([]string, error) {
	bad := func(why string) error { return fmt.Errorf("%s: %q %s", key, arg, why) }
	for i := range len(arg) {
		if arg[i] < ' ' || arg[i] > '~' {
			return nil, bad("has a character that is not printable ASCII")
		}
	}
	if strings.Contains(arg, "${") {
		return nil, bad("has ${, which iPXE would replace")
	}
	l := strings.Fields(arg)
	for _, w := range l {
		if w == "||" || w == "&&" || w == ";" || w[0] == '#' {
			return nil, bad("has the word " + w + ", which iPXE would take for its own")
		}
	}
	if strings.Join(l, " ") != arg {
		return nil, bad("has spaces that iPXE would leave out")
	}
	if len(l) == 0 {
		return nil, errors.New(key + ": an empty argument")
	}
	return l, nil
}
