package ipxe

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"path"
	"time"

	"bootd/boot"
)

// A Transfer is one answered request for a file of an image. Its fields are
// those of the asset store's type of this name.
type Transfer struct {
	Digest string // SHA-256, as asked for
	Name   string // file name, as asked for
	Status int    // HTTP status
	Size   int64  // of the whole file, in bytes

	Offset   int64         // of the first byte sent
	Bytes    int64         // sent
	Took     time.Duration // from the request to the last byte
	Complete bool          // every byte of the answer was sent
}

// Served is told of each request that Config.Assets has answered. A file that a
// machine now has becomes an event of its boot.
func (h *Handler) Served(r *http.Request, t Transfer) {
	q := request{Request: r, addr: clientAddr(r)}
	h.access(q, t.Status, t.Bytes, t.Took)
	if r.Method == http.MethodGet {
		h.Delivered(q.addr, t)
	}
}

// Delivered is told of a file of an image that a client has fetched, by whatever
// protocol. A file that a machine now has becomes an event of its boot.
func (h *Handler) Delivered(to netip.Addr, t Transfer) {
	// A client that goes on where it was interrupted is done at the last byte.
	if !t.Complete || t.Bytes == 0 || t.Offset+t.Bytes != t.Size {
		return
	}
	tl, ok := h.Boots.ByAddr(to)
	if !ok {
		return
	}
	a, err := h.Assign(h.inventory(tl.MAC, to))
	if err != nil || a.Profile == nil {
		return
	}
	img, ok := h.Image(a.Profile.Image, cpuOf(a.Inventory))
	if !ok {
		return
	}
	stage, client, name := part(img, t.Digest)
	if stage == "" {
		return
	}
	if client == "" {
		client = loaderOf(tl)
	}
	h.Boots.Record(boot.Event{
		Time: time.Now(), MAC: tl.MAC, Stage: stage, Client: client, Addr: to,
		Text: cmp.Or(t.Name, name), Bytes: t.Bytes, Took: t.Took,
	})
}

// part tells what a file is in an image, who fetches it (empty: the loader), and
// what it is called there; nothing if it is none of the image's.
func part(img boot.Image, digest string) (boot.Stage, boot.Client, string) {
	if img.Kernel.SHA256 == digest {
		return boot.Kernel, "", img.Kernel.Name
	}
	for _, f := range img.Initrds {
		if f.SHA256 == digest {
			return boot.Initrd, "", f.Name
		}
	}
	if img.RootFS != nil && img.RootFS.SHA256 == digest {
		return boot.RootFS, boot.Initramfs, img.RootFS.Name
	}
	return "", "", ""
}

// loaderOf is the loader that got the script of a boot.
func loaderOf(tl boot.Timeline) boot.Client {
	for _, s := range tl.Steps {
		if s.Stage == boot.Script && s.Client != "" {
			return s.Client
		}
	}
	return boot.IPXE
}

// serveLoader answers /loader/<name>. It reports false when there is none.
func (h *Handler) serveLoader(w http.ResponseWriter, q request, name string) bool {
	start := time.Now()
	if !fs.ValidPath(name) {
		return false
	}
	f, err := h.Loaders.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		h.Log.Error("loader cannot be read", "file", name, "err", err)
		h.write(w, q, text(http.StatusInternalServerError, "this loader cannot be read"), start)
		return true
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	// EDK2 tells by the type what to do with the file (HttpBootDxe).
	kind := typeData
	if path.Ext(name) == ".efi" {
		kind = typeEFI
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	c := &counter{ResponseWriter: w}
	http.ServeContent(c, q.Request, name, time.Time{}, f)
	took := time.Since(start)
	h.access(q, c.status, c.n, took)
	if c.status == http.StatusOK && c.n == st.Size() && !q.head {
		h.Boots.Record(boot.Event{
			Time: time.Now(), Stage: boot.Loader, Client: boot.Firmware, Addr: q.addr,
			Text: name + " by HTTP", Bytes: c.n, Took: took,
		})
	}
	return true
}

// A counter counts what passes through a ResponseWriter. It hands ReadFrom on,
// because net/http sends a file without copying it only through that.
type counter struct {
	http.ResponseWriter
	status int
	n      int64
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n += int64(n)
	return n, err
}

// ReadFrom implements [io.ReaderFrom].
func (c *counter) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, r)
	c.n += n
	return n, err
}

// Unwrap is for [http.ResponseController].
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
