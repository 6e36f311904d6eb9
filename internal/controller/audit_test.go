package controller_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/store"
	"bootd/internal/task"
)

// The audit log is trimmed by age and by number, and read from a moment on.
func TestAuditTrimmed(t *testing.T) {
	db, err := store.Open(t.Context(), store.Options{Dir: t.TempDir(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := begin
	c := controller.New(db, task.New(db, task.Options{Log: quiet}), controller.Options{Lines: 100, Now: func() time.Time { return now }})
	names := func(from time.Time) (out []string) {
		t.Helper()
		log, err := c.Audit(t.Context(), root, from)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range log {
			out = append(out, l.Name)
		}
		return out
	}
	numbered := func(from, to int) (out []string) {
		for i := from; i < to; i++ {
			out = append(out, fmt.Sprintf("t%d", i))
		}
		return out
	}
	for _, name := range numbered(0, 160) { // one each hour
		must(t)(c.CreateTenant(t.Context(), root, name, nil))
		now = now.Add(time.Hour)
	}
	for _, x := range []struct {
		now  time.Time
		from int
	}{
		{now, 60},                    // 100 lines
		{now, 60},                    // nothing more
		{begin.AddDate(1, 0, 0), 60}, // t0 would go now
		{begin.AddDate(1, 0, 0).Add(99 * time.Hour), 99},
		{begin.AddDate(3, 0, 0), 160},
	} {
		now = x.now
		if err := c.SweepAudit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(numbered(x.from, 160), names(time.Time{})); d != "" {
			t.Errorf("%v: %s", x.now, d)
		}
		if from := max(x.from, 120); x.from < 160 {
			if d := cmp.Diff(numbered(from, 160), names(begin.Add(time.Duration(from)*time.Hour))); d != "" {
				t.Errorf("from %d: %s", from, d)
			}
		}
	}
}

// What only reads is not in the audit log, but who was let to a VM's screen is.
func TestAuditReads(t *testing.T) {
	s := newSite(t)
	s.host("esx-1")
	vm := s.vm("one", "")
	s.power(vm, fleet.StartVM)
	before, err := s.control.Audit(s.ctx(), root, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	s.done(s.control.VMNetworks(s.ctx(), root, vm))
	s.done(s.control.VMNetworks(s.ctx(), root, vm))
	s.done(s.control.MKSTicket(s.ctx(), root, vm))
	after, err := s.control.Audit(s.ctx(), root, time.Time{})
	if err != nil || len(before) == 0 || len(after) != len(before)+1 || after[len(before)].Operation != fleet.GetMKSTicket {
		t.Errorf("%d lines, then %d: %v", len(before), len(after), err)
	}
}
