package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"bootd/assets"
	"bootd/boot"
	"bootd/internal/config"
)

// A lack is a shim and GRUB that are not there although profiles or machines'
// entries say loader: grub.
type lack struct {
	For    []string // profile worker, machine node1
	CPU    string   // x86_64 or aarch64
	Remedy string
}

func (l lack) String() string {
	return fmt.Sprintf("%s: loader: grub, but no shim and GRUB for %s were found, so machines get iPXE, which Secure Boot does not start", strings.Join(l.For, ", "), l.CPU)
}

// withoutGRUB lists what is missing for loader: grub, for each processor. What may
// be where the caller cannot look is not said to be missing.
func withoutGRUB(cfg *config.Config, found assets.Loaders) []lack {
	if slices.ContainsFunc(found.Skipped(), func(err error) bool { return errors.Is(err, fs.ErrPermission) }) {
		return nil
	}
	there := func(a boot.Arch) bool {
		name, ok := boot.LoaderFile(a, &boot.Profile{Loader: boot.GRUBLoader}, found.Has)
		return ok && strings.HasPrefix(path.Base(name), "shim")
	}
	x64 := lack{CPU: "x86_64", Remedy: "apt-get install shim-signed grub-efi-amd64-signed"}
	arm := lack{CPU: "aarch64", Remedy: "apt-get install shim-signed:arm64 grub-efi-arm64-signed:arm64 (elsewhere than on arm64 after dpkg --add-architecture arm64 && apt-get update)"}
	add := func(what string, p *boot.Profile) {
		if p.Loader != boot.GRUBLoader {
			return
		}
		// An image may come for both processors. Then x86_64 is meant, unless all
		// is there for the other one.
		cpu := cpuOf(cfg, p.Image)
		if cpu == "" && there(boot.EFIARM64) {
			return
		}
		l, arch := &x64, boot.EFIX64
		if cpu == arm.CPU {
			l, arch = &arm, boot.EFIARM64
		}
		if !there(arch) {
			l.For = append(l.For, what)
		}
	}
	for _, name := range profileNames(cfg) {
		add("profile "+name, cfg.Catalog.Profiles[name])
	}
	for _, m := range cfg.Catalog.Machines {
		if m.Override.Loader != "" { // else its profile has been looked at
			add("machine "+m.Name, cfg.Catalog.Effective(m))
		}
	}
	return slices.DeleteFunc([]lack{x64, arm}, func(l lack) bool { return len(l.For) == 0 })
}

// cpuOf is the processor that the configuration says an image is for; empty: it
// does not say.
func cpuOf(cfg *config.Config, image string) string {
	i := slices.IndexFunc(cfg.Images, func(s config.ImageSource) bool { return s.Name == image })
	if i < 0 {
		return ""
	}
	return cfg.Images[i].CPU
}
