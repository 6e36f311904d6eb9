package api_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/api"
)

// A book is Orders that are only written down.
type book struct {
	lines []string
	err   error
}

func (b *book) note(m api.Machine, format string, args ...any) error {
	b.lines = append(b.lines, strings.TrimSpace(m.Name+" "+m.MAC.String()+" "+fmt.Sprintf(format, args...)))
	return b.err
}

func (b *book) Approve(_ context.Context, m api.Machine, in api.Approval) error {
	return b.note(m, "approve %s %s", in.Profile, in.Name)
}
func (b *book) Next(_ context.Context, m api.Machine, in api.Next) error {
	return b.note(m, "next %s", in.Profile)
}
func (b *book) Install(_ context.Context, m api.Machine, wanted bool) error {
	return b.note(m, "install %t", wanted)
}
func (b *book) Forget(_ context.Context, m api.Machine) error { return b.note(m, "forget") }

func (b *book) Release(_ context.Context, addr netip.Addr) error {
	b.lines = append(b.lines, "release "+addr.String())
	return b.err
}

func TestOrders(t *testing.T) {
	const stranger = "/v1/machines/52:54:00:00:00:02"
	for _, c := range []struct {
		method, target, body string
		status               int
		want                 string // what was ordered, or part of the answer
	}{
		{"POST", "/v1/machines/node1/approve", `{"profile":"worker","name":"n7"}`, 204, "node1 52:54:00:00:00:01 approve worker n7"},
		{"POST", stranger + "/approve", `{"profile":"worker"}`, 204, "52:54:00:00:00:02 approve worker"},
		{"POST", "/v1/machines/node9/approve", `{"profile":"worker"}`, 404, "there is no machine"},
		{"POST", "/v1/machines/node1/approve", `{"profil":"worker"}`, 400, `unknown field \"profil\"`},
		{"POST", "/v1/machines/node1/approve", ``, 400, "the body is not an approval"},
		{"PUT", "/v1/machines/node1/next", `{"profile":"rescue"}`, 204, "node1 52:54:00:00:00:01 next rescue"},
		{"PUT", "/v1/machines/node1/next", `{}`, 400, "names no profile"},
		{"PUT", "/v1/machines/node1/next", `{"profile":"a"} x`, 400, "something after"},
		{"DELETE", "/v1/machines/node1/next", ``, 204, "node1 52:54:00:00:00:01 next"},
		{"PUT", "/v1/machines/node1/install", ``, 204, "node1 52:54:00:00:00:01 install true"},
		{"DELETE", "/v1/machines/node1/install", ``, 204, "node1 52:54:00:00:00:01 install false"},
		{"POST", "/v1/machines/node1/install", ``, 405, "only DELETE, PUT"},
		{"DELETE", "/v1/machines/node1", ``, 204, "node1 52:54:00:00:00:01 forget"},
		{"DELETE", "/v1/leases/10.0.0.11", ``, 204, "release 10.0.0.11"},
		{"DELETE", "/v1/leases/node1", ``, 400, "is not an address"},
		{"DELETE", stranger, ``, 404, "there is no machine"}, // there is nothing to forget
	} {
		t.Run(c.method+c.target, func(t *testing.T) {
			orders := &book{}
			config := config(newSource())
			config.Orders = orders
			w := do(t, api.New(config), c.method, c.target, c.body)
			if w.Code != c.status {
				t.Fatalf("%d %s, want %d", w.Code, w.Body, c.status)
			}
			if c.status >= 300 {
				if !strings.Contains(w.Body.String(), c.want) || len(orders.lines) > 0 {
					t.Errorf("%s, ordered %q", w.Body, orders.lines)
				}
				return
			}
			if d := cmp.Diff([]string{c.want}, orders.lines); d != "" {
				t.Error(d)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		config := config(newSource())
		config.Orders = &book{err: &api.Problem{Title: "Conflict", Status: 409, Detail: "it has an entry"}}
		if w := do(t, api.New(config), "POST", "/v1/machines/node1/approve", `{"profile":"worker"}`); w.Code != 409 || !strings.Contains(w.Body.String(), "it has an entry") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
