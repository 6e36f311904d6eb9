package vmdk_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootd/internal/esx/vmdk"
)

// TestQEMUReadsThem boots a machine of QEMU from what was written, in both
// forms. Its boot sector reads a text from behind the first grain table, and
// writes it to the serial port.
func TestQEMUReadsThem(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts machines")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("there is no qemu-system-x86_64")
	}
	const where, text = 33 << 20, "read from behind the first grain table\n"
	raw := make([]byte, 40<<20)
	copy(raw, []byte{
		0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
		0xbe, 0x40, 0x7c, 0xb4, 0x42, 0xcd, 0x13, // mov si, 0x7c40; mov ah, 0x42; int 0x13: read as 0x7c40 says
		0x72, 0x0e, // jc end
		0xbe, 0x00, 0x80, 0xba, 0xf8, 0x03, // mov si, 0x8000; mov dx, 0x3f8
		0xac, 0x84, 0xc0, 0x74, 0x03, // next: lodsb; test al, al; jz end
		0xee, 0xeb, 0xf8, // out dx, al; jmp next
		0xf4, 0xeb, 0xfd, // end: hlt; jmp end
	})
	copy(raw[0x40:], []byte{0x10, 0, 1, 0, 0, 0x80, 0, 0}) // one sector to 0000:8000
	binary.LittleEndian.PutUint64(raw[0x48:], where/512)
	raw[510], raw[511] = 0x55, 0xaa
	copy(raw[where:], text)

	packed := stream(t, raw)
	d, err := vmdk.Open(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Sparse()
	if err != nil {
		t.Fatal(err)
	}
	var sparse bytes.Buffer
	if err := s.Write(&sparse, "disk.vmdk"); err != nil {
		t.Fatal(err)
	}
	if sparse.Len() > 1<<20 || len(packed) > 256<<10 {
		t.Errorf("40 MiB of holes have %d bytes sparse, %d packed", sparse.Len(), len(packed))
	}
	for name, file := range map[string][]byte{"streamOptimized": packed, "monolithicSparse": sparse.Bytes()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.vmdk")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := boot(t, path, text); !strings.Contains(got, text) {
				t.Errorf("the machine wrote %q", got)
			}
		})
	}
}

// boot is what a machine writes to its serial port until it has written want.
func boot(t *testing.T, path, want string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "qemu-system-x86_64", "-m", "32", "-nographic", "-serial", "stdio", "-monitor", "none", "-net", "none",
		"-drive", "format=vmdk,if=virtio,readonly=on,file="+path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = c.Wait() // it was killed
	}()
	var got strings.Builder
	b := make([]byte, 4096)
	for !strings.Contains(got.String(), want) {
		n, err := out.Read(b)
		got.Write(b[:n])
		if err != nil {
			break
		}
	}
	return got.String()
}
