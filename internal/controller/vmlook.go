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
	known, err := c.knownAddress(ctx, v)
	if err != nil {
		return err
	}
	out := []connectionJSON{}
	for i, n := range v.NICs {
		x := connectionOf(n, now)
		if i == 0 && x.IPAddress == "" && known.IsValid() {
			x.address(known) // only VMware Tools would tell the host
		}
		out = append(out, x)
	}
	return call.Result(ctx, map[string][]connectionJSON{"networkConnections": out})
}

// knownAddress is the address that a node of a cluster was given; invalid: none.
func (c *Controller) knownAddress(ctx context.Context, v vm) (netip.Prefix, error) {
	if v.Cluster == "" {
		return netip.Prefix{}, nil
	}
	n, err := store1(ctx, c, nodes, nodeKey(v.Cluster, v.ID))
	if err != nil || !n.Addr.IsValid() {
		return netip.Prefix{}, ignore(err)
	}
	x, err := store1(ctx, c, clusters, string(v.Cluster))
	return netip.PrefixFrom(n.Addr, x.Network.Bits), ignore(err)
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
		x.address(now[i].Addrs[j])
	}
	return x
}

func (x *connectionJSON) address(a netip.Prefix) {
	x.IPAddress = a.Addr().String()
	if a.Addr().Is4() && !a.IsSingleIP() {
		x.Netmask = net.IP(net.CIDRMask(a.Bits(), 32)).String()
	}
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
