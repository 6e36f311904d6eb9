// Package controller holds the verbs of the controller core: what people do with
// tenants, resource tickets, projects, flavors, hosts, availability zones, images,
// subnets, disks, VMs and clusters, in Photon Controller's words (package fleet).
//
// # Changes
//
// Every verb that changes something is one transaction: whoever asks is
// authorized, the rules of package fleet are asked, quota is charged, the
// records are written, and with them the task that tells of it and a line of the
// audit log. Either all of that is on stable storage when a verb returns, or
// nothing happened. Verbs that take long order a task in theirs, whose steps can be
// repeated after a kill, and are undone when one fails for good.
//
// What a VM holds (of its project's quota, its host, its datastore) is noted in its
// record, and is given back in the transaction that notes that it is not held any
// more: exactly once. A place is chosen from what is known in memory, and committed
// with the records of the host and the datastore as the transaction reads them, so
// that two choices never promise more than there is. Where many change the same
// records they do so in turn.
//
// # Hosts
//
// [Controller.Run] watches all hosts: what they say of themselves, and what their
// VMs really do. What is to be deleted on a host that does not answer is noted, and
// deleted when the host is back, so that whoever deletes it need not wait.
//
// # Clusters
//
// A cluster is VMs, each with a record that says what it is in the cluster. What is to
// be done to them is decided by [fleet.Settle], again and again, from what is there:
// so nobody has to remember how far a task had come. What the VMs boot with, and how
// they do once they are up, is known to [Nodes].
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
