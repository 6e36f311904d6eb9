package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bootd/boot"
	"bootd/boot/lease"
	"bootd/internal/api"
	"bootd/internal/override"
	"bootd/internal/timeline"
)

// orders carries out what operators order for single machines.
type orders struct {
	live      *live
	overrides *override.Overrides
	record    *timeline.Recorder
	leases    *lease.Table
}

// Approve implements [api.Orders].
func (o *orders) Approve(ctx context.Context, m api.Machine, in api.Approval) error {
	c := o.live.catalog()
	if err := knownProfile(c, in.Profile); err != nil {
		return err
	}
	if m.MAC.IsZero() {
		return conflict("%s has not been seen yet, so it has no hardware address to approve", m.Name)
	}
	a, err := c.Assign(boot.Inventory{MAC: m.MAC}.Merge(m.Inventory))
	if err != nil {
		return conflict("%v", err)
	}
	if a.Machine != nil && o.overrides.Get(m.MAC).Approved == nil {
		return conflict("%s (%s) has an entry at %s already; change it there", a.Name, m.MAC, a.Machine.Origin)
	}
	name := strings.ToLower(in.Name)
	if name == "" {
		name = boot.FallbackName(m.MAC)
	}
	if !boot.ValidName(name) {
		return &api.Problem{Title: "Bad Request", Status: http.StatusBadRequest,
			Detail: fmt.Sprintf("%q cannot be a host name: use letters, digits, dots and hyphens, at most 64", in.Name)}
	}
	for _, other := range o.record.Machines() {
		if b, err := c.Assign(other.Inventory); err == nil && other.MAC != m.MAC && strings.EqualFold(b.Name, name) {
			return conflict("%s is the name of %s already", name, other.MAC)
		}
	}
	if i := slices.IndexFunc(c.Machines, func(e *boot.Machine) bool { return e.Name == name && e != a.Machine }); i >= 0 {
		return conflict("%s is the name of the entry at %s already", name, c.Machines[i].Origin)
	}
	if _, err := o.overrides.Change(ctx, m.MAC, func(v *override.Override) error {
		v.Approved = &override.Approval{Name: name, Profile: in.Profile, At: time.Now()}
		return nil
	}); err != nil {
		return err
	}
	return o.live.again()
}

// Next implements [api.Orders].
func (o *orders) Next(ctx context.Context, m api.Machine, in api.Next) error {
	if in.Profile != "" {
		if err := knownProfile(o.live.catalog(), in.Profile); err != nil {
			return err
		}
	}
	return o.change(ctx, m, func(v *override.Override) {
		v.Next = nil
		if in.Profile != "" {
			v.Next = &override.Next{Profile: in.Profile, At: time.Now()}
		}
	})
}

// Install implements [api.Orders].
func (o *orders) Install(ctx context.Context, m api.Machine, wanted bool) error {
	return o.change(ctx, m, func(v *override.Override) {
		var in override.Install
		if v.Install != nil {
			in = *v.Install
		}
		in.Wanted = time.Time{}
		if wanted {
			in.Wanted = time.Now()
		}
		v.Install = &in
		if in == (override.Install{}) {
			v.Install = nil
		}
	})
}

func (o *orders) change(ctx context.Context, m api.Machine, f func(*override.Override)) error {
	if m.MAC.IsZero() {
		return conflict("%s has not been seen yet, so nothing can be ordered for it; write it into its entry at %s", m.Name, m.Entry)
	}
	_, err := o.overrides.Change(ctx, m.MAC, func(v *override.Override) error {
		f(v)
		return nil
	})
	return err
}

// Forget implements [api.Orders].
func (o *orders) Forget(ctx context.Context, m api.Machine) error {
	if m.MAC.IsZero() {
		return conflict("nothing is known of %s but its entry at %s; remove it there", m.Name, m.Entry)
	}
	if _, err := o.overrides.Change(ctx, m.MAC, func(v *override.Override) error {
		*v = override.Override{}
		return nil
	}); err != nil {
		return err
	}
	for _, l := range o.leases.All() {
		if l.MAC == m.MAC {
			o.leases.Release(l.Network, l.MAC, l.Addr, time.Now())
		}
	}
	if err := o.leases.Flush(); err != nil {
		return err
	}
	if err := o.record.Forget(ctx, m.MAC); err != nil {
		return err
	}
	return o.live.again()
}

// Release implements [api.Orders].
func (o *orders) Release(_ context.Context, addr netip.Addr) error {
	for _, l := range o.leases.All() {
		if l.Addr != addr {
			continue
		}
		if !o.leases.Release(l.Network, l.MAC, l.Addr, time.Now()) {
			return conflict("%s is %s and cannot be released; it is free %s", addr, l.State, l.Expires.Format(time.DateTime))
		}
		return o.leases.Flush()
	}
	return &api.Problem{Title: "Not Found", Status: http.StatusNotFound, Detail: fmt.Sprintf("nobody has or had the address %s", addr)}
}

func knownProfile(c *boot.Catalog, name string) error {
	if c.Profiles[name] != nil {
		return nil
	}
	var known []string
	for p := range c.Profiles {
		known = append(known, p)
	}
	slices.Sort(known)
	return &api.Problem{Title: "Bad Request", Status: http.StatusBadRequest,
		Detail: fmt.Sprintf("there is no profile %q; there are %s", name, strings.Join(known, ", "))}
}

func conflict(format string, args ...any) error {
	return &api.Problem{Title: "Conflict", Status: http.StatusConflict, Detail: fmt.Sprintf(format, args...)}
}

// approved are the entries of machines that were approved rather than written
// into a file. What a file says of the same machine, or calls by the same name,
// stands above them.
func approved(all []override.Override, c *boot.Catalog) (entries []*boot.Machine, ignored []string) {
	for _, o := range all {
		a := o.Approved
		if a == nil {
			continue
		}
		rival := slices.IndexFunc(c.Machines, func(m *boot.Machine) bool {
			return m.Name == a.Name || slices.Contains(m.Match.MAC, o.MAC)
		})
		switch {
		case rival >= 0:
			ignored = append(ignored, fmt.Sprintf("the approval of %s as %s: the entry at %s stands above it", o.MAC, a.Name, c.Machines[rival].Origin))
		case c.Profiles[a.Profile] == nil:
			ignored = append(ignored, fmt.Sprintf("the approval of %s as %s: there is no profile %q any more", o.MAC, a.Name, a.Profile))
		default:
			entries = append(entries, &boot.Machine{
				Name: a.Name, Match: boot.Selector{MAC: []boot.MAC{o.MAC}}, Profile: a.Profile,
				Origin: boot.Origin{Note: "approved " + a.At.Format(time.DateTime)},
			})
		}
	}
	return entries, ignored
}
