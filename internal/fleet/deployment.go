package fleet

import (
	"fmt"
	"slices"
	"strings"
)

// A Deployment is bootd itself, as Photon's clients see it; there is one.
type Deployment struct {
	ID              DeploymentID            `json:"id"`
	State           DeploymentState         `json:"state"`
	ImageDatastores []string                `json:"imageDatastores,omitempty"` // names; empty: all
	ImagesForVMs    bool                    `json:"imagesForVMs,omitzero"`     // image datastores take VMs too
	SecurityGroups  []SecurityGroup         `json:"securityGroups,omitempty"`
	Clusters        map[ClusterType]ImageID `json:"clusters,omitempty"` // types that are enabled, and what their nodes boot
}

// A DeploymentState is whether bootd takes changes.
type DeploymentState string

// The states of deployments.
const (
	DeploymentCreating         DeploymentState = "CREATING"
	DeploymentReady            DeploymentState = "READY"
	DeploymentPaused           DeploymentState = "PAUSED"            // only reads
	DeploymentBackgroundPaused DeploymentState = "BACKGROUND_PAUSED" // only what is asked for
	DeploymentError            DeploymentState = "ERROR"
	DeploymentNotDeployed      DeploymentState = "NOT_DEPLOYED"
)

var deploymentEdges = edges[DeploymentState]{
	DeploymentCreating:         {DeploymentReady, DeploymentError},
	DeploymentReady:            {DeploymentPaused, DeploymentBackgroundPaused, DeploymentError},
	DeploymentPaused:           {DeploymentReady, DeploymentBackgroundPaused, DeploymentError},
	DeploymentBackgroundPaused: {DeploymentReady, DeploymentPaused, DeploymentError},
	DeploymentError:            {DeploymentReady, DeploymentNotDeployed},
	DeploymentNotDeployed:      {DeploymentCreating},
}

var running = []DeploymentState{DeploymentReady, DeploymentPaused, DeploymentBackgroundPaused}

var deploymentRules = []rule[DeploymentState]{
	{PauseSystem, running, DeploymentPaused},
	{PauseBackgroundTasks, running, DeploymentBackgroundPaused},
	{ResumeSystem, running, DeploymentReady},
}

// CanBecome reports whether a deployment may go from one state to another.
func (s DeploymentState) CanBecome(to DeploymentState) bool { return deploymentEdges.has(s, to) }

// After is the state that a verb leads to, or an error with code [StateError].
func (d Deployment) After(op Operation) (DeploymentState, error) {
	return after(deploymentRules, Ref{KindDeployment, string(d.ID)}, d.State, op)
}

// Changes is nil, or the error of changing anything while the system is paused.
func (d Deployment) Changes() error {
	if d.State == DeploymentPaused {
		return Errorf(SystemPaused, "System is paused")
	}
	return nil
}

// WithImageDatastores is the deployment with other image datastores; they can
// only become more.
func (d Deployment) WithImageDatastores(names []string) (Deployment, error) {
	for _, n := range d.ImageDatastores {
		if !slices.Contains(names, n) {
			return d, Errorf(InvalidImageDatastoreSet, "New image datastore list [%s] is not a super set of existing list [%s]",
				strings.Join(names, ", "), strings.Join(d.ImageDatastores, ", "))
		}
	}
	d.ImageDatastores = slices.Compact(slices.Sorted(slices.Values(names)))
	return d, nil
}

// Enable is the deployment with a type of clusters, whose nodes boot an image;
// none: from the network.
func (d Deployment) Enable(t ClusterType, image ImageID) (Deployment, error) {
	if !slices.Contains(ClusterTypes(), t) {
		return d, Errorf(InvalidJSON, "The supplied JSON could not be parsed: type %q was not one of %v", string(t), ClusterTypes())
	}
	if _, ok := d.Clusters[t]; ok {
		return d, Errorf(ClusterTypeAlreadyConfigured, "Only one ClusterConfiguration is allowed to be present for %s", t)
	}
	clusters := map[ClusterType]ImageID{t: image}
	for k, v := range d.Clusters {
		clusters[k] = v
	}
	d.Clusters = clusters
	return d, nil
}

// Disable is the deployment without a type of clusters.
func (d Deployment) Disable(t ClusterType) (Deployment, error) {
	if _, ok := d.Clusters[t]; !ok {
		return d, Errorf(ClusterTypeNotConfigured, "No cluster configuration exists for %s", t)
	}
	clusters := map[ClusterType]ImageID{}
	for k, v := range d.Clusters {
		if k != t {
			clusters[k] = v
		}
	}
	d.Clusters = clusters
	return d, nil
}

// ImageOf is what the nodes of a type of clusters boot, or the error for a type
// that is not enabled.
func (d Deployment) ImageOf(t ClusterType) (ImageID, error) {
	image, ok := d.Clusters[t]
	if !ok {
		return "", &Error{Code: SpecInvalid, Message: fmt.Sprintf("No cluster configuration exists for %s cluster", t)}
	}
	return image, nil
}
