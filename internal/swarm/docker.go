package swarm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	dockerswarm "github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"bootd/boot"
)

// swarmPort is where managers listen for nodes unless told otherwise.
const swarmPort = "2377"

// subnetBits is the size of the subnets that overlay networks get from the
// address pools, as the docker command has it.
const subnetBits = 24

// docker is an [Engine] that is a Docker engine.
type docker struct {
	host  string
	route route
	// A client settles on an API version at its first request. After an
	// upgrade of the engine that version may not be spoken any more, so each
	// time the engine goes away there is a new client.
	cli  atomic.Pointer[client.Client]
	idle atomic.Pointer[http.Transport] // the client's
}

func newDocker(host string, t *TLS, s *SSH) (*docker, error) {
	r, err := newRoute(host, t, s)
	d := &docker{host: host, route: r}
	if err == nil {
		err = d.renew()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use Docker engine %q: %w", host, err)
	}
	return d, nil
}

func (d *docker) renew() error {
	connections := d.route.transport()
	host := d.host // the client only has to know what to write into requests and errors
	if strings.HasPrefix(host, "ssh:") {
		host = "tcp://" + client.DummyHost
	}
	c, err := client.NewClientWithOpts(
		client.WithHost(host), client.WithScheme("http"),
		client.WithHTTPClient(&http.Client{Transport: bounded{connections}, CheckRedirect: client.CheckRedirect}),
		client.WithAPIVersionNegotiation(),
	)
	if err != nil {
		return err
	}
	d.cli.Store(c)
	if idle := d.idle.Swap(connections); idle != nil {
		idle.CloseIdleConnections()
	}
	return nil
}

// Close closes connections that are idle.
func (d *docker) Close() error {
	d.idle.Load().CloseIdleConnections()
	return nil
}

// Info implements [Membership].
func (d *docker) Info(ctx context.Context) (Info, error) {
	cli := d.cli.Load()
	in, err := cli.Info(ctx)
	if err != nil {
		return Info{}, classify(err)
	}
	i := Info{
		State: LocalState(in.Swarm.LocalNodeState), Error: in.Swarm.Error, Manager: in.Swarm.ControlAvailable,
		Node: in.Swarm.NodeID, Version: in.ServerVersion,
	}
	if t, err := time.Parse(time.RFC3339Nano, in.SystemTime); err == nil {
		i.Time = t
	}
	if i.State != Member || !i.Manager {
		return i, nil
	}
	sw, err := cli.SwarmInspect(ctx)
	if err != nil {
		return Info{}, classify(err)
	}
	i.Addr = joinAddr(in.Swarm)
	i.Swarm, i.TokensMade = sw.ID, sw.CreatedAt
	if t, err := time.Parse(time.RFC3339, sw.Spec.Labels[labelRotated]); err == nil {
		i.TokensMade = t
	}
	i.Tokens = map[boot.Role]string{boot.Worker: sw.JoinTokens.Worker, boot.Manager: sw.JoinTokens.Manager}
	i.DataPathPort = uint16(sw.DataPathPort)
	for _, p := range sw.DefaultAddrPool {
		if pool, err := netip.ParsePrefix(p); err == nil {
			i.AddressPools = append(i.AddressPools, pool)
		}
	}
	return i, nil
}

// joinAddr finds where the engine itself listens for nodes.
func joinAddr(in dockerswarm.Info) string {
	for _, p := range in.RemoteManagers {
		if p.NodeID == in.NodeID {
			return p.Addr
		}
	}
	if in.NodeAddr == "" {
		return ""
	}
	return net.JoinHostPort(in.NodeAddr, swarmPort)
}

// Init implements [Membership].
//
// An engine that is being stopped answers, on connections that it has already,
// that it is in no swarm; and when making a swarm fails, it deletes what it has
// of one (daemon/cluster/swarm.go in Docker's sources). So it is asked twice
// more, each time on a new connection. It stops listening before it forgets its
// swarm: when the second connection is made after the answer on the first,
// that answer was the truth.
func (d *docker) Init(ctx context.Context, o Init) error {
	for range 2 {
		if err := d.renew(); err != nil {
			return err
		}
		in, err := d.cli.Load().Info(ctx)
		if err != nil {
			return classify(err)
		}
		if in.Swarm.LocalNodeState != dockerswarm.LocalNodeStateInactive {
			return fmt.Errorf("%w: it is %s", ErrMember, in.Swarm.LocalNodeState)
		}
	}
	req := dockerswarm.InitRequest{
		ListenAddr:    "0.0.0.0:" + swarmPort,
		AdvertiseAddr: o.Advertise,
		DataPathPort:  uint32(o.DataPathPort),
		Availability:  dockerswarm.NodeAvailability(o.Availability),
	}
	for _, p := range o.AddressPools {
		req.DefaultAddrPool = append(req.DefaultAddrPool, p.String())
		// Without a size the engine takes the pools, and then allocates no
		// network at all: not even services that publish a port would start.
		req.SubnetSize = max(req.SubnetSize, subnetBits, uint32(p.Bits()))
	}
	_, err := d.cli.Load().SwarmInit(ctx, req)
	return classify(err)
}

// Watch implements [Membership].
func (d *docker) Watch(ctx context.Context, changed func()) error {
	cli := d.cli.Load()
	// Asking for events, unlike anything else, does not wait until the client
	// has settled on an API version, and races with it.
	if _, err := call(ctx, cli.ServerVersion); err != nil {
		return d.gone(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	messages, errs := cli.Events(ctx, events.ListOptions{
		Filters: filters.NewArgs(filters.Arg("type", string(events.NodeEventType))),
	})
	defer func() {
		cancel()
		for range errs { // until the client's goroutine has ended
		}
	}()
	select {
	case err := <-errs:
		return d.gone(err)
	default:
	}
	changed()
	for {
		select {
		case <-messages:
			changed()
		case err := <-errs:
			return d.gone(err)
		}
	}
}

func (d *docker) gone(err error) error {
	if err := d.renew(); err != nil {
		return err
	}
	return classify(err)
}

// Nodes implements [Registry].
func (d *docker) Nodes(ctx context.Context) ([]Node, error) {
	list, err := d.cli.Load().NodeList(ctx, dockerswarm.NodeListOptions{})
	if err != nil {
		return nil, classify(err)
	}
	nodes := make([]Node, 0, len(list))
	for _, n := range list {
		nodes = append(nodes, convert(n))
	}
	return nodes, nil
}

func convert(n dockerswarm.Node) Node {
	out := Node{
		ID: n.ID, Version: n.Version.Index, Hostname: n.Description.Hostname, State: NodeState(n.Status.State),
		Created: n.CreatedAt, Addr: n.Status.Addr, Engine: n.Description.Engine.EngineVersion,
		Spec: Spec{
			Name: n.Spec.Name, Labels: n.Spec.Labels,
			Availability: Availability(n.Spec.Availability), Role: boot.Role(n.Spec.Role),
		},
	}
	if out.State == NodeDown {
		// Docker keeps no time of its own for this. Whatever else has changed
		// since makes it seem down for less long, never for longer.
		out.DownSince = n.UpdatedAt
	}
	if m := n.ManagerStatus; m != nil {
		out.Manager, out.Leader = true, m.Leader
		out.Reachable = m.Reachability == dockerswarm.ReachabilityReachable
	}
	return out
}

// Tasks implements [Registry].
func (d *docker) Tasks(ctx context.Context) (map[string]int, error) {
	list, err := d.cli.Load().TaskList(ctx, dockerswarm.TaskListOptions{
		Filters: filters.NewArgs(filters.Arg("desired-state", "running")),
	})
	if err != nil {
		return nil, classify(err)
	}
	tasks := map[string]int{}
	for _, t := range list {
		if t.Status.State == dockerswarm.TaskStateRunning {
			tasks[t.NodeID]++
		}
	}
	return tasks, nil
}

// SetNode implements [Registry].
func (d *docker) SetNode(ctx context.Context, id string, version uint64, s Spec) error {
	return classify(d.cli.Load().NodeUpdate(ctx, id, dockerswarm.Version{Index: version}, dockerswarm.NodeSpec{
		Annotations:  dockerswarm.Annotations{Name: s.Name, Labels: s.Labels},
		Role:         dockerswarm.NodeRole(s.Role),
		Availability: dockerswarm.NodeAvailability(s.Availability),
	}))
}

// RemoveNode implements [Registry].
func (d *docker) RemoveNode(ctx context.Context, id string) error {
	return classify(d.cli.Load().NodeRemove(ctx, id, dockerswarm.NodeRemoveOptions{}))
}

// classify gives the engine's errors the names that this package asks for.
// Some are known by their text alone: swarmkit's come through Docker as
// internal errors.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsConflict(err), strings.Contains(err.Error(), "update out of sequence"):
		return fmt.Errorf("%w (%w)", ErrConflict, err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%w (%w)", ErrNoNode, err)
	case strings.Contains(err.Error(), "swarm does not have a leader"):
		return fmt.Errorf("%w (%w)", ErrNoLeader, err)
	}
	return err
}

// labelRotated is the label of the swarm itself that says when its tokens were
// last replaced; Docker keeps no time of it.
const labelRotated = LabelPrefix + "rotated"

// RotateTokens implements [Operations].
func (d *docker) RotateTokens(ctx context.Context, at time.Time) error {
	cli := d.cli.Load()
	const tries = 5
	for try := 1; ; try++ {
		sw, err := cli.SwarmInspect(ctx)
		if err != nil {
			return classify(err)
		}
		// In the same update, so that it is true whenever somebody is killed.
		labels := maps.Clone(sw.Spec.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		labels[labelRotated] = at.UTC().Format(time.RFC3339)
		sw.Spec.Labels = labels
		err = classify(cli.SwarmUpdate(ctx, sw.Version, sw.Spec, dockerswarm.UpdateFlags{RotateWorkerToken: true, RotateManagerToken: true}))
		if !errors.Is(err, ErrConflict) || try == tries {
			return err
		}
	}
}

// EvictNode implements [Operations].
func (d *docker) EvictNode(ctx context.Context, id string) error {
	return classify(d.cli.Load().NodeRemove(ctx, id, dockerswarm.NodeRemoveOptions{Force: true}))
}

// TaskList implements [Operations].
func (d *docker) TaskList(ctx context.Context) ([]Task, error) {
	list, err := d.cli.Load().TaskList(ctx, dockerswarm.TaskListOptions{})
	if err != nil {
		return nil, classify(err)
	}
	tasks := make([]Task, 0, len(list))
	for _, t := range list {
		if t.ServiceID == "" {
			continue // a network's attachment
		}
		tasks = append(tasks, task(t))
	}
	return tasks, nil
}

func task(t dockerswarm.Task) Task {
	out := Task{Service: t.ServiceID, Slot: t.Slot, Node: t.NodeID, Created: t.CreatedAt}
	switch t.Status.State {
	case dockerswarm.TaskStateRunning:
		out.Running, out.Up = true, true
	case dockerswarm.TaskStatePreparing, dockerswarm.TaskStateStarting:
		out.Running = true
	}
	switch t.DesiredState {
	case dockerswarm.TaskStateRunning, dockerswarm.TaskStateReady:
		// Ready: it replaces one that is still being stopped.
		out.Wanted = true
	}
	// The scheduler tries again for ever, and says so.
	out.Stuck = t.Status.State == dockerswarm.TaskStatePending && strings.HasPrefix(t.Status.Err, "no suitable node")
	return out
}
