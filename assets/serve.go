package assets

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// Prefix begins the path of every file: Prefix + digest + "/" + name.
const Prefix = "/assets/sha256/"

// A Transfer is one answered request for a file.
type Transfer struct {
	Digest string // SHA-256, as asked for
	Name   string // file name, as asked for
	Status int    // HTTP status: 200, 206; 304, 404, 416...
	Size   int64  // of the whole file, in bytes; 0 when there is none

	Offset int64         // of the first byte sent
	Bytes  int64         // sent, as far as the kernel took them
	Took   time.Duration // from the request to the last byte
	// Complete reports that every byte of the answer was sent. The file's end
	// was part of it when Offset+Bytes is Size.
	Complete bool
}

// Handler serves the files of the store at [Prefix] by GET and HEAD, with
// ranges, never with a redirect. What a URL names never changes, and says so.
//
// served may be nil; it is called after each request whose path is well formed,
// by the goroutine that served it.
//
// The ResponseWriter should be that of net/http, or one that has ReadFrom too:
// through it files go from the page cache to the socket without a copy.
func (s *Store) Handler(served func(*http.Request, Transfer)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		digest, name, ok := parsePath(r.URL.Path)
		if !ok {
			http.Error(w, "not found: files are at "+Prefix+"<digest>/<name>", http.StatusNotFound)
			return
		}
		if served == nil {
			s.serve(w, r, digest, name)
			return
		}
		start := time.Now()
		c := &counter{ResponseWriter: w}
		t := Transfer{Digest: digest, Name: name, Size: s.serve(c, r, digest, name)}
		t.Took = time.Since(start)
		t.Status = c.status
		t.Offset, t.Bytes, t.Complete = c.sent(r.Method)
		served(r, t)
	})
}

// parsePath takes the path of a file's URL apart. Only what cannot mean
// anything else passes: no escapes, no dots alone, no other folders.
func parsePath(p string) (digest, name string, ok bool) {
	rest, ok := strings.CutPrefix(p, Prefix)
	if !ok {
		return "", "", false
	}
	digest, name, ok = strings.Cut(rest, "/")
	if !ok || !digestPattern.MatchString(digest) || !filePattern.MatchString(name) {
		return "", "", false
	}
	return digest, name, true
}

// serve answers a request and returns the size of the file.
func (s *Store) serve(w http.ResponseWriter, r *http.Request, digest, name string) int64 {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are possible", http.StatusMethodNotAllowed)
		return 0
	}
	f, err := os.Open(s.blobPath(digest))
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, name+" is not in the store (any more); its image was removed, or replaced by a newer one", http.StatusNotFound)
		return 0
	}
	if err != nil {
		http.Error(w, name+" cannot be read", http.StatusInternalServerError)
		return 0
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		http.Error(w, name+" cannot be read", http.StatusInternalServerError)
		return 0
	}
	h := w.Header()
	h.Set("ETag", `"`+digest+`"`)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Content-Type", contentType(name))
	h.Set("X-Content-Type-Options", "nosniff")
	// No modification time: the ETag says more, and a client that compares
	// dates would take an older version for the newer.
	http.ServeContent(w, r, name, time.Time{}, f)
	return st.Size()
}

// contentType is what firmware goes by when it boots over HTTP (EDK2
// HttpBootDxe); everything else is data.
func contentType(name string) string {
	if strings.EqualFold(path.Ext(name), ".efi") {
		return "application/efi"
	}
	return "application/octet-stream"
}

// A counter counts what passes through a ResponseWriter. It hands ReadFrom on,
// because net/http sends a file without copying it only through that.
type counter struct {
	http.ResponseWriter
	status int
	n      int64
}

func (c *counter) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	n, err := c.ResponseWriter.Write(b)
	c.n += int64(n)
	return n, err
}

// ReadFrom implements [io.ReaderFrom].
func (c *counter) ReadFrom(r io.Reader) (int64, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	n, err := io.Copy(c.ResponseWriter, r)
	c.n += n
	return n, err
}

// Unwrap is for [http.ResponseController].
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// sent says which bytes of the file were sent, and whether they are all that
// the answer was to have.
func (c *counter) sent(method string) (off, n int64, complete bool) {
	h := c.Header()
	switch c.status {
	case http.StatusOK:
	case http.StatusPartialContent:
		// Absent from an answer with several ranges; those begin at 0 as far as
		// anybody can use it.
		first, _, _ := strings.Cut(strings.TrimPrefix(h.Get("Content-Range"), "bytes "), "-")
		off, _ = strconv.ParseInt(first, 10, 64)
	default:
		return 0, 0, false
	}
	if method == http.MethodHead {
		return off, 0, true
	}
	length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	return off, c.n, err == nil && c.n == length
}

// OpenFile opens the file with a digest, for whoever serves it in another way than
// [Store.Handler] does. The error for what is not there, or is no digest, wraps
// [fs.ErrNotExist].
func (s *Store) OpenFile(digest string) (*os.File, int64, error) {
	if !digestPattern.MatchString(digest) {
		return nil, 0, fmt.Errorf("%q is not a digest: %w", digest, fs.ErrNotExist)
	}
	f, err := os.Open(s.blobPath(digest))
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}
