package vmdk

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	grainSectors = 128
	grainSize    = grainSectors * sectorSize
	descSectors  = 20
)

// descriptor is the text in which a disk describes itself.
func descriptor(kind, extent, adapter string, capacity uint64) string {
	if adapter == "" {
		adapter = "lsilogic"
	}
	heads, perTrack := uint64(255), uint64(63)
	if adapter == "ide" {
		heads = 16
	}
	return fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"%s\"\n\n# Extent description\n%s\n\n"+
		"# The Disk Data Base\n#DDB\n\nddb.adapterType = \"%s\"\nddb.geometry.cylinders = \"%d\"\nddb.geometry.heads = \"%d\"\nddb.geometry.sectors = \"%d\"\nddb.virtualHWVersion = \"10\"\n",
		kind, extent, adapter, max(1, min(capacity/(heads*perTrack), 65535)), heads, perTrack)
}

// Descriptor is the text of a disk whose content is the raw file flat, beside
// it.
func Descriptor(flat, adapter string, capacity int64) string {
	sectors := uint64(capacity+sectorSize-1) / sectorSize
	return descriptor("vmfs", fmt.Sprintf("RW %d VMFS \"%s\"", sectors, flat), adapter, sectors)
}

// ReadDescriptor is the capacity in bytes of the disk that a descriptor is of.
func ReadDescriptor(text string) (int64, error) {
	var total int64
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "RW" && f[0] != "RDONLY" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || n < 0 || n > MaxCapacity/sectorSize-total/sectorSize {
			return 0, fmt.Errorf("cannot read the descriptor: %q is no number of sectors", f[1])
		}
		total += n * sectorSize
	}
	if total == 0 {
		return 0, errors.New("cannot read the descriptor: it tells of no extent")
	}
	return total, nil
}

// Sparse is the form monolithicSparse of a disk, whose size is known before it
// is written.
type Sparse struct {
	d       *Disk
	Size    int64    // bytes
	present []uint64 // a bit for each grain of the new disk
	count   int64
}

// Sparse finds out which parts of a disk are written, so that the rest need not
// be.
func (d *Disk) Sparse() (*Sparse, error) {
	if d.grain != grainSize {
		return nil, fmt.Errorf("cannot convert the disk: its grains have %d bytes, not %d", d.grain, grainSize)
	}
	n := d.grains()
	s := &Sparse{d: d, present: make([]uint64, (n+63)/64)}
	for i := range n {
		sector, err := d.where(i)
		if err != nil {
			return nil, fmt.Errorf("cannot read the disk: %w", err)
		}
		if sector != 0 {
			s.present[i/64] |= 1 << (i % 64)
			s.count++
		}
	}
	if end := s.layout().grains + s.count*grainSectors; end > 1<<32-1 {
		return nil, errors.New("cannot convert the disk: more than 2 TiB of it are written")
	}
	s.Size = (s.layout().grains + s.count*grainSectors) * sectorSize
	return s, nil
}

// A layout says at which sectors the parts of a monolithicSparse disk begin.
type layout struct{ tables, directorySectors, redundant, directory, grains int64 }

func (s *Sparse) layout() layout {
	var l layout
	l.tables = (s.d.grains() + tableSize - 1) / tableSize
	l.directorySectors = (l.tables*4 + sectorSize - 1) / sectorSize
	one := l.directorySectors + l.tables*tableSize*4/sectorSize
	l.redundant = 1 + descSectors
	l.directory = l.redundant + one
	l.grains = (l.directory + one + grainSectors - 1) / grainSectors * grainSectors
	return l
}

// Write writes the disk: Size bytes. Name is the name that the file will have.
func (s *Sparse) Write(w io.Writer, name string) error {
	l := s.layout()
	capacity := uint64(s.d.Capacity / sectorSize)
	h := newHeader(redundantTable, capacity)
	h.RedundantDirectory, h.Directory, h.Overhead = uint64(l.redundant), uint64(l.directory), uint64(l.grains)
	o := &counter{w: w}
	o.binary(&h)
	o.text(descriptor("monolithicSparse", fmt.Sprintf("RW %d SPARSE \"%s\"", capacity, name), s.d.Adapter, capacity), descSectors)
	s.tables(o, l, l.redundant)
	s.tables(o, l, l.directory)
	o.padTo(l.grains * sectorSize)
	b := make([]byte, grainSize)
	for i := range s.d.grains() {
		if s.present[i/64]&(1<<(i%64)) == 0 {
			continue
		}
		if err := s.d.read(i, b); err != nil {
			return fmt.Errorf("cannot read the disk: %w", err)
		}
		if o.write(b); o.err != nil {
			return o.err
		}
	}
	return o.err
}

// tables writes a grain directory that is at a sector, and its grain tables.
func (s *Sparse) tables(o *counter, l layout, at int64) {
	directory := make([]uint32, l.directorySectors*sectorSize/4)
	for i := range l.tables {
		directory[i] = uint32(at + l.directorySectors + i*tableSize*4/sectorSize)
	}
	o.binary(directory)
	table, next, grains := make([]uint32, tableSize), l.grains, s.d.grains()
	for t := range l.tables {
		for i := range int64(tableSize) {
			g := t*tableSize + i
			table[i] = 0
			if g < grains && s.present[g/64]&(1<<(g%64)) != 0 {
				table[i] = uint32(next)
				next += grainSectors
			}
		}
		o.binary(table)
	}
}

// A counter writes until something fails.
type counter struct {
	w   io.Writer
	n   int64
	err error
}

func (o *counter) write(b []byte) {
	if o.err != nil {
		return
	}
	var n int
	n, o.err = o.w.Write(b)
	o.n += int64(n)
}

func (o *counter) binary(v any) {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, v); err != nil && o.err == nil {
		o.err = err
	}
	o.write(b.Bytes())
}

func (o *counter) padTo(n int64) {
	for o.n < n && o.err == nil {
		o.write(make([]byte, min(n-o.n, grainSize)))
	}
}

func (o *counter) text(s string, sectors int64) {
	end := o.n + sectors*sectorSize
	o.write([]byte(s))
	o.padTo(end)
}

func (o *counter) align() { o.padTo((o.n + sectorSize - 1) / sectorSize * sectorSize) }

// Markers of a stream.
const (
	markEnd       = 0
	markTable     = 1
	markDirectory = 2
	markFooter    = 3
)

func (o *counter) mark(sectors uint64, kind uint32) {
	var b [sectorSize]byte
	binary.LittleEndian.PutUint64(b[:], sectors)
	binary.LittleEndian.PutUint32(b[12:], kind)
	o.write(b[:])
}

// WriteStream writes size bytes of r, rounded up to whole sectors, as a
// streamOptimized disk. Grains of zeros are left out.
func WriteStream(w io.Writer, r io.Reader, size int64, adapter string) error {
	if size <= 0 || size > MaxCapacity {
		return fmt.Errorf("cannot write a disk of %d bytes", size)
	}
	capacity := uint64(size+sectorSize-1) / sectorSize
	h := newHeader(compressed|markers, capacity)
	h.Version, h.Compression, h.Directory, h.Overhead = 3, 1, atEnd, grainSectors
	s := &stream{counter: counter{w: w}}
	s.binary(&h)
	s.text(descriptor("streamOptimized", fmt.Sprintf("RW %d SPARSE \"disk.vmdk\"", capacity), adapter, capacity), descSectors)
	s.padTo(grainSize)
	b, zeros := make([]byte, grainSize), make([]byte, grainSize)
	left := size
	for i := uint64(0); i*grainSectors < capacity; i++ {
		n := min(left, grainSize)
		if _, err := io.ReadFull(r, b[:n]); err != nil {
			return fmt.Errorf("cannot read the disk: %w", err)
		}
		clear(b[n:])
		left -= n
		if !bytes.Equal(b, zeros) {
			s.grain(i, b)
		}
		if i%tableSize == tableSize-1 {
			s.flush()
		}
		if s.err != nil {
			return s.err
		}
	}
	if capacity%(tableSize*grainSectors) != 0 {
		s.flush()
	}
	return s.end(h)
}

// A stream writes a streamOptimized disk from its beginning to its end.
type stream struct {
	counter
	directory []uint32
	table     [tableSize]uint32
	used      bool // grains were written since the last table
	z         bytes.Buffer
	zw        *zlib.Writer
}

func (s *stream) grain(i uint64, b []byte) {
	s.z.Reset()
	if s.zw == nil {
		s.zw, _ = zlib.NewWriterLevel(&s.z, zlib.BestSpeed) // the level is a valid one
	}
	s.zw.Reset(&s.z)
	_, err := s.zw.Write(b)
	if err = errors.Join(err, s.zw.Close()); err != nil && s.err == nil {
		s.err = err
	}
	s.table[i%tableSize], s.used = uint32(s.n/sectorSize), true
	if s.n/sectorSize > 1<<32-1 && s.err == nil {
		s.err = errors.New("cannot write the disk: it would have more than 2 TiB")
	}
	var m [12]byte
	binary.LittleEndian.PutUint64(m[:], i*grainSectors)
	binary.LittleEndian.PutUint32(m[8:], uint32(s.z.Len()))
	s.write(m[:])
	s.write(s.z.Bytes())
	s.align()
}

// flush writes a grain table, unless it is of holes only.
func (s *stream) flush() {
	if !s.used {
		s.directory = append(s.directory, 0)
		return
	}
	s.mark(tableSize*4/sectorSize, markTable)
	s.directory = append(s.directory, uint32(s.n/sectorSize))
	s.binary(s.table[:])
	clear(s.table[:])
	s.used = false
}

func (s *stream) end(h header) error {
	sectors := uint64(len(s.directory)*4+sectorSize-1) / sectorSize
	s.mark(sectors, markDirectory)
	h.Directory = uint64(s.n / sectorSize)
	s.binary(s.directory)
	s.align()
	s.mark(1, markFooter)
	s.binary(&h)
	s.mark(0, markEnd)
	return s.err
}
