package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

// What the commands about the controller's things have in common. They are thin:
// what they ask for are the same routes that Photon Controller's tools use.

// An entity is one of the controller's things as far as commands name it.
type entity struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Kind string `json:"kind"`
}

// named returns the one entity in a list whose name or ID somebody gave. What is
// the word for it; query narrows the list.
func (a *app) named(ctx context.Context, what, path, given string, query ...string) (entity, error) {
	all, err := client.FleetList[entity](ctx, a.api().Fleet(), path, query...)
	if err != nil {
		return entity{}, err
	}
	var found []entity
	var names []string
	for _, e := range all {
		if e.ID == given {
			return e, nil
		}
		if e.Name == given {
			found = append(found, e)
		}
		names = append(names, e.Name)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return entity{}, fmt.Errorf("there are %d %ss called %q; name one by its ID", len(found), what, given)
	case len(names) == 0:
		return entity{}, fmt.Errorf("there is no %s %q; there is none at all", what, given)
	case len(names) > 12:
		names = append(names[:12], "...")
	}
	return entity{}, fmt.Errorf("there is no %s %q; there are %s", what, given, strings.Join(names, ", "))
}

// completeEntities offers the names of a list as the first argument.
func (a *app) completeEntities(path string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if len(args) == 0 {
			list, _ := client.FleetList[entity](c.Context(), a.api().Fleet(), path) // without a server there is nothing to offer
			for _, e := range list {
				names = append(names, e.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeOfTenant offers the names of what a tenant has.
func (a *app) completeOfTenant(tenant *tenantFlag, what string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		t, err := a.tenant(c.Context(), tenant)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp // without it, or without a server, there is nothing to offer
		}
		return a.completeEntities(at("/tenants", t, what))(c, args, word)
	}
}

// tenantFlag is the tenant that a command is about.
type tenantFlag struct{ name string }

func (a *app) addTenant(c *cobra.Command) *tenantFlag {
	f := &tenantFlag{}
	c.Flags().StringVar(&f.name, "tenant", "", "`name` of the tenant, if there are several")
	completeFlag(c, "tenant", a.completeEntities("/tenants"))
	return f
}

// tenant finds the tenant of a command: the one that was named, or the only one.
func (a *app) tenant(ctx context.Context, f *tenantFlag) (entity, error) {
	if f.name != "" {
		return a.named(ctx, "tenant", "/tenants", f.name)
	}
	all, err := client.FleetList[entity](ctx, a.api().Fleet(), "/tenants")
	switch {
	case err != nil:
		return entity{}, err
	case len(all) == 1:
		return all[0], nil
	case len(all) == 0:
		return entity{}, fmt.Errorf("there is no tenant; make one with bootd tenant create NAME")
	}
	return entity{}, usageError{fmt.Errorf("there are several tenants; say which one with --tenant NAME")}
}

// done waits for a task and says what came of it.
func (a *app) done(ctx context.Context, t photonwire.Task, err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	if t, err = a.api().Fleet().Wait(ctx, t, a.steps()); err != nil {
		return err
	}
	if err := failure(t); err != nil {
		return err
	}
	if a.format == "json" {
		return a.json(t)
	}
	_, err = fmt.Fprintf(a.out, format+"\n", args...)
	return err
}

// steps says each step of a task once, when it begins.
func (a *app) steps() func(photonwire.Task) {
	said := ""
	return func(t photonwire.Task) {
		if now := doing(t); now != "" && now != said && a.format != "json" {
			fmt.Fprintln(a.err, now)
			said = now
		}
	}
}

// doing is the step that a task is at.
func doing(t photonwire.Task) string {
	for i, s := range t.Steps {
		if s.State == "STARTED" {
			return fmt.Sprintf("%s (%d of %d)", s.Operation, i+1, len(t.Steps))
		}
	}
	return ""
}

// failure is the error of a task that has one.
func failure(t photonwire.Task) error {
	if t.State != "ERROR" {
		return nil
	}
	for _, s := range t.Steps {
		if s.State == "ERROR" && len(s.Errors) > 0 {
			return fmt.Errorf("%s failed in step %s: %w", t.Operation, s.Operation, &s.Errors[0])
		}
	}
	return fmt.Errorf("%s failed; see bootd task show %s", t.Operation, t.ID)
}

var amount = regexp.MustCompile(`^([^=\s]+)=(-?[0-9.]+)(B|KB|MB|GB)?$`)

// amounts reads KEY=NUMBER and KEY=NUMBER with a unit.
func amounts(flag string, texts []string) ([]photonwire.QuotaLine, error) {
	out := []photonwire.QuotaLine{}
	for _, text := range texts {
		m := amount.FindStringSubmatch(text)
		if m == nil || !json.Valid([]byte(m[2])) {
			return nil, usageError{fmt.Errorf("--%s cannot be %q; write it as vm=10 or vm.memory=4GB (units: B, KB, MB, GB)", flag, text)}
		}
		unit := m[3]
		if unit == "" {
			unit = "COUNT"
		}
		out = append(out, photonwire.QuotaLine{Key: m[1], Value: json.Number(m[2]), Unit: unit})
	}
	return out, nil
}

// written is amounts as people write them.
func written(lines []photonwire.QuotaLine) string {
	var out []string
	for _, l := range lines {
		out = append(out, l.Key+"="+l.Value.String()+strings.TrimPrefix(l.Unit, "COUNT"))
	}
	return strings.Join(out, " ")
}

// usage is how much of each limit is used.
func usage(limits, used []photonwire.QuotaLine) string {
	by := map[string]photonwire.QuotaLine{}
	for _, u := range used {
		by[u.Key] = u
	}
	var out []string
	for _, l := range limits {
		out = append(out, fmt.Sprintf("%s=%s/%s%s", l.Key, by[l.Key].Value, l.Value, strings.TrimPrefix(l.Unit, "COUNT")))
	}
	return strings.Join(out, " ")
}

// at is the path of an entity in a list.
func at(list string, e entity, more ...string) string {
	return strings.Join(append([]string{list, url.PathEscape(e.ID)}, more...), "/")
}

// clock is a moment of the wire for people.
func clock(millis int64) string {
	if millis == 0 {
		return ""
	}
	return time.UnixMilli(millis).Format("2006-01-02 15:04:05")
}
