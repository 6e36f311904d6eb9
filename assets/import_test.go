package assets_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bootd/assets"
	"bootd/boot"
)

func TestImport(t *testing.T) {
	dir := t.TempDir()
	kernel, initrd, root := bzImage("lab"), content("initrd", 100_000), content("root", 300_000)
	write(t, dir, "vmlinuz", kernel)
	write(t, dir, "initramfs.img", initrd)
	write(t, dir, "rootfs.squashfs", root)
	s := newStore(t, nil)
	src := assets.Dir{Path: dir, Name: "lab", Family: boot.FedoraCoreOS}
	img, err := s.Fetch(t.Context(), src, newTally(t))
	if err != nil {
		t.Fatal(err)
	}
	recs := consistent(t, s)
	if len(recs) != 1 || recs[0].Source != dir || img.RootFS.SHA256 != digest(root) || img.Initrds[0].Size != 100_000 {
		t.Errorf("image %+v, records %+v", img, recs)
	}
	// The store has a copy of its own.
	write(t, dir, "rootfs.squashfs", content("other root", 300_000))
	consistent(t, s)
	again, err := s.Fetch(t.Context(), src, newTally(t))
	if err != nil || again.Version == img.Version {
		t.Errorf("changed files got version %s again: %v", again.Version, err)
	}
	if cur, err := s.Image("lab", "x86_64"); err != nil || cur.Version != again.Version {
		t.Errorf("current: %v, %v", cur.Version, err)
	}
	if recs := consistent(t, s); len(recs) != 2 {
		t.Errorf("%d records", len(recs))
	}
}

// TestImportSigned has signatures beside the files.
func TestImportSigned(t *testing.T) {
	key, other := newKey(t, nil), newKey(t, nil)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"vmlinuz": bzImage("k"), "initrd": []byte("i")} {
		write(t, dir, name, data)
		write(t, dir, name+".sig", sign(t, key, data))
	}
	src := assets.Dir{Path: dir, Name: "x"}

	unknowing := newStore(t, nil)
	if _, err := unknowing.Fetch(t.Context(), src, nil); err != nil {
		t.Errorf("without the key: %v", err)
	}
	s := newStore(t, nil)
	trust(t, s, key)
	if _, err := s.Fetch(t.Context(), src, nil); err != nil {
		t.Errorf("with the key: %v", err)
	}
	if recs, _ := s.List(); len(recs) != 1 || recs[0].KeyID != keyID(key) {
		t.Errorf("records: %+v", recs)
	}
	s = newStore(t, nil)
	trust(t, s, key)
	trust(t, s, other)
	write(t, dir, "initrd", []byte("changed"))
	_, err := s.Fetch(t.Context(), src, nil)
	if err == nil || !strings.Contains(err.Error(), "signature is not good") || !strings.Contains(err.Error(), filepath.Join(dir, "initrd")) {
		t.Errorf("a changed file: %v", err)
	}
	if left := listFiles(t, filepath.Join(s.Dir(), "sha256")); len(left) != 0 {
		t.Errorf("in the store: %v", left)
	}
}

func TestSourceOf(t *testing.T) {
	for name, want := range map[string]assets.Source{
		"fedora-coreos/next": assets.CoreOS{Stream: "next", CPU: "aarch64"},
		"flatcar/beta":       assets.Flatcar{Channel: "beta", CPU: "aarch64"},
		"flatcar":            nil,
		"flatcar/":           nil,
		"flatcar/a/b":        nil,
		"debian/12":          nil,
		"":                   nil,
	} {
		got, ok := assets.SourceOf(name, "aarch64")
		if got != want || ok != (want != nil) {
			t.Errorf("SourceOf(%q) = %v, %v", name, got, ok)
		}
	}
}

// TestBrokenKeyFile has a file that is no key beside the key that fits.
func TestBrokenKeyFile(t *testing.T) {
	m := newMirror(t)
	m.putCoreOS("41.1", 1000)
	s := newStore(t, nil)
	bad := filepath.Join(s.Dir(), "keys", "a.asc")
	if err := os.WriteFile(bad, []byte("ssh-ed25519 AAAA"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), coreOS(m), nil); err == nil || !strings.Contains(err.Error(), "not readable: "+bad) {
		t.Errorf("with only a broken file: %v", err)
	}
	trust(t, s, m.key)
	if _, err := s.Fetch(t.Context(), coreOS(m), nil); err != nil {
		t.Error(err)
	}
}
