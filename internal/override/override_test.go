package override_test

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
	"bootd/internal/override"
	"bootd/internal/store"
)

var (
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
	node1 = boot.MAC{0x52, 0x54, 0, 0, 0, 1}
	node2 = boot.MAC{0x52, 0x54, 0, 0, 0, 2}
	noon  = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
)

func open(t *testing.T, dir string) (*override.Overrides, *store.Store) {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Dir: dir, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	o, err := override.Load(t.Context(), st, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return o, st
}

func TestOrdersOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	o, st := open(t, dir)
	want := override.Override{MAC: node2, Approved: &override.Approval{Name: "node2", Profile: "worker", At: noon},
		Held: &override.Hold{Availability: "drain", Reason: "a new fan", At: noon}}
	got, err := o.Change(t.Context(), node2, func(v *override.Override) error {
		v.Approved, v.Held = want.Approved, want.Held
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got.Held.Availability = "active" // a copy: nobody else sees it
	refused := errors.New("no")
	if _, err := o.Change(t.Context(), node1, func(v *override.Override) error { v.Held = &override.Hold{}; return refused }); !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
	st.Close()

	o, _ = open(t, dir)
	if d := cmp.Diff([]override.Override{want}, o.All()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(override.Override{MAC: node1}, o.Get(node1)); d != "" {
		t.Error(d)
	}
	if _, err := o.Change(t.Context(), node2, func(v *override.Override) error { *v = override.Override{}; return nil }); err != nil {
		t.Fatal(err)
	}
	if all := o.All(); len(all) != 0 {
		t.Errorf("left: %v", all)
	}
}

func TestNextBootOnly(t *testing.T) {
	o, _ := open(t, t.TempDir())
	profile := func(bootID string) string { return o.Get(node1).NextProfile(bootID) }
	began := func(bootID string) {
		t.Helper()
		if err := o.Began(t.Context(), node1, bootID); err != nil {
			t.Fatal(err)
		}
	}
	began("b0")
	if p := profile("b0"); p != "" {
		t.Errorf("profile %q, nothing was ordered", p)
	}
	if _, err := o.Change(t.Context(), node1, func(v *override.Override) error {
		v.Next = &override.Next{Profile: "rescue", At: noon}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if p := o.Get(node1).Profile("b0"); p != "" {
		t.Errorf("the boot that is under way has profile %q", p)
	}
	for _, step := range []struct{ begins, asks, want string }{
		{"", "b1", "rescue"},   // it asks for its script
		{"b1", "b1", "rescue"}, // and for its config
		{"b1", "b1", "rescue"}, // again: its script had been lost on the way
		{"b1", "b2", ""},       // the boot after it
		{"b2", "b2", ""},
		{"b2", "b1", ""}, // over is over
	} {
		if step.begins != "" {
			began(step.begins)
		}
		if p := profile(step.asks); p != step.want {
			t.Errorf("after boot %q began, boot %q gets profile %q, want %q", step.begins, step.asks, p, step.want)
		}
	}
	if all := o.All(); len(all) != 0 {
		t.Errorf("left: %v", all)
	}
}

func TestChangesAtOnce(t *testing.T) {
	o, _ := open(t, t.TempDir())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := o.Change(t.Context(), node1, func(v *override.Override) error {
				if v.Held == nil {
					v.Held = &override.Hold{}
				}
				v.Held.Reason += "x"
				return nil
			}); err != nil {
				t.Error(err)
			}
			o.All()
		})
	}
	wg.Wait()
	if got := len(o.Get(node1).Held.Reason); got != 20 {
		t.Errorf("%d changes are left of 20", got)
	}
}
