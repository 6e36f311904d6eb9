// Package ignition turns a profile into the Ignition config of one node. It
// owns Butane, Ignition's config specification, and the cpio archive in which
// a config can travel as an initrd. It is pure: no files, no network, no
// clock, and the same input gives the same bytes.
//
// # Layers
//
// A config is merged from layers, of which a later one wins:
//
//  1. what bootd adds for the node itself: its host name, and the units that
//     report to bootd and join the swarm (folder node);
//  2. the profile's own keys: ssh_keys, files, units;
//  3. the profile's Butane fragments, in their order.
//
// Each fragment is translated on its own, and the resulting Ignition configs
// are merged, with Ignition's own merge: files by path, units and users by
// name, lists appended. Merging the Butane texts first into one document would
// be wrong in three ways: fragments may be of different versions, and one word
// need not mean the same in both; Butane's sugar (boot_device, with_mount_unit)
// expands into entries that only exist after translation; and a mistake could
// no longer be shown in the line where it was written. So there is no merged
// Butane document, not even for reading: what [Rendered.Pretty] shows is the
// config that is served. Ignition's merge is departed from in one point: a
// layer that gives a file a new source replaces all that described the old
// one (its hash, compression, HTTP headers), which could only break the file.
//
// # Versions
//
// Inside, everything is held in [Newest]. A config is served in the highest
// version that a fragment asked for, or, to a node whose Ignition is older, in
// the lowest version that says the same; see [Rendered.For].
//
// # Use
//
// [Prepare] does what depends on the profile alone, which is nearly all of the
// work, and finds every mistake; it is meant for the time when a profile is
// loaded. [Template.Render] then costs a fraction of a millisecond per node.
// Templates and what is rendered from them are immutable and safe for
// concurrent use.
package ignition
