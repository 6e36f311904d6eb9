// Package api is bootd's HTTP interface for operators and their programs:
// JSON under /v1, server-sent events at /v1/events, problem details (RFC 9457)
// as errors. It is served on a unix socket, whose permissions say who may use
// it; machines cannot reach it. What is below, in full and with every field, is
// at /openapi.json, see [Document].
//
//	GET  /v1/status                how the server is, mistakes in its configuration
//	GET  /v1/machines              machines that are configured or have been seen
//	GET  /v1/machines/{id}         one of them, by name or hardware address
//	GET  /v1/machines/{id}/boots   its boots that are remembered, newest first
//	POST /v1/machines/{id}/approve let an unknown machine boot
//	PUT  /v1/machines/{id}/next    another profile for its next boot; DELETE takes it back
//	PUT  /v1/machines/{id}/install install its disk anew at its next boot; DELETE takes it back
//	GET  /v1/machines/{id}/power   whether it is on; POST switches it
//	DELETE /v1/machines/{id}       forget what is known of it
//	GET  /v1/leases                who has which address
//	DELETE /v1/leases/{addr}       take an address back
//	GET  /v1/swarm/nodes           the nodes of all swarms, or of swarm=NAME
//	DELETE /v1/swarm/nodes/{node}  remove a node; force=true if it is ready
//	PUT  /v1/swarm/nodes/{node}/availability   drain, pause or activate a node
//	POST /v1/swarm/prune           remove nodes that are down; dry_run=true only tells
//	POST /v1/swarm/tokens/rotate   make the join tokens invalid
//	POST /v1/swarm/replace         give up a swarm that is lost
//	GET  /v1/events                what happened; with follow, what happens
//	POST /v1/events                tell that a machine was switched on
//
// Handlers return values and errors; one function writes them as HTTP. The
// package knows nothing of how things are done: what it needs is in [Config],
// as functions. It keeps no state, so its handlers run side by side. Who the
// caller is, it does not look at: a listener for others than the operator has
// to find that out before it calls the handler. The client for it is
// internal/client.
package api
