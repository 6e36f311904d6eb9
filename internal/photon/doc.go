// Package photon is Photon Controller's REST API over the verbs of package
// controller, so that the photon command line, its Go SDK and the scripts that
// use them work against bootd. It speaks the unversioned API of server 1.1.1 and
// the spellings of its predecessors down to 0.8.
//
// [New] makes a handler of all routes; who may call it is decided by
// [Config.Authenticate]. [Listen] serves one with TLS, for everyone who can reach
// it; the same handler also serves on the local operator's socket.
//
// What is decided here is only form: paths, JSON, pages, statuses. Rules and
// errors are those of packages fleet and controller.
package photon
