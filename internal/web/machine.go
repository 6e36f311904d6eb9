package web

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"bootd/boot"
)

// machineBody is the content of the page of one machine.
type machineBody struct {
	row
	Shown   *boot.Timeline // the boot that is shown; nil: none
	Latest  bool           // it is the latest
	Fall    fall
	Values  []Value
	Changes []change
	Known   bool // what its latest boot was given
	Boots   []pastBoot
	Events  []Event // of the boot that is shown, as far as they are kept
	Verbs   []verbLink
}

// A pastBoot is a boot in the list of a machine's boots.
type pastBoot struct {
	boot.Timeline
	Bar     bar
	Took    time.Duration
	Outcome string
	Shown   bool
}

// A verbLink leads to what can be ordered.
type verbLink struct{ Verb, Text, URL string }

// find finds a machine by hardware address or name.
func (d *dashboard) find(id string) (Machine, error) {
	mac, err := boot.ParseMAC(id)
	isMAC := err == nil && !mac.IsZero()
	for _, m := range d.State.Machines() {
		if isMAC && m.MAC == mac || strings.EqualFold(m.Name, id) {
			return m, nil
		}
	}
	return Machine{}, &Refusal{http.StatusNotFound, fmt.Sprintf("There is no machine %s. It may have been forgotten, or its entry removed.", id)}
}

func (d *dashboard) machine(r *http.Request) (*page, error) {
	m, err := d.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	det, err := d.State.Detail(r.Context(), m)
	if err != nil {
		return nil, err
	}
	now := d.Now()
	b := machineBody{row: rowOf(m, d.State.Status().Networks, now), Values: det.Values, Known: det.Given != nil, Verbs: verbsOf(m, det)}
	if b.Known {
		b.Changes = changes(det.Given, det.Values)
	}
	b.Shown, b.Latest, err = choose(det.Boots, r.URL.Query().Get("boot"))
	if err != nil {
		return nil, err
	}
	if b.Shown != nil {
		b.Fall = drawFall(b.Shown, now)
		b.Events = d.eventsOf(b.Shown.ID)
	}
	axis := time.Second
	for _, t := range det.Boots {
		length, _ := span(&t, now)
		axis = max(axis, length)
	}
	for _, t := range det.Boots {
		p := pastBoot{Timeline: t, Bar: drawBar(&t, axis, now), Shown: b.Shown != nil && t.ID == b.Shown.ID, Outcome: string(t.Stage())}
		p.Took, _ = span(&t, now)
		b.Boots = append(b.Boots, p)
	}
	live := "*"
	if !m.MAC.IsZero() {
		live = m.MAC.String()
	}
	return &page{Title: m.Name, Section: "/machines", Live: live, Body: b, file: "machine"}, nil
}

// choose finds the boot to show: the one with an ID, or the latest.
func choose(boots []boot.Timeline, id string) (t *boot.Timeline, latest bool, err error) {
	if len(boots) == 0 && id == "" {
		return nil, true, nil
	}
	for i := range boots {
		if id == "" || boots[i].ID == id {
			return &boots[i], i == 0, nil
		}
	}
	return nil, false, &Refusal{http.StatusNotFound, "That boot is no longer kept; bootd keeps the latest ones of each machine."}
}

// eventsOf are the events of a boot that are kept.
func (d *dashboard) eventsOf(id string) []Event {
	return slices.DeleteFunc(slices.Clone(d.Events.Past(0)), func(e Event) bool { return e.Boot != id })
}

// verbsOf are the orders that make sense for a machine.
func verbsOf(m Machine, det Detail) []verbLink {
	var out []verbLink
	add := func(v Verb, text string) {
		out = append(out, verbLink{string(v), text, "/machines/" + idOf(m) + "/do/" + string(v)})
	}
	if m.undecided() || m.Ordered.Approved {
		add(Approve, "Approve")
	}
	if !m.MAC.IsZero() {
		add(Next, "Next boot")
	}
	switch {
	case m.Ordered.Install:
		add(Keep, "Do not reinstall")
	case det.Installs && !m.MAC.IsZero():
		add(Reinstall, "Reinstall")
	}
	add(Power, "Power")
	if !m.First.IsZero() {
		add(Forget, "Forget")
	}
	return out
}

// A change is a value that the next boot has otherwise. Nil: there is none.
type change struct {
	Key           string
	Before, After *Value
	// Inside says that the texts begin alike and differ further down.
	Inside bool
}

// changes are what differs between two lists of values.
func changes(before, after []Value) []change {
	was := map[string]*Value{}
	for i := range before {
		was[before[i].Key] = &before[i]
	}
	var out []change
	for i := range after {
		v := &after[i]
		old := was[v.Key]
		delete(was, v.Key)
		switch {
		case old == nil:
			out = append(out, change{Key: v.Key, After: v})
		case old.Value.Value != v.Value.Value:
			out = append(out, change{Key: v.Key, Before: old, After: v})
		case old.Sum != v.Sum:
			out = append(out, change{Key: v.Key, Before: old, After: v, Inside: true})
		}
	}
	for i := range before {
		if v := was[before[i].Key]; v != nil {
			out = append(out, change{Key: v.Key, Before: v})
		}
	}
	return out
}

// story sends everything that happened in a boot, as text for whoever makes the
// firmware.
func (d *dashboard) story(w http.ResponseWriter, r *http.Request) {
	m, err := d.find(r.PathValue("id"))
	var t *boot.Timeline
	if err == nil {
		var det Detail
		if det, err = d.State.Detail(r.Context(), m); err == nil {
			t, _, err = choose(det.Boots, r.URL.Query().Get("boot"))
		}
	}
	if err == nil && t == nil {
		err = &Refusal{http.StatusNotFound, m.Name + " has not booted yet, so there is nothing to tell."}
	}
	if err != nil {
		d.send(w, r, d.failed(r, err))
		return
	}
	name := fmt.Sprintf("%s-%s.txt", plain(m.Name), t.Started.UTC().Format("20060102-150405"))
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(tell(m, t, d.eventsOf(t.ID), d.State.Status().Version, d.Now()))
}

// plain is a name without what a header or a file system could take amiss.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return '_'
	}, s)
}

// tell writes a boot down. Events are all that is kept of them; the steps, into
// which repeats are folded, are kept for longer.
func tell(m Machine, t *boot.Timeline, events []Event, version string, now time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Boot %s of %s (%s), as bootd %s saw it\n\n", t.ID, m.Name, t.MAC, version)
	for _, f := range inventory(m.Inventory) {
		fmt.Fprintf(&b, "%-13s %s\n", f.Name, f.Text)
	}
	fmt.Fprintf(&b, "%-13s %s\n%-13s %s\n", "profile", t.Profile, "began", t.Started.UTC().Format("2006-01-02 15:04:05.000 MST"))
	fmt.Fprintf(&b, "\nSTEPS (repeats are folded: the time is the first's)\n\n")
	for _, s := range t.Steps {
		fmt.Fprintf(&b, "%10s  %-9s  %s\n", "+"+seconds(s.First.Sub(t.Started)), s.Stage, stepText(s))
	}
	if miss, ok := t.Missing(now); ok {
		fmt.Fprintf(&b, "\nMissing: %s, since %s. If it stays away: %s\n", miss.Next, short(now.Sub(miss.Since)), miss.Reason)
	}
	if len(events) == 0 {
		fmt.Fprintf(&b, "\nThe single events of this boot are no longer kept.\n")
		return b.Bytes()
	}
	fmt.Fprintf(&b, "\nEVENTS (all that were seen, in the order in which bootd noted them)\n\n")
	for _, e := range events {
		s := boot.Step{Client: e.Client, Text: e.Text, Bytes: e.Bytes, Took: e.Took, Count: 1}
		addr := ""
		if e.Addr.IsValid() {
			addr = e.Addr.String()
		}
		fmt.Fprintf(&b, "%10s  %-9s  %-15s  %s\n", "+"+seconds(e.Time.Sub(t.Started)), e.Stage, addr, stepText(s))
		for _, f := range inventory(e.Inventory) {
			fmt.Fprintf(&b, "%42s%s %s\n", "", f.Name, f.Text)
		}
		if e.Node != "" {
			fmt.Fprintf(&b, "%42snode %s\n", "", e.Node)
		}
	}
	return b.Bytes()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3fs", d.Seconds()) }

// stepText is what a step says beside its stage.
func stepText(s boot.Step) string {
	var parts []string
	if s.Client != "" {
		parts = append(parts, string(s.Client))
	}
	if s.Text != "" {
		parts = append(parts, s.Text)
	}
	if s.Bytes > 0 {
		parts = append(parts, size(s.Bytes))
	}
	if s.Took > 0 {
		parts = append(parts, "in "+short(s.Took))
	}
	if s.Count > 1 {
		parts = append(parts, fmt.Sprintf("%d times, last after %s", s.Count, short(s.Last.Sub(s.First))))
	}
	return strings.Join(parts, ", ")
}

// A field is a named text.
type field struct{ Name, Text string }

// Facts are what is known of the machine itself.
func (b machineBody) Facts() []field { return inventory(b.Inventory) }

// inventory lists what a machine has told.
func inventory(inv boot.Inventory) []field {
	var out []field
	add := func(name, text string) {
		if text != "" {
			out = append(out, field{name, text})
		}
	}
	add("manufacturer", inv.Manufacturer)
	add("product", inv.Product)
	add("serial", inv.Serial)
	add("asset", inv.Asset)
	add("uuid", inv.UUID)
	if inv.ArchKnown {
		add("firmware", inv.Arch.String())
	}
	add("processor", inv.CPU)
	if inv.MemoryMB > 0 {
		add("memory", size(int64(inv.MemoryMB)<<20))
	}
	return out
}

// A storyLine is an event of a boot.
type storyLine struct {
	Event
	After, Look, From, Text string
	Told                    []field // of the machine itself
}

// Story are the events of the boot that is shown.
func (b machineBody) Story() []storyLine {
	var out []storyLine
	for _, e := range b.Events {
		l := storyLine{Event: e, After: seconds(e.Time.Sub(b.Shown.Started)), Look: look(e.Stage, e.Client), Told: inventory(e.Inventory),
			Text: stepText(boot.Step{Client: e.Client, Text: e.Text, Bytes: e.Bytes, Took: e.Took})}
		if e.Addr.IsValid() {
			l.From = e.Addr.String()
		}
		out = append(out, l)
	}
	return out
}
