package assets_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/assets"
	"bootd/boot"
)

// bootCfgText is laid out as on VMware's media, slashes in front included.
const bootCfgText = `bootstate=0
title=Loading ESXi installer
timeout=5
prefix=
kernel=/b.b00
kernelopt=cdromBoot runweasel
modules=/jumpstrt.gz --- /useropts.gz --- /features.gz --- /k.b00 --- /vmx.v00 --- /sb.v00 --- /s.v00 --- /i40en.v00 --- /imgdb.tgz --- /imgpayld.tgz
build=8.0.3-0.0.24022510
updated=0
`

// efiProgram is the head of an EFI program for a machine type, and some more.
func efiProgram(machine uint16) []byte {
	b := make([]byte, 4096)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], 0x80)
	copy(b[0x80:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x84:], machine)
	return b
}

// medium is what is on a medium for ESXi, by path in lower case. Every file is
// different, and some are larger than a sector.
func medium() map[string][]byte {
	m := map[string][]byte{
		"boot.cfg":              []byte(bootCfgText),
		"efi/boot/boot.cfg":     []byte(bootCfgText),
		"efi/boot/bootx64.efi":  efiProgram(0x8664),
		"efi/boot/crypto64.efi": append(efiProgram(0x8664), "crypto"...),
		"mboot.c32":             []byte("\xeb\xfe mboot for BIOS"),
		"isolinux.bin":          bytes.Repeat([]byte{0xfa}, 3000),
		"upgrade/metadata.zip":  []byte("PK"),
	}
	for i, n := range []string{"b.b00", "jumpstrt.gz", "useropts.gz", "features.gz", "k.b00", "vmx.v00", "sb.v00", "s.v00", "i40en.v00", "imgdb.tgz", "imgpayld.tgz"} {
		m[n] = bytes.Repeat([]byte(n+"\n"), 1+i*300)
	}
	m["features.gz"] = nil // VMware's is next to nothing too
	return m
}

// tree writes files to a new directory, with names in upper case or as they are.
func tree(t *testing.T, files map[string][]byte, upper bool) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if upper {
			name = strings.ToUpper(name)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// makers are programs that write ISO images.
var makers = map[string][]string{
	"genisoimage, level 1":           {"genisoimage", "-quiet", "-iso-level", "1", "-V", "ESXI-8.0U3"},
	"genisoimage, Rock Ridge":        {"genisoimage", "-quiet", "-iso-level", "3", "-R", "-V", "ESXI-8.0U3"},
	"genisoimage, Joliet, relaxed":   {"genisoimage", "-quiet", "-relaxed-filenames", "-J", "-V", "ESXI-8.0U3"},
	"xorriso, Rock Ridge and Joliet": {"xorriso", "-as", "mkisofs", "-quiet", "-J", "-V", "ESXI-8.0U3"},
}

func makeISO(t *testing.T, maker []string, files map[string][]byte) string {
	t.Helper()
	if _, err := exec.LookPath(maker[0]); err != nil {
		t.Skipf("%s is not installed; the images in testdata/esxi were made by it", maker[0])
	}
	out := filepath.Join(t.TempDir(), "esxi.iso")
	args := append(append([]string{}, maker[1:]...), "-o", out, tree(t, files, false))
	if text, err := exec.Command(maker[0], args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

// storedISO unpacks an image that is in testdata.
func storedISO(t *testing.T) string {
	t.Helper()
	f, err := os.Open("testdata/esxi/level1.iso.gz") // by the first of the makers
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "VMware-ESXi-8.0U3.iso")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func openStore(t *testing.T) *assets.Store {
	t.Helper()
	s, err := assets.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestImportISO imports media that were made by real programs, and fetches each
// file from the store as mboot does.
func TestImportISO(t *testing.T) {
	t.Run("stored", func(t *testing.T) { checkImport(t, storedISO(t)) })
	for name, maker := range makers {
		t.Run(name, func(t *testing.T) { checkImport(t, makeISO(t, maker, medium())) })
	}
}

func checkImport(t *testing.T, iso string) {
	s := openStore(t)
	shown := newTally(t)
	img, err := s.Fetch(t.Context(), assets.ISO{Path: iso}, shown)
	if err != nil {
		t.Fatal(err)
	}
	// So many files are shown as one.
	if !shown.done["esxi/8.0"] || len(shown.size) != 1 {
		t.Errorf("shown: %v", shown.size)
	}
	got := []string{img.Name, img.Version, string(img.Family), img.CPU, img.ESXi.Title, img.ESXi.KernelOpt, img.Kernel.Name}
	want := []string{"esxi/8.0", "8.0.3-0.0.24022510", "esxi", "x86_64", "Loading ESXi installer", "runweasel", "b.b00"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]boot.ESXiSetting{{Key: "timeout", Value: "5"}}, img.ESXi.Settings); d != "" {
		t.Error(d)
	}
	var names []string
	for _, f := range img.Initrds {
		names = append(names, f.Name)
	}
	if d := cmp.Diff([]string{"jumpstrt.gz", "useropts.gz", "features.gz", "k.b00", "vmx.v00", "sb.v00", "s.v00", "i40en.v00", "imgdb.tgz", "imgpayld.tgz"}, names); d != "" {
		t.Error(d)
	}
	srv := httptest.NewServer(s.Handler(nil))
	defer srv.Close()
	all := append(append([]boot.ImageFile{img.Kernel}, img.Initrds...), img.ESXi.Files()...)
	if len(all) != 14 {
		t.Errorf("%d files, not 14", len(all))
	}
	disk := medium()
	disk["mboot.efi"], disk["crypto64.efi"] = disk["efi/boot/bootx64.efi"], disk["efi/boot/crypto64.efi"]
	for _, f := range all {
		resp, err := http.Get(srv.URL + assets.Prefix + f.SHA256 + "/" + f.Name)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !bytes.Equal(body, disk[f.Name]) {
			t.Errorf("%s: %s, %d bytes, %v; want %d bytes", f.Name, resp.Status, len(body), err, len(disk[f.Name]))
		}
	}
	// A second import finds it all there, and nothing is collected.
	again, err := s.Fetch(t.Context(), assets.ISO{Path: iso}, nil)
	if err != nil || cmp.Diff(img, again) != "" {
		t.Errorf("again: %v %s", err, cmp.Diff(img, again))
	}
	if freed, err := s.Collect(); err != nil || freed != 0 {
		t.Errorf("collected %d bytes, %v", freed, err)
	}
	kept, err := s.Image("esxi/8.0", "x86_64")
	if err != nil || cmp.Diff(img, kept) != "" {
		t.Errorf("kept: %v %s", err, cmp.Diff(img, kept))
	}
}

// TestImportISORefuses tells the reason for each thing that people may take for
// an installation medium.
func TestImportISORefuses(t *testing.T) {
	iso, err := os.ReadFile(storedISO(t))
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) []byte { return bytes.ReplaceAll(iso, []byte(old), []byte(new)) }
	tar := make([]byte, 40<<10)
	copy(tar[257:], "ustar")
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"truncated", iso[:len(iso)-200<<10], "it is cut off: it has"},
		{"truncated early", iso[:20*2048], "it is cut off"},
		{"a virtual machine", tar, "OVA"},
		{"an offline bundle", append([]byte("PK\x03\x04"), tar...), "offline bundle"},
		{"a disk", append([]byte("KDMV"), tar...), "virtual disk"},
		{"compressed", append([]byte("\x1f\x8b"), tar...), "unpack it first"},
		{"a web page", []byte("<!DOCTYPE html><title>Sign in"), "a web page"},
		{"empty", nil, "no ISO image"},
		{"noise", bytes.Repeat([]byte("noise"), 20<<10), "not an ISO 9660 image"},
		{"another system's", change("BOOT.CFG", "SOME.CFG"), "no boot.cfg"},
		{"a module is missing", change("VMX.V00", "VMY.V00"), "/BOOT.CFG names vmx.v00, which is not on it"},
		{"a climbing module", change("/vmx.v00", "/../xv00"), "line 7: "},
		{"no kernel", change("kernel=/b.b00", "kernol=/b.b00"), "no line kernel="},
		{"the root outside", outside(iso), "cut off or damaged"},
		{"no loader", bytes.ReplaceAll(change("BOOTX64.EFI", "BOOTX65.EFI"), []byte("MBOOT.C32"), []byte("MBOOT.C33")), "no machine can boot it"},
		{"for another machine", change("PE\x00\x00\x64\x86", "PE\x00\x00\xc0\x01"), "machine type 0x1c0"},
		{"a release nobody knows", change("build=8.0.3", "byild=8.0.3"), "name the image"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "esxi.iso")
			if err := os.WriteFile(path, tt.file, 0o644); err != nil {
				t.Fatal(err)
			}
			s := openStore(t)
			_, err := s.Fetch(t.Context(), assets.ISO{Path: path}, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v; want %q and the path", err, tt.want)
			}
			if recs, err := s.List(); err != nil || len(recs) != 0 {
				t.Errorf("store holds %v, %v", recs, err)
			}
		})
	}
}

// outside moves the root directory behind the end.
func outside(iso []byte) []byte {
	b := bytes.Clone(iso)
	binary.LittleEndian.PutUint32(b[16*2048+156+2:], 1<<31)
	return b
}

func TestImportISOEnded(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	cancel(why)
	if _, err := openStore(t).Fetch(ctx, assets.ISO{Path: storedISO(t)}, nil); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestImportISOWithPXELinux(t *testing.T) {
	program := func(version string) []byte {
		return append([]byte("\xea\x05\x00\xc0\x07"), fmt.Sprintf("%5000s\r\nPXELINUX %s 2010-04-01", "", version)...)
	}
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"the right one", program("3.86"), ""},
		{"too new", program("6.04"), "it is version 6.04"},
		{"no program", bytes.Repeat([]byte("text"), 5000), "not a network boot program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			iso := storedISO(t)
			if err := os.WriteFile(filepath.Join(filepath.Dir(iso), "pxelinux.0"), tt.file, 0o644); err != nil {
				t.Fatal(err)
			}
			img, err := openStore(t).Fetch(t.Context(), assets.ISO{Path: iso}, nil)
			switch {
			case tt.want != "":
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v; want %q", err, tt.want)
				}
			case err != nil:
				t.Error(err)
			case img.ESXi.PXELinux == nil || img.ESXi.PXELinux.Size != int64(len(tt.file)):
				t.Errorf("%+v", img.ESXi.PXELinux)
			}
		})
	}
	_, err := openStore(t).Fetch(t.Context(), assets.ISO{Path: storedISO(t), PXELinux: "/nowhere/pxelinux.0"}, nil)
	if err == nil || !strings.Contains(err.Error(), "/nowhere/pxelinux.0") {
		t.Errorf("%v", err)
	}
}
