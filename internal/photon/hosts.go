package photon

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

func (s *server) hostRoutes() routes {
	out := routes{
		"/deployments/{id}/hosts": {http.MethodGet: s.listDeploymentHosts, http.MethodPost: s.createHost},
		// The CLI leaves the deployment out when nobody has named it: two slashes.
		"/deployments/hosts": {http.MethodGet: s.listHosts, http.MethodPost: s.addHost},
		"/hosts":             {http.MethodGet: s.listHosts}, // before 0.8
		"/hosts/{id}":        {http.MethodGet: s.getHost, http.MethodDelete: s.deleteHost},
		"/hosts/{id}/tasks":  {http.MethodGet: s.entityTasks(fleet.KindHost, s.lookHost)},
		"/hosts/{id}/vms":    {http.MethodGet: s.hostVMs},
	}
	for verb, f := range map[string]func(context.Context, controller.Principal, fleet.HostID) (fleet.Task, error){
		"suspend": s.Controller.SuspendHost, "resume": s.Controller.ResumeHost, "provision": s.Controller.ProvisionHost,
		"enter_maintenance": s.Controller.EnterMaintenance, "exit_maintenance": s.Controller.ExitMaintenance,
	} {
		out["/hosts/{id}/"+verb] = map[string]handler{http.MethodPost: func(c *call) (reply, error) {
			return c.done(f(c.ctx(), c.by, c.host()))
		}}
	}
	return out
}

func (c *call) host() fleet.HostID { return fleet.HostID(c.PathValue("id")) }

func (s *server) lookHost(c *call) error {
	_, err := s.Controller.Host(c.ctx(), c.by, c.host())
	return err
}

func (c *call) hostOf(h fleet.Host, images []string) wire.Host {
	out := wire.Host{
		ID: string(h.ID), Kind: string(fleet.KindHost), SelfLink: c.link("hosts", string(h.ID)), Address: h.Address, Username: h.Username,
		AvailabilityZone: string(h.Zone), Metadata: maps.Clone(h.Metadata), UsageTags: []string{}, ESXVersion: h.Facts.Version,
		State: string(h.State), Datastores: []wire.HostDatastore{}, Fingerprint: h.Fingerprint,
	}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	for _, t := range h.Tags {
		out.UsageTags = append(out.UsageTags, string(t))
	}
	for _, d := range h.Facts.Datastores {
		out.Datastores = append(out.Datastores, wire.HostDatastore{
			DatastoreID: string(d.ID), MountPoint: d.Name, ImageDatastore: len(images) == 0 || slices.Contains(images, d.Name),
		})
	}
	if !h.Health.Reachable {
		out.Unreachable = h.Health.Why
	}
	return out
}

func (s *server) listDeploymentHosts(c *call) (reply, error) {
	if _, err := s.theDeployment(c); err != nil {
		return reply{}, err
	}
	return s.listHosts(c)
}

func (s *server) listHosts(c *call) (reply, error) {
	d, err := s.Controller.Deployment(c.ctx())
	if err != nil {
		return reply{}, err
	}
	list, err := s.Controller.Hosts(c.ctx(), c.by)
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	return paged(c, list, func(h fleet.Host) string { return byName(h.Address, h.ID) },
		func(h fleet.Host) wire.Host { return c.hostOf(h, d.ImageDatastores) }), nil
}

func (s *server) createHost(c *call) (reply, error) {
	if _, err := s.theDeployment(c); err != nil {
		return reply{}, err
	}
	return s.addHost(c)
}

func (s *server) addHost(c *call) (reply, error) {
	in, err := body[wire.HostSpec](c)
	if err != nil {
		return reply{}, err
	}
	spec := controller.HostSpec{Address: in.Address, Username: in.Username, Password: in.Password, Zone: fleet.ZoneID(in.AvailabilityZone),
		Metadata: in.Metadata, Fingerprint: in.Fingerprint}
	for _, t := range in.UsageTags {
		if t != string(fleet.Management) && t != string(fleet.Cloud) {
			return reply{}, oneOf("usageTags", t, fleet.Management, fleet.Cloud)
		}
		spec.Tags = append(spec.Tags, fleet.UsageTag(t))
	}
	return c.made(s.Controller.CreateHost(c.ctx(), c.by, spec))
}

func (s *server) getHost(c *call) (reply, error) {
	h, err := s.Controller.Host(c.ctx(), c.by, c.host())
	if err != nil {
		return reply{}, err
	}
	d, err := s.Controller.Deployment(c.ctx())
	if err != nil {
		return reply{}, err
	}
	return ok(c.hostOf(h, d.ImageDatastores)), nil
}

func (s *server) deleteHost(c *call) (reply, error) {
	return c.made(s.Controller.DeleteHost(c.ctx(), c.by, c.host()))
}

func (s *server) hostVMs(c *call) (reply, error) {
	list, err := s.Controller.HostVMs(c.ctx(), c.by, c.host())
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	return s.pageOfVMs(c, list)
}
