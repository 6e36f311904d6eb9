package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"bootd/boot"
)

// A document is one YAML file while it is read: its text, for pointing at
// lines, and where mistakes are collected.
type document struct {
	name     string // relative to the configuration directory
	lines    []string
	mistakes *Mistakes
}

// parse returns the bodies of the documents in text. What cannot be parsed is a
// mistake and gives nothing.
func parse(name string, text []byte, mistakes *Mistakes, opts ...parser.Option) (d *document, bodies []ast.Node) {
	// Editors on other systems put a mark before the text and end lines with
	// two characters, which would shift what the parser says of places.
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	d = &document{name: name, lines: strings.Split(string(text), "\n"), mistakes: mistakes}
	// The parser has been seen to panic on odd input. A file of the operator's
	// must not be able to stop the server.
	defer func() {
		if p := recover(); p != nil {
			d.at(boot.Origin{File: name, Line: 1, Column: 1}, fmt.Sprintf("this file cannot be read as YAML (%v)", p), "")
			bodies = nil
		}
	}()
	if i := bytes.IndexByte(text, 0); i >= 0 {
		line := bytes.Count(text[:i], []byte("\n")) + 1
		d.at(boot.Origin{File: name, Line: line, Column: 1}, "the file contains a NUL byte", "it must be text")
		return d, nil
	}
	if line := tooDeep(d.lines); line > 0 {
		d.at(boot.Origin{File: name, Line: line, Column: 1}, "brackets or dashes are nested too deeply here", "is this really YAML?")
		return d, nil
	}
	f, err := parser.ParseBytes(text, 0, opts...)
	if err != nil {
		d.syntax(err)
		return d, nil
	}
	for _, doc := range f.Docs {
		switch doc.Body.(type) {
		case nil, *ast.DirectiveNode: // %YAML 1.2
		default:
			bodies = append(bodies, doc.Body)
		}
	}
	return d, bodies
}

// maxDepth bounds how deeply values may be nested. The parser calls itself for
// each level, in time that grows with the square of them.
const maxDepth = 1000

// tooDeep returns the number of the line where nesting passes maxDepth, or 0.
// It counts brackets without looking at quotes, which only matters for a text
// that opens a thousand more than it closes.
func tooDeep(lines []string) int {
	depth := 0
	for i, l := range lines {
		dashes := 0
		for rest := strings.TrimLeft(l, " "); strings.HasPrefix(rest, "- ") || strings.HasPrefix(rest, "? "); rest = rest[2:] {
			dashes++
		}
		for _, c := range []byte(l) {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(depth-1, 0)
			}
			if depth > maxDepth || dashes > maxDepth {
				return i + 1
			}
		}
	}
	return 0
}

func (d *document) syntax(err error) {
	o := boot.Origin{File: d.name, Line: 1, Column: 1}
	message := err.Error()
	var e yaml.Error
	if errors.As(err, &e) {
		message = e.GetMessage()
		if t := e.GetToken(); t != nil && t.Position != nil {
			o.Line, o.Column = t.Position.Line, t.Position.Column
		}
	}
	d.at(o, message, "")
}

// at notes a mistake at a place of this file.
func (d *document) at(o boot.Origin, message, hint string) {
	o.Line = min(max(o.Line, 1), len(d.lines))
	o.Column = max(o.Column, 1)
	*d.mistakes = append(*d.mistakes, Mistake{Origin: o, Message: message, Hint: hint,
		Line: strings.TrimRight(d.lines[o.Line-1], "\r ")})
}

// wrong notes a mistake at a node.
func (d *document) wrong(n ast.Node, message, hint string) { d.at(d.origin(n), message, hint) }

// origin is where a node begins.
func (d *document) origin(n ast.Node) boot.Origin {
	// The parser places a block mapping at its first colon.
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key
	}
	o := boot.Origin{File: d.name, Line: 1, Column: 1}
	if t := n.GetToken(); t != nil && t.Position != nil {
		o.Line, o.Column = min(max(t.Position.Line, 1), len(d.lines)), max(t.Position.Column, 1)
	}
	return o
}

// plain refuses YAML's cleverer features, which hide where a value was
// written.
func (d *document) plain(n ast.Node) bool {
	switch n.(type) {
	case *ast.AliasNode, *ast.AnchorNode, *ast.MergeKeyNode, *ast.TagNode, *ast.MappingKeyNode:
		d.wrong(n, "anchors, aliases, merge keys and tags are not used here", "write the value out, or let a profile extend another")
		return false
	}
	return true
}

// fields are what a mapping may hold: for each key what reads its value.
type fields map[string]func(key string, v ast.Node)

// mapping reads a mapping, whose keys are known.
func (d *document) mapping(n ast.Node, what string, known fields) bool {
	var keys []string
	for k := range known {
		keys = append(keys, k)
	}
	return d.entries(n, what, func(key string, k, v ast.Node) {
		if f := known[key]; f != nil {
			f(key, v)
			return
		}
		d.wrong(k, fmt.Sprintf("unknown key %q in %s", key, what), suggest(key, keys))
	})
}

// entries reads a mapping with any keys, each once.
func (d *document) entries(n ast.Node, what string, f func(key string, k, v ast.Node)) bool {
	if !d.plain(n) {
		return false
	}
	m, ok := n.(ast.MapNode)
	if !ok {
		d.wrong(n, fmt.Sprintf("%s is %s", what, kind(n)), "it must be a mapping, key: value")
		return false
	}
	seen := map[string]boot.Origin{}
	for it := m.MapRange(); it.Next(); {
		k, v := it.Key(), it.Value()
		if !d.plain(k) || !d.plain(v) {
			continue
		}
		key := k.String()
		if s, ok := k.(*ast.StringNode); ok {
			key = s.Value
		}
		if first, ok := seen[key]; ok {
			d.wrong(k, fmt.Sprintf("%q is set twice in %s", key, what), fmt.Sprintf("keep this or the one on line %d", first.Line))
			continue
		}
		seen[key] = d.origin(k)
		f(key, k, v)
	}
	return true
}

// has reports whether a mapping holds a key, rightly or wrongly.
func has(n ast.Node, key string) bool {
	m, ok := n.(ast.MapNode)
	if !ok {
		return false
	}
	for it := m.MapRange(); it.Next(); {
		if k, ok := it.Key().(*ast.StringNode); ok && k.Value == key {
			return true
		}
	}
	return false
}

// lacks notes that a mapping has no such key. One that is there, but wrong, has
// been told of already.
func (d *document) lacks(n ast.Node, key, message, hint string) {
	if !has(n, key) {
		d.wrong(n, message, hint)
	}
}

// list calls f for each element. A single value counts as a list of one.
func (d *document) list(n ast.Node, f func(ast.Node)) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		if _, null := n.(*ast.NullNode); !null {
			f(n)
		}
		return
	}
	for _, v := range s.Values {
		if d.plain(v) {
			f(v)
		}
	}
}

func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "empty"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number"
	}
	return "text"
}

// text reads a value as text. Numbers count as the text that was written.
func (d *document) text(n ast.Node, what string) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	d.wrong(n, fmt.Sprintf("%s is %s", what, kind(n)), "it must be text")
	return "", false
}

// into reads one line of text into dst, and has it checked. After a mistake of
// its own it leaves dst alone and does not call the checks.
func (d *document) into(dst *string, checks ...func(v ast.Node, s string)) func(string, ast.Node) {
	return func(key string, v ast.Node) {
		s, ok := d.text(v, key)
		if !ok {
			return
		}
		if s = strings.TrimSpace(s); s == "" {
			d.wrong(v, key+" is empty", "write a value, or leave the key out")
			return
		}
		if strings.ContainsFunc(s, unicode.IsControl) {
			d.wrong(v, fmt.Sprintf("%s: %q holds a character that cannot be printed", key, clip(s)), "it must be one line of text")
			return
		}
		*dst = s
		for _, check := range checks {
			check(v, s)
		}
	}
}

// one reads one of several words into dst.
func (d *document) one(dst *string, words ...string) func(string, ast.Node) {
	return func(key string, v ast.Node) {
		s, ok := d.text(v, key)
		if !ok {
			return
		}
		if !slices.Contains(words, s) {
			d.wrong(v, fmt.Sprintf("%s cannot be %q", key, s), suggest(s, words))
			return
		}
		*dst = s
	}
}

// number reads a whole number between lo and hi into dst.
func (d *document) number(dst *int, lo, hi int) func(string, ast.Node) {
	return func(key string, v ast.Node) {
		s, ok := d.text(v, key)
		if !ok {
			return
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < lo || n > hi {
			d.wrong(v, fmt.Sprintf("%s cannot be %q", key, s), fmt.Sprintf("it must be a whole number from %d to %d", lo, hi))
			return
		}
		*dst = n
	}
}

func (d *document) yes(dst *bool) func(string, ast.Node) {
	return func(key string, v ast.Node) {
		b, ok := v.(*ast.BoolNode)
		if !ok {
			d.wrong(v, fmt.Sprintf("%s is %s", key, kind(v)), "it must be true or false")
			return
		}
		*dst = b.Value
	}
}

func (d *document) duration(dst *time.Duration, lo, hi time.Duration) func(string, ast.Node) {
	return func(key string, v ast.Node) {
		s, ok := d.text(v, key)
		if !ok {
			return
		}
		t, err := time.ParseDuration(s)
		if err != nil || t < lo || t > hi {
			d.wrong(v, fmt.Sprintf("%s cannot be %q", key, s), fmt.Sprintf("it must be a time from %s to %s, such as 90s, 30m or 12h", span(lo), span(hi)))
			return
		}
		*dst = t
	}
}

// span writes a time as people do: 12h rather than 12h0m0s.
func span(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (d *document) addr(n ast.Node, what string) (netip.Addr, bool) {
	s, ok := d.text(n, what)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
		d.wrong(n, fmt.Sprintf("%s: %q is not an IPv4 address of a host", what, s), "write it as 10.0.0.1")
		return netip.Addr{}, false
	}
	return a, true
}

func (d *document) addrInto(dst *netip.Addr) func(string, ast.Node) {
	return func(key string, v ast.Node) {
		if a, ok := d.addr(v, key); ok {
			*dst = a
		}
	}
}

func (d *document) addrsInto(dst *[]netip.Addr) func(string, ast.Node) {
	return func(key string, v ast.Node) {
		d.list(v, func(n ast.Node) {
			if a, ok := d.addr(n, key); ok {
				*dst = append(*dst, a)
			}
		})
	}
}

func (d *document) prefix(n ast.Node, what string) (netip.Prefix, bool) {
	s, ok := d.text(n, what)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || !p.Addr().Is4():
		d.wrong(n, fmt.Sprintf("%s: %q is not an IPv4 subnet", what, s), "write it as 10.0.0.0/24")
		return netip.Prefix{}, false
	case p != p.Masked():
		d.wrong(n, fmt.Sprintf("%s: %q has host bits set", what, s), fmt.Sprintf("did you mean %s?", p.Masked()))
		return netip.Prefix{}, false
	}
	return p, true
}

// fragment is where the text of a value begins: for a block, its first line.
func (d *document) fragment(n ast.Node) boot.Origin {
	o := d.origin(n)
	switch v := n.(type) {
	case *ast.LiteralNode:
		if v.Start != nil && v.Start.Position != nil {
			o.Line = min(max(v.Start.Position.Line, 1), len(d.lines))
		}
		if o.Line < len(d.lines) {
			o.Line++
		}
		o.Column = d.indentation(o.Line, v.Value.Value) + 1
	case *ast.StringNode:
		if t := v.GetToken(); t != nil && (t.Type == token.DoubleQuoteType || t.Type == token.SingleQuoteType) {
			o.Column++
		}
	}
	return o
}

// indentation is by how many spaces the lines from line on are indented more
// than in text, which is what they hold.
func (d *document) indentation(line int, text string) int {
	spaces := func(s string) (int, bool) {
		rest := strings.TrimLeft(s, " ")
		return len(s) - len(rest), strings.TrimSpace(rest) != ""
	}
	inText := 0
	for l := range strings.Lines(text) {
		if n, ok := spaces(l); ok {
			inText = n
			break
		}
	}
	for _, l := range d.lines[line-1:] {
		if n, ok := spaces(l); ok {
			return max(n-inText, 0)
		}
	}
	return 0
}
