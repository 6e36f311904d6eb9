package assets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// A Progress is told how a fetch goes on. Several files are fetched at once, so
// its methods are called by several goroutines, but for one name by one only.
type Progress interface {
	// Start begins a file of size bytes, or -1 when that is not known.
	Start(name string, size int64)
	// Add says that n more bytes are there. What an earlier fetch left counts
	// too; n is negative when a file has to be started over.
	Add(name string, n int64)
	// Retry says that after err the next attempt follows after wait.
	Retry(name string, err error, wait time.Duration)
	// Done says that the file is complete and verified.
	Done(name string)
}

// silence is the Progress of those who want none.
type silence struct{}

func (silence) Start(string, int64)                {}
func (silence) Add(string, int64)                  {}
func (silence) Retry(string, error, time.Duration) {}
func (silence) Done(string)                        {}

// maxShown is how many files of an image are shown one by one. ESXi has some 150.
const maxShown = 12

// together shows many files as one.
type together struct {
	p    Progress
	name string
}

func (together) Start(string, int64)     {}
func (t together) Add(_ string, n int64) { t.p.Add(t.name, n) }
func (t together) Retry(name string, err error, wait time.Duration) {
	t.p.Retry(t.name, fmt.Errorf("%s: %w", name, err), wait)
}
func (together) Done(string) {}

// origin is kept beside a partial file, to tell whether what the server has now
// is still the same file. It is written before the first byte of the file.
type origin struct {
	URL          string `json:"url"`
	Size         int64  `json:"size"` // -1: not told
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`
}

// validator is what If-Range takes (RFC 9110 section 13.1.5): a strong ETag or
// a date.
func (o origin) validator() string {
	if o.ETag != "" && !strings.HasPrefix(o.ETag, "W/") {
		return o.ETag
	}
	return o.LastModified
}

// A download is one file on its way into a partial folder.
type download struct {
	g     *getter
	part  part
	path  string // of the partial file
	p     Progress
	shown int64 // bytes that p knows of
	f     *os.File
	room  func(need int64) error // whether that much fits on the disk

	resumed bool // a part was there before
}

// run gets the file, whole and synced. After an error what is there can be
// resumed.
func (d *download) run(ctx context.Context) (err error) {
	// A process with another user may have left it: then the owner of the
	// folder may still remove it.
	d.f, err = os.OpenFile(d.path, os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, os.ErrPermission) && os.Remove(d.path) == nil {
		d.f, err = os.OpenFile(d.path, os.O_RDWR|os.O_CREATE, 0o644)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.f.Close()) }()
	tell := func(err error, wait time.Duration) { d.p.Retry(d.part.name, err, wait) }
	if err := d.g.retry(ctx, tell, func() (int64, error) { return d.attempt(ctx) }); err != nil {
		return err
	}
	return d.f.Sync()
}

// have returns how much of the file is there and can be used, and of what.
func (d *download) have() (int64, origin) {
	var o origin
	st, err := d.f.Stat()
	if err != nil {
		return 0, o
	}
	text, err := os.ReadFile(d.path + ".json")
	if err != nil || json.Unmarshal(text, &o) != nil || o.URL != d.part.shown() {
		return 0, origin{}
	}
	// Without a digest to compare in the end, and without a way to ask for the
	// rest of the same file, a changed file would go unnoticed.
	if o.validator() == "" && d.part.sha256 == "" {
		return 0, origin{}
	}
	return st.Size(), o
}

// attempt makes one request for what is missing, and returns how much it
// brought.
func (d *download) attempt(ctx context.Context) (int64, error) {
	off, o := d.have()
	header := http.Header{}
	if off > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", off))
		if v := o.validator(); v != "" {
			header.Set("If-Range", v)
		}
	}
	resp, err := d.g.do(ctx, http.MethodGet, d.part.url, header)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		off = 0
		o = origin{d.part.shown(), resp.ContentLength, resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")}
		if err := d.restart(&o); err != nil {
			return 0, err
		}
	case off > 0 && resp.StatusCode == http.StatusPartialContent:
		if !continues(resp.Header.Get("Content-Range"), off, &o) {
			return 0, errors.Join(d.restart(nil), fmt.Errorf("GET %s: the server sent another part than the one asked for", d.part.shown()))
		}
		d.resumed = true
	case off > 0 && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		// With If-Range it is still the same file, so nothing is missing.
		if o.validator() != "" && (o.Size < 0 || o.Size == off) {
			d.resumed = true
			d.show(off)
			return 0, nil
		}
		return 0, errors.Join(d.restart(nil), badRange(resp, off))
	default:
		return 0, badStatus(resp)
	}
	d.show(off)
	return d.body(resp, off, o.Size)
}

func badRange(resp *http.Response, off int64) error {
	return fmt.Errorf("GET %s: the server has less than the %d bytes that are here; starting over", resp.Request.URL.Redacted(), off)
}

// continues reports whether a Content-Range begins at off and is of the file o.
func continues(contentRange string, off int64, o *origin) bool {
	var first, last, size int64
	if n, _ := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &first, &last, &size); n == 3 {
		if o.Size >= 0 && o.Size != size {
			return false
		}
		o.Size = size
	} else if n < 2 { // the size may be *
		return false
	}
	return first == off
}

// restart drops what is there, and remembers what comes instead.
func (d *download) restart(o *origin) error {
	d.resumed = false
	if err := d.f.Truncate(0); err != nil {
		return finalError{err}
	}
	d.show(0)
	if o == nil {
		return nil
	}
	text, err := json.Marshal(o)
	if err != nil {
		return finalError{err}
	}
	temp := d.path + ".json.new"
	err = os.WriteFile(temp, text, 0o644)
	if err == nil {
		err = os.Rename(temp, d.path+".json")
	}
	if err != nil {
		return finalError{diskError(err)}
	}
	return nil
}

// show tells the Progress that n bytes are there.
func (d *download) show(n int64) {
	if n != d.shown {
		d.p.Add(d.part.name, n-d.shown)
		d.shown = n
	}
}

// body writes the body of an answer at off. size is that of the whole file.
func (d *download) body(resp *http.Response, off, size int64) (int64, error) {
	if size >= 0 {
		if err := d.room(size - off); err != nil {
			return 0, finalError{err}
		}
	}
	if _, err := d.f.Seek(off, io.SeekStart); err != nil {
		return 0, finalError{err}
	}
	at := off
	buf := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if size >= 0 && at+int64(n) > size {
				return 0, finalError{fmt.Errorf("GET %s: the server sent more than the %d bytes it promised", resp.Request.URL.Redacted(), size)}
			}
			if _, err := d.f.Write(buf[:n]); err != nil {
				return 0, finalError{diskError(err)}
			}
			at += int64(n)
			d.show(at)
		}
		switch {
		case err == io.EOF && size >= 0 && at < size, errors.Is(err, io.ErrUnexpectedEOF):
			return at - off, fmt.Errorf("GET %s: the connection ended after %d bytes", resp.Request.URL.Redacted(), at)
		case err == io.EOF:
			return at - off, nil
		case err != nil:
			return at - off, fmt.Errorf("GET %s: %w", resp.Request.URL.Redacted(), err)
		}
	}
}

func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w; make room (\"bootd asset rm\" removes old versions) and run the same again: it goes on where it stopped", err)
	}
	return err
}

// freeSpace returns how many bytes fit on the file system of dir.
func freeSpace(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("cannot find the free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
