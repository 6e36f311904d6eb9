// Package controller holds the verbs of the controller core: what people do with
// tenants, resource tickets, projects and flavors, in Photon Controller's words
// (package fleet). Hosts, images, VMs and clusters are to follow.
//
// # Changes
//
// Every verb that changes something is one transaction: whoever asks is
// authorized, the rules of package fleet are asked, quota is charged, the
// records are written, and with them the task that tells of it and a line of the
// audit log. Either all of that is on stable storage when a verb returns, or
// nothing happened. Verbs that take long will only order a task in theirs.
//
// # Records
//
// Each entity is a record of its own kind in the store, by its ID. Names that
// must not be given twice are records of the kind "name", so that two who want
// one at the same time read the same record, and one of them loses. What an
// entity contains is counted in a record beside it, for the same reason.
//
// # Errors
//
// Those for clients are [fleet.Error] with Photon's codes and texts. Others mean
// that the store cannot be read or written.
//
// Methods may be called from any goroutine. The package imports no adapter.
package controller
