package doctor

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Port is one that a server wants.
type Port struct {
	Proto string     // udp or tcp
	Addr  netip.Addr // invalid: all of them
	Num   uint16
	Iface string // that it is bound to; empty: none
}

// String says which port it is, for people: UDP port 67.
func (p Port) String() string { return fmt.Sprintf("%s port %d", strings.ToUpper(p.Proto), p.Num) }

// Free tries whether a port can be bound, and gives it up again. Nil: it can;
// the error wraps syscall.EADDRINUSE when somebody else has it, and
// syscall.EACCES or EPERM when the caller may not try.
func Free(ctx context.Context, p Port) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			if p.Iface != "" {
				failed = unix.BindToDevice(int(fd), p.Iface)
			}
			if p.Proto == "udp" {
				// What shares its port with others is in the way nevertheless.
				failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0))
			}
		})
		return errors.Join(err, failed)
	}}
	at := net.JoinHostPort("0.0.0.0", strconv.Itoa(int(p.Num)))
	if p.Addr.IsValid() {
		at = netip.AddrPortFrom(p.Addr, p.Num).String()
	}
	family := "4"
	if p.Addr.Is6() {
		family = "6"
	}
	if p.Proto == "udp" {
		c, err := lc.ListenPacket(ctx, "udp"+family, at)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := lc.Listen(ctx, "tcp"+family, at)
	if err != nil {
		return err
	}
	return l.Close()
}

// A Holder is a process that has a port.
type Holder struct {
	PID  int
	Name string // of its program
}

// Holders lists the processes that have a port, at its address or at all. It is
// empty when none has, and when that is not for the caller to see.
func Holders(p Port) []Holder {
	inodes := map[string]bool{}
	for _, table := range []string{p.Proto, p.Proto + "6"} {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if err != nil {
			continue // without IPv6
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if inode, ok := bound(lines.Text(), p); ok {
				inodes["socket:["+inode+"]"] = true
			}
		}
		f.Close()
	}
	if len(inodes) == 0 {
		return nil
	}
	var out []Holder
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range files {
		if target, err := os.Readlink(fd); err != nil || !inodes[target] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, _ := strconv.Atoi(filepath.Base(dir))
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		h := Holder{PID: pid, Name: strings.TrimSpace(string(name))}
		if !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b Holder) int { return cmp.Compare(a.PID, b.PID) })
	return out
}

// bound reads a line of /proc/net/udp or tcp (proc_net(5)): the inode of the
// socket, if it is bound where p is wanted and, for TCP, listens.
func bound(line string, p Port) (inode string, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return "", false
	}
	const listening = "0A"
	host, port, _ := strings.Cut(f[1], ":")
	num, err := strconv.ParseUint(port, 16, 16)
	if err != nil || uint16(num) != p.Num || p.Proto == "tcp" && f[3] != listening {
		return "", false
	}
	anywhere := strings.Trim(host, "0") == "" || !p.Addr.IsValid() || p.Addr.IsUnspecified()
	// A socket of IPv6 may have an address of IPv4, as ::ffff:10.0.0.1.
	mapped := p.Addr.Is4() && host == kernelHex(netip.AddrFrom16(p.Addr.As16()))
	if !anywhere && !mapped && host != kernelHex(p.Addr) {
		return "", false
	}
	return f[9], true
}

// kernelHex is an address as the kernel shows it: as numbers of 32 bits of the
// processor's own byte order.
func kernelHex(a netip.Addr) string {
	s := ""
	for b := a.AsSlice(); len(b) > 0; b = b[4:] {
		s += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b))
	}
	return s
}
