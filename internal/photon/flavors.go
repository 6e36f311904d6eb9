package photon

import (
	"net/http"

	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

func (s *server) flavorRoutes() routes {
	return routes{
		"/flavors":            {http.MethodGet: s.listFlavors, http.MethodPost: s.createFlavor},
		"/flavors/{id}":       {http.MethodGet: s.getFlavor, http.MethodDelete: s.deleteFlavor},
		"/flavors/{id}/tasks": {http.MethodGet: s.entityTasks(fleet.KindFlavor, s.lookFlavor)},
	}
}

func (c *call) flavor() fleet.FlavorID { return fleet.FlavorID(c.PathValue("id")) }

func (s *server) lookFlavor(c *call) error {
	_, err := s.Controller.Flavor(c.ctx(), c.flavor())
	return err
}

func (c *call) flavorOf(f fleet.Flavor) wire.Flavor {
	return wire.Flavor{
		ID: string(f.ID), Kind: string(f.Kind), SelfLink: c.link("flavors", string(f.ID)), Name: f.Name, Tags: listed(f.Tags),
		State: string(f.State), Cost: lines(f.Cost),
	}
}

func (s *server) listFlavors(c *call) (reply, error) {
	list, err := s.Controller.Flavors(c.ctx(), c.query.Get("name"), fleet.Kind(c.query.Get("kind")))
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	return paged(c, list, func(f fleet.Flavor) string { return byName(f.Name+"\x00"+string(f.Kind), f.ID) }, c.flavorOf), nil
}

func (s *server) createFlavor(c *call) (reply, error) {
	in, err := body[wire.FlavorSpec](c)
	if err != nil {
		return reply{}, err
	}
	var m fleet.Mistakes
	m.Name("name", in.Name)
	fleet.OneOf(&m, "kind", fleet.Kind(in.Kind), fleet.KindPersistentDisk, fleet.KindEphemeralDisk, fleet.KindVM)
	cost, err := amounts(&m, "cost", in.Cost)
	if err := both(m, err); err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.CreateFlavor(c.ctx(), c.by, in.Name, fleet.Kind(in.Kind), cost, !s.LenientFlavors))
}

func (s *server) getFlavor(c *call) (reply, error) {
	f, err := s.Controller.Flavor(c.ctx(), c.flavor())
	if err != nil {
		return reply{}, err
	}
	return ok(c.flavorOf(f)), nil
}

func (s *server) deleteFlavor(c *call) (reply, error) {
	return c.made(s.Controller.DeleteFlavor(c.ctx(), c.by, c.flavor()))
}
