package doctor

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
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

// nftables adds what nft lists. With compat it leaves out the table that iptables
// keeps there, which is known from iptables itself.
func (f *Firewall) nftables(text []byte, compat bool) error {
	var list nftList
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("cannot understand what nft says: %w", err)
	}
	skip := func(family, table string) bool {
		return family != "ip" && family != "inet" || compat && family == "ip" && table == "filter"
	}
	for _, i := range list.Items {
		if c := i.Chain; c != nil && !skip(c.Family, c.Table) {
			made := &chain{name: "nft " + c.Family + " " + c.Table + " " + c.Name}
			if c.Hook == "input" && c.Type == "filter" {
				made.base, made.policy = true, Passes
				if c.Policy == "drop" {
					made.policy = Drops
				}
			}
			f.add(made)
		}
	}
	for _, i := range list.Items {
		r := i.Rule
		if r == nil || skip(r.Family, r.Table) {
			continue
		}
		table := "nft " + r.Family + " " + r.Table + " "
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
	case "continue":
	default:
		return false
	}
	return true
}

// nftablesMap reads a map of verdicts. One that has a name of its own may let
// anything pass.
func nftablesMap(table string, conds []func(Packet) truth, v json.RawMessage) []rule {
	var vmap struct {
		Key  map[string]json.RawMessage
		Data struct {
			Set [][2]json.RawMessage
		}
	}
	if json.Unmarshal(v, &vmap) != nil || len(vmap.Data.Set) == 0 {
		conds = append(conds, func(Packet) truth { return maybe })
		return []rule{{applies: all(conds), verdict: Passes}}
	}
	var out []rule
	for _, entry := range vmap.Data.Set {
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
	switch {
	case m.Left["meta"] != nil:
		t = m.meta(p)
	case m.Left["payload"] != nil:
		t = m.payload(p)
	case m.Left["ct"] != nil:
		var ct struct{ Key string }
		if json.Unmarshal(m.Left["ct"], &ct) == nil && ct.Key == "state" {
			t = m.holds(func(v any) truth { return is(v == "new") })
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
		return m.holds(func(v any) truth { return is(v == p.Proto) })
	case "nfproto":
		return m.holds(func(v any) truth { return is(v == "ipv4") })
	}
	return maybe
}

func (m nftMatch) payload(p Packet) truth {
	var at struct{ Protocol, Field string }
	_ = json.Unmarshal(m.Left["payload"], &at) // empty: none that is known
	switch at.Protocol + " " + at.Field {
	case "ip saddr":
		return m.holds(func(v any) truth { return nftAddr(v, p.Src) })
	case "ip daddr":
		return m.holds(func(v any) truth { return nftAddr(v, p.Dst) })
	case "ip protocol":
		return m.holds(func(v any) truth { return is(v == p.Proto) })
	case "udp dport", "tcp dport", "th dport":
		return and(is(at.Protocol == "th" || at.Protocol == p.Proto), m.holds(func(v any) truth { return nftPort(v, p.Port) }))
	case "udp sport", "tcp sport", "th sport":
		return and(is(at.Protocol == "th" || at.Protocol == p.Proto), m.holds(func(v any) truth { return nftPort(v, p.SrcPort) }))
	}
	if slices.Contains([]string{"ip6", "icmp", "icmpv6"}, at.Protocol) {
		return no
	}
	return maybe
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
		t = max(t, want(v))
	}
	return t
}

func nftAddr(v any, a netip.Addr) truth {
	switch v := v.(type) {
	case string:
		return within(v, a) // the name of a set is none
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
