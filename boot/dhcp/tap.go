package dhcp

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"bootd/boot"
)

// A packetTap is a Tap on a real interface.
type packetTap struct {
	file *os.File
	card boot.MAC
}

// openTap opens a tap on an interface. It takes CAP_NET_RAW. The kernel passes
// on only what DHCP servers send to clients.
func openTap(iface string) (Tap, error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("there is no interface %s", iface)
	}
	if len(i.HardwareAddr) != len(boot.MAC{}) {
		return nil, fmt.Errorf("interface %s is no Ethernet", iface)
	}
	filter, err := serversOnly()
	if err != nil {
		return nil, err
	}
	const proto = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := errors.Join(
		os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})),
		os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: i.Index})),
	); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &packetTap{file: os.NewFile(uintptr(fd), "DHCP servers on "+iface), card: boot.MAC(i.HardwareAddr)}, nil
}

// serversOnly is a filter for UDP from port 67 to port 68.
func serversOnly() ([]unix.SockFilter, error) {
	const drop = 8 // instructions to the end from the first test
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: etherHeader + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 17, SkipTrue: drop},
		bpf.LoadAbsolute{Off: etherHeader + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: drop - 2},
		bpf.LoadMemShift{Off: etherHeader},
		bpf.LoadIndirect{Off: etherHeader, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: serverPort, SkipTrue: drop - 5},
		bpf.LoadIndirect{Off: etherHeader + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clientPort, SkipTrue: drop - 7},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make a filter: %w", err)
	}
	out := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		out[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return out, nil
}

func (t *packetTap) Receive(frame []byte) (int, error) {
	n, err := t.file.Read(frame)
	if errors.Is(err, os.ErrClosed) {
		return 0, net.ErrClosed
	}
	return n, err
}

func (t *packetTap) Send(frame []byte) error {
	_, err := t.file.Write(frame)
	return err
}

func (t *packetTap) Card() boot.MAC { return t.card }

func (t *packetTap) Close() error { return t.file.Close() }
