package task

import (
	"context"

	"bootd/internal/store"
)

// OnWrite puts f around every write of a task's progress.
func (r *Runner) OnWrite(f func(write func() error) error) {
	r.write = func(ctx context.Context, change func(*store.Tx) error) error {
		return f(func() error { return r.store.Update(ctx, change) })
	}
}

// Places are how many are taken.
func (r *Runner) Places() int { return len(r.first) + len(r.again) }
