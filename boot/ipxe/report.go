package ipxe

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"bootd/boot"
)

const (
	maxReport     = 4 << 10 // bytes of a report
	maxReportText = 512     // of its text that are kept
)

// A Report is what a machine tells of its boot, as JSON.
type Report struct {
	Stage boot.Stage `json:"stage"`          // installed, up, engine, joined, left
	Node  string     `json:"node,omitempty"` // swarm node ID
	Text  string     `json:"text,omitempty"` // for people
}

// parseReport reads a report strictly: a misspelled key is a mistake in the unit
// that sent it, and should show there.
func parseReport(r io.Reader) (Report, error) {
	var rep Report
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&rep); err != nil {
		return rep, errors.New("cannot read report: " + err.Error())
	}
	if _, err := d.Token(); err != io.EOF {
		return rep, errors.New("cannot read report: there is something after it")
	}
	switch rep.Stage {
	case boot.Installed, boot.Up, boot.Engine, boot.Joined, boot.Left:
	default:
		return rep, errors.New("cannot read report: stage is one of installed, up, engine, joined, left")
	}
	if len(rep.Node) > 64 || strings.Trim(rep.Node, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return rep, errors.New("cannot read report: node is not a swarm node ID")
	}
	rep.Text = clean(rep.Text, maxReportText)
	return rep, nil
}

// report answers /report/<ticket>.
func (h *Handler) report(w http.ResponseWriter, q request, ticket string) answer {
	t, err := h.Tickets.OpenReport(ticket)
	if err != nil {
		return text(http.StatusForbidden, err.Error())
	}
	tl, ok := h.Boots.Current(t.MAC)
	// An installed system has the ticket of the boot that installed it.
	later := ok && !t.Of(tl.ID) && h.installedBy(t)
	if !ok || !t.Of(tl.ID) && !later {
		return text(http.StatusConflict, "this ticket is of an earlier boot")
	}
	rep, err := parseReport(http.MaxBytesReader(w, q.Body, maxReport))
	if err != nil {
		return text(http.StatusBadRequest, plain(err.Error()))
	}
	if later {
		if rep.Stage != boot.Up {
			return text(http.StatusConflict, "this ticket is of an earlier boot")
		}
	} else if err := h.installed(q.Context(), tl, rep.Stage); errors.Is(err, errNoInstaller) {
		return text(http.StatusConflict, err.Error())
	} else if err != nil {
		return h.notRecorded(t.MAC, err)
	}
	id := tl.ID
	tl, err = h.Boots.Commit(q.Context(), boot.Event{
		Time: time.Now(), MAC: t.MAC, Boot: tl.ID, Stage: rep.Stage, Client: boot.System, Addr: q.addr,
		Node: rep.Node, Text: rep.Text,
	})
	switch {
	case err != nil:
		return h.notRecorded(t.MAC, err)
	case tl.ID != id: // it was switched off and on in between
		return text(http.StatusConflict, "this ticket is of an earlier boot")
	}
	if rep.Stage == boot.Left && h.Leaving != nil {
		return h.leave(w, q, tl)
	}
	return answer{status: http.StatusNoContent}
}

// leave answers a node that is about to leave its swarm when its tasks run
// elsewhere, or cannot: it waits for this.
func (h *Handler) leave(w http.ResponseWriter, q request, tl boot.Timeline) answer {
	// The deadline was for the request, which is read; when it passed, the
	// node would be taken for gone. Not every ResponseWriter has one.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if err := h.Leaving(q.Context(), tl); err != nil {
		h.Log.Warn("a node leaves before all its tasks run elsewhere", "mac", tl.MAC, "machine", tl.Name, "err", err)
		return text(http.StatusOK, plain(err.Error()))
	}
	return text(http.StatusOK, "all tasks run elsewhere")
}

func (h *Handler) notRecorded(mac boot.MAC, err error) answer {
	h.Log.Error("report cannot be recorded", "mac", mac, "err", err)
	a := text(http.StatusServiceUnavailable, "bootd cannot record this report; send it again")
	a.retry = retryAfter
	return a
}
