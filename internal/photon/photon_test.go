package photon_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/openapi/openapitest"
	"bootd/internal/photon"
	"bootd/internal/photon/wire"
	"bootd/internal/store"
	"bootd/internal/task"
)

var quiet = slog.New(slog.DiscardHandler)

// A site is a server as it runs, with a real store behind it, and a client that
// trusts its certificate.
type site struct {
	t         *testing.T
	base      string // https://127.0.0.1:PORT
	http      *http.Client
	token     string
	control   *controller.Controller
	store     *store.Store
	tasks     *task.Runner
	described *openapitest.Document
}

// start runs a server until the test ends. change may alter its configuration.
func start(t *testing.T, change ...func(*photon.Config)) *site {
	t.Helper()
	return startIn(t, t.TempDir(), change...)
}

func startIn(t *testing.T, dir string, change ...func(*photon.Config)) *site {
	t.Helper()
	return startWith(t, dir, controller.Options{}, change...)
}

// startWith runs a server over a controller with options.
func startWith(t *testing.T, dir string, o controller.Options, change ...func(*photon.Config)) *site {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(dir, "store"), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	tasks := task.New(db, task.Options{Pause: time.Millisecond, Log: quiet})
	text, err := photon.Document("1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, control: controller.New(db, tasks, o), store: db, tasks: tasks, described: openapitest.Load(t, text)}
	cert, _, err := photon.Certificate(filepath.Join(dir, "controller.pem"), []string{"127.0.0.1", "localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := photon.Config{
		Controller: s.control,
		Authenticate: func(*http.Request) (controller.Principal, error) {
			return controller.Principal{Name: "root", Role: controller.Admin}, nil
		},
		Endpoint: func() wire.Endpoint {
			return wire.Endpoint{Address: "127.0.0.1", Auth: "none", Certificate: photon.Describe(cert.Leaf)}
		},
		Version: "1.2.3", Commit: "abcdef", Log: quiet,
	}
	for _, f := range change {
		f(&c)
	}
	server, err := photon.Listen("127.0.0.1:0", cert, photon.New(c), quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	go func() { ended <- server.Run(ctx) }()
	go func() { ended <- tasks.Run(ctx) }()
	go func() { ended <- s.control.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil && !errors.Is(err, store.ErrClosed) { // a test may close it
				t.Error(err)
			}
		}
		s.control.Close()
	})
	trusted := x509.NewCertPool()
	trusted.AddCert(cert.Leaf)
	s.base = "https://" + server.Addr().String()
	s.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}, Timeout: time.Minute}
	t.Cleanup(s.http.CloseIdleConnections)
	return s
}

// An answer is what came back.
type answer struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   []byte
}

// do sends a request; a text in body is sent as it is, anything else as JSON.
func (s *site) do(method, path string, body any) answer {
	s.t.Helper()
	var in io.Reader
	switch v := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(v)
	default:
		b, err := json.Marshal(v)
		if err != nil {
			s.t.Fatal(err)
		}
		in = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.base+path, in)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := s.http.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	s.described.Answer(s.t, method, path, resp.StatusCode, resp.Header, b)
	return answer{s.t, method + " " + path, resp.StatusCode, resp.Header, b}
}

func (s *site) get(path string) answer            { s.t.Helper(); return s.do("GET", path, nil) }
func (s *site) post(path string, body any) answer { s.t.Helper(); return s.do("POST", path, body) }
func (s *site) delete(path string) answer         { s.t.Helper(); return s.do("DELETE", path, nil) }

// into reads an answer with a status.
func into[T any](a answer, status int) (v T) {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: %d %s, want %d", a.what, a.status, a.body, status)
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		a.t.Fatalf("%s: %s: %v", a.what, a.body, err)
	}
	return v
}

// fails checks an answer that is an error.
func (a answer) fails(status int, code fleet.Code, text string) wire.Error {
	a.t.Helper()
	e := into[wire.Error](a, status)
	if e.Code != string(code) || !strings.Contains(e.Message, text) || e.Data == nil {
		a.t.Errorf("%s: %s, want %s %q", a.what, a.body, code, text)
	}
	return e
}

// made is the ID of what a verb made at once.
func (a answer) made(operation, kind string) string {
	a.t.Helper()
	t := into[wire.Task](a, 201)
	if t.State != "COMPLETED" || t.Operation != operation || t.Entity.Kind != kind || t.Entity.ID == "" || t.ID == "" {
		a.t.Fatalf("%s: %s, want a completed %s of a %s", a.what, a.body, operation, kind)
	}
	return t.Entity.ID
}

// names lists what a path has.
func (s *site) names(path string) []string {
	s.t.Helper()
	out := []string{}
	for _, i := range into[wire.List[wire.Named]](s.get(path), 200).Items {
		out = append(out, i.Name)
	}
	return out
}

// operations lists the operations of the tasks at a path; all must have
// succeeded.
func (s *site) operations(path string) []string {
	s.t.Helper()
	out := []string{}
	for _, i := range into[wire.List[wire.Task]](s.get(path), 200).Items {
		if i.State != "COMPLETED" {
			s.t.Errorf("%s: %+v", path, i)
		}
		out = append(out, i.Operation)
	}
	return out
}

func line(key, value, unit string) wire.QuotaLine {
	return wire.QuotaLine{Key: key, Value: json.Number(value), Unit: unit}
}

// Of things that many tests need.
func (s *site) tenant(name string, groups ...string) string {
	s.t.Helper()
	return s.post("/tenants", wire.TenantSpec{Name: name, SecurityGroups: groups}).made("CREATE_TENANT", "tenant")
}

func (s *site) ticket(tenant, name string, limits ...wire.QuotaLine) string {
	s.t.Helper()
	return s.post("/tenants/"+tenant+"/resource-tickets", wire.ResourceTicketSpec{Name: name, Limits: limits}).
		made("CREATE_RESOURCE_TICKET", "resource-ticket")
}

func (s *site) project(tenant, name, ticket string, limits ...wire.QuotaLine) string {
	s.t.Helper()
	return s.post("/tenants/"+tenant+"/projects", projectSpec(name, ticket, limits...)).made("CREATE_PROJECT", "project")
}

func projectSpec(name, ticket string, limits ...wire.QuotaLine) wire.ProjectSpec {
	return wire.ProjectSpec{Name: name, ResourceTicket: &wire.ResourceTicketSpec{Name: ticket, Limits: limits}}
}

func (s *site) flavor(name, kind string, cost ...wire.QuotaLine) string {
	s.t.Helper()
	return s.post("/flavors", wire.FlavorSpec{Name: name, Kind: kind, Cost: cost}).made("CREATE_FLAVOR", "flavor")
}

// small is a VM's cost.
var small = []wire.QuotaLine{line("vm", "1", "COUNT"), line("vm.cpu", "2", "COUNT"), line("vm.memory", "2", "GB")}
