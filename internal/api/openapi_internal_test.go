package api

import (
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/openapi/openapitest"
)

// TestEveryRouteIsDescribed: the document has what the server has, and nothing
// else.
func TestEveryRouteIsDescribed(t *testing.T) {
	text, err := Document("1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{http.MethodGet + " " + eventsPath} // a stream, beside the others
	for path, methods := range (&api{}).routes() {
		for method := range methods {
			want = append(want, method+" "+path)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, openapitest.Load(t, text).Operations()); diff != "" {
		t.Error(diff)
	}
}
