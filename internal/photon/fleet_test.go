package photon_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/internal/controller"
	"bootd/internal/controller/controllertest"
	"bootd/internal/esx"
	"bootd/internal/esx/esxtest"
	"bootd/internal/esx/vmdk"
	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
	"bootd/internal/spool"
)

// patience bounds every wait of a test.
const patience = 2 * time.Minute

// A fleetSite is a site with a simulated ESXi host, and with clusters.
type fleetSite struct {
	*site
	crew    controllertest.Crew
	host    *esxtest.Host
	hostID  string
	project string // its path
}

func startFleet(t *testing.T) *fleetSite {
	t.Helper()
	dir := t.TempDir()
	keep, err := spool.Open(dir + "/spool")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleetSite{}
	f.host, err = esxtest.Start(esxtest.Options{Name: "esx-1", MemoryBytes: 64 << 30, Cores: 8, DatastoreBytes: 1 << 40, Serial: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.host.Close)
	f.site = startWith(t, dir, controller.Options{Spool: keep, Nodes: &f.crew, Look: 10 * time.Millisecond, Rounds: 24 * time.Hour, Grace: patience / 2,
		Connect: func(h fleet.Host) (controller.Hypervisor, error) {
			return esx.New(esx.Config{Address: h.Address, Username: h.Username, Password: h.Password, Fingerprint: h.Fingerprint})
		}})
	f.hostID = f.done(f.post(deployment+"/hosts", wire.HostSpec{Address: f.host.Address(), Username: "root", Password: "secret", UsageTags: []string{"CLOUD"}}), 201)
	tenant := f.tenant("acme")
	f.ticket(tenant, "gold", line("vm", "100", "COUNT"))
	f.project = "/projects/" + f.site.project(tenant, "web", "gold", line("vm", "50", "COUNT"))
	return f
}

// end waits for the end of the task that an answer has.
func (f *fleetSite) end(a answer, status int) wire.Task {
	f.t.Helper()
	task := into[wire.Task](a, status)
	for end := time.Now().Add(patience); task.State != "COMPLETED" && task.State != "ERROR"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("%s does not end: %+v", a.what, task)
		}
		task = into[wire.Task](f.get("/tasks/"+task.ID), 200)
	}
	return task
}

// done waits for a task that must succeed, and is the ID of its entity.
func (f *fleetSite) done(a answer, status int) string {
	f.t.Helper()
	task := f.end(a, status)
	if task.State != "COMPLETED" {
		f.t.Fatalf("%s: %+v", a.what, task)
	}
	return task.Entity.ID
}

// failed waits for a task that must fail in a step, and is the ID of its entity.
func (f *fleetSite) failed(a answer, step, code, text string) string {
	f.t.Helper()
	task := f.end(a, 201)
	for _, s := range task.Steps {
		if s.State == "ERROR" && s.Operation == step && s.Errors[0].Code == code && strings.Contains(s.Errors[0].Message, text) {
			return task.Entity.ID
		}
	}
	f.t.Fatalf("%s: %+v; want %s in %s: %s", a.what, task, code, step, text)
	return ""
}

// form is a multipart body: fields, and a file if it has a name.
func form(t *testing.T, fields [][2]string, name string, file []byte) (body []byte, kind string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, f := range fields {
		if err := w.WriteField(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	if name != "" {
		p, err := w.CreateFormFile("file", name)
		if err == nil {
			_, err = p.Write(file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), w.FormDataContentType()
}

// upload posts an image.
func (f *fleetSite) upload(fields [][2]string, name string, file []byte) answer {
	f.t.Helper()
	b, kind := form(f.t, fields, name, file)
	r, err := http.NewRequestWithContext(f.t.Context(), "POST", f.base+"/images", bytes.NewReader(b))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	resp, err := f.http.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return answer{f.t, "POST /images", resp.StatusCode, resp.Header, got}
}

// diskFile is a streamOptimized VMDK of a megabyte.
func diskFile(t *testing.T) []byte {
	t.Helper()
	raw := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 100 << 10 {
		raw[i] = byte(r.Uint32())
	}
	var b bytes.Buffer
	if err := vmdk.WriteStream(&b, bytes.NewReader(raw), int64(len(raw)), "lsilogic"); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// H1 to H5, H7, H17: hosts that cannot be, and one that is.
func TestHosts(t *testing.T) {
	f := startFleet(t)
	good := func(change func(*wire.HostSpec)) wire.HostSpec {
		h := wire.HostSpec{Address: "10.0.0.9", Username: "root", Password: "x", UsageTags: []string{"CLOUD"}}
		change(&h)
		return h
	}
	for code, c := range map[string]struct {
		spec         wire.HostSpec
		status       int
		kind, really string
	}{
		"H1 tag":      {good(func(h *wire.HostSpec) { h.UsageTags = []string{"MOON"} }), 400, "InvalidJson", `"MOON" was not one of [MGMT, CLOUD]`},
		"H2 address":  {good(func(h *wire.HostSpec) { h.Address = "10..1" }), 400, "InvalidEntity", "is invalid IP or Domain Address"},
		"H3 password": {good(func(h *wire.HostSpec) { h.Password = "" }), 400, "InvalidEntity", "password may not be null (was null)"},
		"H4 username": {good(func(h *wire.HostSpec) { h.Username = "" }), 400, "InvalidEntity", "username may not be null (was null)"},
		"H5 tags":     {good(func(h *wire.HostSpec) { h.UsageTags = nil }), 400, "InvalidEntity", "usageTags may not be null (was null)"},
		"H6 zone":     {good(func(h *wire.HostSpec) { h.AvailabilityZone = "nowhere" }), 404, "AvailabilityZoneNotFound", "nowhere"},
		"twice":       {good(func(h *wire.HostSpec) { h.Address = f.host.Address() }), 400, "DuplicateHost", "already registered"},
	} {
		if e := f.post(deployment+"/hosts", c.spec).fails(c.status, fleet.Code(c.kind), c.really); e.Code == "" {
			t.Error(code)
		}
	}
	f.post("/deployments/other/hosts", good(func(*wire.HostSpec) {})).fails(404, "DeploymentNotFound", "other")

	h := into[wire.Host](f.get("/hosts/"+f.hostID), 200)
	want := wire.Host{ID: f.hostID, Kind: "host", SelfLink: f.base + "/hosts/" + f.hostID, Address: f.host.Address(), Username: "root", Metadata: map[string]string{},
		UsageTags: []string{"CLOUD"}, ESXVersion: h.ESXVersion, State: "READY", Datastores: h.Datastores, Fingerprint: h.Fingerprint}
	if d := cmp.Diff(want, h); d != "" || h.ESXVersion == "" || !strings.HasPrefix(h.Fingerprint, "SHA256:") || len(h.Datastores) == 0 || !h.Datastores[0].ImageDatastore {
		t.Errorf("%s %+v", d, h)
	}
	if bytes.Contains(f.get("/hosts/"+f.hostID).body, []byte("secret")) {
		t.Error("the password is told")
	}
	f.post("/deployments//hosts", good(func(h *wire.HostSpec) { h.Address = f.host.Address() })).fails(400, "DuplicateHost", "already registered")
	for _, path := range []string{"/hosts", "/deployments//hosts", deployment + "/hosts"} {
		if all := into[wire.List[wire.Host]](f.get(path), 200).Items; len(all) != 1 || all[0].ID != f.hostID {
			t.Errorf("%s: %+v", path, all)
		}
	}
	if d := cmp.Diff([]string{"CREATE_HOST"}, f.operations("/hosts/"+f.hostID+"/tasks")); d != "" {
		t.Error(d)
	}
}

// H10 to H16, H19 to H25: what can be done to a host, and to one that is not there.
func TestHostsModes(t *testing.T) {
	f := startFleet(t)
	for _, verb := range []string{"suspend", "resume", "enter_maintenance", "exit_maintenance", "provision"} {
		f.post("/hosts/none/"+verb, nil).fails(404, "HostNotFound", "Host #none not found")
	}
	for _, path := range []string{"/hosts/none", "/hosts/none/tasks", "/hosts/none/vms"} {
		f.get(path).fails(404, "HostNotFound", "Host #none not found")
	}
	f.delete("/hosts/none").fails(404, "HostNotFound", "none")
	is := func(want string) {
		t.Helper()
		if got := into[wire.Host](f.get("/hosts/"+f.hostID), 200).State; got != want {
			t.Errorf("host is %s, want %s", got, want)
		}
	}
	f.delete("/hosts/"+f.hostID).fails(400, "StateError", "Invalid operation DELETE_HOST for host/"+f.hostID+" in state READY")
	for _, step := range [][2]string{{"suspend", "SUSPENDED"}, {"suspend", "SUSPENDED"}, {"resume", "READY"}, {"suspend", "SUSPENDED"},
		{"enter_maintenance", "MAINTENANCE"}, {"exit_maintenance", "READY"}, {"suspend", "SUSPENDED"}, {"enter_maintenance", "MAINTENANCE"}} {
		f.done(f.post("/hosts/"+f.hostID+"/"+step[0], nil), 200)
		is(step[1])
	}
	f.done(f.delete("/hosts/"+f.hostID), 201)
	f.get("/hosts/"+f.hostID).fails(404, "HostNotFound", f.hostID)
}

// I1 to I8: images of all kinds, and what is none.
func TestImages(t *testing.T) {
	f := startFleet(t)
	disk := diskFile(t)
	f.upload(nil, "a.vmdk", disk).fails(400, "ImageUploadError", "ImageReplicationType is required")
	f.upload([][2]string{{"ImageReplication", "SOMETIMES"}}, "a.vmdk", disk).fails(400, "ImageUploadError", "Image upload receives invalid parameter")
	f.upload([][2]string{{"ImageReplication", "EAGER"}}, "", nil).fails(400, "ImageUploadError", "has no file")
	f.post("/images", `{}`).fails(400, "ImageUploadError", "is no form")
	for _, x := range [][2]string{{"ImageReplication", "EAGER"}, {"imagereplication", "on_demand"}} {
		id := f.done(f.upload([][2]string{{"other", "x"}, x}, "swarm.vmdk", disk), 201)
		i := into[wire.Image](f.get("/images/"+id), 200)
		want := wire.Image{ID: id, Kind: "image", SelfLink: f.base + "/images/" + id, Name: "swarm.vmdk", Tags: []string{}, State: "READY", Size: i.Size,
			ReplicationType: strings.ToUpper(x[1]), ReplicationProgress: "100%", SeedingProgress: "100%",
			Settings: []wire.ImageSetting{}}
		if d := cmp.Diff(want, i); d != "" || i.Size < int64(len(disk)) {
			t.Errorf("%s %+v", d, i)
		}
	}
	if all := into[wire.List[wire.Image]](f.get("/images?name=swarm.vmdk"), 200).Items; len(all) != 2 {
		t.Errorf("%d images", len(all))
	}
	bad := f.failed(f.upload([][2]string{{"ImageReplication", "EAGER"}}, "x", []byte(strings.Repeat("no disk ", 1000))), "UPLOAD_IMAGE", "UnsupportedImageFileType", "")
	if got := into[wire.Image](f.get("/images/"+bad), 200).State; got != "ERROR" {
		t.Errorf("what is no image is %s", got)
	}
	f.done(f.delete("/images/"+bad), 201)
	f.get("/images/"+bad).fails(404, "ImageNotFound", "Image id '"+bad+"' not found")
	f.delete("/images/"+bad).fails(404, "ImageNotFound", bad)
}

// C1: a cluster that is not there.
func TestClustersC1(t *testing.T) {
	f := startFleet(t)
	for _, path := range []string{"/clusters/none", "/clusters/none/vms", "/clusters/none/tasks"} {
		f.get(path).fails(404, "ClusterNotFound", "Cluster with id none not found")
	}
	f.delete("/clusters/none").fails(404, "ClusterNotFound", "none")
	f.post("/clusters/none/resize", `{"newWorkerCount": 2}`).fails(404, "ClusterNotFound", "none")
	f.post("/clusters/none/trigger_maintenance", nil).fails(404, "ClusterNotFound", "none")
}

// ready waits until a cluster is, as the CLI does.
func (f *fleetSite) ready(id string) wire.Cluster {
	f.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c := into[wire.Cluster](f.get("/clusters/"+id), 200)
		switch {
		case c.State == "READY":
			return c
		case c.State == "ERROR", time.Now().After(end):
			f.t.Fatalf("%+v", c)
		}
	}
}

func (f *fleetSite) counts(id string) map[string]int {
	f.t.Helper()
	out := map[string]int{}
	for _, v := range into[wire.List[wire.VM]](f.get("/clusters/"+id+"/vms"), 200).Items {
		prefix, _, _ := strings.Cut(v.Name, "-")
		out[prefix]++
	}
	return out
}

var addresses = map[string]string{"dns": "10.0.0.1", "gateway": "10.0.0.1", "netmask": "255.255.255.0", "etcd_ip1": "10.0.0.11", "etcd_ip2": "10.0.0.12"}

// C2: a swarm's life, in the words of old clients and of newer ones.
func TestClustersC2(t *testing.T) {
	f := startFleet(t)
	spec := `{"name": "Swarm2", "type": "SWARM", "slaveCount": 1, "extendedProperties": {"dns": "10.0.0.1", "gateway": "10.0.0.1", "netmask": "255.255.255.0",
		"etcd_ip1": "10.0.0.11", "etcd_ip2": "10.0.0.12"}}`
	f.post(f.project+"/clusters", spec).fails(400, "SpecInvalid", "No cluster configuration exists for SWARM cluster")
	image := f.done(f.upload([][2]string{{"ImageReplication", "ON_DEMAND"}}, "swarm.vmdk", diskFile(t)), 201)
	f.post(deployment+"/enable_cluster_type", wire.ClusterConfiguration{Type: "SWARM", ImageID: "none"}).fails(404, "ImageNotFound", "none")
	f.post(deployment+"/enable_cluster_type", wire.ClusterConfiguration{Type: "SWARM", ImageID: image}).made("CONFIGURE_CLUSTER", "deployment")

	created := into[wire.Task](f.post(f.project+"/clusters", spec), 201)
	if created.Operation != "CREATE_CLUSTER" || created.Entity.Kind != "cluster" || created.Entity.ID == "" {
		t.Errorf("%+v", created)
	}
	id := created.Entity.ID
	got := f.ready(id)
	want := wire.Cluster{ID: id, Kind: "cluster", SelfLink: f.base + "/clusters/" + id, Name: "Swarm2", Type: "SWARM", State: "READY",
		ProjectID: strings.TrimPrefix(f.project, "/projects/"), ProjectIDOfSDK: strings.TrimPrefix(f.project, "/projects/"), WorkerCount: 1, SlaveCount: 1,
		MasterVMFlavorName: "cluster-master-vm", OtherVMFlavorName: "cluster-other-vm", ImageID: image,
		ExtendedProperties: map[string]string{"dns": "10.0.0.1", "gateway": "10.0.0.1", "netmask": "255.255.255.0", "etcd_ips": "10.0.0.11,10.0.0.12"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]int{"etcd": 2, "worker": 1}, f.counts(id)); d != "" {
		t.Error(d)
	}
	f.done(f.post("/clusters/"+id+"/resize", `{"newSlaveCount": 3}`), 201)
	if c := f.ready(id); c.WorkerCount != 3 || c.SlaveCount != 3 {
		t.Errorf("%+v", c)
	}
	f.done(f.post("/clusters/"+id+"/resize", `{"newWorkerCount": 2}`), 201) // what Photon Controller refused
	f.ready(id)
	if d := cmp.Diff(map[string]int{"etcd": 2, "worker": 2}, f.counts(id)); d != "" {
		t.Error(d)
	}
	f.done(f.post("/clusters/"+id+"/trigger_maintenance", nil), 200)
	if all := into[wire.List[wire.Cluster]](f.get(f.project+"/clusters"), 200).Items; len(all) != 1 || all[0].ID != id {
		t.Errorf("%+v", all)
	}
	f.clusterVMs(id)
	f.done(f.delete("/clusters/"+id), 201)
	f.get("/clusters/"+id).fails(404, "ClusterNotFound", id)
	if n := len(into[wire.List[wire.VM]](f.get(f.project+"/vms"), 200).Items); n != 0 {
		t.Errorf("%d VMs are left", n)
	}
}

// clusterVMs looks at VMs as photon cluster show does.
func (f *fleetSite) clusterVMs(id string) {
	f.t.Helper()
	for _, v := range into[wire.List[wire.VM]](f.get("/clusters/"+id+"/vms"), 200).Items {
		if len(v.Tags) != 2 || v.Tags[0] != "cluster:"+id || !strings.HasPrefix(v.Tags[1], "cluster:"+id+":Swarm") || v.State != "STARTED" || v.Host != f.host.Address() {
			f.t.Errorf("%+v", v)
		}
		if d := cmp.Diff(v, into[wire.VM](f.get("/vms/"+v.ID), 200)); d != "" {
			f.t.Error(d)
		}
		for _, path := range []string{"/subnets", "/networks"} {
			task := f.end(f.get("/vms/"+v.ID+path), 201)
			n := into[wire.Networks](answer{f.t, task.ID, 200, nil, task.ResourceProperties}, 200).NetworkConnections
			if known := strings.HasPrefix(v.Name, "etcd"); len(n) != 1 || n[0].MACAddress == "" || known != (n[0].IPAddress != "") || known != (n[0].Netmask == "255.255.255.0") {
				f.t.Errorf("%s: %+v", v.Name, n)
			}
		}
	}
}

// What is wrong with a cluster is told at once, or by its task.
func TestClustersRefused(t *testing.T) {
	f := startFleet(t)
	f.post(deployment+"/enable_cluster_type", wire.ClusterConfiguration{Type: "SWARM"}).made("CONFIGURE_CLUSTER", "deployment")
	one := 1
	for _, c := range []struct {
		change     func(*wire.ClusterSpec)
		code, text string
	}{
		{func(s *wire.ClusterSpec) { s.WorkerCount = nil }, "InvalidEntity", "workerCount may not be null (was null)"},
		{func(s *wire.ClusterSpec) { n := 1001; s.WorkerCount = &n }, "InvalidEntity", "workerCount must be less than or equal to 1000 (was 1001)"},
		{func(s *wire.ClusterSpec) { s.Name = "2nd" }, "InvalidEntity", "name must match"},
		{func(s *wire.ClusterSpec) { s.Type = "NOMAD" }, "InvalidEntity", "type must match"},
		{func(s *wire.ClusterSpec) { s.ExtendedProperties = nil }, "SpecInvalid", "dns is missing; gateway is missing; netmask is missing"},
		{func(s *wire.ClusterSpec) { s.VMFlavor = "none" }, "InvalidFlavor", "Flavor none is not found for kind vm"},
	} {
		s := wire.ClusterSpec{Name: "a", Type: "SWARM", WorkerCount: &one, ExtendedProperties: addresses}
		c.change(&s)
		f.post(f.project+"/clusters", s).fails(400, fleet.Code(c.code), c.text)
	}
	f.post("/projects/none/clusters", wire.ClusterSpec{Name: "a", Type: "SWARM", WorkerCount: &one, ExtendedProperties: addresses}).fails(404, "NotFound", "Project none not found")
	if n := len(into[wire.List[wire.Cluster]](f.get("/projects/none/clusters"), 200).Items); n != 0 {
		t.Errorf("%d clusters", n)
	}
	f.crew.Set(func(c *controllertest.Crew) {
		c.Intercept = func(_ context.Context, call string) error {
			if call == "Prepare" {
				return fleet.Errorf(fleet.SpecInvalid, "the swarm is locked")
			}
			return nil
		}
	})
	id := f.failed(f.post(f.project+"/clusters", wire.ClusterSpec{Name: "a", Type: "SWARM", WorkerCount: &one, ExtendedProperties: addresses}),
		"CREATE_SWARM_CLUSTER_SETUP_ETCD", "SpecInvalid", "the swarm is locked")
	if c := into[wire.Cluster](f.get("/clusters/"+id), 200); c.State != "ERROR" || c.ErrorReason != "the swarm is locked" {
		t.Errorf("%+v", c)
	}
	f.post("/clusters/"+id+"/resize", `{}`).fails(400, "InvalidEntity", "newWorkerCount may not be null (was null)")
	f.post("/clusters/"+id+"/resize", `{"newWorkerCount": 2}`).fails(400, "StateError", "in state FATAL_ERROR")
	f.done(f.delete("/clusters/"+id), 201)
}
