package esx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/fleet"
)

// datastores are those that the host has, by name.
func (h *Host) datastores(ctx context.Context, inv *inventory) (map[string]mo.Datastore, error) {
	var host mo.HostSystem
	if err := inv.get(ctx, inv.host, []string{"datastore"}, &host); err != nil {
		return nil, err
	}
	if len(host.Datastore) == 0 {
		return nil, nil
	}
	var list []mo.Datastore
	if err := inv.pc.Retrieve(ctx, host.Datastore, []string{"summary", "info", "host", "browser"}, &list); err != nil {
		return nil, err
	}
	out := map[string]mo.Datastore{}
	for _, d := range list {
		out[d.Summary.Name] = d
	}
	return out, nil
}

// datastore is one of them that can be used.
func (h *Host) datastore(ctx context.Context, inv *inventory, name string) (mo.Datastore, error) {
	if err := checkDatastore(name); err != nil {
		return mo.Datastore{}, err
	}
	all, err := h.datastores(ctx, inv)
	if err != nil {
		return mo.Datastore{}, err
	}
	d, ok := all[name]
	if !ok {
		return d, fail(fleet.Missing, "", "there is no datastore %s", name)
	}
	if !d.Summary.Accessible {
		return d, fail(fleet.Unreachable, "look at the host's storage", "datastore %s cannot be reached by the host", name)
	}
	return d, nil
}

// makeDir makes a directory; it may be there.
func (h *Host) makeDir(ctx context.Context, inv *inventory, p place) error {
	yes := true
	_, err := methods.MakeDirectory(ctx, inv.vim, &types.MakeDirectory{
		This: *inv.vim.ServiceContent.FileManager, Name: p.String(), Datacenter: &inv.datacenter, CreateParentDirectories: &yes})
	if is[types.FileAlreadyExists](err) {
		return nil
	}
	return err
}

// freshDir makes a directory that has nothing in it.
func (h *Host) freshDir(ctx context.Context, inv *inventory, p place) error {
	if err := h.remove(ctx, inv, p.String()); err != nil {
		return err
	}
	return h.makeDir(ctx, inv, p)
}

// removeDisk deletes both files of a disk, whichever are there. They are deleted
// as files, since a disk that is not whole cannot be deleted as a disk.
func (h *Host) removeDisk(ctx context.Context, inv *inventory, path string) error {
	if err := h.remove(ctx, inv, path); err != nil {
		return err
	}
	return h.remove(ctx, inv, flat(path))
}

// list are the names and sizes of what is in a directory, by name; of a
// directory that is not there, nothing.
func (h *Host) list(ctx context.Context, inv *inventory, d mo.Datastore, dir, pattern string) (map[string]types.BaseFileInfo, error) {
	path := "[" + d.Summary.Name + "]"
	if dir != "" {
		path += " " + dir
	}
	res, err := h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
		r, err := methods.SearchDatastore_Task(ctx, inv.vim, &types.SearchDatastore_Task{This: d.Browser, DatastorePath: path,
			SearchSpec: &types.HostDatastoreBrowserSearchSpec{MatchPattern: []string{pattern}, Details: &types.FileQueryFlags{FileType: true, FileSize: true}}})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
	if is[types.FileNotFound](err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, ok := res.(types.HostDatastoreBrowserSearchResults)
	if !ok {
		return nil, fail(fleet.Broken, "", "it answers a search with %T", res)
	}
	out := map[string]types.BaseFileInfo{}
	for _, f := range found.File {
		out[f.GetFileInfo().Path] = f
	}
	return out, nil
}

// remove deletes a file, or a directory with all that is in it; what is not
// there is deleted.
func (h *Host) remove(ctx context.Context, inv *inventory, path string) error {
	_, err := h.run(ctx, inv, func() (types.ManagedObjectReference, error) {
		r, err := methods.DeleteDatastoreFile_Task(ctx, inv.vim, &types.DeleteDatastoreFile_Task{
			This: *inv.vim.ServiceContent.FileManager, Name: path, Datacenter: &inv.datacenter})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return r.Returnval, nil
	})
	if is[types.FileNotFound](err) {
		return nil
	}
	return err
}

// fileURL is where the host gives and takes a file over HTTP.
func (h *Host) fileURL(path string) (string, error) {
	p, file, ok := parsePath(path)
	if !ok {
		return "", fmt.Errorf("%q is no path on a datastore", path)
	}
	u := *h.url
	u.Path = "/folder/" + p.dir + "/" + file
	u.RawQuery = url.Values{"dcPath": {"ha-datacenter"}, "dsName": {p.datastore}}.Encode()
	return u.String(), nil
}

// put writes a file of a size. An upload that breaks off leaves a part of it.
func (h *Host) put(ctx context.Context, inv *inventory, path string, size int64, open func() (io.ReadCloser, error)) error {
	return h.transfer(ctx, inv, h.copies, path, func(ctx context.Context, u string) (*http.Request, error) {
		body, err := open()
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, u, body)
		if err != nil {
			return nil, errors.Join(err, body.Close())
		}
		req.ContentLength = size
		if size == 0 {
			req.Body = http.NoBody
		}
		req.Header.Set("Content-Type", "application/octet-stream")
		return req, nil
	}, func(res *http.Response) error {
		_, err := io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
		return err
	})
}

// fetch reads a file, with one of the slots for that.
func (h *Host) fetch(ctx context.Context, inv *inventory, s slots, path string, read func(r io.Reader, size int64) error) error {
	return h.transfer(ctx, inv, s, path, func(ctx context.Context, u string) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	}, func(res *http.Response) error { return read(res.Body, res.ContentLength) })
}

// transfer sends a request for a file, once more after another login if the
// host wants one.
func (h *Host) transfer(ctx context.Context, inv *inventory, s slots, path string, request func(context.Context, string) (*http.Request, error), answer func(*http.Response) error) error {
	u, err := h.fileURL(path)
	if err != nil {
		return err
	}
	done, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	for try := 0; ; try++ {
		was := h.login.Load()
		req, err := request(ctx, u)
		if err != nil {
			return err
		}
		res, err := h.client.Client.Do(req)
		if err != nil {
			return err
		}
		if res.StatusCode == http.StatusUnauthorized && try == 0 {
			res.Body.Close()
			if err := h.relogin(ctx, inv.vim, was); err != nil {
				return err
			}
			continue
		}
		err = status(res, path)
		if err == nil {
			err = answer(res)
		}
		return errors.Join(err, res.Body.Close())
	}
}

// status is the error of an answer about a file.
func status(res *http.Response, path string) error {
	switch c := res.StatusCode; {
	case c < 300:
		return nil
	case c == http.StatusNotFound:
		return fail(fleet.Missing, "", "%s is not there", path)
	case c == http.StatusUnauthorized, c == http.StatusForbidden:
		return fail(fleet.BadCredentials, "give the user the role Administrator, or use root", "the user may not reach %s (%s)", path, res.Status)
	case c == http.StatusInsufficientStorage:
		return fail(fleet.NoSpace, "free some, or use another datastore", "the datastore is full")
	case c == http.StatusServiceUnavailable:
		return fail(fleet.InUse, "try again in a minute", "too much is transferred at once (%s)", res.Status)
	}
	// hostd tells the reason, a full datastore too, only in the body.
	b, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	said := strings.ToLower(string(b))
	if strings.Contains(said, "no space") || strings.Contains(said, "insufficient disk space") || strings.Contains(said, "nodiskspace") {
		return fail(fleet.NoSpace, "free some, or use another datastore", "the datastore is full")
	}
	return fail(fleet.Broken, "the host's own log says more: /var/log/hostd.log", "it answers %s", res.Status)
}
