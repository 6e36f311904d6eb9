package api_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/api"
)

// A switchboard notes what is ordered.
type switchboard struct {
	orders []api.PowerOrder
	names  []string
}

func (s *switchboard) State(_ context.Context, m api.Machine) (api.PowerState, error) {
	s.names = append(s.names, m.Name)
	return api.PowerState{Machine: m.Name, State: "off", Kind: boot.IPMI, BMC: "10.1.0.1:623"}, nil
}

func (s *switchboard) Switch(_ context.Context, m api.Machine, o api.PowerOrder) (api.PowerState, error) {
	s.names, s.orders = append(s.names, m.Name), append(s.orders, o)
	if m.Name == "byhand" {
		return api.PowerState{}, &api.Problem{Title: api.NoBMC, Status: http.StatusConflict, Detail: "press the button"}
	}
	return api.PowerState{Machine: m.Name, State: "on", Was: "off", Changed: true, Kind: boot.IPMI}, nil
}

func TestPower(t *testing.T) {
	for _, tt := range []struct {
		method, machine, body string
		status                int
		want                  string
		order                 api.PowerOrder // that arrives
	}{
		{"GET", "node1", "", 200, `{"machine":"node1","state":"off","kind":"ipmi","bmc":"10.1.0.1:623","changed":false}`, api.PowerOrder{}},
		{"GET", "52:54:00:00:00:01", "", 200, `{"machine":"node1","state":"off","kind":"ipmi","bmc":"10.1.0.1:623","changed":false}`, api.PowerOrder{}},
		{"POST", "node1", `{"action":"on"}`, 200, `{"machine":"node1","state":"on","kind":"ipmi","was":"off","changed":true}`, api.PowerOrder{Action: "on"}},
		{"POST", "node1", `{"action":"cycle","boot":"http","persistent":true}`, 200, `{"machine":"node1","state":"on","kind":"ipmi","was":"off","changed":true}`,
			api.PowerOrder{Action: "cycle", Boot: "http", Persistent: true}},
		{"POST", "byhand", `{"action":"on"}`, 409, "press the button", api.PowerOrder{Action: "on"}},
		{"POST", "node1", `{"action":"explode"}`, 400, `action cannot be "explode", only on, off, shutdown, cycle`, api.PowerOrder{}},
		{"POST", "node1", `{"action":"status"}`, 400, `action cannot be "status"`, api.PowerOrder{}},
		{"POST", "node1", `{"action":"on","boot":"usb"}`, 400, `boot cannot be "usb", only pxe, disk, bios, http`, api.PowerOrder{}},
		{"POST", "node1", `{"action":"off","boot":"pxe"}`, 400, "boot goes with the actions on and cycle, not with off", api.PowerOrder{}},
		{"POST", "node1", `{"action":"on","persistent":true}`, 400, "persistent is said of boot, which is missing", api.PowerOrder{}},
		{"POST", "node1", `{"action":"on","password":"x"}`, 400, `the body is not an order, as {"action": "on"}`, api.PowerOrder{}},
		{"POST", "node1", ``, 400, "the body is not an order", api.PowerOrder{}},
		{"POST", "node9", `{"action":"on"}`, 404, `there is no machine "node9"; known: node1, byhand`, api.PowerOrder{}},
		{"PUT", "node1", `{"action":"on"}`, 405, "only GET, POST", api.PowerOrder{}},
	} {
		board := &switchboard{}
		h := api.New(api.Config{
			Machines: func() []api.Machine { return []api.Machine{{Name: "node1", MAC: mac1}, {Name: "byhand", MAC: mac2}} },
			Power:    board, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, "/v1/machines/"+tt.machine+"/power", strings.NewReader(tt.body)))
		described(t).Answer(t, tt.method, "/v1/machines/"+tt.machine+"/power", w.Code, w.Header(), w.Body.Bytes())
		got := strings.TrimSpace(w.Body.String())
		if w.Code != 200 {
			var p api.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Errorf("%s %s %s: %v", tt.method, tt.machine, tt.body, err)
			}
			got = p.Detail
		}
		if w.Code != tt.status || got != tt.want && (w.Code == 200 || !strings.Contains(got, tt.want)) {
			t.Errorf("%s %s %s: %d %s\nwant %d %s", tt.method, tt.machine, tt.body, w.Code, got, tt.status, tt.want)
		}
		var want []api.PowerOrder
		if tt.order != (api.PowerOrder{}) {
			want = []api.PowerOrder{tt.order}
		}
		if diff := cmp.Diff(want, board.orders); diff != "" {
			t.Errorf("%s %s: %s", tt.machine, tt.body, diff)
		}
	}
}
