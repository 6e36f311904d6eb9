package spool

import (
	"archive/tar"
	"encoding/xml"
	"io"
	"strconv"
	"strings"

	"bootd/internal/fleet"
)

// What an OVF says that matters here (DMTF DSP0243, "Open Virtualization Format"):
// files, disks, and the virtual hardware, in which a disk names its controller.
type envelope struct {
	Files []struct {
		ID   string `xml:"id,attr"`
		Href string `xml:"href,attr"`
	} `xml:"References>File"`
	Disks []struct {
		ID   string `xml:"diskId,attr"`
		File string `xml:"fileRef,attr"`
	} `xml:"DiskSection>Disk"`
	Items []item `xml:"VirtualSystem>VirtualHardwareSection>Item"`
}

// An item is a device (CIM_ResourceAllocationSettingData).
type item struct {
	Instance string `xml:"InstanceID"`
	Type     int    `xml:"ResourceType"`
	SubType  string `xml:"ResourceSubType"`
	Parent   string `xml:"Parent"`
	Host     string `xml:"HostResource"`
}

// Types of devices.
const (
	ideController  = 5
	scsiController = 6
	hardDisk       = 17
	sataController = 20
)

// maxOVF bounds what is read of a description.
const maxOVF = 4 << 20

// openOVA finds the first disk in an OVA, and the settings that a VM of it needs.
func openOVA(f io.ReaderAt, size int64) (*io.SectionReader, []fleet.ImageSetting, error) {
	all := io.NewSectionReader(f, 0, size)
	archive := tar.NewReader(all)
	var ovf *envelope
	disks := map[string]*io.SectionReader{}
	for first := true; ; first = false {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil && first {
			return nil, nil, fleet.Errorf(fleet.UnsupportedImageFileType, "Image must be either a vmdk or an ova file.")
		}
		if err != nil {
			return nil, nil, fleet.Errorf(fleet.InvalidOVA, "The OVA cannot be read: %v", err)
		}
		switch {
		case h.Typeflag != tar.TypeReg:
		case strings.HasSuffix(h.Name, ".ovf") && ovf == nil:
			ovf = &envelope{}
			if err := xml.NewDecoder(io.LimitReader(archive, maxOVF)).Decode(ovf); err != nil {
				return nil, nil, fleet.Errorf(fleet.InvalidOVA, "%s in the OVA cannot be read: %v", h.Name, err)
			}
		default:
			at, err := all.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, nil, err
			}
			disks[h.Name] = io.NewSectionReader(f, at, h.Size)
		}
	}
	if ovf == nil {
		return nil, nil, fleet.Errorf(fleet.InvalidOVA, "The OVA has no .ovf file")
	}
	name, settings, err := ovf.disk()
	if err != nil {
		return nil, nil, err
	}
	d, ok := disks[name]
	if !ok {
		return nil, nil, fleet.Errorf(fleet.InvalidOVA, "The OVA has no file %q, which is its disk", name)
	}
	return d, settings, nil
}

// disk is the file of the first disk, and the settings of its controller.
func (e *envelope) disk() (file string, settings []fleet.ImageSetting, err error) {
	controllers := map[string]item{}
	for _, i := range e.Items {
		controllers[i.Instance] = i
	}
	for _, i := range e.Items {
		if i.Type != hardDisk {
			continue
		}
		if file, err = e.file(i.Host); err != nil {
			return "", nil, err
		}
		settings, err = controllers[i.Parent].settings()
		return file, settings, err
	}
	return "", nil, fleet.Errorf(fleet.InvalidOVA, "The OVF has no disk")
}

// file is the file behind a resource such as "ovf:/disk/vmdisk1".
func (e *envelope) file(resource string) (string, error) {
	id := resource[strings.LastIndexByte(resource, '/')+1:]
	if strings.Contains(resource, "/disk/") {
		for _, d := range e.Disks {
			if d.ID == id {
				id = d.File
				break
			}
		}
	}
	for _, f := range e.Files {
		if f.ID == id {
			return f.Href, nil
		}
	}
	return "", fleet.Errorf(fleet.InvalidOVA, "The OVF has no file for %q", resource)
}

// settings are those of a disk's controller, as a VMX file names them. A VM has its
// disks on SCSI, so that a system that knows only IDE or SATA may not boot.
func (i item) settings() ([]fleet.ImageSetting, error) {
	if i.Type != scsiController {
		return nil, fleet.Errorf(fleet.UnsupportedDiskController, "The OVF has its disk on a controller that is not SCSI (%s)", i.word())
	}
	kind := strings.ToLower(i.SubType)
	switch kind {
	case "", "lsilogic", "buslogic":
	case "lsilogicsas":
		kind = "lsisas1068"
	case "virtualscsi", "pvscsi":
		kind = "pvscsi"
	default:
		return nil, fleet.Errorf(fleet.UnsupportedDiskController, "The OVF has its disk on a SCSI controller %q, which is not known", i.SubType)
	}
	if kind == "" {
		kind = "lsilogic"
	}
	return []fleet.ImageSetting{{Name: "scsi0.virtualDev", Value: kind}}, nil
}

func (i item) word() string {
	switch i.Type {
	case ideController:
		return "IDE"
	case sataController:
		return "SATA"
	}
	return "resource type " + strconv.Itoa(i.Type)
}
