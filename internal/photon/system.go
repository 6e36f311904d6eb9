package photon

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

// apiVersion is what of Photon Controller is spoken.
const apiVersion = "1.1.1"

func (s *server) systemRoutes() routes {
	return routes{
		"/auth": {http.MethodGet: func(*call) (reply, error) { return ok(wire.Auth{Enabled: s.Tokens}), nil }},
		"/available": {http.MethodGet: func(*call) (reply, error) {
			return ok(struct{}{}), nil
		}},
		"/info": {http.MethodGet: func(*call) (reply, error) {
			return ok(wire.Info{
				BaseVersion: apiVersion, FullVersion: apiVersion + "-bootd-" + s.Version,
				GitCommitHash: cmp.Or(s.Commit, s.Version), NetworkType: "PHYSICAL",
			}), nil
		}},
		"/status": {http.MethodGet: s.status},
		documentPath: {http.MethodGet: func(*call) (reply, error) {
			d, err := Document(s.Version)
			return ok(d), err
		}},
		"/endpoint": {http.MethodGet: func(*call) (reply, error) { return ok(s.Endpoint()), nil }},
	}
}

// storePatience is how long the store may take to answer before it is called
// unreachable.
const storePatience = 5 * time.Second

// admin is nil, or the error for who may not look at the whole.
func (c *call) admin() error {
	if c.by.Role == controller.Admin {
		return nil
	}
	return fleet.Errorf(fleet.AccessForbidden, "Access forbidden: %s may not do this as %s", c.by.Name, c.by.Role)
}

// status tells how the parts are. Clients of all times want at least two.
func (s *server) status(c *call) (reply, error) {
	if err := c.admin(); err != nil {
		return reply{}, err
	}
	ctx, cancel := context.WithTimeout(c.ctx(), storePatience)
	defer cancel()
	part := func(name, status, message string) wire.Component {
		return wire.Component{Component: name, Status: status, Message: message,
			Instances: []wire.Instance{{Address: c.Host, Status: status, Message: message}}}
	}
	out := wire.Status{Status: "READY"}
	stored := part("CLOUD_STORE", "READY", "")
	if _, err := s.Controller.Deployment(ctx); err != nil {
		c.log.Error("the store does not answer", "err", err)
		out.Status, stored = "PARTIAL_ERROR", part("CLOUD_STORE", "UNREACHABLE", "the store does not answer; the log of bootd says more")
	}
	out.Components = []wire.Component{part("PHOTON_CONTROLLER", "READY", ""), stored}
	return ok(out), nil
}

func (s *server) deploymentRoutes() routes {
	out := routes{
		"/deployments":      {http.MethodGet: s.listDeployments},
		"/deployments/{id}": {http.MethodGet: s.getDeployment},
		// bootd is no VM of its own hosts.
		"/deployments/{id}/vms":                  {http.MethodGet: s.noVMs},
		"/deployments/{id}/set_security_groups":  {http.MethodPost: s.setDeploymentGroups},
		"/deployments/{id}/set_image_datastores": {http.MethodPost: s.setImageDatastores},
		"/deployments/{id}/enable_cluster_type":  {http.MethodPost: s.enableClusters},
		"/deployments/{id}/disable_cluster_type": {http.MethodPost: s.disableClusters},
	}
	for verb, op := range map[string]fleet.Operation{
		"pause_system": fleet.PauseSystem, "pause_background_tasks": fleet.PauseBackgroundTasks, "resume_system": fleet.ResumeSystem,
	} {
		out["/deployments/{id}/"+verb] = map[string]handler{http.MethodPost: func(c *call) (reply, error) {
			return c.made(s.Controller.SwitchSystem(c.ctx(), c.by, c.deployment(), op))
		}}
	}
	return out
}

func (c *call) deployment() fleet.DeploymentID { return fleet.DeploymentID(c.PathValue("id")) }

// theDeployment is the one that there is, if it is asked for.
func (s *server) theDeployment(c *call) (fleet.Deployment, error) {
	if err := c.admin(); err != nil {
		return fleet.Deployment{}, err
	}
	if c.deployment() != fleet.DefaultDeployment {
		return fleet.Deployment{}, fleet.UnknownEntity(fleet.Ref{Kind: fleet.KindDeployment, ID: string(c.deployment())})
	}
	return s.Controller.Deployment(c.ctx())
}

func (s *server) deploymentOf(c *call, d fleet.Deployment) wire.Deployment {
	out := wire.Deployment{
		ID: string(d.ID), Kind: string(fleet.KindDeployment), SelfLink: c.link("deployments", string(d.ID)), State: string(d.State),
		ImageDatastores: listed(d.ImageDatastores), UseImageDatastoreForVMs: d.ImagesForVMs,
		Auth: wire.DeploymentAuth{Enabled: s.Tokens, SecurityGroups: []string{}}, ClusterConfigurations: []wire.ClusterConfiguration{},
	}
	for _, g := range d.SecurityGroups {
		out.Auth.SecurityGroups = append(out.Auth.SecurityGroups, g.Name)
	}
	for _, t := range slices.Sorted(maps.Keys(d.Clusters)) {
		out.ClusterConfigurations = append(out.ClusterConfigurations, wire.ClusterConfiguration{
			ID: string(t), Kind: "clusterConfig", Type: string(t), ImageID: string(d.Clusters[t]),
		})
	}
	return out
}

func (s *server) listDeployments(c *call) (reply, error) {
	if err := c.admin(); err != nil {
		return reply{}, err
	}
	d, err := s.Controller.Deployment(c.ctx())
	if err != nil {
		return reply{}, err
	}
	return ok(wire.List[wire.Deployment]{Items: []wire.Deployment{s.deploymentOf(c, d)}}), nil
}

func (s *server) getDeployment(c *call) (reply, error) {
	d, err := s.theDeployment(c)
	if err != nil {
		return reply{}, err
	}
	return ok(s.deploymentOf(c, d)), nil
}

func (s *server) noVMs(c *call) (reply, error) {
	if _, err := s.theDeployment(c); err != nil {
		return reply{}, err
	}
	return ok(wire.List[struct{}]{Items: []struct{}{}}), nil
}

func (s *server) setDeploymentGroups(c *call) (reply, error) {
	if _, err := s.theDeployment(c); err != nil {
		return reply{}, err
	}
	groups, err := items(c)
	if err != nil {
		return reply{}, err
	}
	if !s.Tokens {
		return reply{}, fleet.Errorf(fleet.InvalidAuthConfig, "Auth is not enabled, and security groups cannot be set.")
	}
	return c.done(s.Controller.SetDeploymentGroups(c.ctx(), c.by, c.deployment(), groups))
}

func (s *server) setImageDatastores(c *call) (reply, error) {
	names, err := items(c)
	if err != nil {
		return reply{}, err
	}
	return c.done(s.Controller.SetImageDatastores(c.ctx(), c.by, c.deployment(), names))
}

func (s *server) enableClusters(c *call) (reply, error) {
	in, err := body[wire.ClusterConfiguration](c)
	if err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.EnableClusters(c.ctx(), c.by, c.deployment(), fleet.ClusterType(in.Type), fleet.ImageID(in.ImageID)))
}

func (s *server) disableClusters(c *call) (reply, error) {
	in, err := body[wire.ClusterConfiguration](c)
	if err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.DisableClusters(c.ctx(), c.by, c.deployment(), fleet.ClusterType(in.Type)))
}
