package openapi

import (
	"encoding"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"reflect"
	"strings"
	"time"
)

// types makes schemas of Go types.
type types struct {
	about   map[string]string // comments: see comments
	schemas object            // of the named structs, by the names that they have here
	names   map[string]string // that are taken, and by which types
}

var (
	textType   = reflect.TypeFor[encoding.TextMarshaler]()
	customType = reflect.TypeFor[json.Marshaler]()
	timeType   = reflect.TypeFor[time.Time]()
	numberType = reflect.TypeFor[json.Number]()
)

// of is the schema of the type of v.
func (t *types) of(v any) object { return t.schema(reflect.TypeOf(v)) }

func (t *types) schema(g reflect.Type) object {
	switch {
	case g == timeType:
		return object{"type": "string", "format": "date-time"}
	case g == numberType:
		return object{"type": "number"}
	case g.Kind() == reflect.Pointer:
		return t.schema(g.Elem())
	case g.Implements(textType) || reflect.PointerTo(g).Implements(textType):
		return object{"type": "string"}
	case g.Implements(customType) || reflect.PointerTo(g).Implements(customType):
		return object{} // anything
	}
	switch g.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Slice, reflect.Array:
		if g.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "format": "byte"}
		}
		return object{"type": "array", "items": t.schema(g.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": t.schema(g.Elem())}
	case reflect.Struct:
		return t.object(g)
	}
	return object{} // anything
}

// object is the schema of a struct: a reference, if it has a name.
func (t *types) object(g reflect.Type) object {
	if g.Name() == "" || strings.Contains(g.Name(), "[") {
		return t.members(g)
	}
	name, whose := g.Name(), g.PkgPath()+"."+g.Name()
	if by, taken := t.names[name]; taken && by != whose {
		pkg := path.Base(g.PkgPath())
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	if t.names[name] == "" {
		t.names[name] = whose // before its members, which may have it among theirs
		t.schemas[name] = t.members(g)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (t *types) members(g reflect.Type) object {
	properties, required := object{}, []string{}
	for _, f := range reflect.VisibleFields(g) {
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || key == "-" || f.Anonymous && key == "" {
			continue // what an embedded struct has is visible by itself
		}
		if key == "" {
			key = f.Name
		}
		if properties[key] != nil {
			continue // hidden by the one before
		}
		s := t.schema(f.Type)
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		if f.Type.Kind() == reflect.Pointer && !optional {
			s = nullable(s)
		}
		about := t.about[owner(g, f)+"."+f.Name]
		if about != "" {
			s = described(s, about)
		}
		properties[key] = s
		if !optional {
			required = append(required, key)
		}
	}
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	if about := t.about[g.Name()]; about != "" {
		out["description"] = about
	}
	return out
}

// owner is the name of the struct that a field is declared in, which may be
// embedded.
func owner(g reflect.Type, f reflect.StructField) string {
	for _, i := range f.Index[:len(f.Index)-1] {
		g = g.Field(i).Type
		if g.Kind() == reflect.Pointer {
			g = g.Elem()
		}
	}
	return g.Name()
}

// A reference may have nothing beside it, so more is said around it.
func around(s object) object {
	if s["$ref"] == nil {
		return s
	}
	return object{"allOf": []object{s}}
}

func described(s object, about string) object {
	s = around(s)
	s["description"] = about
	return s
}

func nullable(s object) object {
	s = around(s)
	s["nullable"] = true
	return s
}

// comments are those of the types and of their fields in Go files: by Type, and
// by Type.Field.
func comments(source fs.FS) (map[string]string, error) {
	out := map[string]string{}
	if source == nil {
		return out, nil
	}
	files, err := fs.Glob(source, "*.go")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		text, err := fs.ReadFile(source, name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the comments of %s: %w", name, err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("cannot read the comments of %s: %w", name, err)
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
				for _, s := range g.Specs {
					ofType(out, g, s.(*ast.TypeSpec))
				}
			}
		}
	}
	return out, nil
}

// ofType adds the comments of a type.
func ofType(out map[string]string, g *ast.GenDecl, s *ast.TypeSpec) {
	doc := s.Doc
	if doc == nil {
		doc = g.Doc
	}
	out[s.Name.Name] = words(doc)
	fields, ok := s.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range fields.Fields.List {
		about := strings.TrimSpace(words(f.Doc) + " " + words(f.Comment))
		for _, n := range f.Names {
			out[s.Name.Name+"."+n.Name] = about
		}
	}
}

// words is a comment as one line.
func words(c *ast.CommentGroup) string {
	if c == nil {
		return ""
	}
	return strings.Join(strings.Fields(c.Text()), " ")
}
