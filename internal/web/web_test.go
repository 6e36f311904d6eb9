package web_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"bootd/boot"
	"bootd/internal/web"
)

// get asks a handler for a page and returns its text, without any markup.
func get(t *testing.T, h http.Handler, path string) (status int, text, source string) {
	t.Helper()
	return do(t, h, httptest.NewRequest(http.MethodGet, path, nil))
}

func do(t *testing.T, h http.Handler, r *http.Request) (status int, text, source string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	source = w.Body.String()
	doc, err := html.Parse(strings.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, textOf(doc), source
}

// textOf is what a person reads of an element, with single spaces.
func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode && d.Parent.Data != "script" && d.Parent.Data != "style" && d.Parent.Data != "title" {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// section is the part of a page with an id.
func section(t *testing.T, source, id string) string {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		if attr(n, "id") == id {
			return textOf(n)
		}
	}
	return ""
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// small is a site with one machine in each condition.
func small() *site {
	s := newSite()
	s.add(1, "node1", 30*time.Minute, boot.Ready)
	s.add(2, "node2", 35*time.Second, boot.RootFS)
	s.add(3, "node3", 20*time.Minute, boot.Loader)
	s.add(4, "node10", 0, "")
	m := s.add(5, "node-525400000005", time.Minute, boot.Leased)
	m.Profile, m.Entry, m.Boot.Profile = "", "", ""
	s.event(m, boot.Event{Time: start.Add(-3 * time.Second), Stage: boot.Waiting, Client: boot.IPXE, Text: "no entry matches it"})
	odd := s.add(6, "odd", 40*time.Minute, boot.Ready)
	odd.Problem = `machine matches both "a" (machines/a.yaml:1:3) and "b" (machines/b.yaml:1:3) equally well`
	gone := s.add(7, "gone", 40*time.Minute, boot.Ready)
	s.event(gone, boot.Event{Time: start.Add(-time.Minute), Stage: boot.Left, Client: boot.System})
	s.leases = []web.Lease{
		{MAC: mac(1), Addr: addr(0x6400), Network: "rack", State: "bound", Expires: start.Add(time.Hour), Host: "node1"},
		{MAC: mac(2), Addr: addr(0x6401), Network: "rack", State: "declined", Expires: start.Add(time.Hour)},
		{MAC: mac(9), Addr: addr(0x6402), Network: "rack", State: "released", Expires: start.Add(-time.Hour)},
		{MAC: mac(8), Addr: addr(7), Network: "rack", State: "bound", Expires: start.Add(time.Hour), Host: "reserved"},
	}
	s.nodes = []web.Node{
		{Swarm: "default", ID: "id1", Hostname: "node1", Machine: "node1", Role: "worker", State: "ready", Availability: "active", Tasks: 3, Engine: "28.5.2"},
		{Swarm: "default", ID: "id0", Hostname: "manager", Role: "manager", Leader: true, Self: true, State: "ready", Availability: "drain", Why: "a new fan", Engine: "28.5.2"},
	}
	return s
}

func TestPages(t *testing.T) {
	s := small()
	h := s.handler(t)
	for _, tt := range []struct {
		path string
		want []string // in this order
		not  []string
	}{
		{"/", []string{"1 to approve", "1 unclear", "1 stuck", "1 booting", "1 up", "1 shut down", "1 never seen",
			"Needs you", "node-525400000005 to approve 3s ago A.T.WORKS Blade 5, serial CZ00005, 52:54:00:00:00:05 Approve node-525400000005",
			"node3 stuck after loader", "try loader: ipxe",
			"node2 UEFI x64", "rootfs", "35s",
			"rack 10.0.0.0/16 on eth1 authoritative", "1 leased", "1 used by somebody else", "1 kept for who had it", "148 free", "1 reserved, outside the range",
			"office", "another server gives the addresses here", "1 ready", "1 drained",
			"fedora-coreos/stable 42.20260301.3.0", "lab missing", "Latest events"}, []string{"has mistakes"}},
		{"/machines", []string{"all 7", "to approve 1", "stuck 1", "booting 1", "gone shut down", "node1 ready", "node2 rootfs", "node3 stuck after loader", "node10 never seen", "odd unclear", "1–7 of 7"}, nil},
		{"/machines?q=state:late", []string{"1 machine", "node3"}, []string{"node10", "node2"}},
		{"/machines?q=cz00002", []string{"1 machine", "node2"}, []string{"node3"}},
		{"/machines?q=52:54:00:00:00:03", []string{"node3"}, []string{"node2"}},
		{"/machines?q=profile:worker+stage:ready+network:rack+node", []string{"1 machine", "node1"}, []string{"node2", "odd"}},
		{"/machines?q=nothing+like+it", []string{"No machine matches nothing like it", "Show all 7"}, nil},
		{"/machines?group=profile", []string{"no profile 1 machine", "node-525400000005", "worker 6 machines", "gone", "node1"}, nil},
		{"/machines?page=99", []string{"1–7 of 7"}, nil},
		{"/machines/node2", []string{"node2", "rootfs", "52:54:00:00:00:02", "10.0.0.2", "on rack", "profile worker", "machines/rack1.yaml:3:3", "Next boot", "Power", "Forget",
			"4.9s offered", "8.9s loader", "snponly.efi by TFTP 169.7 KiB in 60ms", "30.8s rootfs", "880.0 MiB in 9.5s", "ignition comes next",
			"Nothing changes: it would get the same again.", "Blade 5", "64.0 GiB", "profiles/worker.yaml:2:8", "download"}, []string{"What is missing", "Approve"}},
		{"/machines/52-54-00-00-00-03", []string{"node3", "What is missing", "its loader was fetched, but does not ask for an address", "script missing"}, nil},
		{"/machines/node-525400000005", []string{"to approve", "Approve", "It waits for you", `- {name: node1, mac: "52:54:00:00:00:05", profile: PROFILE}`}, nil},
		{"/machines/odd", []string{"unclear", "What is unclear", `matches both "a"`}, nil},
		{"/machines/node10", []string{"never seen", "It has not been seen yet."}, []string{"Forget", "download"}},
		{"/networks", []string{"rack", "1 leased", "Leases", "10.0.0.7 bound reserved", "10.0.100.0 bound node1 52:54:00:00:00:01 rack in 1h release 10.0.100.0", "10.0.100.2 released", "1h ago"}, nil},
		{"/networks?q=declined", []string{"1 lease", "10.0.100.1"}, []string{"10.0.100.0"}},
		{"/swarm", []string{"default 2 nodes, 3 tasks, engine unix:///var/run/docker.sock", "manager drained a new fan manager, leader", "node1 ready worker 3", "Drain node1", "Pause node1", "Remove node1"}, []string{"Remove manager"}},
		{"/events?q=node2+kernel", []string{"node2 kernel iPXE, fedora-coreos-live-kernel.x86_64, 13.5 MiB, in 659ms"}, []string{"node3"}},
		{"/machines/node1/do/next", []string{"Next boot of node1", "Nothing happens to the machine now.", "Profile none frontend rescue worker", "Order", "Cancel"}, nil},
		{"/machines/node1/do/power", []string{"It is on.", "like pulling the plug", "on shutdown off cycle", "Switch"}, nil},
		{"/swarm/default/id1/drain", []string{"Drain node1", "Its 3 tasks move", "Reason"}, nil},
		{"/leases/10.0.100.0/release", []string{"Release 10.0.100.0", "switch it off first"}, nil},
	} {
		t.Run(tt.path, func(t *testing.T) {
			status, text, _ := get(t, h, tt.path)
			if status != http.StatusOK {
				t.Fatalf("status %d: %s", status, text)
			}
			rest := text
			for _, w := range tt.want {
				_, after, ok := strings.Cut(rest, w)
				if !ok {
					t.Fatalf("no %q in what follows, of\n%s\nfollows:\n%s", w, text, rest)
				}
				rest = after
			}
			for _, n := range tt.not {
				if strings.Contains(text, n) {
					t.Errorf("there is %q in\n%s", n, text)
				}
			}
		})
	}
}

func TestNotFound(t *testing.T) {
	h := small().handler(t)
	for path, want := range map[string]string{
		"/nothing":                     "There is no page /nothing.",
		"/machines/node99":             "There is no machine node99.",
		"/machines/node1?boot=unknown": "That boot is no longer kept",
		"/machines/node1/do/dance":     "Machines cannot be told to dance.",
		"/machines/node10/story":       "has not booted yet",
		"/swarm/default/other/drain":   "That node is not in the swarm any more.",
		"/swarm/default/id1/dance":     "Nodes cannot be told to dance.",
		"/leases/x/release":            "That is not an address.",
	} {
		if status, text, _ := get(t, h, path); status != http.StatusNotFound || !strings.Contains(text, want) {
			t.Errorf("%s: status %d, %s", path, status, text)
		}
	}
}

// A mistake is shown with its line, and the place in it.
func TestMistakes(t *testing.T) {
	s := small()
	s.status.Mistakes = []web.Mistake{
		{Origin: boot.Origin{File: "profiles/worker.yaml", Line: 2, Column: 3}, Message: `unknown key "imagee"`, Hint: `did you mean "image"?`, Line: `  imagee: <stable>`},
		{Origin: boot.Origin{File: "bootd.yaml", Line: 1, Column: 99}, Message: "odd", Line: "ä"},
	}
	for _, path := range []string{"/", "/events"} {
		_, _, source := get(t, s.handler(t), path)
		want := `The configuration on disk has mistakes An older one stays in force until they are put right. profiles/worker.yaml:2:3 unknown key "imagee"; did you mean "image"? 2 imagee : <stable> bootd.yaml:1:99 odd 1 ä`
		if diff := cmp.Diff(want, section(t, source, "mistakes")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	s.status.Mistakes, s.status.Problem = nil, "bootd.yaml cannot be read"
	if _, _, source := get(t, s.handler(t), "/"); !strings.Contains(section(t, source, "mistakes"), "bootd.yaml cannot be read") {
		t.Error("a problem without a line is not shown")
	}
}

// What the next boot has otherwise is shown as a diff, and an earlier boot can be
// looked at.
func TestDiffAndEarlierBoot(t *testing.T) {
	s := small()
	d := s.details["node1"]
	d.Given = slices.Clone(d.Values)
	d.Values[2].Value.Value = "fedora-coreos/testing"
	d.Values[5].Sum = "changed"
	d.Given = append(d.Given, web.Value{Value: boot.Value{Key: "args.0", Value: "quiet"}})
	early := d.Boots[0].Clone()
	early.ID, early.Started = "early", early.Started.Add(-48*time.Hour)
	for i := range early.Steps {
		early.Steps[i].First = early.Steps[i].First.Add(-48 * time.Hour)
	}
	early.Profile = "frontend"
	d.Boots = append(d.Boots, early)
	s.details["node1"] = d
	h := s.handler(t)
	_, _, source := get(t, h, "/machines/node1")
	want := "At its next boot Setting Change image − fedora-coreos/stable + fedora-coreos/testing profiles/worker.yaml:2:8 " +
		"files./etc/motd ± hello the text differs further down profiles/worker.yaml:9:7 args.0 − quiet"
	if diff := cmp.Diff(want, section(t, source, "diff")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, text, _ := get(t, h, "/machines/node1?boot=early")
	for _, w := range []string{"Boot of", "profile frontend", "to the latest", "The single events of this boot are no longer kept"} {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in\n%s", w, text)
		}
	}
	d.Given = nil
	s.details["node1"] = d
	if _, text, _ = get(t, h, "/machines/node1"); !strings.Contains(text, "is not on record, so it cannot be compared") {
		t.Errorf("nothing says that it cannot be compared:\n%s", text)
	}
}

func TestStory(t *testing.T) {
	s := small()
	m := s.machines["node3"]
	s.event(m, boot.Event{Time: start.Add(-time.Minute), Stage: boot.Refused, Text: "its ticket has expired", Inventory: boot.Inventory{Serial: "CZ00003"}})
	w := httptest.NewRecorder()
	s.handler(t).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/machines/node3/story", nil))
	if got := w.Header().Get("Content-Disposition"); got != `attachment; filename="node3-20260304-044607.txt"` {
		t.Errorf("disposition %s", got)
	}
	for _, want := range []string{
		"Boot boot-node3 of node3 (52:54:00:00:00:03), as bootd 1.2.3 saw it\n",
		"serial        CZ00003\n", "firmware      UEFI x64\n",
		"   +8.900s  loader     firmware, snponly.efi by TFTP, 169.7 KiB, in 60ms\n",
		"+1140.000s  refused    10.0.0.3         its ticket has expired\n",
		"serial CZ00003\n",
		"Missing: script, since ",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in\n%s", want, w.Body)
		}
	}
}

// post sends a form as a browser does that shows this site.
func post(t *testing.T, h http.Handler, path string, form url.Values, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestOrders(t *testing.T) {
	s := small()
	h := s.handler(t)
	for _, tt := range []struct {
		path string
		form url.Values
		want string
		back string
	}{
		{"/machines/node-525400000005/do/approve", url.Values{"profile": {"worker"}, "name": {" node7 "}}, "approve node-525400000005 worker node7", "/machines/52-54-00-00-00-05"},
		{"/machines/node1/do/next", url.Values{"profile": {"rescue"}}, "next node1 rescue", "/machines/52-54-00-00-00-01"},
		{"/machines/node1/do/power", url.Values{"power": {"cycle"}}, "power node1   cycle", "/machines/52-54-00-00-00-01"},
		{"/machines/node1/do/reinstall", nil, "reinstall node1", "/machines/52-54-00-00-00-01"},
		{"/machines/node1/do/forget", nil, "forget node1", "/machines"},
		{"/swarm/default/id1/drain", url.Values{"reason": {"a new fan"}}, "drain default/id1 a new fan", "/swarm"},
		{"/swarm/default/id1/remove", nil, "remove default/id1 ", "/swarm"},
		{"/leases/10.0.100.0/release", nil, "release 10.0.100.0", "/networks"},
	} {
		s.orders = nil
		w := post(t, h, tt.path, tt.form, "Sec-Fetch-Site", "same-origin")
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != tt.back {
			t.Errorf("%s: status %d, to %s", tt.path, w.Code, w.Header().Get("Location"))
		}
		if diff := cmp.Diff([]string{tt.want}, s.orders); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.path, diff)
		}
		// What was done is said once.
		r := httptest.NewRequest(http.MethodGet, tt.back, nil)
		for _, c := range w.Result().Cookies() {
			r.AddCookie(c)
		}
		w = httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if !regexp.MustCompile(`role="status">[^<]+\.<`).MatchString(w.Body.String()) || len(w.Result().Cookies()) != 1 || w.Result().Cookies()[0].MaxAge != -1 {
			t.Errorf("%s: it is not said once: %v", tt.path, w.Result().Cookies())
		}
	}
}

// An order that is refused is asked for again, with what was typed and the
// reason; nothing that another site makes a browser send is an order, and
// neither is a GET.
func TestOrdersRefused(t *testing.T) {
	s := small()
	h := s.handler(t)
	s.refuse = &web.Refusal{Status: http.StatusConflict, Text: "node7 is the name of <another> already"}
	w := post(t, h, "/machines/node-525400000005/do/approve", url.Values{"profile": {"rescue"}, "name": {"node7"}})
	if w.Code != http.StatusConflict {
		t.Errorf("status %d", w.Code)
	}
	for _, want := range []string{`role="alert">node7 is the name of &lt;another&gt; already`, `value="node7"`, `<option value="rescue" selected>`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in\n%s", want, w.Body)
		}
	}
	s.refuse = errors.New("the store is closed")
	if w := post(t, h, "/swarm/default/id1/drain", nil); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "the store is closed") {
		t.Errorf("status %d\n%s", w.Code, w.Body)
	}
	s.refuse, s.orders = nil, nil
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "http://evil.example"}, {"Origin", "null"},
	} {
		if w := post(t, h, "/machines/node1/do/forget", nil, header...); w.Code != http.StatusForbidden {
			t.Errorf("%s: status %d", header, w.Code)
		}
	}
	get(t, h, "/machines/node1/do/forget")
	if len(s.orders) != 0 {
		t.Errorf("ordered %q", s.orders)
	}
	if w := post(t, h, "/machines/node1/do/forget", url.Values{"x": {strings.Repeat("x", 1<<20)}}); w.Code == http.StatusOK {
		t.Errorf("a form of 1 MiB is read: status %d", w.Code)
	}
}

// Whatever machines say of themselves is text on a page.
func TestHostileText(t *testing.T) {
	s := small()
	const evil = `"><script>alert(1)</script><svg onload=x>{{.}}`
	m := s.machines["node2"]
	m.Name, m.Inventory.Serial, m.Inventory.Product = evil, evil, evil
	delete(s.machines, "node2")
	s.machines[evil] = m
	s.details[evil] = s.details["node2"]
	s.event(m, boot.Event{Time: start, Stage: boot.Refused, Client: evil, Text: evil})
	s.leases[0].Host = evil
	s.nodes[0].Hostname, s.nodes[0].ID, s.nodes[0].Why, s.nodes[0].Labels = evil, evil, evil, map[string]string{evil: evil}
	s.status.Swarms[0].Notices = []string{evil}
	h := s.handler(t)
	for _, path := range []string{"/", "/machines", "/machines?q=" + url.QueryEscape(evil), "/machines?group=" + url.QueryEscape(evil), "/machines/52-54-00-00-00-02",
		"/networks?q=" + url.QueryEscape(evil), "/swarm", "/events", "/" + url.PathEscape(evil), "/machines/" + url.PathEscape(evil) + "/do/forget"} {
		_, _, source := get(t, h, path)
		doc, err := html.Parse(strings.NewReader(source))
		if err != nil {
			t.Fatal(err)
		}
		for n := range doc.Descendants() {
			if n.Type == html.ElementNode && (n.Data == "script" && attr(n, "src") == "" || attr(n, "onload") != "" || attr(n, "style") != "") {
				t.Errorf("%s: there is <%s %v>", path, n.Data, n.Attr)
			}
		}
	}
}

// Nothing comes from elsewhere, nothing is inline, and the browser is held to
// that.
func TestPolicy(t *testing.T) {
	h := small().handler(t)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "form-action 'self'"} {
		if !strings.Contains(w.Header().Get("Content-Security-Policy"), part) {
			t.Errorf("the policy lacks %s", part)
		}
	}
	files := regexp.MustCompile(`/static/[a-z.]+\?v=[0-9a-f]+`).FindAllString(w.Body.String(), -1)
	if len(files) != 3 {
		t.Fatalf("files %q", files)
	}
	for _, f := range files {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, f, nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: status %d, %s", f, w.Code, w.Header().Get("Cache-Control"))
		}
		if strings.Contains(strings.ReplaceAll(w.Body.String(), "http://www.w3.org/2000/svg", ""), "://") {
			t.Errorf("%s refers to another site", f)
		}
	}
	for _, path := range []string{"/static/app.css?v=old", "/static/../pages/layout.html", "/static/nothing"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if strings.Contains(w.Header().Get("Cache-Control"), "immutable") || strings.Contains(w.Body.String(), "{{") {
			t.Errorf("%s: %d %s", path, w.Code, w.Header().Get("Cache-Control"))
		}
	}
}

// TestMarkup looks for what people without eyes or a mouse would miss: each field
// has a label, each link and button a text, headings do not skip levels, IDs are
// there once, what labels refer to is there.
func TestMarkup(t *testing.T) {
	s := small()
	s.rack(60)
	h := s.handler(t)
	for _, path := range []string{"/", "/machines?group=stage", "/machines/node1", "/machines/node-525400000005", "/machines/node10", "/networks", "/swarm", "/events",
		"/machines/node-525400000005/do/approve", "/machines/node1/do/power", "/nothing"} {
		t.Run(path, func(t *testing.T) {
			_, _, source := get(t, h, path)
			doc, err := html.Parse(strings.NewReader(source))
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range markup(doc) {
				t.Error(problem)
			}
		})
	}
}

// markup lists what is wrong with a page.
func markup(doc *html.Node) (out []string) {
	ids, labels, mains, level := map[string]int{}, map[string]bool{}, 0, 0
	for n := range doc.Descendants() {
		if id := attr(n, "id"); id != "" {
			ids[id]++
		}
		if n.Data == "label" {
			labels[attr(n, "for")] = true
		}
	}
	for id, n := range ids {
		if n > 1 {
			out = append(out, fmt.Sprintf("id %q is there %d times", id, n))
		}
	}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		for _, ref := range []string{"aria-labelledby", "aria-describedby", "for"} {
			// The dialog's heading comes with its content.
			if to := attr(n, ref); to != "" && ids[to] == 0 && to != "ask-title" {
				out = append(out, fmt.Sprintf("<%s> refers to %q, which is not there", n.Data, to))
			}
		}
		named := textOf(n) != "" || attr(n, "aria-label") != ""
		switch n.Data {
		case "main":
			mains++
		case "a", "button", "summary", "th":
			if !named {
				out = append(out, fmt.Sprintf("<%s %v> has no text", n.Data, n.Attr))
			}
		case "input", "select":
			if attr(n, "type") != "hidden" && !labels[attr(n, "id")] {
				out = append(out, fmt.Sprintf("<%s %v> has no label", n.Data, n.Attr))
			}
		case "svg":
			if attr(n, "aria-hidden") == "" && attr(n, "aria-label") == "" {
				out = append(out, fmt.Sprintf("<svg %v> is neither named nor hidden", n.Attr))
			}
		case "h1", "h2", "h3":
			if now := int(n.Data[1] - '0'); now > level+1 {
				out = append(out, fmt.Sprintf("<%s> %s follows a heading of level %d", n.Data, textOf(n), level))
			} else {
				level = now
			}
		}
	}
	if mains != 1 {
		out = append(out, fmt.Sprintf("%d <main>", mains))
	}
	return out
}

// A list of 2,000 machines is in pages; what is looked for is found on any.
func TestManyMachines(t *testing.T) {
	s := newSite()
	s.rack(2000)
	h := s.handler(t)
	_, text, source := get(t, h, "/machines?page=3")
	if !strings.Contains(text, "201–300 of 2000") || !strings.Contains(source, `href="/machines?page=4"`) || !strings.Contains(source, `href="/machines?page=2"`) {
		t.Error("the third page does not turn")
	}
	if n := strings.Count(source, `<tr data-key`); n != 100 {
		t.Errorf("%d machines on a page", n)
	}
	if _, text, _ := get(t, h, "/machines?q=node1777"); !strings.Contains(text, "1–1 of 1") {
		t.Error("one of 2,000 is not found")
	}
	seen := map[string]bool{}
	for page := range 20 {
		_, _, source := get(t, h, fmt.Sprintf("/machines?group=stage&page=%d", page+1))
		for _, m := range regexp.MustCompile(`<tr data-key="([^"]+)"`).FindAllStringSubmatch(source, -1) {
			seen[m[1]] = true
		}
	}
	if len(seen) != 2000 {
		t.Errorf("%d machines on all pages", len(seen))
	}
	if _, _, source := get(t, h, "/"); len(source) > 300_000 {
		t.Errorf("the overview has %d bytes", len(source))
	}
}

func BenchmarkMachines(b *testing.B) {
	s := newSite()
	s.rack(2000)
	h := s.handler(b)
	for _, path := range []string{"/", "/machines", "/machines?q=node177", "/machines?group=profile"} {
		b.Run(path, func(b *testing.B) {
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
			}
		})
	}
}
