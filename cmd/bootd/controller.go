package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"bootd/internal/config"
	"bootd/internal/controller"
	"bootd/internal/esx"
	"bootd/internal/fleet"
	"bootd/internal/photon"
	photonwire "bootd/internal/photon/wire"
	"bootd/internal/spool"
	"bootd/internal/store"
	"bootd/internal/task"
)

// A control is the controller as the server runs it: its verbs, the runner of
// their tasks, and their API on the network. Its zero value is one that is off.
type control struct {
	local    http.Handler // of the operator's socket
	services []service
}

// A core is what works for the controller beside its API: its tasks, and the
// watch over hosts.
type core struct {
	tasks *task.Runner
	verbs *controller.Controller
}

func (core) String() string { return "controller" }

// Run works until ctx ends, and lets go of the hosts when nothing uses them any
// more.
func (c core) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.tasks.Run(ctx) })
	group.Go(func() error { return c.verbs.Run(ctx) })
	err := group.Wait()
	c.verbs.Close()
	return err
}

// connecting makes the adapters of hosts; they connect when they are used.
func connecting(log *slog.Logger) func(fleet.Host) (controller.Hypervisor, error) {
	return func(h fleet.Host) (controller.Hypervisor, error) {
		return esx.New(esx.Config{Address: h.Address, Username: h.Username, Password: h.Password, Fingerprint: h.Fingerprint, Log: log})
	}
}

// newControl binds the controller's port and wires what is behind it. Without a
// section in the configuration it is off.
func newControl(ctx context.Context, cfg *config.Config, db *store.Store, nodes *guests, log *slog.Logger) (control, error) {
	c := cfg.Controller
	if c == nil {
		return control{local: photon.Off("the controller is off; add controller: {} to bootd.yaml and start bootd again")}, nil
	}
	images, err := spool.Open(filepath.Join(cfg.StateDir, "spool"))
	if err != nil {
		return control{}, err
	}
	tasks := task.New(db, task.Options{Log: log.With("part", "tasks")})
	verbs := controller.New(db, tasks, controller.Options{Connect: connecting(log.With("part", "esx")), Spool: images, Nodes: nodes, Log: log.With("part", "controller")})
	clusters, there, err := verbs.ClusterNodes(ctx)
	if err == nil {
		err = nodes.load(clusters, there)
	}
	if err != nil {
		return control{}, fmt.Errorf("cannot take over the nodes of clusters: %w", err)
	}
	build := thisBuild()
	api := photon.Config{
		Controller:     verbs,
		LenientFlavors: c.OldFlavors,
		Version:        build.Version,
		Commit:         build.Commit,
		Log:            log.With("part", "controller"),
		Endpoint:       func() photonwire.Endpoint { return photonwire.Endpoint{Auth: "none"} },
		Authenticate:   as("operator"),
	}
	services := []service{core{tasks, verbs}}
	if c.Listen != "" {
		server, endpoint, err := listenController(cfg, api)
		if err != nil {
			return control{}, err
		}
		api.Endpoint = endpoint
		services = append([]service{server}, services...)
	}
	return control{local: photon.New(api), services: services}, nil
}

// listenController binds the address that the API has beside the socket.
func listenController(cfg *config.Config, api photon.Config) (server *photon.Server, endpoint func() photonwire.Endpoint, err error) {
	c, log := cfg.Controller, api.Log
	path := filepath.Join(cfg.StateDir, "controller.pem")
	cert, fresh, err := photon.Certificate(path, certificateNames(c), time.Now())
	if err != nil {
		return nil, nil, err
	}
	shown := photon.Describe(cert.Leaf)
	if missing := uncovered(c, shown.Names); !fresh && len(missing) > 0 {
		log.Warn("clients that use these names will refuse the controller's certificate; remove its file to have another one made", "names", missing, "file", path)
	}
	endpoint = func() photonwire.Endpoint {
		return photonwire.Endpoint{Address: server.Addr().String(), Auth: "none", Certificate: shown}
	}
	// With auth: none, the configuration says that whoever reaches it may.
	api.Endpoint, api.Authenticate = endpoint, as("anybody")
	if server, err = photon.Listen(c.Listen, cert, photon.New(api), log); err != nil {
		return nil, nil, err
	}
	log.Info("the controller listens", "addr", server.Addr().String(), "sha256", shown.SHA256)
	return server, endpoint, nil
}

// as is for a listener that only those can reach who may do everything.
func as(name string) func(*http.Request) (controller.Principal, error) {
	return func(*http.Request) (controller.Principal, error) {
		return controller.Principal{Name: name, Role: controller.Admin}, nil
	}
}

// routes adds the controller's to those of the operator's socket. All of bootd's
// own begin with /v1; Photon Controller's, of the versions that are spoken, never
// do.
func (c control) routes(own http.Handler) http.Handler {
	roots := photon.Roots()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first, _, _ := strings.Cut(strings.TrimLeft(r.URL.Path, "/"), "/")
		if slices.Contains(roots, first) {
			c.local.ServeHTTP(w, r)
			return
		}
		own.ServeHTTP(w, r)
	})
}

// certificateNames is what clients may call the server: what is configured, what
// this machine is called, and its addresses if it listens at all of them.
func certificateNames(c *config.Controller) []string {
	names := append(slices.Clone(c.Names), "localhost", "127.0.0.1", "::1")
	if host, err := os.Hostname(); err == nil {
		names = append(names, strings.ToLower(host))
	}
	return unique(append(names, listenNames(c)...))
}

// listenNames are the addresses that a controller listens at.
func listenNames(c *config.Controller) []string {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return []string{ip.String()}
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []string
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			out = append(out, n.IP.String())
		}
	}
	return out
}

// uncovered are the names that are configured and that a certificate has not.
func uncovered(c *config.Controller, has []string) []string {
	wanted := slices.Clone(c.Names)
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && !net.ParseIP(host).IsUnspecified() {
		wanted = append(wanted, host)
	}
	var out []string
	for _, n := range wanted {
		if ip := net.ParseIP(n); ip != nil {
			n = ip.String()
		}
		if !slices.Contains(has, n) {
			out = append(out, n)
		}
	}
	return out
}

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
