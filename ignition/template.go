package ignition

import (
	"fmt"
	"slices"
	"strings"

	"bootd/boot"

	ignmerge "github.com/coreos/ignition/v2/config/merge"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/coreos/vcontext/path"
)

// A Template is a profile for one family of images, translated and checked,
// from which the configs of its nodes are made.
type Template struct {
	profile string
	config  types.Config // everything above the node's own layer
	wants   Version      // the highest that a fragment asked for
	fits    fits
	entries []Entry
}

// sample has everything that a node can have, so that what is true of its
// config is true of every node's. Of these values only their presence matters.
var sample = Node{
	Hostname:  "node",
	ReportURL: "http://192.0.2.1/report/ticket",
	Join:      &Join{Addr: "192.0.2.1:2377", Token: "SWMTKN-1-sample", Availability: "drain"},
}

// Prepare translates a profile. A profile with mistakes gives an *[Invalid]
// that lists all of them.
func Prepare(p *boot.Profile, family boot.Family) (*Template, error) {
	if _, ok := variants[family]; !ok {
		return nil, fmt.Errorf("cannot render profile %s: images of family %q take no Ignition config", p.Name, family)
	}
	t := &Template{profile: p.Name}
	layers := make([]layer, 0, 1+len(p.Butane))
	l, entries := profileLayer(p)
	layers, t.entries = append(layers, l), entries
	for i, f := range p.Butane {
		l, wants, entries := translateFragment(f, i, family)
		layers, t.entries = append(layers, l), append(t.entries, entries...)
		if t.wants.less(wants) {
			t.wants = wants
		}
	}
	if fatal(t.entries) {
		return nil, &Invalid{p.Name, t.entries}
	}

	node, err := sample.config()
	if err != nil {
		return nil, err
	}
	t.config = layers[0].config
	for _, l := range layers[1:] {
		t.config = merge(t.config, l.config)
	}
	whole := merge(node, t.config)
	if rep := check(whole); rep.IsFatal() {
		t.entries = append(t.entries, conflicts(node, layers)...)
		if !fatal(t.entries) { // no single layer is to blame
			t.entries = append(t.entries, Entry{Kind: Error, Message: "the merged config is wrong: " + strings.TrimSpace(rep.String())})
		}
		return nil, &Invalid{p.Name, t.entries}
	}
	t.entries = append(t.entries, replacements(node, whole, layers)...)
	t.fits = findFits(whole)
	if t.wants.less(t.fits.lowest) {
		t.wants = t.fits.lowest
	}
	return t, nil
}

// Entries returns what there is to say about the profile though it can be
// rendered: warnings, and what Butane and Ignition want to be known.
func (t *Template) Entries() []Entry { return slices.Clone(t.entries) }

// Version returns the version that configs are served in to nodes that can
// read it.
func (t *Template) Version() Version { return t.wants }

// Render makes the config of one node. It fails only when n is not right.
func (t *Template) Render(n Node) (*Rendered, error) {
	c, err := n.config()
	if err != nil {
		return nil, err
	}
	return &Rendered{t, merge(c, t.config)}, nil
}

// conflicts explains why layers that are right by themselves are wrong
// together: it finds the first that cannot be laid over those below it.
func conflicts(node types.Config, layers []layer) []Entry {
	c := node
	for _, l := range layers {
		merged, transcript := ignmerge.MergeStructTranscribe(keepSources(c, l.config), l.config)
		c = merged.(types.Config)
		var entries []Entry
		for _, e := range check(c).Entries {
			if kindOf(e) == Error {
				o, key := l.locate(fromChild(transcript, e.Context))
				entries = append(entries, Entry{Error, "does not go together with what comes before: " + e.Message, o, key})
			}
		}
		if len(entries) > 0 {
			return entries
		}
	}
	return nil
}

// fromChild finds the path in the upper layer that a merge took for the value
// at path of the result, or for the nearest value around it.
func fromChild(t ignmerge.Transcript, to path.ContextPath) []any {
	for ; to.Len() > 0; to = to.Pop() {
		for _, m := range t.Mappings {
			if m.From.Tag == ignmerge.TAG_CHILD && slices.Equal(m.To.Path, to.Path) {
				return m.From.Path
			}
		}
	}
	return nil
}

// replacements warns of what the user's layers take away from the node's own:
// allowed, and seldom meant.
func replacements(node, whole types.Config, layers []layer) []Entry {
	var entries []Entry
	warn := func(message string, where func(types.Config) []any) {
		for _, l := range slices.Backward(layers) {
			if path := where(l.config); path != nil {
				o, key := l.locate(path)
				entries = append(entries, Entry{Warning, message, o, key})
				return
			}
		}
	}
	for _, f := range node.Storage.Files {
		i := slices.IndexFunc(whole.Storage.Files, func(w types.File) bool { return w.Path == f.Path })
		if i >= 0 && equal(whole.Storage.Files[i].Contents.Source, f.Contents.Source) {
			continue
		}
		warn("this replaces "+f.Path+", which bootd writes for each node", func(c types.Config) []any { return pathOf(c, f.Path) })
	}
	for _, u := range node.Systemd.Units {
		i := slices.IndexFunc(whole.Systemd.Units, func(w types.Unit) bool { return w.Name == u.Name })
		w := whole.Systemd.Units[i] // a merge drops no unit
		if (u.Contents == nil || equal(w.Contents, u.Contents)) && equal(w.Enabled, u.Enabled) && (w.Mask == nil || !*w.Mask) {
			continue
		}
		warn("this changes "+u.Name+", by which bootd makes the node report and join", func(c types.Config) []any {
			if i := slices.IndexFunc(c.Systemd.Units, func(w types.Unit) bool { return w.Name == u.Name }); i >= 0 {
				return []any{"systemd", "units", i}
			}
			return nil
		})
	}
	if whole.Ignition.Config.Replace.Source != nil {
		warn("this replaces the whole config, also what bootd adds: the host name, reporting, and joining the swarm", func(c types.Config) []any {
			if c.Ignition.Config.Replace.Source == nil {
				return nil
			}
			return []any{"ignition", "config", "replace"}
		})
	}
	return entries
}

// pathOf finds the entry of a config that puts something at a path of the
// node's file system.
func pathOf(c types.Config, name string) []any {
	for i, f := range c.Storage.Files {
		if f.Path == name {
			return []any{"storage", "files", i}
		}
	}
	for i, l := range c.Storage.Links {
		if l.Path == name {
			return []any{"storage", "links", i}
		}
	}
	for i, d := range c.Storage.Directories {
		if d.Path == name {
			return []any{"storage", "directories", i}
		}
	}
	return nil
}

func equal[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}
