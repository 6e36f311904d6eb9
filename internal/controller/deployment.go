package controller

import (
	"context"
	"errors"

	"bootd/internal/fleet"
	"bootd/internal/store"
)

// The verbs of this file that depend upon no state.
const (
	enableClusters  fleet.Operation = "CONFIGURE_CLUSTER"
	disableClusters fleet.Operation = "DELETE_CLUSTER_CONFIGURATION"
	setDatastores   fleet.Operation = "UPDATE_IMAGE_DATASTORES"
)

// deployments has one record, once something was changed.
var deployments = store.Kind[fleet.Deployment]{Name: "deployment"}

// deployment is the deployment as a transaction has it.
func deployment(tx *store.Tx) (fleet.Deployment, error) {
	d, err := store.Get(tx, deployments, string(fleet.DefaultDeployment))
	if errors.Is(err, store.ErrNotFound) {
		return fleet.Deployment{ID: fleet.DefaultDeployment, State: fleet.DeploymentReady}, nil
	}
	return d, err
}

// Deployment returns the deployment that there is.
func (c *Controller) Deployment(ctx context.Context) (d fleet.Deployment, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		d, err = deployment(tx)
		return err
	})
	return d, err
}

// SwitchSystem pauses the system, pauses what it does by itself, or resumes both:
// [fleet.PauseSystem], [fleet.PauseBackgroundTasks], [fleet.ResumeSystem]. It
// lasts until the next such verb, over restarts too.
func (c *Controller) SwitchSystem(ctx context.Context, by Principal, id fleet.DeploymentID, op fleet.Operation) (fleet.Task, error) {
	return c.changeDeployment(ctx, by, id, op, func(_ *store.Tx, d fleet.Deployment) (fleet.Deployment, error) {
		to, err := d.After(op)
		if err == nil {
			d.State = to
		}
		return d, err
	})
}

// SetImageDatastores says by their names which datastores hold images. They can
// only become more.
func (c *Controller) SetImageDatastores(ctx context.Context, by Principal, id fleet.DeploymentID, names []string) (fleet.Task, error) {
	return c.changeDeployment(ctx, by, id, setDatastores, func(_ *store.Tx, d fleet.Deployment) (fleet.Deployment, error) {
		return d.WithImageDatastores(names)
	})
}

// EnableClusters allows clusters of a type, whose nodes boot an image; none: from
// the network. It makes the flavors that clusters have when nothing is said about
// that, if they are not there.
func (c *Controller) EnableClusters(ctx context.Context, by Principal, id fleet.DeploymentID, t fleet.ClusterType, image fleet.ImageID) (fleet.Task, error) {
	return c.changeDeployment(ctx, by, id, enableClusters, func(tx *store.Tx, d fleet.Deployment) (fleet.Deployment, error) {
		if image != "" {
			i, err := get(tx, images, fleet.KindImage, string(image))
			if err == nil {
				err = i.Usable()
			}
			if err != nil {
				return d, err
			}
		}
		if err := makeClusterFlavors(tx); err != nil {
			return d, err
		}
		return d.Enable(t, image)
	})
}

func makeClusterFlavors(tx *store.Tx) error {
	all, err := fleet.ClusterFlavors()
	if err != nil {
		return err
	}
	for _, f := range all {
		f.ID = newID[fleet.FlavorID]()
		switch err := take(tx, fleet.KindFlavor, string(f.Kind), f.Name, string(f.ID)); {
		case fleet.CodeOf(err) == fleet.NameTaken:
			continue
		case err != nil:
			return err
		}
		if err := store.Put(tx, flavors, string(f.ID), f); err != nil {
			return err
		}
	}
	return nil
}

// DisableClusters allows clusters of a type no longer.
func (c *Controller) DisableClusters(ctx context.Context, by Principal, id fleet.DeploymentID, t fleet.ClusterType) (fleet.Task, error) {
	return c.changeDeployment(ctx, by, id, disableClusters, func(_ *store.Tx, d fleet.Deployment) (fleet.Deployment, error) {
		return d.Disable(t)
	})
}

// changeDeployment changes the one deployment, which only an admin may.
func (c *Controller) changeDeployment(ctx context.Context, by Principal, id fleet.DeploymentID, op fleet.Operation,
	f func(*store.Tx, fleet.Deployment) (fleet.Deployment, error)) (fleet.Task, error) {
	if err := by.administers(""); err != nil {
		return fleet.Task{}, err
	}
	entity := ref(fleet.KindDeployment, id)
	if id != fleet.DefaultDeployment {
		return fleet.Task{}, fleet.UnknownEntity(entity)
	}
	return c.change(ctx, by, func(tx *store.Tx) (change, error) {
		d, err := deployment(tx)
		if err != nil {
			return change{}, err
		}
		if d, err = f(tx, d); err != nil {
			return change{}, err
		}
		return change{operation: op, entity: entity}, store.Put(tx, deployments, string(id), d)
	})
}

// whilePaused is what may be done to a system that is paused.
var whilePaused = map[fleet.Operation]bool{fleet.PauseSystem: true, fleet.PauseBackgroundTasks: true, fleet.ResumeSystem: true}

// Changes is nil, or the error of changing anything while the system is paused.
// Verbs ask it in their transactions as well; whoever has to refuse something
// before it comes to a verb asks here.
func (c *Controller) Changes(ctx context.Context) error {
	d, err := c.Deployment(ctx)
	if err != nil {
		return err
	}
	return d.Changes()
}

// changes is Changes in the transaction of a verb, so that nothing changes after
// a pause has been answered.
func changes(tx *store.Tx, op fleet.Operation) error {
	if whilePaused[op] {
		return nil
	}
	d, err := deployment(tx)
	if err != nil {
		return err
	}
	return d.Changes()
}
