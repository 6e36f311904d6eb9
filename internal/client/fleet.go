package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"time"

	"bootd/internal/photon/wire"
)

// A Fleet talks to the controller of a bootd, in Photon Controller's words. Its
// errors are [wire.Error], or wrap [ErrUnreachable].
type Fleet struct{ client *Client }

// Fleet returns the controller's side of a client.
func (c *Client) Fleet() Fleet { return Fleet{c} }

// FleetGet fetches what is at a path.
func FleetGet[T any](ctx context.Context, f Fleet, path string) (v T, err error) {
	err = f.do(ctx, http.MethodGet, path, nil, &v)
	return v, err
}

// FleetList fetches all pages of the list at a path. Query is name, value and so
// on; empty values are left out.
func FleetList[T any](ctx context.Context, f Fleet, path string, query ...string) ([]T, error) {
	out := []T{}
	for next := path + params(query...); ; {
		page, err := FleetGet[wire.List[T]](ctx, f, next)
		if err != nil {
			return nil, err
		}
		out = append(out, page.Items...)
		if page.NextPageLink == nil || *page.NextPageLink == "" {
			return out, nil
		}
		next = *page.NextPageLink
	}
}

// Do creates an entity in the list at a path, or does what the last part of the
// path says; in may be nil. It returns the task that carries it out, which may
// have ended already.
func (f Fleet) Do(ctx context.Context, path string, in any) (wire.Task, error) {
	return f.change(ctx, http.MethodPost, path, in)
}

// Delete removes what is at a path, as Do does things.
func (f Fleet) Delete(ctx context.Context, path string) (wire.Task, error) {
	return f.change(ctx, http.MethodDelete, path, nil)
}

// Upload makes an image of a VMDK or an OVA that is read from r. It is called name;
// replication is EAGER or ON_DEMAND.
func (f Fleet) Upload(ctx context.Context, name, replication string, r io.Reader) (t wire.Task, err error) {
	in, out := io.Pipe()
	form := multipart.NewWriter(out)
	go func() {
		err := form.WriteField("ImageReplication", replication)
		if err == nil {
			var file io.Writer
			if file, err = form.CreateFormFile("file", name); err == nil {
				_, err = io.Copy(file, r)
			}
		}
		if err == nil {
			err = form.Close()
		}
		out.CloseWithError(err) // nil: the end
	}()
	// The writer above ends when nobody reads any more.
	defer in.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://bootd/images", in)
	if err != nil {
		return t, fmt.Errorf("cannot make a request to bootd: %w", err)
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	err = f.send(req, &t)
	return t, err
}

func (f Fleet) change(ctx context.Context, method, path string, in any) (t wire.Task, err error) {
	err = f.do(ctx, method, path, in, &t)
	return t, err
}

// How often a task is asked for: often at first, since most are short.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = time.Second
)

// Wait returns a task once it has ended, whether well or not, or the error of
// ctx. See is called with the task each time that it is asked for.
func (f Fleet) Wait(ctx context.Context, t wire.Task, see func(wire.Task)) (wire.Task, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		see(t)
		if t.State == "COMPLETED" || t.State == "ERROR" {
			return t, nil
		}
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-time.After(pause):
		}
		now, err := FleetGet[wire.Task](ctx, f, "/tasks/"+url.PathEscape(t.ID))
		if err != nil {
			return t, err
		}
		t = now
	}
}

func (f Fleet) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("cannot encode a request to bootd: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://bootd"+path, body)
	if err != nil {
		return fmt.Errorf("cannot make a request to bootd: %w", err)
	}
	return f.send(req, out)
}

func (f Fleet) send(req *http.Request, out any) error {
	resp, err := f.client.http.Do(req)
	if err != nil {
		return f.client.explain(req.Context(), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		e := &wire.Error{Message: resp.Status}
		_ = json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(e) // what is no error of the controller's shows its status
		e.Status = resp.StatusCode
		return e
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("cannot read the answer of bootd at %s: %w", f.client.socket, err)
	}
	return nil
}
