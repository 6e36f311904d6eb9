package esx

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/fleet"
)

// addressKey is where a guest without VMware Tools may write its addresses,
// with commas: vmware-rpctool "info-set guestinfo.ip 10.0.0.7".
const addressKey = "guestinfo.ip"

// vmStatus puts a VM's properties into fleet's words.
func vmStatus(id fleet.VMID, v mo.VirtualMachine) fleet.VMStatus {
	out := fleet.VMStatus{VM: id, State: fleet.VMError}
	switch v.Runtime.ConnectionState {
	case "", types.VirtualMachineConnectionStateConnected:
		switch v.Runtime.PowerState {
		case types.VirtualMachinePowerStatePoweredOn:
			out.State = fleet.VMStarted
		case types.VirtualMachinePowerStatePoweredOff:
			out.State = fleet.VMStopped
		case types.VirtualMachinePowerStateSuspended:
			out.State = fleet.VMSuspended
		}
	}
	if v.Config == nil {
		return out
	}
	out.CPUs, out.Memory = int(v.Config.Hardware.NumCPU), int64(v.Config.Hardware.MemoryMB)<<20
	var known map[string][]netip.Prefix
	if v.Guest != nil && out.State == fleet.VMStarted {
		out.Tools = v.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
		known = guestAddrs(*v.Guest)
	}
	for _, d := range v.Config.Hardware.Device {
		switch x := d.(type) {
		case types.BaseVirtualEthernetCard:
			out.NICs = append(out.NICs, nicStatus(*x.GetVirtualEthernetCard(), known))
		case *types.VirtualDisk:
			if file, ok := backingFile(x); ok {
				if id := diskOf(file); id != "" {
					out.Disks = append(out.Disks, id)
				}
			}
		case *types.VirtualCdrom:
			if b, ok := x.Backing.(*types.VirtualCdromIsoBackingInfo); ok {
				out.ISO = b.FileName
			}
		}
	}
	if out.State == fleet.VMStarted && len(out.NICs) > 0 && len(known) == 0 {
		out.NICs[0].Addrs = parseAddrs(extra(v.Config.ExtraConfig, addressKey))
	}
	return out
}

func nicStatus(e types.VirtualEthernetCard, known map[string][]netip.Prefix) fleet.NICStatus {
	n := fleet.NICStatus{MAC: macOf(e.MacAddress), Addrs: known[strings.ToLower(e.MacAddress)]}
	if b, ok := e.Backing.(*types.VirtualEthernetCardNetworkBackingInfo); ok {
		n.PortGroup = b.DeviceName
	}
	if e.Connectable != nil {
		n.Connected = e.Connectable.Connected
	}
	return n
}

// guestAddrs are what VMware Tools report, by MAC in lower case. Addresses of
// the link alone are left out: they reach nobody.
func guestAddrs(g types.GuestInfo) map[string][]netip.Prefix {
	out := map[string][]netip.Prefix{}
	for _, n := range g.Net {
		mac := strings.ToLower(n.MacAddress)
		var list []netip.Prefix
		if n.IpConfig != nil {
			for _, a := range n.IpConfig.IpAddress {
				list = append(list, parseAddrs(fmt.Sprintf("%s/%d", a.IpAddress, a.PrefixLength))...)
			}
		}
		if len(list) == 0 {
			for _, a := range n.IpAddress {
				list = append(list, parseAddrs(a)...)
			}
		}
		if len(list) > 0 {
			out[mac] = list
		}
	}
	return out
}

// parseAddrs reads addresses with commas or blanks between them, with or without
// the length of their prefix. What is no address is left out: guests write it.
func parseAddrs(s string) []netip.Prefix {
	var out []netip.Prefix
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' }) {
		p, err := netip.ParsePrefix(f)
		if err != nil {
			a, err := netip.ParseAddr(f)
			if err != nil {
				continue
			}
			p = netip.PrefixFrom(a.WithZone(""), a.BitLen())
		}
		a := p.Addr()
		if a.IsLinkLocalUnicast() || a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || slices.Contains(out, p) {
			continue
		}
		out = append(out, p)
	}
	return out
}

// extra is a key of a VM's configuration.
func extra(list []types.BaseOptionValue, key string) string {
	for _, o := range list {
		if v := o.GetOptionValue(); v.Key == key {
			s, _ := v.Value.(string)
			return s
		}
	}
	return ""
}
