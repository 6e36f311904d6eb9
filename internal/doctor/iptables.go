package doctor

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// iptables adds the table filter as iptables-save(8) writes it; program is what
// changes it.
func (f *Firewall) iptables(text, program string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, ":"):
			w := strings.Fields(line[1:])
			if len(w) == 0 {
				continue
			}
			c := &chain{Chain: Chain{Program: program, Table: "filter", Name: w[0]}}
			if w[0] == "INPUT" {
				c.base, c.policy = true, Passes
				if len(w) > 1 && w[1] == "DROP" {
					c.policy = Drops
				}
			}
			f.add(iptables+" "+w[0], c)
		case strings.HasPrefix(line, "-A "):
			w := words(line)
			if c := f.chains[iptables+" "+w[1]]; c != nil { // -A is never alone
				c.rules = append(c.rules, iptablesRule(w[2:]))
			}
		}
	}
}

// words splits a rule as a shell would: what is in double quotes is one word.
func words(line string) []string {
	var out []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] == '"' {
			if q, err := strconv.QuotedPrefix(line); err == nil {
				s, _ := strconv.Unquote(q)
				out, line = append(out, s), line[len(q):]
				continue
			}
		}
		word, rest, _ := strings.Cut(line, " ")
		out, line = append(out, word), rest
	}
	return out
}

// iptablesRule reads the words of a rule after its chain.
func iptablesRule(w []string) rule {
	var r rule
	var conds []func(Packet) truth
	for negated := false; len(w) > 0; {
		word := w[0]
		if word == "!" {
			negated, w = true, w[1:]
			continue
		}
		// What an option takes: all words up to the next one.
		n := 1
		for n < len(w) && !strings.HasPrefix(w[n], "-") && w[n] != "!" {
			n++
		}
		if word == "--comment" {
			n = min(2, len(w)) // whatever it begins with
		}
		args := w[1:n]
		w = w[n:]
		switch {
		case word == "-m" || word == "--comment" || strings.HasPrefix(word, "--log") || word == "--reject-with":
		case (word == "-j" || word == "-g") && len(args) > 0:
			r = target(args[0])
			r.leave = r.leave || word == "-g"
		default:
			c := iptablesMatch(word, args)
			if negated {
				plain := c
				c = func(p Packet) truth { return not(plain(p)) }
			}
			conds = append(conds, c)
		}
		negated = false
	}
	r.applies = all(conds)
	return r
}

func all(conds []func(Packet) truth) func(Packet) truth {
	return func(p Packet) truth {
		t := yes
		for _, c := range conds {
			t = and(t, c(p))
		}
		return t
	}
}

func target(name string) rule {
	switch name {
	case "ACCEPT":
		return rule{verdict: Passes}
	case "DROP", "REJECT":
		return rule{verdict: Drops}
	case "RETURN":
		return rule{leave: true}
	case "NFQUEUE", "QUEUE": // a program says what becomes of it
		return rule{verdict: MayDrop}
	}
	return rule{jump: iptables + " " + name}
}

func iptablesMatch(word string, args []string) func(Packet) truth {
	unknown := func(Packet) truth { return maybe }
	if word == "-f" { // no first packet is in pieces
		return func(Packet) truth { return no }
	}
	if len(args) == 0 {
		return unknown
	}
	a := args[0]
	switch word {
	case "-i":
		return func(p Packet) truth { return is(ifaceIs(a, p.Iface, "+")) }
	case "-p":
		return func(p Packet) truth { return is(isProto(a, p.Proto) || a == "all") }
	case "-s":
		return func(p Packet) truth { return within(a, p.Src) }
	case "-d":
		return func(p Packet) truth { return within(a, p.Dst) }
	case "--dport", "--dports":
		return func(p Packet) truth { return ports(a, p.Port) }
	case "--sport", "--sports":
		return func(p Packet) truth { return ports(a, p.SrcPort) }
	case "--state", "--ctstate":
		return func(Packet) truth { return is(slices.Contains(strings.Split(a, ","), "NEW")) }
	case "--dst-type":
		return func(p Packet) truth {
			return is(slices.Contains(strings.Split(a, ","), strings.ToUpper(p.cast("local"))))
		}
	case "--pkt-type":
		return func(p Packet) truth { return is(a == p.cast("unicast")) }
	case "--tcp-flags":
		if len(args) == 2 {
			return func(p Packet) truth { return and(is(p.Proto == "tcp"), opens(a, args[1])) }
		}
	}
	return unknown
}

// opens reports whether the flags of the first packet of a connection, which are
// SYN, are those that are wanted of those that are looked at.
func opens(mask, want string) truth {
	has := slices.Contains(strings.Split(mask, ","), "SYN") || mask == "ALL"
	return is(has && want == "SYN" || !has && want == "NONE")
}

// isProto reports whether a name or number is that of a protocol, udp or tcp.
func isProto(s, proto string) bool {
	return s == proto || s == map[string]string{"tcp": "6", "udp": "17"}[proto]
}

// cast is whom a packet is for; one is what it is called if that is this machine
// only.
func (p Packet) cast(one string) string {
	switch {
	case p.Dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "broadcast"
	case p.Dst.IsMulticast():
		return "multicast"
	}
	return one
}

// ifaceIs reports whether a name is meant; one that ends with any means all that
// begin so.
func ifaceIs(pattern, name, any string) bool {
	if begin, ok := strings.CutSuffix(pattern, any); ok {
		return strings.HasPrefix(name, begin)
	}
	return pattern == name
}

func within(prefix string, a netip.Addr) truth {
	if p, err := netip.ParsePrefix(prefix); err == nil {
		return is(p.Contains(a))
	}
	if b, err := netip.ParseAddr(prefix); err == nil {
		return is(a == b)
	}
	return maybe
}

// ports reads a list as 67,69:80.
func ports(list string, port uint16) truth {
	if port == 0 {
		return maybe
	}
	for s := range strings.SplitSeq(list, ",") {
		first, last, ok := strings.Cut(s, ":")
		if !ok {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil {
			return maybe
		}
		if uint64(port) >= a && uint64(port) <= b {
			return yes
		}
	}
	return no
}
