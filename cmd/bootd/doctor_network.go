package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/internal/doctor"
)

// networks looks at the interface of each network, and at the ports there.
func (x *examination) networks(ctx context.Context) {
	if len(x.cfg.Catalog.Networks) == 0 {
		x.say("networks", doctor.Warning, "bootd init --interface eth1 writes an example", "no network is configured, so no machine is answered")
	}
	var tried []doctor.Port
	for i := range x.cfg.Catalog.Networks {
		n := &x.cfg.Catalog.Networks[i]
		addr, ok := x.interfaceOf(n)
		if !ok {
			continue
		}
		var wanted []doctor.Port
		if n.Mode != boot.Off {
			wanted = append(wanted, doctor.Port{Proto: "udp", Num: 67, Iface: n.Interface})
		}
		if n.Mode == boot.Proxy {
			wanted = append(wanted, doctor.Port{Proto: "udp", Num: 4011, Iface: n.Interface})
		}
		wanted = append(wanted, doctor.Port{Proto: "udp", Addr: addr, Num: uint16(x.cfg.TFTPPort)}, doctor.Port{Proto: "tcp", Addr: addr, Num: uint16(x.cfg.HTTPPort)})
		for _, p := range wanted {
			if !slices.Contains(tried, p) {
				tried = append(tried, p)
				x.port(ctx, "network "+n.Name, p)
			}
		}
	}
	for _, l := range [][2]string{{"metrics", x.cfg.Metrics}, {"controller", x.controllerAddr()}} {
		if a, err := netip.ParseAddrPort(l[1]); err == nil && a.Port() != 0 {
			x.port(ctx, l[0], doctor.Port{Proto: "tcp", Addr: a.Addr(), Num: a.Port()})
		}
	}
}

// controllerAddr is where the controller is to be reached; empty: nowhere.
func (x *examination) controllerAddr() string {
	if x.cfg.Controller == nil {
		return ""
	}
	return x.cfg.Controller.Listen
}

// interfaceOf looks at the interface of a network; addr is bootd's address there.
func (x *examination) interfaceOf(n *boot.Network) (addr netip.Addr, ok bool) {
	check := "network " + n.Name
	i, err := net.InterfaceByName(n.Interface)
	if err != nil {
		x.say(check, doctor.Fault, "ip link shows which there are; name one in bootd.yaml: interface: NAME", "there is no interface %s", n.Interface)
		return addr, false
	}
	addr, err = serverAddr(n)
	switch {
	case i.Flags&net.FlagUp == 0:
		x.say(check, doctor.Fault, "ip link set "+n.Interface+" up", "interface %s is switched off", n.Interface)
		return addr, err == nil
	case err != nil:
		x.say(check, doctor.Fault, fmt.Sprintf("ip addr add ADDRESS/%d dev %s, and make that last", n.Subnet.Bits(), n.Interface), "interface %s has no address in %s", n.Interface, n.Subnet)
		return addr, false
	case !here(addr):
		x.say(check, doctor.Fault, fmt.Sprintf("ip addr add %s/%d dev %s, or mend server: in bootd.yaml", addr, n.Subnet.Bits(), n.Interface), "no interface has the address %s, which is to be the server's", addr)
		return addr, false
	case i.Flags&net.FlagRunning == 0:
		x.say(check, doctor.Warning, "look at the cable and the switch", "interface %s has no link", n.Interface)
	default:
		x.say(check, doctor.OK, "", "%s on %s, server %s", n.Subnet, n.Interface, addr)
	}
	return addr, true
}

// here reports whether an address is one of this machine's.
func here(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(b net.Addr) bool {
		p, err := netip.ParsePrefix(b.String())
		return err == nil && p.Addr() == a
	})
}

// port tries to have a port, as the server would.
func (x *examination) port(ctx context.Context, check string, p doctor.Port) {
	err := doctor.Free(ctx, p)
	holders := doctor.Holders(p)
	mine := x.server != nil && slices.ContainsFunc(holders, func(h doctor.Holder) bool { return h.PID == x.server.PID })
	switch {
	case err == nil || mine:
	case errors.Is(err, syscall.EADDRINUSE) && len(holders) > 0:
		var names, stop []string
		for _, h := range holders {
			names = append(names, fmt.Sprintf("%s (process %d)", h.Name, h.PID))
			stop = append(stop, fmt.Sprintf("kill %d", h.PID))
		}
		x.say(check, doctor.Fault, "stop it, by its service (systemctl status "+fmt.Sprint(holders[0].PID)+" names that) or "+strings.Join(stop, "; "), "%s is taken by %s", p, strings.Join(names, ", "))
	case errors.Is(err, syscall.EADDRINUSE) && x.server != nil:
		// Whose it is can be seen only by root; the server has its own.
	case errors.Is(err, syscall.EADDRINUSE) && x.hidden:
		x.say(check, doctor.Unknown, asOperator, "%s is taken, by the server or by something else", p)
	case errors.Is(err, syscall.EADDRINUSE):
		x.say(check, doctor.Fault, fmt.Sprintf("sudo ss -lnp 'sport = %d' shows by what; stop that", p.Num), "%s is taken by something else", p)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		x.say(check, doctor.Unknown, "run it as root", "whether %s is free could not be tried", p)
	default:
		x.say(check, doctor.Fault, "", "%s cannot be bound: %v", p, err)
	}
}

// firewall finds out whether machines' packets come through.
func (x *examination) firewall(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	f, err := doctor.ReadFirewall(ctx, x.root)
	if err != nil {
		x.say("firewall", doctor.Unknown, "run it as root", "%v", err)
		return
	}
	open := true
	for i := range x.cfg.Catalog.Networks {
		n := &x.cfg.Catalog.Networks[i]
		addr, err := serverAddr(n)
		if err != nil {
			continue
		}
		for _, p := range firstPackets(n, addr, x.cfg.TFTPPort, x.cfg.HTTPPort) {
			for _, against := range f.Against(p) {
				open = false
				level, text := doctor.Fault, "%s drops what comes to %s port %d on %s"
				if against.Verdict == doctor.MayDrop {
					level, text = doctor.Warning, "%s may drop what comes to %s port %d on %s; its rules go by more than can be told here"
				}
				x.say("firewall", level, against.Admit(p)+"; and the same in what loads the rules (ufw, firewalld, nftables.conf), or it lasts only until then",
					text, against, strings.ToUpper(p.Proto), p.Port, p.Iface)
			}
		}
	}
	switch {
	case !open:
	case len(f.Kinds) == 0:
		x.say("firewall", doctor.OK, "", "neither iptables nor nft is installed")
	default:
		x.say("firewall", doctor.OK, "", "%s let machines in", strings.Join(f.Kinds, " and "))
	}
}

// firstPackets are what machines of a network send first, by the protocols that
// they boot with.
func firstPackets(n *boot.Network, server netip.Addr, tftp, http int) []doctor.Packet {
	from := n.Subnet.Addr().Next() // whoever has it
	var out []doctor.Packet
	switch {
	case n.Mode == boot.Off:
	case n.Relayed:
		out = append(out, doctor.Packet{Proto: "udp", Src: from, Dst: server, SrcPort: 67, Port: 67})
	default:
		out = append(out, doctor.Packet{Proto: "udp", Src: netip.IPv4Unspecified(), Dst: netip.AddrFrom4([4]byte{255, 255, 255, 255}), SrcPort: 68, Port: 67})
	}
	if n.Mode == boot.Proxy {
		out = append(out, doctor.Packet{Proto: "udp", Src: from, Dst: server, SrcPort: 68, Port: 4011})
	}
	out = append(out, doctor.Packet{Proto: "udp", Src: from, Dst: server, Port: uint16(tftp)}, doctor.Packet{Proto: "tcp", Src: from, Dst: server, Port: uint16(http)})
	for i := range out {
		out[i].Iface = n.Interface
	}
	return out
}

// otherServers asks on each network whether somebody else gives addresses.
func (x *examination) otherServers(ctx context.Context) {
	alone := func(n boot.Network) bool {
		_, err := serverAddr(&n)
		return n.Mode == boot.Authoritative && !n.Relayed && err == nil
	}
	if !slices.ContainsFunc(x.cfg.Catalog.Networks, alone) {
		return
	}
	const remedy = "stop it, or leave the addresses to it (mode: proxy)"
	if fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		if x.server == nil {
			x.say("DHCP", doctor.Unknown, "run it as root", "whether another DHCP server answers could not be asked: %v", os.NewSyscallError("socket", err))
			return
		}
	} else {
		_ = unix.Close(fd)
	}
	looking, stop := context.WithTimeout(ctx, x.wait)
	defer stop()
	out := dhcp.NewLookout(dhcp.LookoutConfig{Catalog: func() *boot.Catalog { return x.cfg.Catalog }, Log: slog.New(slog.DiscardHandler)})
	ended := make(chan error, 1)
	go func() { ended <- out.Run(looking) }()
	// What is found is forgotten when it ends.
	var others []dhcp.Another
	for tick := time.NewTicker(50 * time.Millisecond); len(others) == 0 && looking.Err() == nil; {
		select {
		case <-tick.C:
			others = out.Others()
		case <-looking.Done():
			tick.Stop()
		}
	}
	stop()
	if err := <-ended; err != nil {
		x.say("DHCP", doctor.Unknown, "", "%v", err)
		return
	}
	seen := map[netip.Addr]bool{}
	for _, o := range others {
		seen[o.Addr] = true
		x.say("DHCP", doctor.Fault, remedy, "another DHCP server on %s: %s", o.Interface, o)
	}
	if x.server != nil { // it has listened for longer
		for _, n := range x.server.Networks {
			for _, o := range n.Others {
				if !seen[o.Addr] {
					seen[o.Addr] = true
					x.say("DHCP", doctor.Fault, remedy, "another DHCP server on %s: %s", n.Interface, dhcp.Another{Addr: o.Addr, MAC: o.MAC, Offers: o.Offers})
				}
			}
		}
	}
	if len(seen) == 0 {
		x.say("DHCP", doctor.OK, "", "no other server answered within %s", x.wait)
	}
}
