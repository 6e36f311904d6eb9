package power

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bootd/boot"
)

// Magic packets are sent to the discard port, like everybody does, some times
// over, since nothing tells when one is lost.
const (
	wolPort    = 9
	wolRepeats = 3
	wolPause   = 100 * time.Millisecond
)

// wake switches a machine on by wake-on-LAN.
func (s *Switches) wake(ctx context.Context, t Target, o Order) (Outcome, error) {
	if o.Action != On {
		_, err := s.opener(t, o.Action)
		return Outcome{}, named(err, t, o.Action)
	}
	at := time.Now()
	err := func() error {
		switch {
		case o.Boot != "":
			return fault(Unsupported, "wake-on-LAN cannot choose what it boots from", "set the order in its firmware: network before disks")
		case t.MAC.IsZero():
			return fault(Setup, "its hardware address is not known, which wake-on-LAN needs", "name it by mac: in its entry, or start it once by hand")
		}
		var password []byte
		if f := t.BMC.PasswordFile; f != "" {
			text, err := readPassword(f)
			if err != nil {
				return err
			}
			if password, err = parseSecureOn(text); err != nil {
				return fault(Setup, fmt.Sprintf("password file %s: %v", f, err), "write it as 01:23:45:67:89:ab")
			}
		}
		return sendMagic(ctx, t.BMC, magicPacket(t.MAC, password))
	}()
	switch {
	case ctx.Err() != nil:
		return Outcome{}, ctx.Err()
	case err != nil:
		return Outcome{}, named(err, t, o.Action)
	}
	return Outcome{Was: Unknown, Now: Unknown, Changed: true, At: at, Text: "magic packet sent; nothing tells whether it was heard"}, nil
}

// magicPacket is six bytes of ones and the address sixteen times, then the
// password (AMD, Magic Packet Technology, publication 20213).
func magicPacket(mac boot.MAC, password []byte) []byte {
	p := bytes.Repeat([]byte{0xff}, 6)
	return append(append(p, bytes.Repeat(mac[:], 16)...), password...)
}

// parseSecureOn reads the password of SecureOn: six bytes like a hardware
// address, or four like an IPv4 address, as etherwake does.
func parseSecureOn(s string) ([]byte, error) {
	s = strings.TrimSpace(s)
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		return a.AsSlice(), nil
	}
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "").Replace(s))
	if err != nil || len(b) != 6 {
		return nil, errors.New("it holds no password of SecureOn, which is six bytes") // never what it holds
	}
	return b, nil
}

// sendMagic broadcasts a packet on an interface.
func sendMagic(ctx context.Context, b boot.BMC, packet []byte) error {
	to := netip.AddrPortFrom(b.Broadcast, wolPort)
	if !b.Broadcast.IsValid() {
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), wolPort)
	}
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if b.Interface == "" {
			return nil
		}
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), b.Interface) }); e != nil {
			return e
		}
		return err
	}}
	conn, err := listen.ListenPacket(ctx, "udp4", ":0") // Go lets every UDP socket broadcast
	if err != nil {
		return wolFault(err, b)
	}
	defer conn.Close()
	for i := range wolRepeats {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wolPause):
			}
		}
		if _, err := conn.WriteTo(packet, net.UDPAddrFromAddrPort(to)); err != nil {
			return wolFault(err, b)
		}
	}
	return nil
}

func wolFault(err error, b boot.BMC) *Error {
	remedy := "set wol: {interface: NAME}, where the machine is, or wol: {broadcast: ADDRESS}"
	switch {
	case errors.Is(err, unix.ENODEV):
		remedy = "`ip link` shows which interfaces there are"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		remedy = "bootd must have CAP_NET_RAW to choose an interface"
	}
	e := fault(Other, fmt.Sprintf("the magic packet cannot be sent on %s: %s", cmp.Or(b.Interface, "any interface"), sysText(err)), remedy)
	e.Cause = err
	return e
}
