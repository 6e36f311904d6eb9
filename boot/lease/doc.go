// Package lease allocates IPv4 addresses and remembers to whom.
//
// A [Table] is the state machine: offered, bound, released, declined, expired.
// A lease belongs to a hardware address on a network, not to a client
// identifier: one network card shows three of those on its way from ROM through
// iPXE to Linux, and must keep its address all the way.
//
// What is acknowledged survives: [Table.Bind], Release and Decline write to a
// journal, and [Table.Flush] returns when everything written before is on stable
// storage. Who sends an ACK calls Flush first, once for as many leases as it has
// (group commit). Offers are not kept; after a restart a machine that was
// offered an address may still ask for it.
//
// A Table is safe for several goroutines, and each of its methods is one step
// that no other comes between. It starts a goroutine now and then, for
// compaction, which Close waits for. It looks at no clock: times are arguments.
// Which addresses a client may have is not its concern either: that comes with
// each call, as a [Pool].
package lease
