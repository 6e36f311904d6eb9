package config

import "os"

// Socket tells where the server of a configuration directory has its API, as
// far as [ServerFile] can be understood, or else the default. It is for who asks
// a running server about the mistakes in that very directory.
func Socket(dir string) string {
	l := &loader{config: defaults(dir), profiles: map[string]*rawProfile{}, lost: map[string]bool{}}
	l.read(os.DirFS(dir), ServerFile, l.server, true)
	return l.config.Socket
}
