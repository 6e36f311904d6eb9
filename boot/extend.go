package boot

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Extend returns p with what over says laid over it. It is how a profile
// extends another and how a machine's own entry overrides its profile:
//
//   - image, loader, console and delivery replace;
//   - ssh_keys and args are appended, each once;
//   - files replace by path and units by name;
//   - butane fragments are appended, so that later ones win;
//   - swarm labels are merged, the rest of swarm replaces key by key.
//
// Origins follow the values that survive. The result shares no memory with p
// or over.
func (p Profile) Extend(over Profile) Profile {
	out := Profile{
		Name: p.Name, Image: p.Image, Loader: p.Loader, Delivery: p.Delivery,
		Console: slices.Clone(p.Console),
		Swarm:   p.Swarm.clone(),
		Origins: map[string]Origin{},
	}
	take := func(from Profile, key, as string) {
		for k, o := range from.Origins {
			if k == key || strings.HasPrefix(k, key+".") {
				out.Origins[as+k[len(key):]] = o
			}
		}
	}
	for _, key := range []string{"name", "extends", "image", "loader", "delivery", "console", "swarm"} {
		take(p, key, key)
	}
	set := func(dst *string, v, key string) {
		if v != "" {
			*dst = v
			take(over, key, key)
		}
	}
	set(&out.Name, over.Name, "name")
	set(&out.Image, over.Image, "image")
	set(&out.Loader, over.Loader, "loader")
	if over.Delivery != "" {
		out.Delivery = over.Delivery
		take(over, "delivery", "delivery")
	}
	if len(over.Console) > 0 {
		out.Console = slices.Clone(over.Console)
		take(over, "console", "console")
	}
	out.Args = unite(p, over, "args", p.Args, over.Args, take)
	out.SSHKeys = unite(p, over, "ssh_keys", p.SSHKeys, over.SSHKeys, take)
	for _, from := range []Profile{p, over} {
		for _, f := range from.Files {
			out.Files = replace(out.Files, f, func(f File) string { return f.Path })
			drop(out.Origins, "files."+f.Path)
			take(from, "files."+f.Path, "files."+f.Path)
		}
		for _, u := range from.Units {
			u.DropIns = maps.Clone(u.DropIns)
			out.Units = replace(out.Units, u, func(u Unit) string { return u.Name })
			drop(out.Origins, "units."+u.Name)
			take(from, "units."+u.Name, "units."+u.Name)
		}
		for i, b := range from.Butane {
			take(from, fmt.Sprintf("butane.%d", i), fmt.Sprintf("butane.%d", len(out.Butane)))
			out.Butane = append(out.Butane, b)
		}
	}
	if over.Swarm != nil {
		out.Swarm = out.Swarm.extend(over.Swarm)
		take(over, "swarm", "swarm")
	}
	return out
}

// unite appends what is not there yet and renumbers the origins.
func unite(p, over Profile, key string, a, b []string, take func(Profile, string, string)) []string {
	var out []string
	for _, from := range []struct {
		p    Profile
		list []string
	}{{p, a}, {over, b}} {
		for i, s := range from.list {
			if slices.Contains(out, s) {
				continue
			}
			take(from.p, fmt.Sprintf("%s.%d", key, i), fmt.Sprintf("%s.%d", key, len(out)))
			out = append(out, s)
		}
	}
	return out
}

// replace puts v in the place of the element with its key, or at the end.
func replace[T any](list []T, v T, key func(T) string) []T {
	for i := range list {
		if key(list[i]) == key(v) {
			list[i] = v
			return list
		}
	}
	return append(list, v)
}

// drop forgets the origins of a value that is being replaced.
func drop(m map[string]Origin, key string) {
	for k := range m {
		if k == key || strings.HasPrefix(k, key+".") {
			delete(m, k)
		}
	}
}

func (m *Member) clone() *Member {
	if m == nil {
		return nil
	}
	c := *m
	c.Labels = maps.Clone(m.Labels)
	return &c
}

func (m *Member) extend(over *Member) *Member {
	if m == nil {
		return over.clone()
	}
	out := m.clone()
	if over.Swarm != "" {
		out.Swarm = over.Swarm
	}
	if over.Role != "" {
		out.Role = over.Role
	}
	if over.Availability != "" {
		out.Availability = over.Availability
	}
	if out.Labels == nil && len(over.Labels) > 0 {
		out.Labels = map[string]string{}
	}
	maps.Copy(out.Labels, over.Labels)
	return out
}
