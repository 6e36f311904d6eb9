package place

import (
	"slices"

	"bootd/internal/fleet"
)

// Sample is how many hosts that would do are compared.
const Sample = 16

// A View is what is known of hosts and datastores. It is used by one goroutine at
// a time.
type View struct {
	policy     Policy
	hosts      []host
	at         map[fleet.HostID]int // in hosts
	datastores map[fleet.DatastoreID]*datastore
}

type host struct {
	fleet.Host
	load   Load
	mounts []mount
}

// A mount is a datastore as a host has it: nil in store until that is known.
type mount struct {
	id    fleet.DatastoreID
	store *datastore
}

type datastore struct {
	fleet.Datastore
	space  Space
	images map[fleet.ImageID]bool
}

// NewView makes a view of nothing.
func NewView(p Policy) *View {
	return &View{policy: p, at: map[fleet.HostID]int{}, datastores: map[fleet.DatastoreID]*datastore{}}
}

// SetHost makes a host known, or known as it is now. Of its datastores those count
// that it can write to and that it is allowed to use.
func (v *View) SetHost(h fleet.Host, l Load) {
	x := host{Host: h, load: l}
	for _, d := range h.Facts.Datastores {
		if d.Accessible && !d.ReadOnly && h.Allows(d.Name) {
			x.mounts = append(x.mounts, mount{d.ID, v.datastores[d.ID]})
		}
	}
	if i, ok := v.at[h.ID]; ok {
		v.hosts[i] = x
		return
	}
	v.at[h.ID] = len(v.hosts)
	v.hosts = append(v.hosts, x)
}

// RemoveHost forgets a host.
func (v *View) RemoveHost(id fleet.HostID) {
	i, ok := v.at[id]
	if !ok {
		return
	}
	end := len(v.hosts) - 1
	v.hosts[i] = v.hosts[end]
	v.at[v.hosts[i].ID] = i
	v.hosts = slices.Delete(v.hosts, end, end+1)
	delete(v.at, id)
}

// SetDatastore makes a datastore known, or known as it is now, with the images it
// has.
func (v *View) SetDatastore(d fleet.Datastore, s Space, images ...fleet.ImageID) {
	x := &datastore{d, s, map[fleet.ImageID]bool{}}
	for _, i := range images {
		x.images[i] = true
	}
	if was, ok := v.datastores[d.ID]; ok {
		*was = *x // the hosts that mount it see it too
		return
	}
	v.datastores[d.ID] = x
	for i := range v.hosts {
		for j := range v.hosts[i].mounts {
			if m := &v.hosts[i].mounts[j]; m.id == d.ID {
				m.store = x
			}
		}
	}
}

// A Choice is where a VM goes.
type Choice struct {
	Host      fleet.HostID
	Datastore fleet.DatastoreID
}

// Choose finds the best place for a VM among those it looks at, or says in a
// [fleet.Error] why no host will do. random returns a number from 0 to n-1.
func (v *View) Choose(r Request, random func(n int) int) (Choice, error) {
	if r.Host != "" {
		i, ok := v.at[r.Host]
		if !ok {
			return Choice{}, fleet.Errorf(fleet.NoSuchResource, "Host #%s is not known", r.Host)
		}
		var why refusals
		if c, _, no := v.weigh(&v.hosts[i], r); no == fits {
			return c, nil
		} else {
			why[no]++
		}
		return Choice{}, why.err(r)
	}
	return v.search(r, random)
}

func (v *View) search(r Request, random func(n int) int) (Choice, error) {
	var (
		best  Choice
		top   float64
		found int
		why   refusals
	)
	n := len(v.hosts)
	if n == 0 {
		return best, why.err(r)
	}
	step := stride(n)
	for i, left := random(n), n; left > 0 && found < Sample; left-- {
		c, score, no := v.weigh(&v.hosts[i], r)
		if no != fits {
			why[no]++
		} else {
			if found == 0 || score > top {
				best, top = c, score
			}
			found++
		}
		i = (i + step) % n
	}
	if found == 0 {
		return best, why.err(r)
	}
	return best, nil
}

// stride is a step that comes by every one of n before it comes back: a prime that
// does not divide n. Neighbours, which were often added together, are then not
// looked at together.
func stride(n int) int {
	for _, p := range []int{7919, 104729, 1299709} {
		if n%p != 0 {
			return p
		}
	}
	return 1
}

// Reserve notes a choice in the view until the stored records say the same. It
// fails as [Load.Add] and [Space.Add] do, and then changes nothing.
func (v *View) Reserve(c Choice, r Request) error {
	i, ok := v.at[c.Host]
	d := v.datastores[c.Datastore]
	if !ok || d == nil {
		return fleet.Errorf(fleet.NoSuchResource, "Host #%s or datastore %s is gone", c.Host, c.Datastore)
	}
	h := &v.hosts[i]
	load, err := h.load.Add(h.Facts, v.policy, r)
	if err != nil {
		return err
	}
	space, err := d.space.Add(d.Datastore, r.Storage)
	if err != nil {
		return err
	}
	h.load, d.space = load, space
	return nil
}

// weigh is where on a host a VM would go, and how good that is; or why not.
func (v *View) weigh(h *host, r Request) (Choice, float64, reason) {
	if why := h.refuses(r); why != fits {
		return Choice{}, 0, why
	}
	if why := h.load.room(h.Facts, v.policy, r); why != fits {
		return Choice{}, 0, why
	}
	var best *datastore
	var top float64
	why := withoutDatastore
	for _, m := range h.mounts {
		d := m.store
		if d == nil || !d.suits(r) {
			continue
		}
		if r.Storage > d.space.free(d.Datastore) {
			why = withoutSpace
			continue
		}
		if s := d.score(r); best == nil || s > top {
			best, top = d, s
		}
	}
	if best == nil {
		return Choice{}, 0, why
	}
	return Choice{h.ID, best.ID}, top + h.score(v.policy, r), fits
}

// Scores: a tenth is whether the image is there already, nine tenths are how much
// of memory, CPUs and storage stays free. A VM of the same cluster outweighs all
// of that.
const (
	imageWeight = 0.1
	freeWeight  = 0.3
	apartWeight = 1.0
)

func (h *host) score(p Policy, r Request) float64 {
	memory := 1 - float64(h.load.Memory+r.Memory)/(p.Memory*float64(h.Facts.Memory))
	cpus := 1 - float64(h.load.CPUs+r.CPUs)/(p.CPU*float64(h.Facts.Threads))
	score := freeWeight * (memory + cpus)
	if r.Cluster != "" {
		score -= apartWeight * float64(h.load.Clusters[r.Cluster])
	}
	return score
}

func (d *datastore) score(r Request) float64 {
	score := freeWeight * float64(d.space.free(d.Datastore)-r.Storage) / float64(max(1, d.Capacity))
	if r.Image != "" && d.images[r.Image] {
		score += imageWeight
	}
	return score
}

// suits reports whether a datastore is one of those that are asked for.
func (d *datastore) suits(r Request) bool {
	if r.Datastore != "" && r.Datastore != d.ID {
		return false
	}
	for _, t := range r.DatastoreTags {
		if t != string(d.Type) && !slices.Contains(d.Tags, t) {
			return false
		}
	}
	return true
}
