package ipxe

import "bootd/boot"

// A dialect is how one kind of loader is told what to do. What it is told does
// not depend on it.
type dialect interface {
	// client is who speaks it.
	client() boot.Client
	// script boots an image. The error says what of it this loader cannot do.
	script(Params) ([]byte, error)
	// localDisk goes on with the machine's own disk.
	localDisk(name, profile string, efi bool) []byte
	// wait shows lines and, if the loader can, asks again.
	wait(base string, lines ...string) []byte
	// reacquire is wait for a machine that has to ask for its address first.
	reacquire(base string, lines ...string) []byte
}

type ipxeDialect struct{}

func (ipxeDialect) client() boot.Client                           { return boot.IPXE }
func (ipxeDialect) script(p Params) ([]byte, error)               { return Script(p) }
func (ipxeDialect) localDisk(name, profile string, e bool) []byte { return LocalDisk(name, profile, e) }
func (ipxeDialect) wait(base string, lines ...string) []byte      { return Wait(base, lines...) }
func (ipxeDialect) reacquire(base string, lines ...string) []byte { return Reacquire(base, lines...) }
