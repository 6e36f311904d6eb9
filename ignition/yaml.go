package ignition

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/coreos/vcontext/tree"
	"gopkg.in/yaml.v3"
)

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// valueOf returns the value of a key of a mapping, or nil.
func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// find walks from n along path as far as there is something.
func find(n *yaml.Node, path []any) *yaml.Node {
	for _, p := range path {
		if n != nil && n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		switch p := p.(type) {
		case string:
			next = valueOf(n, p)
		case int:
			if n != nil && n.Kind == yaml.SequenceNode && p < len(n.Content) {
				next = n.Content[p]
			}
		}
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// yamlPath is a path of Butane's report; where it means a key and not the
// key's value it says so with a type of its own.
func yamlPath(path []any) []any {
	out := make([]any, len(path))
	for i, p := range path {
		if k, ok := p.(tree.Key); ok {
			p = string(k)
		}
		out[i] = p
	}
	return out
}

func dotted(path []any) string {
	parts := make([]string, len(path))
	for i, p := range path {
		parts[i] = fmt.Sprint(p)
	}
	return strings.Join(parts, ".")
}

func joinKey(key string, path []any) string {
	if len(path) == 0 {
		return key
	}
	return key + "." + dotted(path)
}

var (
	leadingLine = regexp.MustCompile(`^line (\d+): `)
	otherLine   = regexp.MustCompile(`already defined at line (\d+)`)
	wrongType   = regexp.MustCompile("^cannot unmarshal (!![a-z]+)(?: `([^`]*)`)? into")
)

// cutLine takes "line 3: " off the front of a message.
func cutLine(s string) (line int, message string) {
	m := leadingLine.FindStringSubmatch(s)
	if m == nil {
		return 0, s
	}
	line, _ = strconv.Atoi(m[1]) // digits; a number too large for a line is 0 or a line that is not there
	return line, s[len(m[0]):]
}

// translateLines replaces line numbers inside a message.
func (f *fragment) translateLines(message string) string {
	return otherLine.ReplaceAllStringFunc(message, func(s string) string {
		n, err := strconv.Atoi(s[strings.LastIndexByte(s, ' ')+1:])
		if err != nil || f.Origin.Line == 0 {
			return s
		}
		return fmt.Sprintf("already defined in line %d", f.at(n, 1).Line)
	})
}

// mistyped finds the node on a line that a TypeError's message is about.
func mistyped(n *yaml.Node, line int, message string) *yaml.Node {
	m := wrongType.FindStringSubmatch(message)
	var first, found *yaml.Node
	visit(n, func(n *yaml.Node) {
		if n.Line != line {
			return
		}
		if first == nil {
			first = n
		}
		if m == nil || found != nil || n.ShortTag() != m[1] {
			return
		}
		if strings.HasPrefix(n.Value, strings.TrimSuffix(m[2], "...")) {
			found = n
		}
	})
	if found != nil {
		return found
	}
	return first
}

// visit calls fn for n and everything below, in the order of the text.
func visit(n *yaml.Node, fn func(*yaml.Node)) {
	if n == nil {
		return
	}
	fn(n)
	for _, c := range n.Content {
		visit(c, fn)
	}
}

// maxSearch bounds, in lines, the texts that faultyLine examines.
const maxSearch = 400

// faultyLine finds where a text stops being YAML. The parser reports where the
// surrounding block began, often many lines above, and counts from zero in
// some messages and from one in others; so the text is shortened line by line
// until it parses, and the fault is in the line after.
func faultyLine(text string, reported int) (line, column int) {
	lines := strings.SplitAfter(text, "\n")
	line = reported
	if len(lines) <= maxSearch {
		n := len(lines) - 1
		for ; n > 0; n-- {
			if isYAML(strings.Join(lines[:n], "")) {
				break
			}
		}
		line = n + 1
	}
	line = min(max(line, 1), len(lines))
	s := lines[line-1]
	return line, 1 + len(s) - len(strings.TrimLeft(s, " \t"))
}

func isYAML(text string) bool {
	dec := yaml.NewDecoder(strings.NewReader(text))
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); err != nil {
			return isEOF(err)
		}
	}
}
