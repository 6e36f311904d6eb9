package dhcp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"bootd/boot"
)

// A Request is what a client's packet says, as far as it decides something.
type Request struct {
	Type      MessageType
	MAC       boot.MAC
	Client    boot.Client
	ROM       boot.ROM      // of firmware
	Features  boot.Features // of iPXE
	Class     string        // vendor class identifier, option 60
	Arch      boot.Arch
	ArchKnown bool
	UUID      string     // option 97
	Host      string     // option 12
	Asked     netip.Addr // option 50
	Server    netip.Addr // option 54
	Has       netip.Addr // ciaddr: the client uses it
	Relay     netip.Addr // giaddr
	Link      netip.Addr // of the client's subnet, as a relay agent or the client names it
	Broadcast bool

	// What the packet itself does not tell, set by who received it.
	From     netip.AddrPort // its sender
	BootPort bool           // it came to port 4011

	packet packet     // shares the memory of what was decoded
	work   *workspace // that its answer is made in; nil: memory of its own
}

// Inventory is what the request tells of the machine.
func (r Request) Inventory() boot.Inventory {
	return boot.Inventory{MAC: r.MAC, UUID: r.UUID, Arch: r.Arch, ArchKnown: r.ArchKnown}
}

// booter is what decides about the boot file.
func (r Request) booter() boot.Booter {
	return boot.Booter{Client: r.Client, Arch: r.Arch, ROM: r.ROM, Features: r.Features}
}

// boots reports whether a program asks that boots the machine.
func (r Request) boots() bool { return r.Client == boot.Firmware || r.Client == boot.IPXE }

// wants reports whether the client asks for an option (option 55). One that
// lists nothing may be sent anything.
func (r Request) wants(code byte) bool {
	list := r.packet.get(optWanted)
	return len(list) == 0 || bytes.IndexByte(list, code) >= 0
}

// Decode reads a client's packet. It accepts what real clients send, and
// refuses what cannot be answered: replies, other link layers, addresses that no
// card has. The Request is valid as long as b is not changed.
func Decode(b []byte) (Request, error) {
	p, err := parse(b)
	if err != nil {
		return Request{}, fmt.Errorf("not a DHCP packet: %w", err)
	}
	if p[0] != bootRequest {
		return Request{}, errors.New("a reply, not a request")
	}
	mac := boot.MAC(p[atCHAddr : atCHAddr+6])
	if p[atHType] != ethernet || p[atHLen] != 6 || mac.IsZero() || mac[0]&1 != 0 {
		return Request{}, fmt.Errorf("from %s, hardware of type %d, which is no Ethernet card's address",
			net.HardwareAddr(p[atCHAddr:atCHAddr+min(int(p[atHLen]), 16)]), p[atHType])
	}
	t := p.get(optType)
	if len(t) != 1 || t[0] == 0 {
		return Request{}, errors.New("BOOTP without a DHCP message type")
	}
	r := Request{
		Type:      MessageType(t[0]),
		MAC:       mac,
		Class:     printable(p.get(optClass)),
		UUID:      uuid(p.get(optMachine)),
		Host:      hostName(p.get(optHost)),
		Asked:     p.addr(optAsked),
		Server:    p.addr(optServer),
		Has:       p.addrAt(atCIAddr),
		Relay:     p.addrAt(atGIAddr),
		Broadcast: p[atFlags]&broadcasts != 0,
		packet:    p,
	}
	r.Link = link(p, r.Relay)
	r.Arch, r.ArchKnown = architecture(p, r.Class)
	r.identify()
	return r, nil
}

// link is where a client is: as a relay agent says in a suboption, when the
// address that it adds (giaddr) is for its own use (RFC 3527), as the client
// itself says (RFC 3011), or by the agent's address.
func link(p packet, relay netip.Addr) netip.Addr {
	if relay.IsValid() {
		if a := p.agent(agentLink); a.IsValid() {
			return a
		}
	}
	if a := p.addr(optSubnet); a.IsValid() {
		return a
	}
	return relay
}

// Suboptions of option 82 that are addresses.
const (
	agentLink   = 5  // RFC 3527: a subnet of the client's
	agentServer = 11 // RFC 5107: by which the client is to know the server
)

// agent reads an address that a relay agent has added.
func (p packet) agent(code byte) netip.Addr {
	info := p.get(optRelayInfo)
	for len(info) >= 2 {
		n := 2 + int(info[1])
		if n > len(info) {
			break
		}
		if info[0] == code {
			return addr4(info[2:n])
		}
		info = info[n:]
	}
	return netip.Addr{}
}

// identify tells which program sent the packet. iPXE says that it is a PXE
// client too, so it is looked for first: by its user class, which it sends
// without the length bytes of RFC 3004, or by its encapsulated options.
func (r *Request) identify() {
	own := r.packet.get(optIPXE)
	switch {
	case isIPXE(r.packet.get(optUserClass)) || len(own) > 0:
		r.Client, r.Features = boot.IPXE, features(own)
	case strings.HasPrefix(r.Class, "U-Boot"), r.Arch.UBoot():
		r.Client, r.ROM = boot.Firmware, boot.UBoot
		if !r.ArchKnown {
			r.Arch, r.ArchKnown = ubootArch(r.Class)
		}
	case strings.HasPrefix(r.Class, "PXEClient"):
		r.Client = boot.Firmware
		if r.Arch == boot.PiROM || r.Arch == boot.BIOS && raspberryPi(r.MAC) {
			r.Arch, r.ArchKnown, r.ROM = boot.PiROM, true, boot.RaspberryPi
		}
	case strings.HasPrefix(r.Class, "HTTPClient"):
		r.Client, r.ROM = boot.Firmware, boot.HTTPBoot
	case strings.Contains(r.Class, "initramfs"), strings.HasPrefix(r.Class, "dracut"):
		r.Client = boot.Initramfs
	default:
		r.Client = boot.System
	}
}

// ubootArch tells from U-Boot's vendor class what it runs on, for builds that do
// not say it otherwise (CONFIG_BOOTP_VCI_STRING).
func ubootArch(class string) (boot.Arch, bool) {
	switch class {
	case "U-Boot.armv8":
		return boot.UBootA64, true
	case "U-Boot.armv7", "U-Boot.arm":
		return boot.UBootARM, true
	}
	return 0, false
}

// isIPXE looks for iPXE's name in a user class, counted (RFC 3004) or plain.
func isIPXE(class []byte) bool {
	if string(class) == "iPXE" {
		return true
	}
	for len(class) > 0 && int(class[0]) < len(class) {
		n := 1 + int(class[0])
		if string(class[1:n]) == "iPXE" {
			return true
		}
		class = class[n:]
	}
	return false
}

// features reads which of its features a build of iPXE tells of.
func features(own []byte) (f boot.Features) {
	for len(own) >= 2 {
		n := 2 + int(own[1])
		if n > len(own) {
			break
		}
		if code := own[0]; code >= 16 && code < 64 && n == 3 && own[2] != 0 {
			f |= 1 << code
		}
		own = own[n:]
	}
	return f
}

// raspberryPi knows the address blocks of Raspberry Pi's makers. The ROM says
// that it is a BIOS, and nothing else of what it is.
func raspberryPi(mac boot.MAC) bool {
	switch [3]byte(mac[:3]) {
	case [3]byte{0xb8, 0x27, 0xeb}, [3]byte{0xdc, 0xa6, 0x32}, [3]byte{0xe4, 0x5f, 0x01},
		[3]byte{0x28, 0xcd, 0xc1}, [3]byte{0xd8, 0x3a, 0xdd}:
		return true
	}
	return false
}

// architecture reads option 93, or else the vendor class
// PXEClient:Arch:00007:UNDI:003016, where the number is decimal.
func architecture(p packet, class string) (boot.Arch, bool) {
	if b := p.get(optArchitecture); len(b) >= 2 {
		return boot.Arch(binary.BigEndian.Uint16(b)), true
	}
	_, rest, ok := strings.Cut(class, ":Arch:")
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, ":")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return 0, false
	}
	return boot.Arch(n), true
}

// identifierSize is the length of option 97: a type and a GUID.
const identifierSize = 17

// uuid reads option 97: a type byte, 0, and a GUID whose first three parts are
// little endian (RFC 4578 section 2.3), as SMBIOS has it. Some firmware sends
// all zeros or all ones, which names no machine.
func uuid(b []byte) string {
	if len(b) != identifierSize || b[0] != 0 {
		return ""
	}
	u := [16]byte(b[1:])
	same := true
	for _, x := range u {
		same = same && x == u[0]
	}
	if same {
		return ""
	}
	u[0], u[1], u[2], u[3] = u[3], u[2], u[1], u[0]
	u[4], u[5] = u[5], u[4]
	u[6], u[7] = u[7], u[6]
	text := make([]byte, 0, 36)
	for i, n := range []int{4, 2, 2, 2, 6} {
		if i > 0 {
			text = append(text, '-')
		}
		from := (len(text) - i) / 2
		text = hex.AppendEncode(text, u[from:from+n])
	}
	return string(text)
}

// hostName keeps what can be a host name of what a client says.
func hostName(b []byte) string {
	s := strings.ToLower(string(bytes.TrimRight(b, "\x00")))
	if !boot.ValidName(s) {
		return ""
	}
	return s
}

// printable bounds and cleans text that goes into logs.
func printable(b []byte) string {
	s := string(b[:min(len(b), 64)])
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
