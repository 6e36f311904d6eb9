package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"bootd/boot"
)

// perPage is how many machines a page lists.
const perPage = 100

// The conditions of machines, in the order in which they need somebody.
const (
	undecided = "undecided" // waits for somebody to say what it is to be
	trouble   = "trouble"   // nobody can say what it boots
	late      = "late"      // something should have come by now
	booting   = "booting"
	up        = "up"   // as far as its profile leads
	left      = "left" // has left its swarm, shutting down
	unseen    = "unseen"
)

var conditions = []struct{ name, text string }{
	{undecided, "to approve"},
	{trouble, "unclear"},
	{late, "stuck"},
	{booting, "booting"},
	{up, "up"},
	{left, "shut down"},
	{unseen, "never seen"},
}

// undecided reports whether a machine waits for somebody to decide what it is.
func (m Machine) undecided() bool { return m.Profile == "" && m.Problem == "" && m.Boot != nil }

// A row is a machine as lists show it.
type row struct {
	Machine
	Condition string
	Stage     boot.Stage
	Since     time.Time // of Stage
	Why       string    // what it waits for, and why
	Network   string
	haystack  string // what words are looked for in; made when it is needed
}

// rowOf looks at a machine.
func rowOf(m Machine, networks []Network, now time.Time) row {
	r := row{Machine: m, Condition: unseen}
	for _, n := range networks {
		if n.Subnet.Contains(m.Addr) {
			r.Network = n.Name
			break
		}
	}
	t := m.Boot
	if t == nil {
		if m.Problem != "" {
			r.Condition, r.Why = trouble, m.Problem
		}
		return r
	}
	r.Stage, r.Since = t.Stage(), t.Started
	for _, s := range t.Steps {
		if s.Stage == r.Stage {
			r.Since = s.First
			break
		}
	}
	miss, waits := t.Missing(now)
	if waits {
		r.Why = "waits for " + string(miss.Next)
	}
	switch {
	case m.Problem != "":
		r.Condition, r.Why = trouble, m.Problem
	case m.undecided():
		r.Condition, r.Why = undecided, "no entry matches it"
	case waits && miss.Late:
		r.Condition, r.Why = late, miss.Reason
	case waits:
		r.Condition = booting
	default:
		r.Condition = up
	}
	if at, ok := leaving(t); ok {
		r.Condition, r.Stage, r.Since, r.Why = left, boot.Left, at, ""
	}
	return r
}

// leaving reports when a machine has left its swarm, unless it has joined again.
func leaving(t *boot.Timeline) (time.Time, bool) {
	var out, in time.Time
	for _, s := range t.Steps {
		switch {
		case s.Stage == boot.Left && s.Last.After(out):
			out = s.Last
		case s.Stage == boot.Joined && s.Last.After(in):
			in = s.Last
		}
	}
	return out, out.After(in)
}

// Said names the condition for people.
func (r row) Said() string {
	switch r.Condition {
	case undecided:
		return "to approve"
	case late:
		return "stuck after " + string(r.Stage)
	case trouble:
		return "unclear"
	case booting, up:
		return string(r.Stage)
	case left:
		return "shut down"
	}
	return "never seen"
}

// Bar is its latest boot.
func (r row) Bar(now time.Time) *bar {
	if r.Boot == nil {
		return nil
	}
	b := drawBar(r.Boot, 0, now)
	return &b
}

// rows looks at all machines.
func (d *dashboard) rows() []row {
	now, networks := d.Now(), d.State.Status().Networks
	list := d.State.Machines()
	out := make([]row, len(list))
	for i, m := range list {
		out[i] = rowOf(m, networks, now)
	}
	slices.SortStableFunc(out, func(a, b row) int { return natural(a.Name, b.Name) })
	return out
}

// natural compares names as people count: node2 comes before node10.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x > 0 && y > 0 {
			m, n := strings.TrimLeft(a[:x], "0"), strings.TrimLeft(b[:y], "0")
			if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n)); c != 0 {
				return c
			}
			a, b = a[x:], b[y:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits is how many digits s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// matches reports whether every word of a filter is in the row: key:value for
// one of its facets, anything else anywhere.
func (r *row) matches(words []string) bool {
	for _, w := range words {
		key, value, facet := strings.Cut(w, ":")
		switch {
		case facet && key == "state":
			if !strings.EqualFold(r.Condition, value) {
				return false
			}
		case facet && key == "stage":
			if !strings.EqualFold(string(r.Stage), value) {
				return false
			}
		case facet && key == "profile":
			if !strings.EqualFold(r.Profile, value) {
				return false
			}
		case facet && key == "network":
			if !strings.EqualFold(r.Network, value) {
				return false
			}
		default:
			if !strings.Contains(r.text(), w) {
				return false
			}
		}
	}
	return true
}

// text is all that a person may look for.
func (r *row) text() string {
	if r.haystack == "" {
		parts := []string{r.Name, r.Profile, string(r.Stage), r.Network, r.Inventory.Serial, r.Inventory.Manufacturer, r.Inventory.Product,
			r.Inventory.Asset, r.Inventory.UUID, r.Entry}
		if !r.MAC.IsZero() {
			parts = append(parts, r.MAC.String(), r.MAC.Hyphens())
		}
		if r.Addr.IsValid() {
			parts = append(parts, r.Addr.String())
		}
		r.haystack = strings.ToLower(strings.Join(parts, "\n"))
	}
	return r.haystack
}

// machinesBody is the content of the list of machines.
type machinesBody struct {
	Query, Group string
	Facets       []facet
	Groupings    []facet
	Groups       []group
	Found, All   int
	From, To     int
	Page, Pages  int
	Earlier      string // URLs; empty: there is none
	Later        string
}

// A facet is a link that narrows or changes the list.
type facet struct {
	Name, Text, URL string
	Count           int
	Current         bool
}

// A group is machines under a heading; none if they are not grouped.
type group struct {
	Name string
	Of   int // in all, also on other pages
	Rows []row
}

func (d *dashboard) machineList(r *http.Request) (*page, error) {
	q := r.URL.Query()
	b := machinesBody{Query: q.Get("q"), Group: q.Get("group")}
	words := strings.Fields(strings.ToLower(b.Query))
	all := d.rows()
	b.All = len(all)
	b.Facets = facets(all, b)
	b.Groupings = groupings(b)
	found := slices.DeleteFunc(all, func(x row) bool { return !x.matches(words) })
	b.Found = len(found)
	key := groupKey(b.Group)
	slices.SortStableFunc(found, func(x, y row) int { return natural(key(x), key(y)) })
	b.Pages = max(1, (b.Found+perPage-1)/perPage)
	n, err := strconv.Atoi(q.Get("page"))
	if err != nil {
		n = 1
	}
	b.Page = min(max(n, 1), b.Pages)
	from := (b.Page - 1) * perPage
	shown := found[from:min(from+perPage, b.Found)]
	b.From, b.To = min(from+1, b.Found), from+len(shown)
	if b.Page > 1 {
		b.Earlier = listURL(b.Query, b.Group, b.Page-1)
	}
	if b.Page < b.Pages {
		b.Later = listURL(b.Query, b.Group, b.Page+1)
	}
	totals := map[string]int{}
	for _, x := range found {
		totals[key(x)]++
	}
	for _, x := range shown {
		name := key(x)
		if len(b.Groups) == 0 || b.Groups[len(b.Groups)-1].Name != name {
			b.Groups = append(b.Groups, group{Name: name, Of: totals[name]})
		}
		g := &b.Groups[len(b.Groups)-1]
		g.Rows = append(g.Rows, x)
	}
	return &page{Title: "Machines", Section: "/machines", Live: "*", Body: b, file: "machines"}, nil
}

// groupKey is what machines are grouped by.
func groupKey(name string) func(row) string {
	other := func(s, instead string) string {
		if s == "" {
			return instead
		}
		return s
	}
	switch name {
	case "profile":
		return func(r row) string { return other(r.Profile, "no profile") }
	case "stage":
		return func(r row) string { return r.Said() }
	case "network":
		return func(r row) string { return other(r.Network, "no network") }
	}
	return func(row) string { return "" }
}

// facets are how many machines are in each condition.
func facets(all []row, b machinesBody) []facet {
	counts := map[string]int{}
	for _, r := range all {
		counts[r.Condition]++
	}
	var rest []string
	current := ""
	for _, w := range strings.Fields(b.Query) {
		if value, ok := strings.CutPrefix(w, "state:"); ok {
			current = value
			continue
		}
		rest = append(rest, w)
	}
	out := []facet{{Name: "all", Text: "all", Count: len(all), URL: listURL(strings.Join(rest, " "), b.Group, 1), Current: current == ""}}
	for _, c := range conditions {
		if counts[c.name] > 0 || current == c.name {
			out = append(out, facet{Name: c.name, Text: c.text, Count: counts[c.name], Current: current == c.name,
				URL: listURL(strings.Join(append([]string{"state:" + c.name}, rest...), " "), b.Group, 1)})
		}
	}
	return out
}

func groupings(b machinesBody) []facet {
	var out []facet
	for _, g := range []struct{ name, text string }{{"", "none"}, {"profile", "profile"}, {"stage", "stage"}, {"network", "network"}} {
		out = append(out, facet{Name: g.name, Text: g.text, URL: listURL(b.Query, g.name, 1), Current: g.name == b.Group})
	}
	return out
}

// listURL is the list with a filter, in groups, from a page on.
func listURL(query, group string, n int) string {
	v := url.Values{}
	if query != "" {
		v.Set("q", query)
	}
	if group != "" {
		v.Set("group", group)
	}
	if n > 1 {
		v.Set("page", strconv.Itoa(n))
	}
	if len(v) == 0 {
		return "/machines"
	}
	return "/machines?" + v.Encode()
}
