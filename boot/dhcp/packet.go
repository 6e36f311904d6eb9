package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Where fields are in a packet (RFC 2131 section 2).
const (
	atHType   = 1
	atHLen    = 2
	atXID     = 4
	atFlags   = 10
	atCIAddr  = 12
	atYIAddr  = 16
	atSIAddr  = 20
	atGIAddr  = 24
	atCHAddr  = 28
	atSName   = 44
	atFile    = 108
	atCookie  = 236
	atOptions = 240
)

const (
	bootRequest = 1
	bootReply   = 2
	ethernet    = 1
	cookie      = 0x63825363
	broadcasts  = 0x80 // in the first byte of the flags
)

// A MessageType is DHCP's option 53.
type MessageType uint8

// The types of RFC 2132 section 9.6.
const (
	TypeDiscover MessageType = 1 + iota
	TypeOffer
	TypeRequest
	TypeDecline
	TypeAck
	TypeNak
	TypeRelease
	TypeInform
)

// String names the type as RFC 2131 does.
func (t MessageType) String() string {
	names := [...]string{"", "DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE", "INFORM"}
	if t == 0 || int(t) >= len(names) {
		return fmt.Sprintf("type %d", uint8(t))
	}
	return names[t]
}

// Options that bootd reads or writes (RFC 2132 unless noted).
const (
	optPad          = 0
	optMask         = 1
	optRouter       = 3
	optDNS          = 6
	optHost         = 12
	optDomain       = 15
	optMTU          = 26
	optBroadcast    = 28
	optNTP          = 42
	optVendor       = 43
	optAsked        = 50
	optLeaseTime    = 51
	optType         = 53
	optServer       = 54
	optWanted       = 55
	optMessage      = 56
	optMaxSize      = 57
	optRenewal      = 58
	optRebinding    = 59
	optClass        = 60
	optClientID     = 61
	optServerName   = 66
	optBootFile     = 67
	optUserClass    = 77  // RFC 3004
	optRelayInfo    = 82  // RFC 3046
	optArchitecture = 93  // RFC 4578
	optMachine      = 97  // RFC 4578
	optSubnet       = 118 // RFC 3011
	optIPXE         = 175 // iPXE's encapsulated options
	optEnd          = 255
)

// A packet is a datagram whose layout has been checked. Nothing is decoded
// until it is asked for: most options decide nothing.
type packet []byte

var errCut = errors.New("it is cut off")

// parse checks the layout: all fixed fields, the cookie, and whole options up
// to an end.
func parse(b []byte) (packet, error) {
	switch {
	case len(b) < atOptions:
		return nil, errCut
	case binary.BigEndian.Uint32(b[atCookie:]) != cookie:
		return nil, errors.New("it has no DHCP options")
	}
	rest := b[atOptions:]
	for len(rest) > 0 {
		code := rest[0]
		if code == optEnd {
			return b, nil
		}
		var ok bool
		if _, rest, ok = cut(rest); !ok {
			return nil, fmt.Errorf("option %d is cut off", code)
		}
	}
	return nil, errors.New("its options have no end")
}

// cut splits the value of the first option off. A pad has none.
func cut(b []byte) (value, rest []byte, ok bool) {
	if b[0] == optPad {
		return nil, b[1:], true
	}
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return nil, nil, false
	}
	n := 2 + int(b[1])
	return b[2:n:n], b[n:], true
}

// get returns the value of an option; nil when it is not there. Parts of a
// long one are joined (RFC 3396). The result may share p's memory.
func (p packet) get(code byte) []byte { return find(p[atOptions:], code) }

func find(b []byte, code byte) []byte {
	var found []byte
	for len(b) > 0 && b[0] != optEnd {
		c := b[0]
		value, rest, ok := cut(b)
		if !ok {
			break
		}
		if c == code && c != optPad {
			if found == nil {
				found = value
			} else {
				found = append(found, value...) // which copies: values have no room behind them
			}
		}
		b = rest
	}
	return found
}

// addr reads an address from an option; invalid when it is none.
func (p packet) addr(code byte) netip.Addr { return addr4(p.get(code)) }

// addrAt reads an address field.
func (p packet) addrAt(at int) netip.Addr { return addr4(p[at : at+4]) }

func addr4(b []byte) netip.Addr {
	if len(b) != 4 || b[0]|b[1]|b[2]|b[3] == 0 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(b))
}

// A message is a reply that is being written. It grows by options, each of
// which is put once.
type message []byte

// usualSize is more than most replies take.
const usualSize = 640

// newMessage begins a reply to p, in the memory of b if there is enough.
func newMessage(b []byte, p packet, t MessageType) message {
	if cap(b) < usualSize {
		b = make([]byte, usualSize)
	}
	m := message(b[:atOptions])
	clear(m)
	m[0], m[atHType], m[atHLen] = bootReply, p[atHType], p[atHLen]
	copy(m[atXID:], p[atXID:atXID+4])
	copy(m[atFlags:], p[atFlags:atFlags+2])
	copy(m[atGIAddr:], p[atGIAddr:atGIAddr+4])
	copy(m[atCHAddr:], p[atCHAddr:atCHAddr+16])
	binary.BigEndian.PutUint32(m[atCookie:], cookie)
	m.put(optType, byte(t))
	return m
}

func (m message) setAddr(at int, a netip.Addr) {
	b := a.As4()
	copy(m[at:], b[:])
}

// setText writes a field that ends with a NUL if it fits, size being the
// field's.
func (m message) setText(at, size int, s string) {
	if len(s) < size {
		copy(m[at:], s)
	}
}

// put adds an option, in parts if it is long (RFC 3396).
func (m *message) put(code byte, value ...byte) {
	for {
		n := min(len(value), 255)
		*m = append(append(*m, code, byte(n)), value[:n]...)
		if value = value[n:]; len(value) == 0 {
			return
		}
	}
}

func (m *message) putText(code byte, s string) {
	if len(s) > 255 {
		m.put(code, []byte(s)...)
		return
	}
	*m = append(append(*m, code, byte(len(s))), s...)
}

func (m *message) putAddr(code byte, a netip.Addr) {
	b := a.As4()
	*m = append(append(*m, code, 4), b[:]...)
}

func (m *message) putAddrs(code byte, list []netip.Addr) {
	if len(list)*4 > 255 {
		list = list[:255/4]
	}
	*m = append(*m, code, byte(len(list)*4))
	for _, a := range list {
		b := a.As4()
		*m = append(*m, b[:]...)
	}
}

func (m *message) putUint32(code byte, n uint32) {
	*m = binary.BigEndian.AppendUint32(append(*m, code, 4), n)
}

func (m message) has(code byte) bool {
	for b := m[atOptions:]; len(b) > 0; {
		if b[0] == code {
			return true
		}
		_, b, _ = cut(b)
	}
	return false
}

// drop takes an option out.
func (m *message) drop(code byte) {
	kept := (*m)[:atOptions]
	for b := (*m)[atOptions:]; len(b) > 0; {
		_, rest, _ := cut(b)
		if b[0] != code {
			kept = append(kept, b[:len(b)-len(rest)]...)
		}
		b = rest
	}
	*m = kept
}
