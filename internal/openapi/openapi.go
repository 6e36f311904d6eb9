// Package openapi describes HTTP APIs in the words of the OpenAPI Specification,
// version 3.0.3 (https://spec.openapis.org/oas/v3.0.3).
//
// What is sent and answered is told by Go types: schemas are made from them as
// encoding/json sees them, and the comments of their source are the descriptions.
// So a document says what the program does, and a test can hold it against the
// program's routes.
package openapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// JSON is the media type of what is sent and answered where nothing else is said.
const JSON = "application/json"

// A Service is an API.
type Service struct {
	Title, Version string
	About          string // Markdown
	Error          any    // a value of the type that errors have
	ErrorType      string // media type of errors; empty: JSON
	Operations     []Operation
	// Source holds the Go files that the types are declared in, for their comments;
	// nil: there are none to show.
	Source fs.FS
}

// An Operation is a method of a path.
type Operation struct {
	Method, Path string // the path as net/http's patterns have it: /machines/{id}
	About        string // what it does, in a few words
	Query        []Parameter
	Body         any    // a value of the type that is sent; nil: nothing
	BodyType     string // its media type; empty: JSON
	Answer       any    // a value of the type that is answered; nil: nothing
	AnswerType   string // its media type; empty: JSON
	Status       int    // of success; 0: 200, or 204 without an answer
}

// A Parameter is a part of a query.
type Parameter struct {
	Name  string
	About string
	Type  any // a value of its type
}

// An object keeps its members in order when it is written: maps do, by name.
type object = map[string]any

// inPath are the names in braces of a path.
var inPath = regexp.MustCompile(`\{(\w+)\}`)

// Document is the description as JSON, the same for the same service.
func (s Service) Document() (json.RawMessage, error) {
	about, err := comments(s.Source)
	if err != nil {
		return nil, err
	}
	t := &types{about: about, schemas: object{}, names: map[string]string{}}
	paths := object{}
	for _, o := range s.Operations {
		item, _ := paths[o.Path].(object)
		if item == nil {
			item = object{}
			paths[o.Path] = item
		}
		method := strings.ToLower(o.Method)
		if item[method] != nil {
			return nil, fmt.Errorf("cannot describe %s %s: it is there twice", o.Method, o.Path)
		}
		item[method] = s.operation(t, o)
	}
	return json.Marshal(object{
		"openapi":    "3.0.3",
		"info":       object{"title": s.Title, "version": cmp.Or(s.Version, "unknown"), "description": s.About},
		"paths":      paths,
		"components": object{"schemas": t.schemas},
	})
}

func (s Service) operation(t *types, o Operation) object {
	out := object{"summary": o.About, "operationId": name(o), "tags": []string{tag(o.Path)}}
	var parameters []object
	for _, m := range inPath.FindAllStringSubmatch(o.Path, -1) {
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range o.Query {
		parameters = append(parameters, object{"name": p.Name, "in": "query", "description": p.About, "schema": t.of(p.Type)})
	}
	if parameters != nil {
		out["parameters"] = parameters
	}
	if o.Body != nil {
		out["requestBody"] = object{"required": true, "content": object{cmp.Or(o.BodyType, JSON): object{"schema": t.of(o.Body)}}}
	}
	status, answer := cmp.Or(o.Status, 200), object{"description": "done"}
	if o.Answer != nil {
		answer["content"] = object{cmp.Or(o.AnswerType, JSON): object{"schema": t.of(o.Answer)}}
	} else {
		status = cmp.Or(o.Status, 204)
	}
	out["responses"] = object{
		fmt.Sprint(status): answer,
		"default":          object{"description": "an error", "content": object{cmp.Or(s.ErrorType, JSON): object{"schema": t.of(s.Error)}}},
	}
	return out
}

// name is what generated clients call an operation: getMachinesIdBoots.
func name(o Operation) string {
	var out strings.Builder
	out.WriteString(strings.ToLower(o.Method))
	for _, word := range regexp.MustCompile(`[A-Za-z0-9]+`).FindAllString(o.Path, -1) {
		out.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return out.String()
}

// tag is the first word of a path that is no version: machines.
func tag(path string) string {
	words := strings.Split(strings.Trim(path, "/"), "/")
	if len(words) > 1 && regexp.MustCompile(`^v\d+$`).MatchString(words[0]) {
		words = words[1:]
	}
	return words[0]
}
