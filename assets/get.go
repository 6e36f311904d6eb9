package assets

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// A getter makes HTTP requests, and tries again where that may help.
type getter struct {
	client *http.Client
	limits Limits
}

// newClient returns a client for large downloads. Proxies are taken from the
// environment, as net/http does.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 15 * time.Second,
		ForceAttemptHTTP2:   true,
		IdleConnTimeout:     30 * time.Second,
		// Files are kept as they are: .gz is not to be unpacked on the way.
		DisableCompression: true,
	}}
}

// A statusError is an answer other than the one hoped for.
type statusError struct {
	method, url, status string
	code                int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s %s: the server answered %s", e.method, e.url, e.status)
}

func badStatus(resp *http.Response) error {
	return &statusError{resp.Request.Method, resp.Request.URL.Redacted(), resp.Status, resp.StatusCode}
}

// isMissing reports whether a server said that it has no such file. Object
// stores that do not show their lists answer 403 then.
func isMissing(err error) bool {
	var s *statusError
	return errors.As(err, &s) && slices.Contains([]int{http.StatusNotFound, http.StatusGone, http.StatusForbidden}, s.code)
}

func isUnknownHost(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}

// A finalError would be the same at the next attempt.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// mayPass reports whether another attempt may succeed.
func mayPass(err error) bool {
	var (
		final  finalError
		status *statusError
		cert   *tls.CertificateVerificationError
		ca     x509.UnknownAuthorityError
	)
	switch {
	case errors.As(err, &final), errors.As(err, &cert), errors.As(err, &ca), isUnknownHost(err):
		return false
	case errors.As(err, &status):
		return status.code >= 500 && status.code != http.StatusNotImplemented ||
			status.code == http.StatusTooManyRequests || status.code == http.StatusRequestTimeout
	}
	return true
}

// retry calls attempt until it succeeds, fails for good, or has failed
// limits.Tries times in a row without getting ahead. attempt returns how many
// bytes it brought.
func (g *getter) retry(ctx context.Context, tell func(error, time.Duration), attempt func() (int64, error)) error {
	failed := 0
	for {
		n, err := attempt()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		failed++
		if n >= 1<<20 {
			failed = 1
		}
		if !mayPass(err) {
			return err
		}
		if failed >= g.limits.Tries {
			return fmt.Errorf("%w (%d attempts)", err, failed)
		}
		wait := min(g.limits.Backoff<<(failed-1), time.Minute)
		wait += rand.N(wait/4 + 1) // so that a rack of servers does not come back as one
		if tell != nil {
			tell(err, wait)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// do makes one request. The body that it returns fails when the server is
// silent for too long, as the request itself does.
func (g *getter) do(ctx context.Context, method, addr string, header http.Header) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, method, addr, nil)
	if err != nil {
		cancel(nil)
		return nil, finalError{err}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "bootd")
	silent := fmt.Errorf("%s %s: the server was silent for %v", method, req.URL.Redacted(), g.limits.Idle)
	w := &watched{cancel: cancel, idle: g.limits.Idle, ctx: ctx}
	w.timer = time.AfterFunc(w.idle, func() { cancel(silent) })
	resp, err := g.client.Do(req)
	if err != nil {
		w.stop()
		if cause := context.Cause(ctx); cause == silent {
			return nil, silent
		}
		return nil, explain(err)
	}
	w.body = resp.Body
	resp.Body = w
	return resp, nil
}

// explain adds a remedy to errors that an isolated machine meets.
func explain(err error) error {
	var op *net.OpError
	var proto *url.Error
	switch {
	case isUnknownHost(err), errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("%w; without a way to the Internet, set the proxy in the environment, name a mirror, or copy the files here and import them", err)
	case errors.As(err, &proto) && proto.Err != nil && proto.Timeout():
		return fmt.Errorf("%w; is a proxy or a mirror needed?", err)
	}
	return err
}

// watched is a body whose request ends when nothing is read for too long.
type watched struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration
	once   sync.Once
}

func (w *watched) Read(b []byte) (int, error) {
	w.timer.Reset(w.idle)
	n, err := w.body.Read(b)
	if err != nil && err != io.EOF && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

func (w *watched) stop() {
	w.once.Do(func() {
		w.timer.Stop()
		w.cancel(context.Canceled)
	})
}

func (w *watched) Close() error {
	w.stop()
	return w.body.Close()
}

// small gets a file of at most limit bytes.
func (g *getter) small(ctx context.Context, addr string, limit int64) ([]byte, error) {
	var text []byte
	err := g.retry(ctx, nil, func() (int64, error) {
		resp, err := g.do(ctx, http.MethodGet, addr, nil)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return 0, badStatus(resp)
		}
		text, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
		if err != nil {
			return 0, fmt.Errorf("GET %s: %w", resp.Request.URL.Redacted(), err)
		}
		if int64(len(text)) > limit {
			return 0, finalError{fmt.Errorf("GET %s: it is larger than %d bytes and so not what it should be", resp.Request.URL.Redacted(), limit)}
		}
		return 0, nil
	})
	return text, err
}

// size asks for the size of a file: -1 when the server does not say, as some
// do not for HEAD.
func (g *getter) size(ctx context.Context, addr string) (int64, error) {
	n := int64(-1)
	err := g.retry(ctx, nil, func() (int64, error) {
		resp, err := g.do(ctx, http.MethodHead, addr, nil)
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusOK:
			n = resp.ContentLength
		case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		default:
			return 0, badStatus(resp)
		}
		return 0, nil
	})
	return n, err
}
