package swarm

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

var netEpoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func sub(prefix string, rest ...string) Subnet {
	s := Subnet{Prefix: netip.MustParsePrefix(prefix)}
	if len(rest) > 0 && rest[0] != "" {
		s.Gateway = netip.MustParseAddr(rest[0])
	}
	if len(rest) > 1 {
		s.Range = netip.MustParsePrefix(rest[1])
	}
	return s
}

// made is a network as the engine has it after bootd made it.
func made(n Network, change ...func(*NetworkState)) NetworkState {
	h := NetworkState{ID: "id-" + n.Name, Created: netEpoch, Driver: "overlay", Network: n.marked()}
	h.Options = map[string]string{optionVXLAN: "4097"}
	for k, v := range n.Options {
		h.Options[k] = v
	}
	if len(h.Subnets) == 0 {
		h.Subnets = []Subnet{sub("10.0.9.0/24", "10.0.9.1")}
	}
	for _, f := range change {
		f(&h)
	}
	return h
}

func foreign(n Network, change ...func(*NetworkState)) NetworkState {
	return made(n, append([]func(*NetworkState){func(h *NetworkState) { h.Labels = n.Labels }}, change...)...)
}

func describe(a networkAction) string {
	switch a := a.(type) {
	case createNetwork:
		return "create " + a.Name
	case removeNetwork:
		return "remove " + a.Name + " " + a.ID
	case replaceNetwork:
		return "replace " + a.Name + " " + a.ID + ": " + strings.Join(a.Why, ", ")
	case keepNetwork:
		return "keep " + a.Name + ": " + a.Why
	}
	return "nothing known"
}

func TestPlanNetworks(t *testing.T) {
	plain := Network{Name: "mynet"}
	at20 := Network{Name: "mynet", Subnets: []Subnet{sub("10.20.0.0/24")}}
	ingress := NetworkState{ID: "ing", Ingress: true, Driver: "overlay", Network: Network{Name: "ingress", Subnets: []Subnet{sub("10.0.0.0/24", "10.0.0.1")}}}
	gone := func(h *NetworkState) { h.Driver, h.Subnets, h.Options = "", nil, nil }
	for _, tt := range []struct {
		name string
		want []Network
		have []NetworkState
		plan []string
	}{
		{"nothing", nil, []NetworkState{ingress}, nil},
		{"missing", []Network{plain}, []NetworkState{ingress}, []string{"create mynet"}},
		{"there", []Network{plain}, []NetworkState{made(plain)}, nil},
		{"not declared any more", nil, []NetworkState{ingress, made(plain)}, []string{"remove mynet id-mynet"}},
		{"somebody else's", nil, []NetworkState{foreign(plain)}, nil},
		{"somebody else's with a copied label", nil, []NetworkState{foreign(plain, func(h *NetworkState) { h.Labels = map[string]string{labelNetwork: "other"} })}, nil},
		{"bootd's label on the ingress network", nil, []NetworkState{made(Network{Name: "ingress"}, func(h *NetworkState) { h.Ingress = true })}, nil},
		{"the same as somebody else's", []Network{plain}, []NetworkState{foreign(plain)},
			[]string{"keep mynet: a network of that name, which bootd did not make, is used as it is; bootd will not remove it"}},
		{"other than somebody else's", []Network{at20}, []NetworkState{foreign(plain)},
			[]string{"keep mynet: a network of that name, which bootd did not make, is used as it is, although it differs: subnet is 10.0.9.0/24 and should be 10.20.0.0/24; remove it (docker network rm mynet) and bootd makes it as declared, or declare another name"}},
		{"one of the engine's own", []Network{plain}, []NetworkState{foreign(plain, func(h *NetworkState) { h.Local, h.Driver = true, "bridge" })},
			[]string{"keep mynet: a network of that name, which bootd did not make, is on the manager's engine alone; remove it (docker network rm mynet) and bootd makes it as declared, or declare another name"}},
		{"one of the engine's own that has a copy of the label", nil, []NetworkState{made(plain, func(h *NetworkState) { h.Local = true })}, nil},
		{"two of that name", []Network{plain}, []NetworkState{foreign(plain, func(h *NetworkState) { h.ID, h.Local = "l", true }), made(plain)}, nil},
		{"declared twice", []Network{plain, at20}, nil, []string{"create mynet"}},
		{"another subnet", []Network{at20}, []NetworkState{made(Network{Name: "mynet", Subnets: []Subnet{sub("10.30.0.0/24")}})},
			[]string{"replace mynet id-mynet: subnet is 10.30.0.0/24 and should be 10.20.0.0/24"}},
		{"no subnet any more", []Network{plain}, []NetworkState{made(at20)}, nil},
		{"the engine's gateway", []Network{at20}, []NetworkState{made(at20, func(h *NetworkState) { h.Subnets = []Subnet{sub("10.20.0.0/24", "10.20.0.1")} })}, nil},
		{"another gateway", []Network{{Name: "mynet", Subnets: []Subnet{sub("10.20.0.0/24", "10.20.0.9")}}}, []NetworkState{made(at20, func(h *NetworkState) { h.Subnets = []Subnet{sub("10.20.0.0/24", "10.20.0.1")} })},
			[]string{"replace mynet id-mynet: subnet is 10.20.0.0/24 gateway 10.20.0.1 and should be 10.20.0.0/24 gateway 10.20.0.9"}},
		{"subnets in another order", []Network{{Name: "mynet", Subnets: []Subnet{sub("10.21.0.0/24"), sub("10.20.0.0/24", "", "10.20.0.128/25")}}},
			[]NetworkState{made(plain, func(h *NetworkState) {
				h.Subnets = []Subnet{sub("10.20.0.0/24", "10.20.0.128", "10.20.0.128/25"), sub("10.21.0.0/24", "10.21.0.1")}
			})}, nil},
		{"everything else", []Network{{Name: "mynet", Encrypted: true, Attachable: true, Internal: true, MTU: 1400, Options: map[string]string{"a": "b"}, Labels: map[string]string{"c": "d"}}}, []NetworkState{made(plain)},
			[]string{`replace mynet id-mynet: mtu is not set and should be 1400, encrypted is false and should be true, option a is not set and should be "b", ` +
				`attachable is false and should be true, internal is false and should be true, label c is not set and should be "d"`}},
		{"an option less", []Network{plain}, []NetworkState{made(Network{Name: "mynet", Options: map[string]string{"a": "b"}})},
			[]string{`replace mynet id-mynet: option a is "b" and should be not set`}},
		{"a VXLAN that was chosen", []Network{{Name: "mynet", Options: map[string]string{optionVXLAN: "5000"}}}, []NetworkState{made(plain)},
			[]string{`replace mynet id-mynet: option ` + optionVXLAN + ` is "4097" and should be "5000"`}},
		{"a subnet that is taken", []Network{{Name: "mynet", Subnets: []Subnet{sub("10.0.0.0/16")}}}, []NetworkState{ingress},
			[]string{"keep mynet: it is not made: subnet 10.0.0.0/16 overlaps 10.0.0.0/24 of network ingress; declare another subnet, or remove that network (docker network rm ingress)"}},
		{"a bridge does not matter", []Network{at20}, []NetworkState{{ID: "b", Local: true, Driver: "bridge", Network: Network{Name: "bridge", Subnets: at20.Subnets}}}, []string{"create mynet"}},
		{"change to a subnet that is taken", []Network{at20}, []NetworkState{made(plain), foreign(Network{Name: "x", Subnets: at20.Subnets})},
			[]string{"keep mynet: it is not changed (subnet is 10.0.9.0/24 and should be 10.20.0.0/24): subnet 10.20.0.0/24 overlaps 10.20.0.0/24 of network x; declare another subnet, or remove that network (docker network rm x)"}},
		{"removals first", []Network{at20}, []NetworkState{made(Network{Name: "a"}), made(Network{Name: "z"})}, []string{"remove a id-a", "remove z id-z", "create mynet"}},
		{"no addresses", []Network{at20}, []NetworkState{made(at20, gone)},
			[]string{"keep mynet: the managers give it no addresses: its subnet overlaps another one, or the address pools are used up"}},
		{"no addresses yet", []Network{at20}, []NetworkState{made(at20, gone, func(h *NetworkState) { h.Created = netEpoch.Add(time.Minute) })}, nil},
		{"no addresses, somebody in the way", []Network{at20}, []NetworkState{made(at20, gone), foreign(Network{Name: "x", Subnets: at20.Subnets})},
			[]string{"keep mynet: the managers give it no addresses: subnet 10.20.0.0/24 overlaps 10.20.0.0/24 of network x; declare another subnet, or remove that network (docker network rm x)"}},
		{"no addresses, another subnet", []Network{at20}, []NetworkState{made(Network{Name: "mynet", Subnets: []Subnet{sub("10.0.0.0/24")}}, gone)},
			[]string{"replace mynet id-mynet: subnet is 10.0.0.0/24 and should be 10.20.0.0/24"}},
	} {
		var got []string
		for _, a := range planNetworks(tt.want, tt.have, netEpoch.Add(time.Minute)) {
			got = append(got, describe(a))
		}
		if diff := cmp.Diff(tt.plan, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

// TestNoticesPrintable: names and labels that others chose cannot write to the
// terminal that notices are shown on, nor fill it.
func TestNoticesPrintable(t *testing.T) {
	evil := "\x1b[2J\n\u009b" + strings.Repeat("x", 1000)
	w := Network{Name: "mynet", Subnets: []Subnet{sub("10.20.0.0/24")}}
	for _, have := range [][]NetworkState{
		{foreign(Network{Name: evil, Subnets: w.Subnets})},
		{foreign(w, func(h *NetworkState) { h.Driver = evil })},
		{foreign(w, func(h *NetworkState) { h.Labels = map[string]string{evil: evil} })},
		{made(w, func(h *NetworkState) { h.Driver, h.Labels[labelSubnets] = "", evil }), foreign(Network{Name: "x", Subnets: w.Subnets})},
	} {
		for _, a := range planNetworks([]Network{w}, have, netEpoch) {
			text := describe(a)
			if strings.ContainsFunc(text, unicode.IsControl) || len(text) > 900 {
				t.Errorf("%d bytes: %q", len(text), text)
			}
		}
	}
}
