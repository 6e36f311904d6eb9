package ignition

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	ign "github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/coreos/vcontext/report"
)

// A Rendered is the config of one node.
type Rendered struct {
	template *Template
	config   types.Config
}

// For encodes the config for a node whose Ignition reads the specification up
// to max, and returns the version that it is in: the profile's own
// ([Template.Version]) if the node can read that, else the lowest that says
// the same. When there is none that the node can read, the error is a *[TooOld].
func (r *Rendered) For(max Version) ([]byte, Version, error) {
	t := r.template
	switch {
	case !max.less(t.wants):
		return encode(r.config, t.wants), t.wants, nil
	case !max.less(t.fits.lowest):
		return encode(r.config, t.fits.lowest), t.fits.lowest, nil
	}
	return nil, Version{}, &TooOld{Need: t.fits.lowest, Have: max, Why: t.fits.why(max)}
}

// Pretty returns the config as it is served to a node that can read the
// profile's own version, indented. It holds the node's secrets.
func (r *Rendered) Pretty() []byte {
	var b bytes.Buffer
	if err := json.Indent(&b, encode(r.config, r.template.wants), "", "  "); err != nil {
		panic(fmt.Sprintf("ignition: indenting our own JSON: %v", err))
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// TooOld is the error for a node whose Ignition cannot read its config.
type TooOld struct {
	Need, Have Version
	Why        string // what in the config is newer, as JSON paths
}

func (e *TooOld) Error() string {
	return fmt.Sprintf("the node's Ignition reads specifications up to %s, and this config needs %s because of %s; boot a newer image or leave that out", e.Have, e.Need, e.Why)
}

// fits says which versions can hold a config.
type fits struct {
	lowest Version
	lost   map[Version]string // for each lower version: what it cannot say
}

// why explains to a node that reads up to max.
func (f fits) why(max Version) string {
	if max.less(Oldest) {
		return "the format itself, which is another one since " + Oldest.String()
	}
	why := ""
	for _, v := range slices.SortedFunc(maps.Keys(f.lost), Version.Compare) {
		if !max.less(v) {
			why = f.lost[v]
		}
	}
	return why
}

// findFits finds the lowest version that holds all of c. The proof is the
// node's own way: what is written in a version is read back as that version,
// validated, and brought up to date as Ignition would, and must then say the
// same.
func findFits(c types.Config) fits {
	f := fits{Newest, map[Version]string{}}
	for minor := Oldest.Minor; minor < Newest.Minor; minor++ {
		v := Version{Major: Oldest.Major, Minor: minor}
		lost := losses(c, v)
		if len(lost) == 0 {
			f.lowest = v
			break
		}
		f.lost[v] = summary(lost)
	}
	return f
}

// losses names what version v cannot say of c.
func losses(c types.Config, v Version) []string {
	raw := encode(c, v)
	back, rep, err := ign.ParseCompatibleVersion(raw)
	var lost []string
	if err == nil {
		for _, p := range changes(raw, encode(back, v)) {
			lost = append(lost, dotted(p))
		}
		return lost
	}
	for _, e := range rep.Entries {
		if e.Kind == report.Error {
			lost = append(lost, fmt.Sprintf("%s (%s)", dotted(e.Context.Path), e.Message))
		}
	}
	if lost == nil {
		lost = []string{err.Error()}
	}
	return lost
}

// summary lists the first few of lost.
func summary(lost []string) string {
	const most = 5
	if n := len(lost) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(lost[:most], ", "), n)
	}
	return strings.Join(lost, ", ")
}

// specOf reads the version that a config says it is in.
func specOf(raw []byte) Version {
	var c struct{ Ignition struct{ Version string } }
	if json.Unmarshal(raw, &c) != nil {
		return Version{}
	}
	v, _ := parseVersion(c.Ignition.Version)
	return v
}

// changes lists the places of the JSON text a that are missing from b or
// differ there.
func changes(a, b []byte) [][]any {
	if bytes.Equal(a, b) {
		return nil
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return [][]any{{}}
	}
	return changed(x, y, nil)
}

func changed(x, y any, at []any) (paths [][]any) {
	switch x := x.(type) {
	case map[string]any:
		y, ok := y.(map[string]any)
		if !ok {
			break
		}
		for _, k := range slices.Sorted(maps.Keys(x)) {
			paths = append(paths, changed(x[k], y[k], append(slices.Clip(at), k))...)
		}
		return paths
	case []any:
		y, ok := y.([]any)
		if !ok || len(x) != len(y) {
			break
		}
		for i := range x {
			paths = append(paths, changed(x[i], y[i], append(slices.Clip(at), i))...)
		}
		return paths
	default:
		if x == y {
			return nil
		}
	}
	return [][]any{at}
}
