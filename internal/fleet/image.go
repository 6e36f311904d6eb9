package fleet

// An Image is a disk that VMs' boot disks are copied from.
type Image struct {
	ID          ImageID                    `json:"id"`
	Name        string                     `json:"name"` // others may have it too
	Tags        []string                   `json:"tags,omitempty"`
	State       ImageState                 `json:"state"`
	Replication Replication                `json:"replication"`
	Size        int64                      `json:"size"`     // bytes it takes, on a datastore
	Capacity    int64                      `json:"capacity"` // bytes the guest sees
	Settings    []ImageSetting             `json:"settings,omitempty"`
	Project     ProjectID                  `json:"project,omitempty"` // it was made in, of a VM
	Copies      map[DatastoreID]ImageState `json:"copies,omitempty"`  // CREATING, READY, PENDING_DELETE, ERROR
}

// An ImageSetting is a part of a VM's configuration that comes with the image,
// such as "scsi0.virtualDev" with "lsilogic".
type ImageSetting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// An ImageDisk is what is known of the file that an image came in.
type ImageDisk struct {
	Size     int64          `json:"size"`     // of the VMDK
	Capacity int64          `json:"capacity"` // as a guest sees it
	Settings []ImageSetting `json:"settings,omitempty"`
}

// A Replication is when an image is copied to datastores.
type Replication string

// The kinds of replication.
const (
	Eager    Replication = "EAGER"     // to all that hosts may use, at once
	OnDemand Replication = "ON_DEMAND" // to image datastores; elsewhere when a VM needs it
)

// An ImageState is the life of an image, and of its copies.
type ImageState string

// The states of images.
const (
	ImageCreating      ImageState = "CREATING"
	ImageReady         ImageState = "READY"
	ImagePendingDelete ImageState = "PENDING_DELETE" // its last user deletes it
	ImageError         ImageState = "ERROR"
	ImageDeleted       ImageState = "DELETED"
)

var imageEdges = edges[ImageState]{
	ImageCreating:      {ImageReady, ImageError, ImagePendingDelete},
	ImageReady:         {ImagePendingDelete, ImageError},
	ImagePendingDelete: {ImageDeleted, ImageError},
	ImageError:         {ImagePendingDelete, ImageDeleted},
	ImageDeleted:       {},
}

// CanBecome reports whether an image may go from one state to another.
func (s ImageState) CanBecome(to ImageState) bool { return imageEdges.has(s, to) }

// Usable is nil, or the error of making a VM of the image.
func (i Image) Usable() error { return i.in(ImageReady) }

// Deletable is nil, or the error of deleting the image. One that is used may be
// deleted too: it goes with its last user.
func (i Image) Deletable() error { return i.in(ImageCreating, ImageReady, ImageError) }

func (i Image) in(states ...ImageState) error {
	for _, s := range states {
		if i.State == s {
			return nil
		}
	}
	return Errorf(InvalidImageState, "Image %s is in invalid state %s", i.ID, i.State)
}

// Check is nil, or tells what is wrong with what a client gave.
func (i Image) Check() error {
	var m Mistakes
	m.Required("name", i.Name)
	if len(i.Name) > 255 {
		m.Add("name", "size must be between 1 and 255", i.Name)
	}
	OneOf(&m, "replicationType", i.Replication, Eager, OnDemand)
	return m.Err()
}

// Progress is the share, in percent, of the datastores in wanted that have a
// copy; 100 if none is wanted.
func (i Image) Progress(wanted []DatastoreID) int {
	if len(wanted) == 0 {
		return 100
	}
	n := 0
	for _, d := range wanted {
		if i.Copies[d] == ImageReady {
			n++
		}
	}
	return n * 100 / len(wanted)
}
