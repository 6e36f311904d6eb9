package ignition_test

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"bootd/ignition"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
)

type member struct {
	Name  string
	Mode  cpio.FileMode
	Links int
	Body  string
}

func unwrap(t *testing.T, archive []byte) []member {
	t.Helper()
	var members []member
	inodes := map[int64]bool{}
	r := cpio.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Guid != 0 || h.ModTime.Unix() != 0 || inodes[h.Inode] {
			t.Errorf("%s: owner %d:%d, time %v, inode %d", h.Name, h.Uid, h.Guid, h.ModTime, h.Inode)
		}
		inodes[h.Inode] = true
		members = append(members, member{h.Name, h.Mode, h.Links, string(body)})
	}
}

func TestWrap(t *testing.T) {
	for _, config := range []string{"", "{", `{"a"`, `{"ignition":{"version":"3.3.0"}}`, strings.Repeat("x", 1000), strings.Repeat("y", 1<<20+3)} {
		archive := ignition.Wrap([]byte(config))
		want := []member{
			{"config.ign", 0o100600, 1, config},
			{"usr", 0o040755, 2, ""},
			{"usr/share", 0o040755, 2, ""},
			{"usr/share/oem", 0o040755, 2, ""},
			{"usr/share/oem/config.ign", 0o100600, 1, config},
		}
		if diff := cmp.Diff(want, unwrap(t, archive)); diff != "" {
			t.Errorf("%d bytes (-want +got)\n%.500s", len(config), diff)
		}
		if len(archive)%512 != 0 {
			t.Errorf("%d bytes make an archive of %d", len(config), len(archive))
		}
		if !bytes.Equal(archive, ignition.Wrap([]byte(config))) {
			t.Errorf("the same %d bytes make another archive", len(config))
		}
	}
}

// TestWrapForCPIO lists and unpacks an archive, and two in a row as the kernel
// finds them, with the program that others use.
func TestWrapForCPIO(t *testing.T) {
	prog, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("cpio is not installed")
	}
	archive := ignition.Wrap([]byte("{}\n"))
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(prog, args...)
		cmd.Dir, cmd.Stdin = t.TempDir(), bytes.NewReader(archive)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("cpio %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	list := "config.ign\nusr\nusr/share\nusr/share/oem\nusr/share/oem/config.ign\n"
	if got := run("-it", "--quiet"); got != list {
		t.Errorf("cpio lists\n%s", got)
	}
	if got := run("-i", "--quiet", "--to-stdout", "usr/share/oem/config.ign"); got != "{}\n" {
		t.Errorf("cpio unpacks %q", got)
	}
	if got := run("-itv", "--quiet", "--numeric-uid-gid"); !strings.Contains(got, "-rw-------   1 0        0               3 ") {
		t.Errorf("cpio lists\n%s", got)
	}
}
