package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// An Audited is a line of the audit log.
type Audited struct {
	Time      time.Time       `json:"time"`
	By        string          `json:"by"`
	Role      Role            `json:"role"`
	Operation fleet.Operation `json:"operation"`
	Entity    fleet.Ref       `json:"entity"`
	Tenant    fleet.TenantID  `json:"tenant,omitempty"`
	Name      string          `json:"name,omitempty"` // of the entity, which may be gone
}

var audit = store.Kind[Audited]{Name: "audit"} // by time

// How long a line of the audit log is kept, and how often that is looked after.
const (
	auditKept  = 365 * 24 * time.Hour
	auditSwept = 24 * time.Hour
)

// auditKey begins the IDs of what was noted at a moment; they are in order.
func auditKey(t time.Time) string { return fmt.Sprintf("%020d", max(0, t.UnixNano())) }

// Audit lists the log from a moment on, the oldest line first. Only an admin may
// see it. What reads only is not in it.
func (c *Controller) Audit(ctx context.Context, by Principal, from time.Time) ([]Audited, error) {
	if by.Role != Admin {
		return nil, by.forbidden()
	}
	begin := ""
	if !from.IsZero() {
		begin = auditKey(from)
	}
	all, bad := store.ListFrom(ctx, c.store, audit, begin)
	if all == nil {
		return nil, bad
	}
	out := []Audited{}
	for _, id := range sorted(all) {
		out = append(out, all[id])
	}
	return out, bad
}

// keepAudit trims the audit log until ctx ends.
func (c *Controller) keepAudit(ctx context.Context) {
	tick := time.NewTicker(auditSwept)
	defer tick.Stop()
	for {
		if err := c.sweepAudit(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("the audit log cannot be trimmed", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweepAudit removes the lines that are too old, and the oldest of those that are too
// many.
func (c *Controller) sweepAudit(ctx context.Context) error {
	all, bad := store.List(ctx, c.store, audit, "")
	if all == nil {
		return bad
	}
	ids := sorted(all)
	old, _ := slices.BinarySearch(ids, auditKey(c.now().Add(-auditKept)))
	old = max(old, len(ids)-c.options.Lines)
	for some := range slices.Chunk(ids[:old], 50) {
		if err := c.store.Update(ctx, func(tx *store.Tx) error {
			for _, id := range some {
				store.Delete(tx, audit, id)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return bad
}
