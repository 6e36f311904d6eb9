package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Files are the iPXE builds, by the names that [boot.LoaderFile] gives them.
// The error for an unknown name wraps [fs.ErrNotExist].
type Files interface {
	Open(name string) (*os.File, error)
}

// A Content is a file for one client.
type Content struct {
	io.ReadCloser
	Size int64 // bytes
	// Sent is called when the client has all of it; nil: nobody wants to know.
	Sent func(bytes int64, took time.Duration)
}

// An Asker finds files that are in no directory, such as a script that was made
// for the client. The error for an unknown name wraps [fs.ErrNotExist].
type Asker func(ctx context.Context, name string, client, server netip.Addr) (Content, error)

// autoexec is the name of the script that iPXE looks for where it came from.
const autoexec = "autoexec.ipxe"

// A file is something to send.
type file struct {
	Content
	loader bool // that it was fetched is worth telling
}

// A tree is what can be fetched.
type tree struct {
	overlay *os.Root // nil: none
	loaders Files
	others  Asker // nil: none
	baseURL func(server netip.Addr) string
}

// open finds the file called name, which is clean, for a client that knows this
// machine as server. The error wraps [fs.ErrNotExist] when there is no such file.
func (t tree) open(ctx context.Context, name string, client, server netip.Addr) (file, error) {
	f, err := t.openOverlay(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if path.Base(name) == autoexec {
		text := autoexecScript(t.baseURL(server))
		return file{Content: Content{ReadCloser: io.NopCloser(strings.NewReader(text)), Size: int64(len(text))}}, nil
	}
	l, err := t.loaders.Open(name)
	switch {
	case err == nil:
		return opened(l)
	case t.others == nil || !errors.Is(err, fs.ErrNotExist):
		return file{}, err
	}
	c, err := t.others(ctx, name, client, server)
	return file{Content: c}, err
}

// openOverlay opens a file of the overlay, where a Raspberry Pi's own folder holds
// what is only for it, and the rest is above.
func (t tree) openOverlay(name string) (file, error) {
	if t.overlay == nil {
		return file{}, fs.ErrNotExist
	}
	f, err := openBelow(t.overlay, name)
	if m := piFolder.FindString(name); m != "" && errors.Is(err, fs.ErrNotExist) {
		return openBelow(t.overlay, name[len(m):])
	}
	return f, err
}

// piFolder matches the folder that a Raspberry Pi asks for everything in: the last
// eight digits of its serial number or, if it is set up so, its MAC.
var piFolder = regexp.MustCompile(`^([0-9a-f]{8}|([0-9a-f]{2}-){5}[0-9a-f]{2})/`)

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
	return file{Content{ReadCloser: f, Size: st.Size()}, true}, nil
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
