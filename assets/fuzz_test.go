package assets

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzParseStream feeds what a broken or hostile mirror could send. Whatever is
// accepted has names, digests and URLs that cannot lead anywhere else.
func FuzzParseStream(f *testing.F) {
	sample, err := os.ReadFile("testdata/stream.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parseStream(text, "x86_64")
		if err != nil {
			return
		}
		p.image.Name = "fedora-coreos/fuzz"
		if len(p.parts) != 3 || p.parts[0].role != kernel || p.parts[1].role != initrd || p.parts[2].role != rootfs {
			t.Fatalf("parts: %+v", p.parts)
		}
		if err := checkVersion(p.image.Version); err != nil || !p.pinned {
			t.Fatalf("version %q: %v", p.image.Version, err)
		}
		for _, pt := range p.parts {
			if filepath.Base(pt.name) != pt.name || strings.HasPrefix(pt.name, ".") || len(pt.sha256) != 64 {
				t.Fatalf("part: %+v", pt)
			}
			if !strings.HasPrefix(pt.url, "http") && !strings.HasPrefix(pt.url, "HTTP") {
				t.Fatalf("URL: %q", pt.url)
			}
		}
	})
}

// FuzzParsePath feeds what a neighbour could ask for. A path that passes has one
// meaning: put together again it is the same, and its parts are plain names.
func FuzzParsePath(f *testing.F) {
	d := strings.Repeat("0123456789abcdef", 4)
	for _, p := range []string{
		Prefix + d + "/rootfs.img", Prefix + d + "/../lock", Prefix + d + "/", Prefix + d[1:] + "/x", Prefix, "/",
		Prefix + d + "/a%2fb", Prefix + d + "/\x00", Prefix + strings.ToUpper(d) + "/x", Prefix + d + "/x\n",
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		digest, name, ok := parsePath(p)
		if !ok {
			return
		}
		if Prefix+digest+"/"+name != p {
			t.Fatalf("%q became %q and %q", p, digest, name)
		}
		if len(digest) != 64 || strings.Trim(digest, "0123456789abcdef") != "" {
			t.Fatalf("digest %q", digest)
		}
		if filepath.Join("/", name) != "/"+name || strings.ContainsAny(name, "/\\\x00\n") || !filepath.IsLocal(name) {
			t.Fatalf("name %q", name)
		}
	})
}

// FuzzSignature feeds what a mirror could serve as a signature.
func FuzzSignature(f *testing.F) {
	f.Add([]byte("-----BEGIN PGP SIGNATURE-----\n\niHUEABYIAB0WIQQ=\n-----END PGP SIGNATURE-----\n"))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sig, err := parseSignature(data)
		if err == nil && len(sig.issuers) == 0 {
			t.Fatal("a signature of nobody was accepted")
		}
	})
}
