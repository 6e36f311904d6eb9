package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bootd/boot"
	"bootd/boot/ipxe"
	"bootd/boot/lease"
	"bootd/ignition"
	"bootd/internal/config"
	"bootd/internal/fleet"
	"bootd/internal/recipe"
	"bootd/internal/swarm"
	"bootd/internal/timeline"
)

// guests are the nodes of the controller's clusters on the boot side: machines like
// others, with an entry that nobody has written. Those without a disk boot from the
// network; the others find in their VM's configuration what a machine would fetch.
// Either way they report, and join their swarm, as machines do.
type guests struct {
	live     *live
	record   *timeline.Recorder
	herd     *swarms
	renderer *renderer
	tickets  *boot.Tickets
	leases   *lease.Table
	key      []byte // that the secrets of clusters are made from
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	log      *slog.Logger

	mu    sync.Mutex
	known map[fleet.VMID]guest
}

type guest struct {
	cluster fleet.Cluster
	node    fleet.Node
}

// load takes over the nodes that there are.
func (g *guests) load(clusters []fleet.Cluster, nodes []fleet.Node) error {
	g.mu.Lock()
	for _, n := range nodes {
		if i := slices.IndexFunc(clusters, func(c fleet.Cluster) bool { return c.ID == n.Cluster }); i >= 0 {
			g.known[n.VM] = guest{clusters[i], n}
		}
	}
	any := len(g.known) > 0
	g.mu.Unlock()
	if !any {
		return nil
	}
	return g.live.again()
}

// entries are what the catalog has for the nodes.
func (g *guests) entries(cfg *config.Config) (map[string]*boot.Profile, []*boot.Machine) {
	g.mu.Lock()
	defer g.mu.Unlock()
	profiles := map[string]*boot.Profile{}
	var machines []*boot.Machine
	for _, x := range g.known {
		p := g.profile(cfg, x.cluster, x.node)
		profiles[p.Name] = p
		machines = append(machines, &boot.Machine{
			Name: x.node.Name, Match: boot.Selector{MAC: []boot.MAC{x.node.MAC}}, Profile: p.Name, IP: x.node.Addr,
			Origin: boot.Origin{Note: "a node of cluster " + x.cluster.Name},
		})
	}
	slices.SortFunc(machines, func(a, b *boot.Machine) int { return cmp.Compare(a.Name, b.Name) })
	return profiles, machines
}

// base is the profile that somebody has written for such nodes; nil: none.
func base(cfg *config.Config, c fleet.Cluster, t fleet.NodeType) *boot.Profile {
	if cfg.Controller == nil {
		return nil
	}
	return cfg.Catalog.Profiles[cfg.Controller.Profiles[strings.ToLower(string(c.Type))+"/"+recipe.RoleKey(c, t)]]
}

// profile is what a node boots: what its role needs, over what somebody has written
// for such nodes.
func (g *guests) profile(cfg *config.Config, c fleet.Cluster, n fleet.Node) *boot.Profile {
	p := boot.Profile{}
	if b := base(cfg, c, n.Type); b != nil {
		p = *b
	}
	p = p.Extend(recipe.Profile(c, n, g.secret(c.ID)))
	p.Name = "cluster-" + n.Name
	return &p
}

// secret is known to the nodes of one cluster.
func (g *guests) secret(c fleet.ClusterID) string {
	h := hmac.New(sha256.New, g.key)
	h.Write([]byte("cluster " + c))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Check implements the controller's Nodes.
func (g *guests) Check(c fleet.Cluster) error {
	cfg, catalog := g.live.config(), g.live.catalog()
	wrong := func(format string, args ...any) error { return fleet.Errorf(fleet.SpecInvalid, format, args...) }
	if _, err := g.reportBase(c); err != nil {
		return wrong("gateway: %v", err)
	}
	if n := catalog.NetworkOf(c.Network.Gateway); c.Image == "" && n.Mode != boot.Authoritative {
		return wrong("gateway: bootd gives no addresses in network %s, where nodes without an image would get theirs: enable the type with an image", n.Name)
	}
	for _, a := range c.Addrs() {
		if m := catalog.Reserved(a); m != nil {
			return wrong("%s is the address of machine %s (%s)", a, m.Name, m.Origin)
		}
	}
	for _, r := range c.Roles() {
		n := fleet.Node{Type: r.Node, Name: r.Prefix, Addr: first(r.Addrs)}
		p := g.profile(cfg, c, n)
		if c.Image == "" && p.Image == "" {
			kind := strings.ToLower(string(c.Type))
			return wrong("nodes of %s clusters have no image, and the configuration says not what they boot instead: add controller.clusters.%s.%s: PROFILE to bootd.yaml, or enable the type with an image",
				c.Type, kind, r.Prefix)
		}
		if _, ok := cfg.SwarmOf(p.Swarm); p.Swarm != nil && !ok {
			return wrong("%s", noSwarm(cfg, p.Swarm.Swarm))
		}
		var invalid *ignition.Invalid
		if _, err := ignition.Prepare(p, familyOf(cfg, p.Image)); errors.As(err, &invalid) {
			return wrong("what %s nodes boot has mistakes: %v", r.Prefix, err)
		} else if err != nil {
			return wrong("%v", err)
		}
	}
	return nil
}

func noSwarm(cfg *config.Config, name string) string {
	var names []string
	for _, s := range cfg.Swarms {
		names = append(names, s.Name)
	}
	switch {
	case len(names) == 0:
		return "bootd keeps no swarm that nodes could join: add swarm: {} to bootd.yaml"
	case name == "":
		return "bootd keeps several swarms: say which one to join with the property " + recipe.SwarmProperty + ", one of " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("there is no swarm %q; there are %s", name, strings.Join(names, ", "))
}

// reportBase is where the nodes of a cluster reach bootd.
func (g *guests) reportBase(c fleet.Cluster) (string, error) {
	n := g.live.catalog().NetworkOf(c.Network.Gateway)
	if n == nil {
		return "", fmt.Errorf("%s is in none of the networks of bootd.yaml: nodes have to reach bootd", c.Network.Gateway)
	}
	a, err := serverAddr(n)
	if err != nil {
		return "", err
	}
	return ipxe.BaseURL(netip.AddrPortFrom(a, uint16(g.live.config().HTTPPort))), nil
}

// probing is how long an address may take to show that somebody has it.
const probing = time.Second

// Answering implements the controller's Nodes. An address is somebody's if it is
// leased, or if a machine there accepts or refuses a connection.
func (g *guests) Answering(ctx context.Context, asked []netip.Addr) ([]netip.Addr, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var out []netip.Addr
	for _, a := range asked {
		wg.Go(func() {
			if g.leased(a) || g.answers(ctx, a) {
				mu.Lock()
				out = append(out, a)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.SortFunc(out, netip.Addr.Compare)
	return out, ctx.Err()
}

// leased reports whether a machine that is no node has a lease of an address.
func (g *guests) leased(a netip.Addr) bool {
	n := g.live.catalog().NetworkOf(a)
	if n == nil {
		return false
	}
	l, ok := g.leases.ByAddr(n.Name, a)
	if !ok || l.State != lease.Bound || !l.Active(time.Now()) {
		return false
	}
	m := g.live.catalog().Reserved(a)
	return m == nil || !slices.Contains(m.Match.MAC, l.MAC)
}

func (g *guests) answers(ctx context.Context, a netip.Addr) bool {
	ctx, cancel := context.WithTimeout(ctx, probing)
	defer cancel()
	ports := []uint16{22, 2377} // two, since one may be filtered
	found := make(chan bool, len(ports))
	for _, port := range ports {
		go func() {
			c, err := g.dial(ctx, "tcp", netip.AddrPortFrom(a, port).String())
			if err == nil {
				_ = c.Close() // only that it was accepted matters
			}
			found <- err == nil || errors.Is(err, syscall.ECONNREFUSED)
		}()
	}
	for range ports {
		if <-found {
			return true
		}
	}
	return false
}

// notYet is an error that passes.
type notYet struct{ error }

// Passing says so.
func (notYet) Passing() bool { return true }

func (e notYet) Unwrap() error { return e.error }

// Prepare implements the controller's Nodes.
func (g *guests) Prepare(ctx context.Context, c fleet.Cluster, n fleet.Node) (map[string]string, error) {
	g.mu.Lock()
	_, there := g.known[n.VM]
	g.known[n.VM] = guest{c, n}
	g.mu.Unlock()
	if !there {
		if err := g.live.again(); err != nil {
			return nil, err
		}
	}
	if c.Image == "" || !n.On.IsZero() {
		return nil, nil // it fetches its config, or has it
	}
	config, err := g.config(ctx, c, n)
	if errors.Is(err, ipxe.ErrNotYet) {
		return nil, notYet{err}
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(config); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return map[string]string{
		"guestinfo.ignition.config.data":          base64.StdEncoding.EncodeToString(b.Bytes()),
		"guestinfo.ignition.config.data.encoding": "gzip+base64",
	}, nil
}

// config renders what a node with a disk boots with, which is the beginning of its
// boot as far as bootd sees it.
func (g *guests) config(ctx context.Context, c fleet.Cluster, n fleet.Node) ([]byte, error) {
	home, err := g.reportBase(c)
	if err != nil {
		return nil, fmt.Errorf("cannot render node %s: %w", n.Name, err)
	}
	inv := boot.Inventory{MAC: n.MAC, Addr: n.Addr}
	a, err := g.live.catalog().Assign(inv)
	if err != nil {
		return nil, err
	}
	if a.Profile == nil || a.Machine == nil || a.Machine.Name != n.Name {
		return nil, fmt.Errorf("cannot render node %s: another entry has its hardware address %s", n.Name, n.MAC)
	}
	t, err := g.record.Commit(ctx, boot.Event{Time: time.Now(), MAC: n.MAC, Stage: boot.Ignition, Addr: n.Addr, Text: "in the configuration of its VM", Inventory: inv})
	if err != nil {
		return nil, err
	}
	family := familyOf(g.live.config(), a.Profile.Image)
	_, joins := g.live.config().SwarmOf(a.Profile.Swarm)
	g.record.Assigned(n.MAC, a.Name, a.Profile.Name, lastStage(true, family, joins))
	return g.renderer.render(ctx, ipxe.RenderRequest{Assignment: a, ReportURL: home + "/report/" + g.tickets.Report(t.ID, n.MAC)}, family)
}

// Forget implements the controller's Nodes.
func (g *guests) Forget(ctx context.Context, _ fleet.Cluster, n fleet.Node) error {
	g.mu.Lock()
	delete(g.known, n.VM)
	g.mu.Unlock()
	return errors.Join(g.live.again(), g.record.Forget(ctx, n.MAC))
}

// keeper is the swarm that the nodes of a cluster join; nil: they join none.
func (g *guests) keeper(c fleet.Cluster) (*keptSwarm, error) {
	if c.Type != fleet.Swarm {
		return nil, nil
	}
	name := c.Properties[recipe.SwarmProperty]
	k, ok := g.herd.of(&boot.Member{Swarm: name})
	if !ok {
		return nil, notYet{errors.New(noSwarm(g.live.config(), name))}
	}
	return k, nil
}

// Standings implements the controller's Nodes. A swarm knows its nodes; of the others
// nothing is known but what they have reported.
func (g *guests) Standings(ctx context.Context, c fleet.Cluster, nodes []fleet.Node) (map[fleet.VMID]fleet.Standing, error) {
	k, err := g.keeper(c)
	if err != nil {
		return nil, err
	}
	var members []swarm.NodeStatus
	if k != nil {
		if members, err = k.Nodes(ctx); err != nil {
			return nil, notYet{err}
		}
	}
	out := map[fleet.VMID]fleet.Standing{}
	for _, n := range nodes {
		t, _ := g.record.Current(n.MAC)
		if k == nil {
			out[n.VM] = reported(t)
		} else {
			out[n.VM] = standing(n, t, members)
		}
	}
	return out, nil
}

// reported is how a node does as far as its reports say.
func reported(t boot.Timeline) fleet.Standing {
	if up := last(&t, boot.Up); !up.IsZero() {
		return fleet.Standing{Up: true, Since: up}
	}
	return fleet.Standing{Why: unheard}
}

const unheard = "it has not reported; see its screen, and whether its address, gateway and DNS server are right"

// standing is how a swarm's node does: it is up once the swarm shows it ready, as the
// node of this machine.
func standing(n fleet.Node, t boot.Timeline, members []swarm.NodeStatus) fleet.Standing {
	var down *swarm.NodeStatus
	for i, m := range members {
		switch {
		case m.MAC != n.MAC:
		case m.State == swarm.NodeReady:
			return fleet.Standing{Up: true, Live: true, Since: m.Since, Tasks: m.Tasks}
		case down == nil || m.Since.After(down.Since):
			down = &members[i]
		}
	}
	s := fleet.Standing{Live: true, Why: unheard}
	switch {
	case down != nil:
		s.Since, s.Why = down.Since, "the swarm says that it is "+string(down.State)
	case !last(&t, boot.Joined).IsZero():
		s.Why = "it says that it has joined, and the swarm does not show it as ready"
	case !last(&t, boot.Engine).IsZero():
		s.Why = "its engine is up, and has not joined the swarm"
	case !last(&t, boot.Up).IsZero():
		s.Why = "it is up, and its engine is not"
	}
	return s
}

// Leave implements the controller's Nodes. With drain the node leaves as one does
// that is shut down.
func (g *guests) Leave(ctx context.Context, c fleet.Cluster, n fleet.Node, drain bool) error {
	k, err := g.keeper(c)
	if k == nil || err != nil {
		return err
	}
	t, known := g.record.Current(n.MAC)
	if drain && known && t.Node != "" {
		t, err = g.record.Commit(ctx, boot.Event{Time: time.Now(), MAC: n.MAC, Boot: t.ID, Stage: boot.Left, Node: t.Node, Text: "its cluster does not need it any more"})
		if err != nil {
			return err
		}
		err := k.Leave(ctx, n.MAC, t.Node)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, swarm.ErrNotReady):
			return notYet{err}
		case err != nil:
			g.log.Warn("a node leaves before all its tasks run elsewhere", "mac", n.MAC, "machine", n.Name, "err", err)
		}
		return nil
	}
	members, err := k.Nodes(ctx)
	if err != nil {
		return notYet{err}
	}
	for _, m := range members {
		if m.MAC != n.MAC {
			continue
		}
		if _, err := k.Remove(ctx, m.ID, true); err != nil && !errors.Is(err, swarm.ErrNoNode) {
			return err
		}
	}
	return nil
}
