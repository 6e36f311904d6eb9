// Package api is bootd's HTTP interface for operators and their programs:
// JSON under /v1, server-sent events at /v1/events, problem details (RFC 9457)
// as errors. It is served on a unix socket, whose permissions say who may use
// it; machines cannot reach it.
//
// Handlers return values and errors; one function writes them as HTTP. The
// package knows nothing of how things are done: what it needs is in [Config],
// as functions. The client for it is internal/client.
package api
