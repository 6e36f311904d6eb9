package tftp_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootd/boot/tftp"
)

// TestOthers: what is in no directory is asked for last, with who asks, and its
// owner is told when it has been sent, instead of the record.
func TestOthers(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "loaders/undionly.kpxe"), "undionly")
	write(t, filepath.Join(dir, "overlay/grub/x"), "the operator's")
	sent := make(chan int64, 1)
	b := startWith(t, filepath.Join(dir, "loaders"), filepath.Join(dir, "overlay"), func(_ context.Context, name string, client, server netip.Addr) (tftp.Content, error) {
		if !strings.HasPrefix(name, "grub") {
			return tftp.Content{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		text := fmt.Sprintf("%s for %s at %s", name, client, server)
		return tftp.Content{ReadCloser: io.NopCloser(strings.NewReader(text)), Size: int64(len(text)), Sent: func(n int64, took time.Duration) {
			if took <= 0 {
				t.Errorf("it took %v", took)
			}
			sent <- n
		}}, nil
	})
	text := "grub?mac=x&a=b for 127.0.0.1 at 127.0.0.1"
	for name, want := range map[string]string{
		"/grub?mac=x&a=b": text, "grub/x": "the operator's", "undionly.kpxe": "undionly", "nothing": "",
	} {
		got, err := b.get(t, name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for range 2 { // of the files in directories
		if e := <-b.events; strings.HasPrefix(e.Text, "grub?") {
			t.Errorf("it is on record, too: %s", e.Text)
		}
	}
	if n := <-sent; n != int64(len(text)) {
		t.Errorf("%d bytes were told as sent, of %d", n, len(text))
	}
}

// TestRaspberryPi: a Pi finds in its own folder what is only for it, and the rest
// above, by its serial number and by its MAC.
func TestRaspberryPi(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"start4.elf": "firmware", "config.txt": "for all", "overlays/x.dtbo": "an overlay",
		"1a2b3c4d/config.txt": "for one", "dc-a6-32-00-00-01/config.txt": "for another", "secret": "x",
	} {
		write(t, filepath.Join(dir, "overlay", name), text)
	}
	b := start(t, t.TempDir(), filepath.Join(dir, "overlay"))
	for name, want := range map[string]string{
		"1a2b3c4d/config.txt":           "for one",
		"1a2b3c4d/start4.elf":           "firmware",
		"1a2b3c4d/overlays/x.dtbo":      "an overlay",
		"ffffffff/config.txt":           "for all",
		"dc-a6-32-00-00-01/config.txt":  "for another",
		"dc-a6-32-00-00-01/start4.elf":  "firmware",
		"dc-a6-32-00-00-02/config.txt":  "for all",
		"1a2b3c4d/start.elf":            "",
		"1a2b3c4/start4.elf":            "",
		"1A2B3C4D/start4.elf":           "",
		"other/start4.elf":              "",
		"1a2b3c4d/ffffffff/start4.elf":  "",
		"1a2b3c4d/../../overlay/secret": "",
	} {
		if got, err := b.get(t, name); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
