package ipxe

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"bootd/boot"
)

// retryAfter is what a machine is told to wait. Ignition has its own mind about
// it (200 ms, growing to 5 s); iPXE keeps to it.
const retryAfter = 5 * time.Second

// config answers /ignition/<ticket> and /initrd/<ticket>/config.cpio.
func (h *Handler) config(q request, ticket string, wrap bool) answer {
	tl, deny := h.admit(q, ticket, "Ignition config")
	switch {
	case deny != nil:
		return *deny
	case q.head:
		return answer{status: http.StatusOK, kind: configType(wrap)}
	}
	return h.render(q, tl, wrap)
}

// admit checks the ticket for a machine's secrets and returns its boot, or else
// the answer that denies them. what is asked for, for people.
func (h *Handler) admit(q request, ticket, what string) (tl boot.Timeline, deny *answer) {
	refuse := func(mac boot.MAC, why string) (boot.Timeline, *answer) {
		return boot.Timeline{}, new(h.refuse(q, mac, what, why))
	}
	t, err := h.Tickets.OpenBoot(ticket, q.addr, time.Now())
	if errors.Is(err, boot.ErrTicketMalformed) {
		return boot.Timeline{}, new(text(http.StatusForbidden, "this is not a ticket"))
	}
	if errors.Is(err, boot.ErrTicketForged) {
		return refuse(boot.MAC{}, err.Error())
	}
	tl, ok := h.Boots.Current(t.MAC)
	switch {
	case !ok || !t.Of(tl.ID):
		return refuse(t.MAC, "this ticket is of an earlier boot")
	case errors.Is(err, boot.ErrTicketExpired) && h.waited(tl):
	case err != nil:
		return refuse(t.MAC, err.Error())
	}
	if s, ok := past(tl); ok {
		return refuse(t.MAC, "this ticket has done its work: the machine is at stage "+string(s)+" already")
	}
	return tl, nil
}

// render makes the config of a machine whose ticket is good.
func (h *Handler) render(q request, tl boot.Timeline, wrap bool) answer {
	a, err := h.Assign(h.inventory(tl.MAC, q.addr))
	if err == nil && a.Profile == nil {
		err = ErrNotYet // its entry was taken away since; it may come back
	}
	var body []byte
	if err == nil {
		h.assigned(a)
		body, err = h.Render(q.Context(), RenderRequest{
			Assignment: a, Accept: q.Header.Get("Accept"), Wrap: wrap,
			ReportURL: q.base + "/report/" + h.Tickets.Report(tl.ID, tl.MAC),
		})
	}
	e := boot.Event{MAC: tl.MAC, Boot: tl.ID, Client: configClient(tl, wrap), Addr: q.addr, Time: time.Now()}
	switch {
	case err == nil:
	case errors.Is(err, ErrNotYet):
		e.Stage, e.Text = boot.Waiting, "Ignition config: "+err.Error()
		h.Boots.Record(e)
		a := text(http.StatusServiceUnavailable, "not ready yet; ask again")
		a.retry = retryAfter
		return a
	case errors.Is(err, ErrTooOld):
		e.Stage, e.Text = boot.Failed, "Ignition config: "+err.Error()
		h.Boots.Record(e)
		return text(http.StatusNotAcceptable, err.Error())
	default:
		h.Log.Error("Ignition config cannot be rendered", "mac", tl.MAC, "machine", a.Name, "err", err)
		e.Stage, e.Text = boot.Failed, "Ignition config: "+err.Error()
		h.Boots.Record(e)
		return text(http.StatusInternalServerError, "bootd cannot render this config; its log says why")
	}
	ans := answer{status: http.StatusOK, kind: configType(wrap), body: body}
	ans.sent = func(took time.Duration) {
		e.Time, e.Stage, e.Bytes, e.Took = time.Now(), boot.Ignition, int64(len(body)), took
		e.Text = "by URL"
		if wrap {
			e.Text = "as an initrd"
		}
		h.Boots.Record(e)
	}
	return ans
}

// refuse notes that somebody wanted a secret that he does not get. mac is whose
// it would have been, if that is known for certain.
func (h *Handler) refuse(q request, mac boot.MAC, what, why string) answer {
	if !h.refused.news(q.addr, time.Now()) {
		return text(http.StatusForbidden, why)
	}
	e := boot.Event{Time: time.Now(), MAC: mac, Stage: boot.Refused, Text: what + " asked for from " + q.addr.String() + ": " + why}
	if mac.IsZero() {
		// The recorder finds out who has it. Otherwise it would take this for
		// the address of the machine, and that may be the very point.
		e.Addr = q.addr
	}
	h.Boots.Record(e)
	h.Log.Warn("refused", "file", what, "mac", mac, "addr", q.addr, "err", why)
	return text(http.StatusForbidden, why)
}

// past returns the stage that shows that a boot needs no config any more.
func past(tl boot.Timeline) (boot.Stage, bool) {
	i := slices.IndexFunc(tl.Steps, func(s boot.Step) bool {
		switch s.Stage {
		case boot.Installed, boot.Up, boot.Engine, boot.Joined, boot.Ready:
			return true
		}
		return false
	})
	if i < 0 {
		return "", false
	}
	return tl.Steps[i].Stage, true
}

// waited reports whether the machine was told to wait, not longer ago than a
// ticket lasts: it has kept asking, so its ticket has not run out through its own
// fault.
func (h *Handler) waited(tl boot.Timeline) bool {
	return slices.ContainsFunc(tl.Steps, func(s boot.Step) bool {
		return s.Stage == boot.Waiting && time.Since(s.Last) < h.TicketLife
	})
}

func configType(wrap bool) string {
	if wrap {
		return typeData
	}
	return typeIgnition
}

// configClient is who fetches the config: as an initrd, the loader does.
func configClient(tl boot.Timeline, wrap bool) boot.Client {
	if wrap {
		return loaderOf(tl)
	}
	return boot.Initramfs
}
