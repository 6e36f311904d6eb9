package controller_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"bootd/internal/controller"
	"bootd/internal/fleet"
)

// ova wraps a disk as an appliance.
func ova(t testing.TB, disk []byte) []byte {
	t.Helper()
	const ovf = `<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References><File ovf:href="x-disk1.vmdk" ovf:id="file1"/></References>
  <DiskSection><Info/><Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="1"/></DiskSection>
  <VirtualSystem ovf:id="x"><VirtualHardwareSection>
    <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
    <Item><rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>7</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
  </VirtualHardwareSection></VirtualSystem>
</Envelope>`
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name string
		text []byte
	}{{"x.ovf", []byte(ovf)}, {"x-disk1.vmdk", disk}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// I1, I2: an OVA, with both kinds of replication; I3: the same name twice.
func TestImagesI1(t *testing.T) {
	s := newSite(t)
	one, _ := s.host("esx-1")
	two, _ := s.host("esx-2")
	disk := diskFile(t)
	for r, wanted := range map[fleet.Replication]int{fleet.Eager: 1, fleet.OnDemand: 0} {
		task := s.wait(s.control.UploadImage(s.ctx(), root, controller.ImageSpec{Name: "x.ova", Replication: r}, bytes.NewReader(ova(t, disk))))
		id := fleet.ImageID(task.Entity.ID)
		i, err := s.control.Image(s.ctx(), id)
		if err != nil || task.Operation != "CREATE_IMAGE" || task.State != fleet.TaskCompleted || i.State != fleet.ImageReady || i.Replication != r || i.Name != "x.ova" ||
			i.Size < int64(len(disk)) || i.Capacity != 1<<20 || len(i.Settings) != 1 || i.Settings[0] != (fleet.ImageSetting{Name: "scsi0.virtualDev", Value: "lsilogic"}) {
			t.Errorf("%s: %+v, %v; %+v", r, i, err, task)
		}
		if p, err := s.control.ImageProgress(s.ctx(), i); err != nil || p != 100 {
			t.Errorf("%s: progress %d%%, %v", r, p, err)
		}
		for _, h := range []interface{ Tree() ([]string, error) }{one, two} {
			tree, err := h.Tree()
			if n := strings.Count(strings.Join(tree, "\n"), "bootd-image-"+string(id)+"/disk.vmdk"); err != nil || n != wanted {
				t.Errorf("%s: %d copies on a host, want %d (%v)", r, n, wanted, err)
			}
		}
	}
	if all, err := s.control.Images(s.ctx(), "x.ova"); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}

// I4, I5, I6, I8: what is no image that can be used; it is in ERROR, and can be
// deleted.
func TestImagesI4(t *testing.T) {
	s := newSite(t)
	up := func(name string, r fleet.Replication, b []byte) (fleet.Task, error) {
		return s.control.UploadImage(s.ctx(), root, controller.ImageSpec{Name: name, Replication: r}, bytes.NewReader(b))
	}
	disk := diskFile(t)
	for name, c := range map[string]struct {
		file []byte
		code fleet.Code
		text string
	}{
		"flat.vmdk":    {[]byte("# Disk DescriptorFile\nversion=1\n" + strings.Repeat(" ", 600)), fleet.InvalidVMDKFormat, "no streamOptimized VMDK"},
		"cut.vmdk":     {disk[:len(disk)/2], fleet.InvalidVMDKFormat, "no streamOptimized VMDK"},
		"text":         {[]byte("hello"), fleet.UnsupportedImageFileType, "Image must be either a vmdk or an ova file."},
		"empty":        {nil, fleet.InvalidOVA, "no .ovf"},
		"cut.ova":      {ova(t, disk)[:5000], fleet.InvalidOVA, ""},
		"damaged.vmdk": {damage(disk), fleet.InvalidVMDKFormat, "no streamOptimized VMDK"},
	} {
		id := fleet.ImageID(s.failed(up(name, fleet.Eager, c.file))("UPLOAD_IMAGE", c.code, c.text))
		i, err := s.control.Image(s.ctx(), id)
		if err != nil || i.State != fleet.ImageError {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
		s.done(s.control.DeleteImage(s.ctx(), root, id))
		_, err = s.control.Image(s.ctx(), id)
		fails(t, err, fleet.ImageNotFound, "Image id '"+string(id)+"' not found")
	}
	_, err := up("x", "", disk)
	fails(t, err, fleet.InvalidEntity, "replicationType may not be null")
	_, err = up("x", "SOMETIMES", disk)
	fails(t, err, fleet.InvalidEntity, `must match "EAGER|ON_DEMAND"`)
	_, err = s.control.UploadImage(s.ctx(), root, controller.ImageSpec{Name: "x", Replication: fleet.Eager}, io.MultiReader(bytes.NewReader(disk), broken{}))
	fails(t, err, fleet.ImageUploadError, "the line is cut")
	if all, err := s.control.Images(s.ctx(), ""); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, fmt.Errorf("the line is cut") }

func damage(b []byte) []byte {
	out := bytes.Clone(b)
	out[len(out)/2] ^= 0xff
	return out
}

// I7, I9: a VMDK; its progress; I10 to I13, V25, V26, V27, V28: deleted while VMs of
// it are there it waits for the last of them, and no more are made.
func TestImagesI7(t *testing.T) {
	s := newSite(t)
	h, _ := s.host("esx-1")
	img := s.image(fleet.OnDemand)
	stopped, started, suspended := s.vm("a", img), s.vm("b", img), s.vm("c", img)
	s.power(started, fleet.StartVM)
	s.power(suspended, fleet.StartVM)
	s.power(suspended, fleet.SuspendVM)
	task := s.wait(s.control.DeleteImage(s.ctx(), root, img))
	if i, err := s.control.Image(s.ctx(), img); err != nil || i.State != fleet.ImagePendingDelete || task.Operation != fleet.DeleteImage {
		t.Errorf("%+v, %v; %+v", i, err, task)
	}
	_, err := s.control.DeleteImage(s.ctx(), root, img)
	fails(t, err, fleet.InvalidImageState, "Image "+string(img)+" is in invalid state PENDING_DELETE")
	_, err = s.control.CreateVM(s.ctx(), root, s.project, vmSpec("late", img))
	fails(t, err, fleet.InvalidImageState, "PENDING_DELETE")
	s.power(started, fleet.StopVM)
	for _, vm := range []fleet.VMID{started, suspended} {
		s.done(s.control.DeleteVM(s.ctx(), root, vm))
		if _, err := s.control.Image(s.ctx(), img); err != nil {
			t.Errorf("the image is gone before its last VM: %v", err)
		}
	}
	s.done(s.control.DeleteVM(s.ctx(), root, stopped))
	s.until("the image goes with its last VM", func() bool {
		_, err := s.control.Image(s.ctx(), img)
		return fleet.CodeOf(err) == fleet.ImageNotFound
	})
	if left := files(t, h); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}

	ready := s.image(fleet.Eager)
	s.done(s.control.DeleteVM(s.ctx(), root, s.vm("d", ready)))
	if i, err := s.control.Image(s.ctx(), ready); err != nil || i.State != fleet.ImageReady {
		t.Errorf("%+v, %v after its VM was deleted", i, err)
	}
}

// I13: a VM in ERROR is in the way of its image, too; V26: of an image in ERROR no VM
// is made.
func TestImagesI13(t *testing.T) {
	s := newSite(t)
	s.host("esx-1")
	img := s.image(fleet.OnDemand)
	spec := vmSpec("big", img)
	spec.Flavor = "huge"
	vm := fleet.VMID(s.failed(s.control.CreateVM(s.ctx(), root, s.project, spec))("RESERVE_RESOURCE", fleet.NotEnoughMemoryResource, ""))
	s.done(s.control.DeleteImage(s.ctx(), root, img))
	if i, err := s.control.Image(s.ctx(), img); err != nil || i.State != fleet.ImagePendingDelete {
		t.Errorf("%+v, %v", i, err)
	}
	_, err := s.control.DeleteImage(s.ctx(), root, img)
	fails(t, err, fleet.InvalidImageState, "PENDING_DELETE")
	s.done(s.control.DeleteVM(s.ctx(), root, vm))
	s.until("the image goes with its last VM", func() bool {
		_, err := s.control.Image(s.ctx(), img)
		return fleet.CodeOf(err) == fleet.ImageNotFound
	})
	bad := fleet.ImageID(s.failed(s.control.UploadImage(s.ctx(), root, controller.ImageSpec{Name: "text", Replication: fleet.Eager},
		strings.NewReader("hello")))("UPLOAD_IMAGE", fleet.UnsupportedImageFileType, ""))
	_, err = s.control.CreateVM(s.ctx(), root, s.project, vmSpec("one", bad))
	fails(t, err, fleet.InvalidImageState, "Image "+string(bad)+" is in invalid state ERROR")
	s.consistent()
}

// G1: an image that nothing uses is removed at once, wherever it is.
func TestImagesG1(t *testing.T) {
	s := newSite(t)
	one, _ := s.host("esx-1")
	two, _ := s.host("esx-2")
	img := s.image(fleet.Eager)
	if count(files(t, one), "image-") != 1 || count(files(t, two), "image-") != 1 {
		t.Error("the image is not on both hosts")
	}
	s.done(s.control.DeleteImage(s.ctx(), root, img))
	if left := append(files(t, one), files(t, two)...); len(left) > 0 {
		t.Errorf("left on the hosts: %v", left)
	}
	_, err := s.control.DeleteImage(s.ctx(), root, img)
	fails(t, err, fleet.ImageNotFound, "not found")
}

// An image that somebody has deleted on a host is copied there again when a VM needs
// it.
func TestImagesLostOnHost(t *testing.T) {
	s := newSite(t)
	h, _ := s.host("esx-1")
	img := s.image(fleet.Eager)
	y := adapter(t, h)
	if err := y.DeleteImage(s.ctx(), "LocalDS_0", img); err != nil {
		t.Fatal(err)
	}
	s.vmIs(s.vm("one", img), fleet.VMStopped)
}

// On a host with several datastores an image is sent once, and copied from there.
func TestImagesCopiedOnHost(t *testing.T) {
	s := newSite(t)
	h, _ := s.host("esx-1", datastores(3))
	s.image(fleet.Eager)
	if got := count(files(t, h), "image-"); got != 1 { // the same name on all three
		t.Errorf("%d images", got)
	}
	tree, err := h.Tree()
	if n := strings.Count(strings.Join(tree, "\n"), "/disk.vmdk"); err != nil || n != 3 {
		t.Errorf("%d copies, %v", n, err)
	}
	if n := h.Calls("PUT"); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}

// X15 to X20: an image of a VM that is off; a VM of that image; what is refused.
func TestImagesX15(t *testing.T) {
	s := newSite(t)
	s.host("esx-1")
	two, other := s.host("esx-2")
	img := s.image(fleet.Eager)
	vm := s.vm("source", img)
	source, err := s.control.Image(s.ctx(), img)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []fleet.Replication{fleet.OnDemand, fleet.Eager} {
		task := s.wait(s.control.CreateVMImage(s.ctx(), root, vm, controller.ImageSpec{Name: "made", Replication: r}))
		id := fleet.ImageID(task.Entity.ID)
		i, err := s.control.Image(s.ctx(), id)
		if err != nil || task.State != fleet.TaskCompleted || task.Operation != fleet.CreateVMImage || i.State != fleet.ImageReady ||
			i.Size != source.Size || i.Capacity != source.Capacity || i.Project != s.project {
			t.Fatalf("%+v, %v; %+v", i, err, task.Cause())
		}
		spec := vmSpec("copy", id) // on the other host, too
		h, err := s.control.Host(s.ctx(), root, other)
		if err != nil {
			t.Fatal(err)
		}
		spec.Affinities = []fleet.Ref{{Kind: fleet.KindHost, ID: h.Address}}
		made := fleet.VMID(s.done(s.control.CreateVM(s.ctx(), root, s.project, spec)))
		s.power(made, fleet.StartVM)
		s.power(made, fleet.StopVM)
		s.done(s.control.DeleteVM(s.ctx(), root, made))
		s.done(s.control.DeleteImage(s.ctx(), root, id))
	}
	if n := count(files(t, two), "image-"); n != 1 {
		t.Errorf("%d images on the other host, want the first alone", n)
	}
	s.power(vm, fleet.StartVM)
	good := controller.ImageSpec{Name: "made", Replication: fleet.Eager}
	id := s.failed(s.control.CreateVMImage(s.ctx(), root, vm, good))(fleet.CreateVMImage, fleet.InvalidVMState, "in state STARTED")
	s.done(s.control.DeleteImage(s.ctx(), root, fleet.ImageID(id)))
	_, err = s.control.CreateVMImage(s.ctx(), root, "x", good)
	fails(t, err, fleet.VMNotFound, "VM x not found")
	_, err = s.control.CreateVMImage(s.ctx(), root, vm, controller.ImageSpec{Replication: fleet.Eager})
	fails(t, err, fleet.InvalidEntity, "name may not be null")
	_, err = s.control.CreateVMImage(s.ctx(), root, vm, controller.ImageSpec{Name: "made"})
	fails(t, err, fleet.InvalidEntity, "replicationType may not be null")
}
