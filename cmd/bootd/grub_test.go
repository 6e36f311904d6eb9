package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/assets"
	"bootd/internal/config"
)

// TestWithoutGRUB: whoever says loader: grub is told for which processor shim or
// GRUB are missing.
func TestWithoutGRUB(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"bootd.yaml":           "networks: []\nstate_dir: state\nimages:\n  any: {path: image}\n  arm: {path: image, cpu: aarch64}\n",
		"profiles/secure.yaml": "name: secure\nimage: any\nloader: grub\n",
		"profiles/plain.yaml":  "name: plain\nimage: any\n",
		"profiles/board.yaml":  "name: board\nimage: arm\n",
		"machines/rack.yaml":   "- {name: node1, mac: \"52:54:00:00:00:01\", profile: board, loader: grub}\n- {name: node2, mac: \"52:54:00:00:00:02\", profile: secure}\n- {name: node3, mac: \"52:54:00:00:00:03\", profile: secure, loader: ipxe}\n",
		"none/snponly.efi":     string(efi(0x8664, "iPXE")),
		"half/shimx64.efi":     string(signedEFI("shim")),
		"x64/shimx64.efi":      string(signedEFI("shim")),
		"x64/grubnetx64.efi":   string(signedEFI("GRUB")),
		"arm/shimaa64.efi":     string(signedARM("shim")),
		"arm/grubnetaa64.efi":  string(signedARM("GRUB")),
		"image/of.nobody":      "",
	})
	cfg, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	both := []string{"x86_64: profile secure", "aarch64: machine node1"}
	for _, c := range []struct {
		dirs []string
		want []string
	}{
		{[]string{"none"}, both},
		{[]string{"half"}, both}, // shim without GRUB
		{[]string{"x64"}, both[1:]},
		{[]string{"arm"}, nil}, // whoever has that only has such machines
		{[]string{"x64", "arm"}, nil},
	} {
		var dirs, got []string
		for _, d := range c.dirs {
			dirs = append(dirs, filepath.Join(dir, d))
		}
		found := assets.LoadersIn(dirs...)
		for _, l := range withoutGRUB(cfg, found) {
			got = append(got, l.CPU+": "+strings.Join(l.For, ", "))
			if want := "profile secure: loader: grub, but no shim"; l.CPU == "x86_64" && (!strings.HasPrefix(l.String(), want) || !strings.Contains(l.Remedy, "grub-efi-amd64-signed")) {
				t.Errorf("%s -> %s", l, l.Remedy)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("with %v: %s", c.dirs, diff)
		}
		var log bytes.Buffer
		(&live{loaders: found, log: slog.New(slog.NewTextHandler(&log, nil))}).warnGRUB(cfg)
		if n := strings.Count(log.String(), "level=WARN"); n != len(c.want) {
			t.Errorf("with %v the log says\n%s", c.dirs, &log)
		}
	}
}

// signedARM is a program for UEFI on arm64 with a certificate table.
func signedARM(name string) []byte {
	b := signedEFI(name)
	for i := range len(b) - 6 {
		if string(b[i:i+6]) == "PE\x00\x00\x64\x86" {
			copy(b[i+4:], "\x64\xaa")
			break
		}
	}
	return b
}
