// Package openapitest holds HTTP APIs against their documents in tests: the
// document is valid OpenAPI, and what the server really answers is as it says.
package openapitest

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// A Document is what an API says of itself.
type Document struct {
	doc *openapi3.T
}

// Load reads a document and checks it.
func Load(t testing.TB, text []byte) *Document {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatalf("the document cannot be read: %v", err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatalf("the document is not valid: %v", err)
	}
	// A client has to bear members that it does not know; here each is a mistake.
	nothing := false
	for _, s := range doc.Components.Schemas {
		if s.Value.Type.Is("object") && s.Value.Properties != nil {
			s.Value.AdditionalProperties = openapi3.AdditionalProperties{Has: &nothing}
		}
	}
	return &Document{doc}
}

// Operations are the methods and paths that are described, as GET /machines/{id},
// in order.
func (d *Document) Operations() []string {
	var out []string
	for path, item := range d.doc.Paths.Map() {
		for method := range item.Operations() {
			out = append(out, method+" "+path)
		}
	}
	slices.Sort(out)
	return out
}

// Answer checks what a server has answered to a request. Paths that are not
// described are left out, since nothing is there, but for the error.
func (d *Document) Answer(t testing.TB, method, target string, status int, header http.Header, body []byte) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		return
	}
	item := d.find(u.EscapedPath())
	if method == http.MethodHead || item == nil || item.GetOperation(method) == nil {
		return // net/http leaves the body out; there is no such path or method
	}
	o := item.GetOperation(method)
	response := o.Responses.Status(status)
	if response == nil {
		if status < 400 {
			t.Errorf("%s %s answers %d, which its document does not say", method, target, status)
			return
		}
		response = o.Responses.Default()
	}
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type")) // none: nothing is sent
	content := response.Value.Content
	if len(content) == 0 {
		if len(body) > 0 {
			t.Errorf("%s %s answers %q, and nothing by its document", method, target, body)
		}
		return
	}
	media := content[kind]
	if media == nil {
		t.Errorf("%s %s answers %d with %q, which its document does not say", method, target, status, kind)
		return
	}
	if !strings.HasSuffix(kind, "json") {
		return
	}
	var v any
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&v); err != nil {
		t.Errorf("%s %s answers no JSON: %v", method, target, err)
		return
	}
	if err := media.Schema.Value.VisitJSON(v, openapi3.MultiErrors()); err != nil {
		t.Errorf("%s %s answers %s\nwhich is not as its document says: %v", method, target, body, err)
	}
}

// find is the described path that one is; words go before parameters.
func (d *Document) find(path string) *openapi3.PathItem {
	words := strings.Split(strings.Trim(path, "/"), "/")
	var best *openapi3.PathItem
	least := len(words) + 1
	for pattern, item := range d.doc.Paths.Map() {
		names := strings.Split(strings.Trim(pattern, "/"), "/")
		parameters, same := 0, len(names) == len(words)
		for i := 0; same && i < len(names); i++ {
			if strings.HasPrefix(names[i], "{") {
				parameters++
			} else {
				same = names[i] == words[i]
			}
		}
		if same && parameters < least {
			best, least = item, parameters
		}
	}
	return best
}
