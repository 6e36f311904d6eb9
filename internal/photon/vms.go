package photon

import (
	"maps"
	"net/http"

	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

func (s *server) vmRoutes() routes {
	networks := map[string]handler{http.MethodGet: s.vmNetworks}
	return routes{
		"/projects/{id}/vms": {http.MethodGet: s.listVMs},
		"/vms/{id}":          {http.MethodGet: s.getVM},
		"/vms/{id}/tasks":    {http.MethodGet: s.entityTasks(fleet.KindVM, s.lookVM)},
		"/vms/{id}/subnets":  networks,
		"/vms/{id}/networks": networks, // before 1.0
	}
}

func (c *call) vm() fleet.VMID { return fleet.VMID(c.PathValue("id")) }

func (s *server) lookVM(c *call) error {
	_, err := s.Controller.VM(c.ctx(), c.by, c.vm())
	return err
}

// vmOf is a VM on the wire, with the address of its host.
func (c *call) vmOf(v fleet.VM, host string) wire.VM {
	out := wire.VM{
		ID: string(v.ID), Kind: string(fleet.KindVM), SelfLink: c.link("vms", string(v.ID)), Name: v.Name, Flavor: v.FlavorName, State: string(v.State),
		Cost: lines(v.Cost), Tags: listed(v.AllTags()), Metadata: maps.Clone(v.Metadata), SourceImageID: string(v.Image), Host: host,
		Datastore: string(v.Datastore), AttachedDisks: []wire.AttachedDisk{}, AttachedISOs: []wire.AttachedISO{},
	}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	for _, d := range v.Disks {
		out.AttachedDisks = append(out.AttachedDisks, wire.AttachedDisk{
			ID: string(d.ID), Name: d.Name, Kind: string(d.Kind), Flavor: d.Flavor, State: string(fleet.DiskAttached),
			CapacityGB: (d.Capacity + 1<<30 - 1) >> 30, BootDisk: d.Boot,
		})
	}
	if v.ISO != nil {
		out.AttachedISOs = append(out.AttachedISOs, wire.AttachedISO{ID: string(v.ISO.ID), Name: v.ISO.Name, Kind: string(fleet.KindISO), Size: v.ISO.Size})
	}
	return out
}

// pageOfVMs answers with the page of a list of VMs that a request is for.
func (s *server) pageOfVMs(c *call, list []fleet.VM) (reply, error) {
	page, next, previous := cut(c, list, func(v fleet.VM) string { return byName(v.Name, v.ID) })
	out := wire.List[wire.VM]{Items: []wire.VM{}, NextPageLink: next, PreviousPageLink: previous}
	known := map[fleet.HostID]string{}
	for _, v := range page {
		host, seen := known[v.Host]
		if !seen {
			var err error
			if host, err = s.Controller.HostAddress(c.ctx(), v.Host); err != nil {
				return reply{}, err
			}
			known[v.Host] = host
		}
		out.Items = append(out.Items, c.vmOf(v, host))
	}
	return ok(out), nil
}

func (s *server) listVMs(c *call) (reply, error) {
	list, err := s.Controller.VMs(c.ctx(), c.by, c.project(), c.query.Get("name"))
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	return s.pageOfVMs(c, list)
}

func (s *server) getVM(c *call) (reply, error) {
	v, err := s.Controller.VM(c.ctx(), c.by, c.vm())
	if err != nil {
		return reply{}, err
	}
	host, err := s.Controller.HostAddress(c.ctx(), v.Host)
	if err != nil {
		return reply{}, err
	}
	return ok(c.vmOf(v, host)), nil
}

// vmNetworks asks the VM's host, which is a task of its own though it is a GET. So it
// counts as a change, which a paused system refuses.
func (s *server) vmNetworks(c *call) (reply, error) {
	return c.made(s.Controller.VMNetworks(c.ctx(), c.by, c.vm()))
}
