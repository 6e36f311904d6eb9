// Package tftp hands out boot loaders by TFTP (RFC 1350, with the options of
// RFC 2347 to 2349 and RFC 7440), read-only.
//
// # What is there
//
// A name is looked up in four places, and the first that has it wins:
//
//  1. the overlay, a directory of the operator's such as an old /tftpboot with
//     pxelinux.0 and pxelinux.cfg, which so keeps working unchanged;
//  2. autoexec.ipxe in any folder, made up on the spot: iPXE looks for it beside
//     the place it was loaded from, and finds the way to bootd's first script;
//  3. the iPXE builds, by the names that package boot gives them;
//  4. whatever an [Asker] has, such as scripts for GRUB and U-Boot.
//
// A Raspberry Pi asks for each file in a folder that is called by its serial
// number or MAC. What the overlay does not have there is looked for above, so that
// such a folder needs to hold only what differs from machine to machine.
//
// Names come from firmware, so backslashes, leading and doubled slashes and a
// trailing 0xff (firmware that reads DHCP option 67 past its end) are all
// understood. No name leads outside the overlay: it is opened through [os.Root],
// which also refuses symbolic links that do. Links inside it work when they are
// relative.
//
// # How it is kept in bounds
//
// Each transfer has a goroutine and a socket of its own. A request without an answer
// costs little: memory for more than a block is taken once its client has answered,
// and 256 are sent a file at the same time. The others have been told the options by
// then and wait, so a thousand machines that are switched on together are served one
// after the other instead of asking in vain. Of 2,048 sessions that are all taken, the
// oldest whose client has never answered gives way: requests with made-up senders keep
// nobody out. One client can have eight, and gives one up for a client that waits and
// has fewer. A request too many gets no answer rather than an error: firmware asks
// again after a timeout, and gives up on an error.
//
// Packets are written here and not by pin/tftp, whose server has no windows
// (RFC 7440), no timeout of the client's choice (RFC 2349), and no way to end or
// postpone a transfer; the conversion of text is that library's.
//
// The package starts no goroutine that outlives [Server.Run]. It keeps no record
// of machines: a completed transfer becomes an event, which the recorder assigns
// to a machine by its address.
package tftp
