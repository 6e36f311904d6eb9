package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// ErrForbidden is in the error of [ReadFirewall] when the rules are not for the
// caller to see.
var ErrForbidden = errors.New("only root can read the firewall's rules")

// Rules are what programs write about a firewall; empty: they were not asked.
type Rules struct {
	NFT    []byte // nft -j list ruleset
	Compat string // iptables-save -t filter of an iptables that keeps its rules in nftables
	Legacy string // the same of one with rules of its own
	By     string // the program that changes the latter
}

// ReadFirewall asks nft and iptables, as far as they are installed, for their
// rules. That none is, is no error: then there is hardly a firewall. It takes
// CAP_NET_ADMIN.
func ReadFirewall(ctx context.Context, root bool) (*Firewall, error) {
	path := func(name string) string {
		for _, n := range []string{name, "/usr/sbin/" + name} { // not in everybody's PATH
			if p, err := exec.LookPath(n); err == nil {
				return p
			}
		}
		return ""
	}
	list, save, legacy := path("nft"), path("iptables-save"), path("iptables-legacy-save")
	if !root && (list != "" || save != "") {
		return nil, ErrForbidden
	}
	r := Rules{By: iptables}
	var err error
	if list != "" {
		if r.NFT, err = output(ctx, list, "-j", "list", "ruleset"); err != nil {
			return nil, err
		}
	}
	switch {
	case save != "" && keepsItsOwn(ctx, path("iptables")):
		r.Legacy, err = text(ctx, save)
	case save != "" && list == "":
		r.Compat, err = text(ctx, save)
	case save != "":
		// It refuses to tell what it has not made, and nft has told it already.
		r.Compat, _ = text(ctx, save)
	}
	if err == nil && r.Legacy == "" && legacy != "" && legacyTable() {
		r.By = "iptables-legacy"
		r.Legacy, err = text(ctx, legacy)
	}
	if err != nil {
		return nil, err
	}
	return ParseFirewall(r)
}

// output is what a program writes.
func output(ctx context.Context, path string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("%s does not tell its rules: %w", path, err)
	}
	return out, nil
}

func text(ctx context.Context, save string) (string, error) {
	out, err := output(ctx, save, "-t", "filter")
	return string(out), err
}

// keepsItsOwn reports whether an iptables keeps its rules beside nftables. One
// that does not say so is older than the other kind.
func keepsItsOwn(ctx context.Context, path string) bool {
	if path == "" {
		return false
	}
	out, err := exec.CommandContext(ctx, path, "-V").Output()
	return err == nil && !strings.Contains(string(out), "nf_tables")
}

// legacyTable reports whether the kernel holds rules beside nftables, which
// iptables-legacy makes on a machine whose iptables is the other one. To ask
// that program would make the table.
func legacyTable() bool {
	b, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	return err == nil && slices.Contains(strings.Fields(string(b)), "filter")
}

// ParseFirewall reads rules. What iptables keeps in nftables is taken from nft,
// which knows all that is there; iptables knows what it has made, and is believed
// for the parts of single rules that nft cannot tell.
func ParseFirewall(r Rules) (*Firewall, error) {
	f, compat := &Firewall{}, &Firewall{}
	compat.iptables(r.Compat, iptables)
	switch {
	case len(r.NFT) > 0:
		if err := f.nftables(r.NFT); err != nil {
			return nil, err
		}
		f.complete(compat)
		f.Kinds = append(f.Kinds, "nftables")
	case r.Compat != "":
		f.iptables(r.Compat, iptables)
		f.Kinds = append(f.Kinds, iptables)
	}
	if r.Legacy != "" {
		f.iptables(r.Legacy, r.By)
		f.Kinds = append(f.Kinds, iptables)
	}
	return f, nil
}

// complete takes from what iptables says of its own chains those rules that nft
// does not tell in full. Chains are the same when they have the same number of
// rules.
func (f *Firewall) complete(saved *Firewall) {
	const table = nft + " ip filter "
	for _, c := range f.order {
		own := saved.chains[iptables+" "+c.Name]
		if f.chains[table+c.Name] != c || own == nil || len(own.rules) != len(c.rules) {
			continue
		}
		c.Program = iptables
		for i, r := range own.rules {
			at := &c.rules[i]
			if !at.opaque || at.verdict != r.verdict && (at.verdict == Passes || at.verdict == Drops) {
				continue
			}
			if name, ok := strings.CutPrefix(r.jump, iptables+" "); ok {
				r.jump = table + name
			}
			*at = r
		}
	}
}
