package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"bootd/boot"
)

// ARP on Ethernet (RFC 826): two headers of fixed length.
const (
	etherHeader = 14
	arpLength   = 28
)

// An arpSocket asks who has an address, and hears who answers.
type arpSocket struct {
	file *os.File
	card net.HardwareAddr
}

// openARP opens a socket for ARP on an interface. It takes CAP_NET_RAW.
func openARP(iface string) (*arpSocket, error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("there is no interface %s", iface)
	}
	if len(i.HardwareAddr) != len(boot.MAC{}) {
		return nil, fmt.Errorf("interface %s is no Ethernet", iface)
	}
	const proto = unix.ETH_P_ARP>>8 | unix.ETH_P_ARP&0xff<<8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: i.Index}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
	}
	return &arpSocket{file: os.NewFile(uintptr(fd), "ARP on "+iface), card: i.HardwareAddr}, nil
}

// probe asks who has an address without claiming one (RFC 5227 section 2.1.1).
func (s *arpSocket) probe(a netip.Addr) error {
	f := make([]byte, 0, etherHeader+arpLength)
	f = append(f, 255, 255, 255, 255, 255, 255)
	f = append(f, s.card...)
	f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1) // ARP; Ethernet, IPv4, their lengths, request
	f = append(f, s.card...)
	f = append(f, 0, 0, 0, 0)
	f = append(f, 0, 0, 0, 0, 0, 0)
	f = append(f, a.AsSlice()...)
	_, err := s.file.Write(f)
	return err
}

// hear waits for the next card that shows an address of its own.
func (s *arpSocket) hear() (netip.Addr, boot.MAC, error) {
	b := make([]byte, 128)
	for {
		n, err := s.file.Read(b)
		if errors.Is(err, os.ErrClosed) {
			return netip.Addr{}, boot.MAC{}, net.ErrClosed
		}
		if err != nil {
			return netip.Addr{}, boot.MAC{}, err
		}
		if a, mac, ok := sender(b[:n]); ok {
			return a, mac, nil
		}
	}
}

// sender reads who sent an ARP frame. A probe for an address shows none.
func sender(f []byte) (netip.Addr, boot.MAC, bool) {
	if len(f) < etherHeader+arpLength || string(f[etherHeader:etherHeader+6]) != "\x00\x01\x08\x00\x06\x04" {
		return netip.Addr{}, boot.MAC{}, false
	}
	p := f[etherHeader:]
	a := netip.AddrFrom4([4]byte(p[14:18]))
	return a, boot.MAC(p[8:14]), !a.IsUnspecified()
}

func (s *arpSocket) Close() error { return s.file.Close() }
