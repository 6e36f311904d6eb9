package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"strings"
	"time"

	"bootd/assets"
	"bootd/boot/ipxe"
	"bootd/boot/tftp"
)

// askedByTFTP finds what GRUB and U-Boot ask for: their scripts, which name the
// files of images as sha256/<digest>.
func askedByTFTP(h *ipxe.Handler, images *assets.Store, base func(netip.Addr) string) tftp.Asker {
	return func(ctx context.Context, name string, client, server netip.Addr) (tftp.Content, error) {
		if digest, ok := strings.CutPrefix(name, "sha256/"); ok {
			f, size, err := images.OpenFile(digest)
			if err != nil {
				return tftp.Content{}, err
			}
			return tftp.Content{ReadCloser: f, Size: size, Sent: func(n int64, took time.Duration) {
				h.Delivered(client, ipxe.Transfer{Digest: digest, Size: size, Bytes: n, Took: took, Complete: n == size})
			}}, nil
		}
		text, sent, ok := h.File(ctx, name, client, base(server))
		if !ok {
			return tftp.Content{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		return tftp.Content{ReadCloser: io.NopCloser(bytes.NewReader(text)), Size: int64(len(text)), Sent: func(_ int64, took time.Duration) { sent(took) }}, nil
	}
}
