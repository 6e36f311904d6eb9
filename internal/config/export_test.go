package config

import "testing/fstest"

// LoadFiles is Load on files in memory, for the fuzz test.
func LoadFiles(files map[string]string) (*Config, error) {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return load("/config", fsys)
}
