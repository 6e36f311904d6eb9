package ignition

import (
	"bytes"
	"fmt"

	"github.com/cavaliergopher/cpio"
)

// Wrap puts an Ignition config into an archive that is loaded as a further
// initrd, for machines that cannot fetch theirs. It holds the config twice:
//
//	config.ign                 where CoreOS live images look
//	usr/share/oem/config.ign   where Flatcar's initramfs looks, told by
//	                           flatcar.config.url=oem:///config.ign
//
// so that one archive is right for both.
//
// The archive is in the newc format, which is the only one the kernel unpacks,
// and not compressed: a config is a few kilobytes, its larger contents are
// compressed inside already, and a plain archive needs no decompressor in the
// kernel. Its length is a multiple of 512, so that what follows it in memory
// begins aligned, as the kernel demands of the archives it finds in a row.
// Equal configs give equal archives.
func Wrap(config []byte) []byte {
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	dir := func(name string) { add(w, &cpio.Header{Name: name, Mode: cpio.TypeDir | 0o755, Links: 2}, nil) }
	file := func(name string) {
		add(w, &cpio.Header{Name: name, Mode: cpio.TypeReg | 0o600, Size: int64(len(config))}, config)
	}
	file("config.ign")
	dir("usr")
	dir("usr/share")
	dir("usr/share/oem")
	file("usr/share/oem/config.ign")
	if err := w.Close(); err != nil {
		panic(fmt.Sprintf("ignition: writing an archive to memory: %v", err))
	}
	b.Write(make([]byte, -b.Len()&511))
	return b.Bytes()
}

// add writes one member. A buffer cannot fail and sizes are our own, so there
// is no error that an input could cause.
func add(w *cpio.Writer, h *cpio.Header, content []byte) {
	err := w.WriteHeader(h)
	if err == nil {
		_, err = w.Write(content)
	}
	if err != nil {
		panic(fmt.Sprintf("ignition: writing %s to memory: %v", h.Name, err))
	}
}
