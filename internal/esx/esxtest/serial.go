package esxtest

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

// serve has the simulator answer a call. With [Options.Serial] it answers one at a
// time, each with the tasks that it begins: the simulator reads objects for one who
// waits for changes while tasks change them.
func (f *front) serve(r *http.Request, body []byte, method string) *recorder {
	if !f.h.options.Serial {
		return f.answer(r, body)
	}
	if method == "WaitForUpdatesEx" {
		return f.poll(r, body)
	}
	f.turn.Lock()
	defer f.turn.Unlock()
	rec := f.answer(r, body)
	f.h.settle()
	return rec
}

func (f *front) answer(r *http.Request, body []byte) *recorder {
	r2 := r.Clone(r.Context())
	r2.Body = io.NopCloser(bytes.NewReader(body))
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	f.h.model.Service.ServeMux.ServeHTTP(rec, r2)
	return rec
}

var maxWait = regexp.MustCompile(`<maxWaitSeconds>(\d+)</maxWaitSeconds>`)

// poll waits for changes by asking now and then whether there are any.
func (f *front) poll(r *http.Request, body []byte) *recorder {
	end := time.Now()
	if m := maxWait.FindSubmatch(body); m != nil {
		if n, err := strconv.Atoi(string(m[1])); err == nil {
			end = end.Add(time.Duration(n) * time.Second)
		}
		body = maxWait.ReplaceAll(body, []byte("<maxWaitSeconds>0</maxWaitSeconds>"))
	}
	for {
		f.turn.Lock()
		rec := f.answer(r, body)
		f.turn.Unlock()
		if rec.status != http.StatusOK || bytes.Contains(rec.body.Bytes(), []byte("<returnval")) || time.Now().After(end) || r.Context().Err() != nil {
			return rec
		}
		select {
		case <-r.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}
