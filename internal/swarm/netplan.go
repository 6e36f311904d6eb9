package swarm

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The labels of networks that bootd has made. A network is bootd's if the first
// of them holds its own name: labels that were copied to another network do not
// make that one bootd's.
const (
	labelNetwork = LabelPrefix + "network" // the network's name
	labelSubnets = LabelPrefix + "subnets" // as declared; Docker does not tell them while they are not in force
)

// Options of Docker's that are fields of [Network], or that Docker sets.
const (
	optionEncrypted = "encrypted"
	optionMTU       = "com.docker.network.driver.mtu"
	optionVXLAN     = "com.docker.network.driver.overlay.vxlanid_list"
)

// settling is how long a new network may be without addresses. Managers give
// them out within a second, or else not at all.
const settling = 5 * time.Second

// A Network is an overlay network as it is declared.
type Network struct {
	Name       string
	Subnets    []Subnet // none: the engine takes one from the address pools
	Encrypted  bool
	Attachable bool // by containers that belong to no service
	Internal   bool // without a way out
	MTU        int  // 0: the engine's default
	Options    map[string]string
	Labels     map[string]string
}

// A Subnet is one of the subnets of a network.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr   // zero: the engine chooses
	Range   netip.Prefix // where containers get addresses from; zero: all of Prefix
}

// NetworkState is a network as the engine has it.
type NetworkState struct {
	ID      string
	Created time.Time // by the engine's clock
	Local   bool      // on the manager's engine alone
	Ingress bool      // the one that spreads what arrives at published ports
	Driver  string    // empty: the network has been given no addresses
	Network
}

func (n NetworkState) ours() bool {
	return !n.Local && n.Labels[labelNetwork] == n.Name && n.Name != ""
}

// What is to be done about a network.
type (
	networkAction interface{ isNetworkAction() }

	// createNetwork makes a network that is missing.
	createNetwork struct{ Network }
	// removeNetwork removes one that is not declared any more.
	removeNetwork struct{ ID, Name string }
	// replaceNetwork removes one that differs from what is declared, and makes
	// it again. Nothing of a network can be changed while it exists.
	replaceNetwork struct {
		ID string
		Network
		Why []string // what differs
	}
	// keepNetwork leaves things as they are, and says so.
	keepNetwork struct{ Name, Why string }
)

func (createNetwork) isNetworkAction()  {}
func (removeNetwork) isNetworkAction()  {}
func (replaceNetwork) isNetworkAction() {}
func (keepNetwork) isNetworkAction()    {}

// planNetworks says what to do so that the networks are as declared. Networks
// that bootd has not made are left alone, whatever their name. Removals come
// first, since they may free what others need. Now is by the engine's clock.
func planNetworks(want []Network, have []NetworkState, now time.Time) []networkAction {
	byName := map[string]NetworkState{}
	for _, h := range have {
		if other, ok := byName[h.Name]; !ok || other.Local || h.ours() {
			byName[h.Name] = h
		}
	}
	declared := map[string]bool{}
	for _, w := range want {
		declared[w.Name] = true
	}
	var out []networkAction
	for _, h := range slices.SortedFunc(slices.Values(have), func(a, b NetworkState) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) }) {
		if h.ours() && !h.Ingress && !declared[h.Name] {
			out = append(out, removeNetwork{ID: h.ID, Name: h.Name})
		}
	}
	seen := map[string]bool{}
	var create []networkAction
	for _, w := range want {
		if seen[w.Name] {
			continue
		}
		seen[w.Name] = true
		h, ok := byName[w.Name]
		switch {
		case !ok:
			if why := inTheWay(w, have, ""); why != "" {
				create = append(create, keepNetwork{w.Name, "it is not made: " + why})
				continue
			}
			create = append(create, createNetwork{w})
		case h.ours():
			out = append(out, tend(w, h, have, now)...)
		default:
			out = append(out, keepNetwork{w.Name, stranger(w, h)})
		}
	}
	return append(out, create...)
}

// tend says what to do about a network of bootd's own.
func tend(w Network, h NetworkState, have []NetworkState, now time.Time) []networkAction {
	if diff := differences(w, h); len(diff) > 0 {
		if why := inTheWay(w, have, h.ID); why != "" {
			return []networkAction{keepNetwork{w.Name, "it is not changed (" + strings.Join(diff, ", ") + "): " + why}}
		}
		return []networkAction{replaceNetwork{h.ID, w, diff}}
	}
	if h.Driver == "" && now.Sub(h.Created) > settling {
		why := cmp.Or(inTheWay(w, have, h.ID), "its subnet overlaps another one, or the address pools are used up")
		return []networkAction{keepNetwork{w.Name, "the managers give it no addresses: " + why}}
	}
	return nil
}

// inTheWay says which network of the swarm, other than the one with this ID,
// has addresses that w is to have.
func inTheWay(w Network, have []NetworkState, id string) string {
	for _, h := range have {
		if h.Local || h.ID == id {
			continue
		}
		for _, s := range w.Subnets {
			for _, t := range h.Subnets {
				if s.Prefix.Overlaps(t.Prefix) {
					name := printable(h.Name, 80)
					return fmt.Sprintf("subnet %s overlaps %s of network %s; declare another subnet, or remove that network (docker network rm %s)", s.Prefix, t.Prefix, name, name)
				}
			}
		}
	}
	return ""
}

// stranger says what is the matter with a network that has a declared name but
// was not made by bootd.
func stranger(w Network, h NetworkState) string {
	remedy := "; remove it (docker network rm " + h.Name + ") and bootd makes it as declared, or declare another name"
	if h.Local {
		return "a network of that name, which bootd did not make, is on the manager's engine alone" + remedy
	}
	if diff := differences(w, h); len(diff) > 0 {
		return "a network of that name, which bootd did not make, is used as it is, although it differs: " + strings.Join(diff, ", ") + remedy
	}
	return "a network of that name, which bootd did not make, is used as it is; bootd will not remove it"
}

// differences lists what is declared otherwise than it is.
func differences(w Network, h NetworkState) []string {
	var out []string
	differ := func(key, want, have string) {
		if want != have { // what there is may be anybody's text
			out = append(out, fmt.Sprintf("%s is %s and should be %s", printable(key, 80), cmp.Or(printable(have, 200), "not set"), cmp.Or(want, "not set")))
		}
	}
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	if h.Driver != "" {
		differ("driver", "overlay", h.Driver)
		if len(w.Subnets) > 0 {
			differ("subnet", formatSubnets(w.Subnets), formatSubnets(asDeclared(w.Subnets, h.Subnets)))
		}
		differ("mtu", number(w.MTU), number(h.MTU))
		differ("encrypted", strconv.FormatBool(w.Encrypted), strconv.FormatBool(h.Encrypted))
		differMaps(differ, "option ", w.Options, h.Options, func(k string) bool {
			_, declared := w.Options[k]
			return k == optionVXLAN && !declared
		})
	} else if h.ours() {
		// Of a network without addresses the engine tells neither subnets nor
		// options.
		differ("subnet", formatSubnets(w.Subnets), h.Labels[labelSubnets])
	}
	differ("attachable", strconv.FormatBool(w.Attachable), strconv.FormatBool(h.Attachable))
	differ("internal", strconv.FormatBool(w.Internal), strconv.FormatBool(h.Internal))
	differMaps(differ, "label ", userLabels(w.Labels), userLabels(h.Labels), func(string) bool { return false })
	return out
}

func differMaps(differ func(key, want, have string), what string, want, have map[string]string, skip func(string) bool) {
	all := maps.Clone(have)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, want)
	quoted := func(m map[string]string, k string) string {
		v, ok := m[k]
		if !ok {
			return ""
		}
		return strconv.Quote(v)
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if !skip(k) {
			differ(what+k, quoted(want, k), quoted(have, k))
		}
	}
}

// asDeclared leaves out the gateways that the engine has chosen.
func asDeclared(want, have []Subnet) []Subnet {
	out := slices.Clone(have)
	for i := range out {
		j := slices.IndexFunc(want, func(s Subnet) bool { return s.Prefix == out[i].Prefix })
		if j < 0 || !want[j].Gateway.IsValid() {
			out[i].Gateway = netip.Addr{}
		}
	}
	return out
}

// formatSubnets writes subnets for people and for labels:
// "10.20.0.0/24 gateway 10.20.0.1 range 10.20.0.128/25, 10.21.0.0/24".
func formatSubnets(list []Subnet) string {
	var parts []string
	for _, s := range slices.SortedFunc(slices.Values(list), func(a, b Subnet) int { return a.Prefix.Compare(b.Prefix) }) {
		p := s.Prefix.String()
		if s.Gateway.IsValid() {
			p += " gateway " + s.Gateway.String()
		}
		if s.Range.IsValid() {
			p += " range " + s.Range.String()
		}
		parts = append(parts, p)
	}
	return strings.Join(parts, ", ")
}

// marked is what a network is made with.
func (w Network) marked() Network {
	w.Labels = userLabels(w.Labels)
	if w.Labels == nil {
		w.Labels = map[string]string{}
	}
	w.Labels[labelNetwork] = w.Name
	put(w.Labels, labelSubnets, formatSubnets(w.Subnets))
	return w
}
