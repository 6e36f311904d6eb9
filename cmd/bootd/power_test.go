package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"bootd/internal/power/powertest"
)

// startBMC starts a BMC that speaks Redfish, writes its address and the
// fingerprint of its certificate in the place of BMC and PRINT in a file, and its
// password into another: bmc FILE PASSWORD-FILE.
func startBMC(ts *testscript.TestScript, _ bool, args []string) {
	const password = "Tr0ub4dor&3"
	s := (&powertest.BMC{User: "root", Password: password}).Start()
	ts.Defer(s.Close)
	path := ts.MkAbs(args[0])
	text, err := os.ReadFile(path)
	ts.Check(err)
	text = bytes.ReplaceAll(text, []byte("BMC"), []byte(s.Listener.Addr().String()))
	text = bytes.ReplaceAll(text, []byte("PRINT"), fmt.Appendf(nil, "%x", sha256.Sum256(s.Certificate().Raw)))
	ts.Check(os.WriteFile(path, text, 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(password), 0o600))
}
