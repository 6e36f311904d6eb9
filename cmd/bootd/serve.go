package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"bootd/assets"
	"bootd/boot"
	"bootd/boot/dhcp"
	"bootd/boot/ipxe"
	"bootd/boot/lease"
	"bootd/internal/api"
	"bootd/internal/config"
	"bootd/internal/fleet"
	"bootd/internal/metrics"
	"bootd/internal/override"
	"bootd/internal/store"
	"bootd/internal/timeline"
)

func (a *app) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "answer machines: DHCP, TFTP, HTTP, and the swarm",
		Long: `Serve runs the server in the foreground until it is interrupted. It reads the
configuration directory again whenever a file in it changes; a mistake keeps the
running configuration and is logged.`,
		Example: "  bootd serve\n  bootd serve -c ./site",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(a.dir)
			if err == nil {
				err = checkProfiles(cfg)
			}
			if err != nil {
				return err
			}
			return serve(c.Context(), cfg, wire{}, a.logger(cfg))
		},
	}
}

// logger writes to standard error, without times: systemd adds its own.
func (a *app) logger(cfg *config.Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogJSON {
		return slog.New(slog.NewJSONHandler(a.err, o))
	}
	return slog.New(slog.NewTextHandler(a.err, o))
}

// A service is a long-lived part of the server.
type service interface {
	// Run serves until ctx ends, and returns nil when that is why it stopped.
	Run(ctx context.Context) error
	fmt.Stringer
}

// A wire is how DHCP packets come and go, the only thing about the server that
// takes privileges. The zero value means real interfaces.
type wire struct {
	open func(iface string, port uint16) (dhcp.Conn, error)
	link func(iface string) (dhcp.Link, error)
	tap  func(iface string) (dhcp.Tap, error)
}

// serve wires the server and runs it. Everything is built once, here, and
// handed down; nothing looks anything up later. Ports are bound before it says
// that it is ready, so what cannot work is an error of the start.
//
//	machines                                         operators
//	   |                                                 |
//	 DHCP   TFTP   HTTP (scripts, Ignition, assets)     API
//	   |      |      |         |                         |
//	   |      +------+---------+---- live (catalog) -----+
//	leases                     |      ^ swapped when files or images change
//	   |                       |      |
//	   +------ events ---> timeline --+--> swarm --> Docker engine
//	                           |
//	                         store
func serve(ctx context.Context, cfg *config.Config, w wire, log *slog.Logger) error {
	if err := os.MkdirAll(cfg.StateDir, 0o755); err != nil {
		return fmt.Errorf("cannot create the state directory: %w", err)
	}
	key, err := secretKey(filepath.Join(cfg.StateDir, "ticket.key"), "the tickets", "machines that boot just now must be switched on again")
	if err != nil {
		return err
	}
	tickets, err := boot.NewTickets(key)
	if err != nil {
		return err
	}
	leases, err := lease.Open(filepath.Join(cfg.StateDir, "leases"), log.With("part", "leases"))
	if err != nil {
		return err
	}
	defer closing(leases.Close, "leases", log)
	db, err := store.Open(ctx, store.Options{Dir: filepath.Join(cfg.StateDir, "store"), Log: log.With("part", "store")})
	if err != nil {
		return err
	}
	defer closing(db.Close, "store", log)
	record, err := timeline.New(ctx, db, log)
	if err != nil {
		return err
	}
	images, err := openAssets(cfg)
	if err != nil {
		return err
	}
	overrides, err := override.Load(ctx, db, log)
	if err != nil {
		return err
	}
	live, err := newLive(cfg, images, overrides, log)
	if err != nil {
		return err
	}

	herd, err := newSwarms(live, record, overrides, db, log.With("part", "swarm"))
	if err != nil {
		return err
	}
	given, err := newGiven(ctx, db, live, func(mac boot.MAC) bool { return !record.Inventory(mac).MAC.IsZero() }, log.With("part", "dashboard"))
	if err != nil {
		return err
	}
	renderer := &renderer{join: herd.join, leave: herd.drainTimeout}

	var handler *ipxe.Handler
	handler = ipxe.New(ipxe.Config{
		Assign:     func(inv boot.Inventory) (boot.Assignment, error) { return live.assign(inv, record.Current) },
		AssignNext: live.assignNext,
		Assigned: func(a boot.Assignment) {
			record.Assigned(a.Inventory.MAC, a.Name, a.Profile.Name, live.expect(a))
		},
		Image: live.image,
		Render: func(ctx context.Context, req ipxe.RenderRequest) ([]byte, error) {
			return renderer.render(ctx, req, live.family(req.Assignment))
		},
		Joining:  renderer.joining,
		Leaving:  herd.leave,
		Boots:    watched{record, overrides, given, herd.nudge},
		Holder:   func(addr netip.Addr) (boot.MAC, bool) { return holder(live.catalog(), leases, addr) },
		Installs: installs{overrides},
		Leased:   func(mac boot.MAC) bool { return leasedTo(live.catalog(), leases, mac, time.Now()) },
		Tickets:  tickets,
		Loaders:  live.loaders,
		Assets: images.Handler(func(r *http.Request, t assets.Transfer) {
			handler.Served(r, ipxe.Transfer(t))
		}),
		Log: log.With("part", "http"),
	})
	answers, err := dhcp.Listen(dhcp.Config{
		Policy: dhcp.Policy{
			Catalog:    live.catalog,
			Remembered: record.Inventory,
			Leases:     leases,
			Loaders:    live.loaders.Has,
			HTTPPort:   uint16(cfg.HTTPPort),
		},
		Record: record.Record,
		Log:    log.With("part", "dhcp"),
		Open:   w.open,
		Link:   w.link,
	})
	if err != nil {
		return err
	}
	lookout := dhcp.NewLookout(dhcp.LookoutConfig{Catalog: live.catalog, Log: log.With("part", "dhcp"), Open: w.tap, Link: w.link})
	segments := newSegments(cfg, live, handler, record.Record, log)
	if err := segments.listen(); err != nil {
		abandon(answers)
		return err
	}
	meter := metrics.New(measured{live, record, leases, db, answers, lookout, herd}.snapshot)
	nodes := &guests{live: live, record: record, herd: herd, renderer: renderer, tickets: tickets, leases: leases, key: key,
		dial: (&net.Dialer{}).DialContext, log: log.With("part", "controller"), known: map[fleet.VMID]guest{}}
	live.guests = nodes.entries
	control, err := newControl(ctx, cfg, db, nodes, log)
	if err != nil {
		abandon(answers, segments)
		return err
	}
	ordering := &orders{live, overrides, record, leases}
	asked := apiConfig(live, ordering, herd, answers, lookout, log)
	shown, err := newDashboard(cfg, shownSite{asked, live, given, ordering}, log)
	if err != nil {
		abandon(slices.Concat(control.services, []service{answers, segments})...)
		return err
	}
	besides := slices.Concat(control.services, shown.services)
	operators, err := api.Listen(cfg.Socket, shown.routes(control.routes, operatorRoutes(api.New(asked), meter)), log)
	if err != nil {
		abandon(slices.Concat(besides, []service{answers, segments})...)
		return err
	}
	services := slices.Concat(besides, []service{answers, lookout, segments, live, operators, herd, counter{record, meter}})
	if dog := newWatchdog(cfg.Socket, log); dog != nil {
		services = append(services, dog)
	}
	if cfg.Metrics != "" {
		everyone := http.NewServeMux()
		everyone.Handle("GET /metrics", meter.Handler())
		scraped, err := api.ListenTCP("metrics", cfg.Metrics, everyone, log)
		if err != nil {
			abandon(slices.Concat(besides, []service{answers, segments, operators})...)
			return err
		}
		services = append(services, scraped)
	}
	live.changed = func() {
		renderer.forget()
		answers.Reload()
		segments.reload()
		herd.reload()
		herd.nudge()
	}
	return runAll(ctx, log, record, services)
}

// runAll runs the services until ctx ends or one of them fails, and returns when
// all have ended. The record runs until after the others, since they add to it
// to their end.
func runAll(ctx context.Context, log *slog.Logger, record service, services []service) error {
	run := func(ctx context.Context, s service) error {
		if err := s.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: %w", s, err)
		}
		return nil
	}
	recording, stop := context.WithCancel(context.WithoutCancel(ctx))
	recorded := make(chan error, 1)
	go func() { recorded <- run(recording, record) }()
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range services {
		group.Go(func() error { return run(ctx, s) })
	}
	log.Info("ready")
	tell(daemon.SdNotifyReady, log)
	err := group.Wait()
	tell(daemon.SdNotifyStopping, log)
	stop()
	err = errors.Join(err, <-recorded)
	log.Info("stopped")
	return err
}

// abandon closes what has been opened for services that are not going to run.
func abandon(services ...service) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, s := range services {
		_ = s.Run(ended) // only closes
	}
}

func closing(f func() error, what string, log *slog.Logger) {
	if err := f(); err != nil {
		log.Error("not closed cleanly", "part", what, "err", err)
	}
}

// watched is the record of boots as boot/ipxe sees it. What a machine reports
// of its node concerns the swarm, which is told to look at once; and an order
// for the next boot is carried out when that has got its script.
type watched struct {
	*timeline.Recorder
	overrides *override.Overrides
	given     *given
	nudge     func()
}

func (w watched) Commit(ctx context.Context, e boot.Event) (boot.Timeline, error) {
	t, err := w.Recorder.Commit(ctx, e)
	switch e.Stage {
	case boot.Joined, boot.Left:
		w.nudge()
	case boot.Script:
		if err != nil {
			return t, err
		}
		w.given.note(ctx, t, w.Recorder.Inventory(e.MAC))
		err = w.overrides.Began(ctx, e.MAC, t.ID)
	}
	return t, err
}

// leasedTo reports whether a machine has an address of a network where bootd
// gives them.
func leasedTo(c *boot.Catalog, leases *lease.Table, mac boot.MAC, now time.Time) bool {
	return slices.ContainsFunc(c.Networks, func(n boot.Network) bool {
		l, ok := leases.ByMAC(n.Name, mac)
		return ok && n.Mode == boot.Authoritative && l.State == lease.Bound && l.Active(now)
	})
}

// holder tells which machine has or last had an address.
func holder(c *boot.Catalog, leases *lease.Table, addr netip.Addr) (boot.MAC, bool) {
	n := c.NetworkOf(addr)
	if n == nil {
		return boot.MAC{}, false
	}
	l, ok := leases.ByAddr(n.Name, addr)
	return l.MAC, ok && !l.MAC.IsZero()
}
