package web

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"bootd/boot"
)

const (
	// fewBoots is how many boots the overview draws.
	fewBoots = 12
	// fewNeeds is how many machines it lists that need somebody.
	fewNeeds = 6
	// fewEvents is how many events it lists.
	fewEvents = 12
	// recent is how long a boot that is done stays in the picture.
	recent = 10 * time.Minute
	// fewTiles is how many machines or nodes are drawn as links of their own.
	fewTiles = 300
)

// overviewBody is the content of the first page.
type overviewBody struct {
	Facets []facet
	Fleet  fleet
	Boots  []bootLine
	More   int // boots under way that are not drawn
	Legend []string
	Needs  []row // machines that need somebody
	Others int   // further ones
	Pools  []pool
	Nodes  []tile
	ByNode []facet // how many nodes are in each condition
	Failed string  // why the nodes are not known
	Events []eventLine
}

// A bootLine is a machine and its boot on the common axis.
type bootLine struct {
	row
	Bar  bar
	Took time.Duration
	Done bool
}

// A tile is a small square that stands for a machine or a node.
type tile struct {
	Look, Text, URL string
	X, Y            int
}

// A fleet is a picture of all machines: a square each, in the order of their
// names.
type fleet struct {
	Width, Height int
	Tiles         []tile  // of few
	Paths         []tile  // of many: Text is the path of all squares of one look
	Count         []facet // for who cannot see it
}

const tileSize = 12

// drawFleet draws machines.
func drawFleet(all []row, columns int) fleet {
	rows := (len(all) + columns - 1) / columns
	f := fleet{Width: min(len(all), columns) * tileSize, Height: rows * tileSize}
	if len(all) <= fewTiles {
		for i, r := range all {
			f.Tiles = append(f.Tiles, tile{r.Condition, r.Name + ": " + r.Said(), "/machines/" + idOf(r.Machine), i % columns * tileSize, i / columns * tileSize})
		}
		return f
	}
	paths := map[string]*strings.Builder{}
	for i, r := range all {
		if paths[r.Condition] == nil {
			paths[r.Condition] = &strings.Builder{}
		}
		b := paths[r.Condition]
		b.WriteString("M")
		b.WriteString(itoa(i % columns * tileSize))
		b.WriteString(" ")
		b.WriteString(itoa(i / columns * tileSize))
		b.WriteString("h9v9h-9z")
	}
	for _, c := range conditions {
		if b := paths[c.name]; b != nil {
			f.Paths = append(f.Paths, tile{Look: c.name, Text: b.String()})
		}
	}
	return f
}

func (d *dashboard) overview(r *http.Request) (*page, error) {
	now, status := d.Now(), d.State.Status()
	all := d.rows()
	b := overviewBody{Facets: facets(all, machinesBody{}), Fleet: drawFleet(all, 80)}
	b.Boots, b.More = bootLines(all, now)
	b.Legend = legend(b.Boots)
	b.Needs, b.Others = needs(all)
	b.Pools = pools(status.Networks, d.State.Leases(), now)
	nodes, err := d.State.Nodes(r.Context())
	if err != nil {
		b.Failed = err.Error()
	}
	b.Nodes, b.ByNode = nodeTiles(nodes)
	b.Events = d.eventLines(fewEvents, nil, all)
	return &page{Title: "Now", Section: "/", Live: "*", Body: b, file: "overview"}, nil
}

// bootLines are the boots under way and those that were done a moment ago, the
// latest first, on one axis from each machine's own power-on.
func bootLines(all []row, now time.Time) (lines []bootLine, more int) {
	axis := time.Second
	var current []row
	for _, r := range all {
		if r.Condition == booting || r.Condition == up && now.Sub(r.Since) < recent {
			current = append(current, r)
		}
	}
	slices.SortStableFunc(current, func(a, b row) int {
		return cmp.Or(-compareBool(a.Condition == booting, b.Condition == booting), b.Boot.Started.Compare(a.Boot.Started))
	})
	if len(current) > fewBoots {
		for _, r := range current[fewBoots:] {
			if r.Condition == booting {
				more++
			}
		}
		current = current[:fewBoots]
	}
	for _, r := range current {
		length, _ := span(r.Boot, now)
		axis = max(axis, length)
	}
	for _, r := range current {
		length, _ := span(r.Boot, now)
		lines = append(lines, bootLine{row: r, Bar: drawBar(r.Boot, axis, now), Took: length, Done: r.Condition == up})
	}
	return lines, more
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// legend are the parts of boots that occur in bars, in their order.
func legend(lines []bootLine) []string {
	seen := map[string]bool{}
	for _, l := range lines {
		for _, s := range l.Bar.Segments {
			seen[s.Name] = true
		}
	}
	return slices.DeleteFunc(boot.SpanNames(), func(name string) bool { return !seen[name] })
}

// needs are the machines that need somebody: first those that wait for a
// decision, then those that changed last.
func needs(all []row) (out []row, more int) {
	for _, r := range all {
		if r.Condition == undecided || r.Condition == trouble || r.Condition == late {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b row) int {
		return cmp.Or(-compareBool(a.Condition == undecided, b.Condition == undecided), b.Since.Compare(a.Since))
	})
	if len(out) > fewNeeds {
		return out[:fewNeeds], len(out) - fewNeeds
	}
	return out, 0
}

// An eventLine is an event with the name of its machine.
type eventLine struct {
	Event
	Name, URL string
	Look      string
	Text      string
}

// eventLines are the latest events that match the words, newest first.
func (d *dashboard) eventLines(n int, words []string, all []row) []eventLine {
	names := map[boot.MAC]row{}
	for _, r := range all {
		names[r.MAC] = r
	}
	past := d.Events.Past(0)
	var out []eventLine
	for i := len(past) - 1; i >= 0 && len(out) < n; i-- {
		e := past[i]
		l := eventLine{Event: e, Look: look(e.Stage, e.Client), Text: stepText(boot.Step{Client: e.Client, Text: e.Text, Bytes: e.Bytes, Took: e.Took})}
		if r, ok := names[e.MAC]; ok && !e.MAC.IsZero() {
			l.Name, l.URL = r.Name, "/machines/"+idOf(r.Machine)
		}
		if l.matches(words) {
			out = append(out, l)
		}
	}
	return out
}

// matches reports whether every word is in what the line says.
func (l *eventLine) matches(words []string) bool {
	if len(words) == 0 {
		return true
	}
	text := strings.ToLower(strings.Join([]string{l.Name, l.MAC.String(), string(l.Stage), l.Text, l.Addr.String()}, "\n"))
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}

// eventsBody is the content of the page of events.
type eventsBody struct {
	Query string
	Lines []eventLine
}

// manyEvents is how many events their own page lists.
const manyEvents = 250

func (d *dashboard) events(r *http.Request) (*page, error) {
	q := r.URL.Query().Get("q")
	b := eventsBody{q, d.eventLines(manyEvents, strings.Fields(strings.ToLower(q)), d.rows())}
	return &page{Title: "Events", Section: "/events", Live: "*", Body: b, file: "events"}, nil
}
