package assets

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// SystemLoaderDirs are the places where distributions install iPXE: Debian and
// Ubuntu; Fedora, Arch and Alpine; then those of Debian's and Ubuntu's signed
// shim and GRUB.
func SystemLoaderDirs() []string {
	return []string{"/usr/lib/ipxe", "/usr/share/ipxe",
		"/usr/lib/shim", "/usr/lib/grub/x86_64-efi-signed", "/usr/lib/grub/arm64-efi-signed"}
}

// A Loader is a build of iPXE for one kind of firmware, or a signed shim, or the
// GRUB that one starts.
type Loader struct {
	Name    string `json:"name"` // as the package boot calls it: undionly.kpxe, arm64/snponly.efi
	Path    string `json:"path"`
	Size    int64  `json:"size"`              // bytes
	Version string `json:"version,omitempty"` // as found inside; empty when the build is compressed
}

// Loaders are the iPXE builds that were found. The value is immutable.
type Loaders struct {
	byName  map[string]Loader
	skipped []error
}

// FindLoaders finds iPXE builds in dirs and then in the system's places. Of two
// for the same firmware the first found wins.
func FindLoaders(dirs ...string) Loaders {
	return LoadersIn(append(slices.Clone(dirs), SystemLoaderDirs()...)...)
}

// LoadersIn finds iPXE builds in dirs, two levels deep, the first found winning.
// Directories that do not exist are left out. Which firmware a build is for is
// told by its contents: a file name only says which of iPXE's targets it is.
func LoadersIn(dirs ...string) Loaders {
	l := Loaders{byName: make(map[string]Loader)}
	for _, dir := range dirs {
		if dir != "" {
			l.scan(dir, 2)
		}
	}
	return l
}

// IPXE reports whether there is a build of iPXE.
func (l Loaders) IPXE() bool {
	for name := range l.byName {
		if !grubChain(name) {
			return true
		}
	}
	return false
}

// Has reports whether there is a loader of that name.
func (l Loaders) Has(name string) bool {
	_, ok := l.byName[name]
	return ok
}

// Open opens a loader. The error for an unknown name wraps [fs.ErrNotExist].
func (l Loaders) Open(name string) (*os.File, error) {
	ld, ok := l.byName[name]
	if !ok {
		return nil, fmt.Errorf("no iPXE build %s was found (there are: %s); install the package \"ipxe\", or put the file into the loader directory: %w",
			name, orNone(slices.Sorted(maps.Keys(l.byName))), fs.ErrNotExist)
	}
	return os.Open(ld.Path)
}

// List returns the loaders by name.
func (l Loaders) List() []Loader {
	list := make([]Loader, 0, len(l.byName))
	for _, name := range slices.Sorted(maps.Keys(l.byName)) {
		list = append(list, l.byName[name])
	}
	return list
}

// Skipped says of each file that has a loader's name why it is none.
func (l Loaders) Skipped() []error { return slices.Clone(l.skipped) }

func (l *Loaders) scan(dir string, depth int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.skipped = append(l.skipped, err)
		}
		return
	}
	var dirs []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		st, err := os.Stat(path) // Debian has links to /boot
		switch {
		case err != nil:
			if target(e.Name()) != "" {
				l.skipped = append(l.skipped, err)
			}
		case st.IsDir():
			dirs = append(dirs, path)
		case st.Mode().IsRegular() && target(e.Name()) != "":
			l.add(path)
		}
	}
	for _, d := range dirs {
		// qemu holds option ROMs and their EFI twins, each for one network card.
		if depth > 0 && filepath.Base(d) != "qemu" {
			l.scan(d, depth-1)
		}
	}
}

// add adds the loader at path, unless a better one is there or it is none.
func (l *Loaders) add(path string) {
	text, err := readLoader(path)
	if err != nil {
		l.skipped = append(l.skipped, err)
		return
	}
	name := target(filepath.Base(path))
	if strings.HasSuffix(name, ".efi") {
		var folder string
		if folder, err = efiFolder(text); err == nil {
			name = folder + name
			if grubChain(name) && !efiSigned(text) {
				err = errors.New("it is not signed")
			}
		}
	} else {
		err = checkBIOS(text)
	}
	if err != nil {
		l.skipped = append(l.skipped, fmt.Errorf("%s is not a loader: %w", path, err))
		return
	}
	if _, ok := l.byName[name]; !ok {
		l.byName[name] = Loader{Name: name, Path: path, Size: int64(len(text)), Version: ipxeVersion(text)}
	}
}

// readLoader reads a file that may be a loader; iPXE's are under 2 MB.
func readLoader(path string) ([]byte, error) {
	const most = 16 << 20
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("%s is not a loader: it is larger than %d MB", path, most>>20)
	}
	return text, err
}

// efiTarget matches the names that iPXE, Debian (ipxe-arm64.efi), Fedora
// (ipxe-snponly-x86_64.efi) and others give to builds for UEFI.
var efiTarget = regexp.MustCompile(`^(?:ipxe[-_])?(snponly|ipxe)(?:[-_.](?:x86_64|amd64|x64|i386|ia32|arm64|aarch64|arm32|arm))?\.efi$`)

// shimTarget matches the shims that iPXE's makers have signed, which start the
// build that they are named after (github.com/ipxe/shim).
var shimTarget = regexp.MustCompile(`^(?:snponly|ipxe)-shim(?:x64|aa64)\.efi$`)

// chainTarget matches the names of a distribution's shim and of the GRUB that can
// boot from the network. Debian's and Ubuntu's packages have those for disks beside
// them, called grubx64.efi.signed, and shims without a signature, called
// shimx64.efi; Ubuntu has several of its shims.
var chainTarget = regexp.MustCompile(`^(?:(shim)|grub(?:net)?)(x64|aa64)\.efi$|^(?:(shim)|grubnet)(x64|aa64)\.efi\.(?:signed|dualsigned|signed\.latest)$`)

// grubChain reports whether a loader is a shim or the GRUB behind it.
func grubChain(name string) bool { return chainTarget.MatchString(filepath.Base(name)) }

// target tells from a file's name which target of iPXE's build it is:
// undionly.kpxe, ipxe.pxe, snponly.efi, ipxe.efi, or a shim in front of one; or
// that it is a distribution's shim, which looks for GRUB under the name that that
// gets here. Empty: none.
func target(file string) string {
	file = strings.ToLower(file)
	if m := chainTarget.FindStringSubmatch(file); m != nil {
		return cmp.Or(m[1], m[3], "grub") + cmp.Or(m[2], m[4]) + ".efi"
	}
	if shimTarget.MatchString(file) {
		return file
	}
	if file == "undionly.kpxe" || file == "ipxe.pxe" {
		return file
	}
	if m := efiTarget.FindStringSubmatch(file); m != nil {
		return m[1] + ".efi"
	}
	return ""
}

// Machine types of PE files (PE format, section Machine Types).
const (
	peI386  = 0x14c
	peARM   = 0x1c0
	peThumb = 0x1c2
	peARMNT = 0x1c4
	peX64   = 0x8664
	peARM64 = 0xaa64
)

// efiFolder tells for which UEFI a program is.
func efiFolder(text []byte) (string, error) {
	machine, err := peMachine(bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	switch machine {
	case peX64:
		return "", nil
	case peI386:
		return "i386/", nil
	case peARM64:
		return "arm64/", nil
	case peARM, peThumb, peARMNT:
		return "arm32/", nil
	}
	return "", fmt.Errorf("it is for machine type %#x, which bootd does not boot", machine)
}

// peMachine reads the machine type of an EFI program.
func peMachine(r io.ReaderAt) (uint16, error) {
	var dos [0x40]byte
	if _, err := r.ReadAt(dos[:], 0); err != nil || dos[0] != 'M' || dos[1] != 'Z' {
		return 0, errors.New("it is not an EFI program")
	}
	var head [6]byte
	at := int64(binary.LittleEndian.Uint32(dos[0x3c:]))
	if _, err := r.ReadAt(head[:], at); err != nil || string(head[:4]) != "PE\x00\x00" {
		return 0, errors.New("it is not an EFI program, or it is cut off")
	}
	return binary.LittleEndian.Uint16(head[4:]), nil
}

// efiSigned reports whether an EFI program has a certificate table (PE format,
// section Attribute Certificate Table). By whom it is signed is for firmware to
// judge.
func efiSigned(text []byte) bool {
	const (
		optional   = 24 // where the optional header begins, after the signature
		plus       = 0x20b
		directory  = 4 * 8 // of the certificates
		atPlus, at = 112, 96
	)
	head := int64(binary.LittleEndian.Uint32(text[0x3c:])) + optional
	entry := head + at + directory
	if int64(len(text)) >= head+2 && binary.LittleEndian.Uint16(text[head:]) == plus {
		entry = head + atPlus + directory
	}
	return int64(len(text)) >= entry+8 && binary.LittleEndian.Uint32(text[entry+4:]) != 0
}

// checkBIOS checks that text can be a PXE network boot program: one that begins
// with a jump, at 0x7c00 (PXE specification 2.1, section 4.4.5), and fits below
// 640 KB. That finds the usual mistakes: a text, an archive, an EFI program.
func checkBIOS(text []byte) error {
	switch {
	case len(text) < 4<<10:
		return fmt.Errorf("it has only %d bytes", len(text))
	case len(text) > 640<<10-0x7c00:
		return fmt.Errorf("its %d bytes do not fit into a BIOS machine's low memory", len(text))
	case !bytes.Contains([]byte{0xea, 0xeb, 0xe9}, text[:1]):
		return errors.New("it is not a network boot program for BIOS")
	}
	return nil
}

// versionText matches the version in iPXE builds: 1.21.1+ (g8460d),
// 1.0.0+git-20190125.36a4c85-5.1, 2.0.0.
var versionText = regexp.MustCompile(`\x00([12]\.\d{1,2}\.\d{1,2}(?:\+[0-9A-Za-z.+~-]*)?(?: \([0-9a-g]{4,41}\+?\))?)\x00`)

// ipxeVersion finds the version that an uncompressed build shows in its banner.
func ipxeVersion(text []byte) string {
	if m := versionText.FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return ""
}
