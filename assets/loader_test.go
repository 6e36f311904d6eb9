package assets

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
)

// pe makes the headers of an EFI program, with a version inside.
func pe(machine uint16) []byte {
	b := make([]byte, 0x200)
	copy(b, "MZ")
	b[0x3c] = 0x80
	copy(b[0x80:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x84:], machine)
	copy(b[0x100:], "iPXE\x00\x001.21.1+ (g8460d)\x00")
	return b
}

// signed makes one with a certificate table.
func signed(machine uint16) []byte {
	b := pe(machine)
	binary.LittleEndian.PutUint16(b[0x98:], 0x20b)
	binary.LittleEndian.PutUint32(b[0x128:], 0x200)
	binary.LittleEndian.PutUint32(b[0x12c:], 0x10)
	return b
}

// nbp makes something that begins as a BIOS boot program.
func nbp() []byte {
	b := make([]byte, 60<<10)
	copy(b, "\xea\x05\x00\xc0\x07")
	return b
}

func TestLoadersIn(t *testing.T) {
	tests := []struct {
		name    string
		files   map[string][]byte
		want    map[string]string // loader to path
		skipped string
	}{
		{
			name: "Debian",
			files: map[string][]byte{
				"undionly.kpxe": nbp(), "undionly.kkpxe": nbp(), "ipxe.pxe": nbp(), "ipxe.lkrn": nbp(), "snponly.efi": pe(peX64),
				"ipxe.efi": pe(peX64), "ipxe-amd64.efi": pe(peX64), "ipxe-arm64.efi": pe(peARM64), "ipxe-riscv64.efi": pe(0x5064),
				"qemu/ipxe.efi": pe(peI386), "qemu/pxe-e1000.rom": nbp(),
			},
			want: map[string]string{
				"undionly.kpxe": "undionly.kpxe", "ipxe.pxe": "ipxe.pxe", "snponly.efi": "snponly.efi",
				"ipxe.efi": "ipxe-amd64.efi", "arm64/ipxe.efi": "ipxe-arm64.efi",
			},
		},
		{
			name: "Secure Boot",
			files: map[string][]byte{
				"snponly.efi": pe(peX64), "snponly-shimx64.efi": pe(peX64), "arm64/ipxe.efi": pe(peARM64), "arm64/ipxe-shimaa64.efi": pe(peARM64),
				"snponly-shimx64.efi.signed": pe(peX64),
			},
			want: map[string]string{
				"snponly.efi": "snponly.efi", "snponly-shimx64.efi": "snponly-shimx64.efi",
				"arm64/ipxe.efi": "arm64/ipxe.efi", "arm64/ipxe-shimaa64.efi": "arm64/ipxe-shimaa64.efi",
			},
		},
		{
			name: "Debian's shim and GRUB",
			files: map[string][]byte{
				"shim/shimx64.efi": pe(peX64), "shim/shimx64.efi.signed": signed(peX64), "shim/mmx64.efi.signed": signed(peX64), "shim/fbx64.efi.signed": signed(peX64),
				"x86_64-efi-signed/gcdx64.efi.signed": signed(peX64), "x86_64-efi-signed/grubnetx64-installer.efi.signed": signed(peX64),
				"x86_64-efi-signed/grubnetx64.efi.signed": signed(peX64), "x86_64-efi-signed/grubx64.efi.signed": signed(peX64),
				"arm64-efi-signed/grubnetaa64.efi.signed": signed(peARM64), "shim/shimaa64.efi.signed": signed(peARM64),
			},
			want: map[string]string{
				"shimx64.efi": "shim/shimx64.efi.signed", "grubx64.efi": "x86_64-efi-signed/grubnetx64.efi.signed",
				"arm64/shimaa64.efi": "shim/shimaa64.efi.signed", "arm64/grubaa64.efi": "arm64-efi-signed/grubnetaa64.efi.signed",
			},
			skipped: "shim/shimx64.efi is not a loader: it is not signed",
		},
		{
			name:  "Ubuntu's shim",
			files: map[string][]byte{"shimx64.efi.dualsigned": signed(peX64), "shimx64.efi.signed.latest": signed(peX64), "shimx64.efi.signed.previous": signed(peX64)},
			want:  map[string]string{"shimx64.efi": "shimx64.efi.dualsigned"},
		},
		{
			name:  "an operator's own shim and GRUB",
			files: map[string][]byte{"shimx64.efi": signed(peX64), "grubx64.efi": signed(peX64), "grubnetx64.efi": pe(peX64)},
			want:  map[string]string{"shimx64.efi": "shimx64.efi", "grubx64.efi": "grubx64.efi"},
		},
		{name: "a cut off shim", files: map[string][]byte{"shimx64.efi": signed(peX64)[:0x12e]}, skipped: "it is not signed"},
		{
			name: "Fedora",
			files: map[string][]byte{
				"undionly.kpxe": nbp(), "ipxe-i386.efi": pe(peI386), "ipxe-x86_64.efi": pe(peX64), "ipxe-snponly-x86_64.efi": pe(peX64),
				"arm64-efi/ipxe.efi": pe(peARM64), "arm64-efi/snponly.efi": pe(peARM64),
			},
			want: map[string]string{
				"undionly.kpxe": "undionly.kpxe", "i386/ipxe.efi": "ipxe-i386.efi", "ipxe.efi": "ipxe-x86_64.efi",
				"snponly.efi": "ipxe-snponly-x86_64.efi", "arm64/ipxe.efi": "arm64-efi/ipxe.efi", "arm64/snponly.efi": "arm64-efi/snponly.efi",
			},
		},
		{
			name:  "Arch",
			files: map[string][]byte{"undionly.kpxe": nbp(), "x86_64/ipxe.efi": pe(peX64), "x86_64/snponly.efi": pe(peX64)},
			want:  map[string]string{"undionly.kpxe": "undionly.kpxe", "ipxe.efi": "x86_64/ipxe.efi", "snponly.efi": "x86_64/snponly.efi"},
		},
		{
			name:  "iPXE's own build folder",
			files: map[string][]byte{"bin/undionly.kpxe": nbp(), "bin-x86_64-efi/snponly.efi": pe(peX64), "bin-arm32-efi/ipxe.efi": pe(peThumb)},
			want:  map[string]string{"undionly.kpxe": "bin/undionly.kpxe", "snponly.efi": "bin-x86_64-efi/snponly.efi", "arm32/ipxe.efi": "bin-arm32-efi/ipxe.efi"},
		},
		{
			name:  "contents win over the folder's name",
			files: map[string][]byte{"arm64/snponly.efi": pe(peX64)},
			want:  map[string]string{"snponly.efi": "arm64/snponly.efi"},
		},
		{name: "a web page", files: map[string][]byte{"ipxe.efi": []byte("<html>404</html>")}, skipped: "ipxe.efi is not a loader: it is not an EFI program"},
		{name: "a cut off program", files: map[string][]byte{"ipxe.efi": pe(peX64)[:0x50]}, skipped: "cut off"},
		{name: "a program for BIOS in UEFI's name", files: map[string][]byte{"snponly.efi": nbp()}, skipped: "not an EFI program"},
		{name: "a program for UEFI in BIOS' name", files: map[string][]byte{"undionly.kpxe": append(pe(peX64), make([]byte, 60<<10)...)}, skipped: "not a network boot program for BIOS"},
		{name: "too large for BIOS", files: map[string][]byte{"ipxe.pxe": append(nbp(), make([]byte, 1<<20)...)}, skipped: "low memory"},
		{name: "an empty file", files: map[string][]byte{"undionly.kpxe": nil}, skipped: "0 bytes"},
		{name: "too deep", files: map[string][]byte{"a/b/c/ipxe.efi": pe(peX64)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for n, b := range tt.files {
				path := filepath.Join(dir, n)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			l := LoadersIn(dir)
			got := map[string]string{}
			for _, ld := range l.List() {
				rel, err := filepath.Rel(dir, ld.Path)
				if err != nil {
					t.Error(err)
				}
				got[ld.Name] = rel
				if !l.Has(ld.Name) {
					t.Errorf("List has %s, Has does not", ld.Name)
				}
				if strings.HasSuffix(ld.Name, ".efi") && ld.Version != "1.21.1+ (g8460d)" {
					t.Errorf("%s: version %q", ld.Name, ld.Version)
				}
			}
			if tt.want == nil {
				tt.want = map[string]string{}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("loaders (-want +got):\n%s", d)
			}
			if err := errors.Join(l.Skipped()...); tt.skipped != "" && (err == nil || !strings.Contains(err.Error(), tt.skipped)) {
				t.Errorf("skipped: %v, want %q", err, tt.skipped)
			}
		})
	}
}

func TestExplicitLoadersWin(t *testing.T) {
	mine, system := t.TempDir(), t.TempDir()
	own := append(pe(peX64), "mine"...)
	for path, b := range map[string][]byte{
		filepath.Join(mine, "snponly-x86_64.efi"): own,
		filepath.Join(system, "snponly.efi"):      pe(peX64),
		filepath.Join(system, "undionly.kpxe"):    nbp(),
	} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := LoadersIn(mine, "", "/does/not/exist", system)
	if len(l.Skipped()) != 0 {
		t.Errorf("skipped: %v", l.Skipped())
	}
	f, err := l.Open("snponly.efi")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != string(own) {
		t.Errorf("another file was opened (%v)", err)
	}
	if !l.IPXE() || !l.Has("undionly.kpxe") || l.Has("ipxe.efi") {
		t.Error("Has is wrong")
	}
	if _, err := l.Open("arm64/snponly.efi"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "snponly.efi, undionly.kpxe") {
		t.Errorf("Open of what is not there: %v", err)
	}
	// Only names that were found are opened, whatever comes over the wire.
	for _, name := range []string{"../../etc/passwd", "/etc/passwd", "", "snponly.efi/"} {
		if f, err := l.Open(name); err == nil {
			f.Close()
			t.Errorf("Open(%q) worked", name)
		}
	}
}

// TestSystemLoaders looks at the real builds of this system.
func TestSystemLoaders(t *testing.T) {
	l := FindLoaders()
	if !l.IPXE() {
		t.Skip("no package with iPXE is installed")
	}
	for _, err := range l.Skipped() {
		t.Log(err)
	}
	for _, ld := range l.List() {
		t.Logf("%-20s %8d  %-36s %s", ld.Name, ld.Size, ld.Version, ld.Path)
		f, err := l.Open(ld.Name)
		if err != nil {
			t.Error(err)
			continue
		}
		f.Close()
	}
	for _, a := range []boot.Arch{boot.BIOS, boot.EFIX64} {
		if _, ok := boot.LoaderFile(a, nil, l.Has); !ok {
			t.Errorf("nothing for %v", a)
		}
	}
}
