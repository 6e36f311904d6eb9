// Package ipxe answers what firmware, iPXE and booting systems ask over HTTP:
//
//	/boot.ipxe                      the first script: every network card, link, address, inventory
//	/ipxe?mac=..&uuid=..&serial=..  the machine's own script
//	/grub/grub.cfg, /grub?mac=...   the same for GRUB
//	/ignition/<ticket>              its Ignition config
//	/initrd/<ticket>/config.cpio    the same, wrapped for machines that cannot fetch it
//	/esxi/<ticket>/boot.cfg, ks.cfg what the installer of ESXi is to do (and pxelinux.cfg)
//	/report/<ticket>                what the machine tells of its boot (POST)
//	/loader/<name>                  iPXE builds, for UEFI that boots by HTTP
//	/assets/...                     kernels and file systems, served by somebody else
//
// Nothing here redirects, because firmware does not follow; links carry the
// address at which the client reached this machine, never what it wrote into a
// Host header.
//
// # Scripts
//
// What iPXE is told is made by pure functions ([First], [Script], [LocalDisk],
// [Wait]) from checked values. iPXE has no quoting: its parser splits lines at
// white space, then expands ${...}, and takes ||, &&, ; and #... as its own when
// they stand alone. So what a machine says of itself is cleaned before it is
// echoed, and a kernel argument that iPXE would change is an error. Scripts keep
// to commands that iPXE had in January 2019 (1.0.0+git-20190125, which Debian 12
// and QEMU bring along); see the tests for which those are. A machine that cannot
// boot yet gets a script that says why and asks again, with status 200: iPXE
// does not show the body of an error.
//
// # Other loaders
//
// GRUB, behind a distribution's signed shim, and U-Boot are told the same things in
// their own languages ([GRUBScript], [Extlinux]): what a machine gets is decided
// once, and a dialect says it. What they ask for by TFTP comes from [Handler.File].
// GRUB, too, is told to ask again; U-Boot asks once.
//
// # Secrets
//
// An Ignition config can hold a token with which anybody joins the swarm, so it is
// given out once the script of a boot was: to who shows that boot's ticket, from
// the address that the ticket is bound to, in time, and until the machine has
// reported that its system is up. Ignition goes on asking after a 503 and gives up
// at a 4xx, so what may pass is a 503. Each refusal becomes an event.
//
// # Systems that are installed
//
// ESXi is installed on a disk and then boots from there: [Installs] remembers
// where. The files of an installation are behind the ticket of its boot as an
// Ignition config is. That it has succeeded is believed of the installer that
// fetched its ks.cfg, by its report; a GET changes nothing, so an installation that
// failed, or a stranger's request, is not taken for one.
//
// A [Handler] may be used by several goroutines at once and starts none. It keeps
// nothing: boots are the recorder's ([Boots]), tickets prove themselves, so
// after a restart everything goes on. It does not decide what a machine boots, and
// does not render configs; functions in [Config] do.
package ipxe
