package place

import (
	"fmt"
	"slices"
	"strings"

	"bootd/internal/fleet"
)

// A reason is why a host will not do: the first in this order that holds.
type reason int

const (
	fits reason = iota
	inMaintenance
	suspended
	notReady
	unreachable
	readOnly
	notForTenants
	inOtherZone
	withoutPortGroup
	withoutCPUs
	withoutMemory
	withoutDatastore
	withoutSpace
	reasons // how many there are
)

// refuses tells why a host takes no VM of this kind, however much room it has. It
// is fits exactly where [fleet.Host.Takes] is true and the request's zone and port
// groups are there.
func (h *host) refuses(r Request) reason {
	switch {
	case h.State == fleet.HostMaintenance, h.Facts.Maintenance:
		return inMaintenance
	case h.State == fleet.HostSuspended:
		return suspended
	case h.State != fleet.HostReady:
		return notReady
	case !h.Health.Reachable:
		return unreachable
	case h.Facts.ReadOnly:
		return readOnly
	case !h.Has(fleet.Cloud):
		return notForTenants
	case r.Zone != "" && h.Zone != r.Zone:
		return inOtherZone
	}
	for _, want := range r.PortGroups {
		if !slices.ContainsFunc(h.Facts.PortGroups, func(p fleet.PortGroup) bool { return p.Name == want }) {
			return withoutPortGroup
		}
	}
	for _, names := range r.Networks {
		if !slices.ContainsFunc(h.Facts.PortGroups, func(p fleet.PortGroup) bool { return slices.Contains(names, p.Name) }) {
			return withoutPortGroup
		}
	}
	return fits
}

// refusals count hosts by reason.
type refusals [reasons]int

// err is why no host will do.
func (c refusals) err(r Request) error {
	total := 0
	var parts []string
	for why := inMaintenance; why < reasons; why++ {
		if n := c[why]; n > 0 {
			total += n
			parts = append(parts, fmt.Sprintf("%d %s", n, why.words(r)))
		}
	}
	if total == 0 {
		return fleet.Errorf(fleet.NoSuchResource, "there are no hosts; register one first")
	}
	hosts := "hosts"
	if total == 1 {
		hosts = "host"
	}
	return fleet.Errorf(c.code(), "%d %s: %s", total, hosts, strings.Join(parts, ", "))
}

// wanted are the port groups a host must have, as a sentence has them.
func wanted(r Request) string {
	parts := slices.Clone(r.PortGroups)
	for _, names := range r.Networks {
		parts = append(parts, strings.Join(names, " or "))
	}
	return strings.Join(parts, " and ")
}

func (w reason) words(r Request) string {
	switch w {
	case inMaintenance:
		return "in maintenance"
	case suspended:
		return "suspended"
	case unreachable:
		return "not reachable"
	case readOnly:
		return "with a license that forbids changes"
	case notForTenants:
		return "not tagged " + string(fleet.Cloud)
	case inOtherZone:
		return "not in zone " + string(r.Zone)
	case withoutPortGroup:
		return "without port group " + wanted(r)
	case withoutCPUs:
		return fmt.Sprintf("without %d CPUs", r.CPUs)
	case withoutMemory:
		return "without " + megabytes(r.Memory)
	case withoutDatastore:
		return "without a datastore that suits"
	case withoutSpace:
		return "without " + megabytes(r.Storage) + " of storage"
	}
	return "not ready"
}

// code is Photon's for the most telling reason: CPUs before memory before storage,
// then what was asked for beside them.
func (c refusals) code() fleet.Code {
	switch {
	case c[withoutCPUs] > 0:
		return fleet.NotEnoughCPUResource
	case c[withoutMemory] > 0:
		return fleet.NotEnoughMemoryResource
	case c[withoutSpace] > 0:
		return fleet.NotEnoughDatastoreCapacity
	case c[withoutDatastore] > 0:
		return fleet.UnfulfillableDiskAffinities
	case c[inOtherZone] > 0, c[withoutPortGroup] > 0:
		return fleet.UnfulfillableAffinities
	}
	return fleet.NoSuchResource
}
