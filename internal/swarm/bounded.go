package swarm

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// How much of an engine's answers is read. A node takes 3 kB and some thirty
// objects, most of them plugins of its engine, and a task about as much; so ten
// thousand nodes, and thirty thousand tasks, are below both. Objects are counted
// because an empty one takes two bytes there and some hundreds here.
const (
	maxAnswer  = 256 << 20
	maxObjects = 1 << 20
	maxEvent   = 1 << 20  // of one in the stream of events
	maxError   = 16 << 10 // of an answer that says what went wrong
)

// bounded keeps an engine that is not what it should be from filling the memory
// with its answers, which Docker's client reads whole.
type bounded struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body := &boundedBody{ReadCloser: resp.Body, most: maxAnswer}
	switch {
	case resp.StatusCode >= http.StatusBadRequest:
		body.most = maxError
	case strings.HasSuffix(r.URL.Path, "/events"):
		body.most, body.lines = maxEvent, true
	}
	resp.Body = body
	return resp, nil
}

// boundedBody is JSON, or a stream of lines of it.
type boundedBody struct {
	io.ReadCloser
	most    int
	lines   bool // count for each line anew
	seen    int
	objects int
	quoted  bool // within a string
	escaped bool // behind a backslash in a string
}

// Read implements [io.Reader].
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	got := p[:n]
	if b.lines {
		if i := bytes.LastIndexByte(got, '\n'); i >= 0 {
			b.seen, b.objects, b.quoted, b.escaped = 0, 0, false, false
			got = got[i+1:]
		}
	}
	b.seen += len(got)
	b.count(got)
	switch {
	case b.seen > b.most:
		return 0, fmt.Errorf("the answer is longer than %d bytes, which is more than is read of an engine", b.most)
	case b.objects > maxObjects:
		return 0, fmt.Errorf("the answer holds more than %d objects, which is more than is read of an engine", maxObjects)
	}
	return n, err
}

// count counts what becomes a value of some size when it is decoded: objects,
// and the nulls that may stand for them.
func (b *boundedBody) count(p []byte) {
	for _, c := range p {
		switch {
		case b.escaped:
			b.escaped = false
		case b.quoted && c == '\\':
			b.escaped = true
		case c == '"':
			b.quoted = !b.quoted
		case !b.quoted && (c == '{' || c == 'n'):
			b.objects++
		}
	}
}
