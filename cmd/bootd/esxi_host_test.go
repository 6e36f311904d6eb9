package main

import (
	"github.com/rogpeppe/go-internal/testscript"

	"bootd/internal/esx/esxtest"
)

// startESXi starts a simulated ESXi host, and puts its address and the fingerprint of
// its certificate into $NAME and $NAME_FINGERPRINT: esxi NAME.
func startESXi(ts *testscript.TestScript, _ bool, args []string) {
	h, err := esxtest.Start(esxtest.Options{Name: args[0], MemoryBytes: 8 << 30, Cores: 8, DatastoreBytes: 1 << 40, Serial: true})
	ts.Check(err)
	ts.Defer(h.Close)
	ts.Setenv(args[0], h.Address())
	ts.Setenv(args[0]+"_FINGERPRINT", h.Fingerprint())
}
