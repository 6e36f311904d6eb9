package ipxe

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"bootd/boot"
)

// byTFTP is the path by which a file that has the URL u is fetched by TFTP: names
// are short there (U-Boot takes 127 characters), so a file of an image is named by
// its digest alone.
func byTFTP(u, base string) string {
	path := strings.TrimPrefix(u, base)
	if rest, ok := strings.CutPrefix(path, "/assets/sha256/"); ok {
		digest, _, _ := strings.Cut(rest, "/")
		return "/sha256/" + digest
	}
	return path
}

// File answers a client that asks by a protocol other than HTTP for a file with a
// name: what GRUB and U-Boot look for by themselves, and what those name. base is
// the root of bootd's URLs for it. sent is to be called when the client has the
// file. It reports false when there is no such file.
func (h *Handler) File(ctx context.Context, name string, client netip.Addr, base string) (body []byte, sent func(took time.Duration), ok bool) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/"+name, nil)
	if err != nil {
		return nil, nil, false
	}
	q := request{Request: r, addr: client, base: base, to: grubDialect{}}
	var a answer
	switch {
	case r.URL.Path == grubFirst:
		a = script200(GRUBFirst(base, newRun()))
	case r.URL.Path == grubAsks:
		a = h.askedScript(q)
	case strings.HasPrefix(r.URL.Path, pxelinuxFolder):
		mac, ok := h.uboot(strings.TrimPrefix(r.URL.Path, pxelinuxFolder))
		if !ok {
			return nil, nil, false
		}
		q.to = extlinuxDialect{}
		a = h.machineScript(q, boot.Inventory{MAC: mac})
	case strings.HasPrefix(r.URL.Path, "/initrd/"):
		ticket, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/initrd/"), "/config.cpio")
		if !ok {
			return nil, nil, false
		}
		a = h.config(q, ticket, true)
	default:
		return nil, nil, false
	}
	if a.sent == nil {
		a.sent = func(time.Duration) {}
	}
	return a.body, a.sent, a.status == http.StatusOK
}

// uboot reads whose file is asked for, and reports whether that machine boots by
// U-Boot: pxelinux asks for files of the same names, and is the operator's.
func (h *Handler) uboot(name string) (boot.MAC, bool) {
	mac, err := boot.ParseMAC(name)
	if err != nil {
		return mac, false
	}
	tl, ok := h.Boots.Current(mac)
	return mac, ok && tl.Arch.UBoot()
}
