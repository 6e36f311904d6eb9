package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

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
	handler http.Handler
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
	parts  []service
	cancel context.CancelFunc // nil: not started
	done   chan struct{}
}

func newSegments(cfg *config.Config, l *live, h http.Handler, record func(boot.Event), log *slog.Logger) *segments {
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
// network has any more.
func (s *segments) reconcile() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[netip.Addr]string{}
	var failed error
	for _, n := range s.live.catalog().Networks {
		addr, err := serverAddr(&n)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		wanted[addr] = n.Interface
	}
	for addr, seg := range s.open {
		if _, ok := wanted[addr]; !ok {
			seg.stop()
			delete(s.open, addr)
		}
	}
	for addr, iface := range wanted {
		if s.open[addr] != nil {
			continue
		}
		seg, err := s.bind(addr, iface)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		s.open[addr] = seg
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
	seg := &segment{parts: []service{web}}
	files, err := tftp.Listen(netip.AddrPortFrom(addr, s.tftp), tftp.Config{
		Loaders: s.live.loaders,
		Overlay: s.overlay,
		BaseURL: func(a netip.Addr) string { return ipxe.BaseURL(netip.AddrPortFrom(a, s.http)) },
		Record:  s.record,
		Log:     s.log.With("part", "tftp"),
	})
	if err != nil {
		seg.abandon()
		return nil, err
	}
	seg.parts = append(seg.parts, files)
	if _, err := net.InterfaceByName(iface); err == nil {
		router, err := ra.Listen(iface, s.log.With("part", "ra"))
		if err != nil {
			// Machines boot without it, only later.
			s.log.Warn("iPXE will wait 15 seconds for an IPv6 router", "interface", iface, "err", err)
		} else {
			seg.parts = append(seg.parts, router)
		}
	}
	return seg, nil
}

// abandon closes the ports of a segment that is not going to run.
func (seg *segment) abandon() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, p := range seg.parts {
		_ = p.Run(ended) // only closes
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

// start runs the parts. A part that fails is reported through fail.
func (seg *segment) start(ctx context.Context, fail func(error)) {
	ctx, seg.cancel = context.WithCancel(ctx)
	seg.done = make(chan struct{})
	var parts sync.WaitGroup
	for _, p := range seg.parts {
		parts.Go(func() {
			if err := p.Run(ctx); err != nil {
				fail(fmt.Errorf("%s: %w", p, err))
			}
		})
	}
	go func() {
		parts.Wait()
		close(seg.done)
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

// Run serves until ctx ends or a part fails.
func (s *segments) Run(ctx context.Context) error {
	defer s.close()
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	said := ""
	for {
		s.mu.Lock()
		for _, seg := range s.open {
			if seg.cancel == nil {
				seg.start(ctx, fail)
			}
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-s.again:
		case <-tick.C:
		}
		text := ""
		if err := s.reconcile(); err != nil {
			if text = err.Error(); text != said {
				s.log.Error("a network is not served", "err", err)
			}
		}
		said = text
	}
}
