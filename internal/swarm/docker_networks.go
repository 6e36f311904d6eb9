package swarm

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	dockerswarm "github.com/docker/docker/api/types/swarm"
)

// Networks implements [Networking].
func (d *docker) Networks(ctx context.Context) ([]NetworkState, error) {
	list, err := d.cli.Load().NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return nil, classify(err)
	}
	out := make([]NetworkState, 0, len(list))
	for _, n := range list {
		out = append(out, convertNetwork(n))
	}
	return out, nil
}

func convertNetwork(n network.Summary) NetworkState {
	s := NetworkState{
		ID: n.ID, Created: n.Created, Local: n.Scope != "swarm", Ingress: n.Ingress, Driver: n.Driver,
		Network: Network{
			Name: n.Name, Attachable: n.Attachable, Internal: n.Internal, Labels: n.Labels, Options: maps.Clone(n.Options),
		},
	}
	for _, c := range n.IPAM.Config {
		// What is not an address is left out: a network that has it differs.
		sub := Subnet{}
		sub.Prefix, _ = netip.ParsePrefix(c.Subnet)
		sub.Gateway, _ = netip.ParseAddr(c.Gateway)
		sub.Range, _ = netip.ParsePrefix(c.IPRange)
		if sub.Prefix.IsValid() {
			s.Subnets = append(s.Subnets, sub)
		}
	}
	if v, ok := s.Options[optionEncrypted]; ok {
		// Older engines look only whether it is there.
		off, err := strconv.ParseBool(v)
		s.Encrypted = err != nil || off
		delete(s.Options, optionEncrypted)
	}
	if mtu, err := strconv.Atoi(s.Options[optionMTU]); err == nil {
		s.MTU = mtu
		delete(s.Options, optionMTU)
	}
	return s
}

// CreateNetwork implements [Networking].
func (d *docker) CreateNetwork(ctx context.Context, n Network) error {
	o := network.CreateOptions{
		Driver: "overlay", Scope: "swarm", Attachable: n.Attachable, Internal: n.Internal, Labels: n.Labels,
		Options: maps.Clone(n.Options), IPAM: &network.IPAM{},
	}
	if o.Options == nil {
		o.Options = map[string]string{}
	}
	if n.Encrypted {
		o.Options[optionEncrypted] = ""
	}
	if n.MTU != 0 {
		o.Options[optionMTU] = strconv.Itoa(n.MTU)
	}
	for _, s := range n.Subnets {
		c := network.IPAMConfig{Subnet: s.Prefix.String()}
		if s.Gateway.IsValid() {
			c.Gateway = s.Gateway.String()
		}
		if s.Range.IsValid() {
			c.IPRange = s.Range.String()
		}
		o.IPAM.Config = append(o.IPAM.Config, c)
	}
	_, err := d.cli.Load().NetworkCreate(ctx, n.Name, o)
	if err != nil && strings.Contains(err.Error(), "already exists") {
		return fmt.Errorf("%w (%w)", ErrConflict, err)
	}
	return classify(err)
}

// RemoveNetwork implements [Networking].
func (d *docker) RemoveNetwork(ctx context.Context, id string) error {
	err := d.cli.Load().NetworkRemove(ctx, id)
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%w (%w)", ErrNoNetwork, err)
	case strings.Contains(err.Error(), "is in use"), strings.Contains(err.Error(), "active endpoints"):
		return fmt.Errorf("%w (%w)", ErrInUse, err)
	}
	return err
}

// NetworkUsers implements [Networking]. Containers are those of this engine;
// those of services are covered by their services.
func (d *docker) NetworkUsers(ctx context.Context, id string) ([]string, error) {
	cli := d.cli.Load()
	n, err := cli.NetworkInspect(ctx, id, network.InspectOptions{})
	if err != nil {
		return nil, classify(err)
	}
	services, err := cli.ServiceList(ctx, dockerswarm.ServiceListOptions{})
	if err != nil {
		return nil, classify(err)
	}
	var out []string
	for _, s := range services {
		//lint:ignore SA1019 engines before API 1.44 have what was attached that way
		attached := append(slices.Clone(s.Spec.TaskTemplate.Networks), s.Spec.Networks...)
		if slices.ContainsFunc(attached, func(a dockerswarm.NetworkAttachmentConfig) bool { return a.Target == id || a.Target == n.Name }) {
			out = append(out, "service "+printable(s.Spec.Name, 80))
		}
	}
	for c, e := range n.Containers {
		if !strings.HasPrefix(c, "lb-") && !strings.Contains(e.Name, ".") { // a load balancer's, a task's
			out = append(out, "container "+printable(e.Name, 80))
		}
	}
	slices.Sort(out)
	return out, nil
}
