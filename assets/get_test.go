package assets

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// answers is the other side of a getter: it takes as long as it likes, in
// synctest's time.
type answers func(n int, r *http.Request) (*http.Response, error)

type transport struct {
	n      int
	answer answers
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.n++
	resp, err := t.answer(t.n, r)
	if resp != nil {
		resp.Request = r
		resp.Status = http.StatusText(resp.StatusCode)
	}
	return resp, err
}

func getterOf(a answers) (*getter, *transport) {
	t := &transport{answer: a}
	return &getter{&http.Client{Transport: t}, Limits{Tries: 5, Backoff: time.Second, Idle: time.Minute}}, t
}

func status(code int, body io.Reader) *http.Response {
	return &http.Response{StatusCode: code, Body: io.NopCloser(body)}
}

// TestRetry checks what is tried again, how often, and how long it takes.
func TestRetry(t *testing.T) {
	tests := []struct {
		name     string
		answer   answers
		requests int
		min, max time.Duration // of the whole
		says     string        // empty: it succeeds
	}{
		{"at once", func(int, *http.Request) (*http.Response, error) {
			return status(200, strings.NewReader("ok")), nil
		}, 1, 0, 0, ""},
		{"trouble twice", func(n int, _ *http.Request) (*http.Response, error) {
			if n <= 2 {
				return status(503, http.NoBody), nil
			}
			return status(200, strings.NewReader("ok")), nil
		}, 3, 3 * time.Second, 4 * time.Second, ""},
		{"trouble for ever", func(int, *http.Request) (*http.Response, error) {
			return status(502, http.NoBody), nil
		}, 5, 15 * time.Second, 19 * time.Second, "(5 attempts)"},
		{"too many requests", func(n int, _ *http.Request) (*http.Response, error) {
			if n == 1 {
				return status(429, http.NoBody), nil
			}
			return status(200, strings.NewReader("ok")), nil
		}, 2, time.Second, 2 * time.Second, ""},
		{"not found", func(int, *http.Request) (*http.Response, error) {
			return status(404, http.NoBody), nil
		}, 1, 0, 0, "Not Found"},
		{"no such host", func(int, *http.Request) (*http.Response, error) {
			return nil, &net.DNSError{Name: "x", Err: "no such host", IsNotFound: true}
		}, 1, 0, 0, "mirror"},
		{"dial timeout", func(n int, _ *http.Request) (*http.Response, error) {
			if n == 1 {
				return nil, &net.OpError{Op: "dial", Err: context.DeadlineExceeded}
			}
			return status(200, strings.NewReader("ok")), nil
		}, 2, time.Second, 2 * time.Second, ""},
		{"bad certificate", func(int, *http.Request) (*http.Response, error) {
			return nil, &tls.CertificateVerificationError{Err: errors.New("expired")}
		}, 1, 0, 0, "expired"},
		{"no answer", func(n int, r *http.Request) (*http.Response, error) {
			if n > 1 {
				return status(200, strings.NewReader("ok")), nil
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, 2, time.Minute + time.Second, time.Minute + 2*time.Second, ""},
		{"too much", func(int, *http.Request) (*http.Response, error) {
			return status(200, bytes.NewReader(make([]byte, 101))), nil
		}, 1, 0, 0, "larger than 100 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, tr := getterOf(tt.answer)
				start := time.Now()
				text, err := g.small(t.Context(), "http://h/x", 100)
				took := time.Since(start)
				if tt.says == "" && (err != nil || string(text) != "ok") {
					t.Errorf("got %q, %v", text, err)
				}
				if tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
					t.Errorf("error %v, want one with %q", err, tt.says)
				}
				if tr.n != tt.requests || took < tt.min || took > tt.max {
					t.Errorf("%d requests in %v", tr.n, took)
				}
			})
		})
	}
}

// TestRetryWhileItGoesOn fails more often than Tries, but gets ahead each time.
func TestRetryWhileItGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := getterOf(nil)
		n := 0
		err := g.retry(t.Context(), nil, func() (int64, error) {
			n++
			if n < 20 {
				return 1 << 20, errors.New("cut")
			}
			return 0, nil
		})
		if err != nil || n != 20 {
			t.Errorf("%d attempts, %v", n, err)
		}
	})
}

// TestSlowIsNotSilent reads from a server that says a little every 50 seconds,
// for ten minutes, with a limit of one minute of silence; and then from one that
// falls silent.
func TestSlowIsNotSilent(t *testing.T) {
	for _, silent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r, w := io.Pipe()
			go func() {
				for range 12 {
					time.Sleep(50 * time.Second)
					_, _ = w.Write([]byte("x"))
				}
				if !silent {
					w.Close()
				}
			}()
			g, _ := getterOf(func(_ int, req *http.Request) (*http.Response, error) {
				context.AfterFunc(req.Context(), func() { r.CloseWithError(req.Context().Err()) })
				return status(200, r), nil
			})
			resp, err := g.do(t.Context(), "GET", "http://h/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if len(text) != 12 {
				t.Errorf("got %q", text)
			}
			if !silent && err != nil {
				t.Errorf("the slow server: %v", err)
			}
			if silent && (err == nil || !strings.Contains(err.Error(), "silent for 1m0s") || !mayPass(err)) {
				t.Errorf("the silent server: %v", err)
			}
		})
	}
}

// TestCancel ends a fetch during the wait before an attempt.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		g, tr := getterOf(func(int, *http.Request) (*http.Response, error) { return status(503, http.NoBody), nil })
		start := time.Now()
		_, err := g.small(ctx, "http://h/x", 100)
		if !errors.Is(err, context.DeadlineExceeded) || tr.n != 2 || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("%v after %d requests in %v", err, tr.n, time.Since(start))
		}
	})
}
