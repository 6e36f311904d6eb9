package config

import (
	"fmt"
	"net/url"
	"regexp"

	"github.com/goccy/go-yaml/ast"

	"bootd/boot"
)

var (
	builtin   = regexp.MustCompile(`^(fedora-coreos/(stable|testing|next)|flatcar/(stable|beta|alpha|lts))$`)
	imageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,3}$`)
	version   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)
	hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// image reads one entry of images.
func (l *loader) image(d *document, name string, k, v ast.Node) {
	s := ImageSource{Name: name, Origin: d.origin(k)}
	if !imageName.MatchString(name) {
		d.wrong(k, fmt.Sprintf("%q cannot be the name of an image", clip(name)), "use letters, digits, dots, hyphens and slashes between words: lab/debian-13")
	}
	family := ""
	d.mapping(v, "image "+name, fields{
		"family":   d.one(&family, string(boot.FedoraCoreOS), string(boot.Flatcar), string(boot.Linux)),
		"cpu":      d.one(&s.CPU, "x86_64", "aarch64"),
		"version":  d.into(&s.Version, d.checkVersion),
		"path":     l.path(d, &s.Path),
		"mirror":   d.into(&s.Mirror, d.checkURL),
		"insecure": d.yes(&s.Insecure),
		"kernel":   func(key string, v ast.Node) { s.Kernel = d.remote(key, v) },
		"rootfs":   func(key string, v ast.Node) { s.RootFS = d.remote(key, v) },
		"initrds": func(key string, v ast.Node) {
			d.list(v, func(n ast.Node) {
				if r := d.remote(key, n); r != nil {
					s.Initrds = append(s.Initrds, *r)
				}
			})
		},
	})
	s.Family = boot.Family(family)
	switch known := builtin.MatchString(name); {
	case s.Mirror != "" && !known:
		d.wrong(k, fmt.Sprintf("image %q cannot have a mirror", name), "only fedora-coreos/STREAM and flatcar/CHANNEL have; use path, or kernel and initrds with their digests")
	case s.Path != "" && s.Kernel != nil:
		d.wrong(k, fmt.Sprintf("image %q has both a path and a kernel", name), "keep one of them")
	case !known && s.Path == "" && s.Kernel == nil:
		d.wrong(k, fmt.Sprintf("image %q says nothing of where it is", name), "add path: DIRECTORY, or kernel: {url, sha256} and initrds")
	case s.Kernel != nil && family == "":
		d.wrong(k, fmt.Sprintf("image %q has no family", name), "add family: fedora-coreos, flatcar or linux")
	}
	l.config.Images = append(l.config.Images, s)
}

func (d *document) remote(what string, v ast.Node) *Remote {
	var r Remote
	if !d.mapping(v, what, fields{
		"url":       d.into(&r.URL, d.checkURL),
		"sha256":    d.into(&r.SHA256, d.checkDigest),
		"signature": d.into(&r.Signature, d.checkURL),
	}) {
		return nil
	}
	if r.URL == "" {
		d.wrong(v, what+" has no url", "add url: and sha256:")
	} else if r.SHA256 == "" {
		d.wrong(v, what+" has no sha256", "add the digest that the file must have, as sha256sum prints it")
	}
	return &r
}

func (d *document) checkVersion(v ast.Node, s string) {
	if !version.MatchString(s) {
		d.wrong(v, fmt.Sprintf("%q cannot be a version", clip(s)), "use letters, digits, dots and hyphens, as 13.1-rc2")
	}
}

func (d *document) checkURL(v ast.Node, s string) {
	if u, err := url.Parse(s); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		d.wrong(v, fmt.Sprintf("%q is not a URL that can be fetched", s), "write it as https://host/path")
	}
}

func (d *document) checkDigest(v ast.Node, s string) {
	if !hexDigest.MatchString(s) {
		d.wrong(v, fmt.Sprintf("%q is not a SHA-256 digest", clip(s)), "it has 64 hexadecimal digits, in lower case, as sha256sum prints them")
	}
}
