package openapi_test

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/openapi"
	"bootd/internal/openapi/openapitest"
)

type Inner struct {
	Addr  netip.Addr      `json:"addr"`
	Count json.Number     `json:"count"`
	Raw   json.RawMessage `json:"raw,omitempty"`
}

type Thing struct {
	Inner
	Name   string            `json:"name"` // what it is called
	At     time.Time         `json:"at,omitzero"`
	Next   *Thing            `json:"next,omitempty"`
	Parent *Inner            `json:"parent"` // null: none
	Labels map[string]string `json:"labels"`
	Parts  []Inner           `json:"parts"`
	Took   time.Duration     `json:"took"`
	Key    []byte            `json:"key"`
	Size   uint16            `json:"size"`
	Hidden string            `json:"-"`
	Plain  bool
}

type page[T any] struct {
	Items []T `json:"items"`
}

func service() openapi.Service {
	const source = `package x
// A Thing is what there is.
type Thing struct {
	Name string // what it is called
	// Parent is above it.
	Parent *Inner // null: none
}
type (
	// An Inner is within.
	Inner struct{ Addr, Count int } // of all
)
`
	return openapi.Service{
		Title: "test", Version: "1", About: "a test", Error: struct {
			Why string `json:"why"`
		}{}, ErrorType: "application/problem+json",
		Source: fstest.MapFS{"x.go": {Data: []byte(source)}},
		Operations: []openapi.Operation{
			{Method: "GET", Path: "/v1/things/{id}", About: "a thing", Answer: Thing{}},
			{Method: "DELETE", Path: "/v1/things/{id}", About: "remove a thing"},
			{Method: "GET", Path: "/v1/things/all", About: "all", Answer: page[Thing]{}, Query: []openapi.Parameter{{Name: "n", About: "how many", Type: 0}}},
			{Method: "POST", Path: "/v1/things", About: "make a thing", Body: Inner{}, Answer: "", AnswerType: "text/plain", Status: 201},
		},
	}
}

func TestDocument(t *testing.T) {
	text, err := service().Document()
	if err != nil {
		t.Fatal(err)
	}
	d := openapitest.Load(t, text)
	if diff := cmp.Diff([]string{"DELETE /v1/things/{id}", "GET /v1/things/all", "GET /v1/things/{id}", "POST /v1/things"}, d.Operations()); diff != "" {
		t.Error(diff)
	}
	var got struct {
		Components struct {
			Schemas map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	type object = map[string]any
	ref := object{"$ref": "#/components/schemas/Inner"}
	want := object{
		"Inner": object{"type": "object", "description": "An Inner is within.", "required": []any{"addr", "count"}, "properties": object{
			"addr": object{"type": "string"}, "count": object{"type": "number"}, "raw": object{}}},
		"Thing": object{"type": "object", "description": "A Thing is what there is.",
			"required": []any{"addr", "count", "name", "parent", "labels", "parts", "took", "key", "size", "Plain"},
			"properties": object{
				"addr": object{"type": "string"}, "count": object{"type": "number"}, "raw": object{},
				"name": object{"type": "string", "description": "what it is called"}, "at": object{"type": "string", "format": "date-time"},
				"next":   object{"$ref": "#/components/schemas/Thing"},
				"parent": object{"allOf": []any{ref}, "nullable": true, "description": "Parent is above it. null: none"},
				"labels": object{"type": "object", "additionalProperties": object{"type": "string"}},
				"parts":  object{"type": "array", "items": ref}, "took": object{"type": "integer"},
				"key": object{"type": "string", "format": "byte"}, "size": object{"type": "integer", "minimum": 0.0}, "Plain": object{"type": "boolean"},
			}},
	}
	if diff := cmp.Diff(want, got.Components.Schemas); diff != "" {
		t.Error(diff)
	}
}

func TestMistakes(t *testing.T) {
	s := service()
	s.Operations = append(s.Operations, s.Operations[0])
	if _, err := s.Document(); err == nil || !strings.Contains(err.Error(), "GET /v1/things/{id}: it is there twice") {
		t.Errorf("error %v", err)
	}
	s = service()
	s.Source = fstest.MapFS{"x.go": {Data: []byte("no Go")}}
	if _, err := s.Document(); err == nil || !strings.Contains(err.Error(), "x.go") {
		t.Errorf("error %v", err)
	}
}

// A recorder notes what a test would have failed with.
type recorder struct {
	testing.TB
	failed int
}

func (r *recorder) Errorf(string, ...any) { r.failed++ }
func (r *recorder) Helper()               {}

// TestAnswers: the checker finds what is wrong.
func TestAnswers(t *testing.T) {
	text, err := service().Document()
	if err != nil {
		t.Fatal(err)
	}
	d := openapitest.Load(t, text)
	const inner = `"addr":"10.0.0.1","count":1`
	const thing = `{` + inner + `,"name":"a","parent":null,"labels":{"x":"y"},"parts":[{` + inner + `}],"took":1,"key":"AA==","size":1,"Plain":true}`
	const asJSON, problem = "application/json", "application/problem+json; charset=utf-8"
	for _, c := range []struct {
		name, method, target string
		status               int
		kind, body           string
		good                 bool
	}{
		{"as it is", "GET", "/v1/things/1", 200, asJSON, thing, true},
		{"a list", "GET", "/v1/things/all?n=1", 200, asJSON, `{"items":[` + thing + `]}`, true},
		{"null for a list", "GET", "/v1/things/all", 200, asJSON, `{"items":null}`, false},
		{"something more", "GET", "/v1/things/1", 200, asJSON, strings.Replace(thing, `"took"`, `"other":1,"took"`, 1), false},
		{"something less", "GET", "/v1/things/1", 200, asJSON, strings.Replace(thing, `"took":1,`, ``, 1), false},
		{"something else", "GET", "/v1/things/1", 200, asJSON, strings.Replace(thing, `"took":1`, `"took":"1s"`, 1), false},
		{"another status", "GET", "/v1/things/1", 202, asJSON, thing, false},
		{"another type", "GET", "/v1/things/1", 200, "text/html", thing, false},
		{"broken", "GET", "/v1/things/1", 200, asJSON, thing[:20], false},
		{"an error", "GET", "/v1/things/1", 404, problem, `{"why":"no"}`, true},
		{"an error of another kind", "GET", "/v1/things/1", 404, problem, `{"reason":"no"}`, false},
		{"nothing", "DELETE", "/v1/things/1", 204, "", "", true},
		{"something for nothing", "DELETE", "/v1/things/1", 204, asJSON, thing, false},
		{"a text", "POST", "/v1/things", 201, "text/plain", "made", true},
		{"nowhere", "GET", "/elsewhere", 200, asJSON, "{}", true},
	} {
		r := &recorder{TB: t}
		d.Answer(r, c.method, c.target, c.status, http.Header{"Content-Type": {c.kind}}, []byte(c.body))
		if (r.failed == 0) != c.good {
			t.Errorf("%s: %d mistakes", c.name, r.failed)
		}
	}
}
