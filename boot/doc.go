// Package boot holds the nouns of network booting and the decision that joins
// them: which machine is this, and what does it boot.
//
// Everything here is a plain value or a pure function. The packages below it
// (dhcp, tftp, ipxe, lease) talk to machines and ask this one what to say;
// nothing here opens a socket, reads a file or looks at a clock.
//
// The configuration, once checked, is a [Catalog]: networks, profiles and
// machines, immutable, swapped as a whole when a file changes. A machine shows
// itself by an [Inventory], which grows from one request to the next (DHCP
// tells the hardware address and the architecture, iPXE the serial number).
// [Catalog.Assign] answers with an [Assignment]: the machine's name and its
// effective [Profile], each value with the [Origin] it came from.
//
// What happens to a machine is an [Event]. The events from one power-on to the
// next make a [Timeline], which knows what should come next and why it may be
// missing.
package boot
