package tftp

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"strings"
	"syscall"
)

// Files are the iPXE builds, by the names that [boot.LoaderFile] gives them.
// The error for an unknown name wraps [fs.ErrNotExist].
type Files interface {
	Open(name string) (*os.File, error)
}

// autoexec is the name of the script that iPXE looks for where it came from.
const autoexec = "autoexec.ipxe"

// A file is something to send.
type file struct {
	io.ReadCloser
	size   int64 // bytes
	loader bool  // that it was fetched is worth telling
}

// A tree is what can be fetched.
type tree struct {
	overlay *os.Root // nil: none
	loaders Files
	baseURL func(server netip.Addr) string
}

// open finds the file called name, which is clean, for a client that knows this
// machine as server. The error wraps [fs.ErrNotExist] when there is no such file.
func (t tree) open(name string, server netip.Addr) (file, error) {
	if t.overlay != nil {
		f, err := openBelow(t.overlay, name)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	if path.Base(name) == autoexec {
		text := autoexecScript(t.baseURL(server))
		return file{io.NopCloser(strings.NewReader(text)), int64(len(text)), false}, nil
	}
	f, err := t.loaders.Open(name)
	if err != nil {
		return file{}, err
	}
	return opened(f)
}

// openBelow opens a regular file below root. Everything else is as good as not
// there; opening a FIFO would even wait for a writer.
func openBelow(root *os.Root, name string) (file, error) {
	st, err := root.Stat(name)
	switch {
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return file{}, fs.ErrNotExist
	case err != nil:
		return file{}, err
	case !st.Mode().IsRegular():
		return file{}, fs.ErrNotExist
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return file{}, err
	}
	return opened(f)
}

func opened(f *os.File) (file, error) {
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("cannot read %s: it is not a regular file", f.Name())
	}
	if err != nil {
		f.Close()
		return file{}, err
	}
	return file{f, st.Size(), true}, nil
}

// autoexecScript leads iPXE to the first script. iPXE runs it before it has an
// address of its own. After ten attempts it goes on by itself, with DHCP.
func autoexecScript(base string) string {
	return `#!ipxe
set try:int32 0
:again
isset ${netX/ip} || dhcp ||
chain --replace --autofree ` + base + `/boot.ipxe ||
inc try
iseq ${try} 10 && exit 1 ||
sleep 2
goto again
`
}
