// Package place chooses the host and the datastore of a VM, and says why there is
// none. It is pure: no clock, no I/O, no goroutine; chance comes from the caller.
//
// A [View] is what is known of all hosts. [View.Choose] looks at hosts in an order
// that begins at random until [Sample] of them would do, and takes the best of
// these, so that its cost does not grow with the number of hosts as long as most
// have room; only before it refuses it has looked at every one.
//
// A choice is no promise: others choose at the same time. [Load.Add] and
// [Space.Add] are what is promised of a host and of a datastore with one VM more,
// or refuse. They belong into the transaction that writes the choice, on the
// records as that transaction reads them; who is refused there chooses again.
package place

import (
	"fmt"
	"maps"

	"bootd/internal/fleet"
)

// A Request is what a VM needs.
type Request struct {
	CPUs    int
	Memory  int64 // bytes
	Storage int64 // bytes of all its disks, which are on one datastore
	Image   fleet.ImageID
	Cluster fleet.ClusterID // its VMs are spread over hosts; empty: none

	// What it must have; zero values ask for nothing.
	Host          fleet.HostID
	Zone          fleet.ZoneID
	PortGroups    []string   // all of them
	Networks      [][]string // of each, one of these port groups
	Datastore     fleet.DatastoreID
	DatastoreTags []string
}

// A Policy is how much may be promised of what a host has.
type Policy struct {
	CPU    float64 // virtual CPUs for each thread
	Memory float64 // bytes for each byte
}

// DefaultPolicy promises memory once, and threads four times.
func DefaultPolicy() Policy { return Policy{CPU: 4, Memory: 1} }

// A Load is what is promised of a host. The zero value is nothing.
type Load struct {
	VMs      int                     `json:"vms"`
	CPUs     int                     `json:"cpus"`
	Memory   int64                   `json:"memory"`             // bytes
	Clusters map[fleet.ClusterID]int `json:"clusters,omitempty"` // VMs of each
}

// Add is the load with a VM more. The error has code [fleet.NotEnoughCPUResource]
// or [fleet.NotEnoughMemoryResource] if a host has no room for it. l is not changed.
func (l Load) Add(h fleet.HostFacts, p Policy, r Request) (Load, error) {
	switch why := l.room(h, p, r); why {
	case fits:
	case withoutMemory:
		return l, fleet.Errorf(fleet.NotEnoughMemoryResource, "host has not %s free", megabytes(r.Memory))
	default:
		return l, fleet.Errorf(fleet.NotEnoughCPUResource, "host has not %d CPUs free", r.CPUs)
	}
	l.VMs, l.CPUs, l.Memory = l.VMs+1, l.CPUs+r.CPUs, l.Memory+r.Memory
	if r.Cluster != "" {
		if l.Clusters = maps.Clone(l.Clusters); l.Clusters == nil {
			l.Clusters = map[fleet.ClusterID]int{}
		}
		l.Clusters[r.Cluster]++
	}
	return l, nil
}

// room is fits, withoutCPUs or withoutMemory. What was promised may be more than
// there is now, where a host has lost memory.
func (l Load) room(h fleet.HostFacts, p Policy, r Request) reason {
	switch {
	case r.CPUs > h.Threads || float64(l.CPUs)+float64(r.CPUs) > p.CPU*float64(h.Threads):
		return withoutCPUs // a VM has no more CPUs than its host has threads
	case float64(l.Memory)+float64(r.Memory) > p.Memory*float64(h.Memory):
		return withoutMemory
	}
	return fits
}

// Remove is the load with a VM less. To remove what was never added is an error:
// somebody did it twice. l is not changed.
func (l Load) Remove(r Request) (Load, error) {
	if l.VMs < 1 || l.CPUs < r.CPUs || l.Memory < r.Memory || r.Cluster != "" && l.Clusters[r.Cluster] < 1 {
		return l, fmt.Errorf("cannot give back %d CPUs and %s of a host: it has not promised so much", r.CPUs, megabytes(r.Memory))
	}
	l.VMs, l.CPUs, l.Memory = l.VMs-1, l.CPUs-r.CPUs, l.Memory-r.Memory
	if r.Cluster != "" {
		l.Clusters = maps.Clone(l.Clusters)
		if l.Clusters[r.Cluster]--; l.Clusters[r.Cluster] == 0 {
			delete(l.Clusters, r.Cluster)
		}
		if len(l.Clusters) == 0 {
			l.Clusters = nil
		}
	}
	return l, nil
}

// A Space is what is promised of a datastore: the bytes that its disks may grow to.
type Space struct {
	Promised int64 `json:"promised"`
}

// free is how much more can be promised. Others may fill a datastore too, so it is
// never more than what is free in it now.
func (s Space) free(d fleet.Datastore) int64 { return min(d.Free, d.Capacity-s.Promised) }

// Add is the space with so many bytes more promised. The error has code
// [fleet.NotEnoughDatastoreCapacity].
func (s Space) Add(d fleet.Datastore, bytes int64) (Space, error) {
	if bytes > s.free(d) {
		return s, fleet.Errorf(fleet.NotEnoughDatastoreCapacity, "datastore %s has not %s free", d.ID, megabytes(bytes))
	}
	return Space{s.Promised + bytes}, nil
}

// Remove is the space with so many bytes less. To remove what was never added is an
// error.
func (s Space) Remove(bytes int64) (Space, error) {
	if bytes > s.Promised {
		return s, fmt.Errorf("cannot give back %s of a datastore: it has not promised so much", megabytes(bytes))
	}
	return Space{s.Promised - bytes}, nil
}

// megabytes is for messages; a part of one counts as one.
func megabytes(n int64) string { return fmt.Sprintf("%d MB", (n+1<<20-1)>>20) }
