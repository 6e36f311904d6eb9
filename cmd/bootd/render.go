package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"bootd/boot"
	"bootd/boot/ipxe"
	"bootd/ignition"
	"bootd/internal/config"
	"bootd/internal/swarm"
)

// joinAvailability is how a node joins: drained, so that no task lands on it
// before its labels are set.
const joinAvailability = "drain"

// A renderer makes the Ignition configs of nodes. What is the same for all
// nodes of a profile is translated once and kept.
type renderer struct {
	// join tells a node how to join its swarm.
	join func(context.Context, *boot.Member) (swarm.JoinInfo, error)
	// leave tells how long a node waits for its tasks to move, when it is shut
	// down.
	leave func(*boot.Member) time.Duration

	mu        sync.Mutex
	templates map[templateKey]*ignition.Template
}

type templateKey struct {
	profile *boot.Profile // of the catalog in force
	family  boot.Family
}

// forget drops the templates of a catalog that is no longer in force.
func (r *renderer) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.templates = nil
}

func (r *renderer) template(p *boot.Profile, family boot.Family) (*ignition.Template, error) {
	key := templateKey{p, family}
	r.mu.Lock()
	t := r.templates[key]
	r.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t, err := ignition.Prepare(p, family)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.templates == nil {
		r.templates = map[templateKey]*ignition.Template{}
	}
	r.templates[key] = t
	return t, nil
}

// render makes the config that the machine of req gets. It is what boot/ipxe
// serves.
func (r *renderer) render(ctx context.Context, req ipxe.RenderRequest, family boot.Family) ([]byte, error) {
	n := ignition.Node{Hostname: req.Assignment.Name, ReportURL: req.ReportURL}
	if m := req.Assignment.Profile.Swarm; m != nil {
		info, err := r.join(ctx, m)
		if errors.Is(err, swarm.ErrNotReady) {
			return nil, fmt.Errorf("%w: %w", ipxe.ErrNotYet, err)
		}
		if err != nil {
			return nil, err
		}
		n.Join = r.joinOf(m, info)
	}
	t, err := r.template(req.Assignment.Profile, family)
	if err != nil {
		return nil, err
	}
	rendered, err := t.Render(n)
	if err != nil {
		return nil, err
	}
	max, ok := ignition.ParseAccept(req.Accept)
	if !ok {
		max = ignition.Newest // not Ignition: somebody looks at it by hand
	}
	b, _, err := rendered.For(max)
	var old *ignition.TooOld
	if errors.As(err, &old) {
		return nil, fmt.Errorf("%w: %w", ipxe.ErrTooOld, err)
	}
	if err != nil || !req.Wrap {
		return b, err
	}
	return ignition.Wrap(b), nil
}

// joinOf is what a node needs to know of its swarm.
func (r *renderer) joinOf(m *boot.Member, info swarm.JoinInfo) *ignition.Join {
	return &ignition.Join{Addr: info.Addr, Token: info.Token, Availability: joinAvailability, Leave: r.leave(m)}
}

// joining makes what a node asks its engine to join with. It is what boot/ipxe
// serves to a node whose token was replaced.
func (r *renderer) joining(ctx context.Context, a boot.Assignment) ([]byte, error) {
	m := a.Profile.Swarm
	info, err := r.join(ctx, m)
	if errors.Is(err, swarm.ErrNotReady) {
		return nil, fmt.Errorf("%w: %w", ipxe.ErrNotYet, err)
	}
	if err != nil {
		return nil, err
	}
	return r.joinOf(m, info).Request()
}

// familyOf is the family of a profile's image as the configuration says it,
// for when the image itself is not at hand.
func familyOf(cfg *config.Config, image string) boot.Family {
	for _, s := range cfg.Images {
		if s.Name == image && s.Family != "" {
			return s.Family
		}
	}
	if len(image) > 8 && image[:8] == "flatcar/" {
		return boot.Flatcar
	}
	if strings.HasPrefix(image, string(boot.ESXi)+"/") {
		return boot.ESXi
	}
	return boot.FedoraCoreOS
}

// checkProfiles translates every profile, and every machine's own variant of
// one, and returns what Butane and Ignition find wrong as mistakes.
func checkProfiles(cfg *config.Config) error {
	var mistakes config.Mistakes
	var failed error
	seen := map[string]bool{}
	check := func(p *boot.Profile) {
		family := familyOf(cfg, p.Image)
		if family == boot.Linux || family == boot.ESXi { // they take no Ignition config
			return
		}
		var invalid *ignition.Invalid
		_, err := ignition.Prepare(p, family)
		if err != nil && !errors.As(err, &invalid) {
			failed = errors.Join(failed, fmt.Errorf("cannot translate profile %s: %w", p.Name, err))
		}
		if invalid == nil {
			return
		}
		for _, e := range invalid.Entries {
			if e.Kind != ignition.Error || seen[e.String()] {
				continue // a profile that others extend shows its mistakes once
			}
			seen[e.String()] = true
			mistakes = append(mistakes, cfg.Mistake(e.Origin, e.Message))
		}
	}
	for _, name := range profileNames(cfg) {
		check(cfg.Catalog.Profiles[name])
	}
	for _, m := range cfg.Catalog.Machines {
		check(cfg.Catalog.Effective(m))
	}
	if len(mistakes) == 0 {
		return failed
	}
	mistakes.Sort()
	return mistakes
}
