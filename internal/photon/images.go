package photon

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

func (s *server) imageRoutes() routes {
	return routes{
		"/images":            {http.MethodGet: s.listImages, http.MethodPost: s.uploadImage},
		"/images/{id}":       {http.MethodGet: s.getImage, http.MethodDelete: s.deleteImage},
		"/images/{id}/tasks": {http.MethodGet: s.entityTasks(fleet.KindImage, s.lookImage)},
	}
}

func (c *call) image() fleet.ImageID { return fleet.ImageID(c.PathValue("id")) }

func (s *server) lookImage(c *call) error {
	_, err := s.Controller.Image(c.ctx(), c.image())
	return err
}

func (s *server) imageOf(c *call, i fleet.Image) (wire.Image, error) {
	percent, err := s.Controller.ImageProgress(c.ctx(), i)
	if err != nil {
		return wire.Image{}, err
	}
	progress := fmt.Sprintf("%d%%", percent)
	out := wire.Image{
		ID: string(i.ID), Kind: string(fleet.KindImage), SelfLink: c.link("images", string(i.ID)), Name: i.Name, Tags: listed(i.Tags), State: string(i.State),
		Size: i.Size, ReplicationType: string(i.Replication), ReplicationProgress: progress, SeedingProgress: progress, Settings: []wire.ImageSetting{},
	}
	for _, v := range i.Settings {
		out.Settings = append(out.Settings, wire.ImageSetting{Name: v.Name, DefaultValue: v.Value})
	}
	return out, nil
}

func (s *server) listImages(c *call) (reply, error) {
	list, err := s.Controller.Images(c.ctx(), c.query.Get("name"))
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	page, next, previous := cut(c, list, func(i fleet.Image) string { return byName(i.Name, i.ID) })
	out := wire.List[wire.Image]{Items: []wire.Image{}, NextPageLink: next, PreviousPageLink: previous}
	for _, i := range page {
		w, err := s.imageOf(c, i)
		if err != nil {
			return reply{}, err
		}
		out.Items = append(out.Items, w)
	}
	return ok(out), nil
}

func (s *server) getImage(c *call) (reply, error) {
	i, err := s.Controller.Image(c.ctx(), c.image())
	if err != nil {
		return reply{}, err
	}
	w, err := s.imageOf(c, i)
	return ok(w), err
}

func (s *server) deleteImage(c *call) (reply, error) {
	return c.made(s.Controller.DeleteImage(c.ctx(), c.by, c.image()))
}

// uploadImage keeps the file of a form, whose field ImageReplication stands before
// it. Nothing of the file is kept in memory.
func (s *server) uploadImage(c *call) (reply, error) {
	c.Body = unhurried{c.Body, http.NewResponseController(c.w)}
	parts, err := c.MultipartReader()
	if err != nil {
		return reply{}, fleet.Errorf(fleet.ImageUploadError, "Image upload is no form: %v", err)
	}
	replication := ""
	for {
		p, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return reply{}, fleet.Errorf(fleet.ImageUploadError, "Image upload has no file")
		}
		if err != nil {
			return reply{}, fleet.Errorf(fleet.ImageUploadError, "Image upload did not arrive as a whole: %v", err)
		}
		if p.FileName() == "" {
			if strings.EqualFold(p.FormName(), "ImageReplication") {
				b, err := io.ReadAll(io.LimitReader(p, 64))
				if err != nil {
					return reply{}, fleet.Errorf(fleet.ImageUploadError, "Image upload did not arrive as a whole: %v", err)
				}
				replication = strings.ToUpper(strings.TrimSpace(string(b)))
			}
			continue
		}
		switch fleet.Replication(replication) {
		case fleet.Eager, fleet.OnDemand:
		case "":
			return reply{}, fleet.Errorf(fleet.ImageUploadError, "ImageReplicationType is required to be uploaded before the image file")
		default:
			return reply{}, fleet.Errorf(fleet.ImageUploadError, "Image upload receives invalid parameter: ImageReplication %q", replication)
		}
		return c.made(s.Controller.UploadImage(c.ctx(), c.by, controller.ImageSpec{Name: p.FileName(), Replication: fleet.Replication(replication)}, p))
	}
}

// unhurried is a body that may take as long as it likes, as long as it goes on.
type unhurried struct {
	io.ReadCloser
	deadline *http.ResponseController
}

func (u unhurried) Read(b []byte) (int, error) {
	_ = u.deadline.SetReadDeadline(time.Now().Add(2 * patience)) // see body
	return u.ReadCloser.Read(b)
}
