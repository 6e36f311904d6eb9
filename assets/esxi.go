package assets

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"bootd/boot"
)

// ISO is the installation medium of ESXi, as VMware's ISO image or one that was
// made from it. The files that its boot.cfg names are taken out of it, and the
// loaders for both kinds of firmware; the rest is left.
type ISO struct {
	Path    string
	Name    string // of the image; esxi/<major>.<minor>, by the build, when empty
	Version string // the build that boot.cfg names when empty

	// PXELinux is a file pxelinux.0 of version 3.86, through which BIOS
	// machines boot if their iPXE cannot start mboot.c32 itself. Empty: the
	// file of this name beside the ISO, if there is one.
	PXELinux string
}

// A section is a file inside another.
type section struct{ off, size int64 }

var esxiBuild = regexp.MustCompile(`^([0-9]{1,3}\.[0-9]{1,3})\.[0-9A-Za-z.+-]+$`)

func (i ISO) resolve(ctx context.Context, _ *getter) (plan, error) {
	abs, err := filepath.Abs(i.Path)
	if err != nil {
		return plan{}, err
	}
	f, err := os.Open(abs)
	if err != nil {
		return plan{}, fmt.Errorf("cannot import: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return plan{}, fmt.Errorf("cannot import: %w", err)
	}
	if !st.Mode().IsRegular() {
		return plan{}, fmt.Errorf("%s is not a file; name the ISO image of the installer", abs)
	}
	v, err := readISO(f, st.Size())
	if err != nil {
		return plan{}, fmt.Errorf("cannot read %s: %w", abs, err)
	}
	p, err := i.plan(ctx, v, abs)
	if err != nil {
		return plan{}, fmt.Errorf("cannot import %s: %w", abs, err)
	}
	return p, nil
}

// plan finds what to take from a volume.
func (i ISO) plan(ctx context.Context, v *isoVolume, abs string) (plan, error) {
	cfg, where, err := findBootCfg(v)
	if err != nil {
		return plan{}, err
	}
	p := plan{source: abs, pinned: true}
	take := func(r role, name, at string) error {
		f, ok := v.find(at)
		if !ok {
			return fmt.Errorf("%s names %s, which is not on it; was it copied or remastered incompletely?", where, at)
		}
		p.parts = append(p.parts, part{role: r, name: name, path: abs, within: &section{f.off, f.size}})
		return nil
	}
	if err := take(kernel, path.Base(cfg.kernel), path.Join(cfg.prefix, cfg.kernel)); err != nil {
		return plan{}, err
	}
	m := &boot.ESXiMedium{Title: cfg.title, KernelOpt: cfg.kernelopt, Settings: cfg.settings}
	for _, mod := range cfg.modules {
		name := path.Base(mod.path)
		if err := take(initrd, name, path.Join(cfg.prefix, mod.path)); err != nil {
			return plan{}, err
		}
		if mod.options != "" {
			if m.ModuleOptions == nil {
				m.ModuleOptions = map[string]string{}
			}
			m.ModuleOptions[name] = mod.options
		}
	}
	cpu, err := i.loaders(v, abs, &p)
	if err != nil {
		return plan{}, err
	}
	if err := digestSections(ctx, v, p.parts); err != nil {
		return plan{}, err
	}
	p.image = boot.Image{Name: i.Name, Version: cmp.Or(i.Version, cfg.build), Family: boot.ESXi, CPU: cpu, ESXi: m}
	if p.image.Version == "" || checkVersion(p.image.Version) != nil {
		p.image.Version = versionOf(p.parts)
	}
	if p.image.Name == "" {
		release := esxiBuild.FindStringSubmatch(cfg.build)
		if release == nil {
			return plan{}, fmt.Errorf("%s does not say which release it is; name the image", where)
		}
		p.image.Name = "esxi/" + release[1]
	}
	return p, nil
}

// findBootCfg reads the boot.cfg of a medium. The one at its root is for BIOS,
// the other one for UEFI; both say the same.
func findBootCfg(v *isoVolume) (cfg bootCfg, where string, err error) {
	for _, at := range []string{"boot.cfg", "efi/boot/boot.cfg"} {
		f, ok := v.find(at)
		if !ok {
			continue
		}
		text, err := v.text(f, maxBootCfg)
		if err == nil {
			cfg, err = parseBootCfg(text)
		}
		if err != nil {
			return cfg, "", fmt.Errorf("cannot use /%s: %w", f.path, err)
		}
		return cfg, "/" + f.path, nil
	}
	return cfg, "", fmt.Errorf("it has no boot.cfg, so it is no installation medium of ESXi; volume %q has %s", v.label, some(v.names))
}

// efiLoaders are where mboot for UEFI is on a medium.
var efiLoaders = []string{"efi/boot/bootx64.efi", "efi/boot/bootaa64.efi", "mboot.efi"}

// loaders adds the loaders for UEFI and BIOS to a plan, and returns the processor
// that they are for.
func (i ISO) loaders(v *isoVolume, abs string, p *plan) (cpu string, err error) {
	add := func(r role, name string, f isoFile) {
		p.parts = append(p.parts, part{role: r, name: name, path: abs, within: &section{f.off, f.size}})
	}
	for _, at := range efiLoaders {
		f, ok := v.find(at)
		if !ok {
			continue
		}
		machine, err := peMachine(v.open(f))
		if err != nil {
			return "", fmt.Errorf("cannot use /%s: %w", f.path, err)
		}
		if cpu = map[uint16]string{peX64: "x86_64", peARM64: "aarch64"}[machine]; cpu == "" {
			return "", fmt.Errorf("cannot use /%s: it is for machine type %#x, which bootd does not boot", f.path, machine)
		}
		add(mbootEFI, "mboot.efi", f)
		break
	}
	bios, ok := v.find("mboot.c32")
	if ok && cmp.Or(cpu, "x86_64") == "x86_64" {
		add(mbootBIOS, "mboot.c32", bios)
		cpu = "x86_64"
	}
	if cpu == "" {
		return "", errors.New("it has neither EFI/BOOT/BOOTX64.EFI nor mboot.c32, so no machine can boot it")
	}
	for _, at := range []string{"efi/boot/crypto64.efi", "crypto64.efi"} {
		if f, ok := v.find(at); ok {
			add(mbootCrypto, "crypto64.efi", f)
			break
		}
	}
	if !ok || cpu != "x86_64" {
		return cpu, nil
	}
	return cpu, i.pxelinux(abs, p)
}

// pxelinuxVersion is in the banner of pxelinux.
var pxelinuxVersion = regexp.MustCompile(`PXELINUX ([0-9]+\.[0-9]+)`)

// pxelinux adds pxelinux.0, if there is one.
func (i ISO) pxelinux(abs string, p *plan) error {
	at := cmp.Or(i.PXELinux, filepath.Join(filepath.Dir(abs), "pxelinux.0"))
	text, err := readLoader(at)
	if errors.Is(err, os.ErrNotExist) && i.PXELinux == "" {
		return nil
	}
	if err == nil {
		err = checkBIOS(text)
	}
	if err != nil {
		return fmt.Errorf("cannot use %s: %w", at, err)
	}
	if m := pxelinuxVersion.FindSubmatch(text); m != nil && string(m[1]) != "3.86" {
		return fmt.Errorf("cannot use %s: it is version %s, and mboot.c32 works with 3.86 only", at, m[1])
	}
	sum := sha256.Sum256(text)
	p.parts = append(p.parts, part{role: pxelinux, name: "pxelinux.0", path: at, sha256: hex.EncodeToString(sum[:])})
	return nil
}

// digestSections computes the digests of what is taken from a volume.
func digestSections(ctx context.Context, v *isoVolume, parts []part) error {
	var total int64
	for i := range parts {
		f := &parts[i]
		if f.within == nil {
			continue
		}
		// Files may lie on each other. Honest media have none that do.
		if total += f.within.size; total > v.size {
			return fmt.Errorf("its files are larger together than it is (%d bytes)", v.size)
		}
		h := sha256.New()
		in := io.NewSectionReader(v.r, f.within.off, f.within.size)
		for {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			_, err := io.CopyN(h, in, 32<<20)
			if err == io.EOF {
				break
			}
			if err != nil {
				return fmt.Errorf("cannot read %s: %w", f.name, err)
			}
		}
		f.sha256 = hex.EncodeToString(h.Sum(nil))
	}
	return nil
}

// IsISO reports whether path is a file that [ISO] is meant for, rather than a
// directory for [Dir]: by its being a file, since what is in it shows later.
func IsISO(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() || err != nil && strings.EqualFold(filepath.Ext(path), ".iso")
}
