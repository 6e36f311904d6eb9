package boot

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
)

// hostName is a host name as RFC 1123 section 2.1 allows: labels of letters,
// digits and inner hyphens.
var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

// ValidName reports whether s can be a node's host name. Linux allows 64
// characters.
func ValidName(s string) bool { return len(s) <= 64 && hostName.MatchString(s) }

// NameKeys are the keys that the template of a name may use.
func NameKeys() []string {
	return []string{"serial", "mac", "uuid", "asset", "product", "manufacturer"}
}

func isTemplate(name string) bool { return strings.Contains(name, "{{") }

// ParseName reads a template of a host name such as blade-{{.serial}} and
// tries it out, so that a key that does not exist is found now. It may hold
// text and values, which may go through text/template's functions:
// {{slice .serial 0 4}}.
func ParseName(s string) (*template.Template, error) {
	t, err := template.New("name").Option("missingkey=error").Parse(s)
	if err != nil {
		return nil, fmt.Errorf("name %q: %s", s, strings.TrimPrefix(err.Error(), "template: name:1: "))
	}
	keys, err := nameKeys(t)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", s, err)
	}
	for _, k := range keys {
		if !slices.Contains(NameKeys(), k) {
			return nil, fmt.Errorf("name %q: there is no %q; only %s can be used in a name", s, k, strings.Join(NameKeys(), ", "))
		}
	}
	var b strings.Builder
	if err := t.Execute(&b, map[string]string{
		"serial": "serial123456", "mac": "52-54-00-12-34-56", "uuid": "00112233-4455-6677-8899-aabbccddeeff",
		"asset": "asset1234567", "product": "product12345", "manufacturer": "manufacturer",
	}); err != nil {
		return nil, fmt.Errorf("name %q cannot be made: %w", s, cause(err))
	}
	if !ValidName(strings.ToLower(b.String())) {
		return nil, fmt.Errorf("name %q does not make a host name: an example is %q", s, b.String())
	}
	return t, nil
}

// nameKeys lists what a template takes from the inventory. What could run for
// ever, or take anything else, is refused.
func nameKeys(t *template.Template) (keys []string, err error) {
	var visit func(n parse.Node)
	visit = func(n parse.Node) {
		switch n := n.(type) {
		case *parse.ListNode:
			for _, c := range n.Nodes {
				visit(c)
			}
		case *parse.ActionNode:
			visit(n.Pipe)
		case *parse.PipeNode:
			if len(n.Decl) > 0 {
				err = errors.New("it can hold no variables, only values such as {{.serial}}")
			}
			for _, c := range n.Cmds {
				for _, a := range c.Args {
					visit(a)
				}
			}
		case *parse.FieldNode:
			keys = append(keys, strings.Join(n.Ident, "."))
		case *parse.TextNode, *parse.IdentifierNode, *parse.StringNode, *parse.NumberNode, *parse.CommentNode:
		default:
			err = fmt.Errorf("it can hold only values such as {{.serial}}, not %s", n)
		}
	}
	if t.Tree == nil || len(t.Templates()) > 1 {
		return nil, errors.New("it can define no templates, only hold values such as {{.serial}}")
	}
	visit(t.Root)
	return keys, err
}

// RenderName fills in a template of [ParseName]. In what the machine tells,
// each run of characters that a host name's label cannot have becomes a hyphen;
// a key that it has not told is an error.
func RenderName(t *template.Template, inv Inventory) (string, error) {
	values := map[string]string{}
	for k, v := range map[string]string{
		"serial": inv.Serial, "uuid": inv.UUID, "asset": inv.Asset, "product": inv.Product, "manufacturer": inv.Manufacturer,
	} {
		if v = label(v); v != "" {
			values[k] = v
		}
	}
	if !inv.MAC.IsZero() {
		values["mac"] = inv.MAC.Hyphens()
	}
	keys, err := nameKeys(t)
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		if values[k] == "" {
			return "", fmt.Errorf("%q needs the %s, which the machine has not told", t.Root.String(), k)
		}
	}
	var b strings.Builder
	if err := t.Execute(&b, values); err != nil {
		return "", fmt.Errorf("%q cannot be made: %w", t.Root.String(), cause(err))
	}
	name := strings.ToLower(b.String())
	if !ValidName(name) {
		return "", fmt.Errorf("%q makes %q, which is not a host name", t.Root.String(), name)
	}
	return name, nil
}

// label makes the nearest label of a host name from a text.
func label(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return strings.TrimRight(b.String(), "-")
}

// cause is what text/template adds its own position to.
func cause(err error) error {
	var e template.ExecError
	if errors.As(err, &e) {
		return e.Unwrap()
	}
	return err
}
