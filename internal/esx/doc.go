// Package esx makes a standalone ESXi host do what the controller asks of a
// hypervisor: through the host's own API, without an agent on it and without
// vCenter.
//
// A [Host] is one ESXi. It connects when it is first needed, trusts only the
// certificate whose fingerprint it was given, and logs in again when its
// session has ended. It may be used by any number of goroutines: how many calls,
// tasks and copies run on the host at once is bounded ([Config]), and the rest
// waits.
//
// Everything bootd makes on a host is in directories named after its ID, at the
// top of a datastore: bootd-vm-ID, bootd-image-ID, bootd-disk-ID. What is in
// none of them the package never changes or deletes. Each verb may be repeated
// after a crash: it looks for what is there already, "so already" is success,
// and files become visible under their final name only when they are whole.
//
// Errors are [fleet.Fault]s, or those of the context. The kind says what can be
// done about one.
//
// It keeps no records and decides nothing: which VM goes where is the
// controller's business.
package esx
