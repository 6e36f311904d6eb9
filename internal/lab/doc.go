// Package lab runs a rack of diskless machines on one host: QEMU machines on a
// private bridge, a swarm manager's engine and a boot server, all inside a
// network namespace of their own from which nothing reaches the outside. The
// demo and the end-to-end tests run on it, and people try their profiles on it.
//
// A [Lab] is only a name; what exists is what is found in the run directory
// and in the kernel. Each method therefore works in any process, one after
// another: `lab up` and `lab power` are separate programs. A lock file makes
// methods that change something wait for each other; methods that only look
// take no lock. Everything is recorded before it is relied on, so that
// [Lab.Down] finds and removes what a killed process left behind.
//
// The machines boot from the network alone, by BIOS, UEFI PXE (with
// or without Secure Boot) or UEFI HTTP.
// What they boot is the business of whoever serves the network; [BuildImage]
// makes a small live image for it, with the boot contract of Fedora CoreOS.
//
// Root is needed for nearly all of it. The package reads no environment and
// knows nothing of bootd's configuration but the directory it is in.
package lab
