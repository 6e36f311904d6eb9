package metrics_test

import (
	"encoding/json"
	"maps"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"gopkg.in/yaml.v3"

	"bootd/boot"
	"bootd/internal/metrics"
)

// series returns the labels of each metric that there is.
func series(t *testing.T) map[string][]string {
	t.Helper()
	m := metrics.New(func() metrics.Snapshot {
		return metrics.Snapshot{
			Machines: map[boot.Stage]int{boot.Ready: 1},
			Networks: []metrics.Network{{Name: "rack", Leases: map[string]int{"bound": 1}}},
			Images:   []metrics.Image{{Name: "lab"}},
			Swarms:   []metrics.Swarm{{Name: "blue", Nodes: []metrics.Nodes{{Count: 1}}, Counters: metrics.Counters{Removals: map[string]uint64{"left": 1}}}},
		}
	})
	m.Event(boot.Event{Stage: boot.Kernel, Client: boot.IPXE, Bytes: 1})
	m.Reached(boot.Ready, time.Second)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	out := map[string][]string{}
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name := regexp.MustCompile(`^\w+`).FindString(line)
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(line, -1) {
			out[name] = append(out[name], label[1])
		}
		out[name] = append(out[name], "job", "instance") // that Prometheus adds
	}
	return out
}

// asks checks an expression: it can be parsed, and has only metrics and labels
// that there are. It notes which metrics.
func asks(t *testing.T, where, expr string, there map[string][]string, used map[string]bool) {
	t.Helper()
	// What Grafana puts in the place of its variables.
	expr = strings.NewReplacer("$__rate_interval", "5m", "$job", ".*").Replace(expr)
	e, err := metricsql.Parse(expr)
	if err != nil {
		t.Errorf("%s: %s: %v", where, expr, err)
		return
	}
	var labels []string // of the metrics within
	metricsql.VisitAll(e, func(e metricsql.Expr) {
		m, ok := e.(*metricsql.MetricExpr)
		if !ok {
			return
		}
		for _, filters := range m.LabelFilterss {
			name := ""
			for _, f := range filters {
				if f.Label == "__name__" {
					name = f.Value
				}
			}
			if there[name] == nil {
				t.Errorf("%s: there is no metric %q", where, name)
			}
			used[strings.TrimSuffix(name, "_bucket")] = true
			labels = append(labels, there[name]...)
			for _, f := range filters {
				if f.Label != "__name__" && !slices.Contains(there[name], f.Label) {
					t.Errorf("%s: %s has no label %q", where, name, f.Label)
				}
			}
		}
	})
	metricsql.VisitAll(e, func(e metricsql.Expr) {
		var by []string
		switch e := e.(type) {
		case *metricsql.AggrFuncExpr:
			by = e.Modifier.Args
		case *metricsql.BinaryOpExpr:
			by = e.GroupModifier.Args
		}
		for _, label := range by {
			if !slices.Contains(labels, label) {
				t.Errorf("%s: nothing in %s has the label %q", where, expr, label)
			}
		}
	})
}

// shows checks what is written about a result: its labels are those that there
// are.
func shows(t *testing.T, where, text string, there map[string][]string) {
	t.Helper()
	var all []string
	for _, labels := range there {
		all = append(all, labels...)
	}
	for _, m := range regexp.MustCompile(`\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains(all, m[1]) {
			t.Errorf("%s: %q shows the label %q, which nothing has", where, text, m[1])
		}
	}
}

func TestDashboard(t *testing.T) {
	var d struct {
		Title  string
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, LegendFormat, RefID string }
		}
	}
	if err := json.Unmarshal([]byte(metrics.Dashboard()), &d); err != nil {
		t.Fatal(err)
	}
	there, used, ids, cells := series(t), map[string]bool{}, map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.Type == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q is no panel of its own", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if cells[at] != "" || at[0] >= 24 {
					t.Fatalf("%q lies over %q, or outside", p.Title, cells[at])
				}
				cells[at] = p.Title
			}
		}
		for _, q := range p.Targets {
			asks(t, p.Title, q.Expr, there, used)
			shows(t, p.Title, q.LegendFormat, there)
		}
	}
	// Nothing that bootd measures is left out.
	for _, name := range slices.Sorted(maps.Keys(there)) {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "bootd_") && !used[base] && !used[base+"_sum"] {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

func TestAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	d := yaml.NewDecoder(strings.NewReader(metrics.Alerts()))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	there, names := series(t), map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if names[r.Alert] || !strings.HasPrefix(r.Alert, "Bootd") {
				t.Errorf("%q is no name for an alert, or is there twice", r.Alert)
			}
			names[r.Alert] = true
			asks(t, r.Alert, r.Expr, there, map[string]bool{})
			if _, err := time.ParseDuration(r.For); r.For != "" && err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			if !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) {
				t.Errorf("%s has the severity %q", r.Alert, r.Labels["severity"])
			}
			for _, key := range []string{"summary", "description"} {
				if r.Annotations[key] == "" {
					t.Errorf("%s has no %s", r.Alert, key)
				}
				shows(t, r.Alert, r.Annotations[key], there)
			}
		}
	}
	if len(names) < 10 {
		t.Errorf("there are only %v", names)
	}
}

// TestPromtool: Prometheus itself takes the rules, and with them each alert fires
// when it should, and only then.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool (Debian package prometheus) is not installed")
	}
	for _, args := range [][]string{{"check", "rules", "monitoring/alerts.yaml"}, {"test", "rules", "testdata/alerts.test.yaml"}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
