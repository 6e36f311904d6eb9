package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
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
}

// A chain is a list of rules.
type chain struct {
	name   string
	base   bool    // packets for this machine begin here
	policy Verdict // of a base chain
	rules  []rule
}

// A Firewall is the rules for what comes in, each base chain a filter of its
// own.
type Firewall struct {
	Kinds  []string // whose rules these are: iptables, nftables
	chains map[string]*chain
}

// add notes a chain under its name within its table.
func (f *Firewall) add(c *chain) {
	if f.chains == nil {
		f.chains = map[string]*chain{}
	}
	f.chains[c.name] = c
}

// Verdict is what the firewall does to a packet: what the strictest of its
// filters does.
func (f *Firewall) Verdict(p Packet) Verdict {
	out := Passes
	for _, c := range f.chains {
		if !c.base {
			continue
		}
		w := walk{chains: f.chains, packet: p, left: maxRules}
		v := w.through(c)
		if v == undecided {
			v = c.policy
		}
		if w.left == 0 || v == Drops && w.doubt {
			v = MayDrop
		}
		if v == Drops || v == MayDrop && out == Passes {
			out = v
		}
	}
	return out
}

// maxRules bounds a way through rules. The kernel allows no circles; a text may
// have some.
const maxRules = 100_000

// A walk is the way of a packet through a filter.
type walk struct {
	chains map[string]*chain
	packet Packet
	left   int  // how many rules may still be looked at
	doubt  bool // a rule of which it is not known whether it applies may let it pass
}

// through is what a chain does; undecided: the packet goes on behind it.
func (w *walk) through(c *chain) Verdict {
	for _, r := range c.rules {
		if w.left == 0 {
			return undecided
		}
		w.left--
		t := r.applies(w.packet)
		if t == no {
			continue
		}
		v := r.verdict
		if to := w.chains[r.jump]; v == undecided && to != nil {
			v = w.through(to)
		}
		if t == maybe {
			w.doubt = w.doubt || v == Passes
			continue
		}
		if v != undecided || r.leave {
			return v
		}
	}
	return undecided
}

// ErrForbidden is in the error of [ReadFirewall] when the rules are not for the
// caller to see.
var ErrForbidden = errors.New("only root can read the firewall's rules")

// ReadFirewall asks iptables and nft, as far as they are installed, for their
// rules. That none is, is no error: then there is hardly a firewall. It takes
// CAP_NET_ADMIN.
func ReadFirewall(ctx context.Context, root bool) (*Firewall, error) {
	run := func(name string, args ...string) ([]byte, bool, error) {
		path, err := exec.LookPath(name)
		if err != nil {
			path, err = exec.LookPath("/usr/sbin/" + name) // not in everybody's PATH
		}
		if err != nil {
			return nil, false, nil
		}
		if !root {
			return nil, true, ErrForbidden
		}
		out, err := exec.CommandContext(ctx, path, args...).Output()
		if err != nil {
			return nil, true, fmt.Errorf("%s does not tell its rules: %w", name, err)
		}
		return out, true, nil
	}
	old, there, err := run("iptables-save", "-t", "filter")
	if err != nil {
		return nil, err
	}
	list, nft, err := run("nft", "-j", "list", "ruleset")
	if err != nil {
		return nil, err
	}
	f, err := ParseFirewall(string(old), list)
	if err != nil {
		return nil, err
	}
	if there {
		f.Kinds = append(f.Kinds, "iptables")
	}
	if nft {
		f.Kinds = append(f.Kinds, "nftables")
	}
	return f, nil
}

// ParseFirewall reads what iptables-save and `nft -j list ruleset` write; empty:
// they were not asked.
func ParseFirewall(iptables string, nftables []byte) (*Firewall, error) {
	f := &Firewall{}
	f.iptables(iptables)
	if len(nftables) == 0 {
		return f, nil
	}
	// What iptables keeps in nftables is known from iptables.
	if err := f.nftables(nftables, iptables != ""); err != nil {
		return nil, err
	}
	return f, nil
}
