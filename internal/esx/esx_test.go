package esx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/boot"
	"bootd/internal/esx"
	"bootd/internal/esx/esxtest"
	"bootd/internal/esx/vmdk"
	"bootd/internal/fleet"
)

const ds = "LocalDS_0"

func id[T ~string](name string) T { return fleet.DeriveID[T]("test", name) }

func simulate(t *testing.T, o esxtest.Options) *esxtest.Host {
	t.Helper()
	o.Name = "esx-1"
	h, err := esxtest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func connect(t *testing.T, s *esxtest.Host, change ...func(*esx.Config)) *esx.Host {
	t.Helper()
	c := esx.Config{Address: s.Address(), Username: "root", Password: "secret", Fingerprint: s.Fingerprint(), Patience: 4 * time.Second}
	for _, f := range change {
		f(&c)
	}
	h, err := esx.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// kind is the kind of fault that an error is; the error itself if it is none.
func kind(err error) string {
	var f *fleet.Fault
	switch {
	case err == nil:
		return ""
	case errors.As(err, &f):
		return string(f.Kind)
	}
	return err.Error()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rawDisk has some content and many zeros.
func rawDisk() []byte {
	b := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 200 << 10 {
		b[i] = byte(r.Uint32())
	}
	copy(b[900<<10:], "the end")
	return b
}

func image(t testing.TB) *vmdk.Disk {
	t.Helper()
	var b bytes.Buffer
	raw := rawDisk()
	must(t, vmdk.WriteStream(&b, bytes.NewReader(raw), int64(len(raw)), "lsilogic"))
	d, err := vmdk.Open(bytes.NewReader(b.Bytes()), int64(b.Len()))
	must(t, err)
	return d
}

var (
	theVM    = id[fleet.VMID]("vm")
	theImage = id[fleet.ImageID]("image")
	theDisk  = id[fleet.DiskID]("disk")
	ownDisk  = id[fleet.DiskID]("own")
	theISO   = id[fleet.ISOID]("iso")
	theMAC   = boot.MAC{0, 0x50, 0x56, 1, 2, 3}
)

func build() fleet.Build {
	return fleet.Build{VM: theVM, Name: "worker-1", CPUs: 2, Memory: 1 << 30, Datastore: ds, Image: &fleet.ImageCopy{ID: theImage, Datastore: ds}, BootDisk: 2 << 20,
		Disks: []fleet.BuildDisk{{ID: ownDisk, Capacity: 1 << 20}}, NICs: []fleet.NIC{{PortGroup: "VM Network", MAC: theMAC}},
		GuestInfo: map[string]string{"guestinfo.ignition.config.data": "e30=", "guestinfo.ignition.config.data.encoding": "base64"}, NetworkFirst: true}
}

func TestTrust(t *testing.T) {
	s := simulate(t, esxtest.Options{})
	ctx := t.Context()
	err := connect(t, s, func(c *esx.Config) { c.Fingerprint = "" }).Connect(ctx)
	var f *fleet.Fault
	if !errors.As(err, &f) || f.Kind != fleet.Untrusted || strings.ReplaceAll(f.Fingerprint, ":", "") != strings.ReplaceAll(s.Fingerprint(), ":", "") {
		t.Fatalf("the first contact: %v, fingerprint %q, want %s", err, f.Fingerprint, s.Fingerprint())
	}
	if s.Calls("Login") != 0 {
		t.Error("a password was sent to a host that nobody trusts")
	}
	// What a person accepts is what the error has told.
	for _, pin := range []string{f.Fingerprint, strings.ToLower(f.Fingerprint), strings.TrimPrefix(f.Fingerprint, "SHA256:"), s.SHA1(), "SHA1:" + s.SHA1()} {
		if err := connect(t, s, func(c *esx.Config) { c.Fingerprint = pin }).Connect(ctx); err != nil {
			t.Errorf("with %s: %v", pin, err)
		}
	}
	other := simulate(t, esxtest.Options{})
	err = connect(t, s, func(c *esx.Config) { c.Fingerprint = other.Fingerprint() }).Connect(ctx)
	if kind(err) != "untrusted" || !strings.Contains(err.Error(), "not the one that was accepted") {
		t.Errorf("with another host's: %v", err)
	}
	if _, err := esx.New(esx.Config{Address: "a", Username: "root", Password: "x", Fingerprint: "SHA256:00"}); err == nil {
		t.Error("a fingerprint of one byte is accepted")
	}
}

func TestLogin(t *testing.T) {
	s := simulate(t, esxtest.Options{})
	h := connect(t, s, func(c *esx.Config) { c.Password = "wrong" })
	for range 4 {
		if err := h.Connect(t.Context()); kind(err) != "bad credentials" {
			t.Fatalf("with a wrong password: %v", err)
		}
	}
	if n := s.Calls("Login"); n != 1 {
		t.Errorf("a wrong password was tried %d times, which locks the account", n)
	}
	nobody := connect(t, s, func(c *esx.Config) { c.Address = "127.0.0.1:1"; c.Timeout = time.Second })
	if err := nobody.Connect(t.Context()); kind(err) != "unreachable" {
		t.Errorf("a host that is not there: %v", err)
	}
}

// TestNoVCenter refuses what is no host.
func TestNoVCenter(t *testing.T) {
	s := simulate(t, esxtest.Options{})
	si := s.Registry().Get(types.ManagedObjectReference{Type: "ServiceInstance", Value: "ServiceInstance"}).(*simulator.ServiceInstance)
	si.Content.About.ApiType, si.Content.About.FullName = "VirtualCenter", "VMware vCenter Server 8.0.3"
	if err := connect(t, s).Connect(t.Context()); kind(err) != "unsupported" || !strings.Contains(err.Error(), "vCenter Server 8.0.3") {
		t.Errorf("a vCenter: %v", err)
	}
	if s.Calls("Login") != 0 {
		t.Error("a password was sent")
	}
}

// TestNetworkFirst creates a VM, is killed before it said what to boot from, and
// creates it again.
func TestNetworkFirst(t *testing.T) {
	s := simulate(t, esxtest.Options{})
	h := connect(t, s)
	must(t, h.UploadImage(t.Context(), ds, theImage, image(t), nil))
	s.Fail("ReconfigVM_Task", 0, 1, &types.SystemErrorFault{Reason: "killed"})
	if err := h.CreateVM(t.Context(), build()); kind(err) != "failed" {
		t.Fatalf("the first try: %v", err)
	}
	must(t, h.CreateVM(t.Context(), build()))
	must(t, h.CreateVM(t.Context(), build()))
	if n := s.Calls("ReconfigVM_Task"); n != 2 {
		t.Errorf("it was changed %d times", n)
	}
	vm := s.Registry().Any("VirtualMachine").(*simulator.VirtualMachine)
	var order []string
	for _, o := range vm.Config.BootOptions.BootOrder {
		order = append(order, fmt.Sprintf("%T", o))
	}
	if len(order) != 3 || !strings.HasSuffix(order[0], "BootableEthernetDevice") || !strings.HasSuffix(order[1], "BootableDiskDevice") || vm.Config.BootOptions.BootRetryDelay != 10_000 {
		t.Errorf("it boots from %v, %+v", order, vm.Config.BootOptions)
	}
	if vm.Config.Uuid != string(theVM) || vm.Config.Files.VmPathName != "[LocalDS_0] bootd-vm-"+string(theVM)+"/"+string(theVM)+".vmx" {
		t.Errorf("it has the UUID %s, at %s", vm.Config.Uuid, vm.Config.Files.VmPathName)
	}
}

func TestFacts(t *testing.T) {
	s := simulate(t, esxtest.Options{Datastores: 2, Cores: 16, MemoryBytes: 64 << 30, DatastoreBytes: 10 << 30, NestedHV: true})
	f, err := connect(t, s).Facts(t.Context())
	must(t, err)
	if f.Name != "esx-1" || f.Version != "8.0.3" || f.Cores != 16 || f.Threads != 32 || f.Memory != 64<<30 || !f.NestedHV || f.ReadOnly || f.Maintenance ||
		len(f.UUID) != 36 || f.MHz == 0 || len(f.Ports) == 0 {
		t.Errorf("facts: %+v", f)
	}
	if len(f.Datastores) != 2 || f.Datastores[0].Name != ds || f.Datastores[0].Capacity != 10<<30 || !f.Datastores[0].Accessible || f.Datastores[0].ID == f.Datastores[1].ID {
		t.Errorf("datastores: %+v", f.Datastores)
	}
	if !slices.ContainsFunc(f.PortGroups, func(g fleet.PortGroup) bool {
		return g.Name == "VM Network" && g.Switch == "vSwitch0" && !g.Promiscuous
	}) {
		t.Errorf("port groups: %+v", f.PortGroups)
	}
	if slices.ContainsFunc(f.PortGroups, func(g fleet.PortGroup) bool { return g.Name == "Management Network" }) {
		t.Errorf("VMs cannot be on the host's own port groups: %+v", f.PortGroups)
	}
}

// TestLife leads a VM through everything, each verb twice, and in the end
// nothing is left.
func TestLife(t *testing.T) {
	s := simulate(t, esxtest.Options{Datastores: 2})
	h := connect(t, s)
	before := tree(t, s)
	for _, step := range life(t, s) {
		for try := range 2 {
			if err := step.do(t.Context(), h); err != nil {
				t.Fatalf("%s, try %d: %v", step.name, try, err)
			}
		}
		if step.check != nil {
			step.check(t, h)
		}
	}
	if diff := cmp.Diff(before, tree(t, s)); diff != "" {
		t.Errorf("something is left: %s", diff)
	}
}

func tree(t *testing.T, s *esxtest.Host) []string {
	t.Helper()
	files, err := s.Tree()
	must(t, err)
	return files
}

type step struct {
	name  string
	do    func(context.Context, *esx.Host) error
	check func(*testing.T, *esx.Host)
}

func power(op fleet.Operation, want fleet.VMState) step {
	return step{string(op), func(ctx context.Context, h *esx.Host) error { return h.Power(ctx, theVM, op) }, func(t *testing.T, h *esx.Host) {
		st, err := h.Status(t.Context(), theVM)
		if err != nil || st.State != want {
			t.Errorf("after %s it is %s, %v", op, st.State, err)
		}
	}}
}

// life is a life of a VM, from its image to the end.
func life(t *testing.T, s *esxtest.Host) []step {
	iso := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("an ISO")), nil }
	return []step{
		{"upload image", func(ctx context.Context, h *esx.Host) error { return h.UploadImage(ctx, ds, theImage, image(t), nil) }, func(t *testing.T, h *esx.Host) {
			sameContent(t, s, "[LocalDS_0] bootd-image-"+string(theImage)+"/disk-flat.vmdk", rawDisk())
			if n := inDir(t, s, "[LocalDS_0] bootd-image-"+string(theImage)+"/"); n != 2 {
				t.Errorf("%d files are with the image: %v", n, tree(t, s))
			}
		}},
		{"copy image", func(ctx context.Context, h *esx.Host) error { return h.CopyImage(ctx, theImage, ds, "LocalDS_1") }, func(t *testing.T, h *esx.Host) {
			sameContent(t, s, "[LocalDS_1] bootd-image-"+string(theImage)+"/disk-flat.vmdk", rawDisk())
			if there, err := h.HasImage(t.Context(), "LocalDS_1", theImage); err != nil || !there {
				t.Errorf("the copy is there: %v, %v", there, err)
			}
		}},
		{"create disk", func(ctx context.Context, h *esx.Host) error { return h.CreateDisk(ctx, ds, theDisk, 3<<20) }, nil},
		{"create VM", func(ctx context.Context, h *esx.Host) error { return h.CreateVM(ctx, build()) }, func(t *testing.T, h *esx.Host) {
			st, err := h.Status(t.Context(), theVM)
			must(t, err)
			want := fleet.VMStatus{VM: theVM, State: fleet.VMStopped, CPUs: 2, Memory: 1 << 30, Disks: []fleet.DiskID{ownDisk},
				NICs: []fleet.NICStatus{{PortGroup: "VM Network", MAC: theMAC}}}
			if diff := cmp.Diff(want, st, cmpopts.IgnoreFields(fleet.NICStatus{}, "Connected")); diff != "" {
				t.Error(diff)
			}
			sameContent(t, s, "[LocalDS_0] bootd-vm-"+string(theVM)+"/boot-flat.vmdk", append(rawDisk(), make([]byte, 1<<20)...))
		}},
		{"attach disk", func(ctx context.Context, h *esx.Host) error { return h.AttachDisk(ctx, theVM, ds, theDisk) }, func(t *testing.T, h *esx.Host) {
			if err := h.DeleteDisk(t.Context(), ds, theDisk); kind(err) != "in use" {
				t.Errorf("deleting an attached disk: %v", err)
			}
		}},
		{"attach ISO", func(ctx context.Context, h *esx.Host) error { return h.AttachISO(ctx, theVM, theISO, 6, iso) }, func(t *testing.T, h *esx.Host) {
			st, err := h.Status(t.Context(), theVM)
			if err != nil || !strings.HasSuffix(st.ISO, "/cd-"+string(theISO)+".iso") {
				t.Errorf("in the drive is %q, %v", st.ISO, err)
			}
			sameContent(t, s, st.ISO, []byte("an ISO"))
		}},
		power(fleet.StartVM, fleet.VMStarted),
		{"ticket", func(ctx context.Context, h *esx.Host) error {
			k, err := h.Ticket(ctx, theVM)
			if err == nil && (len(k.Ticket) < 20 || k.Port != 902 || k.SSLThumbprint == "") {
				err = fmt.Errorf("ticket %+v", k)
			}
			return err
		}, nil},
		{"detach ISO", func(ctx context.Context, h *esx.Host) error { return h.DetachISO(ctx, theVM) }, func(t *testing.T, h *esx.Host) {
			if st, err := h.Status(t.Context(), theVM); err != nil || st.ISO != "" {
				t.Errorf("in the drive is %q, %v", st.ISO, err)
			}
		}},
		power(fleet.RestartVM, fleet.VMStarted),
		power(fleet.SuspendVM, fleet.VMSuspended),
		power(fleet.ResumeVM, fleet.VMStarted),
		{"describe", func(ctx context.Context, h *esx.Host) error {
			return h.SetMetadata(ctx, theVM, nil, map[string]string{"guestinfo.ip": "10.0.0.9, fe80::1"})
		}, func(t *testing.T, h *esx.Host) {
			st, err := h.Status(t.Context(), theVM)
			if diff := cmp.Diff([]netip.Prefix{netip.MustParsePrefix("10.0.0.9/32")}, st.NICs[0].Addrs, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || err != nil {
				t.Error(diff, err)
			}
		}},
		{"shut down", func(ctx context.Context, h *esx.Host) error { return h.Shutdown(ctx, theVM, time.Second) }, nil},
		{"detach disk", func(ctx context.Context, h *esx.Host) error { return h.DetachDisk(ctx, theVM, theDisk) }, nil},
		{"attach disk again", func(ctx context.Context, h *esx.Host) error { return h.AttachDisk(ctx, theVM, ds, theDisk) }, nil},
		power(fleet.StartVM, fleet.VMStarted),
		{"delete VM", func(ctx context.Context, h *esx.Host) error { return h.DeleteVM(ctx, theVM) }, func(t *testing.T, h *esx.Host) {
			if n := inDir(t, s, "[LocalDS_0] bootd-disk-"+string(theDisk)+"/"); n != 2 {
				t.Errorf("the persistent disk went with the VM: %v", tree(t, s))
			}
			if _, err := h.Status(t.Context(), theVM); kind(err) != "not found" {
				t.Errorf("a VM that is deleted: %v", err)
			}
		}},
		{"delete disk", func(ctx context.Context, h *esx.Host) error { return h.DeleteDisk(ctx, ds, theDisk) }, nil},
		{"delete image", func(ctx context.Context, h *esx.Host) error { return h.DeleteImage(ctx, ds, theImage) }, nil},
		{"delete copy", func(ctx context.Context, h *esx.Host) error { return h.DeleteImage(ctx, "LocalDS_1", theImage) }, nil},
	}
}

func inDir(t *testing.T, s *esxtest.Host, dir string) int {
	t.Helper()
	n := 0
	for _, f := range tree(t, s) {
		if strings.HasPrefix(f, dir) && f != dir {
			n++
		}
	}
	return n
}

func sameContent(t *testing.T, s *esxtest.Host, path string, want []byte) {
	t.Helper()
	file, ok := s.File(path)
	if !ok {
		t.Fatalf("%s is no path", path)
	}
	got, err := os.ReadFile(file)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes that differ from the %d it should have", path, len(got), len(want))
	}
}
