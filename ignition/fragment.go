package ignition

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bootd/boot"

	"github.com/coreos/butane/config/common"
	fcos1_0 "github.com/coreos/butane/config/fcos/v1_0"
	fcos1_1 "github.com/coreos/butane/config/fcos/v1_1"
	fcos1_2 "github.com/coreos/butane/config/fcos/v1_2"
	fcos1_3 "github.com/coreos/butane/config/fcos/v1_3"
	fcos1_4 "github.com/coreos/butane/config/fcos/v1_4"
	fcos1_5 "github.com/coreos/butane/config/fcos/v1_5"
	fcos1_6 "github.com/coreos/butane/config/fcos/v1_6"
	fcos1_7 "github.com/coreos/butane/config/fcos/v1_7"
	flatcar1_0 "github.com/coreos/butane/config/flatcar/v1_0"
	flatcar1_1 "github.com/coreos/butane/config/flatcar/v1_1"
	cutil "github.com/coreos/butane/config/util"
	ign "github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/vcontext/report"
	"gopkg.in/yaml.v3"
)

// A translator is a version of a Butane variant.
type translator struct {
	version   string
	translate func([]byte, common.TranslateBytesOptions) ([]byte, report.Report, error)
}

// A variant is the dialect of Butane for one family of images.
type variant struct {
	name     string
	versions []translator // stable ones, oldest first
}

// variants are called directly, not through Butane's registry: that wants
// variant and version written in the text, and they may be left out here.
var variants = map[boot.Family]variant{
	boot.FedoraCoreOS: {"fcos", []translator{
		{"1.0.0", fcos1_0.ToIgn3_0Bytes},
		{"1.1.0", fcos1_1.ToIgn3_1Bytes},
		{"1.2.0", fcos1_2.ToIgn3_2Bytes},
		{"1.3.0", fcos1_3.ToIgn3_2Bytes},
		{"1.4.0", fcos1_4.ToIgn3_3Bytes},
		{"1.5.0", fcos1_5.ToIgn3_4Bytes},
		{"1.6.0", fcos1_6.ToIgn3_5Bytes},
		{"1.7.0", fcos1_7.ToIgn3_6Bytes},
	}},
	boot.Flatcar: {"flatcar", []translator{
		{"1.0.0", flatcar1_0.ToIgn3_3Bytes},
		{"1.1.0", flatcar1_1.ToIgn3_4Bytes},
	}},
}

// A fragment is one piece of the user's Butane while it is translated.
type fragment struct {
	boot.Fragment
	key     string // butane.0
	family  boot.Family
	root    *yaml.Node // of the document; nil when there is nothing in it
	entries []Entry
}

// translateFragment makes a layer of the profile's fragment at index i. Wants
// is the version that the user asked for, the zero Version when none was
// named. The layer is of no use when an entry is an Error.
func translateFragment(f boot.Fragment, i int, family boot.Family) (l layer, wants Version, entries []Entry) {
	fr := &fragment{Fragment: f, key: fmt.Sprintf("butane.%d", i), family: family}
	l.locate = fr.locate
	l.config.Ignition.Version = Newest.String()
	if !fr.parse() || fr.root == nil {
		return l, wants, fr.entries
	}
	t, named, ok := fr.dialect()
	if !ok {
		return l, wants, fr.entries
	}
	raw, ok := fr.translate(t)
	if !ok {
		return l, wants, fr.entries
	}
	config, rep, err := ign.ParseCompatibleVersion(raw)
	if err != nil {
		// Butane has validated its own output, so this is theirs to explain.
		fr.add(Error, fr.Origin, nil, fmt.Sprintf("Ignition does not take what Butane made of this: %v: %s", err, rep))
		return l, wants, fr.entries
	}
	l.config = config
	if named {
		wants = specOf(raw)
	}
	return l, wants, fr.entries
}

// translate runs Butane. What it calls a warning about an unknown key is an
// error here: a misspelt key must not boot a rack.
func (f *fragment) translate(t translator) (raw []byte, ok bool) {
	var opts common.TranslateBytesOptions // no FilesDir: nothing can be read from this machine
	raw, rep, err := t.translate([]byte(f.Text), opts)
	ok = err == nil
	for _, e := range rep.Entries {
		kind, message := kindOf(e), e.Message
		switch {
		case strings.HasPrefix(message, "unused key <<"):
			// Butane follows YAML's merge keys and then wonders at them.
			continue
		case strings.HasPrefix(message, "unused key "):
			kind = Error
			message = fmt.Sprintf("unknown key %s in version %s of variant %s", strings.TrimPrefix(message, "unused key "), t.version, variants[f.family].name)
		case message == common.ErrNoFilesDir.Error():
			message = "local files cannot be included here: write the text inline or give a source URL"
		}
		ok = ok && kind != Error
		o := f.Origin
		if p := e.Marker.StartP; p != nil && p.Line > 0 {
			o = f.at(int(p.Line), int(p.Column))
		}
		f.add(kind, o, yamlPath(e.Context.Path), message)
	}
	if err != nil && !fatal(f.entries) {
		f.addYAMLError(err)
	}
	// Butane goes through keys in random order.
	slices.SortStableFunc(f.entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Origin.Line, b.Origin.Line), cmp.Compare(a.Origin.Column, b.Origin.Column), cmp.Compare(a.Key, b.Key))
	})
	return raw, ok
}

// dialect chooses the translator by the document's variant and version, or by
// the family where they are left out. Named tells whether it was by version.
func (f *fragment) dialect() (t translator, named, ok bool) {
	want := variants[f.family]
	if n := valueOf(f.root, "variant"); n != nil && n.Value != want.name {
		f.add(Error, f.at(n.Line, n.Column), []any{"variant"},
			fmt.Sprintf("variant %s does not fit an image of family %s, whose variant is %s", n.Value, f.family, want.name))
		return t, false, false
	}
	n := valueOf(f.root, "version")
	if n == nil {
		return want.versions[len(want.versions)-1], false, true
	}
	var known []string
	for _, t := range want.versions {
		if t.version == n.Value {
			return t, true, true
		}
		known = append(known, t.version)
	}
	f.add(Error, f.at(n.Line, n.Column), []any{"version"},
		fmt.Sprintf("variant %s has no stable version %s; there are %s", want.name, n.Value, strings.Join(known, ", ")))
	return t, false, false
}

// parse reads the text as YAML and finds what Butane would not, or would not
// say where.
func (f *fragment) parse() bool {
	dec := yaml.NewDecoder(strings.NewReader(f.Text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if doc.IsZero() && strings.TrimSpace(f.Text) != "" && !isEOF(err) {
			f.addYAMLError(err)
			return false
		}
		return true // nothing but blanks and comments
	}
	if len(doc.Content) == 0 || doc.Content[0].ShortTag() == "!!null" {
		return true
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		f.add(Error, f.at(root.Line, root.Column), nil, "a Butane document is a mapping, such as \"storage: ...\"")
		return false
	}
	if err := dec.Decode(&more); err == nil {
		f.add(Error, f.at(more.Line, more.Column), nil, "a second YAML document begins here, and only one is read: put it into a fragment of its own")
		return false
	} else if !isEOF(err) {
		f.addYAMLError(err)
		return false
	}
	f.root = root
	return true
}

func (f *fragment) add(k Kind, o boot.Origin, path []any, message string) {
	f.entries = append(f.entries, Entry{k, message, o, joinKey(f.key, path)})
}

// at translates a position in the text into one in the user's file.
func (f *fragment) at(line, column int) boot.Origin {
	o := f.Origin
	if o.Line == 0 || line < 1 {
		return o
	}
	o.Line += line - 1
	// Every line of a YAML block has lost the same indentation.
	o.Column = max(o.Column, 1) + max(column, 1) - 1
	return o
}

// locate finds what became the value at a path of the layer's config. Butane
// keeps paths but for the spelling; what its sugar adds comes after what the
// user wrote, and is located at the nearest thing that exists.
func (f *fragment) locate(path []any) (boot.Origin, string) {
	snake := make([]any, len(path))
	for i, p := range path {
		snake[i] = p
		if s, ok := p.(string); ok {
			snake[i] = cutil.Snake(s)
		}
	}
	key := joinKey(f.key, snake)
	n := find(f.root, snake)
	if n == nil {
		return f.Origin, key
	}
	return f.at(n.Line, n.Column), key
}

// addYAMLError turns an error of the YAML package into entries. It has two
// kinds: a list of values that do not fit, and the first fault of syntax.
func (f *fragment) addYAMLError(err error) {
	var wrong *yaml.TypeError
	if errors.As(err, &wrong) {
		for _, s := range wrong.Errors {
			line, message := cutLine(s)
			column := 1
			if n := mistyped(f.root, line, message); n != nil {
				column = n.Column
			}
			f.add(Error, f.at(line, column), nil, f.translateLines(message))
		}
		return
	}
	line, message := cutLine(strings.TrimPrefix(err.Error(), "yaml: "))
	line, column := faultyLine(f.Text, line)
	f.add(Error, f.at(line, column), nil, "not YAML: "+message)
}
