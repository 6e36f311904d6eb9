package doctor_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/doctor"
)

// TestAgainst: of what programs write about several firewalls, the filters that
// stop DHCP, TFTP and HTTP, and what lets those in.
func TestAgainst(t *testing.T) {
	const (
		input = `{"chain":{"family":"ip","table":"filter","name":"INPUT","type":"filter","hook":"input","policy":"drop"}}`
		saved = "*filter\n:INPUT DROP [0:0]\n"
	)
	nft := func(items ...string) []byte { return []byte(`{"nftables":[` + strings.Join(items, ",") + `]}`) }
	rule := func(expr string) string {
		return `{"rule":{"family":"ip","table":"filter","chain":"INPUT","expr":[` + expr + `]}}`
	}
	for _, c := range []struct {
		name  string
		rules doctor.Rules
		want  []string
	}{
		{"nothing", doctor.Rules{}, nil},
		{"a chain that iptables does not see", doctor.Rules{
			NFT:    nft(`{"chain":{"family":"ip","table":"filter","name":"input","type":"filter","hook":"input","policy":"drop"}}`, strings.NewReplacer("INPUT", "input").Replace(rule(`{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":17}},{"accept":null}`))),
			Compat: "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"},
			[]string{`drops, the chain ip filter input of nftables: nft insert rule ip filter input iifname "eth1" tcp dport 80 accept`}},
		{"what iptables knows better", doctor.Rules{
			NFT:    nft(input, rule(`{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"udp"}},{"xt":{"type":"match","name":"multiport"}},{"counter":{}},{"accept":null}`)),
			Compat: saved + "-A INPUT -p udp -m multiport --dports 67,69 -j ACCEPT\nCOMMIT\n"},
			[]string{"drops, the chain INPUT of iptables: iptables -I INPUT -i eth1 -p tcp --dport 80 -j ACCEPT"}},
		{"and an older nft", doctor.Rules{
			NFT:    nft(input, rule(`{"xt":null},{"accept":null}`), rule(`{"xt":null}`)),
			Compat: saved + "-A INPUT -p udp -m multiport --dports 67,69 -j ACCEPT\n-A INPUT -j REJECT\nCOMMIT\n"},
			[]string{"drops, the chain INPUT of iptables: iptables -I INPUT -i eth1 -p tcp --dport 80 -j ACCEPT"}},
		{"iptables does not say it", doctor.Rules{NFT: nft(input, rule(`{"xt":{"type":"match","name":"multiport"}},{"accept":null}`), rule(`{"accept":null}`)), Compat: saved + "-A INPUT -p udp -j ACCEPT\nCOMMIT\n"},
			nil},
		{"nor anybody else", doctor.Rules{NFT: nft(strings.Replace(input, "drop", "accept", 1), rule(`{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":80}},{"xt":{"type":"target","name":"NFQUEUE"}}`))},
			[]string{`may drop, the chain ip filter INPUT of nftables: nft insert rule ip filter INPUT iifname "eth1" tcp dport 80 accept`}},
		{"refused by an extension", doctor.Rules{NFT: nft(strings.Replace(input, "drop", "accept", 1), rule(`{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":80}},{"xt":{"type":"match","name":"comment"}},{"xt":{"type":"target","name":"REJECT"}}`))},
			[]string{`drops, the chain ip filter INPUT of nftables: nft insert rule ip filter INPUT iifname "eth1" tcp dport 80 accept`}},
		{"iptables of its own beside it", doctor.Rules{
			NFT:    nft(input, rule(`{"match":{"op":"!=","left":{"payload":{"protocol":"udp","field":"dport"}},"right":67}},{"accept":null}`), rule(`{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}},{"accept":null}`)),
			Legacy: "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p 6 -j DROP\nCOMMIT\n", By: "iptables-legacy"},
			[]string{
				`drops, the chain ip filter INPUT of nftables: nft insert rule ip filter INPUT iifname "eth1" udp dport 67 accept`,
				"drops, the chain INPUT of iptables-legacy: iptables-legacy -I INPUT -i eth1 -p tcp --dport 80 -j ACCEPT"}},
		{"a set", doctor.Rules{Legacy: "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m set ! --match-set friends src -j DROP\nCOMMIT\n", By: "iptables"},
			[]string{"may drop, the chain INPUT of iptables: iptables -I INPUT -i eth1 -p tcp --dport 80 -j ACCEPT"}},
		{"what a program decides", doctor.Rules{Legacy: "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j NFQUEUE --queue-num 1\nCOMMIT\n", By: "iptables"},
			[]string{"may drop, the chain INPUT of iptables: iptables -I INPUT -i eth1 -p tcp --dport 80 -j ACCEPT"}},
		{"iptables alone", doctor.Rules{Compat: saved + "-A INPUT -p udp -j ACCEPT\nCOMMIT\n"},
			[]string{"drops, the chain INPUT of iptables: iptables -I INPUT -i eth1 -p tcp --dport 80 -j ACCEPT"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := doctor.ParseFirewall(c.rules)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range packets() {
				for _, against := range f.Against(p) {
					got = append(got, string(against.Verdict)+", "+against.String()+": "+against.Admit(p))
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
