// Package client asks a running bootd through its unix socket, for the command
// line: a method for each thing that internal/api tells, with its types. What
// the server refuses comes back as the server's own words; when there is no
// server, the error says so and what to do.
//
// It keeps nothing between calls but connections, and a Client may be used by
// several goroutines.
package client
