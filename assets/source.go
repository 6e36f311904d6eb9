package assets

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/coreos/stream-metadata-go/stream"

	"bootd/boot"
)

// CoreOSBase is where Fedora publishes its CoreOS streams.
const CoreOSBase = "https://builds.coreos.fedoraproject.org"

// A Source is where an image comes from: [CoreOS], [Flatcar], [URLs], [Dir] or
// [ISO].
type Source interface {
	// resolve finds out which files make up the image now.
	resolve(ctx context.Context, g *getter) (plan, error)
}

// A plan says what to get for an image.
type plan struct {
	image  boot.Image // without its files
	source string     // for the record
	parts  []part
	signed bool // no file is taken without a signature
	pinned bool // the digests are known, so the files cannot be of different versions

	systemKeys []string // patterns of key files that count beside those of the operator
	keyHelp    string   // where to get the key
}

// A part is one file of a plan.
type part struct {
	role   role
	name   string
	url    string   // empty: path is set
	path   string   // of a local file
	within *section // where in that; nil: all of it
	sha256 string   // empty: not promised
	sig    string   // URL or path of the detached signature, which must be good; empty: none
	sums   string   // URL of a list of SHA-512 sums; empty: none
}

// shown is where the file is, for people: without a password.
func (f part) shown() string {
	if f.url == "" {
		return f.path
	}
	return redact(f.url)
}

func redact(addr string) string {
	if u, err := url.Parse(addr); err == nil {
		return u.Redacted()
	}
	return addr
}

type role int

const (
	kernel role = iota
	initrd
	rootfs
	mbootEFI // those of ESXi, in the order of [boot.ESXiMedium.Files]
	mbootBIOS
	mbootCrypto
	pxelinux
)

// SourceOf returns the source that an image's name tells: fedora-coreos/<stream>
// or flatcar/<channel>. cpu is x86_64 or aarch64. It reports false for other
// names.
func SourceOf(name, cpu string) (Source, bool) {
	family, rest, _ := strings.Cut(name, "/")
	if rest == "" || strings.Contains(rest, "/") {
		return nil, false
	}
	switch boot.Family(family) {
	case boot.FedoraCoreOS:
		return CoreOS{Stream: rest, CPU: cpu}, true
	case boot.Flatcar:
		return Flatcar{Channel: rest, CPU: cpu}, true
	}
	return nil, false
}

// CoreOS is the current release of a Fedora CoreOS stream.
type CoreOS struct {
	Stream string // stable, testing, next
	CPU    string // x86_64 when empty
	Name   string // of the image; fedora-coreos/<Stream> when empty

	// Base is a mirror of [CoreOSBase]. Locations in the metadata that begin
	// with CoreOSBase are looked up below Base, so a mirror need not change it.
	Base string

	Insecure bool // do without signatures
}

func (c CoreOS) resolve(ctx context.Context, g *getter) (plan, error) {
	c.CPU = cmp.Or(c.CPU, "x86_64")
	base := strings.TrimRight(cmp.Or(c.Base, CoreOSBase), "/")
	if !filePattern.MatchString(c.Stream) {
		return plan{}, fmt.Errorf("%q cannot be a stream of Fedora CoreOS", c.Stream)
	}
	at := base + "/streams/" + c.Stream + ".json"
	text, err := g.small(ctx, at, 16<<20)
	if err != nil {
		if isMissing(err) {
			err = fmt.Errorf("%w: no stream is called %q there; Fedora's are stable, testing and next", err, c.Stream)
		}
		return plan{}, err
	}
	p, err := parseStream(text, c.CPU)
	if err != nil {
		return plan{}, fmt.Errorf("cannot use %s: %w", redact(at), err)
	}
	for i := range p.parts {
		f := &p.parts[i]
		f.url = onMirror(f.url, base)
		f.sig = onMirror(f.sig, base)
		if c.Insecure {
			f.sig = ""
		}
	}
	p.image.Name = cmp.Or(c.Name, string(boot.FedoraCoreOS)+"/"+c.Stream)
	p.source = redact(at)
	p.signed = !c.Insecure
	p.systemKeys = fedoraKeys
	p.keyHelp = "Fedora publishes its keys at https://fedoraproject.org/security/"
	return p, nil
}

// onMirror moves a location of Fedora's own server to base.
func onMirror(location, base string) string {
	if rest, ok := strings.CutPrefix(location, CoreOSBase+"/"); ok {
		return base + "/" + rest
	}
	return location
}

// parseStream reads the metadata of a stream (the format of
// coreos/stream-metadata-go) and finds the files for booting cpu by PXE.
func parseStream(text []byte, cpu string) (plan, error) {
	var st stream.Stream
	if err := json.Unmarshal(text, &st); err != nil {
		return plan{}, fmt.Errorf("it is not stream metadata: %w", err)
	}
	arch, ok := st.Architectures[cpu]
	if !ok {
		return plan{}, fmt.Errorf("the stream has no release for %s", cpu)
	}
	metal := arch.Artifacts["metal"]
	pxe, ok := metal.Formats["pxe"]
	if !ok {
		return plan{}, fmt.Errorf("the stream has no PXE files for %s", cpu)
	}
	p := plan{
		image:  boot.Image{Version: metal.Release, Family: boot.FedoraCoreOS, CPU: cpu},
		pinned: true,
	}
	for _, f := range []struct {
		role role
		name string
		a    *stream.Artifact
	}{{kernel, "kernel", pxe.Kernel}, {initrd, "initramfs", pxe.Initramfs}, {rootfs, "rootfs", pxe.Rootfs}} {
		if f.a == nil {
			return plan{}, fmt.Errorf("release %q has no %s for PXE", metal.Release, f.name)
		}
		pt, err := remote(f.role, Remote{URL: f.a.Location, SHA256: f.a.Sha256, Signature: f.a.Signature})
		if err != nil {
			return plan{}, fmt.Errorf("%s: %w", f.name, err)
		}
		p.parts = append(p.parts, pt)
	}
	return p, checkVersion(p.image.Version)
}

// Flatcar is the current release of a Flatcar Container Linux channel.
type Flatcar struct {
	Channel string // stable, beta, alpha, lts
	CPU     string // x86_64 when empty
	Name    string // of the image; flatcar/<Channel> when empty

	// Base is a mirror of https://<Channel>.release.flatcar-linux.net, with
	// <arch>-usr/current/ below it.
	Base string

	Insecure bool // do without signatures
}

func (f Flatcar) resolve(ctx context.Context, g *getter) (plan, error) {
	f.CPU = cmp.Or(f.CPU, "x86_64")
	arch, ok := map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[f.CPU]
	if !ok {
		return plan{}, fmt.Errorf("there is no Flatcar for %s", f.CPU)
	}
	if !filePattern.MatchString(f.Channel) {
		return plan{}, fmt.Errorf("%q cannot be a channel of Flatcar", f.Channel)
	}
	base := cmp.Or(f.Base, "https://"+f.Channel+".release.flatcar-linux.net")
	dir := strings.TrimRight(base, "/") + "/" + arch + "-usr/current/"
	text, err := g.small(ctx, dir+"version.txt", 64<<10)
	if err != nil {
		if isMissing(err) || isUnknownHost(err) {
			err = fmt.Errorf("%w: is there a channel %q? Flatcar's are stable, beta, alpha and lts", err, f.Channel)
		}
		return plan{}, err
	}
	version, err := flatcarVersion(text)
	if err != nil {
		return plan{}, fmt.Errorf("cannot use %s: %w", redact(dir+"version.txt"), err)
	}
	p := plan{
		image: boot.Image{
			Name:    cmp.Or(f.Name, string(boot.Flatcar)+"/"+f.Channel),
			Version: version, Family: boot.Flatcar, CPU: f.CPU,
		},
		source:  redact(dir),
		signed:  !f.Insecure,
		keyHelp: "Flatcar publishes its key at https://www.flatcar.org/security/image-signing-key/",
	}
	for _, pt := range []part{
		{role: kernel, name: "flatcar_production_pxe.vmlinuz"},
		{role: initrd, name: "flatcar_production_pxe_image.cpio.gz"},
	} {
		pt.url = dir + pt.name
		if f.Insecure {
			pt.sums = pt.url + ".DIGESTS"
		} else {
			pt.sig = pt.url + ".sig"
		}
		p.parts = append(p.parts, pt)
	}
	return p, nil
}

// flatcarVersion finds the version in a release's version.txt, which is a list
// of shell assignments.
func flatcarVersion(text []byte) (string, error) {
	for line := range bytes.Lines(text) {
		v, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "FLATCAR_VERSION=")
		if !ok {
			continue
		}
		v = strings.Trim(v, `"'`)
		return v, checkVersion(v)
	}
	return "", errors.New("it has no line FLATCAR_VERSION=")
}

// URLs is an image whose files are named one by one.
type URLs struct {
	Name    string
	Version string // made of the digests when empty
	Family  boot.Family
	CPU     string // x86_64 when empty
	Kernel  Remote
	Initrds []Remote // in the order in which they are loaded
	RootFS  *Remote  // nil when inside an initrd
}

// Remote is a file at a URL.
type Remote struct {
	URL       string // http or https
	SHA256    string // hexadecimal; required
	Signature string // URL of a detached OpenPGP signature that must be good; empty: none is looked at
}

func (u URLs) resolve(context.Context, *getter) (plan, error) {
	p := plan{
		image:  boot.Image{Name: u.Name, Version: u.Version, Family: u.Family, CPU: cmp.Or(u.CPU, "x86_64")},
		pinned: true,
	}
	add := func(r role, f Remote) error {
		pt, err := remote(r, f)
		p.parts = append(p.parts, pt)
		return err
	}
	errs := []error{add(kernel, u.Kernel)}
	for _, f := range u.Initrds {
		errs = append(errs, add(initrd, f))
	}
	if u.RootFS != nil {
		errs = append(errs, add(rootfs, *u.RootFS))
	}
	p.source = p.parts[0].shown()
	if p.image.Version == "" {
		p.image.Version = versionOf(p.parts)
	}
	return p, errors.Join(errs...)
}

// remote checks a file's URL and digest.
func remote(r role, f Remote) (part, error) {
	u, err := url.Parse(f.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return part{}, fmt.Errorf("%q is not a URL of a file by http or https", f.URL)
	}
	pt := part{role: r, name: path.Base(u.Path), url: f.URL, sha256: strings.ToLower(f.SHA256), sig: f.Signature}
	if !filePattern.MatchString(pt.name) {
		return part{}, fmt.Errorf("%s: %q cannot be the name of an image's file", pt.shown(), pt.name)
	}
	if !digestPattern.MatchString(pt.sha256) {
		return part{}, fmt.Errorf("%s: %q is not a SHA-256 digest; \"sha256sum %s\" prints it", pt.shown(), f.SHA256, pt.name)
	}
	return pt, nil
}
