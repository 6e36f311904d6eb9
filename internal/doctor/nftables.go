package doctor

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What `nft -j list ruleset` writes (libnftables-json(5)), as far as it matters
// here.
type (
	nftList struct {
		Items []struct {
			Chain *nftChain `json:"chain"`
			Rule  *nftRule  `json:"rule"`
		} `json:"nftables"`
	}
	nftChain struct {
		Family, Table, Name, Type, Hook, Policy string
	}
	nftRule struct {
		Family, Table, Chain string
		Expr                 []map[string]json.RawMessage
	}
	nftMatch struct {
		Op    string
		Left  map[string]json.RawMessage
		Right json.RawMessage
	}
)

// nftables adds what nft lists.
func (f *Firewall) nftables(text []byte) error {
	var list nftList
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("cannot understand what nft says: %w", err)
	}
	skip := func(family string) bool { return family != "ip" && family != "inet" }
	for _, i := range list.Items {
		if c := i.Chain; c != nil && !skip(c.Family) {
			made := &chain{Chain: Chain{Program: nft, Family: c.Family, Table: c.Table, Name: c.Name}}
			if c.Hook == "input" && c.Type == "filter" {
				made.base, made.policy = true, Passes
				if c.Policy == "drop" {
					made.policy = Drops
				}
			}
			f.add(nft+" "+c.Family+" "+c.Table+" "+c.Name, made)
		}
	}
	for _, i := range list.Items {
		r := i.Rule
		if r == nil || skip(r.Family) {
			continue
		}
		table := nft + " " + r.Family + " " + r.Table + " "
		if c := f.chains[table+r.Chain]; c != nil {
			c.rules = append(c.rules, nftablesRules(table, r.Expr)...)
		}
	}
	return nil
}

// nftablesRules reads a rule. One with a map of verdicts is a rule for each of
// its entries.
func nftablesRules(table string, expr []map[string]json.RawMessage) []rule {
	var r rule
	var conds []func(Packet) truth
	for _, e := range expr {
		for kind, v := range e {
			switch kind {
			case "counter", "log", "comment", "notrack", "mangle":
			case "match":
				var m nftMatch
				if json.Unmarshal(v, &m) == nil {
					conds = append(conds, m.applies)
				}
			case "vmap":
				return nftablesMap(table, conds, v)
			case "xt":
				r.opaque = true
				if m := r.extension(v); m != nil {
					conds = append(conds, m)
				}
			default:
				if !r.decide(table, kind, v) {
					conds = append(conds, func(Packet) truth { return maybe })
				}
			}
		}
	}
	r.applies = all(conds)
	return []rule{r}
}

// decide reads what a rule does. It reports false when this is not known.
func (r *rule) decide(table, kind string, v json.RawMessage) bool {
	switch kind {
	case "accept":
		r.verdict = Passes
	case "drop", "reject":
		r.verdict = Drops
	case "return":
		r.leave = true
	case "jump", "goto":
		var to struct{ Target string }
		_ = json.Unmarshal(v, &to) // empty: nowhere
		r.jump, r.leave = table+to.Target, kind == "goto"
	case "queue": // a program says what becomes of it
		r.verdict = MayDrop
	case "continue":
	default:
		return false
	}
	return true
}

// extension reads a part of a rule that iptables has made and nft has no words
// for: it names the extension at best. What is returned is what it makes the rule
// go by; nil: nothing.
func (r *rule) extension(v json.RawMessage) func(Packet) truth {
	var x struct{ Type, Name string }
	_ = json.Unmarshal(v, &x) // nothing, before nft 1.0.3
	unknown := func(Packet) truth { return maybe }
	switch {
	case x.Type == "target":
		r.verdict = target(x.Name).verdict
		return nil
	case x.Type == "match" && x.Name == "comment":
		return nil
	case x.Type == "":
		r.verdict = MayDrop // if nothing more is said
	}
	return unknown
}

// nftablesMap reads a map of verdicts. One that has a name of its own may do
// anything.
func nftablesMap(table string, conds []func(Packet) truth, v json.RawMessage) []rule {
	var vmap struct {
		Key  map[string]json.RawMessage
		Data json.RawMessage
	}
	var data struct {
		Set [][2]json.RawMessage
	}
	_ = json.Unmarshal(v, &vmap) // nothing: it has no entries
	if json.Unmarshal(vmap.Data, &data) != nil || len(data.Set) == 0 {
		at, _ := nftMatch{Left: vmap.Key}.field()
		conds = append(conds, func(p Packet) truth { return and(maybe, is(!at.foreign(p))) })
		return []rule{{applies: all(conds), verdict: MayDrop}}
	}
	var out []rule
	for _, entry := range data.Set {
		var r rule
		var does map[string]json.RawMessage
		_ = json.Unmarshal(entry[1], &does) // nothing: it decides nothing
		for kind, v := range does {
			r.decide(table, kind, v)
		}
		m := nftMatch{Left: vmap.Key, Right: entry[0]}
		r.applies = all(append(slices.Clone(conds), m.applies))
		out = append(out, r)
	}
	return out
}

// applies decides a match; what it does not know may apply.
func (m nftMatch) applies(p Packet) truth {
	t := maybe
	at, bits := m.field()
	switch {
	case at.foreign(p):
		return no
	case at == nftField{"tcp", "flags"}:
		t = m.flags(bits)
	case bits != nil && at == nftField{"ip", "frag-off"}:
		t = m.fragment(bits)
	case m.Left["meta"] != nil:
		t = m.meta(p)
	case m.Left["payload"] != nil:
		t = m.payload(p, at)
	case m.Left["ct"] != nil:
		var ct struct{ Key string }
		if json.Unmarshal(m.Left["ct"], &ct) == nil && ct.Key == "state" {
			t = m.holds(func(v any) truth { return is(v == "new") })
		}
	case m.Left["fib"] != nil:
		var fib struct {
			Result string
			Flags  []string
		}
		if json.Unmarshal(m.Left["fib"], &fib) == nil && fib.Result == "type" && slices.Equal(fib.Flags, []string{"daddr"}) {
			t = m.holds(func(v any) truth { return is(v == p.cast("local")) })
		}
	}
	if m.Op == "!=" {
		return not(t)
	}
	return t
}

func (m nftMatch) meta(p Packet) truth {
	var meta struct{ Key string }
	_ = json.Unmarshal(m.Left["meta"], &meta) // empty: none that is known
	switch meta.Key {
	case "iif", "iifname":
		return m.holds(func(v any) truth {
			s, ok := v.(string)
			return is(ok && ifaceIs(s, p.Iface, "*"))
		})
	case "l4proto":
		return m.holds(func(v any) truth { return is(isProto(fmt.Sprint(v), p.Proto)) })
	case "nfproto":
		return m.holds(func(v any) truth { return is(v == "ipv4") })
	case "pkttype":
		return m.holds(func(v any) truth { return is(v == p.cast("host") || v == p.cast("unicast")) })
	}
	return maybe
}

// An nftField is a part of what a packet holds.
type nftField struct{ Protocol, Field string }

// foreign reports whether a packet has no such field; then a rule applies to it
// neither with nor without a "!".
func (f nftField) foreign(p Packet) bool {
	switch f.Protocol {
	case "udp", "tcp":
		return f.Protocol != p.Proto
	case "ip6", "icmp", "icmpv6":
		return true
	}
	return false
}

// field is what a match looks at, and which bits of it; nil: all. Empty: it looks
// at something else.
func (m nftMatch) field() (at nftField, bits json.RawMessage) {
	var of []json.RawMessage
	if json.Unmarshal(m.Left["&"], &of) != nil || len(of) != 2 {
		_ = json.Unmarshal(m.Left["payload"], &at) // there may be none
		return at, nil
	}
	var left struct{ Payload nftField }
	_ = json.Unmarshal(of[0], &left) // the same
	return left.Payload, of[1]
}

func (m nftMatch) payload(p Packet, at nftField) truth {
	switch at.Protocol + " " + at.Field {
	case "ip saddr":
		return m.holds(func(v any) truth { return nftAddr(v, p.Src) })
	case "ip daddr":
		return m.holds(func(v any) truth { return nftAddr(v, p.Dst) })
	case "ip protocol":
		return m.holds(func(v any) truth { return is(isProto(fmt.Sprint(v), p.Proto)) })
	case "udp dport", "tcp dport", "th dport":
		return m.holds(func(v any) truth { return nftPort(v, p.Port) })
	case "udp sport", "tcp sport", "th sport":
		return m.holds(func(v any) truth { return nftPort(v, p.SrcPort) })
	}
	return maybe
}

// flags decides a match of TCP's flags, or some of them.
func (m nftMatch) flags(bits json.RawMessage) truth {
	mask, known := "ALL", true
	if bits != nil {
		mask, known = nftFlags(bits)
	}
	want, ok := nftFlags(m.Right)
	switch {
	case !known || !ok:
		return maybe
	case m.Op == "in": // any of them
		return not(opens(want, "NONE"))
	case m.Op == "!": // none of them
		return opens(want, "NONE")
	}
	return opens(mask, want)
}

// fragment decides a match of where in a packet a fragment belongs: none is sent
// in pieces.
func (m nftMatch) fragment(bits json.RawMessage) truth {
	const dontFragment = 0x4000 // may be set or not
	var mask, right int
	if json.Unmarshal(bits, &mask) != nil || json.Unmarshal(m.Right, &right) != nil || mask&dontFragment != 0 {
		return maybe
	}
	return is(right == 0)
}

// nftFlags are the names of flags, as iptables writes them.
func nftFlags(text json.RawMessage) (string, bool) {
	var v any
	if json.Unmarshal(text, &v) != nil {
		return "", false
	}
	if or, ok := v.(map[string]any); ok {
		v = or["|"]
	}
	switch v := v.(type) {
	case string:
		return strings.ToUpper(v), true
	case float64:
		return "NONE", v == 0
	case []any:
		var names []string
		for _, name := range v {
			names = append(names, strings.ToUpper(fmt.Sprint(name)))
		}
		return strings.Join(names, ","), true
	}
	return "", false
}

// holds reports whether one of the values on the right is what is wanted.
func (m nftMatch) holds(want func(any) truth) truth {
	var right any
	if json.Unmarshal(m.Right, &right) != nil {
		return maybe
	}
	list, ok := right.([]any)
	if set, isSet := right.(map[string]any); isSet && set["set"] != nil {
		list, ok = set["set"].([]any)
	}
	if !ok {
		list = []any{right}
	}
	t := no
	for _, v := range list {
		if s, ok := v.(string); ok && strings.HasPrefix(s, "@") { // a set that has a name of its own
			return maybe
		}
		t = max(t, want(v))
	}
	return t
}

func nftAddr(v any, a netip.Addr) truth {
	switch v := v.(type) {
	case string:
		return within(v, a)
	case map[string]any:
		if p, ok := v["prefix"].(map[string]any); ok {
			return within(fmt.Sprintf("%v/%v", p["addr"], p["len"]), a)
		}
		if r, ok := v["range"].([]any); ok && len(r) == 2 {
			first, err1 := netip.ParseAddr(fmt.Sprint(r[0]))
			last, err2 := netip.ParseAddr(fmt.Sprint(r[1]))
			if err1 == nil && err2 == nil {
				return is(!a.Less(first) && !last.Less(a))
			}
		}
	}
	return maybe
}

func nftPort(v any, port uint16) truth {
	switch v := v.(type) {
	case float64:
		if port != 0 {
			return is(float64(port) == v)
		}
	case map[string]any:
		if r, ok := v["range"].([]any); ok && len(r) == 2 && port != 0 {
			first, ok1 := r[0].(float64)
			last, ok2 := r[1].(float64)
			if ok1 && ok2 {
				return is(float64(port) >= first && float64(port) <= last)
			}
		}
	}
	return maybe
}
