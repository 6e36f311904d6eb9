package web

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
)

// A question is asked before an order is given.
type question struct {
	Title  string
	Text   []string // what will happen, a paragraph each
	Fields []input
	Button string
	Danger bool // what is done cannot be taken back
	Back   string
	Action string // URL that the answer is posted to
	Failed string // why the order before was refused
	give   func(context.Context, Order) (string, error)
	verb   Verb
}

// An input is a field of a question.
type input struct {
	Name, Label, Hint string
	Value             string
	Options           []string // choose one; none: free text
}

// ask shows the question that f makes.
func (d *dashboard) ask(f func(*http.Request) (*question, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d.serve(func(r *http.Request) (*page, error) {
			q, err := f(r)
			if err != nil {
				return nil, err
			}
			q.Action = r.URL.Path
			return &page{Title: q.Title, Body: q, file: "confirm"}, nil
		}).ServeHTTP(w, r)
	}
}

// do gives the order that the question was about, or asks again.
func (d *dashboard) do(f func(*http.Request) (*question, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := f(r)
		if err != nil {
			d.send(w, r, d.failed(r, err))
			return
		}
		text := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
		o := Order{Verb: q.verb, Profile: text("profile"), Name: text("name"), Power: text("power"), Reason: text("reason")}
		done, err := q.give(r.Context(), o)
		if err != nil {
			q.Action, q.Failed = r.URL.Path, err.Error()
			for i := range q.Fields {
				q.Fields[i].Value = text(q.Fields[i].Name)
			}
			d.send(w, r, &page{Title: q.Title, Body: q, file: "confirm", status: d.statusOf(r, err)})
			return
		}
		d.Log.Info("ordered by dashboard", "order", string(q.verb), "path", r.URL.Path)
		say(w, done)
		http.Redirect(w, r, q.Back, http.StatusSeeOther)
	}
}

func (d *dashboard) askMachine(r *http.Request) (*question, error) {
	m, err := d.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	q := &question{verb: Verb(r.PathValue("verb")), Back: "/machines/" + idOf(m)}
	q.give = func(ctx context.Context, o Order) (string, error) { return d.Orders.Machine(ctx, m, o) }
	profiles := d.State.Status().Profiles
	switch q.verb {
	case Approve:
		q.Title, q.Button = "Approve "+m.Name, "Approve"
		q.Text = []string{"It boots with this profile from now on, until an entry in the files says something else. It need not be switched on again: it asks every few seconds."}
		q.Fields = []input{{Name: "profile", Label: "Profile", Options: profiles, Value: m.Profile},
			{Name: "name", Label: "Host name", Value: m.Name, Hint: "letters, digits, dots and hyphens"}}
	case Next:
		q.Title, q.Button = "Next boot of "+m.Name, "Order"
		q.Text = []string{"At its next boot, and only then, it gets another profile. Nothing happens to the machine now."}
		q.Fields = []input{{Name: "profile", Label: "Profile", Options: append([]string{""}, profiles...), Value: m.Ordered.Next,
			Hint: "none: as its entry says, which also takes an order back"}}
	case Reinstall:
		q.Title, q.Button, q.Danger = "Reinstall "+m.Name, "Reinstall at its next boot", true
		q.Text = []string{"At its next boot the system on its disk is installed anew. What is on that disk is lost, datastores too unless its profile says vmfs: preserve."}
	case Keep:
		q.Title, q.Button = "Do not reinstall "+m.Name, "Take the order back"
		q.Text = []string{"The system on its disk stays as it is."}
	case Forget:
		q.Title, q.Button, q.Danger = "Forget "+m.Name, "Forget", true
		q.Text = []string{"Its boots, its lease and what was ordered for it are dropped. Entries in files stay. It is a stranger when it comes again."}
		q.Back = "/machines"
	case Power:
		return d.askPower(r.Context(), q, m), nil
	default:
		return nil, &Refusal{http.StatusNotFound, "Machines cannot be told to " + string(q.verb) + "."}
	}
	return q, nil
}

// askPower also says whether the machine is on.
func (d *dashboard) askPower(ctx context.Context, q *question, m Machine) *question {
	q.Title, q.Button, q.Danger = "Power of "+m.Name, "Switch", true
	state, err := d.Orders.Power(ctx, m)
	if err != nil {
		state = "Whether it is on is not known: " + err.Error()
	}
	q.Text = []string{state, "Off and cycle are like pulling the plug: what runs there ends at once. Shutdown asks the system, which leaves its swarm first."}
	q.Fields = []input{{Name: "power", Label: "What to do", Options: []string{"on", "shutdown", "off", "cycle"}, Value: "on"}}
	return q
}

func (d *dashboard) askNode(r *http.Request) (*question, error) {
	nodes, err := d.State.Nodes(r.Context())
	if err != nil {
		return nil, err
	}
	var n *Node
	for i := range nodes {
		if nodes[i].ID == r.PathValue("node") && nodes[i].Swarm == r.PathValue("swarm") {
			n = &nodes[i]
		}
	}
	if n == nil {
		return nil, &Refusal{http.StatusNotFound, "That node is not in the swarm any more. A diskless machine is a new node at every boot."}
	}
	q := &question{verb: Verb(r.PathValue("verb")), Back: "/swarm"}
	q.give = func(ctx context.Context, o Order) (string, error) { return d.Orders.Node(ctx, n.Swarm, n.ID, o) }
	lasts := "It lasts until somebody activates it"
	if n.Machine != "" {
		lasts += ", also over boots of its machine"
	}
	reason := []input{{Name: "reason", Label: "Reason", Hint: "for your colleagues; may be empty"}}
	switch q.verb {
	case Drain:
		q.Title, q.Button, q.Fields = "Drain "+n.Hostname, "Drain", reason
		q.Text = []string{"Its " + count(n.Tasks, "task", "tasks") + " move to other nodes, and it gets no new ones. " + lasts + "."}
	case Pause:
		q.Title, q.Button, q.Fields = "Pause "+n.Hostname, "Pause", reason
		q.Text = []string{"Its " + count(n.Tasks, "task stays", "tasks stay") + ", and it gets no new ones. " + lasts + "."}
	case Activate:
		q.Title, q.Button = "Activate "+n.Hostname, "Activate"
		q.Text = []string{"It gets tasks again."}
	case Remove:
		q.Title, q.Button, q.Danger = "Remove "+n.Hostname, "Remove", true
		q.Text = []string{"The swarm forgets the node. One that is ready, or that the managers' quorum needs, is refused: drain it and shut it down first."}
	default:
		return nil, &Refusal{http.StatusNotFound, "Nodes cannot be told to " + string(q.verb) + "."}
	}
	return q, nil
}

func (d *dashboard) askLease(r *http.Request) (*question, error) {
	addr, err := netip.ParseAddr(r.PathValue("addr"))
	if err != nil {
		return nil, &Refusal{http.StatusNotFound, "That is not an address."}
	}
	return &question{
		Title: "Release " + addr.String(), Button: "Release", Danger: true, Back: "/networks", verb: "release",
		Text: []string{"The lease ends. A machine that still runs with this address goes on using it until it asks again: switch it off first."},
		give: func(ctx context.Context, _ Order) (string, error) {
			return addr.String() + " is released.", d.Orders.Release(ctx, addr)
		},
	}, nil
}
