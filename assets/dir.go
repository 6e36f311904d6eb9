package assets

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"bootd/boot"
)

// Dir is an image whose files lie in a local directory. They are recognized by
// their usual names, and copied.
type Dir struct {
	Path string
	Name string // of the image

	Version string      // found in the file names when empty, or else made of the digests
	Family  boot.Family // found in the file names when empty
	CPU     string      // found in the kernel when empty

	// Kernel, Initrds and RootFS name the files in Path, where their names say
	// too little. When Kernel is set nothing is looked for.
	Kernel  string
	Initrds []string
	RootFS  string
}

func (d Dir) resolve(context.Context, *getter) (plan, error) {
	abs, err := filepath.Abs(d.Path)
	if err != nil {
		return plan{}, err
	}
	var found layout
	if d.Kernel != "" {
		found = layout{kernel: d.Kernel, initrds: d.Initrds, rootfs: d.RootFS, family: boot.Linux}
	} else {
		names, err := fileNames(abs)
		if err != nil {
			return plan{}, err
		}
		if found, err = recognize(names, d.Family); err != nil {
			return plan{}, fmt.Errorf("cannot tell what to boot from %s: %w", abs, err)
		}
	}
	p := plan{source: abs, image: boot.Image{
		Name: d.Name, Version: cmp.Or(d.Version, found.version), Family: cmp.Or(d.Family, found.family), CPU: d.CPU,
	}}
	p.parts = []part{{role: kernel, name: found.kernel}}
	for _, n := range found.initrds {
		p.parts = append(p.parts, part{role: initrd, name: n})
	}
	if found.rootfs != "" {
		p.parts = append(p.parts, part{role: rootfs, name: found.rootfs})
	}
	if err := d.digests(abs, p.parts); err != nil {
		return plan{}, err
	}
	if p.image.Family == boot.Flatcar && p.image.Version == "" {
		if text, err := os.ReadFile(filepath.Join(abs, "version.txt")); err == nil {
			p.image.Version, _ = flatcarVersion(text) // unusable: made of the digests
		}
	}
	if p.image.Version == "" {
		p.image.Version = versionOf(p.parts)
	}
	if p.image.CPU, err = checkKernel(p.parts[0].path, d.CPU); err != nil {
		return plan{}, err
	}
	p.pinned = true
	return p, nil
}

// digests fills in what the files themselves say.
func (d Dir) digests(dir string, parts []part) error {
	for i := range parts {
		f := &parts[i]
		if !filepath.IsLocal(f.name) || filepath.Base(f.name) != f.name {
			return fmt.Errorf("%q is not the name of a file in %s", f.name, dir)
		}
		f.path = filepath.Join(dir, f.name)
		if _, err := os.Stat(f.path + ".sig"); err == nil {
			f.sig = f.path + ".sig"
		}
		file, err := os.Open(f.path)
		if err != nil {
			return fmt.Errorf("cannot import %s: %w", f.name, err)
		}
		h := sha256.New()
		_, err = io.Copy(h, file)
		file.Close()
		if err != nil {
			return fmt.Errorf("cannot import %s: %w", f.name, err)
		}
		f.sha256 = hex.EncodeToString(h.Sum(nil))
	}
	return nil
}

// fileNames lists the regular files in dir. Of several names for one file, as
// vmlinuz beside vmlinuz-6.1.0, only the longest, which tells most, is kept.
func fileNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot import: %w", err)
	}
	var names []string
	var stats []fs.FileInfo
next:
	for _, e := range entries {
		st, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		for i := range names {
			if os.SameFile(stats[i], st) {
				if len(e.Name()) > len(names[i]) {
					names[i] = e.Name()
				}
				continue next
			}
		}
		names = append(names, e.Name())
		stats = append(stats, st)
	}
	return names, nil
}

// A layout is what a directory turned out to hold.
type layout struct {
	family  boot.Family
	version string
	kernel  string
	initrds []string
	rootfs  string
}

var (
	// fedora-coreos-41.20250101.3.0-live-kernel.x86_64; until 2025
	// live-kernel-x86_64. Other builds by the same contract have other names in
	// front: rhcos-4.16.3-x86_64-live-kernel.x86_64.
	coreOSFile  = regexp.MustCompile(`^[a-z]+(?:-[a-z]+)*-([0-9].*)-live-(kernel|initramfs|rootfs)[.-][a-z0-9_]+(\.img)?$`)
	kernelFile  = regexp.MustCompile(`^(vmlinuz.*|kernel|bzImage|.+\.vmlinuz)$`)
	initrdFile  = regexp.MustCompile(`^(initrd|initramfs).*$`)
	rootfsFile  = regexp.MustCompile(`^(rootfs.*|.+\.squashfs)$`)
	besidesFile = regexp.MustCompile(`\.(sig|asc|json|txt|DIGESTS|sha256|md5)$`)
)

const (
	flatcarKernel = "flatcar_production_pxe.vmlinuz"
	flatcarInitrd = "flatcar_production_pxe_image.cpio.gz"
)

// candidates are the files of a directory that may be part of an image.
type candidates struct {
	kernels, initrds, roots []string
	versions                []string // that CoreOS' names tell
	family                  boot.Family
}

// sift finds the files that may be part of an image by their names.
func sift(names []string) candidates {
	c := candidates{family: boot.Linux}
	for _, n := range names {
		if m := coreOSFile.FindStringSubmatch(n); m != nil {
			c.family = boot.FedoraCoreOS
			if !slices.Contains(c.versions, m[1]) {
				c.versions = append(c.versions, m[1])
			}
			list := map[string]*[]string{"kernel": &c.kernels, "initramfs": &c.initrds, "rootfs": &c.roots}[m[2]]
			*list = append(*list, n)
			continue
		}
		switch {
		case besidesFile.MatchString(n):
		case n == flatcarKernel || n == flatcarInitrd:
			if c.family == boot.Linux {
				c.family = boot.Flatcar
			}
			if n == flatcarKernel {
				c.kernels = append(c.kernels, n)
			} else {
				c.initrds = append(c.initrds, n)
			}
		case kernelFile.MatchString(n):
			c.kernels = append(c.kernels, n)
		case initrdFile.MatchString(n):
			c.initrds = append(c.initrds, n)
		case rootfsFile.MatchString(n):
			c.roots = append(c.roots, n)
		}
	}
	return c
}

// recognize finds an image among the files of a directory. family decides where
// names alone do not; it may be empty.
func recognize(names []string, family boot.Family) (layout, error) {
	c := sift(names)
	l := layout{family: c.family}
	family = cmp.Or(family, c.family)
	var errs []error
	one := func(what string, list []string, patterns string, required bool) string {
		switch {
		case len(list) == 1:
			return list[0]
		case len(list) > 1:
			errs = append(errs, fmt.Errorf("there are several that could be the %s (%s); move the others away, or say which it is", what, strings.Join(list, ", ")))
		case required:
			errs = append(errs, fmt.Errorf("there is no %s (%s) among its files (%s)", what, patterns, some(names)))
		}
		return ""
	}
	l.kernel = one("kernel", c.kernels, "fedora-coreos-*-live-kernel*, flatcar_production_pxe.vmlinuz, vmlinuz*, kernel, bzImage", true)
	if i := one("initramfs", c.initrds, "fedora-coreos-*-live-initramfs*, flatcar_production_pxe_image.cpio.gz, initrd*, initramfs*", true); i != "" {
		l.initrds = []string{i}
	}
	l.rootfs = one("root file system", c.roots, "fedora-coreos-*-live-rootfs*, rootfs*, *.squashfs", family == boot.FedoraCoreOS)
	if l.rootfs != "" && family != boot.FedoraCoreOS {
		errs = append(errs, fmt.Errorf("nothing tells the kernel how to find %s; if it boots as CoreOS does, say family %s, otherwise move it away", l.rootfs, boot.FedoraCoreOS))
	}
	if len(c.versions) == 1 {
		l.version = c.versions[0]
	} else if v, ok := strings.CutPrefix(l.kernel, "vmlinuz-"); ok && checkVersion(v) == nil {
		l.version = v
	}
	return l, errors.Join(errs...)
}

func some(names []string) string {
	const most = 12
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return orNone(names)
}

// checkKernel finds the processor that a kernel is for, and that it is not
// another than cpu.
func checkKernel(path, cpu string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot import: %w", err)
	}
	defer f.Close()
	head := make([]byte, 0x400)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("cannot import: %w", err)
	}
	found := kernelCPU(head[:n])
	switch {
	case found == "" && cpu == "":
		return "", fmt.Errorf("cannot tell the processor of kernel %s; say which it is (%s)", path, strings.Join(cpus, ", "))
	case found != "" && cpu != "" && found != cpu:
		return "", fmt.Errorf("kernel %s is for %s, not for %s", path, found, cpu)
	}
	return cmp.Or(cpu, found), nil
}

// kernelCPU finds the processor in the first bytes of a kernel: the setup
// header of x86 (Documentation/arch/x86/boot.rst) or the header of arm64
// (Documentation/arch/arm64/booting.rst); a compressed arm64 kernel that is an
// EFI program tells by its machine type. It is empty when nothing is found.
func kernelCPU(head []byte) string {
	at := func(off int, magic string) bool {
		return len(head) >= off+len(magic) && string(head[off:off+len(magic)]) == magic
	}
	switch {
	case at(0x202, "HdrS"):
		return "x86_64"
	case at(0x38, "ARM\x64"):
		return "aarch64"
	}
	machine, err := peMachine(bytes.NewReader(head))
	if err == nil && machine == peARM64 {
		return "aarch64"
	}
	return ""
}

// versionOf makes a version for files that come without one.
func versionOf(parts []part) string {
	h := sha256.New()
	for _, f := range parts {
		fmt.Fprintln(h, f.role, f.sha256)
	}
	return "sha256-" + hex.EncodeToString(h.Sum(nil)[:6])
}
