package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A Disk is what a directory's file system can do.
type Disk struct {
	Dir  string
	Free uint64        // bytes that an ordinary user can write
	Sync time.Duration // that a small write takes until it is safe, in the middle of several
	Err  error         // why Sync could not be found out
}

const (
	syncs    = 9                     // that are timed
	slowSync = 30 * time.Millisecond // 30 leases a second, one after another
	little   = 256 << 20             // leases and boots go on for a while
	some     = 3 << 30               // an image and the next one
)

// ReadDisk measures the file system of a directory, or of the nearest one above
// it that is there. It writes a small file there and removes it again.
func ReadDisk(dir string) (Disk, error) {
	d := Disk{Dir: dir}
	for {
		_, err := os.Stat(d.Dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || d.Dir == filepath.Dir(d.Dir) {
			return d, fmt.Errorf("cannot look at %s: %w", dir, err)
		}
		d.Dir = filepath.Dir(d.Dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.Dir, &st); err != nil {
		return d, fmt.Errorf("cannot look at the file system of %s: %w", d.Dir, err)
	}
	d.Free = st.Bavail * uint64(st.Bsize)
	if d.Dir == dir {
		d.Sync, d.Err = timeSync(dir)
	}
	return d, nil
}

func timeSync(dir string) (middle time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	var took []time.Duration
	for range syncs {
		began := time.Now()
		if _, err := f.Write(make([]byte, 128)); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, os.NewSyscallError("fdatasync", err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[syncs/2], nil
}

// move is how another directory is used. The systemd unit lets the server write
// to /var/lib/bootd only, and hides what is below /home.
const move = "move state_dir: chown -R bootd:bootd DIRECTORY, not below /home; and where systemd runs the server, systemctl edit bootd: [Service] ReadWritePaths=DIRECTORY"

// Findings judges the disk of the state directory.
func (d Disk) Findings() []Finding {
	free := fmt.Sprintf("%s has %.1f GiB free", d.Dir, float64(d.Free)/(1<<30))
	f := Finding{Check: "disk", Level: OK, Text: free}
	const remedy = "remove images that nobody needs (bootd asset list, bootd asset rm), or " + move
	switch {
	case d.Free < little:
		f.Level, f.Text, f.Remedy = Fault, fmt.Sprintf("%s has only %d MiB free; without room no address can be leased", d.Dir, d.Free>>20), remedy
	case d.Free < some:
		f.Level, f.Text, f.Remedy = Warning, free+", too little for an image and the next version of it", remedy
	}
	s := Finding{Check: "disk", Level: OK, Text: fmt.Sprintf("a lease is safe on it after %s", d.Sync.Round(10*time.Microsecond))}
	switch {
	case errors.Is(d.Err, unix.ENOSPC):
		return []Finding{f}
	case d.Err != nil:
		s.Level, s.Text, s.Remedy = Unknown, fmt.Sprintf("how fast it is was not tried: %v", d.Err), "run it as root"
	case d.Sync == 0:
		return []Finding{f}
	case d.Sync > slowSync:
		s.Level, s.Text = Warning, fmt.Sprintf("a lease is safe on it only after %s, and no address is given out before", d.Sync.Round(time.Millisecond))
		s.Remedy = "a disk that syncs faster helps, such as an SSD: " + move
	}
	return []Finding{f, s}
}
