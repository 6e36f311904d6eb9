// Package ra answers IPv6 router solicitations, so that iPXE does not wait for
// a router that is not there.
//
// iPXE with IPv6 (as distributions build it, and as it is in QEMU's cards)
// asks for a router when it opens a card and goes on only when one answers or
// 15 seconds have passed, whether or not DHCP has long given it an address. On
// a segment without IPv6 that is a third of a machine's boot. The answer here
// says: I am a router for nobody (lifetime 0), I give no addresses, there is
// no DHCPv6. That is what makes iPXE go on, and it changes nothing for anyone
// else (RFC 4861, section 6.2.3 permits it).
//
// Where a real router advertises itself, this one is silent, for as long as
// that router says it is there.
//
// A Server is for one interface.
package ra

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv6"
)

// ICMPv6 messages (RFC 4861, sections 4.1 and 4.2).
const (
	solicitation  = 133
	advertisement = 134
)

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// settle is how long real routers get to answer the solicitation with which a
// Server starts: RFC 4861 lets them wait half a second.
const settle = time.Second

// A Server answers router solicitations on one interface.
type Server struct {
	ifi   *net.Interface
	conn  *ipv6.PacketConn
	log   *slog.Logger
	start time.Time
	// router is the end of the time for which a real router has said that it
	// is there.
	router time.Time
}

// Listen opens a raw ICMPv6 socket on an interface (CAP_NET_RAW). It fails
// where IPv6 is switched off; then nothing need answer either, as long as the
// machines are served without it.
func Listen(ifname string, log *slog.Logger) (*Server, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for router solicitations: interface %s: %w", ifname, err)
	}
	c, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("cannot listen for router solicitations on %s: %w", ifname, err)
	}
	p := ipv6.NewPacketConn(c)
	if err := prepare(p, ifi); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot listen for router solicitations on %s: %w", ifname, err), c.Close())
	}
	return &Server{ifi: ifi, conn: p, log: log}, nil
}

func prepare(p *ipv6.PacketConn, ifi *net.Interface) error {
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeRouterSolicitation)
	f.Accept(ipv6.ICMPTypeRouterAdvertisement)
	if err := p.SetICMPFilter(&f); err != nil {
		return err
	}
	if err := p.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true); err != nil {
		return err
	}
	// Neighbour discovery is only believed with a hop limit that no router
	// has lowered.
	if err := p.SetHopLimit(255); err != nil {
		return err
	}
	if err := p.SetMulticastHopLimit(255); err != nil {
		return err
	}
	if err := p.SetMulticastLoopback(false); err != nil {
		return err
	}
	for _, g := range []netip.Addr{allRouters, allNodes} {
		if err := p.JoinGroup(ifi, &net.UDPAddr{IP: g.AsSlice()}); err != nil {
			return err
		}
	}
	return nil
}

// String names the server in logs.
func (s *Server) String() string { return "router advertisements " + s.ifi.Name }

// solicit asks whether there is a real router, which then answers at once and
// not in ten minutes. An interface that has just come up cannot send yet, because
// its own address is still being probed (RFC 4862 section 5.4), so a failure is
// repeated once.
func (s *Server) solicit(ctx context.Context) {
	ask := func() error { return s.send([]byte{solicitation, 0, 0, 0, 0, 0, 0, 0}, allRouters) }
	if ask() == nil {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(2 * time.Second):
	}
	if err := ask(); err != nil && ctx.Err() == nil {
		s.log.Warn("cannot ask for routers", "interface", s.ifi.Name, "err", err)
	}
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	defer s.conn.Close()
	s.start = time.Now()
	var asking sync.WaitGroup
	asking.Go(func() { s.solicit(ctx) })
	defer asking.Wait()
	buf := make([]byte, 1500)
	for {
		n, cm, from, err := s.conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("cannot receive router solicitations on %s: %w", s.ifi.Name, err)
		case cm == nil || cm.IfIndex != s.ifi.Index || cm.HopLimit != 255:
			continue
		}
		a, ok := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		if !ok {
			continue
		}
		s.handle(time.Now(), buf[:n], a)
	}
}

func (s *Server) handle(now time.Time, msg []byte, from netip.Addr) {
	d := decide(msg, from)
	if d.router > 0 {
		if now.After(s.router) {
			s.log.Info("a router advertises itself; leaving solicitations to it", "interface", s.ifi.Name, "addr", from)
		}
		s.router = now.Add(d.router)
	}
	if !d.answer.IsValid() || now.Before(s.router) || now.Before(s.start.Add(settle)) {
		return // who asked asks again
	}
	if err := s.send(Advertisement(s.ifi.HardwareAddr), d.answer); err != nil {
		s.log.Warn("cannot answer a router solicitation", "interface", s.ifi.Name, "addr", d.answer, "err", err)
	}
}

func (s *Server) send(msg []byte, to netip.Addr) error {
	_, err := s.conn.WriteTo(msg, &ipv6.ControlMessage{IfIndex: s.ifi.Index}, &net.IPAddr{IP: to.AsSlice()})
	return err
}

// A decision is what to do about a message.
type decision struct {
	answer netip.Addr    // where to send an advertisement; invalid: nowhere
	router time.Duration // for how long a real router has said that it is there
}

// decide is pure. Its checks are those of RFC 4861, sections 6.1.1 and 6.1.2;
// the kernel has checked the checksum.
func decide(msg []byte, from netip.Addr) decision {
	from = from.WithZone("")
	switch {
	case len(msg) >= 8 && msg[0] == solicitation && msg[1] == 0:
		if from.IsUnspecified() {
			return decision{answer: allNodes}
		}
		if from.IsLinkLocalUnicast() {
			return decision{answer: from}
		}
	case len(msg) >= 16 && msg[0] == advertisement && msg[1] == 0 && from.IsLinkLocalUnicast():
		return decision{router: time.Duration(binary.BigEndian.Uint16(msg[6:])) * time.Second}
	}
	return decision{}
}

// Advertisement is a router advertisement that offers nothing: no default
// route, no prefix, no DHCPv6. The kernel fills in its checksum.
func Advertisement(hw net.HardwareAddr) []byte {
	b := make([]byte, 16, 24)
	b[0] = advertisement
	if len(hw) == 6 { // source link-layer address, in units of 8 bytes
		b = append(b, 1, 1)
		b = append(b, hw...)
	}
	return b
}
