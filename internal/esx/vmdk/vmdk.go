// Package vmdk reads and writes VMware's virtual disks in the forms in which
// they travel: streamOptimized, the compressed one that images come in;
// monolithicSparse, which ESXi converts by itself when it copies a disk; and the
// descriptor of a disk whose content is a raw file beside it.
//
// The format is VMware's "Virtual Disk Format 5.0". What is read may be
// anything: a file that is wrong is an error, and memory stays bounded. A [Disk]
// may be used by one goroutine at a time.
package vmdk

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
)

// ErrNotVMDK is wrapped by errors about what is no VMDK at all.
var ErrNotVMDK = errors.New("it is no VMDK")

const (
	sectorSize = 512
	magic      = 0x564d444b // "KDMV"
	tableSize  = 512        // grains in a grain table
	atEnd      = ^uint64(0) // the grain directory is where the footer says

	newlineTest    = 1 << 0
	redundantTable = 1 << 1
	compressed     = 1 << 16
	markers        = 1 << 17

	// MaxCapacity is the largest disk of VMFS: 62 TiB.
	MaxCapacity = 62 << 40
	// maxGrain is far above the 64 KiB that every writer uses.
	maxGrain = 1 << 20
)

// A header is the first sector of a sparse extent, and, with streamOptimized,
// the third from the end.
type header struct {
	Magic, Version, Flags                          uint32
	Capacity, GrainSize, DescOffset, DescSize      uint64 // in sectors, as all that follow
	TableSize                                      uint32
	RedundantDirectory, Directory, Overhead        uint64
	Unclean, SingleEOL, NonEOL, DoubleE1, DoubleE2 byte
	Compression                                    uint16
	_                                              [433]byte
}

func newHeader(flags uint32, capacity uint64) header {
	return header{Magic: magic, Version: 1, Flags: newlineTest | flags, Capacity: capacity, GrainSize: grainSectors, DescOffset: 1, DescSize: descSectors,
		TableSize: tableSize, SingleEOL: '\n', NonEOL: ' ', DoubleE1: '\r', DoubleE2: '\n'}
}

// A Disk is a sparse VMDK that is read.
type Disk struct {
	Capacity int64  // bytes, as a guest sees it
	Type     string // createType: "streamOptimized", "monolithicSparse"
	Adapter  string // ddb.adapterType: "lsilogic", "ide"; may be empty

	r         io.ReaderAt
	size      int64 // of the file
	grain     int64 // bytes
	packed    bool
	directory []uint32
	table     [tableSize]uint32 // the one that was read last
	tableNo   int64             // its number; -1: none
}

// Open reads what is at the beginning and the end of a VMDK of a size. The error
// wraps [ErrNotVMDK] if it is none.
func Open(r io.ReaderAt, size int64) (*Disk, error) {
	h, err := readHeader(r, 0, size)
	if err != nil {
		return nil, fmt.Errorf("cannot read the disk: %w", err)
	}
	d := &Disk{r: r, size: size, tableNo: -1}
	if err := d.describe(h); err != nil {
		return nil, fmt.Errorf("cannot read the disk: %w", err)
	}
	if h.Directory == atEnd {
		// Footer, then the marker of the end of the stream.
		if h, err = readHeader(r, size-2*sectorSize, size); err != nil || h.Directory == atEnd {
			return nil, errors.New("cannot read the disk: it has no footer; was it cut off?")
		}
	}
	if err := d.open(h); err != nil {
		return nil, fmt.Errorf("cannot read the disk: %w", err)
	}
	return d, nil
}

func readHeader(r io.ReaderAt, at, size int64) (header, error) {
	var h header
	if at < 0 || at+sectorSize > size {
		return h, ErrNotVMDK
	}
	if err := binary.Read(io.NewSectionReader(r, at, sectorSize), binary.LittleEndian, &h); err != nil {
		return h, err
	}
	if h.Magic != magic {
		return h, ErrNotVMDK
	}
	return h, nil
}

// describe reads the descriptor that is inside the file.
func (d *Disk) describe(h header) error {
	if h.DescOffset == 0 || h.DescSize == 0 {
		return fmt.Errorf("%w by itself: its descriptor is in another file", ErrNotVMDK)
	}
	if h.DescSize > 1<<11 || h.DescOffset > uint64(d.size/sectorSize) {
		return errors.New("its descriptor is beyond its end")
	}
	b := make([]byte, h.DescSize*sectorSize)
	n, err := d.r.ReadAt(b, int64(h.DescOffset)*sectorSize)
	if err != nil && err != io.EOF {
		return err
	}
	text, _, _ := bytes.Cut(b[:n], []byte{0})
	for line := range strings.Lines(string(text)) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		v = strings.Trim(strings.TrimSpace(v), `"`)
		switch strings.TrimSpace(k) {
		case "createType":
			d.Type = v
		case "ddb.adapterType":
			d.Adapter = v
		case "parentCID":
			if !strings.EqualFold(v, "ffffffff") {
				return errors.New("it is a difference to another disk, not a whole one")
			}
		}
	}
	if d.Type != "streamOptimized" && d.Type != "monolithicSparse" {
		return fmt.Errorf("it is of type %q; streamOptimized and monolithicSparse can be read", d.Type)
	}
	return nil
}

func (d *Disk) open(h header) error {
	switch {
	case h.GrainSize < 1 || h.GrainSize > maxGrain/sectorSize || bits.OnesCount64(h.GrainSize) != 1:
		return fmt.Errorf("its grains have %d sectors", h.GrainSize)
	case h.TableSize != tableSize:
		return fmt.Errorf("its grain tables have %d entries, not %d", h.TableSize, tableSize)
	case h.Capacity == 0 || h.Capacity > MaxCapacity/sectorSize:
		return fmt.Errorf("its capacity of %d sectors is not from 1 to 62 TiB", h.Capacity)
	case h.Flags&compressed != 0 && h.Compression != 1:
		return fmt.Errorf("it is compressed in way %d, which is not known", h.Compression)
	}
	d.Capacity, d.grain, d.packed = int64(h.Capacity)*sectorSize, int64(h.GrainSize)*sectorSize, h.Flags&compressed != 0
	tables := (d.grains() + tableSize - 1) / tableSize
	if h.Directory > uint64(d.size/sectorSize) || int64(h.Directory)*sectorSize+4*tables > d.size {
		return errors.New("its grain directory is beyond its end; was it cut off?")
	}
	d.directory = make([]uint32, tables)
	return binary.Read(io.NewSectionReader(d.r, int64(h.Directory)*sectorSize, 4*tables), binary.LittleEndian, d.directory)
}

// grains is how many there are, with holes.
func (d *Disk) grains() int64 { return (d.Capacity + d.grain - 1) / d.grain }

// where is the sector of a grain; 0: it is a hole, or all zeros.
func (d *Disk) where(i int64) (uint32, error) {
	if no := i / tableSize; no != d.tableNo {
		at := int64(d.directory[no]) * sectorSize
		d.tableNo = -1
		switch {
		case at == 0:
			clear(d.table[:])
		case at+4*tableSize > d.size:
			return 0, errors.New("a grain table is beyond its end; was it cut off?")
		default:
			if err := binary.Read(io.NewSectionReader(d.r, at, 4*tableSize), binary.LittleEndian, d.table[:]); err != nil {
				return 0, err
			}
		}
		d.tableNo = no
	}
	s := d.table[i%tableSize]
	if s == 1 { // "zeroed", where the header's version is 2
		s = 0
	}
	return s, nil
}

// read fills b with a grain; a hole is zeros.
func (d *Disk) read(i int64, b []byte) error {
	sector, err := d.where(i)
	if err != nil {
		return err
	}
	clear(b)
	if sector == 0 {
		return nil
	}
	at := int64(sector) * sectorSize
	if !d.packed {
		n, err := d.r.ReadAt(b, at)
		// The last grain may be cut at the end of the disk.
		if rest := d.Capacity - i*d.grain; err == io.EOF && int64(n) >= min(rest, d.grain) {
			err = nil
		}
		return err
	}
	var mark [12]byte
	if _, err := d.r.ReadAt(mark[:], at); err != nil {
		return fmt.Errorf("grain %d: %w", i, err)
	}
	if lba := binary.LittleEndian.Uint64(mark[:]); lba != uint64(i*d.grain/sectorSize) {
		return fmt.Errorf("grain %d says that it is at sector %d", i, lba)
	}
	n := binary.LittleEndian.Uint32(mark[8:])
	z, err := zlib.NewReader(io.NewSectionReader(d.r, at+12, int64(n)))
	if err != nil {
		return fmt.Errorf("grain %d: %w", i, err)
	}
	if n, err := io.ReadFull(z, b); err != nil && (err != io.ErrUnexpectedEOF || int64(n) < min(d.Capacity-i*d.grain, d.grain)) {
		return fmt.Errorf("grain %d: %w", i, err)
	}
	// The checksum is looked at only when the end is read.
	if _, err := z.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("grain %d: %w", i, cmp.Or(err, errors.New("it is too long")))
	}
	return nil
}

// WriteRaw writes the disk as a guest sees it: Capacity bytes.
func (d *Disk) WriteRaw(w io.Writer) error {
	b := make([]byte, d.grain)
	for i := range d.grains() {
		if err := d.read(i, b); err != nil {
			return fmt.Errorf("cannot read the disk: %w", err)
		}
		if _, err := w.Write(b[:min(d.grain, d.Capacity-i*d.grain)]); err != nil {
			return err
		}
	}
	return nil
}

// Check reads all of the disk, so that one that is damaged is found before it
// is sent anywhere.
func (d *Disk) Check() error { return d.WriteRaw(io.Discard) }
