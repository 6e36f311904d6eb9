package controller

import (
	"context"
	"net"
	"net/netip"
	"slices"

	"bootd/internal/fleet"
	"bootd/internal/task"
)

// A connectionJSON is how a NIC is told to clients.
type connectionJSON struct {
	Network     string `json:"network"`
	MACAddress  string `json:"macAddress"`
	IPAddress   string `json:"ipAddress"`
	Netmask     string `json:"netmask"`
	IsConnected string `json:"isConnected"`
}

func (c *Controller) doNetworks(ctx context.Context, call *task.Call) error {
	v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
	if err != nil {
		return err
	}
	var now []fleet.NICStatus
	if v.Host != "" {
		y, err := c.hypervisor(ctx, v.Host)
		if err != nil {
			return err
		}
		s, err := y.Status(ctx, v.ID)
		if err != nil && !fleet.IsFault(err, fleet.Missing) {
			return err
		}
		now = s.NICs
	}
	out := []connectionJSON{}
	for _, n := range v.NICs {
		out = append(out, connectionOf(n, now))
	}
	return call.Result(ctx, map[string][]connectionJSON{"networkConnections": out})
}

// connectionOf is a NIC with what its host says of it.
func connectionOf(n fleet.NIC, now []fleet.NICStatus) connectionJSON {
	x := connectionJSON{Network: string(n.Subnet), MACAddress: n.MAC.String(), IsConnected: "Unknown"}
	if n.Subnet == "" {
		x.Network = n.PortGroup
	}
	i := slices.IndexFunc(now, func(s fleet.NICStatus) bool { return s.MAC == n.MAC })
	if i < 0 {
		return x
	}
	if x.IsConnected = "False"; now[i].Connected {
		x.IsConnected = "True"
	}
	j := slices.IndexFunc(now[i].Addrs, func(p netip.Prefix) bool { return p.Addr().Is4() })
	if j < 0 && len(now[i].Addrs) > 0 {
		j = 0
	}
	if j >= 0 {
		a := now[i].Addrs[j]
		x.IPAddress = a.Addr().String()
		if a.Addr().Is4() && !a.IsSingleIP() {
			x.Netmask = net.IP(net.CIDRMask(a.Bits(), 32)).String()
		}
	}
	return x
}

func (c *Controller) doTicket(ctx context.Context, call *task.Call) error {
	v, err := find(ctx, c, vms, fleet.KindVM, call.Entity.ID)
	if err != nil {
		return err
	}
	if _, err := v.After(fleet.GetMKSTicket); err != nil {
		return err
	}
	y, err := c.hypervisor(ctx, v.Host)
	if err != nil {
		return err
	}
	t, err := y.Ticket(ctx, v.ID)
	if err != nil {
		return err
	}
	if t.Host == "" {
		if t.Host, err = c.HostAddress(ctx, v.Host); err != nil {
			return err
		}
	}
	return call.Result(ctx, map[string]any{"port": t.Port, "cfgFile": t.ConfigFile, "ticket": t.Ticket, "sslThumbprint": t.SSLThumbprint, "host": t.Host})
}
