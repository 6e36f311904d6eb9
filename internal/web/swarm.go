package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
)

// swarmBody is the content of the page of swarms.
type swarmBody struct {
	Swarms []swarmPart
	Failed string // why the nodes are not known
}

// A swarmPart is a swarm with its nodes.
type swarmPart struct {
	Swarm
	Nodes []nodeLine
	Tasks int
	Most  int // tasks of the node that has most
}

// A nodeLine is a node with what can be ordered.
type nodeLine struct {
	Node
	Condition string
	URL       string // of its machine; empty: none
	Share     float64
	Verbs     []verbLink
}

// condition is how a node is, for pictures.
func (n Node) condition() string {
	switch {
	case n.State != "ready":
		return "down"
	case n.Availability == "drain":
		return "drained"
	case n.Availability == "pause":
		return "paused"
	}
	return "ready"
}

func (d *dashboard) swarm(r *http.Request) (*page, error) {
	var b swarmBody
	nodes, err := d.State.Nodes(r.Context())
	if err != nil {
		b.Failed = err.Error()
	}
	urls := map[string]string{}
	for _, m := range d.State.Machines() {
		urls[m.Name] = "/machines/" + idOf(m)
	}
	for _, s := range d.State.Status().Swarms {
		part := swarmPart{Swarm: s}
		for _, n := range nodes {
			if n.Swarm != s.Name {
				continue
			}
			part.Tasks, part.Most = part.Tasks+n.Tasks, max(part.Most, n.Tasks)
			part.Nodes = append(part.Nodes, nodeLine{Node: n, Condition: n.condition(), URL: urls[n.Machine], Verbs: nodeVerbs(n)})
		}
		for i := range part.Nodes {
			part.Nodes[i].Share = float64(part.Nodes[i].Tasks) / float64(max(part.Most, 1))
		}
		slices.SortStableFunc(part.Nodes, func(a, b nodeLine) int {
			return cmp.Or(cmp.Compare(a.Role, b.Role), natural(a.Hostname, b.Hostname))
		})
		b.Swarms = append(b.Swarms, part)
	}
	return &page{Title: "Swarm", Section: "/swarm", Live: "*", Body: b, file: "swarm"}, nil
}

// nodeVerbs are the orders that make sense for a node.
func nodeVerbs(n Node) []verbLink {
	var out []verbLink
	add := func(v Verb, text string) { out = append(out, verbLink{string(v), text, nodeURL(n, v)}) }
	if n.Availability != "active" {
		add(Activate, "Activate")
	}
	if n.Availability != "drain" {
		add(Drain, "Drain")
	}
	if n.Availability == "active" {
		add(Pause, "Pause")
	}
	if !n.Self {
		add(Remove, "Remove")
	}
	return out
}

func nodeURL(n Node, v Verb) string {
	return "/swarm/" + url.PathEscape(n.Swarm) + "/" + url.PathEscape(n.ID) + "/" + string(v)
}

// nodeTiles draws the nodes of all swarms, and counts them.
func nodeTiles(nodes []Node) (tiles []tile, counts []facet) {
	n := map[string]int{}
	for _, x := range nodes {
		n[x.condition()]++
		if len(nodes) <= fewTiles {
			text := x.Hostname + ": " + x.State + ", " + x.Availability + ", " + count(x.Tasks, "task", "tasks")
			tiles = append(tiles, tile{Look: x.condition(), Text: text, URL: "/swarm#" + x.ID})
		}
	}
	for _, c := range []string{"ready", "paused", "drained", "down"} {
		if n[c] > 0 {
			counts = append(counts, facet{Name: c, Text: c, Count: n[c]})
		}
	}
	return tiles, counts
}
