package boot

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// Extend returns p with what over says laid over it. It is how a profile
// extends another and how a machine's own entry overrides its profile:
//
//   - image, loader, console and delivery replace;
//   - ssh_keys and args are appended, each once;
//   - files replace by path and units by name;
//   - butane fragments are appended, so that later ones win;
//   - swarm labels are merged, the rest of swarm replaces key by key, and so
//     do esxi (see [Host.Extend]) and power (see [BMC.Extend]).
//
// Origins follow the values that survive. The result shares no memory with p
// or over.
func (p Profile) Extend(over Profile) Profile {
	out := Profile{Origins: map[string]Origin{}}
	for _, from := range []Profile{p, over} {
		out.lay(from)
	}
	return out
}

// lay puts one profile over what is in p already.
func (p *Profile) lay(from Profile) {
	take := func(key, as string) {
		delete(p.Origins, as) // what it replaces
		if o, ok := from.Origins[key]; ok {
			p.Origins[as] = o
		}
	}
	set := func(dst *string, v, key string) {
		if v != "" {
			*dst = v
			take(key, key)
		}
	}
	set(&p.Name, from.Name, "name")
	set(&p.Image, from.Image, "image")
	set(&p.Loader, from.Loader, "loader")
	set((*string)(&p.Delivery), string(from.Delivery), "delivery")
	if _, ok := from.Origins["extends"]; ok {
		take("extends", "extends")
	}
	if len(from.Console) > 0 {
		p.Console = slices.Clone(from.Console)
		take("console", "console")
	}
	p.Args = unite(p.Args, from.Args, "args", take)
	p.SSHKeys = unite(p.SSHKeys, from.SSHKeys, "ssh_keys", take)
	for _, f := range from.Files {
		p.Files = replace(p.Files, f, func(f File) string { return f.Path })
		take("files."+f.Path, "files."+f.Path)
	}
	for _, u := range from.Units {
		u.DropIns = maps.Clone(u.DropIns)
		if u.Enabled != nil {
			u.Enabled = new(*u.Enabled)
		}
		p.Units = replace(p.Units, u, func(u Unit) string { return u.Name })
		take("units."+u.Name, "units."+u.Name)
	}
	for i, b := range from.Butane {
		take(fmt.Sprintf("butane.%d", i), fmt.Sprintf("butane.%d", len(p.Butane)))
		p.Butane = append(p.Butane, b)
	}
	if from.Swarm != nil {
		if p.Swarm == nil {
			p.Swarm = &Member{}
		}
		p.Swarm.lay(*from.Swarm, take)
	}
	if from.Host != nil {
		p.layHost(*from.Host, take)
	}
	if from.Power != nil {
		p.layPower(*from.Power, take)
	}
}

// powerOrigins are the keys of a BMC that have origins of their own.
var powerOrigins = []string{"power", "power.user", "power.password_file", "power.tls"}

func (p *Profile) layPower(from BMC, take func(key, as string)) {
	was := BMC{}
	if p.Power != nil {
		was = *p.Power
	}
	now := was.Extend(from)
	p.Power = &now
	for _, k := range powerOrigins {
		if from.explain()[k] != "" || now.explain()[k] == "" {
			take(k, k)
		}
	}
}

// unite appends to list what it does not hold yet; take tells where from and to.
func unite(list, more []string, key string, take func(key, as string)) []string {
	for i, s := range more {
		if !slices.Contains(list, s) {
			take(fmt.Sprintf("%s.%d", key, i), fmt.Sprintf("%s.%d", key, len(list)))
			list = append(list, s)
		}
	}
	return list
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

func (m *Member) lay(from Member, take func(key, as string)) {
	take("swarm", "swarm")
	set := func(dst *string, v, key string) {
		if v != "" {
			*dst = v
			take(key, key)
		}
	}
	set(&m.Swarm, from.Swarm, "swarm.swarm")
	set((*string)(&m.Role), string(from.Role), "swarm.role")
	set(&m.Availability, from.Availability, "swarm.availability")
	if m.Labels == nil && from.Labels != nil {
		m.Labels = map[string]string{}
	}
	for k, v := range from.Labels {
		m.Labels[k] = v
		take("swarm.labels."+k, "swarm.labels."+k)
	}
}

// isZero reports whether p sets nothing.
func (p Profile) isZero() bool {
	p.Origins = nil
	return reflect.ValueOf(p).IsZero()
}
