package timeline

import (
	"context"
	"time"
)

// WriteSoon does what Run does when something was recorded.
func WriteSoon(ctx context.Context, r *Recorder) error { return r.write(ctx, soon) }

// WriteLater does what Run does every few seconds.
func WriteLater(ctx context.Context, r *Recorder) error { return r.write(ctx, later) }

// ForgetUnseen does what Run does every hour.
func ForgetUnseen(r *Recorder, now time.Time) { r.forgetUnseen(now) }

// MostNamed is how many machines with a name are kept.
const MostNamed = keepNamed
