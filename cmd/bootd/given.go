package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"bootd/boot"
	"bootd/internal/store"
)

// An effective is one value of a machine. Sum tells apart texts of which
// the value shows the beginning only.
type effective struct {
	boot.Value
	Sum string `json:"sum,omitempty"`
}

// settingsOf are all effective values of an assignment, and the version of its
// image.
func settingsOf(a boot.Assignment, images *boot.Catalog) []effective {
	texts := map[string]string{}
	if p := a.Profile; p != nil {
		for _, f := range p.Files {
			texts["files."+f.Path] = fmt.Sprintf("%#v", f)
		}
		for _, u := range p.Units {
			enabled := "as it is"
			if u.Enabled != nil {
				enabled = fmt.Sprint(*u.Enabled)
			}
			texts["units."+u.Name] = fmt.Sprintf("%s %t %q %q", enabled, u.Mask, u.Contents, u.DropIns) // fmt sorts maps
		}
		for i, b := range p.Butane {
			texts[fmt.Sprintf("butane.%d", i)] = b.Text
		}
	}
	var out []effective
	for _, v := range a.Explain() {
		s := effective{Value: v}
		if text, ok := texts[v.Key]; ok {
			s.Sum = sum(text)
		}
		out = append(out, s)
		if v.Key != "image" || a.Profile.Image == "" {
			continue
		}
		version := effective{Value: boot.Value{Key: "image.version", Value: "not in the store", Origin: boot.Origin{Note: "store of images"}}}
		if i, ok := images.Image(a.Profile.Image, a.Inventory.CPU); ok {
			version.Value.Value = i.Version
			files := append(slices.Clone(i.Initrds), i.Kernel)
			if i.RootFS != nil {
				files = append(files, *i.RootFS)
			}
			version.Sum = sum(fmt.Sprint(files))
		}
		out = append(out, version)
	}
	return out
}

func sum(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:8])
}

// A grant is what one boot of a machine was given.
type grant struct {
	Boot     string      `json:"boot"` // ID
	Settings []effective `json:"settings"`
}

var grants = store.Kind[grant]{Name: "given"} // by MAC

// given remembers what the latest boot of each machine was given, to tell what
// the next one will have otherwise.
type given struct {
	store *store.Store
	live  *live
	log   *slog.Logger

	known func(boot.MAC) bool // whether a machine is still on record

	mu  sync.Mutex
	all map[boot.MAC]grant
}

// keepGiven is how many machines are kept before those are dropped that are no
// longer on record. The record itself holds fewer.
const keepGiven = 24_000

func newGiven(ctx context.Context, db *store.Store, l *live, known func(boot.MAC) bool, log *slog.Logger) (*given, error) {
	stored, err := store.List(ctx, db, grants, "")
	if stored == nil {
		return nil, fmt.Errorf("cannot read what machines were given: %w", err)
	}
	if err != nil {
		log.Error("what some machines were given is forgotten", "err", err)
	}
	g := &given{store: db, live: l, log: log, known: known, all: map[boot.MAC]grant{}}
	for id, v := range stored {
		if mac, err := boot.ParseMAC(id); err == nil {
			g.all[mac] = v
		}
	}
	return g, g.drop(ctx)
}

// note remembers what a boot that gets its script is given. That this cannot be
// kept stops no boot.
func (g *given) note(ctx context.Context, t boot.Timeline, inv boot.Inventory) {
	a, err := g.live.assignNext(inv, t.ID)
	if err != nil || a.Profile == nil {
		return
	}
	v := grant{Boot: t.ID, Settings: settingsOf(a, g.live.catalog())}
	g.mu.Lock()
	g.all[t.MAC] = v
	many := len(g.all) > keepGiven
	g.mu.Unlock()
	err = g.put(ctx, t.MAC, &v)
	if many {
		err = errors.Join(err, g.drop(ctx))
	}
	if err != nil {
		g.log.Warn("what a boot was given is not kept", "mac", t.MAC, "err", err)
	}
}

// drop forgets the machines that are no longer on record.
func (g *given) drop(ctx context.Context) error {
	g.mu.Lock()
	var gone []boot.MAC
	for mac := range g.all {
		if !g.known(mac) {
			gone = append(gone, mac)
		}
	}
	g.mu.Unlock()
	var failed error
	for _, mac := range gone {
		failed = errors.Join(failed, g.forget(ctx, mac))
	}
	return failed
}

// put stores what a machine was given; nil forgets it.
func (g *given) put(ctx context.Context, mac boot.MAC, v *grant) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return g.store.Update(ctx, func(tx *store.Tx) error {
		if v == nil {
			store.Delete(tx, grants, mac.String())
			return nil
		}
		return store.Put(tx, grants, mac.String(), *v)
	})
}

// of is what a boot was given; false if that is not known.
func (g *given) of(mac boot.MAC, bootID string) ([]effective, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v, ok := g.all[mac]
	return v.Settings, ok && v.Boot == bootID
}

// forget forgets a machine.
func (g *given) forget(ctx context.Context, mac boot.MAC) error {
	g.mu.Lock()
	delete(g.all, mac)
	g.mu.Unlock()
	return g.put(ctx, mac, nil)
}
