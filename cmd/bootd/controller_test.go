package main

import (
	"context"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

// sameLine checks that the lines with a word are the same in a file and in what a
// command prints: same WORD FILE COMMAND...
func sameLine(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(ts.Exec(args[2], args[3:]...))
	pick := func(text string) string {
		var out []string
		for l := range strings.Lines(text) {
			if strings.Contains(l, args[0]) {
				out = append(out, l)
			}
		}
		return strings.Join(out, "")
	}
	before, now := pick(ts.ReadFile(args[1])), pick(ts.ReadFile("stdout"))
	if before == "" || (before == now) == neg {
		ts.Fatalf("before:\n%snow:\n%s", before, now)
	}
}

// findEndpoint puts the address of the controller behind a socket into $ENDPOINT:
// endpoint SOCKET.
func findEndpoint(ts *testscript.TestScript, _ bool, args []string) {
	e, err := client.FleetGet[photonwire.Endpoint](context.Background(), client.New(ts.MkAbs(args[0])).Fleet(), "/endpoint")
	ts.Check(err)
	ts.Setenv("ENDPOINT", "https://"+e.Address)
}

// firstWord puts the first word of a file into a variable: first FILE NAME.
func firstWord(ts *testscript.TestScript, _ bool, args []string) {
	words := strings.Fields(ts.ReadFile(args[0]))
	if len(words) == 0 {
		ts.Fatalf("%s is empty", args[0])
	}
	ts.Setenv(args[1], words[0])
}
