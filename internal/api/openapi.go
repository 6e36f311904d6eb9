package api

import (
	"embed"
	"encoding/json"
	"net/http"

	"bootd/boot"
	"bootd/internal/openapi"
)

// documentPath is where the description of the API is.
const documentPath = "/openapi.json"

//go:embed types.go orders.go swarm.go power.go
var source embed.FS

// Document is the description of the API (OpenAPI 3.0), for a version of bootd.
func Document(version string) (json.RawMessage, error) {
	return openapi.Service{
		Title: "bootd", Version: version,
		About: "What operators and their programs can ask of bootd, on its unix socket: " +
			"`curl --unix-socket /run/bootd/bootd.sock http://bootd/v1/machines`. Machines are named by name or " +
			"hardware address, nodes by machine, host name or the beginning of their ID.",
		Error: Problem{}, ErrorType: problemType, Source: source, Operations: operations(),
	}.Document()
}

// operations describes what [api.routes] has.
func operations() []openapi.Operation {
	swarm := openapi.Parameter{Name: "swarm", About: "name of the swarm, if there are several", Type: ""}
	const id = "/v1/machines/{id}"
	return []openapi.Operation{
		{Method: http.MethodGet, Path: documentPath, About: "this document", Answer: map[string]any{}},
		{Method: http.MethodGet, Path: "/v1/status", About: "how the server is, and mistakes in its configuration", Answer: Status{}},
		{Method: http.MethodGet, Path: "/v1/machines", About: "machines that are configured or have been seen", Answer: []Machine{}},
		{Method: http.MethodGet, Path: id, About: "a machine", Answer: Machine{}},
		{Method: http.MethodDelete, Path: id, About: "forget what is known of a machine: its boots, its lease, its orders"},
		{Method: http.MethodGet, Path: id + "/boots", About: "a machine's boots that are remembered, the newest first", Answer: []boot.Timeline{}},
		{Method: http.MethodPost, Path: id + "/approve", About: "let an unknown machine boot", Body: Approval{}},
		{Method: http.MethodPut, Path: id + "/next", About: "another profile for the next boot only", Body: Next{}},
		{Method: http.MethodDelete, Path: id + "/next", About: "take the order for the next boot back"},
		{Method: http.MethodPut, Path: id + "/install", About: "install the disk anew at the next boot"},
		{Method: http.MethodDelete, Path: id + "/install", About: "take the order to install back"},
		{Method: http.MethodGet, Path: id + "/power", About: "whether a machine is on", Answer: PowerState{}},
		{Method: http.MethodPost, Path: id + "/power", About: "switch a machine", Body: PowerOrder{}, Answer: PowerState{}},
		{Method: http.MethodGet, Path: "/v1/leases", About: "who has which address", Answer: []Lease{}},
		{Method: http.MethodDelete, Path: "/v1/leases/{addr}", About: "take an address back"},
		{Method: http.MethodGet, Path: "/v1/swarm/nodes", About: "the nodes of all swarms, or of one", Query: []openapi.Parameter{swarm}, Answer: []Node{}},
		{Method: http.MethodDelete, Path: "/v1/swarm/nodes/{node}", About: "remove a node", Answer: Removal{},
			Query: []openapi.Parameter{swarm, {Name: "force", About: "also if it is ready", Type: false}}},
		{Method: http.MethodPut, Path: "/v1/swarm/nodes/{node}/availability", About: "drain, pause or activate a node",
			Query: []openapi.Parameter{swarm}, Body: Availability{}, Answer: Node{}},
		{Method: http.MethodPost, Path: "/v1/swarm/prune", About: "remove the nodes that are down", Answer: []Removal{},
			Query: []openapi.Parameter{swarm, {Name: "dry_run", About: "only tell which", Type: false}}},
		{Method: http.MethodPost, Path: "/v1/swarm/tokens/rotate", About: "make the join tokens invalid", Query: []openapi.Parameter{swarm}},
		{Method: http.MethodPost, Path: "/v1/swarm/replace", About: "give up a swarm that is lost", Query: []openapi.Parameter{swarm}, Answer: Replaced{}},
		{Method: http.MethodGet, Path: eventsPath, About: "what happened, and what happens, as server-sent events; the data of each is an Event",
			Query: []openapi.Parameter{
				{Name: "after", About: "begin after the event of this number; so does the header Last-Event-ID", Type: uint64(0)},
				{Name: "machine", About: "only the events of one machine", Type: ""},
				{Name: "follow", About: "go on as events happen", Type: false},
			}, Answer: "", AnswerType: "text/event-stream"},
		{Method: http.MethodPost, Path: eventsPath, About: "tell that a machine was switched on: an event of the stage power", Body: boot.Event{}},
	}
}
