package assets

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// What is read of a volume is bounded, whatever the volume says of itself.
const (
	isoSector      = 2048
	isoDescriptors = 32      // before the terminator
	isoDirSize     = 4 << 20 // of one directory, in bytes
	isoDirs        = 4096
	isoEntries     = 50_000 // files and directories in all
	isoDepth       = 16
)

// An isoFile is a file on a volume: one run of bytes.
type isoFile struct {
	path      string // with slashes, as the volume writes it
	off, size int64  // within the volume
}

// An isoVolume is the directory of an ISO 9660 volume (ECMA-119). Files are found
// by the names of its primary volume descriptor and by those of Rock Ridge
// where it has them, and case does not matter: media for ESXi have upper-case
// names in the one and list them in lower case in boot.cfg. Joliet's names are
// not read; whatever has them has the others too.
type isoVolume struct {
	label string
	files map[string]isoFile // by lower-case path
	names []string           // as the volume writes them, in its order

	r       io.ReaderAt
	size    int64 // of what r reads
	entries int
	seen    map[int64]bool // directories by their place: each is read once
}

// readISO reads the directories of a volume. size is that of the whole file. A
// file that is no volume, or cut off, is an error that says so.
func readISO(r io.ReaderAt, size int64) (*isoVolume, error) {
	v := &isoVolume{files: map[string]isoFile{}, seen: map[int64]bool{}, r: r, size: size}
	sector := make([]byte, isoSector)
	for i := range int64(isoDescriptors) {
		at := (16 + i) * isoSector
		if n, err := r.ReadAt(sector, at); n < isoSector {
			if !errors.Is(err, io.EOF) {
				return nil, err
			}
			return nil, wrongMedium(r, size)
		}
		if string(sector[1:6]) != "CD001" { // ECMA-119, 8.1.2
			return nil, wrongMedium(r, size)
		}
		switch sector[0] {
		case 1: // primary volume descriptor
			return v, v.primary(sector)
		case 255:
			return nil, errors.New("it has no primary volume descriptor")
		}
	}
	return nil, errors.New("its volume descriptors have no end")
}

// primary reads what the primary volume descriptor says (ECMA-119, 8.4).
func (v *isoVolume) primary(d []byte) error {
	v.label = strings.TrimRight(string(d[40:72]), " \x00")
	if n := binary.LittleEndian.Uint16(d[128:]); n != isoSector {
		return fmt.Errorf("its blocks have %d bytes, not %d", n, isoSector)
	}
	if whole := int64(binary.LittleEndian.Uint32(d[80:])) * isoSector; whole > v.size {
		return fmt.Errorf("it is cut off: it has %d of %d bytes; copy or download it again", v.size, whole)
	}
	root, err := parseISORecord(d[156:190])
	if err != nil {
		return fmt.Errorf("its root directory cannot be read: %w", err)
	}
	return v.dir(root, "", 0)
}

// An isoRecord is a directory record (ECMA-119, 9.1).
type isoRecord struct {
	off, size int64
	flags     byte
	name      string // of the primary volume descriptor
	rockRidge string // empty: none
}

const (
	isoIsDir = 1 << 1
	isoMore  = 1 << 7 // the file goes on in the next record
)

func parseISORecord(b []byte) (isoRecord, error) {
	if len(b) < 34 || int(b[32]) > len(b)-33 || b[32] == 0 {
		return isoRecord{}, errors.New("a record is too short")
	}
	if b[26] != 0 || b[27] != 0 {
		return isoRecord{}, errors.New("a file is interleaved, which no medium for ESXi is")
	}
	n := int(b[32])
	// Extended attributes stand before the data.
	block := int64(binary.LittleEndian.Uint32(b[2:])) + int64(b[1])
	r := isoRecord{off: block * isoSector, size: int64(binary.LittleEndian.Uint32(b[10:])), flags: b[25], name: string(b[33 : 33+n])}
	use := 33 + n
	use += use & 1 // padded to an even place
	if use < len(b) {
		r.rockRidge = rockRidgeName(b[use:])
	}
	if r.flags&isoIsDir == 0 {
		r.name, _, _ = strings.Cut(r.name, ";")
		r.name = strings.TrimSuffix(r.name, ".")
	}
	return r, nil
}

// rockRidgeName finds a file's name in the system use area: the entries NM
// (RRIP 4.1.4). One that goes on elsewhere on the volume is left out.
func rockRidgeName(b []byte) string {
	var name []byte
	for len(b) >= 4 {
		n := int(b[2])
		if n < 4 || n > len(b) {
			break
		}
		if string(b[:2]) == "NM" && n >= 5 && b[4]&^1 == 0 {
			name = append(name, b[5:n]...)
		}
		if string(b[:2]) == "CE" {
			return ""
		}
		b = b[n:]
	}
	return string(name)
}

// dir reads a directory and those below it.
func (v *isoVolume) dir(d isoRecord, at string, depth int) error {
	switch {
	case depth > isoDepth:
		return fmt.Errorf("its directories are nested more than %d deep", isoDepth)
	case v.seen[d.off]:
		return nil // a loop, or a second name
	case len(v.seen) >= isoDirs:
		return fmt.Errorf("it has more than %d directories", isoDirs)
	case d.size > isoDirSize:
		return fmt.Errorf("directory %q has %d bytes, which is more than can be", "/"+at, d.size)
	}
	v.seen[d.off] = true
	if err := v.within(d, at); err != nil {
		return err
	}
	text := make([]byte, d.size)
	if n, err := v.r.ReadAt(text, d.off); n < len(text) {
		return fmt.Errorf("directory %q cannot be read: %w", "/"+at, err)
	}
	var more *isoRecord // a file whose records are not complete
	for i := 0; i < len(text); {
		n := int(text[i])
		if n == 0 { // the rest of the sector is empty
			i = (i/isoSector + 1) * isoSector
			continue
		}
		if i+n > len(text) || i/isoSector != (i+n-1)/isoSector {
			return fmt.Errorf("directory %q is damaged", "/"+at)
		}
		r, err := parseISORecord(text[i : i+n])
		if err != nil {
			return fmt.Errorf("directory %q is damaged: %w", "/"+at, err)
		}
		i += n
		if r.name == "\x00" || r.name == "\x01" { // itself, and the one above
			continue
		}
		if more, err = v.record(r, more, at, depth); err != nil {
			return err
		}
	}
	return nil
}

// record takes in one record of the directory at. It returns a file that goes on
// in the next one.
func (v *isoVolume) record(r isoRecord, more *isoRecord, at string, depth int) (*isoRecord, error) {
	if v.entries++; v.entries > isoEntries {
		return nil, fmt.Errorf("it has more than %d files", isoEntries)
	}
	name := path.Join(at, strings.ReplaceAll(r.name, "/", "_"))
	if r.flags&isoIsDir != 0 {
		return nil, v.dir(r, name, depth+1)
	}
	if more != nil && more.name == r.name {
		if more.off+more.size != r.off {
			return nil, fmt.Errorf("file %q is in several pieces", "/"+name)
		}
		r.off, r.size = more.off, more.size+r.size
	}
	if r.flags&isoMore != 0 {
		return &r, nil
	}
	if err := v.within(r, name); err != nil {
		return nil, err
	}
	v.add(name, r)
	if rr := strings.ReplaceAll(r.rockRidge, "/", "_"); rr != "" {
		v.add(path.Join(at, rr), r)
	}
	return nil, nil
}

func (v *isoVolume) add(name string, r isoRecord) {
	key := strings.ToLower(name)
	if _, ok := v.files[key]; !ok {
		v.files[key] = isoFile{name, r.off, r.size}
		v.names = append(v.names, name)
	}
}

// within checks that a file lies within the volume.
func (v *isoVolume) within(r isoRecord, name string) error {
	if r.size > 0 && (r.off > v.size || r.size > v.size-r.off) {
		return fmt.Errorf("it is cut off or damaged: %q ends at byte %d of %d", "/"+name, r.off+r.size, v.size)
	}
	return nil
}

// find looks up a file by a path with slashes, with or without one in front.
func (v *isoVolume) find(name string) (isoFile, bool) {
	f, ok := v.files[strings.ToLower(strings.TrimPrefix(path.Clean("/"+name), "/"))]
	return f, ok
}

// open reads a file.
func (v *isoVolume) open(f isoFile) *io.SectionReader { return io.NewSectionReader(v.r, f.off, f.size) }

// text reads a file of at most limit bytes.
func (v *isoVolume) text(f isoFile, limit int64) ([]byte, error) {
	if f.size > limit {
		return nil, fmt.Errorf("/%s has %d bytes, which is more than can be", f.path, f.size)
	}
	b, err := io.ReadAll(v.open(f))
	if err == nil && int64(len(b)) < f.size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read /%s: %w", f.path, err)
	}
	return b, nil
}

// wrongMedium says what a file is that is no ISO 9660 volume.
func wrongMedium(r io.ReaderAt, size int64) error {
	head := make([]byte, 512)
	n, _ := r.ReadAt(head, 0) // what cannot be read is not recognized
	head = head[:n]
	at := func(off int, magic string) bool {
		return len(head) >= off && bytes.HasPrefix(head[off:], []byte(magic))
	}
	switch {
	case at(0, "PK\x03\x04"):
		return errors.New("it is a ZIP archive; if it is an offline bundle of ESXi, get the installer's ISO instead")
	case at(257, "ustar"):
		return errors.New("it is a tar archive, as OVA files are: a virtual machine, not an installation medium; get the installer's ISO")
	case at(0, "KDMV"), at(0, "# Disk Descr"), at(0, "QFI\xfb"):
		return errors.New("it is a virtual disk, not an installation medium; get the installer's ISO")
	case at(0, "\x1f\x8b"), at(0, "\xfd7zXZ"), at(0, "BZh"):
		return errors.New("it is compressed; unpack it first")
	case at(0, "<"):
		return errors.New("it is a web page; was the download refused?")
	case size < 17*isoSector:
		return fmt.Errorf("with %d bytes it is no ISO image", size)
	}
	return errors.New("it is not an ISO 9660 image")
}
