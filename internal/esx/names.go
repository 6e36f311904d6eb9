package esx

import (
	"strings"

	"bootd/internal/fleet"
)

// What bootd makes is in directories at the top of a datastore, so that they are
// seen at once, and named after IDs, so that they are found again.
const (
	vmPrefix    = "bootd-vm-"
	imagePrefix = "bootd-image-"
	diskPrefix  = "bootd-disk-"
)

// Files in these directories. What is not whole yet has another name.
const (
	diskFile   = "disk.vmdk"
	partFile   = "disk-part.vmdk"
	uploadFile = "upload.vmdk"
	bootFile   = "boot.vmdk" // a VM's boot disk
	bootPart   = "boot-part.vmdk"
)

// A place is a directory on a datastore, by the name on the host.
type place struct{ datastore, dir string }

// file is the path of a file there, as the API has it.
func (p place) file(name string) string { return "[" + p.datastore + "] " + p.dir + "/" + name }

// String is the path of the directory.
func (p place) String() string { return "[" + p.datastore + "] " + p.dir }

func imagePlace(datastore string, id fleet.ImageID) place {
	return place{datastore, imagePrefix + string(id)}
}
func diskPlace(datastore string, id fleet.DiskID) place {
	return place{datastore, diskPrefix + string(id)}
}
func vmPlace(datastore string, id fleet.VMID) place { return place{datastore, vmPrefix + string(id)} }

// checkID keeps whatever is no ID out of paths.
func checkID[T ~string](id T) error {
	if !fleet.IsUUID(string(id)) {
		return fail(fleet.Unsupported, "", "%q is no ID", string(id))
	}
	return nil
}

// checkDatastore keeps whatever is no datastore's name out of paths.
func checkDatastore(name string) error {
	if name == "" || strings.ContainsAny(name, "[]/\\\x00\n") {
		return fail(fleet.Missing, "", "there is no datastore %q", name)
	}
	return nil
}

// parsePath splits a path such as "[datastore1] dir/file.vmdk".
func parsePath(s string) (p place, file string, ok bool) {
	rest, ok := strings.CutPrefix(s, "[")
	if !ok {
		return p, "", false
	}
	if p.datastore, rest, ok = strings.Cut(rest, "] "); !ok {
		return p, "", false
	}
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return p, rest, true
	}
	p.dir = rest[:i]
	return p, rest[i+1:], true
}

// vmOf is the ID of the VM whose files are at a path.
func vmOf(vmx string) (fleet.VMID, place, bool) {
	p, _, ok := parsePath(vmx)
	id, ours := strings.CutPrefix(p.dir, vmPrefix)
	return fleet.VMID(id), p, ok && ours && fleet.IsUUID(id)
}

// diskOf is the ID of the disk, persistent or a VM's own, whose file is at a
// path; "" for others.
func diskOf(vmdk string) fleet.DiskID {
	p, file, ok := parsePath(vmdk)
	if !ok {
		return ""
	}
	id, found := strings.CutPrefix(p.dir, diskPrefix)
	if !found {
		if id, found = strings.CutPrefix(file, ownDiskPrefix); found {
			id = strings.TrimSuffix(id, ".vmdk")
		}
	}
	if !found || !fleet.IsUUID(id) {
		return ""
	}
	return fleet.DiskID(id)
}

// ownDiskPrefix begins the files of disks that were made with their VM, in its
// directory.
const ownDiskPrefix = "disk-"

func ownDisk(id fleet.DiskID) string { return ownDiskPrefix + string(id) + ".vmdk" }
