package assets

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
)

func TestRecognize(t *testing.T) {
	tests := []struct {
		name   string
		files  string
		family boot.Family
		want   layout
		says   string // part of the error
	}{
		{
			name: "CoreOS",
			files: "fedora-coreos-41.20250101.3.0-live-kernel.x86_64 fedora-coreos-41.20250101.3.0-live-initramfs.x86_64.img " +
				"fedora-coreos-41.20250101.3.0-live-rootfs.x86_64.img fedora-coreos-41.20250101.3.0-live-rootfs.x86_64.img.sig stable.json",
			want: layout{
				family: boot.FedoraCoreOS, version: "41.20250101.3.0", kernel: "fedora-coreos-41.20250101.3.0-live-kernel.x86_64",
				initrds: []string{"fedora-coreos-41.20250101.3.0-live-initramfs.x86_64.img"}, rootfs: "fedora-coreos-41.20250101.3.0-live-rootfs.x86_64.img",
			},
		},
		{
			name:  "CoreOS with the older name of the kernel",
			files: "fedora-coreos-39.1-live-kernel-aarch64 fedora-coreos-39.1-live-initramfs.aarch64.img fedora-coreos-39.1-live-rootfs.aarch64.img",
			want: layout{
				family: boot.FedoraCoreOS, version: "39.1", kernel: "fedora-coreos-39.1-live-kernel-aarch64",
				initrds: []string{"fedora-coreos-39.1-live-initramfs.aarch64.img"}, rootfs: "fedora-coreos-39.1-live-rootfs.aarch64.img",
			},
		},
		{
			name:  "another build by CoreOS' contract",
			files: "bootd-lab-12.22cc6b0f-live-kernel.x86_64 bootd-lab-12.22cc6b0f-live-initramfs.x86_64.img bootd-lab-12.22cc6b0f-live-rootfs.x86_64.img image.json",
			want: layout{
				family: boot.FedoraCoreOS, version: "12.22cc6b0f", kernel: "bootd-lab-12.22cc6b0f-live-kernel.x86_64",
				initrds: []string{"bootd-lab-12.22cc6b0f-live-initramfs.x86_64.img"}, rootfs: "bootd-lab-12.22cc6b0f-live-rootfs.x86_64.img",
			},
		},
		{
			name:  "Flatcar",
			files: "flatcar_production_pxe.vmlinuz flatcar_production_pxe.vmlinuz.sig flatcar_production_pxe_image.cpio.gz flatcar_production_pxe_image.cpio.gz.DIGESTS version.txt",
			want:  layout{family: boot.Flatcar, kernel: "flatcar_production_pxe.vmlinuz", initrds: []string{"flatcar_production_pxe_image.cpio.gz"}},
		},
		{
			name:  "Debian",
			files: "vmlinuz-6.1.0-28-amd64 initrd.img-6.1.0-28-amd64 config-6.1.0-28-amd64 README",
			want:  layout{family: boot.Linux, version: "6.1.0-28-amd64", kernel: "vmlinuz-6.1.0-28-amd64", initrds: []string{"initrd.img-6.1.0-28-amd64"}},
		},
		{
			name: "one's own, like CoreOS", family: boot.FedoraCoreOS,
			files: "vmlinuz initramfs.img rootfs.squashfs manifest.json",
			want:  layout{family: boot.Linux, kernel: "vmlinuz", initrds: []string{"initramfs.img"}, rootfs: "rootfs.squashfs"},
		},
		{name: "a root file system nobody looks for", files: "vmlinuz initrd live.squashfs", says: "say family fedora-coreos"},
		{name: "CoreOS without rootfs", files: "fedora-coreos-39.1-live-kernel.x86_64 fedora-coreos-39.1-live-initramfs.x86_64.img", says: "there is no root file system (fedora-coreos-*-live-rootfs*"},
		{name: "two kernels", files: "vmlinuz-6.1 vmlinuz-6.2 initrd.img", says: "several that could be the kernel (vmlinuz-6.1, vmlinuz-6.2)"},
		{name: "two releases", files: "fedora-coreos-1-live-kernel.x86_64 fedora-coreos-2-live-kernel.x86_64 fedora-coreos-2-live-initramfs.x86_64.img fedora-coreos-2-live-rootfs.x86_64.img", says: "several that could be the kernel"},
		{name: "no initramfs", files: "vmlinuz", says: "there is no initramfs"},
		{name: "something else", files: "holiday.jpg notes", says: "among its files (holiday.jpg, notes)"},
		{name: "nothing", files: "", says: "among its files (nothing)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := recognize(strings.Fields(tt.files), tt.family)
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error %v, want one with %q", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(layout{})); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
		})
	}
}

func kernelFor(cpu string) []byte {
	b := make([]byte, 0x400)
	switch cpu {
	case "x86_64":
		copy(b[0x202:], "HdrS")
	case "aarch64":
		copy(b[0x38:], "ARM\x64")
	case "aarch64, EFI":
		copy(b, pe(peARM64))
	}
	return b
}

func TestDirResolve(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		src   Dir
		want  boot.Image // Kernel holds only the name
		says  string
	}{
		{
			name:  "family given",
			files: map[string]string{"vmlinuz": string(kernelFor("x86_64")), "initramfs.img": "i", "rootfs.squashfs": "r"},
			src:   Dir{Name: "lab", Family: boot.FedoraCoreOS},
			want:  boot.Image{Name: "lab", Family: boot.FedoraCoreOS, CPU: "x86_64", Version: "sha256-"},
		},
		{
			name: "Flatcar's version",
			files: map[string]string{
				flatcarKernel: string(kernelFor("aarch64, EFI")), flatcarInitrd: "i",
				"version.txt": "FLATCAR_BUILD=1\nFLATCAR_VERSION=4081.2.0\n",
			},
			src:  Dir{Name: "f"},
			want: boot.Image{Name: "f", Family: boot.Flatcar, CPU: "aarch64", Version: "4081.2.0"},
		},
		{
			name:  "files named",
			files: map[string]string{"linux": string(kernelFor("aarch64")), "one": "1", "two": "2"},
			src:   Dir{Name: "x", Kernel: "linux", Initrds: []string{"two", "one"}, Version: "9"},
			want:  boot.Image{Name: "x", Family: boot.Linux, CPU: "aarch64", Version: "9"},
		},
		{
			name:  "other processor",
			files: map[string]string{"vmlinuz": string(kernelFor("aarch64")), "initrd": ""},
			src:   Dir{Name: "x", CPU: "x86_64"},
			says:  "is for aarch64, not for x86_64",
		},
		{
			name:  "unknown processor",
			files: map[string]string{"vmlinuz": "text", "initrd": ""},
			src:   Dir{Name: "x"},
			says:  "cannot tell the processor",
		},
		{
			name:  "file elsewhere",
			files: map[string]string{"vmlinuz": "", "initrd": ""},
			src:   Dir{Name: "x", Kernel: "../vmlinuz"},
			says:  `"../vmlinuz" is not the name of a file in`,
		},
		{
			name:  "named file missing",
			files: map[string]string{"initrd": ""},
			src:   Dir{Name: "x", Kernel: "vmlinuz"},
			says:  "no such file",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.src.Path = t.TempDir()
			for n, text := range tt.files {
				if err := os.WriteFile(filepath.Join(tt.src.Path, n), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			p, err := tt.src.resolve(context.Background(), nil)
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error %v, want one with %q", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.Version == "sha256-" && strings.HasPrefix(p.image.Version, "sha256-") {
				tt.want.Version = p.image.Version
			}
			if d := cmp.Diff(tt.want, p.image); d != "" {
				t.Errorf("image (-want +got):\n%s", d)
			}
			if err := checkPlan(p); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDirWithLinks imports a folder as Debian's /boot, where one kernel has two
// names, and one with a link to nothing.
func TestDirWithLinks(t *testing.T) {
	dir := t.TempDir()
	for n, b := range map[string][]byte{"vmlinuz-6.1": kernelFor("x86_64"), "initrd.img-6.1": nil} {
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	links := errors.Join(
		os.Symlink("vmlinuz-6.1", filepath.Join(dir, "vmlinuz")),
		os.Symlink("initrd.img-6.1", filepath.Join(dir, "initrd.img")),
		os.Symlink("vmlinuz-5.10", filepath.Join(dir, "vmlinuz.old")),
	)
	if links != nil {
		t.Fatal(links)
	}
	p, err := Dir{Path: dir, Name: "debian"}.resolve(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.parts[0].name != "vmlinuz-6.1" || p.parts[1].name != "initrd.img-6.1" || p.image.Version != "6.1" {
		t.Errorf("%+v", p)
	}
}
