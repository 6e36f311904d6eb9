package place_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bootd/internal/fleet"
	"bootd/internal/place"
)

const (
	mb = 1 << 20
	gb = 1 << 30
)

// ready is a host of 8 threads and 16 GB with one datastore, named after it.
func ready(name string) fleet.Host {
	return fleet.Host{
		ID: fleet.HostID(name), State: fleet.HostReady, Tags: []fleet.UsageTag{fleet.Cloud},
		Health: fleet.HostHealth{Reachable: true},
		Facts: fleet.HostFacts{
			Threads: 8, Memory: 16 * gb, PortGroups: []fleet.PortGroup{{Name: "VM Network"}},
			Datastores: []fleet.DatastoreFacts{{ID: fleet.DatastoreID("d-" + name), Name: "local", Accessible: true}},
		},
	}
}

func disk(name string) fleet.Datastore {
	return fleet.Datastore{ID: fleet.DatastoreID("d-" + name), Type: fleet.LocalVMFS, Capacity: 100 * gb, Free: 100 * gb}
}

func small() place.Request { return place.Request{CPUs: 1, Memory: gb, Storage: gb} }

// first takes the hosts in the order they were added.
func first(int) int { return 0 }

func TestRefusals(t *testing.T) {
	tests := map[string]struct {
		host    func(*fleet.Host)
		disk    func(*fleet.Datastore)
		request func(*place.Request)
		code    fleet.Code
		message string
	}{
		"maintenance":             {host: func(h *fleet.Host) { h.State = fleet.HostMaintenance }, code: fleet.NoSuchResource, message: "1 host: 1 in maintenance"},
		"maintenance of its own":  {host: func(h *fleet.Host) { h.Facts.Maintenance = true }, code: fleet.NoSuchResource, message: "1 host: 1 in maintenance"},
		"suspended":               {host: func(h *fleet.Host) { h.State = fleet.HostSuspended }, code: fleet.NoSuchResource, message: "1 host: 1 suspended"},
		"error":                   {host: func(h *fleet.Host) { h.State = fleet.HostError }, code: fleet.NoSuchResource, message: "1 host: 1 not ready"},
		"lost":                    {host: func(h *fleet.Host) { h.Health.Reachable = false }, code: fleet.NoSuchResource, message: "1 host: 1 not reachable"},
		"license":                 {host: func(h *fleet.Host) { h.Facts.ReadOnly = true }, code: fleet.NoSuchResource, message: "1 host: 1 with a license that forbids changes"},
		"management":              {host: func(h *fleet.Host) { h.Tags = []fleet.UsageTag{fleet.Management} }, code: fleet.NoSuchResource, message: "1 host: 1 not tagged CLOUD"},
		"zone":                    {request: func(r *place.Request) { r.Zone = "z" }, code: fleet.UnfulfillableAffinities, message: "1 host: 1 not in zone z"},
		"port group":              {request: func(r *place.Request) { r.PortGroups = []string{"x"} }, code: fleet.UnfulfillableAffinities, message: "1 host: 1 without port group x"},
		"as many CPUs as threads": {request: func(r *place.Request) { r.CPUs = 9 }, code: fleet.NotEnoughCPUResource, message: "1 host: 1 without 9 CPUs"},
		"memory":                  {request: func(r *place.Request) { r.Memory = 16*gb + 1 }, code: fleet.NotEnoughMemoryResource, message: "1 host: 1 without 16385 MB"},
		"one port group of several": {request: func(r *place.Request) { r.PortGroups, r.Networks = []string{"VM Network"}, [][]string{{"x", "y"}} },
			code: fleet.UnfulfillableAffinities, message: "1 host: 1 without port group VM Network and x or y"},
		"storage":          {request: func(r *place.Request) { r.Storage = 101 * gb }, code: fleet.NotEnoughDatastoreCapacity, message: "1 host: 1 without 103424 MB of storage"},
		"filled by others": {disk: func(d *fleet.Datastore) { d.Free = mb }, code: fleet.NotEnoughDatastoreCapacity, message: "1 host: 1 without 1024 MB of storage"},
		"datastore":        {request: func(r *place.Request) { r.Datastore = "x" }, code: fleet.UnfulfillableDiskAffinities, message: "1 host: 1 without a datastore that suits"},
		"datastore's type": {request: func(r *place.Request) { r.DatastoreTags = []string{"SHARED_VMFS"} }, code: fleet.UnfulfillableDiskAffinities, message: "1 host: 1 without a datastore that suits"},
		"datastore not allowed": {host: func(h *fleet.Host) { h.Metadata = map[string]string{fleet.AllowedDatastores: "other"} },
			code: fleet.UnfulfillableDiskAffinities, message: "1 host: 1 without a datastore that suits"},
		"this host": {host: func(h *fleet.Host) { h.State = fleet.HostSuspended }, request: func(r *place.Request) { r.Host = "a" },
			code: fleet.NoSuchResource, message: "1 host: 1 suspended"},
		"no such host": {request: func(r *place.Request) { r.Host = "b" }, code: fleet.NoSuchResource, message: "Host #b is not known"},
		"it would do": {request: func(r *place.Request) {
			r.DatastoreTags, r.PortGroups, r.Networks = []string{"LOCAL_VMFS"}, []string{"VM Network"}, [][]string{{"x", "VM Network"}}
		}},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			h, d, r := ready("a"), disk("a"), small()
			if c.host != nil {
				c.host(&h)
			}
			if c.disk != nil {
				c.disk(&d)
			}
			if c.request != nil {
				c.request(&r)
			}
			v := place.NewView(place.DefaultPolicy())
			v.SetHost(h, place.Load{})
			v.SetDatastore(d, place.Space{})
			got, err := v.Choose(r, first)
			if c.code == "" {
				if want := (place.Choice{Host: "a", Datastore: "d-a"}); err != nil || got != want {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			if err == nil || err.Error() != c.message || fleet.CodeOf(err) != c.code {
				t.Errorf("%v, %v (%s); want %s (%s)", got, err, fleet.CodeOf(err), c.message, c.code)
			}
		})
	}
}

func TestRefusalCountsHosts(t *testing.T) {
	v := place.NewView(place.DefaultPolicy())
	if _, err := v.Choose(small(), first); err == nil || err.Error() != "there are no hosts; register one first" {
		t.Errorf("err = %v", err)
	}
	for i := range 12 {
		h := ready(fmt.Sprint(i))
		if i < 3 {
			h.State = fleet.HostMaintenance
		}
		v.SetHost(h, place.Load{Memory: 13 * gb, VMs: 1})
		v.SetDatastore(disk(fmt.Sprint(i)), place.Space{})
	}
	r := small()
	r.Memory = 4096 * mb
	if _, err := v.Choose(r, first); err == nil || err.Error() != "12 hosts: 3 in maintenance, 9 without 4096 MB" {
		t.Errorf("err = %v", err)
	}
	for i := range 12 {
		v.RemoveHost(fleet.HostID(fmt.Sprint(i)))
	}
	v.RemoveHost("never there")
	if _, err := v.Choose(r, first); err == nil || err.Error() != "there are no hosts; register one first" {
		t.Errorf("err = %v", err)
	}
}

// TestWhoTakes has hosts in every state there is: one is chosen exactly if it
// takes VMs.
func TestWhoTakes(t *testing.T) {
	states := []fleet.HostState{fleet.HostCreating, fleet.HostNotProvisioned, fleet.HostReady, fleet.HostSuspended,
		fleet.HostMaintenance, fleet.HostError, fleet.HostDeleted}
	for _, state := range states {
		for bits := range 16 {
			h := ready("a")
			h.State = state
			h.Facts.Maintenance, h.Facts.ReadOnly, h.Health.Reachable = bits&1 != 0, bits&2 != 0, bits&4 == 0
			if bits&8 != 0 {
				h.Tags = []fleet.UsageTag{fleet.Management}
			}
			v := place.NewView(place.DefaultPolicy())
			v.SetHost(h, place.Load{})
			v.SetDatastore(disk("a"), place.Space{})
			if _, err := v.Choose(small(), first); (err == nil) != h.Takes() {
				t.Errorf("%s, %04b: %v, but Takes is %t", state, bits, err, h.Takes())
			}
		}
	}
}

func TestPreferences(t *testing.T) {
	tests := map[string]struct {
		a, b    place.Load
		fullA   int64 // promised of a's datastore
		imageB  bool
		request func(*place.Request)
		want    fleet.HostID
	}{
		"more memory":  {a: place.Load{Memory: 8 * gb}, want: "b"},
		"more CPUs":    {a: place.Load{CPUs: 20}, want: "b"},
		"more storage": {fullA: 50 * gb, want: "b"},
		"image":        {imageB: true, request: func(r *place.Request) { r.Image = "i" }, want: "b"},
		"much memory outweighs the image": {imageB: true, b: place.Load{Memory: 14 * gb},
			request: func(r *place.Request) { r.Image = "i" }, want: "a"},
		"apart from its cluster": {a: place.Load{Clusters: map[fleet.ClusterID]int{"c": 1}}, b: place.Load{Memory: 14 * gb, CPUs: 30},
			request: func(r *place.Request) { r.Cluster = "c" }, want: "b"},
		"together where there is no other": {a: place.Load{Clusters: map[fleet.ClusterID]int{"c": 1}}, b: place.Load{Memory: 16 * gb},
			request: func(r *place.Request) { r.Cluster = "c" }, want: "a"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			for start := range 2 {
				v := place.NewView(place.DefaultPolicy())
				v.SetDatastore(disk("a"), place.Space{Promised: c.fullA}) // before the hosts are known
				v.SetHost(ready("a"), c.a)
				v.SetHost(ready("b"), c.b)
				var images []fleet.ImageID
				if c.imageB {
					images = append(images, "i")
				}
				v.SetDatastore(disk("b"), place.Space{}, images...)
				r := small()
				if c.request != nil {
					c.request(&r)
				}
				got, err := v.Choose(r, func(int) int { return start })
				if err != nil || got.Host != c.want {
					t.Errorf("beginning with %d: %v, %v; want %s", start, got, err, c.want)
				}
			}
		})
	}
}

// TestFillsAndEmpties places VMs until nothing fits and removes them again: nothing
// is promised twice, each host is full at the end, and then nothing is promised.
func TestFillsAndEmpties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "hosts")
		r := place.Request{
			CPUs: rapid.IntRange(1, 8).Draw(t, "cpus"), Memory: rapid.Int64Range(gb, 16*gb).Draw(t, "memory"),
			Storage: rapid.Int64Range(gb, 100*gb).Draw(t, "storage"), Cluster: "c",
		}
		each := min(int64(32/r.CPUs), 16*gb/r.Memory, 100*gb/r.Storage)
		random := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "seed")))
		v := place.NewView(place.DefaultPolicy())
		for i := range n {
			v.SetHost(ready(fmt.Sprint(i)), place.Load{})
			v.SetDatastore(disk(fmt.Sprint(i)), place.Space{})
		}
		count := map[fleet.HostID]int64{}
		for range int64(n) * each {
			c, err := v.Choose(r, random.IntN)
			if err != nil {
				t.Fatalf("%v are placed, and then: %v", count, err)
			}
			if err := v.Reserve(c, r); err != nil {
				t.Fatal(err)
			}
			count[c.Host]++
		}
		for h, got := range count {
			if got != each {
				t.Fatalf("host %s has %d VMs, want %d", h, got, each)
			}
		}
		if c, err := v.Choose(r, random.IntN); err == nil {
			t.Fatalf("%v is full", c)
		}
		if err := v.Reserve(place.Choice{Host: "0", Datastore: "d-0"}, r); err == nil {
			t.Fatal("more is promised than there is")
		}
	})
}

func TestGiveBack(t *testing.T) {
	r := small()
	r.Cluster = "c"
	before := place.Load{VMs: 1, CPUs: 2, Memory: gb, Clusters: map[fleet.ClusterID]int{"d": 1}}
	more, err := before.Add(ready("a").Facts, place.DefaultPolicy(), r)
	want := place.Load{VMs: 2, CPUs: 3, Memory: 2 * gb, Clusters: map[fleet.ClusterID]int{"c": 1, "d": 1}}
	if d := cmp.Diff(want, more); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	back, err := more.Remove(r)
	if d := cmp.Diff(before, back); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	if d := cmp.Diff(want, more); d != "" {
		t.Errorf("Remove changed what it was given: %s", d)
	}
	if _, err := back.Remove(r); err == nil {
		t.Error("it is given back twice")
	}
	s, err := place.Space{}.Add(disk("a"), gb)
	if err != nil || s.Promised != gb {
		t.Errorf("%v, %v", s, err)
	}
	if s, err = s.Remove(gb); err != nil || s != (place.Space{}) {
		t.Errorf("%v, %v", s, err)
	}
	if _, err = s.Remove(1); err == nil {
		t.Error("space is given back twice")
	}
	for code, r := range map[fleet.Code]place.Request{fleet.NotEnoughCPUResource: {CPUs: 9}, fleet.NotEnoughMemoryResource: {Memory: 17 * gb}} {
		if got, err := before.Add(ready("a").Facts, place.DefaultPolicy(), r); fleet.CodeOf(err) != code || !cmp.Equal(got, before) {
			t.Errorf("%v, %v; want %s", got, err, code)
		}
	}
	if _, err := (place.Space{}).Add(disk("a"), 101*gb); fleet.CodeOf(err) != fleet.NotEnoughDatastoreCapacity {
		t.Errorf("err = %v", err)
	}
}

// BenchmarkChoose chooses and reserves, in fleets that are half full.
func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprintf("hosts=%d", n), func(b *testing.B) {
			random := rand.New(rand.NewPCG(1, 2))
			v := place.NewView(place.DefaultPolicy())
			loads := func() {
				for i := range n {
					v.SetHost(ready(fmt.Sprint(i)), place.Load{VMs: 8, CPUs: 8, Memory: 8 * gb})
					v.SetDatastore(disk(fmt.Sprint(i)), place.Space{Promised: 8 * gb}, "i")
				}
			}
			loads()
			r := place.Request{CPUs: 1, Memory: 512 * mb, Storage: gb, Image: "i", Cluster: "c"}
			placed := 0
			for b.Loop() {
				if placed++; placed == 8*n { // it begins to be full
					b.StopTimer()
					loads()
					placed = 0
					b.StartTimer()
				}
				c, err := v.Choose(r, random.IntN)
				if err != nil {
					b.Fatal(err)
				}
				if err := v.Reserve(c, r); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "selections/s")
		})
	}
}
