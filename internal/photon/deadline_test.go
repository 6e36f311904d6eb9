package photon_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/photon"
)

// timed is an answer that notes how long it may take.
type timed struct {
	*httptest.ResponseRecorder
	did []string
}

func (w *timed) note(what string, t time.Time) error {
	if t.IsZero() {
		what += " for ever"
	}
	w.did = append(w.did, what)
	return nil
}

func (w *timed) SetReadDeadline(t time.Time) error  { return w.note("read", t) }
func (w *timed) SetWriteDeadline(t time.Time) error { return w.note("write", t) }
func (w *timed) Flush()                             { w.did = append(w.did, "sent") }

// A time limit ends with what it is for: the connection is used for other things.
func TestDeadlines(t *testing.T) {
	var c photon.Config
	start(t, func(x *photon.Config) { c = *x })
	w := &timed{ResponseRecorder: httptest.NewRecorder()}
	photon.New(c).ServeHTTP(w, httptest.NewRequest("POST", "/tenants", strings.NewReader(`{"name": "acme"}`)))
	if w.Code != 201 {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	if d := cmp.Diff([]string{"read", "read for ever", "write", "sent", "write for ever"}, w.did); d != "" {
		t.Error(d)
	}
}
