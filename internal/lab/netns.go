package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"bootd/boot"
)

// netnsDir is where `ip netns` finds namespaces by name.
const netnsDir = "/run/netns"

// Bridge is the interface in the lab's network namespace that the machines
// are connected to.
const Bridge = "br0"

// onThread runs f on an operating system thread of its own, which ends with
// f: whatever f does to the thread's namespaces is lost with it. A process
// that f starts inherits them.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// In runs f in the lab's network namespace. Sockets and processes that f
// opens itself, not in goroutines, are in that namespace.
func (l Lab) In(f func() error) error {
	return onThread(func() error {
		h, err := netns.GetFromName(l.Netns())
		if err != nil {
			return fmt.Errorf("cannot enter network namespace %s: %w; is the lab up?", l.Netns(), err)
		}
		defer h.Close()
		if err := netns.Set(h); err != nil {
			return fmt.Errorf("cannot enter network namespace %s: %w", l.Netns(), err)
		}
		return f()
	})
}

// createNet makes the namespace and the bridge with the boot server's
// address. It has no way out: no route, no link to the host.
func (l Lab) createNet(addr netip.Prefix) error {
	return onThread(func() error {
		h, err := netns.NewNamed(l.Netns())
		if err != nil {
			return fmt.Errorf("cannot create network namespace %s: %w", l.Netns(), err)
		}
		defer h.Close()
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("cannot find the loopback interface: %w", err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("cannot start the loopback interface: %w", err)
		}
		return createBridge(addr)
	})
}

func createBridge(addr netip.Prefix) error {
	snooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name = Bridge
	// A bridge without an address of its own takes its lowest port's, so the
	// server's would change when a machine is switched on.
	ip := addr.Addr().As4()
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0xbd, ip[0], ip[1], ip[2], ip[3]}
	b := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(b); err != nil {
		return fmt.Errorf("cannot create bridge %s: %w", Bridge, err)
	}
	if err := forwardAtOnce(b.Attrs().Index); err != nil {
		return fmt.Errorf("cannot configure bridge %s: %w", Bridge, err)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), 32)}}
	if err := netlink.AddrAdd(b, a); err != nil {
		return fmt.Errorf("cannot give %s to bridge %s: %w", addr, Bridge, err)
	}
	if err := netlink.LinkSetUp(b); err != nil {
		return fmt.Errorf("cannot start bridge %s: %w", Bridge, err)
	}
	return nil
}

// forwardAtOnce sets the bridge's forward delay to zero. Otherwise a port drops
// its first 15 seconds of packets, spanning tree or not, and firmware has
// given up on DHCP by then. The netlink package has no field for it.
func forwardAtOnce(index int) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// Tap connects a tap to the bridge, unless it is there. It is for a machine, and
// goes with the lab.
func (l Lab) Tap(name string) error {
	return l.In(func() error {
		if _, err := netlink.LinkByName(name); err == nil {
			return nil
		}
		b, err := netlink.LinkByName(Bridge)
		if err != nil {
			return fmt.Errorf("cannot find bridge %s: %w", Bridge, err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		attrs.MasterIndex = b.Attrs().Index
		tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI}
		if err := netlink.LinkAdd(tap); err != nil {
			return fmt.Errorf("cannot create tap %s: %w (is the tun module there? modprobe tun)", name, err)
		}
		for _, f := range tap.Fds {
			f.Close()
		}
		if err := netlink.LinkSetUp(tap); err != nil {
			return fmt.Errorf("cannot start tap %s: %w", name, err)
		}
		return nil
	})
}

// neighbour finds the address that a hardware address has used on the bridge.
func (l Lab) neighbour(mac boot.MAC) (addr netip.Addr, err error) {
	err = l.In(func() error {
		b, err := netlink.LinkByName(Bridge)
		if err != nil {
			return fmt.Errorf("cannot find bridge %s: %w", Bridge, err)
		}
		list, err := netlink.NeighList(b.Attrs().Index, netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("cannot list the neighbours on %s: %w", Bridge, err)
		}
		for _, n := range list {
			if m, ok := boot.MACFrom(n.HardwareAddr); ok && m == mac {
				addr, _ = netip.AddrFromSlice(n.IP.To4())
			}
		}
		return nil
	})
	return addr, err
}

// removeNet removes the namespace and, with it, bridge and taps.
func (l Lab) removeNet() error {
	path := filepath.Join(netnsDir, l.Netns())
	// Several mounts may lie on top of each other after a crash.
	for range 16 {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			break
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove network namespace %s: %w", l.Netns(), err)
	}
	return nil
}

// inhabitants lists the processes in the lab's network namespace, and those
// whose root file system lies in the lab's data: containers of its engine.
func (l Lab) inhabitants() []int {
	var ns unix.Stat_t
	haveNS := unix.Stat(filepath.Join(netnsDir, l.Netns()), &ns) == nil
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t
		switch {
		case haveNS && unix.Stat(filepath.Join(d, "ns/net"), &st) == nil && st.Dev == ns.Dev && st.Ino == ns.Ino:
			pids = append(pids, pid)
		case rootedIn(d, l.StateDir()):
			pids = append(pids, pid)
		}
	}
	return pids
}

// rootedIn reports whether the root of the process is an overlay with its
// upper directory below dir.
func rootedIn(proc, dir string) bool {
	b, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && f[4] == "/" && strings.Contains(line, "upperdir="+dir+"/") {
			return true
		}
	}
	return false
}

// unmountBelow removes what is mounted below dir in this mount namespace.
func unmountBelow(dir string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	for i := len(points) - 1; i >= 0; i-- {
		_ = syscall.Unmount(points[i], unix.MNT_DETACH) // what stays makes the removal of the directory fail
	}
}
