package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"bootd/boot"
	"bootd/internal/api"
	"bootd/internal/client"
	"bootd/internal/config"
	"bootd/internal/override"
	"bootd/internal/timeline"
	"bootd/internal/web"
)

// A shownSite is the server as the dashboard sees it: the API's answers and
// orders, and what only pages show.
type shownSite struct {
	api   api.Config
	live  *live
	given *given
	*orders
}

// A dashboard is the pages as the server serves them.
type dashboard struct {
	pages    http.Handler
	sessions *web.Sessions // of the port; nil: there is none
	addr     net.Addr      // of the port
	services []service
}

// newDashboard makes the pages and binds their port, if they are to have one.
func newDashboard(cfg *config.Config, s shownSite, log *slog.Logger) (dashboard, error) {
	log = log.With("part", "dashboard")
	pages, err := web.New(web.Config{State: s, Events: s, Orders: shownOrders{s}, Now: time.Now, Log: log})
	d := dashboard{pages: pages}
	if err != nil || cfg.Dashboard == "" {
		return d, err
	}
	key, err := secretKey(filepath.Join(cfg.StateDir, "dashboard.key"), "the dashboard's sessions", "everybody has to log in again")
	if err != nil {
		return d, err
	}
	if d.sessions, err = web.NewSessions(key, time.Now); err != nil {
		return d, err
	}
	server, err := api.ListenTCP("dashboard", cfg.Dashboard, d.sessions.Guard(pages), log)
	if err != nil {
		return d, err
	}
	d.services, d.addr = []service{server}, server.Addr()
	log.Info("the dashboard listens", "addr", d.addr.String())
	return d, nil
}

// routes adds the pages to what operators can ask for at the socket, which ssh
// can forward to a browser, and the codes that let a browser in where the pages
// have a port. The controller's paths are put before all of them.
func (d dashboard) routes(controller func(http.Handler) http.Handler, operators http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/", operators)
	mux.Handle("/openapi.json", operators)
	mux.Handle("/metrics", operators)
	mux.Handle("/debug/", operators)
	mux.Handle("/", d.pages)
	mux.HandleFunc("POST /v1/dashboard", d.letIn)
	return web.Local(controller(mux))
}

// letIn answers with a link that lets one browser in.
func (d dashboard) letIn(w http.ResponseWriter, _ *http.Request) {
	if d.sessions == nil {
		sendJSON(w, http.StatusConflict, "application/problem+json", api.Problem{Title: "Conflict", Status: http.StatusConflict,
			Detail: "the dashboard has no port: add dashboard: {} to bootd.yaml and start bootd again"})
		return
	}
	sendJSON(w, http.StatusOK, "application/json", client.Dashboard{URL: "http://" + d.addr.String() + "/login?code=" + d.sessions.Code()})
}

func sendJSON(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a caller that is gone needs nothing
}

// Status implements [web.State].
func (s shownSite) Status() web.Status {
	st, c := s.api.Status(), s.live.catalog()
	s.live.mu.Lock()
	problem := s.live.problem
	s.live.mu.Unlock()
	out := web.Status{Version: st.Version, Started: st.Started, Dir: st.Config, Profiles: profileNames(s.live.config()), Problem: st.Problem}
	for _, n := range c.Networks {
		shown := web.Network{Network: n}
		for _, m := range st.Networks {
			if m.Name != n.Name {
				continue
			}
			for _, o := range m.Others {
				shown.Others = append(shown.Others, rival(o))
			}
		}
		out.Networks = append(out.Networks, shown)
	}
	for _, i := range st.Images {
		out.Images = append(out.Images, web.Image(i))
	}
	for _, w := range st.Swarms {
		out.Swarms = append(out.Swarms, web.Swarm{Name: w.Name, Phase: w.Phase, Text: w.Text, Host: w.Host, Notices: w.Notices})
	}
	var mistakes config.Mistakes
	if errors.As(problem, &mistakes) {
		for _, m := range mistakes {
			out.Mistakes = append(out.Mistakes, web.Mistake(m))
		}
	}
	return out
}

// Machines implements [web.State].
func (s shownSite) Machines() []web.Machine {
	return shownMachines(s.live.catalog(), s.record.Machines(), s.overrides)
}

// shownMachines joins the entries of the catalog with the machines that have
// been seen.
func shownMachines(c *boot.Catalog, seen []timeline.Seen, orders *override.Overrides) []web.Machine {
	var out []web.Machine
	met := map[*boot.Machine]bool{}
	for _, x := range seen {
		a, err := c.Assign(x.Inventory)
		m := web.Machine{Name: a.Name, MAC: x.MAC, Inventory: x.Inventory, Addr: x.Inventory.Addr, First: x.First, Last: x.Last, Boot: x.Current,
			Ordered: shownOrdered(orders.Get(x.MAC))}
		if a.Machine != nil {
			met[a.Machine] = true
			m.Entry = a.Machine.Origin.String()
		}
		if a.Profile != nil {
			m.Profile = a.Profile.Name
		}
		if err != nil {
			m.Problem = err.Error()
		}
		out = append(out, m)
	}
	for _, e := range c.Machines {
		if met[e] {
			continue
		}
		m := web.Machine{Name: e.Name, Profile: e.Profile, Entry: e.Origin.String(), Addr: e.IP}
		if len(e.Match.MAC) > 0 {
			m.MAC = e.Match.MAC[0]
			m.Ordered = shownOrdered(orders.Get(m.MAC))
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b web.Machine) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.MAC[:], b.MAC[:]))
	})
	return out
}

func shownOrdered(o override.Override) web.Ordered {
	out := web.Ordered{Approved: o.Approved != nil}
	if n := o.Next; n != nil && n.Boot == "" {
		out.Next = n.Profile
	}
	if h := o.Held; h != nil {
		out.Held, out.Reason = h.Availability, h.Reason
	}
	if i := o.Install; i != nil {
		out.Install = !i.Wanted.IsZero()
	}
	return out
}

// Detail implements [web.State].
func (s shownSite) Detail(ctx context.Context, m web.Machine) (web.Detail, error) {
	inv := boot.Inventory{MAC: m.MAC}.Merge(m.Inventory)
	c := s.live.catalog()
	for _, e := range c.Machines {
		if m.First.IsZero() && e.Origin.String() == m.Entry {
			inv = inv.Merge(expected(e)) // it has never been seen
		}
	}
	var out web.Detail
	a, err := s.live.assignNext(inv, "")
	if err == nil && a.Profile != nil { // else the machine says what is wrong
		out.Values = shownValues(settingsOf(a, c))
		out.Installs = a.Profile.Image != "" && s.live.family(a) == boot.ESXi
	}
	if m.MAC.IsZero() {
		return out, nil
	}
	if out.Boots, err = s.record.Boots(ctx, m.MAC); err != nil {
		return out, err
	}
	if len(out.Boots) > 0 {
		if was, ok := s.given.of(m.MAC, out.Boots[0].ID); ok {
			out.Given = shownValues(was)
		}
	}
	return out, nil
}

func shownValues(list []effective) []web.Value {
	out := make([]web.Value, len(list))
	for i, v := range list {
		out[i] = web.Value(v)
	}
	return out
}

// Leases implements [web.State].
func (s shownSite) Leases() []web.Lease {
	list := s.api.Leases()
	out := make([]web.Lease, len(list))
	for i, l := range list {
		out[i] = web.Lease(l)
	}
	return out
}

// Nodes implements [web.State].
func (s shownSite) Nodes(ctx context.Context) ([]web.Node, error) {
	if len(s.live.config().Swarms) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // a page must not wait for an engine that hangs
	defer cancel()
	list, err := s.api.Swarms.Nodes(ctx, "")
	if err != nil {
		return nil, err
	}
	out := make([]web.Node, len(list))
	for i, n := range list {
		out[i] = web.Node{Swarm: n.Swarm, ID: n.ID, Hostname: n.Hostname, Machine: n.Machine, Role: string(n.Role), Leader: n.Leader, Self: n.Self,
			State: n.State, Availability: n.Availability, Labels: n.Labels, Tasks: n.Tasks, Engine: n.Engine, Addr: n.Addr, Since: n.Since, Why: n.Why}
	}
	return out, nil
}

// Past implements [web.Events].
func (s shownSite) Past(seq uint64) []web.Event {
	kept := s.record.Since(seq)
	out := make([]web.Event, len(kept))
	for i, e := range kept {
		out[i] = web.Event{Seq: e.Seq, Event: e.Event}
	}
	return out
}

// Follow implements [web.Events].
func (s shownSite) Follow(ctx context.Context, seq uint64, f func(web.Event) error) error {
	return follow(ctx, s.record, seq, func(e api.Event) error { return f(web.Event{Seq: e.Seq, Event: e.Event}) })
}

// shownOrders carries out what is ordered on pages, as the API does.
type shownOrders struct{ shownSite }

// refused makes an error for a page of one for the API's caller.
func refused(err error) error {
	var p *api.Problem
	if errors.As(err, &p) {
		return &web.Refusal{Status: p.Status, Text: p.Error()}
	}
	return err
}

// Machine implements [web.Orders].
func (o shownOrders) Machine(ctx context.Context, m web.Machine, in web.Order) (string, error) {
	said, err := o.machine(ctx, asked(m), in)
	return said, refused(err)
}

// asked is a machine of a page as the API names it.
func asked(m web.Machine) api.Machine {
	return api.Machine{Name: m.Name, MAC: m.MAC, Profile: m.Profile, Entry: m.Entry, Addr: m.Addr, Inventory: m.Inventory}
}

func (o shownOrders) machine(ctx context.Context, m api.Machine, in web.Order) (string, error) {
	switch in.Verb {
	case web.Approve:
		return fmt.Sprintf("%s is approved, with profile %s.", cmp.Or(in.Name, m.Name), in.Profile),
			o.api.Orders.Approve(ctx, m, api.Approval{Name: in.Name, Profile: in.Profile})
	case web.Next:
		said := fmt.Sprintf("The next boot of %s gets profile %s.", m.Name, in.Profile)
		if in.Profile == "" {
			said = fmt.Sprintf("The next boot of %s is as its entry says.", m.Name)
		}
		return said, o.api.Orders.Next(ctx, m, api.Next{Profile: in.Profile})
	case web.Reinstall:
		return m.Name + " is installed anew at its next boot.", o.api.Orders.Install(ctx, m, true)
	case web.Keep:
		return "The system on the disk of " + m.Name + " stays.", o.api.Orders.Install(ctx, m, false)
	case web.Forget:
		return m.Name + " is forgotten.", o.api.Orders.Forget(ctx, m)
	case web.Power:
		return o.switchPower(ctx, m, in.Power)
	}
	return "", &api.Problem{Title: "Bad Request", Status: http.StatusBadRequest, Detail: fmt.Sprintf("machines cannot be told to %q", in.Verb)}
}

func (o shownOrders) switchPower(ctx context.Context, m api.Machine, action string) (string, error) {
	if !slices.Contains([]string{"on", "off", "shutdown", "cycle"}, action) {
		return "", &api.Problem{Title: "Bad Request", Status: http.StatusBadRequest, Detail: fmt.Sprintf("power cannot be %q, only on, off, shutdown or cycle", action)}
	}
	s, err := o.api.Power.Switch(ctx, m, api.PowerOrder{Action: action})
	if err != nil {
		return "", err
	}
	said := fmt.Sprintf("%s is %s.", m.Name, s.State)
	if !s.Changed {
		said = fmt.Sprintf("%s was %s already.", m.Name, s.State)
	}
	if s.Text != "" {
		said = m.Name + ": " + s.Text
	}
	return said, nil
}

// Power implements [web.Orders].
func (o shownOrders) Power(ctx context.Context, m web.Machine) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // who asks can switch it without knowing
	defer cancel()
	s, err := o.api.Power.State(ctx, asked(m))
	switch {
	case err != nil:
		return "", err
	case s.Kind == boot.NoPower || s.Kind == "":
		return "It can only be switched by hand: no power: is configured for it.", nil
	case s.Text != "":
		return "Whether it is on is not known: " + s.Text + ".", nil
	}
	return "It is " + s.State + ".", nil
}

// Node implements [web.Orders].
func (o shownOrders) Node(ctx context.Context, swarm, id string, in web.Order) (string, error) {
	words := map[web.Verb]struct{ availability, said string }{
		web.Drain:    {"drain", "%s is drained; its tasks move."},
		web.Pause:    {"pause", "%s gets no new tasks."},
		web.Activate: {"active", "%s takes tasks again."},
	}
	if in.Verb == web.Remove {
		r, err := o.api.Swarms.Remove(ctx, swarm, id, false)
		return r.Hostname + " is removed.", refused(err)
	}
	w, ok := words[in.Verb]
	if !ok {
		return "", &web.Refusal{Status: http.StatusBadRequest, Text: fmt.Sprintf("nodes cannot be told to %q", in.Verb)}
	}
	n, err := o.api.Swarms.SetAvailability(ctx, swarm, id, api.Availability{Availability: w.availability, Reason: in.Reason})
	return fmt.Sprintf(w.said, n.Hostname), refused(err)
}

// Release implements [web.Orders].
func (o shownOrders) Release(ctx context.Context, addr netip.Addr) error {
	return refused(o.api.Orders.Release(ctx, addr))
}
