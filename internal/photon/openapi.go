package photon

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"bootd/internal/openapi"
	"bootd/internal/photon/wire"
)

// documentPath is where the description of the API is.
const documentPath = "/openapi-photon.json"

// Document is the description of the API (OpenAPI 3.0), for a version of bootd.
func Document(version string) (json.RawMessage, error) {
	return openapi.Service{
		Title: "bootd, as a Photon Controller", Version: version,
		About: "Photon Controller's API, version 1.1.1, as far as bootd has it. What changes something answers with a " +
			"Task. Lists come in pages: pageSize says how large, nextPageLink where the next one is. " +
			"Moments are milliseconds since 1970.",
		Error: wire.Error{}, Source: wire.Source, Operations: operations(),
	}.Document()
}

// A list reads a page of what there is; parameters narrow it.
func list[T any](path, about string, parameters ...string) openapi.Operation {
	o := openapi.Operation{Method: http.MethodGet, Path: path, About: about, Answer: wire.List[T]{}}
	for _, p := range append(parameters, "pageLink") {
		o.Query = append(o.Query, openapi.Parameter{Name: p, About: narrows[p], Type: ""})
	}
	o.Query = append(o.Query, openapi.Parameter{Name: "pageSize", About: "how many at most, 1 to 100", Type: 0})
	return o
}

// narrows says what the parameters of lists are.
var narrows = map[string]string{
	"name": "only those of this name", "kind": "only those of this kind", "state": "only those in this state",
	"entityKind": "only those about such an entity", "entityId": "only those about this entity",
	"since": "only what came after this moment, in milliseconds since 1970", "pageLink": "the page of an answer's link",
}

func get(path, about string, answer any) openapi.Operation {
	return openapi.Operation{Method: http.MethodGet, Path: path, About: about, Answer: answer}
}

// change is what answers with a task: 201 where more than a record is changed, and
// 200 as Photon Controller does elsewhere.
func change(method, path, about string, body any, status int) openapi.Operation {
	return openapi.Operation{Method: method, Path: path, About: about, Body: body, Answer: wire.Task{}, Status: status}
}

// operations describes what [server.routes] has.
func operations() []openapi.Operation {
	var out []openapi.Operation
	for _, some := range [][]openapi.Operation{systemOperations(), tenantOperations(), hostOperations(), workOperations(), vmOperations()} {
		out = append(out, some...)
	}
	return out
}

func systemOperations() []openapi.Operation {
	const post, made, done, deployment = http.MethodPost, http.StatusCreated, http.StatusOK, "/deployments/{id}"
	return []openapi.Operation{
		get(documentPath, "this document", map[string]any{}),
		get("/auth", "whether a token is needed", wire.Auth{}),
		get("/available", "whether the server answers", struct{}{}),
		get("/info", "which server this is", wire.Info{}),
		get("/status", "how the server is", wire.Status{}),
		get("/endpoint", "where the API is reached; Photon Controller has none such", wire.Endpoint{}),
		list[wire.Deployment]("/deployments", "the deployments: bootd itself"),
		get(deployment, "a deployment", wire.Deployment{}),
		list[struct{}](deployment+"/vms", "the VMs that a deployment runs in: none"),
		change(post, deployment+"/set_security_groups", "who may change everything", wire.Items{}, done),
		change(post, deployment+"/set_image_datastores", "where images are kept", wire.Items{}, done),
		change(post, deployment+"/enable_cluster_type", "allow a kind of clusters", wire.ClusterConfiguration{}, made),
		change(post, deployment+"/disable_cluster_type", "allow a kind of clusters no more", wire.ClusterConfiguration{}, made),
		change(post, deployment+"/pause_system", "take no changes", nil, made),
		change(post, deployment+"/pause_background_tasks", "do nothing by itself", nil, made),
		change(post, deployment+"/resume_system", "end both", nil, made),
		list[wire.Task]("/tasks", "what was asked for", "entityKind", "entityId", "state"),
		get("/tasks/{id}", "a task", wire.Task{}),
		list[wire.Audited]("/audit", "who changed what; Photon Controller has none such", "since"),
	}
}

func tenantOperations() []openapi.Operation {
	const post, del, made, done = http.MethodPost, http.MethodDelete, http.StatusCreated, http.StatusOK
	return []openapi.Operation{
		list[wire.Tenant]("/tenants", "the tenants", "name"),
		change(post, "/tenants", "make a tenant", wire.TenantSpec{}, made),
		get("/tenants/{id}", "a tenant", wire.Tenant{}),
		change(del, "/tenants/{id}", "remove a tenant without projects", nil, made),
		list[wire.Task]("/tenants/{id}/tasks", "what was asked of a tenant", "state"),
		change(post, "/tenants/{id}/set_security_groups", "who may work in a tenant's projects", wire.Items{}, done),
		list[wire.ResourceTicket]("/tenants/{id}/resource-tickets", "what a tenant may use", "name"),
		change(post, "/tenants/{id}/resource-tickets", "give a tenant something that it may use", wire.ResourceTicketSpec{}, made),
		list[wire.Project]("/tenants/{id}/projects", "a tenant's projects", "name"),
		change(post, "/tenants/{id}/projects", "make a project", wire.ProjectSpec{}, made),
		get("/resource-tickets/{id}", "a resource ticket", wire.ResourceTicket{}),
		list[wire.Task]("/resource-tickets/{id}/tasks", "what was asked of a resource ticket", "state"),
		get("/projects/{id}", "a project", wire.Project{}),
		change(del, "/projects/{id}", "remove an empty project", nil, made),
		list[wire.Task]("/projects/{id}/tasks", "what was asked of a project", "state"),
		change(post, "/projects/{id}/set_security_groups", "who may work in a project", wire.Items{}, done),
		list[wire.Flavor]("/flavors", "the flavors of VMs and disks", "name", "kind"),
		change(post, "/flavors", "make a flavor", wire.FlavorSpec{}, made),
		get("/flavors/{id}", "a flavor", wire.Flavor{}),
		change(del, "/flavors/{id}", "remove a flavor", nil, made),
		list[wire.Task]("/flavors/{id}/tasks", "what was asked of a flavor", "state"),
	}
}

func hostOperations() []openapi.Operation {
	const post, del, made, done = http.MethodPost, http.MethodDelete, http.StatusCreated, http.StatusOK
	out := []openapi.Operation{
		list[wire.Host]("/hosts", "the hosts, as servers before 0.8 had them"),
		list[wire.Host]("/deployments/hosts", "the hosts, for clients that leave the deployment out"),
		change(post, "/deployments/hosts", "add a host, for clients that leave the deployment out", wire.HostSpec{}, made),
		list[wire.Host]("/deployments/{id}/hosts", "the hosts"),
		change(post, "/deployments/{id}/hosts", "add a host", wire.HostSpec{}, made),
		get("/hosts/{id}", "a host", wire.Host{}),
		change(del, "/hosts/{id}", "give a host up", nil, made),
		list[wire.Task]("/hosts/{id}/tasks", "what was asked of a host", "state"),
		list[wire.VM]("/hosts/{id}/vms", "the VMs on a host"),
		list[wire.Image]("/images", "the images of VMs", "name"),
		{Method: post, Path: "/images", About: "upload an image: a form whose field ImageReplication, EAGER or ON_DEMAND, stands before the file",
			Body: struct {
				ImageReplication string `json:"ImageReplication"`
				File             []byte `json:"file"`
			}{}, BodyType: "multipart/form-data", Answer: wire.Task{}, Status: made},
		get("/images/{id}", "an image", wire.Image{}),
		change(del, "/images/{id}", "remove an image", nil, made),
		list[wire.Task]("/images/{id}/tasks", "what was asked of an image", "state"),
	}
	for _, verb := range [][2]string{
		{"suspend", "put no new VMs on a host"}, {"resume", "put VMs on a host again"}, {"provision", "make a host ready"},
		{"enter_maintenance", "a host is worked on"}, {"exit_maintenance", "a host is worked on no more"},
	} {
		out = append(out, change(post, "/hosts/{id}/"+verb[0], verb[1], nil, done))
	}
	return out
}

func workOperations() []openapi.Operation {
	const post, del, made, done = http.MethodPost, http.MethodDelete, http.StatusCreated, http.StatusOK
	return []openapi.Operation{
		list[wire.VM]("/projects/{id}/vms", "a project's VMs", "name"),
		get("/vms/{id}", "a VM", wire.VM{}),
		list[wire.Task]("/vms/{id}/tasks", "what was asked of a VM", "state"),
		change(http.MethodGet, "/vms/{id}/subnets", "ask a VM for its addresses; they are in the task's resourceProperties", nil, made),
		change(http.MethodGet, "/vms/{id}/networks", "the same, as servers before 1.0 had it", nil, made),
		list[wire.Cluster]("/projects/{id}/clusters", "a project's clusters"),
		change(post, "/projects/{id}/clusters", "make a cluster", wire.ClusterSpec{}, made),
		get("/clusters/{id}", "a cluster", wire.Cluster{}),
		change(del, "/clusters/{id}", "remove a cluster with its VMs", nil, made),
		list[wire.Task]("/clusters/{id}/tasks", "what was asked of a cluster", "state"),
		list[wire.VM]("/clusters/{id}/vms", "a cluster's VMs"),
		change(post, "/clusters/{id}/resize", "more workers, or fewer", wire.ClusterResize{}, made),
		change(post, "/clusters/{id}/trigger_maintenance", "replace what is lost", nil, done),
	}
}

// vmOperations are those that change VMs.
func vmOperations() []openapi.Operation {
	const post, made, vm = http.MethodPost, http.StatusCreated, "/vms/{id}"
	out := []openapi.Operation{
		change(post, "/projects/{id}/vms", "make a VM", wire.VMSpec{}, made),
		change(http.MethodDelete, vm, "remove a VM that is off", nil, made),
		change(post, vm+"/operations", "switch a VM, as servers before 0.8 had it", wire.Operation{}, made),
		change(post, vm+"/attach_disk", "give a VM a disk", wire.DiskOperation{}, made),
		change(post, vm+"/detach_disk", "take a disk from a VM", wire.DiskOperation{}, made),
		change(post, vm+"/set_metadata", "replace what people keep with a VM", wire.Metadata{}, made),
		change(post, vm+"/tags", "add a tag to a VM", wire.Tag{}, made),
		change(post, vm+"/create_image", "make an image of a VM", wire.ImageSpec{}, made),
		change(http.MethodGet, vm+"/mks_ticket", "open the screen of a VM; how is in the task's resourceProperties", nil, made),
	}
	for _, verb := range slices.Sorted(maps.Keys(powerVerbs)) {
		out = append(out, change(post, vm+"/"+verb, verb+" a VM", nil, made))
	}
	return out
}
