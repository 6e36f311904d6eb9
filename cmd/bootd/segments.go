package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/boot/ipxe"
	"bootd/boot/ra"
	"bootd/boot/tftp"
	"bootd/internal/config"
)

// segments runs, on bootd's address on each network, what machines fetch
// from: HTTP and TFTP; and on each interface the answer to iPXE's question for
// an IPv6 router. They come and go with the networks of the catalog.
type segments struct {
	live    *live
	handler *ipxe.Handler
	record  func(boot.Event)
	log     *slog.Logger
	http    uint16
	tftp    uint16
	overlay string
	again   chan struct{}

	mu   sync.Mutex
	open map[netip.Addr]*segment
}

// A segment is what runs for one address.
type segment struct {
	parts  []service // all are needed
	router service   // answers for IPv6 routers; machines boot without it, only later; may be nil
	iface  string
	index  int                // of the interface; 0: unknown
	cancel context.CancelFunc // nil: not started
	done   chan struct{}
}

func newSegments(cfg *config.Config, l *live, h *ipxe.Handler, record func(boot.Event), log *slog.Logger) *segments {
	return &segments{live: l, handler: h, record: record, log: log, http: uint16(cfg.HTTPPort), tftp: uint16(cfg.TFTPPort),
		overlay: cfg.TFTPRoot, again: make(chan struct{}, 1), open: map[netip.Addr]*segment{}}
}

func (s *segments) String() string { return "HTTP and TFTP" }

// reload makes Run look at the catalog's networks again.
func (s *segments) reload() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// reconcile binds the addresses that are missing and gives up those that no
// network has any more. The first error is of networks whose interface is not
// there or has no address, the second of what cannot be bound.
func (s *segments) reconcile() (absent, failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[netip.Addr]string{}
	for _, n := range s.live.catalog().Networks {
		addr, err := serverAddr(&n)
		if err != nil {
			absent = errors.Join(absent, err)
			continue
		}
		wanted[addr] = n.Interface
	}
	for addr, seg := range s.open {
		// What listens on an interface hears nothing of another that has taken
		// its name and address.
		if iface, ok := wanted[addr]; !ok || indexOf(iface) != seg.index {
			seg.stop()
			delete(s.open, addr)
		}
	}
	for _, addr := range slices.SortedFunc(maps.Keys(wanted), netip.Addr.Compare) {
		if s.open[addr] != nil {
			continue
		}
		seg, err := s.bind(addr, wanted[addr])
		if errors.Is(err, syscall.EADDRNOTAVAIL) { // the card that is to have it is not there
			absent = errors.Join(absent, err)
			continue
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		s.open[addr] = seg
	}
	return absent, failed
}

// listen binds the addresses of all networks. What cannot be bound is an error.
// A network without its interface is one only when there is no other: the card
// may be plugged in later, and Run looks for it.
func (s *segments) listen() error {
	absent, failed := s.reconcile()
	if failed == nil && len(s.open) == 0 {
		failed = absent
	}
	if failed != nil {
		s.close()
	}
	return failed
}

// serverAddr is bootd's own address for the machines of a network.
func serverAddr(n *boot.Network) (netip.Addr, error) {
	if n.Server.IsValid() {
		return n.Server, nil
	}
	link, err := dhcp.LinkOf(n.Interface)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("network %s cannot be served: %w", n.Name, err)
	}
	if a := dhcp.ServerAddr(n, link); a.IsValid() {
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("network %s cannot be served: interface %s has no address in %s; give it one: ip addr add ADDRESS/%d dev %s",
		n.Name, n.Interface, n.Subnet, n.Subnet.Bits(), n.Interface)
}

func (s *segments) bind(addr netip.Addr, iface string) (*segment, error) {
	web, err := ipxe.Listen([]netip.AddrPort{netip.AddrPortFrom(addr, s.http)}, s.handler, s.log.With("part", "http"))
	if err != nil {
		return nil, err
	}
	seg := &segment{parts: []service{web}, iface: iface, index: indexOf(iface)}
	base := func(a netip.Addr) string { return ipxe.BaseURL(netip.AddrPortFrom(a, s.http)) }
	files, err := tftp.Listen(netip.AddrPortFrom(addr, s.tftp), tftp.Config{
		Loaders: s.live.loaders,
		Overlay: s.overlay,
		Others:  askedByTFTP(s.handler, s.live.images, base),
		BaseURL: base,
		Record:  s.record,
		Log:     s.log.With("part", "tftp"),
	})
	if err != nil {
		seg.abandon()
		return nil, err
	}
	seg.parts = append(seg.parts, files)
	if seg.index != 0 {
		router, err := ra.Listen(iface, s.log.With("part", "ra"))
		if err != nil {
			s.noRouter(iface, err)
		} else {
			seg.router = router
		}
	}
	return seg, nil
}

func (s *segments) noRouter(iface string, err error) {
	s.log.Warn("iPXE will wait 15 seconds for an IPv6 router", "interface", iface, "err", err)
}

// indexOf is the interface's number; 0 if there is none of that name.
func indexOf(iface string) int {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return 0
	}
	return i.Index
}

// abandon closes the ports of a segment that is not going to run.
func (seg *segment) abandon() {
	abandon(seg.parts...)
	if seg.router != nil {
		abandon(seg.router)
	}
}

func (seg *segment) stop() {
	if seg.cancel == nil {
		seg.abandon()
		return
	}
	seg.cancel()
	<-seg.done
}

// start runs the parts. When one fails all end, and lost is told why; without
// the router the others go on, and alone is told.
func (seg *segment) start(ctx context.Context, lost, alone func(error)) {
	ctx, seg.cancel = context.WithCancel(ctx)
	seg.done = make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range seg.parts {
		group.Go(func() error {
			if err := p.Run(ctx); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			return nil
		})
	}
	if seg.router != nil {
		group.Go(func() error {
			if err := seg.router.Run(ctx); err != nil {
				alone(err)
			}
			return nil
		})
	}
	go func() {
		defer close(seg.done)
		if err := group.Wait(); err != nil {
			lost(err)
		}
	}()
}

// close gives up everything.
func (s *segments) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, seg := range s.open {
		seg.stop()
		delete(s.open, addr)
	}
}

// Run serves until ctx ends. An address whose servers fail, because its
// interface has gone or anything else, is bound again a little later; the
// others do not notice.
func (s *segments) Run(ctx context.Context) error {
	defer s.close()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	said := ""
	for {
		s.start(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-s.again:
		case <-tick.C:
		}
		s.drop()
		text := ""
		if err := errors.Join(s.reconcile()); err != nil {
			if text = err.Error(); text != said {
				s.log.Error("a network is not served", "err", err)
			}
		}
		said = text
	}
}

// start runs the segments that do not run yet.
func (s *segments) start(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, seg := range s.open {
		if seg.cancel == nil {
			seg.start(ctx,
				func(err error) { s.log.Error("an address is not served for a moment", "addr", addr, "err", err) },
				func(err error) { s.noRouter(seg.iface, err) })
		}
	}
}

// drop forgets the segments that have ended, so that they are bound again.
func (s *segments) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, seg := range s.open {
		select {
		case <-seg.done:
			seg.cancel()
			delete(s.open, addr)
		default: // it runs; or it has not begun, and done is nil
		}
	}
}
