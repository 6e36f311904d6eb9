package photon_test

import (
	"encoding/json"
	"slices"
	"testing"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

// flavors that VMs of tests have.
func (f *fleetSite) flavors() {
	f.t.Helper()
	f.flavor("small", "vm", line("vm.cpu", "1", "COUNT"), line("vm.memory", "1", "GB"))
	f.flavor("huge", "vm", line("vm.cpu", "1", "COUNT"), line("vm.memory", "1000", "GB"))
	f.flavor("plain", "ephemeral-disk", line("ephemeral-disk", "1", "COUNT"))
	f.flavor("keep", "persistent-disk", line("persistent-disk", "1", "COUNT"))
}

func (f *fleetSite) vmSpec(image string) wire.VMSpec {
	return wire.VMSpec{Name: "one", Flavor: "small", SourceImageID: image, AttachedDisks: []wire.DiskSpec{{Name: "boot", Kind: "ephemeral", Flavor: "plain", BootDisk: true}}}
}

// V1, V9 to V12, V24, V27, L1: a VM's life, as clients lead it.
func TestVMsV1(t *testing.T) {
	f := startFleet(t)
	f.flavors()
	image := f.done(f.upload([][2]string{{"ImageReplication", "ON_DEMAND"}}, "one.vmdk", diskFile(t)), 201)
	spec := f.vmSpec(image)
	spec.AttachedDisks = append(spec.AttachedDisks, wire.DiskSpec{Name: "own", Kind: "ephemeral-disk", Flavor: "plain", CapacityGB: 2})
	spec.Tags, spec.Environment = []string{"a"}, map[string]string{"role": "web"}
	made := f.end(f.post(f.project+"/vms", spec), 201)
	id := made.Entity.ID
	if made.Operation != "CREATE_VM" || made.Entity.Kind != "vm" || made.State != "COMPLETED" {
		t.Fatalf("%+v", made)
	}
	v := into[wire.VM](f.get("/vms/"+id), 200)
	if v.State != "STOPPED" || v.Host != f.host.Address() || v.Datastore == "" || v.SourceImageID != image || len(v.AttachedDisks) != 2 || !v.AttachedDisks[0].BootDisk ||
		v.AttachedDisks[1].CapacityGB != 2 || !slices.Equal(v.Tags, []string{"a"}) {
		t.Errorf("%+v", v)
	}
	state := func(want string) {
		t.Helper()
		if got := into[wire.VM](f.get("/vms/"+id), 200).State; got != want {
			t.Errorf("VM is %s, want %s", got, want)
		}
	}
	f.get("/vms/"+id+"/mks_ticket").fails(400, "InvalidVmState", "Get Mks Ticket is not allowed on vm that is not powered on.")
	for _, step := range [][3]string{{"start", "START_VM", "STARTED"}, {"suspend", "SUSPEND_VM", "SUSPENDED"}, {"resume", "RESUME_VM", "STARTED"}, {"restart", "RESTART_VM", "STARTED"}} {
		a := f.post("/vms/"+id+"/"+step[0], nil)
		if task := into[wire.Task](a, 201); task.State != "QUEUED" || task.Operation != step[1] || len(task.Steps) != 1 || task.Steps[0].Operation != step[1] {
			t.Errorf("%+v", task)
		}
		f.done(a, 201)
		state(step[2])
	}
	ticket := f.end(f.get("/vms/"+id+"/mks_ticket"), 201)
	var screen struct {
		Port          int
		Ticket        string
		SSLThumbprint string `json:"sslThumbprint"`
	}
	if err := json.Unmarshal(ticket.ResourceProperties, &screen); err != nil || screen.Port <= 0 || len(screen.Ticket) < 20 || screen.SSLThumbprint == "" {
		t.Errorf("%s, %v", ticket.ResourceProperties, err)
	}
	f.failed(f.delete("/vms/"+id), "DELETE_VM", "InvalidVmState", "VM "+id+" not powered off")
	f.done(f.post("/vms/"+id+"/operations", `{"operation": "STOP_VM", "arguments": {}}`), 201) // of the first version
	state("STOPPED")
	f.post("/vms/"+id+"/operations", `{"operation": "DELETE_VM"}`).fails(400, "InvalidJson", `"DELETE_VM" was not one of [START_VM, STOP_VM`)
	f.post("/vms/"+id+"/set_metadata", `{"metadata": {"k": "v"}}`).made("SET_METADATA", "vm")
	f.post("/vms/"+id+"/set_metadata", `{}`).fails(400, "InvalidEntity", "metadata may not be null (was null)")
	f.post("/vms/"+id+"/tags", `{"value": "b"}`).made("ADD_TAG", "vm")
	f.post("/vms/"+id+"/tags", `{"value": ""}`).fails(400, "InvalidEntity", "value size must be between 1 and 64")
	if v := into[wire.VM](f.get("/vms/"+id), 200); v.Metadata["k"] != "v" || !slices.Equal(v.Tags, []string{"a", "b"}) {
		t.Errorf("%+v", v)
	}
	made2 := f.end(f.post("/vms/"+id+"/create_image", wire.ImageSpec{Name: "made", ReplicationType: "ON_DEMAND"}), 201)
	if i := into[wire.Image](f.get("/images/"+made2.Entity.ID), 200); made2.Operation != "CREATE_VM_IMAGE" || made2.Entity.Kind != "image" || i.State != "READY" || i.Name != "made" {
		t.Errorf("%+v %+v", made2, i)
	}
	f.done(f.delete("/vms/"+id), 201)
	f.get("/vms/"+id).fails(404, "VmNotFound", "VM "+id+" not found")
	if got := into[wire.Image](f.get("/images/"+image), 200).State; got != "READY" {
		t.Errorf("the image is %s after its last VM", got)
	}
}

// V3, V6 to V8, V20 to V23, V31, X19, X20: what is refused, and how.
func TestVMsV3(t *testing.T) {
	f := startFleet(t)
	f.flavors()
	image := f.done(f.upload([][2]string{{"ImageReplication", "ON_DEMAND"}}, "one.vmdk", diskFile(t)), 201)
	for name, c := range map[string]struct {
		change func(*wire.VMSpec)
		status int
		code   fleet.Code
		text   string
	}{
		"V3 persistent": {func(s *wire.VMSpec) {
			s.AttachedDisks = append(s.AttachedDisks, wire.DiskSpec{Name: "a", Kind: "persistent-disk", Flavor: "keep", CapacityGB: 1})
		}, 400, "InvalidEntity", `attachedDisks[1].kind must match "ephemeral-disk|ephemeral" (was persistent-disk)`},
		"V6 flavor":   {func(s *wire.VMSpec) { s.Flavor = "none" }, 400, "InvalidFlavor", "Flavor none is not found for kind vm"},
		"V7 image":    {func(s *wire.VMSpec) { s.SourceImageID = "none" }, 404, "ImageNotFound", "Image id 'none' not found"},
		"no image":    {func(s *wire.VMSpec) { s.SourceImageID = "" }, 400, "InvalidEntity", "No sourceImageId specified"},
		"V8 name":     {func(s *wire.VMSpec) { s.Name = "1st" }, 400, "InvalidEntity", "name must match"},
		"V20 place":   {func(s *wire.VMSpec) { s.Affinities = []wire.Entity{{ID: "x", Kind: "moon"}} }, 400, "InvalidEntity", "affinities[0].kind must match"},
		"V21 vm":      {func(s *wire.VMSpec) { s.Affinities = []wire.Entity{{ID: "x", Kind: "vm"}} }, 400, "InvalidEntity", "affinity to a vm"},
		"capacity":    {func(s *wire.VMSpec) { s.AttachedDisks[0].CapacityGB = 1 << 60 }, 400, "InvalidEntity", "attachedDisks[0].capacityGb must be between 1 and 63488"},
		"network":     {func(s *wire.VMSpec) { s.Networks = []string{"none"} }, 404, "NetworkNotFound", "Network none not found"}, // before 1.0
		"subnet":      {func(s *wire.VMSpec) { s.Subnets = []string{"none"} }, 404, "NetworkNotFound", "Network none not found"},
		"MAC address": {func(s *wire.VMSpec) { s.MACAddresses = []string{"x"} }, 400, "InvalidEntity", "macAddresses[0] must be a hardware address (was x)"},
		"V22 hosts": {func(s *wire.VMSpec) { s.Affinities = []wire.Entity{{ID: "x", Kind: "host"}, {ID: "y", Kind: "host"}} }, 400, "InvalidEntity",
			"A VM can only be affixed on one host, however 2 hosts were specified."},
	} {
		t.Run(name, func(t *testing.T) {
			s := f.vmSpec(image)
			c.change(&s)
			a := f.post(f.project+"/vms", s)
			a.t = t
			a.fails(c.status, c.code, c.text)
		})
	}
	f.post("/projects/none/vms", f.vmSpec(image)).fails(404, "NotFound", "Project none not found")
	f.post(f.project+"/vms", `{"name": 7}`).fails(400, "InvalidJson", "name cannot be a number")
	if n := len(into[wire.List[wire.VM]](f.get(f.project+"/vms"), 200).Items); n != 0 {
		t.Errorf("%d VMs were made", n)
	}
	big := f.vmSpec(image)
	big.Flavor = "huge"
	id := f.failed(f.post(f.project+"/vms", big), "RESERVE_RESOURCE", "NotEnoughMemoryResource", "1 host: 1 without")
	if got := into[wire.VM](f.get("/vms/"+id), 200).State; got != "ERROR" {
		t.Errorf("VM is %s", got)
	}
	f.post("/vms/"+id+"/create_image", `{"replicationType": "EAGER"}`).fails(400, "InvalidEntity", "name may not be null")
	f.post("/vms/"+id+"/create_image", `{"name": "a"}`).fails(400, "InvalidEntity", "replicationType may not be null")
	f.post("/vms/"+id+"/create_image", `{"name": "a", "replicationType": "SOMETIMES"}`).fails(400, "InvalidJson", "was not one of [EAGER, ON_DEMAND]")
	f.done(f.delete("/vms/"+id), 201)
	for _, verb := range []string{"start", "stop", "restart", "suspend", "resume"} {
		f.post("/vms/none/"+verb, nil).fails(404, "VmNotFound", "VM none not found")
	}
	f.get("/vms/none/mks_ticket").fails(404, "VmNotFound", "none")
	f.delete("/vms/none").fails(404, "VmNotFound", "none")
}

// V13, X1 to X4: persistent disks.
func TestVMsX1(t *testing.T) {
	f := startFleet(t)
	f.flavors()
	s := f.vmSpec("")
	s.AttachedDisks, s.Diskless, s.MACAddresses = nil, true, []string{"00:50:56:00:00:07"}
	vm := f.done(f.post(f.project+"/vms", s), 201)
	task, err := f.control.CreateDisk(t.Context(), controller.Principal{Name: "root", Role: controller.Admin}, fleet.ProjectID(f.project[len("/projects/"):]),
		fleet.PersistentDiskSpec{Name: "data", Kind: "persistent", Flavor: "keep", Capacity: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	disk := string(task.Entity.ID)
	if got, err := f.tasks.Wait(t.Context(), task.ID); err != nil || got.State != fleet.TaskCompleted {
		t.Fatalf("%+v, %v", got, err)
	}
	on := wire.DiskOperation{DiskID: disk}
	f.failed(f.post("/vms/"+vm+"/detach_disk", on), "DETACH_DISK", "InternalError", "DETACH_DISK failed")
	f.done(f.post("/vms/"+vm+"/attach_disk", on), 201)
	f.post("/vms/"+vm+"/attach_disk", on).fails(400, "StateError", "Invalid operation ATTACH_DISK for persistent-disk/"+disk+" in state ATTACHED")
	f.delete("/vms/"+vm).fails(400, "PersistentDiskAttached", "Disk persistent-disk#"+disk+" is attached to VM#"+vm)
	f.post("/vms/"+vm+"/attach_disk", `{}`).fails(400, "InvalidEntity", "diskId may not be null (was null)")
	f.post("/vms/"+vm+"/attach_disk", wire.DiskOperation{DiskID: "none"}).fails(404, "DiskNotFound", "Disk persistent-disk#none not found")
	f.post("/vms/none/attach_disk", on).fails(404, "VmNotFound", "none")
	f.done(f.post("/vms/"+vm+"/detach_disk", on), 201)
	f.done(f.delete("/vms/"+vm), 201)
}
