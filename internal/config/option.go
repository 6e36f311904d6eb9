package config

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"bootd/boot"
)

// knownOptions are DHCP options that people set by name (IANA's registry of
// BOOTP and DHCP parameters), with the type of their value.
var knownOptions = map[string]struct {
	code uint8
	kind string
}{
	"time-offset":          {2, "i32"},
	"log-servers":          {7, "ips"},
	"root-path":            {17, "text"},
	"ip-forwarding":        {19, "bool"},
	"default-ttl":          {23, "u8"},
	"nis-domain":           {40, "text"},
	"nis-servers":          {41, "ips"},
	"netbios-name-servers": {44, "ips"},
	"smtp-servers":         {69, "ips"},
	"tz-posix":             {100, "text"}, // RFC 4833
	"tz-name":              {101, "text"},
	"v6-only-preferred":    {108, "u32"},     // RFC 8925
	"captive-portal":       {114, "text"},    // RFC 8910
	"domain-search":        {119, "domains"}, // RFC 3397
	"classless-routes":     {121, "routes"},  // RFC 3442
	"capwap-controllers":   {138, "ips"},     // RFC 5417
	"tftp-servers":         {150, "ips"},     // RFC 5859
	"wpad":                 {252, "text"},
}

// ownOptions are those that cannot be set, and what is done instead.
var ownOptions = map[uint8]string{
	0: "it is padding", 255: "it ends the options",
	1: "it follows from subnet", 28: "it follows from subnet",
	3: "write router", 6: "write dns", 12: "write name in the machine's entry", 15: "write domain", 26: "write mtu", 42: "write ntp",
	51: "write lease_time", 58: "it follows from lease_time", 59: "it follows from lease_time",
	50: "only clients send it", 55: "only clients send it", 57: "only clients send it", 61: "only clients send it", 77: "only clients send it",
	93: "only clients send it", 94: "only clients send it", 97: "only clients send it",
	43: "it is for firmware, as bootd needs it", 60: "it is for firmware, as bootd needs it", 175: "it is for iPXE, as bootd needs it",
	66: "bootd is the boot server", 67: "bootd chooses the boot file",
	52: "it is part of the protocol", 53: "it is part of the protocol", 54: "it is part of the protocol", 56: "it is part of the protocol",
	82: "it is part of the protocol", 118: "it is part of the protocol",
}

// optionKinds are what a value can be.
var optionKinds = []string{"text", "ip", "ips", "hex", "u8", "u16", "u32", "i32", "bool", "domains", "routes"}

// dhcpOptions reads a mapping of further DHCP options, by name or code:
//
//	options:
//	  tz-name: Europe/Vienna
//	  150: {ip: 10.0.0.5}
//	  224: {hex: "01:02", always: true}
func (d *document) dhcpOptions(dst *[]boot.Option) func(string, ast.Node) {
	return func(key string, v ast.Node) {
		d.entries(v, key, func(name string, k, v ast.Node) {
			o, ok := d.dhcpOption(name, k, v)
			switch {
			case !ok:
			case slices.ContainsFunc(*dst, func(p boot.Option) bool { return p.Code == o.Code }):
				d.wrong(k, fmt.Sprintf("option %d is set twice", o.Code), "")
			default:
				*dst = append(*dst, o)
			}
		})
		slices.SortFunc(*dst, func(a, b boot.Option) int { return int(a.Code) - int(b.Code) })
	}
}

func (d *document) dhcpOption(name string, k, v ast.Node) (boot.Option, bool) {
	o := boot.Option{Origin: d.origin(k)}
	known, ok := knownOptions[name]
	if ok {
		o.Code = known.code
	} else {
		n, err := strconv.ParseUint(name, 10, 8)
		if err != nil {
			d.wrong(k, fmt.Sprintf("there is no option %q", clip(name)), suggest(name, slices.Sorted(maps.Keys(knownOptions)))+orCode)
			return o, false
		}
		o.Code = uint8(n)
		for _, other := range knownOptions {
			if other.code == o.Code {
				known = other
			}
		}
	}
	if why, ok := ownOptions[o.Code]; ok {
		d.wrong(k, fmt.Sprintf("option %d cannot be set", o.Code), why)
		return o, false
	}
	kindOf, value := known.kind, v
	if _, ok := v.(ast.MapNode); ok {
		kindOf, value = "", nil
		good := d.entries(v, "option "+name, func(key string, k, v ast.Node) {
			switch {
			case key == "always":
				d.yes(&o.Always)(key, v)
			case !slices.Contains(optionKinds, key):
				d.wrong(k, fmt.Sprintf("unknown key %q in option %s", key, name), suggest(key, append(optionKinds, "always")))
			case value != nil:
				d.wrong(k, fmt.Sprintf("option %s has two values", name), "keep one")
			default:
				kindOf, value = key, v
			}
		})
		if !good {
			return o, false
		}
	}
	if value == nil || kindOf == "" {
		d.wrong(v, fmt.Sprintf("option %s does not say what its value is", name), "write {text: ...}, or one of "+strings.Join(optionKinds[1:], ", "))
		return o, false
	}
	bytes, text, ok := d.optionValue("option "+name, kindOf, value)
	o.Value, o.Text = bytes, text
	if ok && len(o.Value) > 255 {
		d.wrong(value, fmt.Sprintf("option %s has %d bytes, and the most is 255", name, len(o.Value)), "")
		return o, false
	}
	return o, ok
}

// orCode is what else can be written where an option's name is not known.
const orCode = "; or write its number, 1 to 254"

// optionValue encodes a value (RFC 2132 section 2 and those named above).
func (d *document) optionValue(what, kind string, v ast.Node) (out []byte, text string, ok bool) {
	var parts []string
	ok = true
	each := func(f func(s string) ([]byte, error)) {
		d.list(v, func(n ast.Node) {
			s, is := d.text(n, what)
			if !is {
				ok = false
				return
			}
			b, err := f(s)
			if err != nil {
				d.wrong(n, fmt.Sprintf("%s: %v", what, err), "")
				ok = false
				return
			}
			out, parts = append(out, b...), append(parts, s)
		})
	}
	switch kind {
	case "ips", "domains", "routes":
		each(map[string]func(string) ([]byte, error){"ips": encodeIP, "domains": encodeDomain, "routes": encodeRoute}[kind])
	default:
		if _, is := v.(*ast.SequenceNode); is {
			d.wrong(v, what+" is a list", "this one has a single value")
			return nil, "", false
		}
		each(func(s string) ([]byte, error) { return encodeScalar(kind, s) })
	}
	if ok && len(out) == 0 {
		d.wrong(v, what+" is empty", "leave it out")
		return nil, "", false
	}
	return out, strings.Join(parts, " "), ok
}

func encodeScalar(kind, s string) ([]byte, error) {
	switch kind {
	case "text":
		if strings.ContainsRune(s, 0) {
			return nil, fmt.Errorf("%q has a NUL in it", s)
		}
		return []byte(s), nil
	case "ip":
		return encodeIP(s)
	case "hex":
		b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "", "-", "").Replace(s))
		if err != nil {
			return nil, fmt.Errorf("%q is not hexadecimal: write 01:ab:02", s)
		}
		return b, nil
	case "bool":
		b, err := strconv.ParseBool(s)
		if err != nil {
			return nil, fmt.Errorf("%q is neither true nor false", s)
		}
		if b {
			return []byte{1}, nil
		}
		return []byte{0}, nil
	case "i32":
		n, err := strconv.ParseInt(s, 0, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number from -2147483648 to 2147483647", s)
		}
		return binary.BigEndian.AppendUint32(nil, uint32(n)), nil
	}
	bits := map[string]int{"u8": 8, "u16": 16, "u32": 32}[kind]
	n, err := strconv.ParseUint(s, 0, bits)
	if err != nil {
		return nil, fmt.Errorf("%q is not a number from 0 to %d", s, uint64(1)<<bits-1)
	}
	return binary.BigEndian.AppendUint32(nil, uint32(n))[4-bits/8:], nil
}

func encodeIP(s string) ([]byte, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return nil, fmt.Errorf("%q is not an IPv4 address", s)
	}
	return a.AsSlice(), nil
}

// encodeDomain writes a name as DNS does (RFC 1035 section 3.1), uncompressed.
func encodeDomain(s string) ([]byte, error) {
	if !boot.ValidName(s) {
		return nil, fmt.Errorf("%q is not a domain", s)
	}
	var out []byte
	for label := range strings.SplitSeq(s, ".") {
		out = append(append(out, byte(len(label))), label...)
	}
	return append(out, 0), nil
}

// encodeRoute writes "10.0.0.0/8 via 10.1.0.1" as RFC 3442 has it.
func encodeRoute(s string) ([]byte, error) {
	to, via, ok := strings.Cut(s, " via ")
	p, err := netip.ParsePrefix(strings.TrimSpace(to))
	r, err2 := netip.ParseAddr(strings.TrimSpace(via))
	if !ok || err != nil || err2 != nil || !p.Addr().Is4() || !r.Is4() || p.Masked() != p {
		return nil, fmt.Errorf("%q is not a route: write 10.0.0.0/8 via 10.1.0.1", s)
	}
	b := append([]byte{byte(p.Bits())}, p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
	return append(b, r.AsSlice()...), nil
}
