package esx

import (
	"context"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/boot"
	"bootd/internal/fleet"
)

// hostProperties are what [hostFacts] needs.
var hostProperties = []string{"name", "summary.hardware", "summary.quickStats", "summary.managementServerIp", "runtime.inMaintenanceMode", "runtime.bootTime",
	"capability.nestedHVSupported", "config.product", "config.network.portgroup", "config.network.vnic", "config.network.pnic"}

// Facts are what the host says of itself now.
func (h *Host) Facts(ctx context.Context) (fleet.HostFacts, error) {
	var out fleet.HostFacts
	err := h.verb(ctx, "look at", "the hardware", func(ctx context.Context, inv *inventory) error {
		var err error
		out, err = h.facts(ctx, inv)
		return err
	})
	return out, err
}

func (h *Host) facts(ctx context.Context, inv *inventory) (fleet.HostFacts, error) {
	var host mo.HostSystem
	if err := inv.get(ctx, inv.host, hostProperties, &host); err != nil {
		return fleet.HostFacts{}, err
	}
	out := hostFacts(host)
	if ref := inv.manager.ConfigManager.NetworkSystem; ref != nil {
		// HostSystem's own copy of this may be old.
		var n mo.HostNetworkSystem
		if err := inv.get(ctx, *ref, []string{"networkInfo.portgroup", "networkInfo.vnic"}, &n); err != nil {
			return out, err
		}
		if n.NetworkInfo != nil {
			out.PortGroups = forVMs(n.NetworkInfo.Portgroup, n.NetworkInfo.Vnic)
		}
	}
	if ref := inv.vim.ServiceContent.LicenseManager; ref != nil {
		var l mo.LicenseManager
		if err := inv.get(ctx, *ref, []string{"licenses"}, &l); err != nil {
			return out, err
		}
		out.License, out.ReadOnly = license(l.Licenses)
	}
	all, err := h.datastores(ctx, inv)
	if err != nil {
		return out, err
	}
	for _, d := range all {
		out.Datastores = append(out.Datastores, datastoreFacts(d, inv.host))
	}
	slices.SortFunc(out.Datastores, func(a, b fleet.DatastoreFacts) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// hostFacts are those that the host object has.
func hostFacts(h mo.HostSystem) fleet.HostFacts {
	out := fleet.HostFacts{Name: h.Name, Maintenance: h.Runtime.InMaintenanceMode, ManagedBy: h.Summary.ManagementServerIp}
	if hw := h.Summary.Hardware; hw != nil {
		out.UUID, out.Vendor, out.Model = strings.ToLower(hw.Uuid), hw.Vendor, hw.Model
		out.Cores, out.Threads, out.MHz, out.Memory = int(hw.NumCpuCores), int(hw.NumCpuThreads), int(hw.CpuMhz), hw.MemorySize
	}
	q := h.Summary.QuickStats
	out.CPUUsedMHz, out.MemoryUsed = int(q.OverallCpuUsage), int64(q.OverallMemoryUsage)<<20
	if h.Runtime.BootTime != nil {
		out.Booted = h.Runtime.BootTime.UTC()
	}
	if h.Capability != nil {
		out.NestedHV = h.Capability.NestedHVSupported
	}
	if c := h.Config; c != nil {
		out.Version, out.Build = c.Product.Version, c.Product.Build
		if c.Network != nil {
			out.PortGroups, out.Ports = forVMs(c.Network.Portgroup, c.Network.Vnic), ports(c.Network.Pnic)
		}
	}
	return out
}

// forVMs are the port groups that VMs can be on: a host lets none on those of its own
// network interfaces, such as "Management Network".
func forVMs(list []types.HostPortGroup, own []types.HostVirtualNic) []fleet.PortGroup {
	return slices.DeleteFunc(portGroups(list), func(g fleet.PortGroup) bool {
		return slices.ContainsFunc(own, func(n types.HostVirtualNic) bool { return n.Portgroup == g.Name })
	})
}

func portGroups(list []types.HostPortGroup) []fleet.PortGroup {
	var out []fleet.PortGroup
	for _, p := range list {
		g := fleet.PortGroup{Name: p.Spec.Name, Switch: p.Spec.VswitchName, VLAN: int(p.Spec.VlanId)}
		// What counts is computed of the group's policy and its switch's.
		if s := p.ComputedPolicy.Security; s != nil {
			g.Promiscuous, g.MACChanges, g.ForgedTransmits = yes(s.AllowPromiscuous), yes(s.MacChanges), yes(s.ForgedTransmits)
		}
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b fleet.PortGroup) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func yes(b *bool) bool { return b != nil && *b }

func ports(list []types.PhysicalNic) []fleet.Port {
	var out []fleet.Port
	for _, n := range list {
		p := fleet.Port{Name: n.Device}
		if mac, err := boot.ParseMAC(n.Mac); err == nil {
			p.MAC = mac
		}
		if n.LinkSpeed != nil {
			p.Mbps = int(n.LinkSpeed.SpeedMb)
		}
		out = append(out, p)
	}
	return out
}

// license is the name of what a host is licensed by, and whether it forbids
// changes: the free edition lacks the feature vimapi, and is not an evaluation.
func license(list []types.LicenseManagerLicenseInfo) (name string, readOnly bool) {
	for _, l := range list {
		if l.EditionKey == "eval" {
			return l.Name, false
		}
		writes, told := false, false
		for _, p := range l.Properties {
			if p.Key != "feature" {
				continue
			}
			told = true
			if kv, ok := p.Value.(types.KeyValue); ok && strings.HasPrefix(kv.Key, "vimapi") {
				writes = true
			}
		}
		return l.Name, told && !writes || strings.HasPrefix(l.EditionKey, "esxBasic")
	}
	return "", false
}

// datastoreFacts are what a host says of a datastore.
func datastoreFacts(d mo.Datastore, host types.ManagedObjectReference) fleet.DatastoreFacts {
	s := d.Summary
	out := fleet.DatastoreFacts{ID: fleet.DatastoreIDOf(s.Url), Name: s.Name, URL: s.Url, Capacity: s.Capacity, Free: s.FreeSpace, Accessible: s.Accessible, Type: datastoreType(d)}
	for _, m := range d.Host {
		if m.Key == host && m.MountInfo.AccessMode == string(types.HostMountModeReadOnly) {
			out.ReadOnly = true
		}
	}
	return out
}

func datastoreType(d mo.Datastore) fleet.DatastoreType {
	switch strings.ToUpper(d.Summary.Type) {
	case string(types.HostFileSystemVolumeFileSystemTypeVMFS):
		// A host by itself cannot tell whether others have the volume too: it
		// knows whether its disks are local ones.
		if i, ok := d.Info.(*types.VmfsDatastoreInfo); ok && i.Vmfs != nil && i.Vmfs.Local != nil && !*i.Vmfs.Local {
			return fleet.SharedVMFS
		}
		return fleet.LocalVMFS
	case string(types.HostFileSystemVolumeFileSystemTypeNFS):
		return fleet.NFS3
	case string(types.HostFileSystemVolumeFileSystemTypeNFS41):
		return fleet.NFS41
	case strings.ToUpper(string(types.HostFileSystemVolumeFileSystemTypeVsan)):
		return fleet.VSAN
	}
	return fleet.Other
}
