package swarm

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"bootd/boot"
)

// LabelPrefix begins the names of the node labels that bootd keeps for itself.
// Labels with it in the configuration are ignored.
const LabelPrefix = "bootd."

// The labels of nodes that bootd is in charge of. Services can use
// bootd.machine in placement constraints: unlike the node ID it survives a
// reboot.
const (
	labelMachine      = LabelPrefix + "machine"      // the machine's MAC address
	labelOurs         = LabelPrefix + "labels"       // which labels come from the configuration: rack,tier
	labelWished       = LabelPrefix + "wished"       // the same, of a node that bootd did not boot
	labelAvailability = LabelPrefix + "availability" // what the configuration says, if anything
	labelRemove       = LabelPrefix + "remove"       // a manager demoted in order to be removed, and why
)

// owner returns the machine that a node is, by bootd's own label.
func (n Node) owner() (boot.MAC, bool) {
	mac, err := boot.ParseMAC(n.Labels[labelMachine])
	return mac, err == nil && !mac.IsZero()
}

// userLabels returns the labels that have a name and are not bootd's own.
func userLabels(labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	maps.DeleteFunc(out, func(k, _ string) bool { return k == "" || strings.HasPrefix(k, LabelPrefix) })
	return out
}

// labelsFor returns what the labels of n should be if it is the machine m:
// labels that came from the configuration follow it, others stay.
func labelsFor(m Machine, n Node) map[string]string {
	wanted := userLabels(m.Labels)
	out := maps.Clone(n.Labels)
	if out == nil {
		out = map[string]string{}
	}
	for _, k := range parseKeys(n.Labels[labelOurs]) {
		delete(out, k)
	}
	maps.Copy(out, wanted)
	delete(out, labelRemove)
	out[labelMachine] = m.MAC.String()
	put(out, labelOurs, formatKeys(wanted))
	put(out, labelAvailability, string(m.Availability))
	return out
}

func put(m map[string]string, k, v string) {
	if v == "" {
		delete(m, k)
		return
	}
	m[k] = v
}

// formatKeys lists the keys of m in order, separated by commas; a comma within
// a key is escaped as in a URL.
func formatKeys(m map[string]string) string {
	keys := slices.Sorted(maps.Keys(m))
	for i, k := range keys {
		keys[i] = url.QueryEscape(k)
	}
	return strings.Join(keys, ",")
}

// parseKeys reverses formatKeys. Nobody but bootd writes the label, but anybody
// can: bootd's own labels are never among the keys.
func parseKeys(s string) []string {
	var keys []string
	for k := range strings.SplitSeq(s, ",") {
		k, err := url.QueryUnescape(k)
		if err == nil && k != "" && !strings.HasPrefix(k, LabelPrefix) {
			keys = append(keys, k)
		}
	}
	return keys
}

// describeLabels writes labels for people: rack=r1,tier=frontend.
func describeLabels(labels map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(k + "=" + labels[k])
	}
	return b.String()
}
