package controller

import (
	"context"

	"bootd/internal/task"
)

// Plans are how the verbs that take long are carried out, for tests that put
// something between steps.
func (c *Controller) Plans() []task.Plan { return c.plans() }

// SweepAudit trims the audit log now.
func (c *Controller) SweepAudit(ctx context.Context) error { return c.sweepAudit(ctx) }
