// Package spool keeps the files that clients upload, in a directory: images of
// disks, as long as the images are there, and CD images, until they are on a host.
// An image is kept as a VMDK, whatever it came as, so that it can be sent to any
// host at any time.
//
// What a method has returned is on stable storage, and what was not finished, after
// a kill, is removed when the spool is opened again. A Spool may be used by any
// number of goroutines, of one process.
package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bootd/internal/esx/vmdk"
	"bootd/internal/fleet"
)

// A Spool is a directory.
type Spool struct{ dir string }

// What a file is, by the end of its name: as it was received; the disk of an image;
// what is known of that disk, which is written last; what is not whole.
const (
	received = ".received"
	disk     = ".vmdk"
	about    = ".json"
	part     = ".part"
)

// Open makes the directory, for nobody else to read, and removes what was not
// finished.
func Open(dir string) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep images: %w", err)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot keep images: %w", err)
	}
	for _, e := range list {
		if strings.HasSuffix(e.Name(), part) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("cannot keep images: %w", err)
			}
		}
	}
	return &Spool{dir}, nil
}

func (s *Spool) path(id, end string) (string, error) {
	if !fleet.IsUUID(id) {
		return "", fmt.Errorf("cannot keep %q: it is no ID", id)
	}
	return filepath.Join(s.dir, id+end), nil
}

// Receive keeps what is read under an ID, as it is, and returns its size. Nothing is
// kept when reading fails or ctx ends.
func (s *Spool) Receive(ctx context.Context, id string, r io.Reader) (int64, error) {
	path, err := s.path(id, received)
	if err != nil {
		return 0, err
	}
	var size int64
	err = s.write(path, func(w io.Writer) (err error) {
		size, err = io.Copy(w, reader{ctx, r})
		return err
	})
	return size, err
}

// A reader stops when ctx ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// write makes a file that is there only when it is whole, and durably.
func (s *Spool) write(path string, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(s.dir, filepath.Base(path)+"-*"+part)
	if err != nil {
		return fmt.Errorf("cannot keep a file: %w", err)
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot keep a file: %w", err), os.Remove(f.Name()))
	}
	return s.sync()
}

// sync makes names durable.
func (s *Spool) sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("cannot keep a file: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("cannot keep a file: %w", err)
	}
	return nil
}

// Import makes a VMDK of an image that was received. What is neither a VMDK nor an
// OVA is a [fleet.Error] with code [fleet.UnsupportedImageFileType]; a VMDK that is
// not streamOptimized, or damaged, one with [fleet.InvalidVMDKFormat]; an OVA without
// a description or a disk, one with [fleet.InvalidOVA]. One that was imported
// already stays as it is.
func (s *Spool) Import(ctx context.Context, id fleet.ImageID) (fleet.ImageDisk, error) {
	was, err := s.imported(id)
	if !errors.Is(err, fs.ErrNotExist) {
		return was, err
	}
	path, err := s.path(string(id), received)
	if err != nil {
		return fleet.ImageDisk{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return fleet.ImageDisk{}, fmt.Errorf("cannot import an image: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fleet.ImageDisk{}, fmt.Errorf("cannot import an image: %w", err)
	}
	from, settings := io.NewSectionReader(f, 0, info.Size()), []fleet.ImageSetting(nil)
	if !isVMDK(from) {
		if from, settings, err = openOVA(f, info.Size()); err != nil {
			return fleet.ImageDisk{}, err
		}
	}
	out, err := check(from)
	if err != nil {
		return fleet.ImageDisk{}, err
	}
	out.Settings = settings
	to, err := s.path(string(id), disk)
	if err != nil {
		return fleet.ImageDisk{}, err
	}
	if err := s.write(to, func(w io.Writer) error {
		_, err := io.Copy(w, reader{ctx, from})
		return err
	}); err != nil {
		return fleet.ImageDisk{}, err
	}
	return out, s.finish(id, out)
}

// imported is what is known of an image; an error that wraps [fs.ErrNotExist] if it
// was not imported.
func (s *Spool) imported(id fleet.ImageID) (fleet.ImageDisk, error) {
	var out fleet.ImageDisk
	path, err := s.path(string(id), about)
	if err != nil {
		return out, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return out, fmt.Errorf("cannot find an image: %w", err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return out, s.remove(string(id), received)
}

// finish notes what is known of a disk that is whole, and removes what it was made
// of.
func (s *Spool) finish(id fleet.ImageID, i fleet.ImageDisk) error {
	path, err := s.path(string(id), about)
	if err != nil {
		return err
	}
	if err := s.write(path, func(w io.Writer) error { return json.NewEncoder(w).Encode(i) }); err != nil {
		return err
	}
	return s.remove(string(id), received)
}

// isVMDK reports whether a file begins as sparse VMDKs do, or as descriptors of
// others do: the error about those is that of a VMDK.
func isVMDK(r io.ReaderAt) bool {
	b := make([]byte, 21)
	n, _ := r.ReadAt(b, 0)
	return strings.HasPrefix(string(b[:n]), "KDMV") || strings.HasPrefix(string(b[:n]), "# Disk DescriptorFile")
}

// check reads all of a disk.
func check(r *io.SectionReader) (fleet.ImageDisk, error) {
	d, err := vmdk.Open(r, r.Size())
	if err == nil && d.Type != "streamOptimized" {
		err = fmt.Errorf("it is of type %s", d.Type)
	}
	if err == nil {
		err = d.Check()
	}
	if err != nil {
		return fleet.ImageDisk{}, fleet.Errorf(fleet.InvalidVMDKFormat, "The image is no streamOptimized VMDK: %v. Convert it with `qemu-img convert -O vmdk -o subformat=streamOptimized`", err)
	}
	return fleet.ImageDisk{Size: r.Size(), Capacity: d.Capacity}, nil
}

// ImportRaw makes a VMDK of a raw disk of a size, in the place of what was there.
func (s *Spool) ImportRaw(ctx context.Context, id fleet.ImageID, r io.Reader, size int64) (fleet.ImageDisk, error) {
	path, err := s.path(string(id), disk)
	if err != nil {
		return fleet.ImageDisk{}, err
	}
	if err := s.write(path, func(w io.Writer) error { return vmdk.WriteStream(w, reader{ctx, r}, size, "lsilogic") }); err != nil {
		return fleet.ImageDisk{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return fleet.ImageDisk{}, fmt.Errorf("cannot keep a file: %w", err)
	}
	out := fleet.ImageDisk{Size: info.Size(), Capacity: (size + 511) / 512 * 512}
	return out, s.finish(id, out)
}

// Open opens the disk of an image, or what was received under an ID. The error for
// what is not there wraps [fs.ErrNotExist].
func (s *Spool) Open(id string) (*os.File, error) {
	path, err := s.path(id, disk)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(strings.TrimSuffix(path, disk) + received)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open a file: %w", err)
	}
	return f, nil
}

// Remove removes what is kept under an ID; what is not there is removed.
func (s *Spool) Remove(id string) error {
	return errors.Join(s.remove(id, about), s.remove(id, disk), s.remove(id, received))
}

func (s *Spool) remove(id, end string) error {
	path, err := s.path(id, end)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove a file: %w", err)
	}
	return nil
}

// IDs are those under which something is kept, in order.
func (s *Spool) IDs() ([]string, error) {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the files that are kept: %w", err)
	}
	var out []string
	for _, e := range list {
		if id, _, ok := strings.Cut(e.Name(), "."); ok && fleet.IsUUID(id) {
			out = append(out, id)
		}
	}
	return slices.Compact(out), nil
}
