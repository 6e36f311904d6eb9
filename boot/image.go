package boot

// A Family is the boot contract of an operating system image: which arguments
// its kernel wants and how it finds its configuration.
type Family string

// The families of images.
const (
	FedoraCoreOS Family = "fedora-coreos" // and anything built with the same live PXE contract
	Flatcar      Family = "flatcar"
	Linux        Family = "linux" // a kernel and initrds, no Ignition
)

// An Image is a bootable operating system in one version for one processor:
// files that are in the asset store, named by their digest.
type Image struct {
	Name    string      `json:"name"`    // fedora-coreos/stable, or as configured
	Version string      `json:"version"` // as its maker calls it
	Family  Family      `json:"family"`
	CPU     string      `json:"cpu"` // x86_64, aarch64
	Kernel  ImageFile   `json:"kernel"`
	Initrds []ImageFile `json:"initrds"`
	RootFS  *ImageFile  `json:"rootfs,omitempty"` // fetched by the initramfs; nil when inside an initrd
	ESXi    *ESXiMedium `json:"esxi,omitempty"`   // for the family ESXi only
}

// An ImageFile is one file of an image.
type ImageFile struct {
	Name   string `json:"name"`   // base name, as in the image's own documentation
	SHA256 string `json:"sha256"` // lower-case hex
	Size   int64  `json:"size"`   // bytes
}
