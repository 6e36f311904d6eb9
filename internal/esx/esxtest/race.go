//go:build race

package esxtest

// Race reports whether the race detector is on.
const Race = true
