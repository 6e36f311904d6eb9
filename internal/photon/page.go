package photon

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

// maxPage is how many items a page has at most, and when nothing is said.
const maxPage = 100

// A position says which page of a list is wanted: so many items after or before
// one with a key, which need not be there any more. Pages so never expire.
type position struct {
	Query  string `json:"q,omitempty"` // of the first page, without what concerns pages
	After  string `json:"a,omitempty"`
	Before string `json:"b,omitempty"`
	Size   int    `json:"n"`
}

// pageOf reads which page a request is for, and the query that the list had.
func pageOf(u *url.URL) (url.Values, position, error) {
	q := u.Query()
	if link := q.Get("pageLink"); link != "" {
		var at position
		b, err := base64.RawURLEncoding.DecodeString(link)
		if err == nil {
			err = json.Unmarshal(b, &at)
		}
		if err != nil || at.Size < 1 || at.Size > maxPage {
			return nil, at, fleet.Errorf(fleet.PageExpired, "Page %.200s has expired", link)
		}
		q, err := url.ParseQuery(at.Query)
		if err != nil {
			return nil, at, fleet.Errorf(fleet.PageExpired, "Page %.200s has expired", link)
		}
		return q, at, nil
	}
	at := position{Size: maxPage}
	if text := q.Get("pageSize"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			return nil, at, fleet.Errorf(fleet.InvalidPageSize, "The page size '%.20s' is not between '1' and '%d'", text, maxPage)
		}
		at.Size = n
	}
	q.Del("pageSize")
	at.Query = q.Encode()
	return q, at, nil
}

// cut is the page of a list that a request is for. Keys order the list, no two
// items have the same.
func cut[T any](c *call, all []T, key func(T) string) (page []T, next, previous *string) {
	slices.SortFunc(all, func(a, b T) int { return compare(key(a), key(b)) })
	var from, to int
	if c.at.Before != "" {
		to, _ = slices.BinarySearchFunc(all, c.at.Before, func(v T, k string) int { return compare(key(v), k) })
		from = max(0, to-c.at.Size)
	} else {
		if c.at.After != "" {
			at, found := slices.BinarySearchFunc(all, c.at.After, func(v T, k string) int { return compare(key(v), k) })
			if from = at; found {
				from++
			}
		}
		to = min(len(all), from+c.at.Size)
	}
	page = all[from:to]
	if to < len(all) && to > from {
		next = c.pageLink(position{Query: c.at.Query, After: key(all[to-1]), Size: c.at.Size})
	}
	if from > 0 && to > from {
		previous = c.pageLink(position{Query: c.at.Query, Before: key(all[from]), Size: c.at.Size})
	}
	return page, next, previous
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// pageLink is the path of a page of the same list.
func (c *call) pageLink(p position) *string {
	b, err := json.Marshal(p)
	if err != nil {
		return nil // a struct of texts and a number can be encoded
	}
	link := c.URL.Path + "?pageLink=" + base64.RawURLEncoding.EncodeToString(b)
	return &link
}

// paged answers with the page of a list that a request is for.
func paged[T, W any](c *call, all []T, key func(T) string, convert func(T) W) reply {
	page, next, previous := cut(c, all, key)
	out := wire.List[W]{Items: []W{}, NextPageLink: next, PreviousPageLink: previous}
	for _, v := range page {
		out.Items = append(out.Items, convert(v))
	}
	return ok(out)
}

// byName orders entities by name, and those of the same name by ID.
func byName[T ~string](name string, id T) string { return name + "\x00" + string(id) }

// byTime orders tasks by when they were asked for.
func byTime(t fleet.Task) string { return fmt.Sprintf("%020d %s", max(0, t.Queued.UnixNano()), t.ID) }

// auditKey orders the lines of the audit log by when they were written.
func auditKey(l controller.Audited) string {
	return fmt.Sprintf("%020d %s %s", max(0, l.Time.UnixNano()), l.Entity, l.Operation)
}

// moment reads milliseconds since 1970; nothing is the beginning.
func moment(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fleet.Errorf(fleet.InvalidQueryParams, "%.40q is not a number of milliseconds since 1970", text)
	}
	return time.UnixMilli(n), nil
}
