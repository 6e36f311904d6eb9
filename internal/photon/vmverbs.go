package photon

import (
	"net/http"
	"slices"
	"strconv"

	"bootd/boot"
	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

// vmVerbRoutes are those that change VMs.
func (s *server) vmVerbRoutes() routes {
	out := routes{
		"/projects/{id}/vms":     {http.MethodPost: s.createVM},
		"/vms/{id}":              {http.MethodDelete: s.deleteVM},
		"/vms/{id}/operations":   {http.MethodPost: s.operateVM}, // before 0.8
		"/vms/{id}/attach_disk":  {http.MethodPost: s.attachDisk},
		"/vms/{id}/detach_disk":  {http.MethodPost: s.detachDisk},
		"/vms/{id}/set_metadata": {http.MethodPost: s.setMetadata},
		"/vms/{id}/tags":         {http.MethodPost: s.addTag},
		"/vms/{id}/create_image": {http.MethodPost: s.createVMImage},
		"/vms/{id}/mks_ticket":   {http.MethodGet: s.mksTicket},
	}
	for verb, op := range powerVerbs {
		out["/vms/{id}/"+verb] = map[string]handler{http.MethodPost: func(c *call) (reply, error) {
			return c.made(s.Controller.PowerVM(c.ctx(), c.by, c.vm(), op))
		}}
	}
	return out
}

// powerVerbs are what switches a VM, as paths and as operations.
var powerVerbs = map[string]fleet.Operation{
	"start": fleet.StartVM, "stop": fleet.StopVM, "restart": fleet.RestartVM, "suspend": fleet.SuspendVM, "resume": fleet.ResumeVM,
}

func (s *server) createVM(c *call) (reply, error) {
	in, err := body[wire.VMSpec](c)
	if err != nil {
		return reply{}, err
	}
	spec := fleet.VMSpec{Name: in.Name, Flavor: in.Flavor, Image: fleet.ImageID(in.SourceImageID), Diskless: in.Diskless, Tags: in.Tags, Environment: in.Environment}
	var m fleet.Mistakes
	for i, d := range in.AttachedDisks {
		at := "attachedDisks[" + strconv.Itoa(i) + "].capacityGb"
		if d.CapacityGB < 0 || d.CapacityGB > maxDiskGB {
			m.Add(at, "must be between 1 and "+strconv.Itoa(maxDiskGB), d.CapacityGB)
			continue
		}
		spec.Disks = append(spec.Disks, fleet.DiskSpec{Name: d.Name, Kind: fleet.Kind(d.Kind), Flavor: d.Flavor, Capacity: d.CapacityGB << 30, Boot: d.BootDisk})
	}
	for _, a := range in.Affinities {
		spec.Affinities = append(spec.Affinities, fleet.Ref{Kind: fleet.Kind(a.Kind), ID: a.ID})
	}
	for _, id := range slices.Concat(in.Subnets, in.Networks) {
		spec.Subnets = append(spec.Subnets, fleet.SubnetID(id))
	}
	for i, text := range in.MACAddresses {
		mac, err := boot.ParseMAC(text)
		if err != nil {
			m.Add("macAddresses["+strconv.Itoa(i)+"]", "must be a hardware address", text)
		}
		spec.MACs = append(spec.MACs, mac)
	}
	if err := m.Err(); err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.CreateVM(c.ctx(), c.by, c.project(), spec))
}

// maxDiskGB is how large vSphere makes a disk: 62 TB.
const maxDiskGB = 62 << 10

func (s *server) deleteVM(c *call) (reply, error) {
	return c.made(s.Controller.DeleteVM(c.ctx(), c.by, c.vm()))
}

func (s *server) operateVM(c *call) (reply, error) {
	in, err := body[wire.Operation](c)
	if err != nil {
		return reply{}, err
	}
	for _, op := range powerVerbs {
		if string(op) == in.Operation {
			return c.made(s.Controller.PowerVM(c.ctx(), c.by, c.vm(), op))
		}
	}
	return reply{}, oneOf("operation", in.Operation, fleet.StartVM, fleet.StopVM, fleet.RestartVM, fleet.SuspendVM, fleet.ResumeVM)
}

// diskOf reads which disk a verb is about.
func diskOf(c *call) (fleet.DiskID, error) {
	in, err := body[wire.DiskOperation](c)
	if err != nil {
		return "", err
	}
	var m fleet.Mistakes
	m.Required("diskId", in.DiskID)
	return fleet.DiskID(in.DiskID), m.Err()
}

func (s *server) attachDisk(c *call) (reply, error) {
	id, err := diskOf(c)
	if err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.AttachDisk(c.ctx(), c.by, c.vm(), id))
}

func (s *server) detachDisk(c *call) (reply, error) {
	id, err := diskOf(c)
	if err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.DetachDisk(c.ctx(), c.by, c.vm(), id))
}

func (s *server) setMetadata(c *call) (reply, error) {
	in, err := body[wire.Metadata](c)
	if err == nil && in.Metadata == nil {
		var m fleet.Mistakes
		m.Required("metadata", "")
		err = m.Err()
	}
	if err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.SetVMMetadata(c.ctx(), c.by, c.vm(), in.Metadata))
}

func (s *server) addTag(c *call) (reply, error) {
	in, err := body[wire.Tag](c)
	if err != nil {
		return reply{}, err
	}
	return c.made(s.Controller.AddVMTag(c.ctx(), c.by, c.vm(), in.Value))
}

// createVMImage answers with a task whose entity is the image.
func (s *server) createVMImage(c *call) (reply, error) {
	in, err := body[wire.ImageSpec](c)
	if err != nil {
		return reply{}, err
	}
	switch fleet.Replication(in.ReplicationType) {
	case "", fleet.Eager, fleet.OnDemand:
	default:
		return reply{}, oneOf("replicationType", in.ReplicationType, fleet.Eager, fleet.OnDemand)
	}
	return c.made(s.Controller.CreateVMImage(c.ctx(), c.by, c.vm(), controller.ImageSpec{Name: in.Name, Replication: fleet.Replication(in.ReplicationType)}))
}

// mksTicket opens the screen of a VM, which is a task of its own though it is a GET.
func (s *server) mksTicket(c *call) (reply, error) {
	return c.made(s.Controller.MKSTicket(c.ctx(), c.by, c.vm()))
}
