package ipxe

import (
	"errors"
	"net/http"
	"time"

	"bootd/boot"
)

// join answers /join/<ticket>: how a node joins its swarm now, for one whose
// token was replaced after it got its config. The ticket is the one for
// reports, which only root can read on the node. What it gives is a secret all
// the same, so it is good only from the machine's own address, in its present
// boot, and while the node is not in the swarm.
func (h *Handler) join(q request, ticket string) answer {
	t, err := h.Tickets.OpenReport(ticket)
	if err != nil {
		return h.refuseJoin(q, boot.MAC{}, http.StatusForbidden, err.Error())
	}
	tl, ok := h.Boots.Current(t.MAC)
	if !ok || !t.Of(tl.ID) {
		return h.refuseJoin(q, t.MAC, http.StatusConflict, "this ticket is of an earlier boot")
	}
	a, err := h.Assign(h.inventory(tl.MAC, q.addr))
	switch {
	case !h.at(a.Network, q, tl.MAC):
		return h.refuseJoin(q, t.MAC, http.StatusForbidden, "this ticket belongs to another address")
	case joined(tl):
		return h.refuseJoin(q, t.MAC, http.StatusConflict, "the node has joined already")
	case h.Joining == nil || err == nil && (a.Profile == nil || a.Profile.Swarm == nil):
		return text(http.StatusNotFound, "this machine is to join no swarm")
	}
	if q.head {
		return answer{status: http.StatusOK, kind: typeJSON}
	}
	var body []byte
	if err == nil {
		body, err = h.Joining(q.Context(), a)
	}
	if err != nil {
		if !errors.Is(err, ErrNotYet) {
			h.Log.Error("a node cannot be told how to join", "mac", t.MAC, "machine", a.Name, "err", err)
		}
		ans := text(http.StatusServiceUnavailable, "not ready yet; ask again")
		ans.retry = retryAfter
		return ans
	}
	return answer{status: http.StatusOK, kind: typeJSON, body: body}
}

// at reports whether a request comes from where a machine can be: from the
// address that is leased to it, or, where somebody else gives the addresses,
// from its network.
func (h *Handler) at(n *boot.Network, q request, mac boot.MAC) bool {
	switch {
	case h.Holder == nil:
		return true
	case n == nil:
		return false
	case !leased(n):
		return n.Subnet.Contains(q.addr)
	}
	holder, ok := h.Holder(q.addr)
	return ok && holder == mac
}

// joined reports whether a node is in the swarm, by what it has reported last.
func joined(tl boot.Timeline) bool {
	var in, out time.Time
	for _, s := range tl.Steps {
		switch {
		case s.Stage == boot.Joined && s.Last.After(in):
			in = s.Last
		case s.Stage == boot.Left && s.Last.After(out):
			out = s.Last
		}
	}
	return in.After(out)
}

func (h *Handler) refuseJoin(q request, mac boot.MAC, status int, why string) answer {
	if h.refused.news(q.addr, time.Now()) {
		if !mac.IsZero() {
			h.Boots.Record(boot.Event{Time: time.Now(), MAC: mac, Stage: boot.Refused,
				Text: "way into the swarm asked for from " + q.addr.String() + ": " + why})
		}
		h.Log.Warn("way into the swarm refused", "mac", mac, "addr", q.addr, "err", why)
	}
	return text(status, why)
}
