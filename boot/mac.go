package boot

import (
	"fmt"
	"net"
	"strings"
)

// A MAC is an Ethernet hardware address. Unlike [net.HardwareAddr] it can be
// compared and can be the key of a map.
type MAC [6]byte

// ParseMAC reads an Ethernet address in any of the spellings that people copy
// from labels and switches: 52:54:00:12:34:56, 52-54-00-12-34-56,
// 5254.0012.3456 or 525400123456, in either case.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	t := s
	if len(t) == 12 && !strings.ContainsAny(t, ":-.") {
		t = t[:4] + "." + t[4:8] + "." + t[8:]
	}
	hw, err := net.ParseMAC(t)
	if err != nil || len(hw) != len(m) {
		return m, fmt.Errorf("%q is not an Ethernet address such as 52:54:00:12:34:56", s)
	}
	return MAC(hw), nil
}

// MACFrom converts a hardware address. It reports false when hw is not an
// Ethernet address.
func MACFrom(hw net.HardwareAddr) (MAC, bool) {
	if len(hw) != len(MAC{}) {
		return MAC{}, false
	}
	return MAC(hw), true
}

// String writes m as 52:54:00:12:34:56.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Hyphens writes m as 52-54-00-12-34-56, as iPXE's :hexhyp and pxelinux do.
func (m MAC) Hyphens() string { return strings.ReplaceAll(m.String(), ":", "-") }

// IsZero reports whether m is unset.
func (m MAC) IsZero() bool { return m == MAC{} }

// MarshalText implements [encoding.TextMarshaler].
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *MAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	p, err := ParseMAC(string(b))
	if err != nil {
		return err
	}
	*m = p
	return nil
}
