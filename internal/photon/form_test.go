package photon_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/photon"
	"bootd/internal/photon/wire"
)

// TestPages walks a list forwards and backwards in pages, keeps its filter on the
// way, and loses nothing to what is made and deleted meanwhile.
func TestPages(t *testing.T) {
	s := start(t)
	var all []string
	for i := range 7 {
		name := fmt.Sprintf("t%d", i)
		s.tenant(name)
		all = append(all, name)
	}
	walk := func(path string, link func(wire.List[wire.Named]) *string) (pages [][]string, last string) {
		t.Helper()
		for next := &path; next != nil; {
			last = *next
			list := into[wire.List[wire.Named]](s.get(last), 200)
			var names []string
			for _, i := range list.Items {
				names = append(names, i.Name)
			}
			pages, next = append(pages, names), link(list)
			if len(pages) > 10 {
				t.Fatalf("%s has no end: %v", path, pages)
			}
		}
		return pages, last
	}
	forward := func(l wire.List[wire.Named]) *string { return l.NextPageLink }
	back := func(l wire.List[wire.Named]) *string { return l.PreviousPageLink }
	pages, last := walk("/tenants?pageSize=3&", forward)
	if d := cmp.Diff([][]string{{"t0", "t1", "t2"}, {"t3", "t4", "t5"}, {"t6"}}, pages); d != "" {
		t.Error(d)
	}
	pages, _ = walk(last, back)
	if d := cmp.Diff([][]string{{"t6"}, {"t3", "t4", "t5"}, {"t0", "t1", "t2"}}, pages); d != "" {
		t.Error(d)
	}
	pages, _ = walk("/tenants?pageSize=7", forward)
	if d := cmp.Diff([][]string{all}, pages); d != "" {
		t.Error(d)
	}

	// The one that a page ended with is deleted, one is made before it.
	first := into[wire.List[wire.Tenant]](s.get("/tenants?pageSize=2"), 200)
	s.delete("/tenants/"+first.Items[1].ID).made("DELETE_TENANT", "tenant")
	s.tenant("t00")
	if d := cmp.Diff([]string{"t2", "t3"}, s.names(*first.NextPageLink)); d != "" {
		t.Error(d)
	}

	// A filter holds on every page.
	for _, kind := range []string{"ephemeral-disk", "persistent-disk"} {
		s.flavor("a", kind, line(kind, "1", "COUNT"))
		s.flavor("b", kind, line(kind, "1", "COUNT"))
	}
	var kinds []string
	for next := "/flavors?kind=persistent-disk&pageSize=1"; next != ""; {
		list := into[wire.List[wire.Flavor]](s.get(next), 200)
		kinds = append(kinds, list.Items[0].Name+" "+list.Items[0].Kind)
		if next = ""; list.NextPageLink != nil {
			next = *list.NextPageLink
		}
	}
	if d := cmp.Diff([]string{"a persistent-disk", "b persistent-disk"}, kinds); d != "" {
		t.Error(d)
	}

	for _, size := range []string{"0", "-1", "101", "x", "1e1"} {
		s.get("/tenants?pageSize="+size).fails(400, "InvalidPageSize", "The page size '"+size+"' is not between '1' and '100'")
	}
	for _, link := range []string{"x", "eyJuIjowfQ", "%00", strings.Repeat("A", 4000)} {
		s.get("/tenants?pageLink="+link).fails(404, "PageExpired", " has expired")
	}
}

// TestForm: what all routes have in common.
func TestForm(t *testing.T) {
	s := start(t)
	a := s.get("/tenants")
	if a.header.Get("REQUEST-ID") == "" || a.header.Get("X-API-VERSION") != "1.1.1" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%v", a.header)
	}
	if b := s.get("/tenants"); b.header.Get("REQUEST-ID") == a.header.Get("REQUEST-ID") {
		t.Error("two requests have the same number")
	}
	s.get("/nothing").fails(404, "NotFound", "There is no /nothing here")
	s.post("/nothing/at/all", nil).fails(404, "NotFound", "There is no /nothing/at/all here")
	if a := s.do("PUT", "/tenants", nil); a.header.Get("Allow") != "GET, POST" {
		t.Errorf("%v", a.header)
	} else {
		a.fails(405, "InvalidOperation", "PUT cannot be done to /tenants, only GET, POST")
	}
	if a := s.do("HEAD", "/tenants", nil); a.status != 200 || len(a.body) > 0 {
		t.Errorf("HEAD: %d %s", a.status, a.body)
	}
	// What a client sends beyond what there is does no harm; a slash at the end
	// neither.
	s.post("/tenants/", `{"name": "acme", "id": 7, "state": {"x": []}}`).made("CREATE_TENANT", "tenant")
	s.post("/tenants", `{"name": 7}`).fails(400, "InvalidJson", "name cannot be a number")
	s.post("/tenants", `{"name": "`+strings.Repeat("x", 1<<20)+`"}`).fails(400, "InvalidJson", "it is larger than 1048576 bytes")
}

// TestAudit: every change is in the log, once and in order.
func TestAudit(t *testing.T) {
	s := start(t)
	id := s.tenant("acme")
	s.post("/tenants", wire.TenantSpec{Name: "acme"}).fails(400, "NameTaken", "")
	s.delete("/tenants/"+id).made("DELETE_TENANT", "tenant")
	list := into[wire.List[wire.Audited]](s.get("/audit"), 200).Items
	var got []string
	for _, l := range list {
		got = append(got, l.By+" "+l.Role+" "+l.Operation+" "+l.Entity.Kind+" "+l.Name)
	}
	if d := cmp.Diff([]string{"root admin CREATE_TENANT tenant acme", "root admin DELETE_TENANT tenant acme"}, got); d != "" {
		t.Error(d)
	}
	if got := into[wire.List[wire.Audited]](s.get(fmt.Sprintf("/audit?since=%d", list[1].Time+1)), 200).Items; len(got) > 0 {
		t.Errorf("%+v", got)
	}
	s.get("/audit?since=yesterday").fails(400, "InvalidQueryParams", "yesterday")
}

// TestCertificate: it is made once, nobody else may read it, and it is replaced
// only when it is over.
func TestCertificate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "controller.pem")
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	get := func(now time.Time, wantFresh bool) tls.Certificate {
		t.Helper()
		c, fresh, err := photon.Certificate(path, []string{"bootd.example.org", "10.0.0.1", "::1"}, now)
		if err != nil || fresh != wantFresh {
			t.Fatalf("made anew %v, %v", fresh, err)
		}
		return c
	}
	first := get(now, true)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if again := get(now.AddDate(9, 0, 0), false); !slices.Equal(again.Leaf.Raw, first.Leaf.Raw) {
		t.Error("it was not kept")
	}
	for _, host := range []string{"bootd.example.org", "10.0.0.1", "::1"} {
		if err := first.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if later := get(now.AddDate(11, 0, 0), true); slices.Equal(later.Leaf.Raw, first.Leaf.Raw) {
		t.Error("it is over, and was kept")
	}
	d := photon.Describe(first.Leaf)
	if len(d.SHA256) != 95 || len(d.SHA1) != 59 || len(d.MD5) != 47 || !slices.Equal(d.Names, []string{"bootd.example.org", "10.0.0.1", "::1"}) {
		t.Errorf("%+v", d)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".certificate-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := os.WriteFile(path, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := photon.Certificate(path, nil, now); err == nil || !strings.Contains(err.Error(), "remove the file to have another one made") {
		t.Errorf("%v", err)
	}
}

// TestEndpoint: the certificate that is described is the one that is shown.
func TestEndpoint(t *testing.T) {
	s := start(t)
	e := into[wire.Endpoint](s.get("/endpoint"), 200)
	resp, err := s.http.Get(s.base + "/available")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := photon.Describe(resp.TLS.PeerCertificates[0]); got.SHA256 != e.Certificate.SHA256 || got.PEM != e.Certificate.PEM {
		t.Errorf("%+v, want %+v", got, e.Certificate)
	}
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}
