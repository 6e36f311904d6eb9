package photon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
	"bootd/internal/store"
)

const (
	// maxBody bounds what a request may carry, in bytes, but for files.
	maxBody = 1 << 20
	// patience is how long a client may take to send that.
	patience = 30 * time.Second
)

// body reads the JSON of a request. Members that are not known are ignored.
func body[T any](c *call) (v T, err error) {
	// A listener that cannot limit the time has clients that it trusts.
	rc := http.NewResponseController(c.w)
	_ = rc.SetReadDeadline(time.Now().Add(patience))
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }() // what is waited for next may take longer
	b, err := io.ReadAll(http.MaxBytesReader(c.w, c.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return v, badJSON(fmt.Sprintf("it is larger than %d bytes", maxBody))
	} else if err != nil {
		return v, badJSON("it did not arrive as a whole")
	}
	if len(b) == 0 {
		return v, badJSON("there is none")
	}
	if err := json.Unmarshal(b, &v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return v, badJSON(fmt.Sprintf("%s cannot be a %s", wrong.Field, wrong.Value))
		}
		return v, badJSON(err.Error())
	}
	return v, nil
}

func badJSON(why string) *fleet.Error {
	return fleet.Errorf(fleet.InvalidJSON, "The supplied JSON could not be parsed: %s", why)
}

// oneOf is the error for a word that is none of those that there are.
func oneOf[T ~string](path, value string, words ...T) *fleet.Error {
	var all []string
	for _, w := range words {
		all = append(all, string(w))
	}
	return badJSON(fmt.Sprintf("%s %q was not one of [%s]", path, value, strings.Join(all, ", ")))
}

// send writes an answer.
func (s *server) send(c *call, r reply) {
	b, err := json.Marshal(r.body)
	if err != nil {
		c.log.Error("cannot encode an answer", "err", err)
		r.status, b = http.StatusInternalServerError, []byte(`{"code":"InternalError","message":"bootd cannot encode its answer; its log says why","data":{}}`)
	}
	b = append(b, '\n')
	rc := http.NewResponseController(c.w)
	_ = rc.SetWriteDeadline(time.Now().Add(patience)) // see body
	c.w.Header().Set("Content-Type", "application/json")
	c.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	c.w.WriteHeader(r.status)
	_, _ = c.w.Write(b) // a caller that is gone needs nothing
	// The connection is kept, and the next answer on it may be one that takes hours.
	_ = rc.Flush()
	_ = rc.SetWriteDeadline(time.Time{})
}

// fail sends an error. One that is not for clients is logged; they are told where
// to look for it.
func (s *server) fail(c *call, err error) {
	var e *fleet.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, store.ErrConflict):
		e = fleet.Errorf(fleet.TooManyRequests, "Too many others are changing the same thing; try again")
	default:
		if c.Context().Err() == nil {
			c.log.Error("request failed", "method", c.Method, "path", c.URL.Path, "err", err)
		}
		e = fleet.Errorf(fleet.InternalError, "Request #%s failed due to an internal error; the log of bootd says which under this number", c.id)
	}
	if e.Code == fleet.MissingAuthToken || e.Code == fleet.InvalidAuthToken || e.Code == fleet.ExpiredAuthToken {
		c.w.Header().Set("WWW-Authenticate", "Bearer")
	}
	s.send(c, reply{e.Code.Status(), errorOf(*e)})
}

func errorOf(e fleet.Error) wire.Error {
	out := wire.Error{Code: string(e.Code), Message: e.Message, Data: e.Data}
	if out.Data == nil {
		out.Data = map[string]string{}
	}
	return out
}

// some keeps a list of which a part could not be read: that is logged, and must
// not hide the rest.
func some[T any](c *call, list []T, err error) ([]T, error) {
	if err != nil && list != nil {
		c.log.Error("records are left out of an answer", "path", c.URL.Path, "err", err)
		return list, nil
	}
	return list, err
}

// millis is a moment as clients have it; 0 for none.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// listed is v, or the empty list in the place of null.
func listed[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}
