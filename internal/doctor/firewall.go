package doctor

import (
	"fmt"
	"net/netip"
	"slices"
)

// A Packet is the first one of its kind that a machine sends to the server.
type Packet struct {
	Iface    string // where it comes in
	Proto    string // udp or tcp
	Src, Dst netip.Addr
	SrcPort  uint16 // 0: any
	Port     uint16
}

// A Verdict is what a firewall does to a packet.
type Verdict string

// The verdicts. A firewall that goes by what cannot be told from rules alone,
// such as sets and rates, may drop a packet.
const (
	Passes    Verdict = "passes"
	Drops     Verdict = "drops"
	MayDrop   Verdict = "may drop"
	undecided         = Verdict("")
)

// truth is whether a rule applies.
type truth int

const (
	no truth = iota
	maybe
	yes
)

func and(list ...truth) truth { return slices.Min(append(list, yes)) }

func is(b bool) truth {
	if b {
		return yes
	}
	return no
}

func not(t truth) truth { return yes - t }

// A rule applies to some packets, and then says what to do: a verdict, or to go
// on with another chain.
type rule struct {
	applies func(Packet) truth
	verdict Verdict // undecided: none
	jump    string  // chain; empty: none
	leave   bool    // the rest of this chain is left out
	opaque  bool    // nft does not say all of what is in it
}

// A chain is a list of rules.
type chain struct {
	Chain
	base   bool    // packets for this machine begin here
	policy Verdict // of a base chain
	rules  []rule
}

// A Chain is where rules are, as those programs call it that show and change
// them.
type Chain struct {
	Program string // iptables, iptables-legacy or nft
	Family  string // of nft: ip, inet
	Table   string
	Name    string
}

// A Filter is a chain that what comes in goes through from its beginning, and
// what it does to a packet. None of them can let in what another one drops.
type Filter struct {
	Chain
	Verdict Verdict
}

// Admit is the command that lets a packet through the filter until rules are
// loaded again.
func (f Filter) Admit(p Packet) string {
	if f.Program != nft {
		return fmt.Sprintf("%s -I %s -i %s -p %s --dport %d -j ACCEPT", f.Program, f.Name, p.Iface, p.Proto, p.Port)
	}
	return fmt.Sprintf("nft insert rule %s %s %s iifname %q %s dport %d accept", f.Family, f.Table, f.Name, p.Iface, p.Proto, p.Port)
}

// String names the filter as its program does.
func (f Filter) String() string {
	if f.Program != nft {
		return "the chain " + f.Name + " of " + f.Program
	}
	return fmt.Sprintf("the chain %s %s %s of nftables", f.Family, f.Table, f.Name)
}

// The programs.
const (
	iptables = "iptables"
	nft      = "nft"
)

// A Firewall is the rules for what comes in, each base chain a filter of its
// own.
type Firewall struct {
	Kinds  []string // whose rules these are: iptables, nftables
	chains map[string]*chain
	order  []*chain // as they were listed
}

// add notes a chain under its name within its table.
func (f *Firewall) add(key string, c *chain) {
	if f.chains == nil {
		f.chains = map[string]*chain{}
	}
	if f.chains[key] == nil {
		f.order = append(f.order, c)
		f.chains[key] = c
	}
}

// Verdict is what the firewall does to a packet: what the strictest of its
// filters does.
func (f *Firewall) Verdict(p Packet) Verdict {
	out := Passes
	for _, b := range f.Against(p) {
		if b.Verdict == Drops {
			return Drops
		}
		out = b.Verdict
	}
	return out
}

// Against lists the filters that drop a packet or may drop it.
func (f *Firewall) Against(p Packet) []Filter {
	var out []Filter
	for _, c := range f.order {
		if !c.base {
			continue
		}
		w := walk{chains: f.chains, packet: p, left: maxRules}
		ends := w.through(c)
		if ends&on != 0 {
			ends = ends&^on | endOf(c.policy)
		}
		switch {
		case w.left == 0 || ends == passed|dropped:
			out = append(out, Filter{c.Chain, MayDrop})
		case ends == dropped:
			out = append(out, Filter{c.Chain, Drops})
		}
	}
	return out
}

// maxRules bounds a way through rules. The kernel allows no circles; a text may
// have some.
const maxRules = 100_000

// An end is how a packet's way through rules can end; several, where a rule goes
// by what is not known.
type end uint8

const (
	passed end = 1 << iota
	dropped
	on // it goes on behind them
)

func endOf(v Verdict) end {
	switch v {
	case Passes:
		return passed
	case Drops:
		return dropped
	case MayDrop:
		return passed | dropped
	}
	return on
}

// A walk is the way of a packet through a filter.
type walk struct {
	chains map[string]*chain
	packet Packet
	left   int // how many rules may still be looked at
}

// through is how a packet's way through a chain can end.
func (w *walk) through(c *chain) end {
	var out end
	for _, r := range c.rules {
		if w.left == 0 {
			return out | on
		}
		w.left--
		t := r.applies(w.packet)
		if t == no {
			continue
		}
		ends := endOf(r.verdict)
		if to := w.chains[r.jump]; to != nil && r.verdict == undecided {
			ends = w.through(to)
		}
		out |= ends &^ on
		if r.leave {
			out |= ends & on
		}
		if t == yes && (r.leave || ends&on == 0) {
			return out
		}
	}
	return out | on
}
