// Package assets owns the files that machines boot: it fetches, verifies,
// imports, lists, removes and serves operating system images, and finds the
// iPXE builds of the system.
//
// # The store
//
// A [Store] is a directory. Files are kept once, under the digest of their
// contents, and never change; an image is a record that names them.
//
//	sha256/<digest>                    files, read-only
//	images/<name>/<cpu>/<version>.json a Record: which files make up the image
//	images/<name>/<cpu>/current        the version that machines get
//	partial/<name>@<cpu>/              downloads under way, resumed by the next Fetch
//	keys/                              public keys, put there by the operator
//	lock                               held by whoever changes sha256 or images
//
// Every change is one rename of a file that has been synced before, in an order
// in which whatever a reader sees is complete: files, then the record, then
// current. So a process killed at any moment leaves the old image or the new
// one. Readers take no locks. Writers, in this process or another (a daemon and
// any number of commands), hold the lock while they change something, and
// another one, per image, while they download. A reader that keeps what it has
// read sees by [Store.Stamp] when to read again.
//
// # Trust
//
// A file enters the store after its SHA-256 was computed from the disk and
// compared with what the source promised. Beyond that it depends on the source:
//
//   - Fedora CoreOS: the stream metadata promises digests, but whoever can
//     change the files of a mirror can change the metadata beside them, and
//     HTTPS only says which server was asked. So each file needs a detached
//     OpenPGP signature by a key that the operator has, which is checked besides
//     the digest. Keys that the Fedora distribution installed under a Fedora name
//     count; other vendors' package keys in the same directories do not.
//   - Flatcar: publishes no SHA-256, so the signature is all there is.
//   - Plain URLs: the digest is part of the configuration and is the trust; a
//     signature is checked when one is named.
//   - A local directory: the operator's word. A signature beside a file is
//     checked if its key is known.
//   - An installation medium of ESXi: the operator's word. VMware publishes its
//     digests to customers only.
//
// Signatures do not say which version a file belongs to: a hostile mirror can
// serve an old release. Only an image source marked insecure goes without
// signatures. No key is built in: keys expire and are replaced more often than
// programs are.
//
// A [Store] may be used by several goroutines at once. The package starts no
// goroutine that outlives a call, and knows nothing of machines or profiles.
//
// # Installation media
//
// ISO images are read by a reader of this package, since they are other people's
// files: what it reads is bounded in size, depth and number, checked to lie
// within the file, and never used as a path of this system.
package assets
