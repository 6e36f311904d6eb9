package power

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxPassword bounds a password, in bytes.
const maxPassword = 1024

// readPassword reads a password: the file's only line. A file that everybody
// can read, or that its group can write, is refused; its group may read it, so
// that root can own it and bootd use it.
func readPassword(path string) (string, error) {
	bad := func(text, remedy string) error { return fault(Setup, text, remedy) }
	f, err := os.Open(path)
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return "", bad(fmt.Sprintf("cannot be logged in to: cannot read the password file %s: %v", path, err), "write the password into it, readable by bootd only")
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", bad(fmt.Sprintf("cannot be logged in to: cannot read the password file %s: %v", path, err), "")
	case !info.Mode().IsRegular():
		return "", bad(fmt.Sprintf("cannot be logged in to: password file %s is no regular file", path), "")
	case info.Mode().Perm()&0o027 != 0:
		return "", bad(fmt.Sprintf("cannot be logged in to: password file %s can be read or changed by others (mode %04o)", path, info.Mode().Perm()),
			fmt.Sprintf("chmod 600 %s, or 640 with the group that bootd runs as", path))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPassword+2))
	if err != nil {
		return "", bad(fmt.Sprintf("cannot be logged in to: cannot read the password file %s: %v", path, err), "")
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	switch {
	case len(text) == 0:
		return "", bad(fmt.Sprintf("cannot be logged in to: password file %s is empty", path), "write the password into it")
	case len(text) > maxPassword || bytes.ContainsAny(text, "\n\x00"):
		return "", bad(fmt.Sprintf("cannot be logged in to: password file %s holds more than a password", path), "it must be one line")
	}
	return string(text), nil
}
