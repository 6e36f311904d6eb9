package assets_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"bootd/assets"
)

// TestGnuPG verifies what GnuPG signed, by a subkey of an RSA key, as image makers
// do. The other tests sign with the library that also verifies.
func TestGnuPG(t *testing.T) {
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Skip("GnuPG is not installed")
	}
	home, err := os.MkdirTemp("", "gpg") // short: there will be sockets in it
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(gpg, append([]string{"--homedir", home, "--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gpg %v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run(); err != nil {
			t.Log(err)
		}
		os.RemoveAll(home)
	})
	params := filepath.Join(home, "params")
	write(t, home, "params", []byte("%no-protection\nKey-Type: RSA\nKey-Length: 2048\nKey-Usage: cert\nSubkey-Type: RSA\nSubkey-Length: 2048\nSubkey-Usage: sign\nName-Real: Image Maker\nExpire-Date: 1y\n%commit\n"))
	run("--gen-key", params)

	dir := t.TempDir()
	write(t, dir, "vmlinuz", bzImage("k"))
	write(t, dir, "initrd", content("i", 200_000))
	run("--output", filepath.Join(dir, "vmlinuz.sig"), "--detach-sign", filepath.Join(dir, "vmlinuz"))
	run("--armor", "--output", filepath.Join(dir, "initrd.sig"), "--detach-sign", filepath.Join(dir, "initrd"))

	for _, armor := range []bool{false, true} {
		s := newStore(t, nil)
		args := []string{"--output", filepath.Join(s.Dir(), "keys", "maker.gpg"), "--export"}
		if armor {
			args = append([]string{"--armor"}, args...)
		}
		run(args...)
		if _, err := s.Fetch(t.Context(), assets.Dir{Path: dir, Name: "x"}, nil); err != nil {
			t.Fatal(err)
		}
		recs, err := s.List()
		if err != nil || len(recs) != 1 || recs[0].KeyID == "" || recs[0].Signer != "Image Maker" {
			t.Errorf("armored key %v: %+v, %v", armor, recs, err)
		}
	}
}
