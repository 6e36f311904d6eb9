package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatchdog: systemd hears of a server that answers four times in its
// patience, and nothing of one that fails or hangs.
func TestWatchdog(t *testing.T) {
	for _, c := range []struct {
		name string
		well func(context.Context) error
		want int
	}{
		{"answers", func(context.Context) error { return nil }, 9},
		{"fails", func(context.Context) error { return errors.New("no") }, 0},
		{"hangs", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				said := 0
				w := &watchdog{every: 15 * time.Second, well: c.well, say: func() { said++ }, log: silent}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+time.Second)
				defer cancel()
				if err := w.Run(ctx); err != nil {
					t.Error(err)
				}
				if said != c.want {
					t.Errorf("said %d times that it is well, want %d", said, c.want)
				}
			})
		})
	}
}
